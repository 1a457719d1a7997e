//! The four slots wired together.
//!
//! ```text
//! keys ── rows ──┬── fields, lists, numbers ───────────┐
//!                ├── target, histories ── interest ──── x ── sharing ── towers ── funnel ── p
//!                └── crossing ──────────────────────────────────────────── logits ──┘
//! ```
//!
//! A [`Model`] is the dense part: layers (shared by all copies) and their numbers. Rows live in [`Embeddings`]. Forward and backward passes
//! work on any slice of a batch and write gradients of their own, so that slices may run side by side and be summed in a
//! fixed order; whatever they need stands in a [`Workspace`] that grows to the largest slice.

mod assemble;
mod candidate_rows;
mod candidates;
mod plan;
mod rows;
mod split;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use ndarray::s;
use sluice_features::example::Batch;
use sluice_features::schema::Schema;

use crate::crossing::{Crossing, Variances, shares};
use crate::funnel::{Funnel, FunnelTape, Targets};
use crate::interest::{History, Interest, InterestTape};
use crate::kernels::Real;
use crate::layers::Grid;
use crate::params::{Layout, Params};
use crate::sharing::{Sharing, SharingTape};
use crate::spec::{FunnelSpec, ModelSpec, SpecError};
use crate::table::RowStore;
use crate::work::{Probe, Stage};
use assemble::Features;
pub(crate) use assemble::entries;
pub(crate) use candidate_rows::{CandidateRows, CandidateStore, Places};
pub use candidates::Scoring;
pub(crate) use plan::Plan;
pub use rows::{Embeddings, Rows};
pub(crate) use split::{Side, Split};

/// The layers of a model, without numbers.
#[derive(Debug)]
struct Graph {
    plan: Plan,
    split: Split,
    deep: Option<Deep>,
    crossing: Option<Crossing>,
    funnel: Funnel,
    variances: Option<Variances>,
}

#[derive(Debug)]
struct Deep {
    interest: Interest,
    sharing: Sharing,
}

/// The dense part of a model. A clone is a snapshot: it shares the layers and copies the numbers.
#[derive(Clone, Debug)]
pub struct Model<R> {
    graph: Arc<Graph>,
    params: Params<R>,
}

/// What passes over a slice of a batch leave behind: buffers, all kept.
#[derive(Clone, Debug, Default)]
pub struct Workspace<R> {
    rows: Rows<R>,
    pass: Pass<R>,
}

/// The part of a workspace that belongs to one slice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pass<R> {
    features: Features<R>,
    dfeatures: Features<R>,
    interest: InterestTape<R>,
    sharing: SharingTape<R>,
    funnel: FunnelTape<R>,
    /// `[n, T]`: the crossing's.
    logits: Grid<R>,
    dlogits: Grid<R>,
    /// For each store `[distinct, width]`.
    pub(crate) drows: Vec<Grid<R>>,
}

impl<R: Real> Workspace<R> {
    /// The rows and the pass, apart.
    pub(crate) fn split(&mut self) -> (&mut Rows<R>, &mut Pass<R>) {
        (&mut self.rows, &mut self.pass)
    }
}

impl<R: Real> Pass<R> {
    /// `[n, T]` probabilities of the last forward pass.
    pub(crate) fn probabilities(&self) -> &[R] {
        self.funnel.p().values()
    }
}

/// Returns how many bytes a row takes at most in all stores of a model together, beside those of the retrieval model.
pub fn row_bytes(spec: &ModelSpec, schema: &Schema) -> usize {
    let stores = plan(spec, schema).stores;
    stores.iter().map(|store| RowStore::row_bytes(store.width)).sum()
}

fn plan(spec: &ModelSpec, schema: &Schema) -> Plan {
    let aged: Vec<bool> = spec.lookups().iter().map(is_matching).collect();
    Plan::new(schema, spec, &aged)
}

