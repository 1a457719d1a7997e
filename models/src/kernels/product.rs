//! The three products of a dense layer: `y = act(x w + b)`, `dw = xᵀ dy`, `dx = dy wᵀ`.
//!
//! The right operand is cut into blocks of [`DEPTH`] steps by [`BREADTH`] columns, which are packed
//! into panels (see `pack`); a panel stays in the nearest cache while all rows of the left operand
//! pass it. With few rows packing `w` would cost more than it saves: tiles of the first product
//! read it in place, and the third is computed as `dxᵀ = w dyᵀ`, where `dy` is the packed one.
//! Sums run over the inner dimension in ascending blocks: their order depends on the shapes alone.

use super::buffer::{Scratch, with_scratch, with_turned};
use super::column;
use super::lanes::{Kernel, Lanes};
use super::matrix::{Matrix, MatrixMut};
use super::memory::prefetch_far;
use super::pack::{self, Block, panel_vectors};
use super::path::Proof;
use super::real::Activation;
use super::tile::{Finish, Tile};
use super::turned::transpose;

/// Steps in a block: a panel of them fits the nearest cache.
const DEPTH: usize = 256;
/// Columns in a block: a packed block fits the second cache.
const BREADTH: usize = 1024;
/// Rows of the left operand that pass a block at a time: they too fit the second cache.
const HEIGHT: usize = 192;
/// Up to this many rows pass a panel right after it was packed, while it is in the nearest cache.
const PANELWISE: usize = 320;
/// `dx` is computed as its transpose when it has this many times more columns than rows,
const TURNED_FROM: usize = 3;
/// and when sums are so long that turning it back does not matter.
const TURNED_DEPTH: usize = 64;

/// How the operands stand to each other.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    /// `left right`
    Plain,
    /// `leftᵀ right`
    LeftTransposed,
    /// `left rightᵀ`
    RightTransposed,
}

struct Product<'a> {
    order: Order,
    left: Matrix<'a>,
    right: Matrix<'a>,
    add: bool,
    bias: Option<&'a [f32]>,
    act: Activation,
    y: MatrixMut<'a>,
}

/// `y = act(x w + bias)`, or `y = act(y + x w + bias)` when `add`.
pub(super) fn matmul(
    proof: Proof,
    x: Matrix,
    w: Matrix,
    add: bool,
    bias: Option<&[f32]>,
    act: Activation,
    y: MatrixMut,
) {
    match w.as_column() {
        Some(w) if y.columns == 1 && !w.is_empty() => {
            assert!(bias.is_none_or(|bias| bias.len() == 1), "length of the bias");
            column::matmul(proof, x, w, add, bias.map_or(0.0, |bias| bias[0]), act, y);
        }
        _ => proof.run(Product { order: Order::Plain, left: x, right: w, add, bias, act, y }),
    }
}

/// `dw = xᵀ dy`, or `dw += xᵀ dy` when `add`.
pub(super) fn matmul_tn(proof: Proof, x: Matrix, dy: Matrix, add: bool, mut dw: MatrixMut) {
    // For a single column the transpose of the product needs no packing.
    if let (Some(dy), Some(dw)) = (dy.column_as_row(), dw.column_as_row()) {
        return matmul(proof, dy, x, add, None, Activation::None, dw);
    }
    proof.run(Product::plain(Order::LeftTransposed, x, dy, add, dw));
}

/// `dx = dy wᵀ`, or `dx += dy wᵀ` when `add`.
pub(super) fn matmul_nt(proof: Proof, dy: Matrix, w: Matrix, add: bool, mut dx: MatrixMut) {
    if w.rows < TURNED_FROM * dy.rows || w.columns < TURNED_DEPTH {
        return proof.run(Product::plain(Order::RightTransposed, dy, w, add, dx));
    }
    assert!((dx.rows, dx.columns) == (dy.rows, w.rows), "shape of dx");
    let stride = dy.rows.next_multiple_of(8);
    with_turned(|buffer| {
        let turned = buffer.take(w.rows * stride);
        let product = MatrixMut::over(turned, w.rows, dy.rows, stride);
        proof.run(Product::plain(Order::RightTransposed, w, dy, false, product));
        transpose(proof, turned, stride, add, &mut dx);
    });
}

