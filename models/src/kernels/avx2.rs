//! Lanes of eight `f32` with AVX2 and FMA.

#[allow(clippy::wildcard_imports, reason = "a file of intrinsics names dozens of them")]
use std::arch::x86_64::*;

use super::lanes::{Kernel, Lanes};

/// The proof that the processor has AVX2 and FMA: only [`Avx2::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    /// The proof, where the processor has the instructions.
    pub(super) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
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
        // SAFETY: `self` exists only where AVX2 and FMA were detected.
        unsafe { $call }
    }};
}

/// `2ⁿ` for exponents of normal numbers.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn power_of_two(n: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn scale(a: __m256, n: __m256) -> __m256 {
    let n = _mm256_cvtps_epi32(n);
    let half = _mm256_srai_epi32::<1>(n);
    let rest = _mm256_sub_epi32(n, half);
    _mm256_mul_ps(_mm256_mul_ps(a, power_of_two(half)), power_of_two(rest))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn sum(a: __m256) -> f32 {
    let quad = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
    let pair = _mm_add_ps(quad, _mm_movehl_ps(quad, quad));
    _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn total(a: __m256i) -> i32 {
    let quad = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
    let pair = _mm_add_epi32(quad, _mm_shuffle_epi32::<0b01_00_11_10>(quad));
    _mm_cvtsi128_si32(_mm_add_epi32(pair, _mm_shuffle_epi32::<0b10_11_00_01>(pair)))
}

/// The transpose of an 8 by 8 block, in three rounds of exchanging halves.
///
/// # Safety
/// Both are valid for 8 rows of 8 numbers at the given distances between rows.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn transpose_8x8(
    from: *const f32,
    stride: usize,
    to: *mut f32,
    to_stride: usize,
) {
    // The halves of rows i and i + 4 are joined while loading, which needs no shuffle port.
    let join = |i: usize, j: usize| {
        // SAFETY: rows i and i + 4 and the four columns from j lie in the block.
        unsafe {
            let low = _mm_loadu_ps(from.add(i * stride + j));
            let high = _mm_loadu_ps(from.add((i + 4) * stride + j));
            _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(low), high)
        }
    };
    for j in [0, 4] {
        let (a, b, c, d) = (join(0, j), join(1, j), join(2, j), join(3, j));
        let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
        let (ab2, cd2) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
        let columns = [
            _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd),
            _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd),
            _mm256_shuffle_ps::<0b01_00_01_00>(ab2, cd2),
            _mm256_shuffle_ps::<0b11_10_11_10>(ab2, cd2),
        ];
        for (i, column) in columns.into_iter().enumerate() {
            // SAFETY: the target has 8 rows of 8 numbers, and j + i < 8.
            unsafe { _mm256_storeu_ps(to.add((j + i) * to_stride), column) }
        }
    }
}

/// The pairs at the places that the mask has: first numbers and second ones.
///
/// # Safety
/// `places` is readable for the lanes of the mask.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn gather_pairs(from: &[[f32; 2]], places: *const i32, mask: __m256i) -> (__m256, __m256) {
    // SAFETY: the caller guarantees the lanes of the mask; others are not touched.
    let places = unsafe { _mm256_maskload_epi32(places, mask) };
    // Unsigned, there is only a maximum. A place is sign-extended, so there may not be more than that.
    let length = i32::try_from(from.len()).unwrap_or(i32::MAX);
    let largest = _mm256_max_epu32(places, _mm256_set1_epi32(length));
    let beyond = _mm256_and_si256(_mm256_cmpeq_epi32(largest, places), mask);
    assert!(_mm256_testz_si256(beyond, beyond) == 1, "a place is out of bounds");
    let (zero, from) = (_mm256_setzero_pd(), from.as_ptr().cast());
    let half = |places: __m128i, mask: __m128i| {
        let mask = _mm256_castsi256_pd(_mm256_cvtepi32_epi64(mask));
        // SAFETY: places under the mask were just compared with the length; others are not read.
        _mm256_castpd_ps(unsafe { _mm256_mask_i32gather_pd::<8>(zero, from, places, mask) })
    };
    let low = half(_mm256_castsi256_si128(places), _mm256_castsi256_si128(mask));
    let high = half(_mm256_extracti128_si256::<1>(places), _mm256_extracti128_si256::<1>(mask));
    let order = |mixed: __m256| {
        let mixed = _mm256_castps_pd(mixed);
        _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(mixed))
    };
    let first = order(_mm256_shuffle_ps::<0b10_00_10_00>(low, high));
    let second = order(_mm256_shuffle_ps::<0b11_01_11_01>(low, high));
    (first, second)
}

