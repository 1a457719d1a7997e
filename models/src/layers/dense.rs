//! A dense layer over a batch: `Y = act(X W + b)`.
//!
//! Shapes: `X` is `[batch, inputs]`, `W` is `[inputs, outputs]`, `b` is `[outputs]`, `Y` is `[batch, outputs]`. `act` is none, ReLU or sigmoid: their slopes
//! follow from `Y`, so nothing else need be kept. `W` starts normal with variance `2 / inputs` before ReLU and `1 / inputs` otherwise, `b` zero.

use ndarray::{ArrayView2, ArrayViewMut2};

use super::grid::{numbers, numbers_mut};
use super::{SplitInput, SplitScratch};
use crate::kernels::{Activation, Real};
use crate::params::{Block, Layout, Params, Start};
use crate::work::product;

/// Where a backward pass puts the gradient of its input.
pub enum Sink<'a, R> {
    /// Nobody wants it.
    Nothing,
    /// It replaces what was there.
    Overwrite(ArrayViewMut2<'a, R>),
    /// It comes on top.
    Add(ArrayViewMut2<'a, R>),
}

/// A dense layer.
#[derive(Clone, Copy, Debug)]
pub struct Dense {
    /// `[inputs, outputs]`
    pub weight: Block,
    /// `[1, outputs]`
    pub bias: Block,
    activation: Activation,
}

impl Dense {
    /// Adds the layer's blocks `NAME.weight` and `NAME.bias`.
    ///
    /// # Panics
    /// With SiLU, whose slope does not follow from its value.
    pub fn new(
        layout: &mut Layout,
        name: &str,
        inputs: usize,
        outputs: usize,
        activation: Activation,
    ) -> Self {
        assert_ne!(activation, Activation::Silu, "the slope of SiLU needs its input");
        let gain = if activation == Activation::Relu { 2.0 } else { 1.0 };
        let start = Start::Normal((gain / inputs.max(1) as f64).sqrt());
        Self {
            weight: layout.add(format!("{name}.weight"), inputs, outputs, start),
            bias: layout.add(format!("{name}.bias"), 1, outputs, Start::Constant(0.0)),
            activation,
        }
    }

    /// The number of inputs.
    pub fn inputs(&self) -> usize {
        self.weight.rows()
    }

    /// The number of outputs.
    pub fn outputs(&self) -> usize {
        self.weight.columns()
    }

    /// Operations for so many rows, see [`crate::work`].
    pub(crate) fn operations(&self, rows: usize) -> u64 {
        product(rows, self.inputs(), self.outputs())
    }

    /// Writes `y`.
    pub fn forward<R: Real>(&self, params: &Params<R>, x: ArrayView2<R>, y: ArrayViewMut2<R>) {
        let bias = Some(params.slice(self.bias));
        R::matmul(x, params.matrix(self.weight), bias, self.activation, y);
    }

    /// Writes `y` for inputs that share some of their columns.
    pub fn score(
        &self,
        params: &Params<f32>,
        x: &SplitInput<'_>,
        scratch: &mut SplitScratch,
        y: ArrayViewMut2<'_, f32>,
    ) {
        let (weight, bias) = (params.matrix(self.weight), params.slice(self.bias));
        x.matmul(weight, bias, self.activation, scratch, y);
    }

    /// Given `y` and `dy`, overwrites the gradients of the parameters and gives `dx`. `dy` becomes the gradient of `X W + b`.
    pub fn backward<R: Real>(
        &self,
        params: &Params<R>,
        x: ArrayView2<R>,
        y: ArrayView2<R>,
        mut dy: ArrayViewMut2<R>,
        grads: &mut Params<R>,
        dx: Sink<'_, R>,
    ) {
        slope(self.activation, y, dy.view_mut());
        R::matmul_tn(x, dy.view(), false, grads.matrix_mut(self.weight));
        R::column_sums_add(dy.view(), grads.zeroed(self.bias));
        match dx {
            Sink::Nothing => {}
            Sink::Overwrite(dx) => R::matmul_nt(dy.view(), params.matrix(self.weight), false, dx),
            Sink::Add(dx) => R::matmul_nt(dy.view(), params.matrix(self.weight), true, dx),
        }
    }
}

/// `dy *= act'(z)`, told by `y = act(z)`.
fn slope<R: Real>(activation: Activation, y: ArrayView2<R>, mut dy: ArrayViewMut2<R>) {
    let numbers = |(y, dy)| (numbers(y), numbers_mut(dy));
    let rows = y.rows().into_iter().zip(dy.rows_mut()).map(numbers);
    match activation {
        Activation::Relu => rows.for_each(|(y, dy)| {
            for (dy, &y) in dy.iter_mut().zip(y) {
                *dy = if y > R::zero() { *dy } else { R::zero() };
            }
        }),
        Activation::Sigmoid => rows.for_each(|(y, dy)| {
            for (dy, &y) in dy.iter_mut().zip(y) {
                *dy *= y * (R::one() - y);
            }
        }),
        Activation::None | Activation::Silu => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::gradcheck::assert_slope;
    use crate::layers::Grid;
    use crate::layers::testing::{filled, wave};

    #[test]
    fn gradients_are_the_slope_of_the_loss() {
        for activation in [Activation::None, Activation::Relu, Activation::Sigmoid] {
            let mut layout = Layout::default();
            let layer = Dense::new(&mut layout, "dense", 3, 2, activation);
            let layout = Arc::new(layout);
            let (x, dy) = (wave(4, 3, 0.3), wave(4, 2, 1.1));
            let point = wave(1, 8, 2.0).values().to_vec();
            let loss = |values: &[f64], x: &Grid<f64>| {
                let mut y = wave(4, 2, 0.0);
                layer.forward(&filled(&layout, values), x.view(), y.view_mut());
                (&y.view() * &dy.view()).sum()
            };
            let params = filled(&layout, &point);
            let mut grads = Params::zeros(layout.clone());
            let (mut y, mut dz, mut dx) = (wave(4, 2, 0.0), dy.clone(), wave(4, 3, 0.0));
            layer.forward(&params, x.view(), y.view_mut());
            let into = Sink::Overwrite(dx.view_mut());
            layer.backward(&params, x.view(), y.view(), dz.view_mut(), &mut grads, into);
            assert_slope(&point, grads.values(), |values| loss(values, &x));
            assert_slope(x.values(), dx.values(), |values| {
                let mut x = x.clone();
                x.values_mut().copy_from_slice(values);
                loss(&point, &x)
            });
        }
    }
}
