//! One level of experts and gates.
//!
//! `f_k = MLP_k(stream)`, `g_o = softmax(stream W_o + b_o)`, output `o` is `Σ_k g_ok f_k` over the experts that gate `o` sees. Backward:
//! `df_k += g_ok dh_o`, `dg_ok = <dh_o, f_k>`, `dlogits = g (dg - <g, dg>)`. Gates start at zero: a uniform mixture.
//!
//! ```text
//! stream ── first layers of all its experts: one product ── further layers, expert by expert ── f_1 .. f_K
//!    └───── logits of all its gates: one product ── softmax ───────────────────────────────────── mix ── outputs
//! ```
//!
//! Without gates there is one expert, and every stream is a copy of its output.

use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2};

use super::Below;
use crate::interest::{softmax, softmax_slope};
use crate::kernels::{Activation, Real};
use crate::layers::{Dense, Grid, LayerNorm, NormTape, Sink, SplitInput, SplitScratch};
use crate::params::{Block, Layout, Params, Start};
use crate::spec::ExpertNorm;
use crate::work::product;

/// A gate: what it reads and which experts it mixes.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    pub(super) stream: usize,
    pub(super) experts: Vec<usize>,
}

/// What a level is made of. Experts of one stream stand side by side, and so do its gates.
pub(super) struct Shape<'a> {
    /// For each expert, the stream that it reads.
    pub(super) streams: Vec<usize>,
    pub(super) gates: Vec<Gate>,
    pub(super) norm: ExpertNorm,
    pub(super) hidden: &'a [usize],
    /// How many streams come out of a level without gates, all alike.
    pub(super) copies: usize,
}

/// Experts and gates that read the same stream.
#[derive(Clone, Debug)]
struct Group {
    stream: usize,
    experts: Range<usize>,
    first: Option<Dense>,
    /// Columns among all gates' logits.
    columns: Range<usize>,
    gate: Option<(Block, Block)>,
}

/// A level.
#[derive(Clone, Debug)]
pub struct Level {
    groups: Vec<Group>,
    /// `[expert][layer after the first]`
    further: Vec<Vec<Dense>>,
    /// `[expert]`
    norms: Vec<LayerNorm>,
    gates: Vec<Gate>,
    widths: Vec<usize>,
    outputs: usize,
}

/// What the backward pass reads, and scratch.
#[derive(Clone, Debug, Default)]
pub struct LevelTape<R> {
    /// For each layer, `[n, experts * width]`.
    hidden: Vec<Grid<R>>,
    norms: Vec<NormTape<R>>,
    /// `[n, gate columns]`: the softmaxes side by side.
    gates: Grid<R>,
    outputs: Vec<Grid<R>>,
    dhidden: Vec<Grid<R>>,
    dgates: Grid<R>,
    doutputs: Vec<Grid<R>>,
}

impl<R: Real> LevelTape<R> {
    /// The output of a gate, or of the only expert.
    pub(super) fn stream(&self, stream: usize) -> ArrayView2<'_, R> {
        self.outputs[stream].view()
    }

    pub(super) fn streams(&self) -> &[Grid<R>] {
        &self.outputs
    }

    pub(super) fn clear(&mut self) {
        self.doutputs.resize_with(self.outputs.len(), Grid::default);
        for (dout, out) in self.doutputs.iter_mut().zip(&self.outputs) {
            dout.zero(out.rows(), out.columns());
        }
    }

    pub(super) fn dstreams(&mut self) -> (&[Grid<R>], &mut [Grid<R>]) {
        (&self.outputs, &mut self.doutputs)
    }

    pub(super) fn pair(&mut self, stream: usize) -> (ArrayView2<'_, R>, ArrayViewMut2<'_, R>) {
        (self.outputs[stream].view(), self.doutputs[stream].view_mut())
    }
}

#[cfg(test)]
impl<R: Real> LevelTape<R> {
    /// `[n, gate columns]`: the softmaxes side by side.
    pub(super) fn gates(&self) -> &Grid<R> {
        &self.gates
    }

