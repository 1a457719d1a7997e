//! Starts the parts in order, waits, and stops them in reverse.
//!
//! ```text
//! start:  a, b, c                  each on a named thread or as a tokio task
//! until:  the wish to stop, or any part ends (well, by a Stop, by a panic)
//! stop:   c, b, a                  each is told, then awaited until its own deadline
//! ```
//!
//! A panic is a bug: the process stops with [`Exit::Fault`], and what the other parts do at their stop (such as a last checkpoint) can ask
//! [`Faults`] whether there was one. A part that is still running at its deadline is named; the process leaves without it.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::clock::Clock;
use crate::error::{Exit, Stop, chain};
use crate::shutdown::Shutdown;

/// The most parts: their ends must fit the channel, so that none waits for the supervisor.
const MOST_PARTS: usize = 256;

/// Tells whether any part has ended badly.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<AtomicBool>);

impl Faults {
    /// Returns true from the first fault on.
    pub fn any(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How a part ended.
type End = Result<(), Stop>;

struct Part {
    name: String,
    shutdown: Shutdown,
    deadline: Duration,
    ended: bool,
}

/// The parts of one daemon.
pub struct Supervisor {
    parts: Vec<Part>,
    wish: Shutdown,
    faults: Faults,
    clock: Clock,
    sender: Sender<(usize, End)>,
    ends: Receiver<(usize, End)>,
}

impl Supervisor {
    /// Creates a supervisor that stops everything when `wish` is made.
    pub fn new(wish: Shutdown, clock: Clock) -> Self {
        let (sender, ends) = bounded(MOST_PARTS);
        Self { parts: Vec::new(), wish, faults: Faults::default(), clock, sender, ends }
    }

    /// Returns the flag that tells whether any part has ended badly.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// Starts a part on a thread of its own. `run` ends soon after its [`Shutdown`] is requested, at the latest at `deadline`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn thread(
        &mut self,
        name: &str,
        deadline: Duration,
        run: impl FnOnce(&Shutdown) -> End + Send + 'static,
    ) -> End {
        let (number, shutdown) = self.add(name, deadline)?;
        let (sender, faults) = (self.sender.clone(), self.faults.clone());
        let started = std::thread::Builder::new().name(name.into()).spawn(move || {
            let end = catch_unwind(AssertUnwindSafe(|| run(&shutdown)));
            report(&sender, &faults, number, end.unwrap_or_else(|panic| Err(of_panic(&*panic))));
        });
        match started {
            Ok(_) => Ok(()),
            Err(error) => {
                self.parts.pop();
                Err(Stop::fault(format!("cannot start the thread {name}")).because(error))
            }
        }
    }

    /// Starts a part as a task. The future `run` makes ends soon after its [`Shutdown`] is requested, at the latest at `deadline`.
    ///
    /// # Errors
    /// When there are too many parts.
    pub fn task<F>(
        &mut self,
        runtime: &tokio::runtime::Handle,
        name: &str,
        deadline: Duration,
        run: impl FnOnce(Shutdown) -> F,
    ) -> End
    where
        F: Future<Output = End> + Send + 'static,
    {
        let (number, shutdown) = self.add(name, deadline)?;
        let (sender, faults) = (self.sender.clone(), self.faults.clone());
        let part = runtime.spawn(run(shutdown));
        runtime.spawn(async move {
            let end = match part.await {
                Ok(end) => end,
                Err(error) if error.is_panic() => Err(of_panic(&*error.into_panic())),
                Err(error) => Err(Stop::fault("was cancelled").because(error)),
            };
            report(&sender, &faults, number, end);
        });
        Ok(())
    }

    /// Waits until the wish to stop is made or a part ends, stops everything in reverse, and says how it ended.
    pub fn run(mut self) -> Exit {
        let mut exit = Exit::Well;
        crossbeam_channel::select! {
            recv(self.ends) -> end => {
                if let Ok((number, end)) = end {
                    if end.is_ok() {
                        tracing::info!(part = self.parts[number].name, "a part has ended: stopping");
                    }
                    exit = exit.max(self.note(number, end));
                }
            }
            recv(self.wish.channel()) -> _ => tracing::info!("stopping"),
        }
        self.wish.request();
        let mut running = Vec::new();
        for number in (0..self.parts.len()).rev() {
            let part = &self.parts[number];
            part.shutdown.request();
            let deadline = self.clock.steady() + part.deadline;
            while !self.parts[number].ended {
                let left = deadline.saturating_sub(self.clock.steady());
                match self.ends.recv_timeout(left) {
                    Ok((other, end)) => exit = exit.max(self.note(other, end)),
                    Err(_) => {
                        running.push(self.parts[number].name.clone());
                        break;
                    }
                }
            }
        }
        if !running.is_empty() {
            let parts = running.join(", ");
            tracing::error!(parts, "still running at the deadline: leaving without them");
            exit = exit.max(Exit::Deadline);
        }
        exit
    }

    fn add(&mut self, name: &str, deadline: Duration) -> Result<(usize, Shutdown), Stop> {
        if self.parts.len() == MOST_PARTS {
            return Err(Stop::fault(format!(
                "expected at most {MOST_PARTS} parts, {name} is one more"
            )));
        }
        let shutdown = Shutdown::new();
        let part = Part { name: name.into(), shutdown: shutdown.clone(), deadline, ended: false };
        self.parts.push(part);
        Ok((self.parts.len() - 1, shutdown))
    }

    fn note(&mut self, number: usize, end: End) -> Exit {
        let part = &mut self.parts[number];
        part.ended = true;
        match end {
            Ok(()) => Exit::Well,
            Err(stop) => {
                tracing::error!(part = part.name, error = chain(&stop), "a part has failed");
                stop.exit()
            }
        }
    }
}

fn report(sender: &Sender<(usize, End)>, faults: &Faults, number: usize, end: End) {
    if end.is_err() {
        faults.0.store(true, Ordering::Release);
    }
    // Full cannot be: there is room for every part. Gone means that the supervisor has left without us.
    drop(sender.try_send((number, end)));
}

fn of_panic(panic: &(dyn Any + Send)) -> Stop {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message");
    Stop::fault(format!("panicked: {text}"))
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn supervisor() -> (Supervisor, Shutdown) {
        let wish = Shutdown::new();
        (Supervisor::new(wish.clone(), Clock::system()), wish)
    }

    #[test]
    fn parts_stop_in_reverse_order() {
        let (mut supervisor, wish) = supervisor();
        let order = Arc::new(Mutex::new(Vec::new()));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        for name in ["a", "b"] {
            let order = order.clone();
            supervisor
                .thread(name, SOON, move |shutdown| {
                    while !shutdown.wait(SOON) {}
                    order.lock().push(name);
                    Ok(())
                })
                .unwrap();
        }
        let noted = order.clone();
        supervisor
            .task(runtime.handle(), "c", SOON, |shutdown| async move {
                shutdown.requested().await;
                noted.lock().push("c");
                Ok(())
            })
            .unwrap();
        wish.request();
        assert_eq!(supervisor.run(), Exit::Well);
        assert_eq!(*order.lock(), ["c", "b", "a"]);
    }

    #[test]
    fn a_panic_stops_all_and_is_known_to_the_others() {
        let (mut supervisor, _wish) = supervisor();
        let faults = supervisor.faults();
        let seen = Arc::new(Mutex::new(None));
        let note = seen.clone();
        supervisor
            .thread("keeper", SOON, move |shutdown| {
                while !shutdown.wait(SOON) {}
                *note.lock() = Some(faults.any());
                Ok(())
            })
            .unwrap();
        supervisor.thread("broken", SOON, |_| panic!("on purpose")).unwrap();
        assert_eq!(supervisor.run(), Exit::Fault);
        assert_eq!(*seen.lock(), Some(true));
    }

    #[test]
    fn the_worst_end_decides_the_exit_code() {
        let (mut supervisor, _wish) = supervisor();
        supervisor
            .thread("late", SOON, |shutdown| {
                while !shutdown.wait(SOON) {}
                Err(Stop::data("unusable"))
            })
            .unwrap();
        supervisor.thread("first", SOON, |_| Err(Stop::fault("broken"))).unwrap();
        assert_eq!(supervisor.run(), Exit::Data);
    }

    #[test]
    fn a_part_that_does_not_stop_is_left_behind() {
        let (mut supervisor, wish) = supervisor();
        let release = Shutdown::new();
        let held = release.clone();
        supervisor
            .thread("stuck", Duration::from_millis(1), move |_| {
                while !held.wait(SOON) {}
                Ok(())
            })
            .unwrap();
        wish.request();
        assert_eq!(supervisor.run(), Exit::Deadline);
        release.request();
    }

    #[test]
    fn a_part_that_ends_by_itself_ends_the_rest() {
        let (mut supervisor, wish) = supervisor();
        supervisor.thread("short", SOON, |_| Ok(())).unwrap();
        assert_eq!(supervisor.run(), Exit::Well);
        assert!(wish.is_requested());
    }
}
