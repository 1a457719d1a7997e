//! `fm`: a factorisation machine over the embeddings of the key fields (Rendle, ICDM 2010), one for each task.
//!
//! `logit_t += <v_t, c>`, `c = ½ ((Σ_f e_f)² - Σ_f e_f²)`, so that `v_t = 1`, with which it commonly starts, is the machine itself: the sum over all pairs
//! `<e_f, e_g>`. Backward: `dv_t = dl_t c`, `de_f = (Σ_t dl_t v_t) (Σ_g e_g - e_f)`.
//!
//! Shapes: the first columns of `x` are `F` fields of `width`; `v` `[T, width]`.

use ndarray::{ArrayView1, ArrayView2, ArrayViewMut2};

use crate::kernels::Real;
use crate::params::{Block, Layout, Params, Start};
use crate::work::product;

/// Columns for which the sums are held at a time.
const CHUNK: usize = 16;

/// The machine.
#[derive(Clone, Copy, Debug)]
pub struct Fm {
    weight: Block,
    fields: usize,
    width: usize,
}

impl Fm {
    /// Adds the block `crossing.fm`: at first every `v_t` is all `first[t]`.
    pub fn new(layout: &mut Layout, fields: usize, width: usize, first: &[f64]) -> Self {
        let start = first.iter().flat_map(|&first| std::iter::repeat_n(first, width)).collect();
        let weight = layout.add("crossing.fm", first.len(), width, Start::Values(start));
        Self { weight, fields, width }
    }

    /// Operations for so many examples: sums, squares and, for each task, a product.
    pub(crate) fn operations(&self, examples: usize) -> u64 {
        product(examples, 2 * self.fields + self.weight.rows(), self.width)
    }

    /// Adds to `logits` `[n, T]`.
    pub fn forward<R: Real>(
        &self,
        params: &Params<R>,
        x: ArrayView2<R>,
        mut logits: ArrayViewMut2<R>,
    ) {
        let weight = params.matrix(self.weight);
        for (x, mut logits) in x.rows().into_iter().zip(logits.rows_mut()) {
            for start in (0..self.width).step_by(CHUNK) {
                let (sum, square, count) = self.sums(x, self.fields, start);
                for (logit, v) in logits.iter_mut().zip(weight.rows()) {
                    for k in 0..count {
                        *logit += v[start + k] * half(sum[k] * sum[k] - square[k]);
                    }
                }
            }
        }
    }

    /// Adds to `logits` `[n, T]` of candidates: the first columns of `common` `[1, ..]` are the fields that all share, those of `own` `[n, ..]`
    /// the others.
    pub fn score(
        &self,
        params: &Params<f32>,
        common: ArrayView2<'_, f32>,
        own: ArrayView2<'_, f32>,
        own_fields: usize,
        mut logits: ArrayViewMut2<'_, f32>,
    ) {
        let weight = params.matrix(self.weight);
        let common_fields = self.fields - own_fields;
        for start in (0..self.width).step_by(CHUNK) {
            let (shared, square, count) = self.sums(common.row(0), common_fields, start);
            for (x, mut logits) in own.rows().into_iter().zip(logits.rows_mut()) {
                let (own, own_square, _) = self.sums(x, own_fields, start);
                for (logit, v) in logits.iter_mut().zip(weight.rows()) {
                    for k in 0..count {
                        let sum = shared[k] + own[k];
                        *logit += v[start + k] * half(sum * sum - (square[k] + own_square[k]));
                    }
                }
            }
        }
    }

    /// Given `dlogits`, overwrites its `grads` and adds to `dx`.
    pub fn backward<R: Real>(
        &self,
        params: &Params<R>,
        x: ArrayView2<R>,
        dlogits: ArrayView2<R>,
        grads: &mut Params<R>,
        mut dx: ArrayViewMut2<R>,
    ) {
        grads.zeroed(self.weight);
        let (weight, mut dweight) = (params.matrix(self.weight), grads.matrix_mut(self.weight));
        for ((x, dlogits), mut dx) in x.rows().into_iter().zip(dlogits.rows()).zip(dx.rows_mut()) {
            for start in (0..self.width).step_by(CHUNK) {
                let (sum, square, count) = self.sums(x, self.fields, start);
                let mut dc = [R::zero(); CHUNK];
                for (t, &dlogit) in dlogits.iter().enumerate() {
                    for k in 0..count {
                        dc[k] += dlogit * weight[[t, start + k]];
                        let c = half(sum[k] * sum[k] - square[k]);
                        dweight[[t, start + k]] += dlogit * c;
                    }
                }
                for field in 0..self.fields {
                    let at = field * self.width + start;
                    for k in 0..count {
                        dx[at + k] += dc[k] * (sum[k] - x[at + k]);
                    }
                }
            }
        }
    }

