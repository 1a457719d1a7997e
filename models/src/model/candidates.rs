//! Scoring the candidates of one request: the forward pass of [`Model::score`] with what does not depend on the pair of user and
//! candidate computed once.
//!
//! ```text
//! common columns ── first layers of the backbone, once ─────────────────────────── bias ┐
//! newest history, lists by category ── rows gathered and projected once ── interest ──┐ │
//! own columns with few different ids (category, types) ── projected once for each id ──┐ │
//! own columns ──────────────────────────────────────────────────────────────────────── x ── sharing ── towers ── funnel ── p
//! ```
//!
//! Candidates of one group (category) stand together while they are scored, so that each group meets its list in one product.

use std::ops::Range;

use ndarray::s;
use sluice_features::candidates::{Candidates, Columns};

use super::assemble::entries;
use super::candidate_rows::{CandidateRows, CandidateStore, Places};
use super::plan::Plan;
use super::split::{Side, Split};
use super::{Embeddings, Graph, Model};
use crate::crossing::Crossing;
use crate::funnel::FunnelTape;
use crate::interest::{History, InterestScratch};
use crate::layers::{Grid, Narrow, SplitInput, SplitScratch};
use crate::sharing::SharingTape;

/// A key column is narrow when no more than one in so many candidates brings a new id: its product is then cheaper looked up than made.
const NARROW: usize = 4;

/// What scoring candidates leaves behind: buffers, all kept.
#[derive(Clone, Debug, Default)]
pub struct Scoring {
    rows: CandidateRows,
    /// `[n]`: candidates, group after group.
    order: Vec<u32>,
    /// `[groups + 1]`: where in `order` each group begins.
    groups: Vec<usize>,
    inputs: Inputs,
    /// The key columns of the candidates in which most differ.
    wide: Vec<usize>,
    /// For each distinct row of a store, its place in the narrow column at hand.
    places: Vec<u32>,
    /// `[n, I]`
    target: Grid<f32>,
    /// For each look, `[m, I]` or with ages `[m, I + G]`.
    behaviours: Vec<Grid<f32>>,
    interest: InterestScratch,
    split: SplitScratch,
    sharing: SharingTape<f32>,
    /// `[n, T]`: the crossing's.
    logits: Grid<f32>,
    funnel: FunnelTape<f32>,
}

/// The features of the candidates.
#[derive(Clone, Debug, Default)]
struct Inputs {
    /// `[1, C]`
    common: Grid<f32>,
    common_rows: Vec<Range<usize>>,
    /// `[n, O]`: wide key columns, lists, numbers, interest.
    own: Grid<f32>,
    own_rows: Vec<Range<usize>>,
    /// The key columns in which few different ids occur, and how many of these count.
    narrow: Vec<Narrow>,
    narrow_count: usize,
}

impl Inputs {
    fn split(&self) -> SplitInput<'_> {
        SplitInput {
            common: self.common.view(),
            common_rows: &self.common_rows,
            own: self.own.view(),
            own_rows: &self.own_rows,
            narrow: &self.narrow[..self.narrow_count],
        }
    }
}

