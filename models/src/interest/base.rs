//! `base`: the mean of the newest behaviours. No parameters.

use ndarray::{ArrayView2, ArrayViewMut2};

use super::History;
use crate::kernels::Real;
use crate::layers::Grid;

/// `out = Σ_j e_j / max(count, 1)`.
pub(super) fn forward<R: Real>(history: &History<'_, R>, mut out: ArrayViewMut2<R>) {
    out.fill(R::zero());
    for (range, mut out) in history.ranges().zip(out.rows_mut()) {
        let share = R::one() / R::from_f64(range.len().max(1) as f64);
        for j in range {
            for (out, &e) in out.iter_mut().zip(history.behaviours.row(j)) {
                *out += e * share;
            }
        }
    }
}

/// `de_j = dout / count`.
pub(super) fn backward<R: Real>(
    history: &History<'_, R>,
    dout: ArrayView2<R>,
    dbehaviours: &mut Grid<R>,
) {
    dbehaviours.reshape(history.behaviours.nrows(), history.behaviours.ncols());
    for (range, dout) in history.ranges().zip(dout.rows()) {
        let share = R::one() / R::from_f64(range.len().max(1) as f64);
        for j in range {
            for (de, &dout) in dbehaviours.row_mut(j).iter_mut().zip(dout) {
                *de = dout * share;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::assert_slope;
    use crate::layers::testing::wave;

    #[test]
    fn gradients_are_the_slope_of_the_loss() {
        let (e, dout, starts) = (wave(4, 2, 0.1), wave(3, 2, 0.6), [0, 3, 3, 4]);
        let loss = |e: &Grid<f64>| {
            let mut out = wave(3, 2, 0.0);
            forward(&History { starts: &starts, behaviours: e.view() }, out.view_mut());
            assert_eq!(out.row(1), [0.0, 0.0], "an empty history gives zeros");
            (&out.view() * &dout.view()).sum()
        };
        let mut de = Grid::default();
        backward(&History { starts: &starts, behaviours: e.view() }, dout.view(), &mut de);
        assert_slope(e.values(), de.values(), |values| {
            let mut e = e.clone();
            e.values_mut().copy_from_slice(values);
            loss(&e)
        });
    }
}