impl Lanes for Avx2 {
    type F = __m256;
    type Mask = __m256i;
    type Sums = __m256i;
    const WIDTH: usize = 8;
    // 6 x 2 sums, two vectors of weights and one input fill 15 of 16 registers.
    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 2;
    const PACKED_FROM: usize = 48;
    const BYTES: usize = 16;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma")]
        fn switched_on<K: Kernel>(lanes: Avx2, kernel: K) -> K::Output {
            kernel.run(lanes)
        }
        proven!(switched_on(self, kernel))
    }
    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        proven!(_mm256_set1_ps(value))
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        proven!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        proven!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn flush(self, a: __m256, least: __m256) -> __m256 {
        proven!({
            let magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0), a);
            _mm256_and_ps(a, _mm256_cmp_ps::<_CMP_NLT_UQ>(magnitude, least))
        })
    }
    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        proven!(_mm256_sqrt_ps(a))
    }
    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        proven!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn scale(self, a: __m256, n: __m256) -> __m256 {
        proven!(scale(a, n))
    }
    #[inline(always)]
    fn scale_near(self, a: __m256, n: __m256) -> __m256 {
        // The exponent is raised in place. A NaN has no `n`: nothing is added to it.
        proven!({
            let n = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(n));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), n))
        })
    }
    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        proven!(sum(a))
    }
    #[inline(always)]
    fn mask(self, count: usize) -> __m256i {
        static WINDOW: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        let window = &WINDOW[8 - count.min(8)..];
        proven!(_mm256_loadu_si256(window.as_ptr().cast()))
    }
    #[inline(always)]
    unsafe fn load_at(self, from: *const f32) -> __m256 {
        // SAFETY: the caller guarantees 8 readable numbers.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store_at(self, to: *mut f32, value: __m256) {
        // SAFETY: the caller guarantees room for 8 numbers.
        unsafe { _mm256_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn load_masked(self, from: *const f32, mask: __m256i) -> __m256 {
        // SAFETY: the caller guarantees the lanes of the mask; others are not touched.
        unsafe { _mm256_maskload_ps(from, mask) }
    }
    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, mask: __m256i, value: __m256) {
        // SAFETY: the caller guarantees the lanes of the mask; others are not touched.
        unsafe { _mm256_maskstore_ps(to, mask, value) }
    }
    #[inline(always)]
    fn gather_pairs(self, from: &[[f32; 2]], places: &[u32]) -> (__m256, __m256) {
        // The mask has no more lanes than there are places.
        proven!(gather_pairs(from, places.as_ptr().cast(), self.mask(places.len())))
    }
    #[inline(always)]
    fn interleave(self, a: __m256, b: __m256) -> [__m256; 2] {
        proven!({
            let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            [
                _mm256_permute2f128_ps::<0b10_00_00>(low, high),
                _mm256_permute2f128_ps::<0b11_00_01>(low, high),
            ]
        })
    }
    #[inline(always)]
    unsafe fn transpose_8x8(self, from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: the caller guarantees both blocks, `self` the instructions.
        unsafe { transpose_8x8(from, stride, to, to_stride) }
    }
    #[inline(always)]
    fn no_sums(self) -> __m256i {
        proven!(_mm256_setzero_si256())
    }
    #[inline(always)]
    fn add_products(self, sums: __m256i, query: &[i8], row: &[i8]) -> __m256i {
        let (query, row) = (&query[..16], &row[..16]);
        // Widened to 16 bits: the product of bytes with saturation would not be exact.
        proven!({
            let query = _mm256_cvtepi8_epi16(_mm_loadu_si128(query.as_ptr().cast()));
            let row = _mm256_cvtepi8_epi16(_mm_loadu_si128(row.as_ptr().cast()));
            _mm256_add_epi32(sums, _mm256_madd_epi16(query, row))
        })
    }
    #[inline(always)]
    fn total(self, sums: __m256i) -> i32 {
        proven!(total(sums))
    }
    #[inline(always)]
    fn surplus(self, _query: &[i8]) -> i32 {
        0
    }
}
