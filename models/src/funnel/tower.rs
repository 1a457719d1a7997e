//! A task's tower: dense layers with ReLU. A tower without layers hands its stream through.

use ndarray::{ArrayView2, ArrayViewMut2};

use crate::kernels::{Activation, Real};
use crate::layers::{Dense, Grid, Sink};
use crate::params::{Layout, Params};
use crate::work::product;

#[derive(Clone, Debug)]
pub(super) struct Tower {
    layers: Vec<Dense>,
    inputs: usize,
}

/// `[n, width]` for each layer, and the gradients.
#[derive(Clone, Debug, Default)]
pub(super) struct TowerTape<R> {
    hidden: Vec<Grid<R>>,
    dhidden: Vec<Grid<R>>,
    /// Of the stream, where there is no layer.
    dstream: Grid<R>,
}

impl<R: Real> TowerTape<R> {
    pub(super) fn output<'a>(&'a self, stream: &'a Grid<R>) -> ArrayView2<'a, R> {
        self.hidden.last().unwrap_or(stream).view()
    }

    /// The output of a tower that has layers.
    pub(super) fn own(&self) -> &Grid<R> {
        &self.hidden[self.hidden.len() - 1]
    }

    /// The output of a tower that has layers, and where its gradient is added.
    pub(super) fn own_pair(&mut self) -> (&Grid<R>, &mut Grid<R>) {
        let last = self.hidden.len() - 1;
        (&self.hidden[last], &mut self.dhidden[last])
    }

    /// Makes the gradient of the output zero.
    pub(super) fn clear(&mut self, stream: &Grid<R>) {
        self.dhidden.resize_with(self.hidden.len(), Grid::default);
        for (dhidden, hidden) in self.dhidden.iter_mut().zip(&self.hidden) {
            dhidden.zero(hidden.rows(), hidden.columns());
        }
        if self.hidden.is_empty() {
            self.dstream.zero(stream.rows(), stream.columns());
        }
    }

    /// The output, and where its gradient is added.
    pub(super) fn pair<'a>(
        &'a mut self,
        stream: &'a Grid<R>,
    ) -> (ArrayView2<'a, R>, ArrayViewMut2<'a, R>) {
        match (self.hidden.last(), self.dhidden.last_mut()) {
            (Some(hidden), Some(dhidden)) => (hidden.view(), dhidden.view_mut()),
            _ => (stream.view(), self.dstream.view_mut()),
        }
    }
}

impl Tower {
    pub(super) fn new(layout: &mut Layout, name: &str, inputs: usize, widths: &[usize]) -> Self {
        let mut below = inputs;
        let mut layer = |(k, &width): (usize, &usize)| {
            let layer =
                Dense::new(layout, &format!("{name}.{}", k + 1), below, width, Activation::Relu);
            below = width;
            layer
        };
        Self { layers: widths.iter().enumerate().map(&mut layer).collect(), inputs }
    }

    pub(super) fn outputs(&self) -> usize {
        self.layers.last().map_or(self.inputs, Dense::outputs)
    }

    /// Operations of its layers and of its head for so many examples.
    pub(super) fn operations(&self, examples: usize) -> u64 {
        let layers: u64 = self.layers.iter().map(|layer| layer.operations(examples)).sum();
        layers + product(examples, self.outputs(), 1)
    }

    pub(super) fn forward<R: Real>(
        &self,
        params: &Params<R>,
        stream: ArrayView2<R>,
        tape: &mut TowerTape<R>,
    ) {
        tape.hidden.resize_with(self.layers.len(), Grid::default);
        for (k, layer) in self.layers.iter().enumerate() {
            let (below, here) = tape.hidden.split_at_mut(k);
            here[0].reshape(stream.nrows(), layer.outputs());
            let x = below.last().map_or(stream, Grid::view);
            layer.forward(params, x, here[0].view_mut());
        }
    }

    /// From the gradient of the output; overwrites its `grads` and adds to `dstream`.
    pub(super) fn backward<R: Real>(
        &self,
        params: &Params<R>,
        stream: ArrayView2<R>,
        tape: &mut TowerTape<R>,
        grads: &mut Params<R>,
        dstream: &mut Grid<R>,
    ) {
        if self.layers.is_empty() {
            R::axpy(R::one(), tape.dstream.values(), dstream.values_mut());
        }
        for (k, layer) in self.layers.iter().enumerate().rev() {
            let (below, here) = tape.dhidden.split_at_mut(k);
            let (x, dx) = match below.last_mut() {
                Some(dx) => (tape.hidden[k - 1].view(), Sink::Overwrite(dx.view_mut())),
                None => (stream, Sink::Add(dstream.view_mut())),
            };
            let y = tape.hidden[k].view();
            layer.backward(params, x, y, here[0].view_mut(), grads, dx);
        }
    }
}
