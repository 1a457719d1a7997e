//! A broker inside the process: the client library's mock cluster, for the demonstration and for tests.
//!
//! It speaks the real protocol on a free port of this machine, so the ordinary client code runs against it.
//! What it does not do: it keeps nothing on disk, compacts nothing, isolates no transactions, answers no
//! administration requests, and **silently drops the oldest records of a partition beyond 5 MB or 100,000
//! records**. Whoever fills it must stop while the reader is that far behind; [`super::ConsumerGauges::lanes`]
//! tells how far, and [`EmbeddedBroker::RETENTION_BYTES`] what the limit is.

use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::client::Connection;
use super::trouble::Trouble;

type Cluster = MockCluster<'static, DefaultProducerContext>;
type Job = Box<dyn FnOnce(&Cluster) -> Result<(), KafkaError> + Send>;

/// A running broker; it ends when this is dropped.
pub struct EmbeddedBroker {
    orders: Sender<Order>,
    brokers: String,
    thread: Option<JoinHandle<()>>,
}

/// Something to do on the thread that owns the cluster, which cannot move between threads.
struct Order {
    run: Job,
    action: &'static str,
    done: Sender<Result<(), Trouble>>,
}

impl EmbeddedBroker {
    /// Bytes of records that a partition keeps; older ones are dropped.
    pub const RETENTION_BYTES: usize = 5 << 20;
    /// Records that a partition keeps; older ones are dropped.
    pub const RETENTION_RECORDS: usize = 100_000;

    /// Starts one broker on a free port.
    ///
    /// # Errors
    /// [`Trouble::Failed`] when no port or thread can be had.
    pub fn start() -> Result<Self, Trouble> {
        let (orders, inbox) = crossbeam_channel::bounded::<Order>(16);
        let (ready, started) = crossbeam_channel::bounded(1);
        let thread = std::thread::Builder::new()
            .name("embedded-broker".to_owned())
            .spawn(move || own_cluster(&ready, &inbox))
            .map_err(|error| failed("start", error))?;
        let brokers = started
            .recv()
            .map_err(|error| failed("start", error))?
            .map_err(|error| failed("start", error))?;
        Ok(Self { orders, brokers, thread: Some(thread) })
    }

    /// Returns the broker's address.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Returns the settings to connect with: this broker does not wake a waiting fetch, so none waits long.
    pub fn connection(&self) -> Connection {
        let mut connection = Connection::plain(self.brokers.clone());
        connection.extra.insert("fetch.wait.max.ms".to_owned(), "5".to_owned());
        connection
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// [`Trouble::Failed`] when it exists already.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), Trouble> {
        let name = name.to_owned();
        self.order("creating a topic", move |cluster| cluster.create_topic(&name, partitions, 1))
    }

    /// Cuts all connections and refuses new ones until [`Self::up`].
    ///
    /// # Errors
    /// [`Trouble::Failed`] when the broker's thread is gone.
    pub fn down(&self) -> Result<(), Trouble> {
        self.order("going down", |cluster| cluster.broker_down(-1))
    }

    /// Accepts connections again.
    ///
    /// # Errors
    /// [`Trouble::Failed`] when the broker's thread is gone.
    pub fn up(&self) -> Result<(), Trouble> {
        self.order("coming up", |cluster| cluster.broker_up(-1))
    }

    /// Makes every answer take this long.
    ///
    /// # Errors
    /// [`Trouble::Failed`] when the broker's thread is gone.
    pub fn delay(&self, delay: Duration) -> Result<(), Trouble> {
        self.order("slowing down", move |cluster| cluster.broker_round_trip_time(-1, delay))
    }

    /// Refuses the next commits of offsets: the user may not.
    #[cfg(test)]
    pub(super) fn refuse_commits(&self, commits: usize) {
        use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
        let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
        self.order("refusing commits", move |cluster| {
            cluster.request_errors(RDKafkaApiKey::OffsetCommit, &vec![denied; commits]);
            Ok(())
        })
        .unwrap();
    }

    fn order(
        &self,
        action: &'static str,
        run: impl FnOnce(&Cluster) -> Result<(), KafkaError> + Send + 'static,
    ) -> Result<(), Trouble> {
        let (done, answer) = crossbeam_channel::bounded(1);
        self.orders
            .send(Order { run: Box::new(run), action, done })
            .map_err(|error| failed(action, error))?;
        answer.recv().map_err(|error| failed(action, error))?
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        // Closing the channel ends the thread, and the cluster with it.
        self.orders = crossbeam_channel::bounded(0).0;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn own_cluster(ready: &Sender<Result<String, KafkaError>>, inbox: &Receiver<Order>) {
    let cluster = match Cluster::new(1) {
        Ok(cluster) => cluster,
        Err(error) => {
            drop(ready.send(Err(error)));
            return;
        }
    };
    drop(ready.send(Ok(cluster.bootstrap_servers())));
    for order in inbox {
        let outcome = (order.run)(&cluster).map_err(|error| failed(order.action, error));
        drop(order.done.send(outcome));
    }
}

fn failed(action: &str, error: impl std::fmt::Display) -> Trouble {
    Trouble::Failed { action: format!("embedded broker: {action}"), reason: error.to_string() }
}