impl Model<f32> {
    /// Writes the probabilities `[size, T]` of candidates to `out`: those that [`Model::score`] gives for [`Candidates::expand`], up to
    /// rounding. Ids without a row count as zero, nothing is changed.
    ///
    /// # Panics
    /// When `out` has not `size * T` places, or when the candidates were made for another schema.
    pub fn score_candidates(
        &self,
        embeddings: &Embeddings,
        candidates: &Candidates,
        work: &mut Scoring,
        out: &mut [f32],
    ) {
        let Graph { plan, split, deep, crossing, funnel, .. } = &*self.graph;
        let (n, tasks) = (candidates.size(), funnel.tasks());
        assert_eq!(out.len(), n * tasks, "places for probabilities");
        if n == 0 {
            return;
        }
        let params = &self.params;
        work.rows.read(plan, split, embeddings, candidates);
        work.sort(candidates);
        // A machine over all fields reads them as they are.
        let divide = deep.is_some() && !crossing.as_ref().is_some_and(Crossing::has_fm);
        work.divide(&split.own, divide);
        work.gather(plan, split, candidates);
        if let Some(deep) = deep {
            let history = |look: usize| History {
                starts: &candidates.histories[look].starts,
                behaviours: work.behaviours[look].view(),
            };
            let lists: [History<'_, f32>; 2] =
                std::array::from_fn(|look| history(look.min(plan.looks.len() - 1)));
            let fields = work.inputs.own.columns() - deep.interest.outputs();
            let to = work.inputs.own.view_mut().slice_move(s![.., fields..]);
            let (target, scratch) = (work.target.view(), &mut work.interest);
            deep.interest.score(params, target, &lists, &work.groups, scratch, to);
            let x = work.inputs.split();
            deep.sharing.score(params, &x, &mut work.split, &mut work.sharing);
        }
        let extra = crossing.as_ref().map(|crossing| {
            work.logits.reshape(n, tasks);
            let (features, rows) = ([&work.inputs.common, &work.inputs.own], &work.rows);
            let logits = &mut work.logits;
            crossing.score(params, candidates, &work.order, split, rows, features, logits);
            logits.view()
        });
        let streams = match deep {
            Some(deep) => deep.sharing.streams(&work.sharing),
            None => &[],
        };
        funnel.forward(params, streams, n, extra, &mut work.funnel);
        for (row, &candidate) in work.order.iter().enumerate() {
            let at = candidate as usize * tasks;
            out[at..at + tasks].copy_from_slice(work.funnel.p().row(row));
        }
    }
}

impl Scoring {
    /// Counts the operations of the pass over these candidates that was made last, see [`crate::work`]: those that were made, with what is
    /// shared counted once.
    pub fn operations(&self, model: &Model<f32>, candidates: &Candidates) -> u64 {
        let Graph { deep, crossing, funnel, .. } = &*model.graph;
        let n = candidates.size();
        let deep = deep.as_ref().filter(|_| n > 0).map_or(0, |deep| {
            let length = |look: usize, list: usize| {
                let starts = candidates.histories.get(look).map(|history| &history.starts);
                starts.map_or(0, |starts| (starts[list + 1] - starts[list]) as usize)
            };
            let found = candidates.groups.iter().map(|&group| length(1, group as usize)).sum();
            let interest = deep.interest.shared_operations(n, length(0, 0), found);
            interest + deep.sharing.shared_operations(&self.inputs.split())
        });
        let crossing = crossing.as_ref().map_or(0, |crossing| crossing.operations(n));
        deep + crossing + funnel.operations(n)
    }

    /// Puts the candidates group after group, within a group in their own order.
    fn sort(&mut self, candidates: &Candidates) {
        let count = candidates.groups.iter().max().map_or(0, |&last| last as usize + 1);
        self.groups.clear();
        self.groups.resize(count + 1, 0);
        for &group in &candidates.groups {
            self.groups[group as usize + 1] += 1;
        }
        for group in 0..count {
            self.groups[group + 1] += self.groups[group];
        }
        self.order.clear();
        self.order.resize(candidates.size(), 0);
        for (candidate, &group) in (0..).zip(&candidates.groups) {
            let place = &mut self.groups[group as usize];
            self.order[*place] = candidate;
            *place += 1;
        }
        // Each start has moved to the end of its group, which is the start of the next.
        self.groups.rotate_right(1);
        self.groups[0] = 0;
    }

    /// Finds the candidates' key columns in which few different ones occur; none where that is not wanted.
    fn divide(&mut self, side: &Side, wanted: bool) {
        self.wide.clear();
        let Inputs { narrow, narrow_count, .. } = &mut self.inputs;
        *narrow_count = 0;
        let most = self.order.len() / NARROW;
        for (key, column) in side.keys.iter().enumerate() {
            let store = &self.rows.stores[column.store];
            if narrow.len() == *narrow_count {
                narrow.push(Narrow::default());
            }
            let narrow = &mut narrow[*narrow_count];
            narrow.start(column.rows());
            self.places.clear();
            self.places.resize(store.distinct(), u32::MAX);
            let few = wanted
                && self.order.iter().all(|&candidate| {
                    let row = store.key_row(&store.own, candidate as usize, column.index);
                    let place = &mut self.places[row];
                    if *place == u32::MAX {
                        *place = narrow.add(store.row(row));
                    }
                    narrow.index.push(*place);
                    narrow.count() <= most
                });
            match few {
                true => *narrow_count += 1,
                false => self.wide.push(key),
            }
        }
    }

