//! Hints about memory: what will be read soon, and what should lie in huge pages.

/// Bytes of a huge page.
pub const HUGE_PAGE: usize = 2 << 20;

/// Tells the processor that the element will be read soon. Does nothing where the index is out of
/// bounds or the processor has no such instruction.
#[inline(always)]
pub fn prefetch<T>(slice: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(element) = slice.get(index) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint reads nothing, and every x86-64 processor has the instruction.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(element).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slice, index);
}

/// Tells the processor that all of a slice will be read soon: each of its cache lines is asked for once.
#[inline(always)]
pub fn prefetch_all<T>(slice: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        const LINE: usize = 64;
        let range = slice.as_ptr_range();
        let (end, mut line) = (range.end.cast::<i8>(), range.start.cast::<i8>());
        line = line.wrapping_sub(line.addr() % LINE);
        while line < end {
            // SAFETY: a hint reads nothing, and every x86-64 processor has the instruction.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line) }
            line = line.wrapping_add(LINE);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = slice;
}

/// Tells the processor that a place will be read or packed before long: it comes into the second cache, and the first is left as it is. Any
/// pointer will do.
#[inline(always)]
pub(super) fn prefetch_far(place: *const f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint reads nothing, and every x86-64 processor has the instruction.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(place.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Asks the system to put memory that is not yet used into huge pages, as far as whole ones fit.
/// Random reads of a large table then seldom wait for an address to be translated. Does nothing
/// where the system has no such advice, or does not take it.
pub fn prefer_huge_pages<T>(memory: &[T]) {
    #[cfg(target_os = "linux")]
    {
        let range = memory.as_ptr_range();
        let start = range.start.addr().next_multiple_of(HUGE_PAGE);
        let end = range.end.addr() / HUGE_PAGE * HUGE_PAGE;
        if start < end {
            let first = range.start.cast_mut().with_addr(start).cast();
            // SAFETY: the pages lie within the slice, and this advice leaves contents as they are.
            // Refusal is no error: memory works the same in small pages.
            let _refused = unsafe { libc::madvise(first, end - start, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_leaves_contents_as_they_are() {
        for length in [0, 10, 1 << 20, 3 << 20] {
            let numbers: Vec<u32> = (0..length).collect();
            prefer_huge_pages(&numbers);
            prefetch(&numbers, 5);
            prefetch(&numbers, numbers.len());
            prefetch_all(&numbers);
            assert!(numbers.iter().zip(0..length).all(|(&n, i)| n == i));
        }
    }
}
