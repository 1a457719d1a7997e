//! Where the dense parameters of a model live: one vector, in which every layer owns named blocks.
//!
//! A layer keeps [`Block`]s, not numbers. Its parameters, their gradients and the moments of the optimiser are then vectors of the same
//! [`Layout`], so that an optimiser step, a checksum, a snapshot or the sum of two gradients is one loop, and a layer is the
//! same value for all of them. [`Params::visit`] shows the blocks by name, always in the order in which the layers were built.

use std::sync::Arc;

use ndarray::{ArrayView2, ArrayViewMut2};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use sluice_features::ids::salted_hash;

use crate::kernels::Real;

/// How a block starts.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// All the same number.
    Constant(f64),
    /// Independent normal numbers with mean 0 and this standard deviation.
    Normal(f64),
    /// Exactly these.
    Values(Vec<f64>),
}

/// A matrix `[rows, columns]` inside a vector of parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    start: usize,
    rows: usize,
    columns: usize,
}

impl Block {
    /// The number of rows.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn columns(self) -> usize {
        self.columns
    }

    fn range(self) -> std::ops::Range<usize> {
        self.start..self.start + self.rows * self.columns
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Named {
    name: String,
    block: Block,
    start: Start,
}

/// The blocks of a model, in the order in which its layers were built.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    blocks: Vec<Named>,
    length: usize,
}

impl Layout {
    /// Adds a block; names are unique paths such as `sharing.0.expert.weight`.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        rows: usize,
        columns: usize,
        start: Start,
    ) -> Block {
        let block = Block { start: self.length, rows, columns };
        self.length += rows * columns;
        self.blocks.push(Named { name: name.into(), block, start });
        block
    }

    /// How many numbers there are in all blocks together.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Names and shapes `[rows, columns]` in order.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        self.blocks.iter().map(|b| (b.name.as_str(), b.block.rows, b.block.columns))
    }
}

/// Numbers in a layout: parameters, or their gradients.
#[derive(Clone, Debug)]
pub struct Params<R> {
    layout: Arc<Layout>,
    values: Vec<R>,
}

impl<R: Real> Params<R> {
    /// All zero.
    pub fn zeros(layout: Arc<Layout>) -> Self {
        let values = vec![R::zero(); layout.length];
        Self { layout, values }
    }

    /// As each block wants to start. Every block has its own random stream, made of the seed and its name: equal layers
    /// under different names differ, and a block added elsewhere changes no other.
    pub fn initial(layout: Arc<Layout>, seed: u64) -> Self {
        let mut params = Self::zeros(layout);
        for named in &params.layout.blocks {
            let values = &mut params.values[named.block.range()];
            match &named.start {
                Start::Constant(value) => values.fill(R::from_f64(*value)),
                Start::Values(given) => {
                    values.iter_mut().zip(given).for_each(|(v, &g)| *v = R::from_f64(g));
                }
                Start::Normal(deviation) => {
                    let stream = salted_hash(seed, named.name.as_bytes());
                    let mut random = ChaCha8Rng::seed_from_u64(stream);
                    for value in values {
                        let z: f64 = StandardNormal.sample(&mut random);
                        *value = R::from_f64(z * deviation);
                    }
                }
            }
        }
        params
    }

    /// The layout.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// A block as a matrix.
    pub fn matrix(&self, block: Block) -> ArrayView2<'_, R> {
        view(&self.values[block.range()], block.rows, block.columns)
    }

    /// A block as a matrix to write to.
    pub fn matrix_mut(&mut self, block: Block) -> ArrayViewMut2<'_, R> {
        view_mut(&mut self.values[block.range()], block.rows, block.columns)
    }

    /// The numbers of a block, row by row.
    pub fn slice(&self, block: Block) -> &[R] {
        &self.values[block.range()]
    }

    /// The numbers of a block to write to.
    pub fn slice_mut(&mut self, block: Block) -> &mut [R] {
        &mut self.values[block.range()]
    }

    /// The numbers of a block, made zero.
    pub fn zeroed(&mut self, block: Block) -> &mut [R] {
        let values = self.slice_mut(block);
        values.fill(R::zero());
        values
    }

    /// All numbers.
    pub fn values(&self) -> &[R] {
        &self.values
    }

    /// All numbers to write to.
    pub fn values_mut(&mut self) -> &mut [R] {
        &mut self.values
    }

    /// Shows every block under its name, always in the same order.
    pub fn visit(&mut self, visit: &mut dyn FnMut(&str, &mut [R])) {
        for named in &self.layout.blocks {
            visit(&named.name, &mut self.values[named.block.range()]);
        }
    }
}

/// Reads numbers, row by row, as a matrix.
pub(crate) fn view<R>(values: &[R], rows: usize, columns: usize) -> ArrayView2<'_, R> {
    ArrayView2::from_shape((rows, columns), values).expect("rows times columns numbers")
}

/// Writes numbers, row by row, as a matrix.
pub(crate) fn view_mut<R>(values: &mut [R], rows: usize, columns: usize) -> ArrayViewMut2<'_, R> {
    ArrayViewMut2::from_shape((rows, columns), values).expect("rows times columns numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> (Layout, Block, Block) {
        let mut layout = Layout::default();
        let weight = layout.add("a.weight", 100, 30, Start::Normal(0.1));
        let bias = layout.add("a.bias", 1, 2, Start::Values(vec![-1.0, 2.0]));
        (layout, weight, bias)
    }

    #[test]
    fn blocks_start_as_they_want_whatever_else_there_is() {
        let (mut layout, weight, bias) = layout();
        let few = Params::<f32>::initial(Arc::new(layout.clone()), 7);
        let other = layout.add("b.weight", 100, 30, Start::Normal(0.1));
        let more = Params::<f32>::initial(Arc::new(layout), 7);
        assert_eq!(few.slice(weight), more.slice(weight));
        assert_ne!(more.slice(weight), more.slice(other));
        assert_eq!(more.slice(bias), [-1.0, 2.0]);
        let square: f32 = few.slice(weight).iter().map(|w| w * w).sum();
        assert!((square / 3000.0 - 0.01).abs() < 0.001, "{square}");
    }

    #[test]
    fn visits_follow_the_order_of_building() {
        let (layout, ..) = layout();
        let mut seen = Vec::new();
        Params::<f64>::zeros(Arc::new(layout))
            .visit(&mut |name, block| seen.push((name.to_owned(), block.len())));
        assert_eq!(seen, [("a.weight".to_owned(), 3000), ("a.bias".to_owned(), 2)]);
    }
}