impl<'a> Product<'a> {
    /// A product without bias and activation.
    fn plain(
        order: Order,
        left: Matrix<'a>,
        right: Matrix<'a>,
        add: bool,
        y: MatrixMut<'a>,
    ) -> Self {
        Self { order, left, right, add, bias: None, act: Activation::None, y }
    }
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let (l, r) = ((self.left.rows, self.left.columns), (self.right.rows, self.right.columns));
        let (left, right) = match self.order {
            Order::Plain => (l, r),
            Order::LeftTransposed => ((l.1, l.0), r),
            Order::RightTransposed => (l, (r.1, r.0)),
        };
        let depth = left.1;
        // What the tiles below rely on.
        let fits = depth == right.0 && (self.y.rows, self.y.columns) == (left.0, right.1);
        assert!(fits, "shapes of a product do not fit: {left:?} {right:?}");
        assert!(self.bias.is_none_or(|bias| bias.len() == self.y.columns), "length of the bias");
        if self.y.rows == 0 || self.y.columns == 0 {
            return;
        }
        if self.order == Order::Plain && (self.y.rows < L::PACKED_FROM || depth == 0) {
            self.in_place(lanes);
        } else if depth > 0 {
            with_scratch(|scratch| lanes.run(Packed(self, scratch)));
        } else if !self.add {
            for i in 0..self.y.rows {
                // SAFETY: `y` owns these columns of row i.
                unsafe { self.y.pointer.add(i * self.y.stride).write_bytes(0, self.y.columns) }
            }
        }
    }
}

/// A product with packed operands, and the memory for them.
struct Packed<'a>(Product<'a>, &'a mut Scratch);

impl Kernel for Packed<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        self.0.packed(lanes, self.1);
    }
}

