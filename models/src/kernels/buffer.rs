//! Scratch memory of a thread for the packed operands of a product: it grows to the largest
//! product and stays, so that a step allocates nothing.

use std::cell::RefCell;

/// Numbers that start at a cache line, so that no vector crosses one.
#[derive(Default)]
pub(super) struct Buffer {
    numbers: Vec<f32>,
}

impl Buffer {
    /// Returns at least `length` numbers with arbitrary contents.
    pub(super) fn take(&mut self, length: usize) -> &mut [f32] {
        const LINE: usize = 64;
        let most_skipped = LINE / size_of::<f32>();
        if self.numbers.len() < length + most_skipped {
            self.numbers.resize(length + most_skipped, 0.0);
        }
        let skipped = self.numbers.as_ptr().align_offset(LINE).min(most_skipped);
        &mut self.numbers[skipped..skipped + length]
    }
}

/// The two operands of a product.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) left: Buffer,
    pub(super) right: Buffer,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static TURNED: RefCell<Buffer> = RefCell::default();
}

/// Lends the memory of this thread for a product that is computed as its transpose.
pub(super) fn with_turned<T>(work: impl FnOnce(&mut Buffer) -> T) -> T {
    TURNED.with_borrow_mut(work)
}

/// Lends the scratch memory of this thread. Products do not nest.
pub(super) fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(work)
}
