//! The server: few connections, small headers, short time-outs.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{interval, timeout};

use super::pages::Pages;
use crate::error::Stop;
use crate::shutdown::Shutdown;

/// Connections at once; a further one takes the place of the oldest: clients that connect and neither send nor read must not keep others out.
const CONNECTIONS: usize = 64;
/// Bytes of request line and headers.
const HEADER_BYTES: usize = 16 << 10;
/// From connecting, or from the last answer, to the end of the headers.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// The longest that a connection is kept.
const CONNECTION_TIME: Duration = Duration::from_secs(300);
/// How often the histograms' samples are folded.
const FOLD: Duration = Duration::from_secs(5);

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Listens on an address; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is in use or not ours.
    pub async fn bind(address: SocketAddr) -> Result<Self, Stop> {
        let failed = |error: std::io::Error| {
            Stop::config(format!("cannot listen on {address}: set http.listen to another address"))
                .because(error)
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Returns the address with the port that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until the shutdown is requested; answers that are under way then are cut off.
    ///
    /// # Errors
    /// None so far: trouble with one connection concerns nobody else.
    pub async fn serve(self, pages: Pages, shutdown: Shutdown) -> Result<(), Stop> {
        let metrics = pages.metrics.clone();
        let service = TowerToHyperService::new(pages.routes());
        let mut connections = JoinSet::new();
        let mut oldest_first: VecDeque<AbortHandle> = VecDeque::new();
        let mut fold = interval(FOLD);
        loop {
            let accepted = tokio::select! {
                () = shutdown.requested() => return Ok(()),
                _ = fold.tick() => {
                    metrics.fold();
                    continue;
                }
                Some(_) = connections.join_next() => continue,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Too many open files, or a client that left: wait a little, or the loop would spin.
                    tracing::debug!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIME)
                .max_buf_size(HEADER_BYTES)
                .serve_connection(TokioIo::new(stream), service.clone());
            oldest_first.retain(|connection| !connection.is_finished());
            if oldest_first.len() >= CONNECTIONS
                && let Some(oldest) = oldest_first.pop_front()
            {
                oldest.abort();
            }
            let connection = connections.spawn(async move {
                if let Ok(Err(error)) = timeout(CONNECTION_TIME, connection).await {
                    tracing::debug!(%error, "a connection ended early");
                }
            });
            oldest_first.push_back(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::Arc;

    use serde_json::json;

    use super::super::readiness::{Readiness, Wait};
    use super::*;
    use crate::metrics::{LabelSets, Metrics};

    async fn ask(address: SocketAddr, request: &str) -> String {
        let request = request.to_owned();
        let asked = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            let mut answer = Vec::new();
            // A server that has refused the request may close before it is all sent.
            drop(stream.write_all(request.as_bytes()));
            drop(stream.read_to_end(&mut answer));
            String::from_utf8(answer).unwrap()
        });
        asked.await.unwrap()
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        ask(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }

    fn pages() -> Pages {
        Pages {
            metrics: Arc::new(Metrics::new(&LabelSets::default())),
            readiness: Arc::new(Readiness::default()),
            status: Arc::new(|| json!({ "examples": 3 })),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn the_pages_tell_metrics_life_readiness_and_status() {
        let server = Server::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let (address, pages, shutdown) = (server.address(), pages(), Shutdown::new());
        let running = tokio::spawn(server.serve(pages.clone(), shutdown.clone()));
        pages.metrics.learn.examples.increment(3);
        assert!(get(address, "/metrics").await.contains("sluice_learn_examples_total 3\n"));
        assert!(get(address, "/live").await.starts_with("HTTP/1.1 200"));
        let answer = get(address, "/ready").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"starting\""), "{answer}");
        pages.readiness.clear(Wait::Starting);
        assert!(get(address, "/ready").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/status").await.ends_with("{\"examples\":3}"));
        assert!(get(address, "/../etc/passwd").await.starts_with("HTTP/1.1 404"));
        assert!(
            ask(address, "POST /live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                .await
                .starts_with("HTTP/1.1 405")
        );
        let long = "x".repeat(HEADER_BYTES * 2);
        let answer = get(address, &format!("/live?{long}")).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        shutdown.request();
        running.await.unwrap().unwrap();
        assert!(TcpStream::connect(address).is_err());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn clients_that_neither_send_nor_read_keep_nobody_out() {
        let server = Server::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let (address, mut pages, shutdown) = (server.address(), pages(), Shutdown::new());
        // A page larger than what the system takes for a client that does not read.
        pages.status = Arc::new(|| json!({ "text": "x".repeat(16 << 20) }));
        let running = tokio::spawn(server.serve(pages, shutdown.clone()));
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS {
            for sent in ["", "GET /live HT", "GET /status HTTP/1.1\r\nhost: x\r\n\r\n"] {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(sent.as_bytes()).unwrap();
                held.push(stream);
            }
            let asked = std::time::Instant::now();
            assert!(get(address, "/live").await.starts_with("HTTP/1.1 200"));
            assert!(get(address, "/metrics").await.contains("sluice_"));
            assert!(asked.elapsed() < HEADER_TIME / 2, "{:?}", asked.elapsed());
        }
        shutdown.request();
        running.await.unwrap().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn an_address_in_use_is_a_mistake_of_the_configuration() {
        let server = Server::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let error = Server::bind(server.address()).await.unwrap_err();
        assert_eq!(error.exit(), crate::error::Exit::Config);
    }
}
