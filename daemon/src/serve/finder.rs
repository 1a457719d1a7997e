//! Where candidates come from: the retrieval index, the popular items of the user's categories, new items, popular items.
//!
//! Of `n` candidates half come from the index, a quarter from the categories, an eighth are new, and what is popular fills the rest;
//! where one source runs dry the others step in. An item comes once, from the first source that has it.

use sluice_features::assemble::FieldValues;
use sluice_features::example::Batch;
use sluice_features::ids::ItemId;
use sluice_features::maps::Set;
use sluice_models::retrieval::{Hit, IndexError, Scratch, Towers, VectorWork};

use super::sieve::Sieve;
use super::{Asker, Serving, append};
use crate::pipeline::Pipeline;

/// The newest categories of a user whose popular items are candidates.
const CATEGORIES: usize = 10;
/// Stands for no item where only the user matters.
const NO_ITEM: ItemId = ItemId(0);

/// Finds candidates; all its memory serves again.
#[derive(Debug)]
pub(super) struct Finder {
    pub(super) sieve: Sieve,
    batch: Batch,
    values: FieldValues,
    work: VectorWork,
    scratch: Scratch,
    vector: Vec<f32>,
    hits: Vec<Hit>,
    categories: Vec<u32>,
    in_categories: Vec<ItemId>,
    newest: Vec<ItemId>,
    popular: Vec<ItemId>,
    taken: Set<u64>,
    found: Vec<ItemId>,
}

impl Finder {
    pub(super) fn new(pipeline: &Pipeline, towers: &Towers) -> Self {
        Self {
            sieve: Sieve::default(),
            batch: pipeline.assembler().batch(),
            values: FieldValues::default(),
            work: towers.work(),
            scratch: Scratch::default(),
            vector: Vec::new(),
            hits: Vec::new(),
            categories: Vec::new(),
            in_categories: Vec::new(),
            newest: Vec::new(),
            popular: Vec::new(),
            taken: Set::default(),
            found: Vec::new(),
        }
    }

    /// Gathers what the sources need of the pipeline: the first half of [`Finder::recommend`], under the pipeline's lock.
    pub(super) fn gather(&mut self, pipeline: &Pipeline, asker: &Asker<'_>, count: usize) {
        self.batch.clear();
        append(pipeline, asker, NO_ITEM, &mut self.values, &mut self.batch);
        let shared = pipeline.shared();
        let item = |number: u32| ItemId(shared.items.id(number));
        match self.sieve.categories() {
            Some(wanted) => {
                let numbers = wanted.iter().filter_map(|id| shared.categories.number(id.0));
                self.categories.clear();
                self.categories.extend(numbers.take(CATEGORIES));
            }
            None => {
                let read = &shared.kinds.among(&pipeline.rules().schema.read);
                let past = pipeline.past(asker.user);
                let categories = &mut self.categories;
                let time = asker.time;
                past.sequence.recent_categories(time, CATEGORIES, read, categories);
            }
        }
        // The best of each category, then the second best of each.
        self.in_categories.clear();
        for place in 0..count {
            let before = self.in_categories.len();
            let lists = self.categories.iter().map(|&c| shared.popular.in_category(c));
            self.in_categories.extend(lists.filter_map(|l| l.get(place)).map(|&n| item(n)));
            if self.in_categories.len() == before || before >= count {
                break;
            }
        }
        self.newest.clear();
        self.newest.extend(shared.popular.newest().take(count).map(item));
        self.popular.clear();
        self.popular.extend(shared.popular.overall().iter().take(count).map(|&n| item(n)));
    }

    /// Returns up to `count` candidates, after [`Finder::gather`].
    ///
    /// # Errors
    /// When the user's vector is not finite.
    pub(super) fn recommend(
        &mut self,
        serving: &Serving,
        asker: &Asker<'_>,
        count: usize,
    ) -> Result<&[ItemId], IndexError> {
        self.hits.clear();
        if let Some(index) = &*serving.index.read() {
            index.towers.users(&self.batch, &mut self.work, &mut self.vector);
            let sieve = &self.sieve;
            let filter = |id| sieve.passes(serving, ItemId(id), asker.time);
            let (scratch, hits) = (&mut self.scratch, &mut self.hits);
            index.index.search(&self.vector, count, filter, scratch, hits)?;
        }
        self.taken.clear();
        self.found.clear();
        let hits = || self.hits.iter().map(|hit| ItemId(hit.id));
        let (found, taken) = (&mut self.found, &mut self.taken);
        let mut take = |source: &mut dyn Iterator<Item = ItemId>, most: usize| {
            let end = count.min(found.len() + most);
            while found.len() < end {
                let Some(item) = source.next() else { break };
                if !taken.contains(&item.0) && self.sieve.passes(serving, item, asker.time) {
                    taken.insert(item.0);
                    found.push(item);
                }
            }
        };
        take(&mut hits(), count.div_ceil(2));
        take(&mut self.in_categories.iter().copied(), count / 4);
        take(&mut self.newest.iter().copied(), count / 8);
        take(&mut self.popular.iter().copied(), count);
        take(&mut hits(), count);
        take(&mut self.in_categories.iter().copied(), count);
        take(&mut self.newest.iter().copied(), count);
        Ok(&self.found)
    }

    /// Returns up to `count` items whose vectors are nearest to that of an item, with their inner products, after
    /// [`Finder::gather_item`]. Nothing while there is no index.
    ///
    /// # Errors
    /// When the item's vector is not finite.
    pub(super) fn similar(
        &mut self,
        serving: &Serving,
        asker: &Asker<'_>,
        item: ItemId,
        count: usize,
    ) -> Result<&[Hit], IndexError> {
        self.hits.clear();
        if let Some(index) = &*serving.index.read() {
            match index.index.vector(item.0) {
                Some(vector) => {
                    self.vector.clear();
                    self.vector.extend_from_slice(vector);
                }
                None => index.towers.items(&self.batch, &mut self.work, &mut self.vector),
            }
            let sieve = &self.sieve;
            let filter = |id| sieve.passes(serving, ItemId(id), asker.time);
            let (scratch, hits) = (&mut self.scratch, &mut self.hits);
            index.index.search(&self.vector, count, filter, scratch, hits)?;
        }
        Ok(&self.hits)
    }

    /// Gathers the features of an item, of which there may be no vector.
    pub(super) fn gather_item(&mut self, pipeline: &Pipeline, asker: &Asker<'_>, item: ItemId) {
        self.batch.clear();
        append(pipeline, asker, item, &mut self.values, &mut self.batch);
    }

    /// Replaces the found items by what is popular or new, scored by its place: the answer where nothing is known of an item.
    pub(super) fn popular(
        &mut self,
        pipeline: &Pipeline,
        serving: &Serving,
        asker: &Asker<'_>,
        count: usize,
    ) -> &[Hit] {
        let shared = pipeline.shared();
        let numbers = shared.popular.overall().iter().copied().chain(shared.popular.newest());
        self.taken.clear();
        self.hits.clear();
        for number in numbers {
            let id = shared.items.id(number);
            if self.hits.len() == count {
                break;
            }
            if self.sieve.passes(serving, ItemId(id), asker.time) && self.taken.insert(id) {
                let score = 1.0 / (1.0 + self.hits.len() as f32);
                self.hits.push(Hit { id, score });
            }
        }
        &self.hits
    }
}
