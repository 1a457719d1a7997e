//! A network between a client and a broker that can go dead: packets vanish, connections stay open, nobody is told.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a forwarding thread looks whether it is to go on.
const TICK: Duration = Duration::from_millis(20);

/// Forwards one port to another until it is dropped.
pub(crate) struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    dead: AtomicBool,
    ended: AtomicBool,
}

impl Proxy {
    /// Begins to forward connections to a port of this machine.
    ///
    /// # Errors
    /// When no port is free.
    pub(crate) fn to(target: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let proxy = Self { port: listener.local_addr()?.port(), state: Arc::default() };
        listener.set_nonblocking(true)?;
        let state = Arc::clone(&proxy.state);
        spawn("network", move || {
            while !state.ended.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((near, _)) => connect(near, target, &state),
                    Err(_) => std::thread::sleep(TICK),
                }
            }
        })?;
        Ok(proxy)
    }

    /// Returns the port to connect to.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Lets nothing through any more; what was sent arrives once it goes on.
    pub(crate) fn goes_dead(&self) {
        self.state.dead.store(true, Ordering::Relaxed);
    }

    /// Lets everything through again.
    pub(crate) fn goes_on(&self) {
        self.state.dead.store(false, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
    }
}

fn connect(near: TcpStream, target: u16, state: &Arc<State>) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", target)) else { return };
    let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else { return };
    for (from, to) in [(near, far), (far_too, near_too)] {
        let state = Arc::clone(state);
        // Without a thread the connection is closed, which a client can bear.
        drop(spawn("connection", move || forward(from, to, &state)));
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
}

fn forward(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut buffer = vec![0; 1 << 16];
    if from.set_nonblocking(false).and_then(|()| from.set_read_timeout(Some(TICK))).is_err() {
        return;
    }
    while !state.ended.load(Ordering::Relaxed) {
        if state.dead.load(Ordering::Relaxed) {
            std::thread::sleep(TICK);
            continue;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(bytes) if to.write_all(&buffer[..bytes]).is_ok() => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => break,
        }
    }
    // The other direction ends too, whoever closed.
    drop((from.shutdown(std::net::Shutdown::Both), to.shutdown(std::net::Shutdown::Both)));
}
