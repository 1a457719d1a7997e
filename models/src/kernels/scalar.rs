//! Lanes without special instructions: the twin of the others, and what runs on processors that
//! have neither AVX2 nor AVX-512. Eight numbers in an array, which any compiler target can
//! vectorise.

use super::lanes::{Kernel, Lanes};

const WIDTH: usize = 8;

/// Needs no proof.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scalar;

#[inline(always)]
fn zip(a: [f32; WIDTH], b: [f32; WIDTH], f: impl Fn(f32, f32) -> f32) -> [f32; WIDTH] {
    let mut out = [0.0; WIDTH];
    for i in 0..WIDTH {
        out[i] = f(a[i], b[i]);
    }
    out
}

/// `2ⁿ` for an exponent of a normal number.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

impl Lanes for Scalar {
    type F = [f32; WIDTH];
    type Mask = usize;
    type Sums = i32;
    const WIDTH: usize = WIDTH;
    // Two registers of four numbers make a vector, and there are sixteen.
    const TILE_ROWS: usize = 4;
    const TILE_VECTORS: usize = 1;
    const PACKED_FROM: usize = 48;
    const BYTES: usize = 16;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
    #[inline(always)]
    fn splat(self, value: f32) -> Self::F {
        [value; WIDTH]
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // Not `f32::mul_add`: without the instruction it is a slow call.
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn flush(self, a: Self::F, least: Self::F) -> Self::F {
        zip(a, least, |a, least| if a.abs() < least { 0.0 } else { a })
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        a.map(f32::sqrt)
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        // Above 2²³ the spacing is one, so the addition itself rounds.
        const SHIFT: f32 = 12_582_912.0;
        a.map(|a| (a + SHIFT) - SHIFT)
    }
    #[inline(always)]
    fn scale(self, a: Self::F, n: Self::F) -> Self::F {
        // In two factors, since 2ⁿ itself may be too small or too large for a normal number.
        zip(a, n, |a, n| {
            let n = n as i32;
            let half = n >> 1;
            a * power_of_two(half) * power_of_two(n - half)
        })
    }
    #[inline(always)]
    fn scale_near(self, a: Self::F, n: Self::F) -> Self::F {
        zip(a, n, |a, n| a * power_of_two(n as i32))
    }
    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
    #[inline(always)]
    fn mask(self, count: usize) -> usize {
        count.min(WIDTH)
    }
    #[inline(always)]
    unsafe fn load_at(self, from: *const f32) -> Self::F {
        // SAFETY: the caller guarantees `WIDTH` readable numbers; arrays align like their items.
        unsafe { from.cast::<[f32; WIDTH]>().read() }
    }
    #[inline(always)]
    unsafe fn store_at(self, to: *mut f32, value: Self::F) {
        // SAFETY: the caller guarantees room for `WIDTH` numbers.
        unsafe { to.cast::<[f32; WIDTH]>().write(value) }
    }
    #[inline(always)]
    unsafe fn load_masked(self, from: *const f32, mask: usize) -> Self::F {
        let mut out = [0.0; WIDTH];
        // SAFETY: the caller guarantees `mask` readable numbers, and `mask` is at most `WIDTH`.
        unsafe { from.copy_to_nonoverlapping(out.as_mut_ptr(), mask) };
        out
    }
    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, mask: usize, value: Self::F) {
        // SAFETY: the caller guarantees room for `mask` numbers, and `mask` is at most `WIDTH`.
        unsafe { to.copy_from_nonoverlapping(value.as_ptr(), mask) }
    }
    #[inline(always)]
    fn gather_pairs(self, from: &[[f32; 2]], places: &[u32]) -> (Self::F, Self::F) {
        let (mut first, mut second) = ([0.0; WIDTH], [0.0; WIDTH]);
        for (lane, &place) in places.iter().take(WIDTH).enumerate() {
            [first[lane], second[lane]] = from[place as usize];
        }
        (first, second)
    }
    #[inline(always)]
    fn interleave(self, a: Self::F, b: Self::F) -> [Self::F; 2] {
        let half = |start: usize| {
            std::array::from_fn(|i| if i % 2 == 0 { a[start + i / 2] } else { b[start + i / 2] })
        };
        [half(0), half(WIDTH / 2)]
    }
    #[inline(always)]
    unsafe fn transpose_8x8(self, from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
        for i in 0..8 {
            for j in 0..8 {
                // SAFETY: the caller guarantees 8 rows of 8 numbers on both sides.
                unsafe { to.add(j * to_stride + i).write(from.add(i * stride + j).read()) }
            }
        }
    }
    #[inline(always)]
    fn no_sums(self) -> i32 {
        0
    }
    #[inline(always)]
    fn add_products(self, sums: i32, query: &[i8], row: &[i8]) -> i32 {
        let pairs = query[..Self::BYTES].iter().zip(&row[..Self::BYTES]);
        pairs.fold(sums, |sum, (&q, &r)| sum + i32::from(q) * i32::from(r))
    }
    #[inline(always)]
    fn total(self, sums: i32) -> i32 {
        sums
    }
    #[inline(always)]
    fn surplus(self, _query: &[i8]) -> i32 {
        0
    }
}
