//! What a step costs, counted from the model's own shapes, and where its time goes.
//!
//! Operations are those of the dense products alone, two for each multiply-add, of the graph as its equations have it: `4 I` inputs to `din`'s
//! first layer, keys that are projected behaviour by behaviour. What the code saves by rewriting them is its gain, so that figures can be
//! set beside those of others. The backward pass has two products for each of the forward pass: one for the weights, one for the inputs.
//!
//! A [`Probe`] hears which [`Stage`] begins. It may look at a clock; this crate does not.

use std::fmt;

use sluice_features::example::Batch;

use crate::kernels::Real;
use crate::model::{Model, Rows};

/// The work of one step on a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Examples of the batch.
    pub examples: usize,
    /// Floating-point operations of the forward pass.
    pub forward: u64,
    /// Those of the backward pass.
    pub backward: u64,
    /// Dense parameters.
    pub parameters: usize,
    /// Bytes that Adam moves: parameter, gradient and two moments are read, all but the gradient written.
    pub parameter_bytes: u64,
    /// Ids that the batch names, each as often as it does.
    pub occurrences: usize,
    /// Distinct rows of all stores: how many are read, and updated.
    pub rows: usize,
    /// Bytes of these rows that move: numbers are read by the gather, numbers and accumulator read and written by the update.
    pub row_bytes: u64,
}

impl Work {
    /// Counts the work of a step on this batch.
    ///
    /// # Panics
    /// When the batch was made for another schema.
    pub fn of<R: Real>(model: &Model<R>, batch: &Batch) -> Self {
        const NUMBER: u64 = size_of::<f32>() as u64;
        let forward = model.operations(batch);
        let parameters = model.params().layout().length();
        let mut rows = Rows::<R>::default();
        rows.prepare(model.plan(), batch);
        let mut work = Self {
            examples: batch.size(),
            forward,
            backward: 2 * forward,
            parameters,
            parameter_bytes: 7 * NUMBER * parameters as u64,
            ..Self::default()
        };
        for store in &rows.stores {
            work.occurrences += store.occurrences();
            work.rows += store.distinct();
            work.row_bytes += NUMBER * (store.distinct() * (3 * store.width() + 2)) as u64;
        }
        work
    }

    /// Operations of both passes.
    pub fn operations(&self) -> u64 {
        self.forward + self.backward
    }
}

/// Operations of a product `[rows, inputs] [inputs, outputs]`.
pub(crate) fn product(rows: usize, inputs: usize, outputs: usize) -> u64 {
    2 * (rows as u64) * (inputs as u64) * (outputs as u64)
}

/// A part of a step, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Ids are grouped, rows are read, and copied to features.
    Gather,
    /// Histories become interests.
    Interest,
    /// Experts and gates.
    Sharing,
    /// Crossing, towers, heads, probabilities.
    Towers,
    /// Losses, and gradients back through the towers.
    TowersBack,
    /// Gradients of experts and gates.
    SharingBack,
    /// Gradients of the interest encoder and the crossing.
    InterestBack,
    /// Gradients of features are summed by row.
    Scatter,
    /// The norm of the gradient, Adam on the dense parameters.
    Dense,
    /// Row-wise Adagrad.
    Rows,
    /// The step is over.
    Outside,
}

impl Stage {
    /// All parts of a step.
    pub const ALL: [Self; 10] = [
        Self::Gather,
        Self::Interest,
        Self::Sharing,
        Self::Towers,
        Self::TowersBack,
        Self::SharingBack,
        Self::InterestBack,
        Self::Scatter,
        Self::Dense,
        Self::Rows,
    ];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Gather => "gather",
            Self::Interest => "interest",
            Self::Sharing => "sharing",
            Self::Towers => "towers",
            Self::TowersBack => "towers back",
            Self::SharingBack => "sharing back",
            Self::InterestBack => "interest back",
            Self::Scatter => "scatter",
            Self::Dense => "dense update",
            Self::Rows => "row update",
            Self::Outside => "outside",
        })
    }
}