impl Product<'_> {
    fn depth(&self) -> usize {
        match self.order {
            Order::Plain | Order::RightTransposed => self.left.columns,
            Order::LeftTransposed => self.left.rows,
        }
    }

    /// Few rows: tiles as broad as registers allow read `w` where it lies.
    #[inline(always)]
    fn in_place<L: Lanes>(&self, lanes: L) {
        let mut row = 0;
        while row < self.y.rows {
            row += match (self.y.rows - row, L::TILE_ROWS) {
                (1, _) => self.strip::<L, 1, 8>(lanes, row),
                (2, _) => self.strip::<L, 2, 4>(lanes, row),
                (3 | 4, _) | (_, 4) => self.strip::<L, 4, 2>(lanes, row),
                (_, 8) => self.strip::<L, 8, 2>(lanes, row),
                _ => self.strip::<L, 6, 2>(lanes, row),
            };
        }
    }

    /// All columns of up to `R` rows, `V` vectors at a time; returns how many rows.
    #[inline(always)]
    fn strip<L: Lanes, const R: usize, const V: usize>(&self, lanes: L, row: usize) -> usize {
        let rows = (self.y.rows - row).min(R);
        let mut column = 0;
        while column < self.y.columns {
            let left = self.y.columns - column;
            let columns = left.min(if left < V * L::WIDTH { L::WIDTH } else { V * L::WIDTH });
            // SAFETY: row.. and column.. are cut to the matrices, whose shapes were asserted.
            unsafe {
                let tile = Tile {
                    depth: self.left.columns,
                    a: self.left.pointer.wrapping_add(row * self.left.stride),
                    a_stride: self.left.stride,
                    b: self.right.pointer.wrapping_add(column),
                    b_stride: self.right.stride,
                    y: self.y.pointer.add(row * self.y.stride + column),
                    y_stride: self.y.stride,
                    rows,
                    columns,
                    finish: self.finish(column, true, true),
                };
                if columns == V * L::WIDTH {
                    tile.compute::<L, R, V, false, false>(lanes);
                } else {
                    tile.compute::<L, R, 1, false, true>(lanes);
                }
            }
            column += columns;
        }
        rows
    }

    /// Bias and activation of a tile from `column` on; `first` and `last` tell whether its block
    /// of steps is.
    #[inline(always)]
    fn finish(&self, column: usize, first: bool, last: bool) -> Finish {
        let bias = match self.bias {
            Some(bias) if last => bias[column..].as_ptr(),
            _ => std::ptr::null(),
        };
        let act = if last { self.act } else { Activation::None };
        Finish { add: self.add || !first, bias, act }
    }

    /// Block after block.
    #[inline(always)]
    fn packed<L: Lanes>(&self, lanes: L, scratch: &mut Scratch) {
        let depth = self.depth();
        let steps_in_block = even_block(depth, DEPTH, 1);
        let breadth = even_block(self.y.columns, BREADTH, 2 * L::WIDTH);
        let panelwise = self.order != Order::LeftTransposed && self.y.rows <= PANELWISE;
        let height = if panelwise { self.y.rows } else { HEIGHT };
        let height = even_block(self.y.rows, height, L::TILE_ROWS);
        let padded = breadth.next_multiple_of(L::WIDTH);
        let right = scratch.right.take(steps_in_block * padded).as_mut_ptr();
        let left_length = match self.order {
            Order::LeftTransposed => steps_in_block * height.next_multiple_of(L::TILE_ROWS),
            Order::Plain | Order::RightTransposed => 0,
        };
        let left = scratch.left.take(left_length).as_mut_ptr();

        let mut column = 0;
        while column < self.y.columns {
            let rest = self.y.columns - column;
            let panel = panel_vectors::<L>(rest.div_ceil(L::WIDTH)) * L::WIDTH;
            let columns = rest.min(if panelwise { panel } else { breadth });
            for step in (0..depth).step_by(steps_in_block) {
                let steps = steps_in_block.min(depth - step);
                // SAFETY: the block is cut to the matrix, and `right` has room for a whole one.
                unsafe { self.pack_right(lanes, step, steps, column, columns, right) };
                let ahead = if !panelwise {
                    Ahead::nothing()
                } else if step + steps < depth {
                    self.ahead(step + steps, steps_in_block, column, columns)
                } else {
                    self.ahead(0, steps_in_block, column + columns, columns)
                };
                for row in (0..self.y.rows).step_by(height) {
                    let rows = height.min(self.y.rows - row);
                    let ends = (step == 0, step + steps == depth);
                    let area = Area { row, rows, column, columns, step, steps, ends };
                    // SAFETY: the area is cut to the matrices; `right` holds its panels, and
                    // `left` has room for its groups.
                    unsafe {
                        if self.order == Order::LeftTransposed {
                            self.pack_left::<L>(area, left);
                            self.sweep::<L, true>(lanes, area, left, right, ahead);
                        } else {
                            let from =
                                self.left.pointer.add(row * self.left.stride + step).cast_mut();
                            self.sweep::<L, false>(lanes, area, from, right, ahead);
                        }
                    }
                }
            }
            column += columns;
        }
    }

    /// Packs a block of the right operand.
    ///
    /// # Safety
    /// The block lies in the operand, and `to` has room for it.
    #[inline(always)]
    unsafe fn pack_right<L: Lanes>(
        &self,
        lanes: L,
        step: usize,
        steps: usize,
        column: usize,
        columns: usize,
        to: *mut f32,
    ) {
        let stride = self.right.stride;
        // SAFETY: passed on to the caller.
        unsafe {
            if self.order == Order::RightTransposed {
                let from = self.right.pointer.add(column * stride + step);
                let block = Block { from, stride, rows: columns, columns: steps };
                pack::transposed_panels(lanes, block, to);
            } else {
                let from = self.right.pointer.add(step * stride + column);
                let block = Block { from, stride, rows: steps, columns };
                pack::panels(lanes, block, to);
            }
        }
    }

    /// Where the block of the right operand lies that is packed next.
    #[inline(always)]
    fn ahead(&self, step: usize, steps: usize, column: usize, columns: usize) -> Ahead {
        let (stride, width) = (self.right.stride, self.y.columns);
        let (steps, columns) = (steps.min(self.depth() - step), columns.min(width - column));
        let (row, rows, start, length) = match self.order {
            Order::RightTransposed => (column, columns, step, steps),
            Order::Plain | Order::LeftTransposed => (step, steps, column, columns),
        };
        Ahead { from: self.right.pointer.wrapping_add(row * stride + start), stride, rows, length }
    }

    /// Packs an area of the left operand, whose rows are the steps.
    ///
    /// # Safety
    /// The area lies in the operand, and `to` has room for it.
    #[inline(always)]
    unsafe fn pack_left<L: Lanes>(&self, area: Area, to: *mut f32) {
        let stride = self.left.stride;
        // SAFETY: passed on to the caller.
        unsafe {
            let from = self.left.pointer.add(area.step * stride + area.row);
            let block = Block { from, stride, rows: area.steps, columns: area.rows };
            pack::groups::<L>(block, to);
        }
    }

    /// All tiles of an area.
    ///
    /// # Safety
    /// The area lies in `y`; `right` holds its panels; `left` is its first number of the left
    /// operand, or its groups when `PACKED`.
    #[inline(always)]
    unsafe fn sweep<L: Lanes, const PACKED: bool>(
        &self,
        lanes: L,
        area: Area,
        left: *const f32,
        right: *const f32,
        ahead: Ahead,
    ) {
        let mut start = 0;
        while start < area.columns {
            let vectors = panel_vectors::<L>((area.columns - start).div_ceil(L::WIDTH));
            let columns = (area.columns - start).min(vectors * L::WIDTH);
            let finish = self.finish(area.column + start, area.ends.0, area.ends.1);
            let mut done = 0;
            while done < area.rows {
                let rows = (area.rows - done).min(L::TILE_ROWS);
                ahead.ask(done, done + rows, area.rows);
                // SAFETY: done.. and start.. are cut to the area; panels and groups lie one after
                // the other.
                unsafe {
                    let step = if PACKED { area.steps } else { self.left.stride };
                    let place = (area.row + done) * self.y.stride + area.column + start;
                    let tile = Tile {
                        depth: area.steps,
                        a: left.add(done * step),
                        a_stride: self.left.stride,
                        b: right.add(start * area.steps),
                        b_stride: vectors * L::WIDTH,
                        y: self.y.pointer.add(place),
                        y_stride: self.y.stride,
                        rows,
                        columns,
                        finish,
                    };
                    match (L::TILE_ROWS, vectors) {
                        (8, 1) => tile.compute::<L, 8, 1, PACKED, false>(lanes),
                        (8, 2) => tile.compute::<L, 8, 2, PACKED, false>(lanes),
                        (8, _) => tile.compute::<L, 8, 3, PACKED, false>(lanes),
                        (6, 1) => tile.compute::<L, 6, 1, PACKED, false>(lanes),
                        (6, _) => tile.compute::<L, 6, 2, PACKED, false>(lanes),
                        _ => tile.compute::<L, 4, 1, PACKED, false>(lanes),
                    }
                }
                done += rows;
            }
            start += vectors * L::WIDTH;
        }
    }
}

