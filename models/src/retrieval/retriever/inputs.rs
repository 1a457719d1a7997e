//! From facts to the inputs of the towers and back to gradients of rows.
//!
//! ```text
//! facts -> occurrences -grouping-> distinct keys -store-> rows -spread-> x = [keys | means | numbers]
//! dx -> gradients of occurrences -summed by key-> gradients of distinct rows -> row-wise Adagrad
//! ```
//!
//! Occurrences are, end to end and side by side: the key columns example by example, then the entries
//! of each list. Shapes: rows `[distinct, row]`, occurrences `[occurrences, row]`, `x` `[size, inputs]`.

use std::ops::Range;

use sluice_features::time::EventTime;

use super::columns::{Facts, SideColumns};
use crate::layers::Grid;
use crate::params::{view, view_mut};
use crate::retrieval::history::{mean, mean_backward};
use crate::table::{Grouping, RowStore};

/// The rows behind the facts of one or two sides, their gradients, and the copies for each occurrence.
#[derive(Clone, Debug, Default)]
pub(super) struct Inputs {
    occurrences: Vec<u64>,
    grouping: Grouping,
    rows: Vec<f32>,
    spread: Vec<f32>,
    d_spread: Vec<f32>,
    d_rows: Vec<f32>,
    width: usize,
}

impl Inputs {
    /// Reads rows for learning: ids are counted and get a row when they are due one. Returns the
    /// range of occurrences of each side.
    pub(super) fn learn<const N: usize>(
        &mut self,
        store: &RowStore,
        now: EventTime,
        sides: [&Facts; N],
    ) -> [Range<usize>; N] {
        let ranges = self.prepare(store.width(), sides);
        let (keys, counts) = (self.grouping.keys(), self.grouping.counts());
        store.gather_or_insert_counted(keys, counts, now, &mut self.rows);
        self.grouping.spread(&self.rows, self.width, &mut self.spread);
        ranges
    }

    /// Reads rows for serving: what has no row is zero. Returns the range of occurrences.
    pub(super) fn read(&mut self, store: &RowStore, facts: &Facts) -> Range<usize> {
        let [range] = self.prepare(store.width(), [facts]);
        store.gather(self.grouping.keys(), &mut self.rows);
        self.grouping.spread(&self.rows, self.width, &mut self.spread);
        range
    }

    fn prepare<const N: usize>(&mut self, width: usize, sides: [&Facts; N]) -> [Range<usize>; N] {
        self.width = width;
        self.occurrences.clear();
        let ranges = sides.map(|facts| {
            let start = self.occurrences.len();
            self.occurrences.extend_from_slice(&facts.keys);
            for list in &facts.lists {
                self.occurrences.extend_from_slice(&list.keys);
            }
            start..self.occurrences.len()
        });
        self.grouping.group(&self.occurrences);
        self.rows.resize(self.grouping.keys().len() * width, 0.0);
        self.spread.resize(self.occurrences.len() * width, 0.0);
        ranges
    }

    /// Writes the inputs of a tower.
    pub(super) fn write(
        &self,
        columns: &SideColumns,
        facts: &Facts,
        range: Range<usize>,
        x: &mut Grid<f32>,
    ) {
        let width = self.width;
        x.reshape(facts.size(), columns.width(width));
        for part in Parts::of(columns, facts, width) {
            let occurrences = shift(&part.occurrences, range.start, width);
            let rows = &self.spread[occurrences];
            let mut out = x.part_mut(part.columns.clone());
            match part.list {
                None => out.assign(&view(rows, facts.size(), part.columns.len())),
                Some(list) => {
                    mean(view(rows, part.occurrences.len(), width), &facts.lists[list].starts, out);
                }
            }
        }
        let numbers = x.columns() - columns.numbers()..x.columns();
        x.part_mut(numbers).assign(&view(&facts.numbers, facts.size(), columns.numbers()));
    }

    /// Makes room for the gradients of all occurrences.
    pub(super) fn start_gradients(&mut self) {
        self.d_spread.resize(self.spread.len(), 0.0);
        self.d_rows.resize(self.rows.len(), 0.0);
    }

    /// Takes the gradient of a tower's inputs.
    pub(super) fn take(
        &mut self,
        columns: &SideColumns,
        facts: &Facts,
        range: Range<usize>,
        dx: &Grid<f32>,
    ) {
        let width = self.width;
        for part in Parts::of(columns, facts, width) {
            let occurrences = shift(&part.occurrences, range.start, width);
            let d_rows = &mut self.d_spread[occurrences];
            let dy = dx.part(part.columns.clone());
            match part.list {
                None => view_mut(d_rows, facts.size(), part.columns.len()).assign(&dy),
                Some(list) => {
                    let d_rows = view_mut(d_rows, part.occurrences.len(), width);
                    mean_backward(dy, &facts.lists[list].starts, d_rows);
                }
            }
        }
    }

    /// Sums the gradients of each key, and returns them `[distinct, row]`.
    pub(super) fn sum(&mut self) -> &[f32] {
        self.grouping.sum(&self.d_spread, self.width, &mut self.d_rows);
        &self.d_rows
    }

    /// Does a step of row-wise Adagrad with the summed gradients.
    pub(super) fn apply(&self, store: &RowStore) {
        store.apply(self.grouping.keys(), &self.d_rows);
    }
}

/// A range of a tower's inputs and the occurrences behind it, counted from the side's first.
struct Part {
    columns: Range<usize>,
    occurrences: Range<usize>,
    /// The list of which it is the mean; the key columns otherwise.
    list: Option<usize>,
}

/// The parts of a tower's inputs before the numbers.
struct Parts<'a> {
    facts: &'a Facts,
    width: usize,
    next: Option<Part>,
}

impl<'a> Parts<'a> {
    fn of(columns: &SideColumns, facts: &'a Facts, width: usize) -> Self {
        let keys = Part {
            columns: 0..columns.keys() * width,
            occurrences: 0..facts.keys.len(),
            list: None,
        };
        Self { facts, width, next: Some(keys) }
    }
}

impl Iterator for Parts<'_> {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        let part = self.next.take()?;
        let list = part.list.map_or(0, |list| list + 1);
        self.next = self.facts.lists.get(list).map(|entries| Part {
            columns: part.columns.end..part.columns.end + self.width,
            occurrences: part.occurrences.end..part.occurrences.end + entries.keys.len(),
            list: Some(list),
        });
        Some(part)
    }
}

/// Where the numbers of some occurrences are.
fn shift(occurrences: &Range<usize>, start: usize, width: usize) -> Range<usize> {
    (start + occurrences.start) * width..(start + occurrences.end) * width
}
