//! An expression tried on probabilities that a model may well say: whether it has a value and depends on them.

use sluice_features::funnel::Funnel;
use sluice_features::ids::salted_hash;

use super::{Expression, Step, above};

/// So near to 0 and 1 a probability of the first task of a path comes, as in the model that learns by Bayes.
const NEAREST: f64 = 1e-6;
/// So near to 0 one that is given the task before comes.
const NEAREST_GIVEN: f64 = 1e-2;
/// Points whose probabilities all lie at the ends, and points between.
const CORNERS: u64 = 256;
const BETWEEN: u64 = 1024;
/// A value that moves by less than this part of the largest number on the way to it moves by rounding.
const ROUNDING: f64 = 1e-12;

/// A place of a text where it divides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Divisor {
    /// The step that divides.
    pub(super) step: usize,
    /// Where the divisor stands.
    pub(super) start: usize,
    pub(super) end: usize,
}

/// What is wrong with an expression.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// It names no probability.
    Constant,
    /// A divisor can be 0.
    Zero(Divisor),
    /// Its value is not finite.
    NotFinite,
    /// Its value is always the same.
    Unmoved,
}

/// Tries an expression.
///
/// A divisor that is now above and now below 0 is 0 in between, since it is continuous in probabilities.
pub(super) fn probe(
    expression: &Expression,
    funnel: &Funnel,
    divisors: &[Divisor],
) -> Result<(), Fault> {
    let names = |step: &Step| matches!(step, Step::Task(_) | Step::Given(..));
    if !expression.steps.iter().any(names) {
        return Err(Fault::Constant);
    }
    let mut signs = vec![[false; 2]; divisors.len()];
    let (mut finite, mut size) = (true, 0.0f64);
    let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
    let mut values = Vec::new();
    for point in 0..CORNERS + BETWEEN {
        let p = probabilities(funnel, point);
        values.clear();
        let value = expression.run(&p, |value| values.push(value));
        for (divisor, signs) in divisors.iter().zip(&mut signs) {
            // A step that divides has its divisor just before it.
            let divisor = values[divisor.step - 1];
            signs[0] |= divisor <= 0.0;
            signs[1] |= divisor >= 0.0;
        }
        finite &= (value as f32).is_finite();
        (least, most) = (least.min(value), most.max(value));
        size = values.iter().fold(size, |size, value| size.max(value.abs()));
    }
    if let Some(place) = signs.iter().position(|signs| signs[0] && signs[1]) {
        return Err(Fault::Zero(divisors[place]));
    }
    if !finite {
        return Err(Fault::NotFinite);
    }
    let moved = most as f32 > least as f32 && most - least > size * ROUNDING;
    if moved { Ok(()) } else { Err(Fault::Unmoved) }
}

/// Returns the probabilities of all tasks at a point, no task's above that of the one before it.
fn probabilities(funnel: &Funnel, point: u64) -> Vec<f32> {
    let mut p: Vec<f64> = Vec::new();
    for task in 0..funnel.tasks().len() {
        let draw = |salt: u64| {
            let hash = salted_hash(point << 8 | salt, &task.to_le_bytes());
            (hash >> 11) as f64 / (1u64 << 53) as f64
        };
        let before = above(funnel, task).first().map(|&before| p[before]);
        let low = before.map_or(NEAREST, |_| NEAREST_GIVEN);
        let high = 1.0 - NEAREST;
        let own = match point {
            // All at one end, then each at the one end by chance.
            0 => low,
            1 => high,
            2..CORNERS => [low, high][usize::from(draw(0) < 0.5)],
            // Small ones as often as large ones.
            _ if draw(0) < 0.5 => low.powf(draw(1)).min(high),
            _ => low + (high - low) * draw(1),
        };
        p.push(before.unwrap_or(1.0) * own);
    }
    p.into_iter().map(|p| p as f32).collect()
}