    /// What the experts make of one example, one after the other.
    pub(super) fn experts(&self, example: usize, width: usize) -> Vec<&[R]> {
        self.hidden[self.hidden.len() - 1].row(example).chunks_exact(width).collect()
    }
}

impl Level {
    pub(super) fn new(layout: &mut Layout, name: &str, inputs: usize, shape: &Shape<'_>) -> Self {
        let widths = shape.hidden.to_vec();
        let plain_last = shape.norm == ExpertNorm::None;
        let activation = |layer: usize| {
            let last = layer + 1 == widths.len();
            if last && !plain_last { Activation::None } else { Activation::Relu }
        };
        let count = |stream: usize, streams: &[usize]| {
            let before = streams.iter().take_while(|&&s| s != stream).count();
            before..before + streams.iter().filter(|&&s| s == stream).count()
        };
        let gate_streams: Vec<usize> =
            shape.gates.iter().flat_map(|g| vec![g.stream; g.experts.len()]).collect();
        let mut streams = [shape.streams.as_slice(), &gate_streams].concat();
        streams.sort_unstable();
        streams.dedup();
        let groups = streams
            .into_iter()
            .map(|stream| {
                let experts = count(stream, &shape.streams);
                let columns = count(stream, &gate_streams);
                let first = (!experts.is_empty()).then(|| {
                    let (name, outputs) = (format!("{name}.{stream}.1"), experts.len() * widths[0]);
                    Dense::new(layout, &name, inputs, outputs, activation(0))
                });
                let gate = (!columns.is_empty()).then(|| {
                    let zero = || Start::Constant(0.0);
                    let weight = format!("{name}.{stream}.gate.weight");
                    let bias = format!("{name}.{stream}.gate.bias");
                    let weight = layout.add(weight, inputs, columns.len(), zero());
                    (weight, layout.add(bias, 1, columns.len(), zero()))
                });
                Group { stream, experts, first, columns, gate }
            })
            .collect();
        let experts = shape.streams.len();
        let further = (0..experts)
            .map(|k| {
                (1..widths.len())
                    .map(|l| {
                        let name = format!("{name}.expert.{k}.{}", l + 1);
                        Dense::new(layout, &name, widths[l - 1], widths[l], activation(l))
                    })
                    .collect()
            })
            .collect();
        let norms = if plain_last { 0 } else { experts };
        let width = widths[widths.len() - 1];
        let norms = (0..norms)
            .map(|k| LayerNorm::new(layout, &format!("{name}.expert.{k}.norm"), width))
            .collect();
        let gates = shape.gates.clone();
        let outputs = if gates.is_empty() { shape.copies } else { gates.len() };
        Self { groups, further, norms, gates, widths, outputs }
    }

    /// Width of an expert's output.
    pub fn width(&self) -> usize {
        self.widths[self.widths.len() - 1]
    }

    /// Operations of experts, gates and mixtures for so many examples.
    pub(super) fn operations(&self, examples: usize) -> u64 {
        let experts = self.groups.iter().filter_map(|group| group.first.as_ref());
        let experts: u64 = experts
            .chain(self.further.iter().flatten())
            .map(|layer| layer.operations(examples))
            .sum();
        let gates = self.groups.iter().filter_map(|group| group.gate);
        let gates: u64 = gates
            .map(|(weight, _)| {
                let columns = weight.columns();
                product(examples, weight.rows(), columns) + product(examples, columns, self.width())
            })
            .sum();
        experts + gates
    }

    /// How many columns the features are multiplied to: first layers and gates.
    pub(super) fn first_columns(&self) -> usize {
        let columns = |group: &Group| {
            let first = group.first.map_or(0, |first| first.outputs());
            first + group.gate.map_or(0, |(weight, _)| weight.columns())
        };
        self.groups.iter().map(columns).sum()
    }

