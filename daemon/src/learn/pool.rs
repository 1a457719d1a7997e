//! The threads of a step beside the learner's own: parked while there is nothing to do.
//!
//! How a step is cut into pieces follows from their number alone, so the same number gives the same bits, whoever comes first.

use sluice_models::executor::Executor;

use crate::error::Stop;

/// A learner's helpers.
#[derive(Debug, Default)]
pub struct Pool {
    helpers: Option<rayon_core::ThreadPool>,
}

impl Pool {
    /// Starts the helpers of a learner whose steps are made by `threads` threads, its own included.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn new(threads: usize) -> Result<Self, Stop> {
        if threads <= 1 {
            return Ok(Self::default());
        }
        let helpers = rayon_core::ThreadPoolBuilder::new()
            .num_threads(threads - 1)
            .thread_name(|k| format!("learn-{}", k + 1))
            .build()
            .map_err(|cause| {
                Stop::fault(format!(
                    "expected {threads} threads for learning, the system refused: set learn.threads lower"
                ))
                .because(cause)
            })?;
        Ok(Self { helpers: Some(helpers) })
    }
}

impl Executor for Pool {
    fn threads(&self) -> usize {
        self.helpers.as_ref().map_or(1, |helpers| helpers.current_num_threads() + 1)
    }

    fn run(&self, pieces: usize, work: &(dyn Fn(usize) + Sync)) {
        let Some(helpers) = self.helpers.as_ref().filter(|_| pieces > 1) else {
            return (0..pieces).for_each(work);
        };
        // The scope waits for all pieces, and hands on a panic of any.
        helpers.in_place_scope(|scope| {
            for piece in 1..pieces {
                scope.spawn(move |_| work(piece));
            }
            work(0);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_piece_is_done_once_and_the_first_by_the_caller() {
        for threads in [1, 2, 3] {
            let pool = Pool::new(threads).unwrap();
            assert_eq!(pool.threads(), threads);
            let caller = std::thread::current().id();
            for pieces in [0, 1, 2, 7] {
                let done: Vec<AtomicUsize> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                pool.run(pieces, &|piece| {
                    done[piece].fetch_add(1, Ordering::Relaxed);
                    assert!(piece > 0 || std::thread::current().id() == caller);
                });
                assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_panic_of_a_helper_reaches_the_caller_after_all_pieces() {
        let pool = Pool::new(2).unwrap();
        let done = AtomicUsize::new(0);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(4, &|piece| {
                assert_ne!(piece, 2, "made for this test");
                done.fetch_add(1, Ordering::Relaxed);
            });
        }));
        assert!(outcome.is_err());
        assert_eq!(done.load(Ordering::Relaxed), 3);
        pool.run(2, &|_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 5, "the helpers serve on");
    }
}
