//! Copies of the operands of a product in the order in which its tiles read them.
//!
//! The right operand becomes panels: all steps of the first two vectors of columns, then all
//! steps of the next two. The left one, where its rows run along the steps, becomes groups of tile
//! rows. What lies outside is zero, so tiles need no masks while they run.

use super::lanes::Lanes;

/// How many vectors the panel has that starts with `left` vectors to go: two, or three when three
/// are left and fit, so that a single one, with too few sums to keep the processor busy, is rare.
#[inline(always)]
pub(super) fn panel_vectors<L: Lanes>(left: usize) -> usize {
    if left == L::TILE_VECTORS { left } else { left.min(2).min(L::TILE_VECTORS) }
}

/// A block of numbers to copy from: `rows` by `columns` at `from`.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) from: *const f32,
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// Copies a block, whose rows are the steps, into panels.
///
/// # Safety
/// The block is readable, and `to` has room for its rows times its columns rounded up to vectors.
#[inline(always)]
pub(super) unsafe fn panels<L: Lanes>(lanes: L, block: Block, to: *mut f32) {
    let mut to = to;
    let mut column = 0;
    while column < block.columns {
        let vectors = panel_vectors::<L>((block.columns - column).div_ceil(L::WIDTH));
        for step in 0..block.rows {
            for v in 0..vectors {
                let start = column + v * L::WIDTH;
                let mask = lanes.mask(block.columns - start);
                // SAFETY: the block has this row and, under the mask, these columns; the panel has
                // a whole vector for them.
                unsafe {
                    let from = block.from.add(step * block.stride + start);
                    lanes.store_at(to, lanes.load_masked(from, mask));
                    to = to.add(L::WIDTH);
                }
            }
        }
        column += vectors * L::WIDTH;
    }
}

/// Copies the transpose of a block, whose columns are the steps, into panels.
///
/// # Safety
/// The block is readable, and `to` has room for its columns times its rows rounded up to vectors.
#[inline(always)]
pub(super) unsafe fn transposed_panels<L: Lanes>(lanes: L, block: Block, to: *mut f32) {
    let mut to = to;
    let mut row = 0;
    while row < block.rows {
        let width = panel_vectors::<L>((block.rows - row).div_ceil(L::WIDTH)) * L::WIDTH;
        let whole = (block.rows - row).min(width);
        let mut step = 0;
        while step < block.columns {
            let steps = (block.columns - step).min(8);
            let mut j = 0;
            while j < width {
                // SAFETY: rows row + j.. and columns step.. are cut to the block, and the panel has
                // `columns` steps of `width` numbers.
                unsafe {
                    let from = block.from.add((row + j) * block.stride + step);
                    let to = to.add(step * width + j);
                    if steps == 8 && j + 8 <= whole {
                        lanes.transpose_8x8(from, block.stride, to, width);
                    } else {
                        for i in 0..8 {
                            for s in 0..steps {
                                let exists = j + i < whole;
                                let x = if exists { *from.add(i * block.stride + s) } else { 0.0 };
                                *to.add(s * width + i) = x;
                            }
                        }
                    }
                }
                j += 8;
            }
            step += steps;
        }
        // SAFETY: one past the panel is at most one past the room.
        to = unsafe { to.add(block.columns * width) };
        row += width;
    }
}

/// Copies a block, whose rows are the steps, into groups of [`Lanes::TILE_ROWS`] columns.
///
/// # Safety
/// The block is readable, and `to` has room for its rows times its columns rounded up to groups.
#[inline(always)]
pub(super) unsafe fn groups<L: Lanes>(block: Block, to: *mut f32) {
    let mut to = to;
    let mut column = 0;
    while column < block.columns {
        let whole = (block.columns - column).min(L::TILE_ROWS);
        for step in 0..block.rows {
            // SAFETY: the block has `whole` columns here, the group `TILE_ROWS`.
            unsafe {
                let from = block.from.add(step * block.stride + column);
                if whole == L::TILE_ROWS {
                    to.copy_from_nonoverlapping(from, L::TILE_ROWS);
                } else {
                    to.copy_from_nonoverlapping(from, whole);
                    to.add(whole).write_bytes(0, L::TILE_ROWS - whole);
                }
                to = to.add(L::TILE_ROWS);
            }
        }
        column += L::TILE_ROWS;
    }
}
