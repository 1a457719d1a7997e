//! How gradients become steps: Adam for dense parameters, with the gradient cut to a global norm. (Row-wise Adagrad lives with the
//! rows, in [`crate::table`].)

mod adam;

pub use adam::Adam;

use crate::kernels::Real;

/// The square `Σ g²` of the norm of a gradient.
pub fn square_norm<R: Real>(gradient: &[R]) -> R {
    match gradient {
        [g] => *g * *g,
        gradient => R::dot(gradient, gradient),
    }
}

/// By how much a gradient of this norm is scaled so that its norm is at most `most`; 0 means no bound.
pub fn clip_factor(norm: f64, most: f64) -> f64 {
    if most > 0.0 && norm > most { most / norm } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_cut_to_the_norm_and_no_further() {
        assert!((square_norm(&[3.0_f64, 4.0]) - 25.0).abs() < 1e-12);
        assert!((clip_factor(5.0, 2.0) - 0.4).abs() < 1e-12);
        for (norm, most) in [(2.0, 2.0), (0.0, 1.0), (1e9, 0.0)] {
            assert!((clip_factor(norm, most) - 1.0).abs() < 1e-12, "{norm} {most}");
        }
    }
}
