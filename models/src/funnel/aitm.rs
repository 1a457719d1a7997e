//! `aitm`: each tower hears what its parent's came to know, and a calibrator keeps a child below its parent (Xi et al., KDD 2021).
//!
//! `info = relu(z_parent W_c + b_c)`; for `u` in `{q_t, info}`: `s_u = <u W₁, u W₂> / sqrt(K)`, `α = softmax(s)`, `z_t = Σ_u α_u (u W₃)`. `W₁, W₂, W₃` are shared by
//! all pairs of tasks; a root's `z` is its tower's `q`. Each element scores itself, not the other. The loss has
//! `c Σ_children max(p_child - p_parent, 0)` on top, on the probabilities as they are served, for examples whose child has a label.
//!
//! What differs from the paper and its code, on purpose: the parent in the *tree* of tasks is heard, where the paper has a chain (siblings do not hear each
//! other); no dropout, and no L2 penalty on embeddings and attention; the calibrator counts examples whose child has a label, over
//! those of the batch that have any, where the paper takes the mean over all; a label that is corrected for its delay is calibrated at both its
//! arrivals.
//!
//! Shapes: `q`, `info`, `z` `[n, K]`; `[W₁, W₂, W₃]` is one block `[K, 3 K]`.

use ndarray::ArrayView2;
use sluice_features::example::LabelMode;

use super::targets::Example;
use super::tower::TowerTape;
use crate::kernels::{Activation, Real};
use crate::layers::{Dense, Grid, Sink};
use crate::params::{Block, Layout, Params, Start};
use crate::work::product;

#[derive(Clone, Debug)]
pub(super) struct Transfer {
    /// For each task, the layer from its parent's knowledge; none for a root.
    infos: Vec<Option<Dense>>,
    weights: Block,
}

/// One pair of tasks.
#[derive(Clone, Debug, Default)]
struct Pair<R> {
    info: Grid<R>,
    /// `[n, 3 K]` each: `q` and `info` times all weights.
    projected: [Grid<R>; 2],
    /// `[n, 2]`
    alpha: Grid<R>,
    z: Grid<R>,
    dinfo: Grid<R>,
    dprojected: [Grid<R>; 2],
    dz: Grid<R>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct TransferTape<R> {
    pairs: Vec<Pair<R>>,
}

impl<R: Real> TransferTape<R> {
    /// `z` of a child.
    pub(super) fn output(&self, task: usize) -> ArrayView2<'_, R> {
        self.pairs[task].z.view()
    }

    /// `z` of a child, and where its gradient is added.
    pub(super) fn known(&mut self, task: usize) -> (&Grid<R>, &mut Grid<R>) {
        let pair = &mut self.pairs[task];
        (&pair.z, &mut pair.dz)
    }

    pub(super) fn clear(&mut self) {
        self.pairs.iter_mut().for_each(|pair| pair.dz.zero(pair.z.rows(), pair.z.columns()));
    }
}

impl Transfer {
    pub(super) fn new(layout: &mut Layout, parents: &[Option<usize>], width: usize) -> Self {
        let info = |(task, parent): (usize, &Option<usize>)| {
            let name = format!("funnel.{task}.info");
            parent.map(|_| Dense::new(layout, &name, width, width, Activation::Relu))
        };
        let infos = parents.iter().enumerate().map(info).collect();
        let start = Start::Normal((1.0 / width as f64).sqrt());
        Self { infos, weights: layout.add("funnel.transfer", width, 3 * width, start) }
    }

    /// Operations for so many examples: for each child what it hears, two projections, two scores and their mixture.
    pub(super) fn operations(&self, examples: usize) -> u64 {
        let (width, wide) = (self.weights.rows(), self.weights.columns());
        let child =
            |info: &Dense| info.operations(examples) + product(2 * examples, width, wide + 2);
        self.infos.iter().flatten().map(child).sum()
    }

