//! The mean of a user's newest behaviours, as a part of the user tower's input.
//!
//! Behaviours are ragged: those of example `i` are the rows `starts[i]..starts[i + 1]`.
//! `y_i = Σ_j e_j / max(n_i, 1)`, so that an empty history is zero; `de_j = dy_i / n_i`.
//!
//! Shapes: `e` `[behaviours, width]`, `starts` `[batch + 1]`, `y` `[batch, width]`.

use ndarray::{ArrayView2, ArrayViewMut2, s};

use crate::kernels::Real;

/// Writes the mean of each example's behaviours into `y`.
///
/// # Panics
/// When the shapes do not fit or `starts` do not ascend to the number of behaviours.
pub fn mean<R: Real>(e: ArrayView2<R>, starts: &[u32], mut y: ArrayViewMut2<R>) {
    check(e.nrows(), starts, y.nrows());
    for (mut y, range) in y.rows_mut().into_iter().zip(starts.windows(2)) {
        let mine = e.slice(s![range[0] as usize..range[1] as usize, ..]);
        let count = R::from_f64(mine.nrows().max(1) as f64);
        y.fill(R::zero());
        for row in mine.rows() {
            y.zip_mut_with(&row, |y, &e| *y += e);
        }
        y.mapv_inplace(|sum| sum / count);
    }
}

/// Given `dy`, overwrites the gradients of the behaviours.
///
/// # Panics
/// As [`mean`].
pub fn mean_backward<R: Real>(dy: ArrayView2<R>, starts: &[u32], mut de: ArrayViewMut2<R>) {
    check(de.nrows(), starts, dy.nrows());
    for (dy, range) in dy.rows().into_iter().zip(starts.windows(2)) {
        let mut mine = de.slice_mut(s![range[0] as usize..range[1] as usize, ..]);
        let count = R::from_f64(mine.nrows().max(1) as f64);
        for mut row in mine.rows_mut() {
            row.zip_mut_with(&dy, |de, &dy| *de = dy / count);
        }
    }
}

fn check(behaviours: usize, starts: &[u32], batch: usize) {
    assert_eq!(starts.len(), batch + 1, "a start for each example, and the end");
    assert_eq!(
        starts.last().map(|&end| end as usize),
        Some(behaviours),
        "behaviours, and their end"
    );
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, arr2};

    use super::*;
    use crate::gradcheck::assert_slope;

    #[test]
    fn an_empty_history_is_zero() {
        let e = arr2(&[[1.0, 2.0], [3.0, 0.0], [5.0, 5.0]]);
        let mut y = Array2::from_elem((3, 2), 9.0);
        mean(e.view(), &[0, 2, 2, 3], y.view_mut());
        assert_eq!(y, arr2(&[[2.0, 1.0], [0.0, 0.0], [5.0, 5.0]]));
    }

    #[test]
    fn gradients_are_the_slope_of_the_loss() {
        let starts = [0, 3, 3, 5];
        let e = Array2::from_shape_fn((5, 2), |(i, j)| ((i * 2 + j) as f64).sin());
        let dy = Array2::from_shape_fn((3, 2), |(i, j)| ((i * 2 + j) as f64).cos());
        let mut de = Array2::from_elem((5, 2), 9.0);
        mean_backward(dy.view(), &starts, de.view_mut());
        assert_slope(e.as_slice().unwrap(), de.as_slice().unwrap(), |e| {
            let mut y = Array2::zeros((3, 2));
            mean(ArrayView2::from_shape((5, 2), e).unwrap(), &starts, y.view_mut());
            (&y * &dy).sum()
        });
    }
}
