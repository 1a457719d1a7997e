//! What the tests stand on: a real Kafka, the built programs, deadlines instead of sleeping.

pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod real_kafka;
pub(crate) mod records;
pub(crate) mod shop;
pub(crate) mod site;
pub(crate) mod wire;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long anything in a test may take before that is the failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a test returns; the error is what the report shows.
pub(crate) type Outcome = anyhow::Result<()>;

/// Returns the root of the repository.
pub(crate) fn repository() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// Asks until there is an answer.
///
/// # Errors
/// When asking fails, or there is none within [`PATIENCE`].
pub(crate) fn wait_for<T>(
    what: &str,
    ask: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    wait_long_for(what, PATIENCE, ask)
}

/// The same with another patience.
///
/// # Errors
/// When asking fails, or there is none within `patience`.
pub(crate) fn wait_long_for<T>(
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        anyhow::ensure!(start.elapsed() < patience, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns ports of this machine that are free now, all different.
///
/// # Errors
/// When the system has none.
pub(crate) fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let mut listeners = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        *port = listener.local_addr()?.port();
        listeners.push(listener); // held until all are found, so that none is given twice
    }
    Ok(ports)
}

/// Returns the path of a built program of this workspace: it lies beside the test's own folder.
///
/// # Errors
/// When it was not built.
pub(crate) fn program(name: &str) -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let profile = this.parent().and_then(Path::parent).unwrap_or(&this);
    let path = profile.join(name);
    anyhow::ensure!(
        path.is_file(),
        "{} is not built; run `cargo build --workspace --bins` first (tests/run.sh does)",
        path.display()
    );
    Ok(path)
}

/// Asserts inside a test that returns its failure: both sides are shown.
#[macro_export]
macro_rules! expect_eq {
    ($left:expr, $right:expr) => {
        match (&$left, &$right) {
            (left, right) => anyhow::ensure!(
                left == right,
                "{}:{}: {}\n found    {left:?}\n expected {right:?}",
                file!(),
                line!(),
                stringify!($left)
            ),
        }
    };
}
