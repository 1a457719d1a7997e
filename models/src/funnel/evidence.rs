//! What an example says of each head alone, for models whose weights have variances ([`crate::crossing::Variances`]).
//!
//! Where heads give probabilities after the parent (`esmm`), a head learns where the parent's outcome was seen and nowhere else: its example begins when
//! the parent's label comes. All labels are those of one log loss, `softplus(a) - y a` with the logit `a`:
//!
//! | label | loss | slope `g` | curvature `h` |
//! |---|---|---|---|
//! | final | `softplus(a) - y a` | `p - y` | `p (1 - p)` |
//! | negative at once | `softplus(a)` | `p` | `p (1 - p)` |
//! | positive that comes later | `-a` | `-1` | 0, its example was counted before |
//!
//! so that a positive that comes late takes back its negative: both together are the log loss of a positive. (FNW's weights times `1 / (1 - p²)`.) Its
//! step is damped by the curvature all the same: it is as long a step.

use super::targets::Example;
use crate::kernels::Real;
use sluice_features::example::LabelMode;

/// What an example says of one head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Evidence {
    /// Of the loss by the logit.
    pub(crate) slope: f32,
    /// What is learned of the weights.
    pub(crate) curvature: f32,
    /// The curvature by which the step is damped.
    pub(crate) damping: f32,
}

/// What a label means for one head.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meaning {
    Label(bool),
    TakesBack,
}

/// Adds each head's loss to `loss` and writes what is learned of it, `None` where nothing is.
pub(super) fn evidence(
    parents: &[Option<usize>],
    conditional: bool,
    example: &Example<'_>,
    logits: &[f32],
    loss: &mut [f64],
    out: &mut Vec<Option<Evidence>>,
) {
    out.clear();
    for (task, &a) in logits.iter().enumerate() {
        let parent = parents[task].filter(|_| conditional);
        let p = a.sigmoid();
        let damping = p * (1.0 - p);
        out.push(meaning(example, task, parent).map(|meaning| match meaning {
            Meaning::Label(positive) => {
                let y = f32::from(u8::from(positive));
                loss[task] += f64::from(a.softplus() - y * a);
                Evidence { slope: p - y, curvature: damping, damping }
            }
            Meaning::TakesBack => {
                loss[task] -= f64::from(a);
                Evidence { slope: -1.0, curvature: 0.0, damping }
            }
        }));
    }
}

