//! A vector of `f32` and what a kernel may do with it.
//!
//! A value of a [`Lanes`] type is the proof that the processor has the instructions, so the
//! arithmetic is safe and a kernel is written once. Everything is inlined into [`Lanes::run`], the
//! one place where the instruction set is switched on.

/// A computation that is written once for every instruction set.
pub(super) trait Kernel {
    /// What it returns.
    type Output;
    /// Runs with these lanes. Implementations are `#[inline(always)]`, or the instructions would
    /// be called instead of inlined.
    fn run<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// The proof of an instruction set, and its vectors.
///
/// `min` and `max` return the second operand when either is NaN.
pub(super) trait Lanes: Copy {
    /// A vector of [`Self::WIDTH`] numbers.
    type F: Copy;
    /// Which lanes take part in a partial load or store.
    type Mask: Copy;
    /// Sums of products of bytes.
    type Sums: Copy;
    /// Numbers in a vector.
    const WIDTH: usize;
    /// Rows of the register tile of a product.
    const TILE_ROWS: usize;
    /// Most vectors in a row of the register tile.
    const TILE_VECTORS: usize;
    /// From this many rows on the weights of a product are packed: tiles that are as broad as a few cache lines read rows that lie far apart
    /// well enough.
    const PACKED_FROM: usize;
    /// Bytes that one step of a product of bytes takes from each side.
    const BYTES: usize;

    /// Runs a kernel with the instruction set switched on.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    /// The same number in all lanes.
    fn splat(self, value: f32) -> Self::F;
    /// `a + b`
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a b`
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a b + c`, rounded once where the processor can.
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The smaller one.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger one.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a`, or zero where its magnitude is below `least`. NaN stays NaN.
    fn flush(self, a: Self::F, least: Self::F) -> Self::F;
    /// The square root.
    fn sqrt(self, a: Self::F) -> Self::F;
    /// The nearest integer, ties to even, for magnitudes below 2²².
    fn round(self, a: Self::F) -> Self::F;
    /// `a 2ⁿ` for an integral `n` within ±200; NaN when either is.
    fn scale(self, a: Self::F, n: Self::F) -> Self::F;
    /// `a 2ⁿ` for an `a` between 1/2 and 2 and an integral `n` within ±126; NaN stays NaN.
    fn scale_near(self, a: Self::F, n: Self::F) -> Self::F;
    /// The sum over the lanes, in a fixed order.
    fn sum(self, a: Self::F) -> f32;

    /// The mask of the first `count` lanes; all when there are fewer.
    fn mask(self, count: usize) -> Self::Mask;
    /// Reads a vector.
    ///
    /// # Safety
    /// `from` is readable for [`Self::WIDTH`] numbers.
    unsafe fn load_at(self, from: *const f32) -> Self::F;
    /// Writes a vector.
    ///
    /// # Safety
    /// `to` is writable for [`Self::WIDTH`] numbers.
    unsafe fn store_at(self, to: *mut f32, value: Self::F);
    /// Reads the lanes of the mask; the others are zero.
    ///
    /// # Safety
    /// `from` is readable for as many numbers as the mask has lanes.
    unsafe fn load_masked(self, from: *const f32, mask: Self::Mask) -> Self::F;
    /// Writes the lanes of the mask.
    ///
    /// # Safety
    /// `to` is writable for as many numbers as the mask has lanes.
    unsafe fn store_masked(self, to: *mut f32, mask: Self::Mask, value: Self::F);

    /// Reads the pairs at these places, up to [`Self::WIDTH`] of them: their first numbers and their second ones. Other lanes are zero.
    ///
    /// # Panics
    /// When a place is out of bounds.
    fn gather_pairs(self, from: &[[f32; 2]], places: &[u32]) -> (Self::F, Self::F);
    /// `a0 b0 a1 b1 ...`, twice as many numbers as in each.
    fn interleave(self, a: Self::F, b: Self::F) -> [Self::F; 2];

    /// Copies the transpose of an 8 by 8 block: `to[j, i] = from[i, j]`.
    ///
    /// # Safety
    /// Both are valid for 8 rows of 8 numbers at the given distances between rows.
    unsafe fn transpose_8x8(self, from: *const f32, stride: usize, to: *mut f32, to_stride: usize);

    /// No products yet.
    fn no_sums(self) -> Self::Sums;
    /// Adds the products of [`Self::BYTES`] pairs, save for [`Self::surplus`].
    fn add_products(self, sums: Self::Sums, query: &[i8], row: &[i8]) -> Self::Sums;
    /// The total of the sums.
    fn total(self, sums: Self::Sums) -> i32;
    /// What `add_products` has too much over a whole query.
    fn surplus(self, query: &[i8]) -> i32;

    /// Reads the first [`Self::WIDTH`] numbers.
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::F {
        assert!(from.len() >= Self::WIDTH);
        // SAFETY: the length was just asserted.
        unsafe { self.load_at(from.as_ptr()) }
    }

    /// Writes the first [`Self::WIDTH`] numbers.
    #[inline(always)]
    fn store(self, to: &mut [f32], value: Self::F) {
        assert!(to.len() >= Self::WIDTH);
        // SAFETY: the length was just asserted.
        unsafe { self.store_at(to.as_mut_ptr(), value) }
    }

    /// Reads what there is, up to [`Self::WIDTH`] numbers; the other lanes are zero.
    #[inline(always)]
    fn load_part(self, from: &[f32]) -> Self::F {
        // SAFETY: the mask has no more lanes than the slice has numbers.
        unsafe { self.load_masked(from.as_ptr(), self.mask(from.len())) }
    }

    /// Writes as many lanes as there is room for.
    #[inline(always)]
    fn store_part(self, to: &mut [f32], value: Self::F) {
        // SAFETY: the mask has no more lanes than the slice has room for.
        unsafe { self.store_masked(to.as_mut_ptr(), self.mask(to.len()), value) }
    }
}
