//! A long array of zeros that lies in huge pages.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

use bytemuck::Zeroable;

use super::memory::{HUGE_PAGE, prefer_huge_pages};

/// An array that starts as zeros, at the beginning of a huge page if it fills one. What is not written costs no memory.
#[derive(Debug)]
pub struct Zeros<T> {
    allocated: NonNull<u8>,
    layout: Layout,
    first: NonNull<T>,
    length: usize,
    items: PhantomData<T>,
}

// SAFETY: it owns its items like a boxed slice.
unsafe impl<T: Send> Send for Zeros<T> {}
// SAFETY: shared, it gives out shared items only.
unsafe impl<T: Sync> Sync for Zeros<T> {}

impl<T: Zeroable + Copy> Zeros<T> {
    /// Allocates so many items.
    ///
    /// # Panics
    /// When it is none, or more than can be addressed.
    pub fn new(length: usize) -> Self {
        let bytes = length.saturating_mul(size_of::<T>());
        assert!(bytes > 0, "an array has at least one byte");
        // Allocators give zeros of a large alignment by writing them all. Room to begin later costs addresses only.
        let room = if bytes < HUGE_PAGE { 0 } else { HUGE_PAGE };
        let layout = Layout::from_size_align(bytes.saturating_add(room), align_of::<T>());
        let Ok(layout) = layout else { panic!("{length} items of {} bytes", size_of::<T>()) };
        // SAFETY: the layout has at least one byte.
        let Some(allocated) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
            handle_alloc_error(layout)
        };
        let offset = if room > 0 { allocated.align_offset(HUGE_PAGE) } else { 0 };
        // SAFETY: less than `HUGE_PAGE` bytes are skipped, and there is so much more room than bytes.
        let first = unsafe { allocated.add(offset) }.cast();
        let zeros = Self { allocated, layout, first, length, items: PhantomData };
        prefer_huge_pages(&zeros[..]);
        zeros
    }
}

impl<T> Deref for Zeros<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: so many items were allocated from here on, as zeros, which `new` asks of `T` to be items. The place is aligned: it begins an allocation
        // for `T` or a huge page.
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.length) }
    }
}

impl<T> DerefMut for Zeros<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`, and nobody else refers to the items.
        unsafe { slice::from_raw_parts_mut(self.first.as_ptr(), self.length) }
    }
}

impl<T> Drop for Zeros<T> {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and given back once. Items are `Copy`: nothing is to be dropped.
        unsafe { dealloc(self.allocated.as_ptr(), self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_zeros_wherever_they_begin() {
        for length in [1, 10, HUGE_PAGE / 8 - 1, HUGE_PAGE / 8, HUGE_PAGE / 8 + 1, HUGE_PAGE] {
            let mut zeros = Zeros::<u64>::new(length);
            assert_eq!(zeros.len(), length);
            assert!(zeros.iter().all(|&zero| zero == 0));
            assert_eq!(zeros.as_ptr().align_offset(HUGE_PAGE) == 0, length * 8 >= HUGE_PAGE);
            zeros.iter_mut().zip(1..).for_each(|(item, number)| *item = number);
            assert!(zeros.iter().zip(1..).all(|(&item, number)| item == number));
        }
    }

    #[test]
    #[should_panic(expected = "at least one byte")]
    fn an_empty_array_is_refused() {
        Zeros::<u64>::new(0);
    }
}