/// Hears of the stages of a step. `()` is the one that does not listen and costs nothing.
pub trait Probe {
    /// The stage begins, and ends when another does. A step ends with [`Stage::Outside`].
    fn enter(&mut self, stage: Stage);
}

impl Probe for () {
    #[inline(always)]
    fn enter(&mut self, _: Stage) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::Alone;
    use crate::learner::Learner;
    use crate::model::testing;
    use crate::spec::ModelSpec;
    use crate::synthetic::{PARENTS, PRIORS, Synthetic};

    const FIELDS: usize = 34;

    fn reference() -> Model<f32> {
        let spec = ModelSpec::reference();
        let source = Synthetic::new(&spec, 1);
        Model::build(&spec, source.schema(), &PARENTS, &PRIORS, 1).unwrap()
    }

    /// Examples with this many behaviours altogether.
    fn batch(examples: usize, newest: usize, found: usize) -> Batch {
        let mut batch = Batch::new(0, 2);
        batch.keys = (0..(examples * FIELDS) as u64).map(|k| 1 + k % 1000).collect();
        for (history, behaviours) in batch.histories.iter_mut().zip([newest, found]) {
            let ids = 1..=behaviours as u64;
            history.items.extend(ids.clone());
            history.categories.extend(ids.clone());
            history.gaps.extend(ids);
            history.starts.extend((1..=examples).map(|i| (behaviours * i / examples) as u32));
        }
        batch.labels = vec![0.0; examples * PARENTS.len()];
        batch.modes = vec![sluice_features::example::LabelMode::Final; batch.labels.len()];
        let about = testing::batch(&testing::schema(&ModelSpec::reference()), 1).about[0];
        batch.about = vec![about; examples];
        batch
    }

    #[test]
    fn the_reference_graph_has_the_work_that_was_counted_for_pytorch() {
        let model = reference();
        // KuaiRand's impressions follow 1.54 clicks on average, 0.21 of them in the category.
        let work = Work::of(&model, &batch(100, 154, 21));
        assert_eq!((work.examples, work.parameters), (100, 519_519));
        assert_eq!(work.forward, 100 * 1_026_212 + 154 * 27_024 + 21 * 3_328);
        assert_eq!(work.forward / 1_000_000, 106);
        assert_eq!((work.operations(), work.operations() / 1_000_000), (3 * work.forward, 320));
        assert_eq!(work.parameter_bytes, 14_546_532);
        assert_eq!(work.occurrences, 34 * 100 + 2 * 154 + 3 * 21);
        assert_eq!((work.rows, work.row_bytes), (1000, 1000 * 50 * 4));
        let full = Work::of(&model, &batch(10, 500, 500));
        assert_eq!(full.forward / 10, 2_543_812);
    }

    #[derive(Default)]
    struct Heard(Vec<Stage>);

    impl Probe for Heard {
        fn enter(&mut self, stage: Stage) {
            self.0.push(stage);
        }
    }

    #[test]
    fn a_step_passes_its_stages_in_order() {
        let deep = testing::combinations().into_iter().filter(ModelSpec::is_deep);
        for spec in &deep.step_by(7).collect::<Vec<_>>() {
            let schema = testing::schema(spec);
            let build =
                || Learner::new(spec, &schema, &testing::PARENTS, &testing::PRIORS, 1).unwrap();
            let (mut alone, mut heard) = (build(), build());
            let (batch, mut probe) = (testing::batch(&schema, 5), Heard::default());
            alone.step(&batch);
            heard.step_on(&batch, batch.size(), &Alone, &mut probe);
            assert_eq!(alone.checksum(), heard.checksum(), "a probe changes nothing");
            assert!(probe.0.is_sorted(), "{:?}", probe.0);
            probe.0.dedup();
            assert_eq!(probe.0, [&Stage::ALL[..], &[Stage::Outside]].concat());
        }
    }
}
