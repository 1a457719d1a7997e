//! `esmm`: each head gives the probability after the parent's outcome, the product along the path is the probability on every
//! impression (Ma et al., SIGIR 2018), here over any tree.
//!
//! All in logarithms, with `s = -softplus(-a) = ln σ(a)` and `r = -softplus(a) = ln (1 - σ(a))`:
//! `ln p_t = ln p_parent + s_t`, and `ln (1 - p_t) = logaddexp(ln (1 - p_parent), ln p_parent + r_t)`, a sum of positive terms, so nothing cancels.
//! The slope by the logit of `k` on the path is `-(1 - σ_k)` for a positive and `p / (1 - p) (1 - σ_k)` for a negative, which is at
//! most 1 and computed as one exponential.

use super::targets::Example;
use crate::kernels::Real;

/// No path is longer: [`sluice_features::funnel::MAX_TASKS`].
const MOST: usize = sluice_features::funnel::MAX_TASKS;

/// `p_t` for each task.
pub(super) fn probabilities<R: Real>(parents: &[Option<usize>], logits: &[R], p: &mut [R]) {
    let mut log_p = [R::zero(); MOST];
    for (task, parent) in parents.iter().enumerate() {
        let above = parent.map_or(R::zero(), |parent| log_p[parent]);
        log_p[task] = above - (-logits[task]).softplus();
        p[task] = log_p[task].exp();
    }
}

/// Adds the losses of all tasks and their slopes by the logits.
pub(super) fn log_losses<R: Real>(
    parents: &[Option<usize>],
    example: &Example<'_>,
    logits: &[R],
    p: &[R],
    dlogits: &mut [R],
    loss: &mut [f64],
) {
    let (mut log_p, mut log_not) = ([R::zero(); MOST], [R::zero(); MOST]);
    for (task, &parent) in parents.iter().enumerate() {
        let (hit, miss) = (-(-logits[task]).softplus(), -logits[task].softplus());
        let Some(parent) = parent else {
            (log_p[task], log_not[task]) = (hit, miss);
            example.log_loss(task, logits[task], &mut dlogits[task], loss);
            continue;
        };
        log_p[task] = log_p[parent] + hit;
        log_not[task] = add_logs(log_not[parent], log_p[parent] + miss);
        let Some(weight) = example.weight(task, p[task].to_f64()) else { continue };
        let positive = example.labels[task] > 0.5;
        let log = if positive { log_p[task] } else { log_not[task] };
        loss[task] -= weight * log.to_f64();
        let mut step = Some(task);
        while let Some(k) = step {
            let log_miss = -logits[k].softplus();
            let slope = if positive {
                -log_miss.exp()
            } else {
                (log_p[task] - log_not[task] + log_miss).exp()
            };
            dlogits[k] += R::from_f64(weight) * slope;
            step = parents[k];
        }
    }
}

/// `ln (eᵃ + eᵇ)`
fn add_logs<R: Real>(a: R, b: R) -> R {
    a.max(b) + (-(a - b).abs()).exp().ln_1p()
}
