//! A long array of zeros that lies in huge pages.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

use bytemuck::Zeroable;

use super::memory::{HUGE_PAGE, prefer_huge_pages};

/// An array that starts as zeros. If it fills a huge page it begins at the beginning of one, and what is not written of it costs no memory.
#[derive(Debug)]
pub struct Zeros<T> {
    _memory: Memory,
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
        let layout = Layout::array::<T>(length);
        let Ok(layout) = layout else { panic!("{length} items of {} bytes", size_of::<T>()) };
        assert!(layout.size() > 0, "an array has at least one byte");
        let (memory, first) = Memory::new(layout);
        let zeros = Self { _memory: memory, first: first.cast(), length, items: PhantomData };
        prefer_huge_pages(&zeros[..]);
        zeros
    }
}

impl<T> Deref for Zeros<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: the memory has room for so many items from here on, aligned for them. It came as zeros, which `new` asks of `T` to be items.
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

/// What is given back. Items are `Copy`: none is to be dropped.
#[derive(Debug)]
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

impl Memory {
    /// Zeros with this layout, and where they begin.
    ///
    /// Long ones are asked of the system: an allocator may have memory that was in use, and writes zeros over it, into small pages. Room to begin at a
    /// huge page costs addresses only.
    fn new(layout: Layout) -> (Self, NonNull<u8>) {
        if !is_mapped(layout) {
            // SAFETY: the caller asserts that there is at least one byte.
            let start = NonNull::new(unsafe { alloc_zeroed(layout) });
            let Some(start) = start else { handle_alloc_error(layout) };
            return (Self { start, layout }, start);
        }
        let room = Layout::from_size_align(layout.size().saturating_add(HUGE_PAGE), layout.align());
        let Some((layout, start)) = room.ok().and_then(|room| Some((room, map(room.size())?)))
        else {
            handle_alloc_error(layout)
        };
        let offset = start.align_offset(HUGE_PAGE);
        // SAFETY: less than a huge page is skipped, and there is one more than was asked for.
        (Self { start, layout }, unsafe { start.add(offset) })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if is_mapped(self.layout) {
            unmap(self.start, self.layout.size());
        } else {
            // SAFETY: allocated with this layout, and given back once.
            unsafe { dealloc(self.start.as_ptr(), self.layout) }
        }
    }
}

fn is_mapped(layout: Layout) -> bool {
    cfg!(target_os = "linux") && layout.size() >= HUGE_PAGE
}

/// Fresh pages, if there are any.
#[cfg(target_os = "linux")]
fn map(bytes: usize) -> Option<NonNull<u8>> {
    let (access, kind) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: new pages at a place of the system's choice touch nobody's memory.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0) };
    NonNull::new(start.cast()).filter(|_| start != libc::MAP_FAILED)
}

#[cfg(not(target_os = "linux"))]
fn map(_: usize) -> Option<NonNull<u8>> {
    None
}

#[cfg(target_os = "linux")]
fn unmap(start: NonNull<u8>, bytes: usize) {
    // SAFETY: `map` gave these pages, whole, to one who gives them back once.
    let _cannot_fail = unsafe { libc::munmap(start.as_ptr().cast(), bytes) };
}

#[cfg(not(target_os = "linux"))]
fn unmap(_: NonNull<u8>, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_zeros_wherever_they_begin() {
        for length in [1, 10, HUGE_PAGE / 8 - 1, HUGE_PAGE / 8, HUGE_PAGE / 8 + 1, HUGE_PAGE] {
            let mut zeros = Zeros::<u64>::new(length);
            assert_eq!(zeros.len(), length);
            assert!(zeros.iter().all(|&zero| zero == 0));
            let huge = length * 8 >= HUGE_PAGE && cfg!(target_os = "linux");
            assert!(!huge || zeros.as_ptr().align_offset(HUGE_PAGE) == 0);
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
