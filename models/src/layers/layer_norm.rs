//! Normalisation of each row, then SiLU: `h = silu(γ x̂ + β)`, `x̂ = (x - mean) / sqrt(variance + ε)`.
//!
//! This is HoME's remedy against experts that collapse, with LayerNorm in the place of BatchNorm: a stream has no
//! batch statistics that serving could share. All experts then speak at the same scale, so that gate weights mean what they say.
//! Shapes: `x`, `h` `[batch, n]`; `γ`, `β` `[n]`. Backward, with `e = dy γ`: `dx = (e - mean(e) - x̂ mean(e x̂)) / sd`.

use ndarray::{ArrayView2, ArrayViewMut2};

use super::Grid;
use super::grid::{numbers, numbers_mut};
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

/// What the backward pass reads: `[batch, n]` normalised inputs, `[batch, 1]` one over their deviation, `[batch, n]` the sigmoids of SiLU.
#[derive(Clone, Debug, Default)]
pub struct NormTape<R> {
    normal: Grid<R>,
    scale: Grid<R>,
    gate: Grid<R>,
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
        tape.gate.reshape(rows, width);
        for (i, x) in x.rows_mut().into_iter().enumerate() {
            let x = numbers_mut(x);
            let mean = x.iter().copied().sum::<R>() / count;
            let normal = tape.normal.row_mut(i);
            normal.iter_mut().zip(&*x).for_each(|(normal, &x)| *normal = x - mean);
            let scale = R::one() / (R::dot(normal, normal) / count + R::from_f64(EPSILON)).sqrt();
            tape.scale.row_mut(i)[0] = scale;
            for ((x, normal), (&gain, &shift)) in
                x.iter_mut().zip(normal).zip(gain.iter().zip(shift))
            {
                *normal *= scale;
                *x = gain * *normal + shift;
            }
            tape.gate.row_mut(i).copy_from_slice(x);
        }
        R::sigmoid_in_place(tape.gate.values_mut());
        for (x, i) in x.rows_mut().into_iter().zip(0..) {
            numbers_mut(x).iter_mut().zip(tape.gate.row(i)).for_each(|(x, &gate)| *x *= gate);
        }
    }

    /// Replaces `dh` by `dx` and overwrites the gradients of the parameters.
    pub fn backward<R: Real>(
        &self,
        params: &Params<R>,
        tape: &NormTape<R>,
        mut dh: ArrayViewMut2<R>,
        grads: &mut Params<R>,
    ) {
        let (gain, shift) = (params.slice(self.gain), params.slice(self.shift));
        for (i, dh) in dh.rows_mut().into_iter().enumerate() {
            let taped = tape.normal.row(i).iter().zip(tape.gate.row(i));
            let affine = gain.iter().zip(shift);
            for ((dh, (&normal, &p)), (&gain, &shift)) in
                numbers_mut(dh).iter_mut().zip(taped).zip(affine)
            {
                let z = gain * normal + shift;
                *dh *= p * (R::one() + z * (R::one() - p));
            }
        }
        R::column_sums_add(dh.view(), grads.zeroed(self.shift));
        self.gain_gradient(tape, dh.view(), grads);
        let count = R::from_f64(gain.len() as f64);
        for (i, dh) in dh.rows_mut().into_iter().enumerate() {
            let (dh, normal, scale) = (numbers_mut(dh), tape.normal.row(i), tape.scale.row(i)[0]);
            dh.iter_mut().zip(gain).for_each(|(dh, &gain)| *dh *= gain);
            let mean = dh.iter().copied().sum::<R>() / count;
            let along = R::dot(dh, normal) / count;
            for (dh, &normal) in dh.iter_mut().zip(normal) {
                *dh = (*dh - mean - normal * along) * scale;
            }
        }
    }

    fn gain_gradient<R: Real>(&self, tape: &NormTape<R>, dz: ArrayView2<R>, grads: &mut Params<R>) {
        let gain = grads.zeroed(self.gain);
        for (i, dz) in dz.rows().into_iter().enumerate() {
            for ((gain, &dz), &normal) in gain.iter_mut().zip(numbers(dz)).zip(tape.normal.row(i)) {
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
