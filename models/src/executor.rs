//! Who does the pieces of a step. This crate starts no thread: whoever wants a step on several of them gives an [`Executor`] that owns them.
//!
//! What a step computes depends on the number of pieces, never on who does them or in which order: the same number gives the same bits.

/// Most pieces of a step.
pub const MOST_PIECES: usize = 32;

/// Does pieces of work, side by side where it can.
pub trait Executor: Sync {
    /// How many pieces it can do at a time, at least 1. Of more than [`MOST_PIECES`] no use is made.
    fn threads(&self) -> usize;

    /// Calls `work` once with each number below `pieces`, 0 on the calling thread, and returns when all calls have.
    ///
    /// # Panics
    /// When a call has panicked, and only then; all calls have returned by then.
    fn run(&self, pieces: usize, work: &(dyn Fn(usize) + Sync));
}

/// The calling thread alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Executor for Alone {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, pieces: usize, work: &(dyn Fn(usize) + Sync)) {
        (0..pieces).for_each(work);
    }
}