    /// Copies fields, targets and behaviours; the interest's columns stay arbitrary.
    fn gather(&mut self, plan: &Plan, split: &Split, candidates: &Candidates) {
        let Self { rows, order, inputs, target, behaviours, .. } = self;
        let Inputs { common, common_rows, own, own_rows, .. } = inputs;
        let stores = &rows.stores;
        let width = |rows: &[Range<usize>]| rows.iter().map(Range::len).sum();
        let side = &split.common;
        side.rows(0..side.keys.len(), common_rows);
        common.reshape(1, width(common_rows));
        let (columns, to) = (&candidates.common, common.row_mut(0));
        gather_side(side, 0..side.keys.len(), stores, |store| &store.common, columns, 0, to);
        let side = &split.own;
        side.rows(self.wide.iter().copied(), own_rows);
        own.reshape(order.len(), width(own_rows));
        for (row, &candidate) in order.iter().enumerate() {
            let (keys, columns) = (self.wide.iter().copied(), &candidates.own);
            let (candidate, to) = (candidate as usize, own.row_mut(row));
            gather_side(side, keys, stores, |store| &store.own, columns, candidate, to);
        }
        let (item, _) = plan.behaviour();
        match split.target {
            // Only an encoder that does not look at the candidate goes without.
            None => target.zero(order.len(), item),
            Some(columns) => {
                target.reshape(order.len(), item);
                for (row, &candidate) in order.iter().enumerate() {
                    let mut rest = target.row_mut(row);
                    for column in columns.map(|column| &side.keys[column]) {
                        let store = &stores[column.store];
                        let (mine, others) = rest.split_at_mut(column.width);
                        let value = store.key(&store.own, candidate as usize, column.index);
                        mine.copy_from_slice(value);
                        rest = others;
                    }
                }
            }
        }
        behaviours.resize_with(plan.looks.len(), Grid::default);
        for (number, (look, out)) in plan.looks.iter().zip(behaviours).enumerate() {
            out.reshape(candidates.histories[number].items.len(), look.width());
            for row in 0..out.rows() {
                let mut rest = out.row_mut(row);
                for (part, &(store, width)) in look.parts.iter().enumerate() {
                    let (mine, others) = rest.split_at_mut(width);
                    mine.copy_from_slice(stores[store].look(number, part, row));
                    rest = others;
                }
            }
        }
    }
}

/// Copies one row of the columns of one side, of the key columns only these.
fn gather_side(
    side: &Side,
    keys: impl Iterator<Item = usize>,
    stores: &[CandidateStore],
    places: impl Fn(&CandidateStore) -> &Places,
    columns: &Columns,
    row: usize,
    x: &mut [f32],
) {
    let mut rest = x;
    for column in keys.map(|key| &side.keys[key]) {
        let store = &stores[column.store];
        let (out, others) = rest.split_at_mut(column.width);
        rest = others;
        out.copy_from_slice(store.key(places(store), row, column.index));
    }
    for column in &side.lists {
        let store = &stores[column.store];
        let (out, others) = rest.split_at_mut(column.width);
        rest = others;
        out.fill(0.0);
        let (entries, share): (_, f32) = entries(&columns.lists[column.index], row);
        for entry in entries {
            let value = store.list(places(store), column.index, entry);
            out.iter_mut().zip(value).for_each(|(out, value)| *out += share * value);
        }
    }
    let count = side.numbers.len();
    rest[..count].copy_from_slice(&columns.numbers[row * count..(row + 1) * count]);
}

#[cfg(test)]
mod tests;