impl<R: Real> Model<R> {
    /// Builds a model whose numbers follow from the seed. `parents[t]` is the parent of task `t`, `priors[t]` its rate on all impressions.
    ///
    /// # Errors
    /// All mistakes of the configuration.
    pub fn build(
        spec: &ModelSpec,
        schema: &Schema,
        parents: &[Option<usize>],
        priors: &[f64],
        seed: u64,
    ) -> Result<Self, Vec<SpecError>> {
        spec.validate(schema, parents)?;
        if priors.len() != parents.len() || priors.iter().any(|p| !(*p > 0.0 && *p < 1.0)) {
            let (tasks, found) = (parents.len(), format!("{priors:?}"));
            let problem =
                format!("expected a rate between 0 and 1 for each of {tasks} tasks, found {found}");
            return Err(vec![SpecError { place: "funnel.priors".into(), problem }]);
        }
        let mut layout = Layout::default();
        let plan = plan(spec, schema);
        let (item, gap) = plan.behaviour();
        let deep = spec.is_deep().then(|| {
            let interest = Interest::build(&mut layout, &spec.interest, item, gap);
            let inputs = plan.fields + interest.outputs();
            let sharing = Sharing::build(&mut layout, &spec.sharing, inputs, parents.len());
            sharing.map(|sharing| Deep { interest, sharing })
        });
        let deep = deep.flatten();
        let conditional = spec.has_variances() && matches!(spec.funnel, FunnelSpec::Esmm { .. });
        let prior = &spec.learning.prior;
        let shares = shares(parents, conditional, prior.child);
        let crossing = Crossing::build(&mut layout, &spec.crossing, &plan, &shares);
        let inputs = deep.as_ref().map(|deep| deep.sharing.outputs());
        let funnel = Funnel::new(&mut layout, &spec.funnel, parents, inputs, priors);
        let numbers = if spec.crossing.has_linear() { plan.numbers } else { 0 };
        let variances =
            spec.has_variances().then(|| Variances::new(&mut layout, prior, numbers, &shares));
        let outputs = deep.as_ref().map_or(0, |deep| deep.interest.outputs());
        let split = Split::new(schema, &plan, outputs);
        let graph = Arc::new(Graph { plan, split, deep, crossing, funnel, variances });
        Ok(Self { graph, params: Params::initial(Arc::new(layout), seed) })
    }

    /// The dense parameters.
    pub fn params(&self) -> &Params<R> {
        &self.params
    }

    /// The dense parameters to write to.
    pub fn params_mut(&mut self) -> &mut Params<R> {
        &mut self.params
    }

    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.graph.funnel.tasks()
    }

    /// Without a deep part: the crossing, the funnel, the variances of their weights if they have any, and the numbers of all.
    pub(crate) fn shallow(
        &mut self,
    ) -> Option<(&Crossing, &Funnel, Option<&Variances>, &mut Params<R>)> {
        let Graph { deep, crossing, funnel, variances, .. } = &*self.graph;
        let crossing = crossing.as_ref().filter(|_| deep.is_none())?;
        Some((crossing, funnel, variances.as_ref(), &mut self.params))
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.graph.plan
    }

    /// Operations of a forward pass over a batch, see [`crate::work`].
    pub(crate) fn operations(&self, batch: &Batch) -> u64 {
        let Graph { deep, crossing, funnel, .. } = &*self.graph;
        let examples = batch.size();
        let deep = deep.as_ref().map_or(0, |deep| {
            let behaviours: Vec<usize> = batch.histories.iter().map(|h| h.items.len()).collect();
            deep.interest.operations(examples, &behaviours) + deep.sharing.operations(examples)
        });
        let crossing = crossing.as_ref().map_or(0, |crossing| crossing.operations(examples));
        deep + crossing + funnel.operations(examples)
    }

    /// Computes the probabilities of a slice of a batch whose rows were gathered.
    pub(crate) fn forward<P: Probe>(
        &self,
        batch: &Batch,
        slice: &Range<usize>,
        rows: &Rows<R>,
        pass: &mut Pass<R>,
        probe: &mut P,
    ) {
        let Graph { plan, deep, crossing, funnel, .. } = &*self.graph;
        let outputs = deep.as_ref().map_or(0, |deep| deep.interest.outputs());
        pass.features.gather(plan, plan.fields + outputs, batch, slice, rows);
        if let Some(deep) = deep {
            let Features { x, target, behaviours } = &mut pass.features;
            let histories = Histories::of(batch, slice, behaviours);
            let out = x.view_mut().slice_move(s![.., plan.fields..]);
            let interest = &mut pass.interest;
            probe.enter(Stage::Interest);
            deep.interest.forward(&self.params, target.view(), histories.get(), interest, out);
            probe.enter(Stage::Sharing);
            deep.sharing.forward(&self.params, x.view(), &mut pass.sharing);
        }
        probe.enter(Stage::Towers);
        let extra = crossing.as_ref().map(|crossing| {
            let (x, logits) = (&pass.features.x, &mut pass.logits);
            logits.reshape(slice.len(), funnel.tasks());
            crossing.forward(&self.params, batch, slice, rows, x, logits);
            logits.view()
        });
        let streams = match deep {
            Some(deep) => deep.sharing.streams(&pass.sharing),
            None => &[],
        };
        funnel.forward(&self.params, streams, slice.len(), extra, &mut pass.funnel);
    }

    /// After [`Self::forward`] on the same slice: adds each task's loss to `loss`, overwrites all of `grads`, and makes `pass.drows` the gradients of the rows.
    /// `labelled` examples of the whole batch have a label.
    pub(crate) fn backward<P: Probe>(
        &self,
        batch: &Batch,
        slice: &Range<usize>,
        labelled: usize,
        rows: &Rows<R>,
        pass: &mut Pass<R>,
        grads: &mut Params<R>,
        loss: &mut [f64],
        probe: &mut P,
    ) {
        probe.enter(Stage::TowersBack);
        let Graph { plan, deep, crossing, funnel, .. } = &*self.graph;
        let (n, params) = (slice.len(), &self.params);
        let targets = Targets::slice(batch, slice.clone(), labelled);
        pass.dlogits.reshape(n, funnel.tasks());
        let dextra = crossing.as_ref().map(|_| pass.dlogits.view_mut());
        let (streams, dstreams): (&[Grid<R>], &mut [Grid<R>]) = match deep {
            Some(deep) => deep.sharing.dstreams(&mut pass.sharing),
            None => (&[], &mut []),
        };
        let tape = &mut pass.funnel;
        funnel.backward(params, streams, &targets, tape, grads, dstreams, dextra, loss);

        probe.enter(Stage::SharingBack);
        let (features, dfeatures) = (&pass.features, &mut pass.dfeatures);
        let x = features.x.view();
        match deep {
            Some(deep) => {
                let dx = &mut dfeatures.x;
                deep.sharing.backward(params, x, &mut pass.sharing, grads, dx);
            }
            None => dfeatures.x.zero(n, x.ncols()),
        }
        probe.enter(Stage::InterestBack);
        dfeatures.target.zero(n, features.target.columns());
        dfeatures.behaviours.resize_with(features.behaviours.len(), Grid::default);
        if let Some(deep) = deep {
            let histories = Histories::of(batch, slice, &features.behaviours);
            let dout = dfeatures.x.part(plan.fields..x.ncols());
            let (dtarget, de) = (dfeatures.target.view_mut(), &mut dfeatures.behaviours);
            let (target, tape) = (features.target.view(), &mut pass.interest);
            let histories = histories.get();
            deep.interest.backward(params, target, histories, tape, dout, grads, dtarget, de);
        }
        rows.clear_gradients(&mut pass.drows);
        if let Some(crossing) = crossing {
            let (dlogits, dx) = (&pass.dlogits, &mut dfeatures.x);
            let drows = &mut pass.drows;
            let x = &features.x;
            crossing.backward(params, batch, slice, rows, x, dlogits, grads, dx, drows);
        }
        probe.enter(Stage::Scatter);
        Features::scatter(dfeatures, plan, batch, slice, rows, &mut pass.drows);
        rows.drop_nothing(&mut pass.drows);
    }
}

