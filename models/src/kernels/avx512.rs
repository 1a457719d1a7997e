//! Lanes of sixteen `f32` with AVX-512 (F, BW, DQ, VL and VNNI).

#[allow(clippy::wildcard_imports, reason = "a file of intrinsics names dozens of them")]
use std::arch::x86_64::*;

use super::avx2::{Avx2, transpose_8x8};
use super::lanes::{Kernel, Lanes};

/// The proof that the processor has AVX-512 with VNNI: only [`Avx512::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    /// The proof, where the processor has the instructions.
    pub(super) fn detect() -> Option<Self> {
        let found = Avx2::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        found.then_some(Self(()))
    }

    /// The proof without asking again.
    ///
    /// # Safety
    /// [`Self::detect`] has returned one in this process.
    pub(super) const unsafe fn proven() -> Self {
        Self(())
    }
}

macro_rules! proven {
    ($call:expr) => {{
        // SAFETY: `self` exists only where these parts of AVX-512 were detected.
        unsafe { $call }
    }};
}

/// The pairs at the places that the mask has: first numbers and second ones.
///
/// # Safety
/// `places` is readable for the lanes of the mask.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
unsafe fn gather_pairs(from: &[[f32; 2]], places: *const i32, mask: __mmask16) -> (__m512, __m512) {
    // SAFETY: the caller guarantees the lanes of the mask; others are not touched.
    let places = unsafe { _mm512_maskz_loadu_epi32(mask, places) };
    // A place is sign-extended, so there may not be more than that.
    let length = _mm512_set1_epi32(i32::try_from(from.len()).unwrap_or(i32::MAX));
    let beyond = _mm512_mask_cmpge_epu32_mask(mask, places, length);
    assert!(beyond == 0, "a place is out of bounds");
    let (zero, from) = (_mm512_setzero_pd(), from.as_ptr().cast());
    let half = |places: __m256i, mask: __mmask8| {
        if mask == 0 {
            return _mm512_castpd_ps(zero);
        }
        // SAFETY: places under the mask were just compared with the length; others are not read.
        _mm512_castpd_ps(unsafe { _mm512_mask_i32gather_pd::<8>(zero, mask, places, from) })
    };
    let low = half(_mm512_castsi512_si256(places), mask as __mmask8);
    let high = half(_mm512_extracti64x4_epi64::<1>(places), (mask >> 8) as __mmask8);
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    (_mm512_permutex2var_ps(low, even, high), _mm512_permutex2var_ps(low, odd, high))
}

impl Lanes for Avx512 {
    type F = __m512;
    type Mask = __mmask16;
    type Sums = __m512i;
    const WIDTH: usize = 16;
    const TILE_ROWS: usize = 8;
    const TILE_VECTORS: usize = 3;
    const PACKED_FROM: usize = 100;
    const BYTES: usize = 64;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
        fn switched_on<K: Kernel>(lanes: Avx512, kernel: K) -> K::Output {
            kernel.run(lanes)
        }
        proven!(switched_on(self, kernel))
    }
    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        proven!(_mm512_set1_ps(value))
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        proven!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        proven!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn flush(self, a: __m512, least: __m512) -> __m512 {
        proven!({
            let kept = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(_mm512_abs_ps(a), least);
            _mm512_maskz_mov_ps(kept, a)
        })
    }
    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        proven!(_mm512_sqrt_ps(a))
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        proven!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn scale(self, a: __m512, n: __m512) -> __m512 {
        proven!(_mm512_scalef_ps(a, n))
    }
    #[inline(always)]
    fn scale_near(self, a: __m512, n: __m512) -> __m512 {
        proven!(_mm512_scalef_ps(a, n))
    }
    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        proven!(_mm512_reduce_add_ps(a))
    }
    #[inline(always)]
    fn mask(self, count: usize) -> __mmask16 {
        ((1_u32 << count.min(16)) - 1) as __mmask16
    }
    #[inline(always)]
    unsafe fn load_at(self, from: *const f32) -> __m512 {
        // SAFETY: the caller guarantees 16 readable numbers.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store_at(self, to: *mut f32, value: __m512) {
        // SAFETY: the caller guarantees room for 16 numbers.
        unsafe { _mm512_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn load_masked(self, from: *const f32, mask: __mmask16) -> __m512 {
        // SAFETY: the caller guarantees the lanes of the mask; others are not touched.
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }
    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, mask: __mmask16, value: __m512) {
        // SAFETY: the caller guarantees the lanes of the mask; others are not touched.
        unsafe { _mm512_mask_storeu_ps(to, mask, value) }
    }
    #[inline(always)]
    fn gather_pairs(self, from: &[[f32; 2]], places: &[u32]) -> (__m512, __m512) {
        // The mask has no more lanes than there are places.
        proven!(gather_pairs(from, places.as_ptr().cast(), self.mask(places.len())))
    }
    #[inline(always)]
    fn interleave(self, a: __m512, b: __m512) -> [__m512; 2] {
        proven!({
            let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let high =
                _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
            [_mm512_permutex2var_ps(a, low, b), _mm512_permutex2var_ps(a, high, b)]
        })
    }
    #[inline(always)]
    unsafe fn transpose_8x8(self, from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: the caller guarantees both blocks; detection included AVX2.
        unsafe { transpose_8x8(from, stride, to, to_stride) }
    }
    #[inline(always)]
    fn no_sums(self) -> __m512i {
        proven!(_mm512_setzero_si512())
    }
    #[inline(always)]
    fn add_products(self, sums: __m512i, query: &[i8], row: &[i8]) -> __m512i {
        let (query, row) = (&query[..64], &row[..64]);
        // The instruction wants one side unsigned: row + 128, so each product is 128 q too large.
        proven!({
            let query = _mm512_loadu_si512(query.as_ptr().cast());
            let row = _mm512_loadu_si512(row.as_ptr().cast());
            let row = _mm512_xor_si512(row, _mm512_set1_epi8(i8::MIN));
            _mm512_dpbusd_epi32(sums, row, query)
        })
    }
    #[inline(always)]
    fn total(self, sums: __m512i) -> i32 {
        proven!(_mm512_reduce_add_epi32(sums))
    }
    #[inline(always)]
    fn surplus(self, query: &[i8]) -> i32 {
        let whole = query.len() / Self::BYTES * Self::BYTES;
        query[..whole].iter().map(|&q| 128 * i32::from(q)).sum()
    }
}