    /// Adds to the `logits` `[T]` of one example, whose `c` are `pairs`.
    pub(crate) fn add_pairs(&self, params: &Params<f32>, pairs: &[f32], logits: &mut [f32]) {
        for (logit, v) in logits.iter_mut().zip(params.slice(self.weight).chunks_exact(self.width))
        {
            *logit += v.iter().zip(pairs).map(|(v, c)| v * c).sum::<f32>();
        }
    }

    /// Given the `dlogits` `[T]` of one example, adds to `grads`.
    pub(crate) fn differentiate_pairs(
        &self,
        pairs: &[f32],
        dlogits: &[f32],
        grads: &mut Params<f32>,
    ) {
        let rows = grads.slice_mut(self.weight).chunks_exact_mut(self.width);
        for (&dlogit, dv) in dlogits.iter().zip(rows) {
            dv.iter_mut().zip(pairs).for_each(|(dv, c)| *dv += dlogit * c);
        }
    }

    /// `dc = Σ_t dlogits_t v_t`: the slope by `c` of one example.
    pub(crate) fn slope(&self, params: &Params<f32>, dlogits: &[f32], dc: &mut [f32]) {
        dc.fill(0.0);
        let rows = params.slice(self.weight).chunks_exact(self.width);
        for (&dlogit, v) in dlogits.iter().zip(rows) {
            dc.iter_mut().zip(v).for_each(|(dc, v)| *dc += dlogit * v);
        }
    }

    /// `Σ_f e_f` and `Σ_f e_f²` of the first `fields` for up to [`CHUNK`] columns from `start`, and how many those are.
    fn sums<R: Real>(
        &self,
        x: ArrayView1<R>,
        fields: usize,
        start: usize,
    ) -> ([R; CHUNK], [R; CHUNK], usize) {
        let count = CHUNK.min(self.width - start);
        let (mut sum, mut square) = ([R::zero(); CHUNK], [R::zero(); CHUNK]);
        for field in 0..fields {
            let at = field * self.width + start;
            for k in 0..count {
                let e = x[at + k];
                sum[k] += e;
                square[k] += e * e;
            }
        }
        (sum, square, count)
    }
}

fn half<R: Real>(value: R) -> R {
    value * R::from_f64(0.5)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::gradcheck::assert_slope;
    use crate::layers::Grid;
    use crate::layers::testing::{filled, wave};

    #[test]
    fn it_starts_as_the_sum_over_all_pairs() {
        let mut layout = Layout::default();
        let fm = Fm::new(&mut layout, 4, 18, &[1.0; 2]);
        let params = Params::<f64>::initial(Arc::new(layout), 1);
        let (x, mut logits) = (wave(1, 4 * 18 + 3, 0.3), wave(1, 2, 0.0));
        logits.values_mut().fill(0.0);
        fm.forward(&params, x.view(), logits.view_mut());
        let e = |f: usize| &x.row(0)[f * 18..(f + 1) * 18];
        let pairs = (0..4).flat_map(|f| (f + 1..4).map(move |g| (f, g)));
        let wanted: f64 =
            pairs.map(|(f, g)| e(f).iter().zip(e(g)).map(|(a, b)| a * b).sum::<f64>()).sum();
        for &logit in logits.values() {
            assert!((logit - wanted).abs() < 1e-12, "{logit} {wanted}");
        }
    }

    #[test]
    fn gradients_are_the_slope_of_the_loss() {
        let mut layout = Layout::default();
        let fm = Fm::new(&mut layout, 3, 2, &[1.0; 2]);
        let layout = Arc::new(layout);
        let (x, dlogits, point) = (wave(3, 7, 0.3), wave(3, 2, 0.8), [0.5, -0.3, 1.2, 0.9]);
        let loss = |params: &[f64], x: &[f64]| {
            let mut logits = Grid::default();
            logits.zero(3, 2);
            let x = crate::params::view(x, 3, 7);
            fm.forward(&filled(&layout, params), x, logits.view_mut());
            (&logits.view() * &dlogits.view()).sum()
        };
        let (mut grads, mut dx) = (Params::zeros(layout.clone()), Grid::default());
        dx.zero(3, 7);
        let params = filled(&layout, &point);
        fm.backward(&params, x.view(), dlogits.view(), &mut grads, dx.view_mut());
        assert_slope(&point, grads.values(), |params| loss(params, x.values()));
        assert_slope(x.values(), dx.values(), |x| loss(&point, x));
    }
}
