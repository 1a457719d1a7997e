//! Apache Kafka 4.2, one node without ZooKeeper (KRaft), run from its jars in a folder of its own.
//!
//! The jars come from `ops/setup.sh --tests`: `.kafka/libs` of the repository, or `libs` below
//! `SLUICE_KAFKA_HOME`. A shell stands between this process and Java: it kills Java when this process is
//! gone, however that happened, because its standard input then ends.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use sluice_daemon::kafka::{
    Admin, Connection, Probe, Sasl, SaslMechanism, Secret, Security, Tls, TopicSpec,
};
use tempfile::TempDir;

use super::process::{signal, wait_gone};
use super::proxy::Proxy;
use super::{PATIENCE, free_ports, repository, wait_for};

/// The version that the tests run against.
const JAR: &str = "kafka_2.13-4.2.0.jar";

/// A small heap and one compiler tier: started in seconds, 250 MB in all.
const JAVA_OPTIONS: [&str; 7] = [
    "-Xms256m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xss512k",
    "-XX:MaxDirectMemorySize=64m",
    "-Djava.awt.headless=true",
];

/// Runs what follows, tells its process id, and kills it once standard input ends.
const KEEPER: &str = r#"
log=$1; shift
"$@" </dev/null >>"$log" 2>&1 &
pid=$!
echo $pid
cat >/dev/null
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
"#;

static SHARED: Mutex<Option<Arc<RealKafka>>> = Mutex::new(None);

/// Returns why no real Kafka can be run here; none when it can.
pub(crate) fn missing() -> Option<String> {
    let told = match Command::new("java").arg("-version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => return Some(format!("java cannot be run: {error}")),
    };
    let version = told.split('"').nth(1).and_then(|version| version.split('.').next());
    if version.and_then(|version| version.parse::<u32>().ok()).is_none_or(|version| version < 17) {
        return Some(format!("expected Java 17 or newer, found {}", told.lines().next()?));
    }
    let jar = libs().join(JAR);
    (!jar.is_file()).then(|| format!("{} is missing; run ops/setup.sh --tests", jar.display()))
}

/// Returns the Kafka that tests share, starting it when there is none yet.
///
/// # Errors
/// When it does not start.
pub(crate) fn shared() -> anyhow::Result<Arc<RealKafka>> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kafka) = &*shared {
        return Ok(Arc::clone(kafka));
    }
    let kafka = Arc::new(RealKafka::start(Door::Open)?);
    *shared = Some(Arc::clone(&kafka));
    Ok(kafka)
}

/// Lets go of the shared Kafka; it stops with its last user.
pub(crate) fn stop_shared() {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner).take();
}

/// The password of the user `admin` of a secured broker.
pub(crate) const PASSWORD: &str = "correct-horse";

/// Who may talk to a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Anybody, in plain text; rules may deny something ([`super::wire`]).
    Open,
    /// The user `admin`, by SCRAM-SHA-512 over TLS.
    Secured,
}

/// A running broker. Dropping it kills Java and removes its folder.
pub(crate) struct RealKafka {
    folder: TempDir,
    port: u16,
    door: Door,
    /// Stands before a listener of its own.
    network: Proxy,
    keeper: Mutex<Option<Keeper>>,
}

/// The shell and the Java below it.
struct Keeper {
    shell: Child,
    java: u32,
}