impl Model<f32> {
    /// Writes the probabilities `[size, T]` of a batch to `out`, for serving: ids without a row count as zero, nothing is changed.
    ///
    /// # Panics
    /// When `out` has not `size * T` places, or when the batch was made for another schema.
    pub fn score(
        &self,
        embeddings: &Embeddings,
        batch: &Batch,
        workspace: &mut Workspace<f32>,
        out: &mut [f32],
    ) {
        assert_eq!(out.len(), batch.size() * self.tasks(), "places for probabilities");
        if batch.is_empty() {
            return;
        }
        let (rows, pass) = workspace.split();
        rows.prepare(&self.graph.plan, batch);
        embeddings.read(rows);
        self.forward(batch, &(0..batch.size()), rows, pass, &mut ());
        out.copy_from_slice(pass.probabilities());
    }
}

/// The looks of a slice, held without allocation: a model has at most two.
struct Histories<'a, R> {
    all: [History<'a, R>; 2],
    count: usize,
}

impl<'a, R: Real> Histories<'a, R> {
    fn of(batch: &'a Batch, slice: &Range<usize>, behaviours: &'a [Grid<R>]) -> Self {
        let of = |look: usize| {
            let starts = &batch.histories[look].starts[slice.start..=slice.end];
            History { starts, behaviours: behaviours[look].view() }
        };
        let count = behaviours.len();
        Self { all: std::array::from_fn(|look| of(look.min(count - 1))), count }
    }

    fn get(&self) -> &[History<'a, R>] {
        &self.all[..self.count]
    }
}

fn is_matching(lookup: &sluice_features::schema::Lookup) -> bool {
    matches!(lookup, sluice_features::schema::Lookup::Matching { .. })
}
