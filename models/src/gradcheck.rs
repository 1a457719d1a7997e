//! Finite differences as the judge of every hand-written gradient.
//!
//! The rule: for each coordinate `i`, `(loss(x + h e_i) - loss(x - h e_i)) / 2h` with `h = 1e-5` in
//! double precision must equal `gradient[i]` with a relative error below `1e-6`. A step that small
//! leaves a rounding error near `1e-11 * |loss|` in the quotient, so differences below
//! `1e-9 * (1 + |loss|)` count as none: without that a gradient of exactly zero could never pass.
//!
//! The point must not lie on a kink (a ReLU at zero, a tie of a maximum): there the slope is not
//! defined, and the check says so by failing.

/// Half the distance between the two points of a central difference.
const STEP: f64 = 1e-5;
/// Largest relative difference that passes.
const RELATIVE: f64 = 1e-6;
/// Differences below this share of the loss are rounding.
const ROUNDING: f64 = 1e-9;

/// Asserts that `gradient` is the slope of `loss` at `point`, coordinate by coordinate.
///
/// # Panics
/// When the lengths differ, when the loss or a gradient is not finite, or when a coordinate is
/// wrong; the message names the worst coordinate and how many are wrong.
#[track_caller]
pub(crate) fn assert_slope(point: &[f64], gradient: &[f64], loss: impl Fn(&[f64]) -> f64) {
    assert_eq!(point.len(), gradient.len(), "a gradient has one entry for each coordinate");
    let here = loss(point);
    assert!(here.is_finite(), "the loss at the point is {here}");
    let floor = ROUNDING * (1.0 + here.abs());

    let mut moved = point.to_vec();
    let mut wrong = 0;
    let mut worst = (0.0, 0, 0.0);
    for (i, &given) in gradient.iter().enumerate() {
        assert!(given.is_finite(), "gradient[{i}] is {given}");
        let (above, below) = (point[i] + STEP, point[i] - STEP);
        moved[i] = above;
        let rise = loss(&moved);
        moved[i] = below;
        let rise = rise - loss(&moved);
        moved[i] = point[i];
        // The distance that the two points really have, after rounding.
        let slope = rise / (above - below);
        assert!(slope.is_finite(), "the slope of coordinate {i} is {slope}");
        let excess = (slope - given).abs() / (RELATIVE * slope.abs().max(given.abs()) + floor);
        wrong += usize::from(excess > 1.0);
        if excess > worst.0 {
            worst = (excess, i, slope);
        }
    }
    let (excess, i, slope) = worst;
    assert!(
        wrong == 0,
        "{wrong} of {} coordinates differ; the worst is {i}: gradient {:e}, slope {slope:e} \
         ({excess:.1} times the tolerance)",
        point.len(),
        gradient[i],
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(x: &[f64]) -> f64 {
        x[0] * x[0] * x[1].sin() + x[2].exp()
    }

    fn gradient(x: &[f64]) -> [f64; 3] {
        [2.0 * x[0] * x[1].sin(), x[0] * x[0] * x[1].cos(), x[2].exp()]
    }

    const POINT: [f64; 3] = [1.3, -0.4, 0.7];

    #[test]
    fn the_true_gradient_passes() {
        assert_slope(&POINT, &gradient(&POINT), loss);
    }

    #[test]
    fn a_flat_loss_has_no_gradient() {
        assert_slope(&POINT, &[0.0; 3], |_| 12.5);
    }

    #[test]
    #[should_panic(expected = "1 of 3 coordinates differ; the worst is 1")]
    fn an_error_of_one_in_a_hundred_thousand_is_found() {
        let mut wrong = gradient(&POINT);
        wrong[1] *= 1.0 + 1e-5;
        assert_slope(&POINT, &wrong, loss);
    }

    #[test]
    #[should_panic(expected = "coordinates differ")]
    fn a_forgotten_gradient_is_found() {
        assert_slope(&POINT, &[0.0; 3], loss);
    }

    #[test]
    #[should_panic(expected = "gradient[2] is NaN")]
    fn a_gradient_that_is_no_number_is_found() {
        assert_slope(&POINT, &[0.0, 0.0, f64::NAN], loss);
    }
}