/// A part of the output, and the steps that are added to it.
#[derive(Clone, Copy)]
struct Area {
    row: usize,
    rows: usize,
    column: usize,
    columns: usize,
    step: usize,
    steps: usize,
    /// Whether these steps are the first, and the last.
    ends: (bool, bool),
}

/// What is packed next: it is asked for while the tiles before it are computed.
#[derive(Clone, Copy)]
struct Ahead {
    from: *const f32,
    stride: usize,
    rows: usize,
    /// Numbers of a row.
    length: usize,
}

impl Ahead {
    fn nothing() -> Self {
        Self { from: std::ptr::null(), stride: 0, rows: 0, length: 0 }
    }

    /// Asks for the share of tile rows `done..then` of `all`.
    #[inline(always)]
    fn ask(self, done: usize, then: usize, all: usize) {
        const LINE: usize = 16;
        if self.length == 0 {
            return;
        }
        for row in self.rows * done / all..self.rows * then / all {
            let row = self.from.wrapping_add(row * self.stride);
            for start in (0..self.length).step_by(LINE) {
                prefetch_far(row.wrapping_add(start));
            }
            prefetch_far(row.wrapping_add(self.length.saturating_sub(1)));
        }
    }
}

/// Cuts a length into even blocks of at most `block` and, save for the last, whole multiples.
fn even_block(length: usize, block: usize, multiple: usize) -> usize {
    length.div_ceil(length.div_ceil(block)).next_multiple_of(multiple)
}

#[cfg(test)]
mod tests;