    /// Computes `z` of every child from its tower and its parent.
    pub(super) fn forward<R: Real>(
        &self,
        params: &Params<R>,
        parents: &[Option<usize>],
        towers: &[TowerTape<R>],
        tape: &mut TransferTape<R>,
    ) {
        let weights = params.matrix(self.weights);
        let width = weights.nrows();
        let scale = R::one() / R::from_f64(width as f64).sqrt();
        tape.pairs.resize_with(parents.len(), Pair::default);
        for (task, info) in self.infos.iter().enumerate() {
            let (Some(info), Some(parent)) = (info, parents[task]) else { continue };
            let (earlier, here) = tape.pairs.split_at_mut(task);
            let pair = &mut here[0];
            let above = match parents[parent] {
                None => towers[parent].own(),
                Some(_) => &earlier[parent].z,
            };
            let (q, n) = (towers[task].own(), above.rows());
            pair.info.reshape(n, width);
            info.forward(params, above.view(), pair.info.view_mut());
            for (u, projected) in [q, &pair.info].into_iter().zip(&mut pair.projected) {
                projected.reshape(n, 3 * width);
                let y = projected.view_mut();
                R::matmul(u.view(), weights, None, Activation::None, y);
            }
            pair.alpha.reshape(n, 2);
            pair.z.reshape(n, width);
            for i in 0..n {
                let [own, heard] = [pair.projected[0].row(i), pair.projected[1].row(i)];
                let score = |u: &[R]| R::dot(&u[..width], &u[width..2 * width]) * scale;
                let alpha = (score(own) - score(heard)).sigmoid();
                pair.alpha.row_mut(i).copy_from_slice(&[alpha, R::one() - alpha]);
                for (k, z) in pair.z.row_mut(i).iter_mut().enumerate() {
                    *z = alpha * own[2 * width + k] + (R::one() - alpha) * heard[2 * width + k];
                }
            }
        }
    }

    /// Makes the gradient of what the pairs share zero: each of them adds to it.
    pub(super) fn clear<R: Real>(&self, grads: &mut Params<R>) {
        grads.zeroed(self.weights);
    }

    /// From the gradient of a child's `z`: writes that of its layer and adds to that of the shared weights, to the gradient of its tower, and to that of its parent's knowledge.
    pub(super) fn backward<R: Real>(
        &self,
        params: &Params<R>,
        task: usize,
        parent: usize,
        parent_is_root: bool,
        towers: &mut [TowerTape<R>],
        tape: &mut TransferTape<R>,
        grads: &mut Params<R>,
    ) {
        let weights = params.matrix(self.weights);
        let (earlier, here) = tape.pairs.split_at_mut(task);
        let pair = &mut here[0];
        pair.project_back(weights.nrows());
        let (q, dq) = towers[task].own_pair();
        let (d, p) = (&pair.dprojected, &pair.info);
        R::matmul_tn(q.view(), d[0].view(), true, grads.matrix_mut(self.weights));
        R::matmul_tn(p.view(), d[1].view(), true, grads.matrix_mut(self.weights));
        R::matmul_nt(d[0].view(), weights, true, dq.view_mut());
        pair.dinfo.reshape(p.rows(), p.columns());
        R::matmul_nt(d[1].view(), weights, false, pair.dinfo.view_mut());
        let (above, dabove) = if parent_is_root {
            towers[parent].own_pair()
        } else {
            let above = &mut earlier[parent];
            (&above.z, &mut above.dz)
        };
        if let Some(info) = &self.infos[task] {
            let (y, dy) = (pair.info.view(), pair.dinfo.view_mut());
            info.backward(params, above.view(), y, dy, grads, Sink::Add(dabove.view_mut()));
        }
    }
}

impl<R: Real> Pair<R> {
    /// From `dz` to the gradients of both projections.
    fn project_back(&mut self, width: usize) {
        let scale = R::one() / R::from_f64(width as f64).sqrt();
        let n = self.z.rows();
        self.dprojected.iter_mut().for_each(|d| d.reshape(n, 3 * width));
        for i in 0..n {
            let dz = self.dz.row(i);
            let alpha = self.alpha.row(i);
            let heard = |u: usize| R::dot(dz, &self.projected[u].row(i)[2 * width..]);
            let slope = alpha[0] * alpha[1] * (heard(0) - heard(1)) * scale;
            for (u, slope) in [(0, slope), (1, -slope)] {
                let (from, to) = (self.projected[u].row(i), self.dprojected[u].row_mut(i));
                for k in 0..width {
                    to[k] = slope * from[width + k];
                    to[width + k] = slope * from[k];
                    to[2 * width + k] = alpha[u] * dz[k];
                }
            }
        }
    }
}

/// Adds `c max(p_child - p_parent, 0)` to the child's loss, and its slopes by both logits: `± c p (1 - p)`.
pub(super) fn calibrate<R: Real>(
    parents: &[Option<usize>],
    example: &Example<'_>,
    weight: f64,
    p: &[R],
    dlogits: &mut [R],
    loss: &mut [f64],
) {
    let weight = weight * example.share;
    for (task, &parent) in parents.iter().enumerate() {
        let Some(parent) = parent else { continue };
        let over = p[task] - p[parent];
        if example.modes[task] == LabelMode::Masked || over <= R::zero() {
            continue;
        }
        loss[task] += weight * over.to_f64();
        let slope = |p: R| R::from_f64(weight) * p * (R::one() - p);
        dlogits[task] += slope(p[task]);
        dlogits[parent] -= slope(p[parent]);
    }
}
