//! The register tile of a product: a few rows by a few vectors of sums that stay in registers
//! while the inner dimension runs.
//!
//! Per step: one vector of `b` for each vector of the tile, one number of `a` for each row, and
//! `ROWS x VECTORS` multiply-adds. Bias and activation are applied before the only store.

use super::exponential::{sigmoid, silu};
use super::lanes::{Kernel, Lanes};
use super::real::Activation;

/// What happens to the sums of a tile.
#[derive(Clone, Copy)]
pub(super) struct Finish {
    /// Whether they are added to what `y` holds.
    pub(super) add: bool,
    /// The biases of the tile's columns, or null.
    pub(super) bias: *const f32,
    /// Applied last.
    pub(super) act: Activation,
}

/// One tile, its operands and its place.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Length of the inner dimension.
    pub(super) depth: usize,
    pub(super) a: *const f32,
    /// Distance between rows of `a`, unless packed.
    pub(super) a_stride: usize,
    pub(super) b: *const f32,
    /// Distance between steps of `b`.
    pub(super) b_stride: usize,
    pub(super) y: *mut f32,
    pub(super) y_stride: usize,
    /// Rows and columns that exist; the tile may be larger.
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) finish: Finish,
}

impl Tile {
    /// Computes a tile of `R` rows and `V` vectors. `PACKED`: the numbers of `a` for one step lie
    /// side by side. `ENDS`: `b` has no more than `columns` numbers in a step.
    ///
    /// # Safety
    /// With `rows` in `1..=R` and `columns` in the last of the `V` vectors:
    /// * `a` is readable for `rows` rows of `depth` numbers; if `PACKED`, for `depth` groups of `R`;
    /// * `b` is readable for `depth` steps of `V` vectors; if `ENDS`, of `columns` numbers;
    /// * `y` is writable, and `finish.bias` readable unless null, for `columns` numbers a row.
    #[inline(always)]
    pub(super) unsafe fn compute<
        L: Lanes,
        const R: usize,
        const V: usize,
        const PACKED: bool,
        const ENDS: bool,
    >(
        self,
        lanes: L,
    ) {
        lanes.run(Checked::<R, V, PACKED, ENDS>(self));
    }
}

/// A tile whose pointers the caller of [`Tile::compute`] has vouched for.
struct Checked<const R: usize, const V: usize, const PACKED: bool, const ENDS: bool>(Tile);

impl<const R: usize, const V: usize, const PACKED: bool, const ENDS: bool> Kernel
    for Checked<R, V, PACKED, ENDS>
{
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let tile = self.0;
        let last = lanes.mask(tile.columns - (V - 1) * L::WIDTH);
        let mut sums = [[lanes.splat(0.0); V]; R];
        // Rows that do not exist repeat the last one; their sums are dropped.
        let mut a = [tile.a; R];
        for (i, a) in a.iter_mut().enumerate() {
            let row = if PACKED { 0 } else { i.min(tile.rows - 1) };
            *a = a.wrapping_add(row * tile.a_stride);
        }
        let mut b = tile.b;
        for step in 0..tile.depth {
            let mut w = [lanes.splat(0.0); V];
            for (v, w) in w.iter_mut().enumerate() {
                // SAFETY: `b` has this row, and its last vector is masked where it ends.
                *w = unsafe {
                    let from = b.add(v * L::WIDTH);
                    if ENDS && v == V - 1 {
                        lanes.load_masked(from, last)
                    } else {
                        lanes.load_at(from)
                    }
                };
            }
            for i in 0..R {
                // SAFETY: step < depth, and a packed step has `R` numbers.
                let x = unsafe { if PACKED { *a[0].add(step * R + i) } else { *a[i].add(step) } };
                let x = lanes.splat(x);
                for v in 0..V {
                    sums[i][v] = lanes.mul_add(x, w[v], sums[i][v]);
                }
            }
            b = b.wrapping_add(tile.b_stride);
        }
        let ragged = tile.columns < V * L::WIDTH;
        for (i, sums) in sums.into_iter().enumerate().take(tile.rows) {
            for (v, sum) in sums.into_iter().enumerate() {
                // SAFETY: `y` and the bias have these columns; the last vector is masked where
                // they end within it.
                unsafe {
                    let to = tile.y.add(i * tile.y_stride + v * L::WIDTH);
                    let bias = tile.finish.bias.wrapping_add(v * L::WIDTH);
                    let mask = (ragged && v == V - 1).then_some(last);
                    let mut value = sum;
                    if tile.finish.add {
                        value = lanes.add(load(lanes, to, mask), value);
                    }
                    if !tile.finish.bias.is_null() {
                        value = lanes.add(value, load(lanes, bias, mask));
                    }
                    let value = activate(lanes, tile.finish.act, value);
                    // Masked stores are slow on some processors, so only where they must be.
                    match mask {
                        Some(mask) => lanes.store_masked(to, mask, value),
                        None => lanes.store_at(to, value),
                    }
                }
            }
        }
    }
}

/// Reads a vector, or the lanes of a mask.
///
/// # Safety
/// `from` is readable for these lanes.
#[inline(always)]
unsafe fn load<L: Lanes>(lanes: L, from: *const f32, mask: Option<L::Mask>) -> L::F {
    // SAFETY: passed on to the caller.
    unsafe {
        match mask {
            Some(mask) => lanes.load_masked(from, mask),
            None => lanes.load_at(from),
        }
    }
}

/// The activation of a vector.
#[inline(always)]
pub(super) fn activate<L: Lanes>(lanes: L, act: Activation, z: L::F) -> L::F {
    match act {
        Activation::None => z,
        // In this order a NaN comes through.
        Activation::Relu => lanes.max(lanes.splat(0.0), z),
        Activation::Sigmoid => sigmoid(lanes, z),
        Activation::Silu => silu(lanes, z),
    }
}