impl RealKafka {
    /// Formats a folder and starts a broker on free ports.
    ///
    /// # Errors
    /// With the broker's own output, when it does not answer in time.
    pub(crate) fn start(door: Door) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("sluice-kafka-").tempdir()?;
        let [port, controller, far] = free_ports()?;
        let network = Proxy::to(far)?;
        let path = folder.path();
        let ports = Ports { near: port, controller, far, network: network.port() };
        std::fs::write(path.join("server.properties"), properties(path, ports, door)?)?;
        std::fs::write(path.join("log4j2.properties"), LOGGING)?;
        let id = java(&["kafka.tools.StorageTool", "random-uuid"])?;
        let id = id.lines().last().unwrap_or_default().trim().to_owned();
        let server = path.join("server.properties").display().to_string();
        let mut format = vec!["kafka.tools.StorageTool", "format", "-t", &id, "-c", &server, "-g"];
        let user = format!("SCRAM-SHA-512=[name=admin,password={PASSWORD}]");
        if door == Door::Secured {
            make_certificate(path)?;
            format.extend(["--add-scram", &user]);
        }
        java(&format)?;
        let kafka = Self { folder, port, door, network, keeper: Mutex::new(None) };
        kafka.up()?;
        Ok(kafka)
    }

    /// Returns the broker's address.
    pub(crate) fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the network to [`Self::far_brokers`].
    pub(crate) fn network(&self) -> &Proxy {
        &self.network
    }

    /// Returns the address of the broker, in plain text, behind a network that can go dead.
    pub(crate) fn far_brokers(&self) -> String {
        format!("127.0.0.1:{}", self.network.port())
    }

    /// Returns the first file of a partition's records.
    pub(crate) fn segment(&self, topic: &str, partition: i32) -> PathBuf {
        let folder = self.folder.path().join("data").join(format!("{topic}-{partition}"));
        folder.join("00000000000000000000.log")
    }

    /// Returns the settings to connect with.
    pub(crate) fn connection(&self) -> Connection {
        let mut connection = Connection::plain(self.brokers());
        if self.door == Door::Secured {
            connection.security = Security::SaslSsl;
            connection.sasl = Some(Sasl {
                mechanism: SaslMechanism::ScramSha512,
                username: "admin".to_owned(),
                password: Secret::new(PASSWORD),
            });
            connection.tls =
                Tls { ca: Some(self.folder.path().join("certificate.pem")), ..Tls::default() };
        }
        connection
    }

    /// Creates a topic with one replica.
    ///
    /// # Errors
    /// When the broker refuses.
    pub(crate) fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        settings: &[(&'static str, &'static str)],
    ) -> anyhow::Result<()> {
        let spec = TopicSpec {
            name: name.to_owned(),
            partitions,
            replication: 1,
            needed: settings.to_vec(),
            advised: Vec::new(),
            initial: Vec::new(),
        };
        Ok(Admin::open(&self.connection(), PATIENCE)?.create(&[&spec])?)
    }

    /// Starts the broker, again after [`Self::down`] or [`Self::kill`], and waits until it answers.
    ///
    /// # Errors
    /// With the broker's own output, when it does not answer in time.
    pub(crate) fn up(&self) -> anyhow::Result<()> {
        let path = self.folder.path();
        let log = path.join("kafka.log");
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper"]).arg(&log).arg("java").args(JAVA_OPTIONS);
        command
            .arg(format!(
                "-Dlog4j2.configurationFile=file:{}",
                path.join("log4j2.properties").display()
            ))
            .args(["-cp", &class_path(), "kafka.Kafka"])
            .arg(path.join("server.properties"));
        let mut shell = command
            .current_dir(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the broker")?;
        let mut line = String::new();
        let stdout = shell.stdout.take().context("the shell has no output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let java = line.trim().parse().context("the shell told no process id")?;
        *self.keeper() = Some(Keeper { shell, java });
        let probe = Probe::open(&self.connection())?;
        let answered = wait_for("an answer of Apache Kafka", || {
            let gone = !Path::new(&format!("/proc/{java}")).exists();
            anyhow::ensure!(!gone, "the broker ended by itself");
            Ok(probe.broker_count(Duration::from_millis(250)).ok())
        });
        answered.map(drop).with_context(|| {
            let told = std::fs::read_to_string(&log).unwrap_or_default();
            format!("--- output of Apache Kafka\n{told}")
        })
    }

    /// Stops the broker in order (SIGTERM), by force at the deadline.
    pub(crate) fn down(&self) {
        if let Some(keeper) = self.keeper().take() {
            // A signal that finds nobody means that it has ended already.
            if signal("TERM", keeper.java).is_ok() {
                wait_gone(keeper.java);
            }
            keeper.end();
        }
    }

    /// Kills the broker (SIGKILL).
    pub(crate) fn kill(&self) {
        if let Some(keeper) = self.keeper().take() {
            keeper.end();
        }
    }

    fn keeper(&self) -> std::sync::MutexGuard<'_, Option<Keeper>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RealKafka {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Keeper {
    /// Ends the shell's input, whereupon it kills Java, and waits for both.
    fn end(mut self) {
        drop(self.shell.stdin.take());
        drop(self.shell.wait());
    }
}

fn libs() -> PathBuf {
    let home = std::env::var_os("SLUICE_KAFKA_HOME").map(PathBuf::from);
    home.unwrap_or_else(|| repository().join(".kafka")).join("libs")
}

fn class_path() -> String {
    format!("{}/*", libs().display())
}

/// Runs a class of Kafka to its end and returns what it printed.
fn java(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("java")
        .args(JAVA_OPTIONS)
        .args(["-cp", &class_path()])
        .args(arguments)
        .output()?;
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    anyhow::ensure!(output.status.success(), "java {arguments:?}: {}\n{out}{err}", output.status);
    Ok(out.into_owned())
}

const LOGGING: &str = "\
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c %m%n
";

/// Makes a certificate that vouches for itself, and the file with key and certificate that Kafka reads.
fn make_certificate(folder: &Path) -> anyhow::Result<()> {
    let output = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-keyout", "key.pem", "-out", "certificate.pem"])
        .current_dir(folder)
        .output()
        .context("openssl cannot be run; run ops/setup.sh --tests")?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut both = std::fs::read(folder.join("key.pem"))?;
    both.extend(std::fs::read(folder.join("certificate.pem"))?);
    Ok(std::fs::write(folder.join("server.pem"), both)?)
}

/// The ports of a broker.
struct Ports {
    near: u16,
    controller: u16,
    /// Of the listener that is told as `network`.
    far: u16,
    network: u16,
}

fn properties(folder: &Path, ports: Ports, door: Door) -> anyhow::Result<String> {
    let Ports { near, controller, far, network } = ports;
    let protocol = match door {
        Door::Open => "PLAINTEXT",
        Door::Secured => "SASL_SSL",
    };
    let mut text = format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners={protocol}://127.0.0.1:{near},FAR://127.0.0.1:{far},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={protocol}://127.0.0.1:{near},FAR://127.0.0.1:{network}
listener.security.protocol.map={protocol}:{protocol},FAR:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name={protocol}
controller.listener.names=CONTROLLER
log.dirs={}
",
        folder.join("data").display()
    );
    if door == Door::Secured {
        write!(
            text,
            "sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required username=\"admin\" password=\"{PASSWORD}\";
ssl.keystore.type=PEM
ssl.keystore.location={}
ssl.truststore.type=PEM
ssl.truststore.location={}
",
            folder.join("server.pem").display(),
            folder.join("certificate.pem").display()
        )?;
    }
    // With one broker the replication factors decide whether transactions and groups work at all.
    for key in [
        "offsets.topic.replication.factor",
        "transaction.state.log.replication.factor",
        "transaction.state.log.min.isr",
        "share.coordinator.state.topic.replication.factor",
        "share.coordinator.state.topic.min.isr",
        "default.replication.factor",
        "min.insync.replicas",
        "offsets.topic.num.partitions",
        "transaction.state.log.num.partitions",
        "share.coordinator.state.topic.num.partitions",
        "num.network.threads",
    ] {
        writeln!(text, "{key}=1")?;
    }
    // Small, quick to start, and quickly back after a kill.
    text.push_str(
        "group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
num.io.threads=2
background.threads=2
log.cleaner.dedupe.buffer.size=8388608
log.cleaner.backoff.ms=500
log.index.size.max.bytes=1048576
auto.create.topics.enable=false
unclean.leader.election.enable=false
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
",
    );
    Ok(text)
}