    pub(super) fn forward<'x, R: Real + 'x>(
        &self,
        params: &Params<R>,
        stream: &dyn Fn(usize) -> ArrayView2<'x, R>,
        tape: &mut LevelTape<R>,
    ) {
        self.reshape(stream(0).nrows(), tape);
        for group in &self.groups {
            if let Some(first) = &group.first {
                let columns = columns(&group.experts, self.widths[0]);
                first.forward(params, stream(group.stream), tape.hidden[0].part_mut(columns));
            }
            if let Some((weight, bias)) = group.gate {
                let (weight, bias) = (params.matrix(weight), Some(params.slice(bias)));
                let logits = tape.gates.part_mut(group.columns.clone());
                R::matmul(stream(group.stream), weight, bias, Activation::None, logits);
            }
        }
        self.forward_further(params, tape);
    }

    /// [`Level::forward`] of a lowest level over candidates, which share some of their features.
    pub(super) fn score(
        &self,
        params: &Params<f32>,
        x: &SplitInput<'_>,
        scratch: &mut SplitScratch,
        tape: &mut LevelTape<f32>,
    ) {
        self.reshape(x.own.nrows(), tape);
        for group in &self.groups {
            if let Some(first) = &group.first {
                let columns = columns(&group.experts, self.widths[0]);
                first.score(params, x, scratch, tape.hidden[0].part_mut(columns));
            }
            if let Some((weight, bias)) = group.gate {
                let (weight, bias) = (params.matrix(weight), params.slice(bias));
                let logits = tape.gates.part_mut(group.columns.clone());
                x.matmul(weight, bias, Activation::None, scratch, logits);
            }
        }
        self.forward_further(params, tape);
    }

    fn reshape<R: Real>(&self, n: usize, tape: &mut LevelTape<R>) {
        let experts = self.further.len();
        tape.hidden.resize_with(self.widths.len(), Grid::default);
        tape.norms.resize_with(self.norms.len(), NormTape::default);
        for (hidden, &width) in tape.hidden.iter_mut().zip(&self.widths) {
            hidden.reshape(n, experts * width);
        }
        tape.gates.reshape(n, self.gates.iter().map(|g| g.experts.len()).sum());
    }

    /// From the first layers and the gates' logits to the outputs.
    fn forward_further<R: Real>(&self, params: &Params<R>, tape: &mut LevelTape<R>) {
        let n = tape.hidden[0].rows();
        for (k, further) in self.further.iter().enumerate() {
            for (l, layer) in further.iter().enumerate() {
                let (below, above) = tape.hidden.split_at_mut(l + 1);
                let x = below[l].part(columns(&(k..k + 1), self.widths[l]));
                layer.forward(
                    params,
                    x,
                    above[0].part_mut(columns(&(k..k + 1), self.widths[l + 1])),
                );
            }
        }
        let width = self.width();
        let last = tape.hidden.len() - 1;
        for (k, norm) in self.norms.iter().enumerate() {
            let z = tape.hidden[last].part_mut(columns(&(k..k + 1), width));
            norm.forward(params, z, &mut tape.norms[k]);
        }
        self.mix(n, tape);
    }

    fn mix<R: Real>(&self, n: usize, tape: &mut LevelTape<R>) {
        let width = self.width();
        let experts = &tape.hidden[tape.hidden.len() - 1];
        tape.outputs.resize_with(self.outputs, Grid::default);
        tape.outputs.iter_mut().for_each(|out| out.zero(n, width));
        if self.gates.is_empty() {
            for out in &mut tape.outputs {
                out.values_mut().copy_from_slice(experts.values());
            }
        }
        for i in 0..n {
            let (gates, experts) = (tape.gates.row_mut(i), experts.row(i));
            let mut rest = gates;
            for (gate, out) in self.gates.iter().zip(&mut tape.outputs) {
                let (mine, others) = rest.split_at_mut(gate.experts.len());
                rest = others;
                softmax(mine);
                for (&g, &k) in mine.iter().zip(&gate.experts) {
                    R::axpy(g, &experts[k * width..(k + 1) * width], out.row_mut(i));
                }
            }
        }
    }

