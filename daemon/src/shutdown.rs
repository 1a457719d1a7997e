//! The wish to stop, as threads and tokio tasks wait for it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use parking_lot::Mutex;
use tokio::sync::watch;

/// A wish to stop that is made once and heard by all who hold a copy.
#[derive(Clone, Debug)]
pub struct Shutdown {
    // Nothing is ever sent: dropping the sender wakes every receiver, those in a `select!` too.
    channel: Receiver<Infallible>,
    state: watch::Receiver<bool>,
    trigger: Arc<Trigger>,
}

#[derive(Debug)]
struct Trigger {
    channel: Mutex<Option<Sender<Infallible>>>,
    state: watch::Sender<bool>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// Creates a wish that nobody has made yet.
    pub fn new() -> Self {
        let (sender, channel) = bounded(0);
        let (state, receiver) = watch::channel(false);
        let trigger = Arc::new(Trigger { channel: Mutex::new(Some(sender)), state });
        Self { channel, state: receiver, trigger }
    }

    /// Lets the signals make the wish, from the return of this on (see [`Shutdown::on_signal`]), watched by a thread of their own: for a program without tasks.
    ///
    /// # Errors
    /// When the signals cannot be watched.
    pub fn watch_signals(&self) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let watched = self.clone();
        let (watches, watching) = bounded(1);
        let watch = move || {
            runtime.block_on(async {
                let mut signalled = std::pin::pin!(watched.on_signal());
                // The first look begins to watch.
                let begun = tokio::select! {
                    biased;
                    ended = &mut signalled => ended.map(drop),
                    () = std::future::ready(()) => Ok(()),
                };
                let goes_on = begun.is_ok();
                // Whoever began it waits for this.
                drop(watches.send(begun));
                if goes_on {
                    drop(signalled.await);
                }
            });
        };
        std::thread::Builder::new().name("signals".into()).spawn(watch)?;
        watching.recv().unwrap_or(Ok(()))
    }

    /// Makes the wish. Making it again changes nothing.
    pub fn request(&self) {
        drop(self.trigger.channel.lock().take());
        self.trigger.state.send_replace(true);
    }

    /// Tells whether the wish was made.
    pub fn is_requested(&self) -> bool {
        self.channel.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Waits on a thread until the wish is made, or so long. Returns whether it was made.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.channel.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected)
    }

    /// Returns a channel that becomes disconnected when the wish is made, for `crossbeam_channel::select!`.
    pub fn channel(&self) -> &Receiver<Infallible> {
        &self.channel
    }

    /// Waits on a task until the wish is made.
    pub async fn requested(&self) {
        let mut state = self.state.clone();
        // The sender lives in `self.trigger`, so an error cannot come; it would mean the same.
        drop(state.wait_for(|requested| *requested).await);
    }

    /// Makes the wish at SIGINT, SIGTERM or SIGHUP, and returns what it was. Further signals change nothing: every part has its deadline.
    /// A SIGHUP that was to be ignored when the process started, as under `nohup`, stays ignored.
    ///
    /// # Errors
    /// When the signals cannot be watched.
    pub async fn on_signal(self) -> std::io::Result<&'static str> {
        use tokio::signal::unix::{SignalKind, signal};

        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut hangup = match ignores_hangup(&status) {
            false => Some(signal(SignalKind::hangup())?),
            true => None,
        };
        let hung_up = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let name = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
            _ = hung_up => "SIGHUP",
            () = self.requested() => "a part",
        };
        self.request();
        Ok(name)
    }
}

/// Says whether SIGHUP, the first of the signals, is ignored, by the status that the kernel shows of a process.
fn ignores_hangup(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hangup_that_is_ignored_is_known() {
        assert!(ignores_hangup("Name:\tsluiced\nSigIgn:\t0000000000001001\nSigCgt:\t0\n"));
        assert!(!ignores_hangup("SigIgn:\t0000000000001000\nSigCgt:\t0000000000000001\n"));
        assert!(!ignores_hangup(""));
    }

    #[test]
    fn threads_and_tasks_hear_the_wish() {
        let shutdown = Shutdown::new();
        assert!(!shutdown.is_requested() && !shutdown.wait(Duration::ZERO));
        let (heard, copy) = (shutdown.clone(), shutdown.clone());
        let thread = std::thread::Builder::new()
            .name("waits".into())
            .spawn(move || heard.wait(Duration::from_secs(60)))
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            copy.request();
            shutdown.requested().await;
        });
        assert!(thread.join().unwrap());
        assert!(shutdown.is_requested());
        shutdown.request();
    }
}
