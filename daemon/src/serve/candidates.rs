//! The candidates of one answer and their names, in memory that serves again.
//!
//! A candidate that was found has a number, and its name is fetched only where the answer may name it: among the best, or as good as the last
//! of these, for of equal scores the smaller name comes first.

use sluice_features::ids::ItemId;
use sluice_features::wire::Role;

use super::Serving;
use crate::pipeline::Pipeline;
use crate::pipeline::names::NamesError;

/// Candidates in the order in which they were found.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    all: Vec<Candidate>,
    names: String,
    /// Places and numbers of candidates whose names are fetched.
    places: Vec<usize>,
    numbers: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: ItemId,
    unknown: bool,
    name: Name,
}

#[derive(Clone, Copy, Debug)]
enum Name {
    /// By the dictionary.
    Numbered(u32),
    /// In the names, from and to there.
    Known(usize, usize),
}

impl Candidates {
    pub(super) fn clear(&mut self) {
        self.all.clear();
        self.names.clear();
    }

    /// Adds an item by its name. It is unknown when no record has ever named it.
    pub(super) fn push_named(&mut self, pipeline: &Pipeline, id: ItemId, name: &str) {
        let unknown = !pipeline.shared().items.knows(id.0, name);
        let name = self.keep(name);
        self.all.push(Candidate { id, unknown, name });
    }

    /// Adds an item that some record has named; others are left out. Returns whether it was added.
    pub(super) fn push_known(&mut self, pipeline: &Pipeline, id: ItemId) -> bool {
        let number = pipeline.shared().items.number(id.0);
        let name = number.map(Name::Numbered);
        self.all.extend(name.map(|name| Candidate { id, unknown: false, name }));
        number.is_some()
    }

    fn keep(&mut self, name: &str) -> Name {
        let start = self.names.len();
        self.names.push_str(name);
        Name::Known(start, self.names.len())
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn id(&self, place: usize) -> ItemId {
        self.all[place].id
    }

    pub(super) fn is_unknown(&self, place: usize) -> bool {
        self.all[place].unknown
    }

    /// Returns the name of one of the best ([`Candidates::rank`]).
    pub(super) fn name(&self, place: usize) -> &str {
        match self.all[place].name {
            Name::Known(start, end) => &self.names[start..end],
            Name::Numbered(_) => "",
        }
    }

    /// Replaces `order` by the best `limit` places: the highest score first, of equal scores the smaller name. The pipeline must not be locked.
    ///
    /// # Errors
    /// When a name is out of reach.
    pub(super) fn rank(
        &mut self,
        serving: &Serving,
        scores: &[f32],
        limit: usize,
        order: &mut Vec<usize>,
    ) -> Result<(), NamesError> {
        order.clear();
        order.extend(0..self.len());
        order.sort_unstable_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let last = limit.checked_sub(1).and_then(|last| order.get(last)).map(|&last| scores[last]);
        let as_good = last.map_or(if limit == 0 { 0 } else { order.len() }, |last| {
            order.partition_point(|&place| scores[place].total_cmp(&last).is_ge())
        });
        order.truncate(as_good);
        self.fetch(serving, order)?;
        order.sort_unstable_by(|&a, &b| {
            scores[b].total_cmp(&scores[a]).then_with(|| self.name(a).cmp(self.name(b)))
        });
        order.truncate(limit);
        Ok(())
    }

    /// Fetches the names of candidates at some places.
    fn fetch(&mut self, serving: &Serving, places: &[usize]) -> Result<(), NamesError> {
        let (mut wanted, mut numbers) =
            (std::mem::take(&mut self.places), std::mem::take(&mut self.numbers));
        wanted.clear();
        numbers.clear();
        for &place in places {
            if let Name::Numbered(number) = self.all[place].name {
                wanted.push(place);
                numbers.push(number);
            }
        }
        let found = serving.names.find(&serving.pipeline, Role::Item, &numbers, |at, name| {
            self.all[wanted[at]].name = self.keep(name);
        });
        (self.places, self.numbers) = (wanted, numbers);
        found
    }
}