    pub(super) fn backward<R: Real>(
        &self,
        params: &Params<R>,
        below: &mut Below<'_, '_, R>,
        tape: &mut LevelTape<R>,
        grads: &mut Params<R>,
    ) {
        self.unmix(tape);
        let (width, last) = (self.width(), tape.hidden.len() - 1);
        for (k, norm) in self.norms.iter().enumerate() {
            let dz = tape.dhidden[last].part_mut(columns(&(k..k + 1), width));
            norm.backward(params, &tape.norms[k], dz, grads);
        }
        for (k, further) in self.further.iter().enumerate() {
            for (l, layer) in further.iter().enumerate().rev() {
                let (x, y) = (
                    columns(&(k..k + 1), self.widths[l]),
                    columns(&(k..k + 1), self.widths[l + 1]),
                );
                let (dbelow, dabove) = tape.dhidden.split_at_mut(l + 1);
                let (dx, dy) = (dbelow[l].part_mut(x.clone()), dabove[0].part_mut(y.clone()));
                let (x, y) = (tape.hidden[l].part(x), tape.hidden[l + 1].part(y));
                layer.backward(params, x, y, dy, grads, Sink::Overwrite(dx));
            }
        }
        for group in &self.groups {
            let (x, mut dx) = below.pair(group.stream);
            if let Some(first) = &group.first {
                let columns = columns(&group.experts, self.widths[0]);
                let (y, dy) =
                    (tape.hidden[0].part(columns.clone()), tape.dhidden[0].part_mut(columns));
                first.backward(params, x, y, dy, grads, Sink::Overwrite(dx.view_mut()));
            }
            if let Some((weight, bias)) = group.gate {
                let dlogits = tape.dgates.part(group.columns.clone());
                R::matmul_tn(x, dlogits, false, grads.matrix_mut(weight));
                R::column_sums_add(dlogits, grads.zeroed(bias));
                R::matmul_nt(dlogits, params.matrix(weight), group.first.is_some(), dx);
            }
        }
    }

    /// From the gradients of the outputs to those of the experts and of the gates' logits.
    fn unmix<R: Real>(&self, tape: &mut LevelTape<R>) {
        let (width, last) = (self.width(), tape.hidden.len() - 1);
        let n = tape.hidden[last].rows();
        tape.dhidden.resize_with(tape.hidden.len(), Grid::default);
        for (dhidden, hidden) in tape.dhidden.iter_mut().zip(&tape.hidden) {
            dhidden.reshape(n, hidden.columns());
        }
        let (experts, dexperts) = (&tape.hidden[last], &mut tape.dhidden[last]);
        dexperts.values_mut().fill(R::zero());
        if self.gates.is_empty() {
            for dout in &tape.doutputs {
                R::axpy(R::one(), dout.values(), dexperts.values_mut());
            }
            return;
        }
        tape.dgates.reshape(n, tape.gates.columns());
        for i in 0..n {
            let (experts, dexperts) = (experts.row(i), dexperts.row_mut(i));
            let mut column = 0;
            for (gate, dout) in self.gates.iter().zip(&tape.doutputs) {
                let columns = column..column + gate.experts.len();
                column = columns.end;
                let dout = dout.row(i);
                let (g, dg) =
                    (&tape.gates.row(i)[columns.clone()], &mut tape.dgates.row_mut(i)[columns]);
                for ((&g, dg), &k) in g.iter().zip(&mut *dg).zip(&gate.experts) {
                    let expert = k * width..(k + 1) * width;
                    *dg = R::dot(dout, &experts[expert.clone()]);
                    R::axpy(g, dout, &mut dexperts[expert]);
                }
                softmax_slope(g, dg);
            }
        }
    }
}

fn columns(experts: &Range<usize>, width: usize) -> Range<usize> {
    experts.start * width..experts.end * width
}