/// `parent` is the task whose outcome the head takes for granted.
fn meaning(example: &Example<'_>, task: usize, parent: Option<usize>) -> Option<Meaning> {
    let positive =
        |task: usize| example.modes[task] != LabelMode::Masked && example.labels[task] > 0.5;
    let (mode, own) = (example.modes[task], Meaning::Label(positive(task)));
    match parent.map(positive) {
        Some(true) if mode == LabelMode::Masked => Some(Meaning::Label(false)),
        Some(true) => Some(own),
        Some(false) => (mode == LabelMode::FnwPositive).then_some(Meaning::TakesBack),
        None => match mode {
            LabelMode::Masked => None,
            LabelMode::Final | LabelMode::FnwNegative => Some(own),
            LabelMode::FnwPositive => Some(Meaning::TakesBack),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::funnel::Targets;

    const PARENTS: [Option<usize>; 3] = [None, Some(0), Some(1)];
    const LOGITS: [f32; 3] = [-1.0, 0.5, -0.2];

    fn learn(
        conditional: bool,
        labels: [f32; 3],
        modes: [LabelMode; 3],
    ) -> (Vec<Option<Evidence>>, [f64; 3]) {
        let targets = Targets { labels: &labels, modes: &modes, labelled: 1 };
        let (mut loss, mut out) = ([0.0; 3], Vec::new());
        let example = targets.example(0, 3);
        evidence(&PARENTS, conditional, &example, &LOGITS, &mut loss, &mut out);
        (out, loss)
    }

    fn slopes(conditional: bool, labels: [f32; 3], modes: [LabelMode; 3]) -> [Option<f32>; 3] {
        let found = learn(conditional, labels, modes).0;
        std::array::from_fn(|task| found[task].map(|evidence| evidence.slope))
    }

    #[test]
    fn a_head_learns_where_its_parent_happened() {
        use LabelMode::{Final, FnwNegative, FnwPositive, Masked};
        let [p, q, r] = LOGITS.map(f32::sigmoid);
        let shown = [FnwNegative; 3];
        assert_eq!(slopes(true, [0.0; 3], shown), [Some(p), None, None]);
        assert_eq!(slopes(false, [0.0; 3], shown), [Some(p), Some(q), Some(r)]);
        let first = [FnwPositive, Masked, Masked];
        assert_eq!(slopes(true, [1.0, 0.0, 0.0], first), [Some(-1.0), Some(q), None]);
        assert_eq!(slopes(false, [1.0, 0.0, 0.0], first), [Some(-1.0), None, None]);
        let second = [Masked, FnwPositive, Masked];
        assert_eq!(slopes(true, [0.0, 1.0, 0.0], second), [None, Some(-1.0), Some(r)]);
        // Both at once, as when the later event overtook the earlier one.
        let both = [FnwPositive, FnwPositive, Masked];
        assert_eq!(slopes(true, [1.0, 1.0, 0.0], both), [Some(-1.0), Some(q - 1.0), Some(r)]);
        // A view opens the funnel: its label is final and its children begin with it.
        let view = [Final, FnwNegative, FnwNegative];
        assert_eq!(slopes(true, [1.0, 0.0, 0.0], view), [Some(p - 1.0), Some(q), None]);
        let sampled = [Final, Masked, Masked];
        assert_eq!(slopes(true, [0.0; 3], sampled), [Some(p), None, None]);
    }

    #[test]
    fn a_negative_and_the_positive_after_it_are_one_positive() {
        let masked = LabelMode::Masked;
        for (conditional, task) in [(false, 1), (true, 0)] {
            let of = |label: f32, mode: LabelMode| {
                let (mut labels, mut modes) = ([0.0; 3], [masked; 3]);
                (labels[task], modes[task]) = (label, mode);
                let (found, loss) = learn(conditional, labels, modes);
                (found[task].unwrap(), loss[task])
            };
            let (before, first) = of(0.0, LabelMode::FnwNegative);
            let (after, second) = of(1.0, LabelMode::FnwPositive);
            let (whole, loss) = of(1.0, LabelMode::Final);
            assert!((before.slope + after.slope - whole.slope).abs() < 1e-6);
            assert!((before.curvature + after.curvature - whole.curvature).abs() < 1e-6);
            assert!((first + second - loss).abs() < 1e-6);
            assert!((loss + f64::from(LOGITS[task].sigmoid().ln())).abs() < 1e-6);
        }
    }

    #[test]
    fn slopes_and_curvatures_are_those_of_the_loss() {
        for (label, mode) in
            [(0.0, LabelMode::Final), (1.0, LabelMode::Final), (0.0, LabelMode::FnwNegative)]
        {
            let at = |a: f32| {
                let targets = Targets { labels: &[label], modes: &[mode], labelled: 1 };
                let (mut loss, mut out) = ([0.0], Vec::new());
                evidence(&[None], true, &targets.example(0, 1), &[a], &mut loss, &mut out);
                (loss[0], out[0].unwrap())
            };
            let (below, above, here) = (at(0.69), at(0.71), at(0.7).1);
            let slope = (above.0 - below.0) / 0.02;
            assert!((slope - f64::from(here.slope)).abs() < 1e-4, "{slope} {here:?}");
            let curvature = (above.1.slope - below.1.slope) / 0.02;
            assert!((curvature - here.curvature).abs() < 1e-3);
            assert!((here.damping - here.curvature).abs() < 1e-9);
        }
    }
}
