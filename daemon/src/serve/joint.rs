//! What `p.TASK` means, in every model and with every entry: the task's probability on the candidate, as if it were shown.
//!
//! | entry | a model's own | `p.TASK` |
//! |---|---|---|
//! | impression | `p_t` on the impression | the same |
//! | view, the first task | `s` among one view and its `k` drawn items | among all `n` items: odds `s / (1 - s)` times `r = k / (n - 1)` |
//! | view, other tasks | `P(t \| view)` | `p.view * P(t \| view)` |

use sluice_features::assemble::sampling_rate;
use sluice_features::funnel::Entry;

use crate::pipeline::Pipeline;

/// How a model's probabilities become those on the candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Joint {
    /// The rate at which negatives of views are drawn; `None` where impressions are known.
    rate: Option<f64>,
}

impl Joint {
    /// Returns what the funnel and the items of a pipeline ask for.
    pub(super) fn of(pipeline: &Pipeline) -> Self {
        let rate = match pipeline.rules().funnel.entry() {
            Entry::Impression => None,
            Entry::View { negatives } => {
                let offered = pipeline.shared().assortment.drawable();
                Some(sampling_rate(negatives, offered as usize))
            }
        };
        Self { rate }
    }

    /// Turns a model's probabilities `[candidates, tasks]` into those on the candidates.
    pub(super) fn apply(self, p: &mut [f32], tasks: usize) {
        let Some(rate) = self.rate else { return };
        for row in p.chunks_exact_mut(tasks) {
            let sampled = f64::from(row[0]);
            let view = sampled * rate / (sampled * rate + 1.0 - sampled);
            row[0] = view as f32;
            row[1..].iter_mut().for_each(|p| *p = (view * f64::from(*p)) as f32);
        }
    }
}

#[cfg(test)]
mod tests;
