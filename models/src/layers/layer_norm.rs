//! Normalisation of each row, then SiLU: `h = silu(γ x̂ + β)`, `x̂ = (x - mean) / sqrt(variance + ε)` (models.md 0.1 and 1.8).
//!
//! This is HoME's remedy against experts that collapse, with LayerNorm in the place of BatchNorm: a stream has no
//! batch statistics that serving could share. All experts then speak at the same scale, so that gate weights mean what they say.
//! Shapes: `x`, `h` `[batch, n]`; `γ`, `β` `[n]`. Backward, with `e = dy γ`: `dx = (e - mean(e) - x̂ mean(e x̂)) / sd` (identity 29).

use ndarray::{ArrayView2, ArrayViewMut2};

use super::Grid;
use crate::kernels::Real;
use crate::params::{Block, Layout, Params, Start};

/// Added to the variance.
const EPSILON: f64 = 1e-5;

/// The layer.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    gain: Block,
    shift: Block,
}

/// What the backward pass reads: `[batch, n]` normalised inputs, and `[batch, 1]` one over their deviation.
#[derive(Clone, Debug, Default)]
pub struct NormTape<R> {
    normal: Grid<R>,
    scale: Grid<R>,
}

impl LayerNorm {
    /// Adds the blocks `NAME.gain`, ones at first, and `NAME.shift`, zeros at first.
    pub fn new(layout: &mut Layout, name: &str, width: usize) -> Self {
        Self {
            gain: layout.add(format!("{name}.gain"), 1, width, Start::Constant(1.0)),
            shift: layout.add(format!("{name}.shift"), 1, width, Start::Constant(0.0)),
        }
    }

    /// Replaces `x` by `h`.
    pub fn forward<R: Real>(
        &self,
        params: &Params<R>,
        mut x: ArrayViewMut2<R>,
        tape: &mut NormTape<R>,
    ) {
        let (rows, width) = x.dim();
        let count = R::from_f64(width as f64);
        let (gain, shift) = (params.slice(self.gain), params.slice(self.shift));
        tape.normal.reshape(rows, width);
        tape.scale.reshape(rows, 1);
        for (i, mut x) in x.rows_mut().into_iter().enumerate() {
            let mean = x.iter().copied().sum::<R>() / count;
            let variance = x.iter().map(|&x| (x - mean) * (x - mean)).sum::<R>() / count;
            let scale = R::one() / (variance + R::from_f64(EPSILON)).sqrt();
            tape.scale.row_mut(i)[0] = scale;
            let normal = tape.normal.row_mut(i);
            for (j, x) in x.iter_mut().enumerate() {
                normal[j] = (*x - mean) * scale;
                *x = gain[j] * normal[j] + shift[j];
            }
            for x in x.iter_mut() {
                *x *= x.sigmoid();
            }
        }
    }

    /// Replaces `dh` by `dx` and adds to the gradients of the parameters.
    pub fn backward<R: Real>(
        &self,
        params: &Params<R>,
        tape: &NormTape<R>,
        mut dh: ArrayViewMut2<R>,
        grads: &mut Params<R>,
    ) {
        let (gain, shift) = (params.slice(self.gain), params.slice(self.shift));
        for (i, mut dh) in dh.rows_mut().into_iter().enumerate() {
            let normal = tape.normal.row(i);
            for (j, dh) in dh.iter_mut().enumerate() {
                let z = gain[j] * normal[j] + shift[j];
                let p = z.sigmoid();
                *dh *= p * (R::one() + z * (R::one() - p));
            }
        }
        R::column_sums_add(dh.view(), grads.slice_mut(self.shift));
        self.gain_gradient(tape, dh.view(), grads);
        let count = R::from_f64(gain.len() as f64);
        for (i, mut dh) in dh.rows_mut().into_iter().enumerate() {
            let (normal, scale) = (tape.normal.row(i), tape.scale.row(i)[0]);
            let (mut mean, mut along) = (R::zero(), R::zero());
            for (j, dh) in dh.iter_mut().enumerate() {
                *dh *= gain[j];
                mean += *dh;
                along += *dh * normal[j];
            }
            (mean, along) = (mean / count, along / count);
            for (j, dh) in dh.iter_mut().enumerate() {
                *dh = (*dh - mean - normal[j] * along) * scale;
            }
        }
    }

    fn gain_gradient<R: Real>(&self, tape: &NormTape<R>, dz: ArrayView2<R>, grads: &mut Params<R>) {
        let gain = grads.slice_mut(self.gain);
        for (i, dz) in dz.rows().into_iter().enumerate() {
            for ((gain, &dz), &normal) in gain.iter_mut().zip(dz).zip(tape.normal.row(i)) {
                *gain += dz * normal;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::gradcheck::assert_slope;
    use crate::layers::testing::{filled, wave};

    #[test]
    fn gradients_are_the_slope_of_the_loss() {
        let mut layout = Layout::default();
        let layer = LayerNorm::new(&mut layout, "norm", 5);
        let layout = Arc::new(layout);
        let (x, dh, point) = (wave(3, 5, 0.2), wave(3, 5, 0.9), wave(1, 10, 1.7).values().to_vec());
        let loss = |values: &[f64], x: &[f64]| {
            let mut h = wave(3, 5, 0.0);
            h.values_mut().copy_from_slice(x);
            layer.forward(&filled(&layout, values), h.view_mut(), &mut NormTape::default());
            (&h.view() * &dh.view()).sum()
        };
        let (params, mut tape) = (filled(&layout, &point), NormTape::default());
        layer.forward(&params, x.clone().view_mut(), &mut tape);
        let (mut grads, mut dx) = (Params::zeros(layout.clone()), dh.clone());
        layer.backward(&params, &tape, dx.view_mut(), &mut grads);
        assert_slope(&point, grads.values(), |values| loss(values, x.values()));
        assert_slope(x.values(), dx.values(), |x| loss(&point, x));
    }

    #[test]
    fn scale_and_level_of_the_input_do_not_matter() {
        let mut layout = Layout::default();
        let layer = LayerNorm::new(&mut layout, "norm", 6);
        let params = Params::<f64>::initial(Arc::new(layout), 1);
        let (mut x, mut y, mut tape) = (wave(1, 6, 0.4), wave(1, 6, 0.4), NormTape::default());
        y.values_mut().iter_mut().for_each(|y| *y = *y * 100.0 + 7.0);
        layer.forward(&params, x.view_mut(), &mut tape);
        layer.forward(&params, y.view_mut(), &mut tape);
        for (x, y) in x.values().iter().zip(y.values()) {
            assert!((x - y).abs() < 1e-4, "{x} {y}");
        }
    }
}
