//! Made-up batches with the shapes of KuaiRand-Pure, for benchmarks and tests of speed: 34 fields, three tasks, histories of the newest
//! clicks and of those that share the candidate's tag.
//!
//! Measured on the 92,034 impressions of the data set and repeated here: how many values each field has, how they are spread (256
//! impressions hold some 1,170 distinct ids of fields), the share of impressions without history (.43), the mean length of the others'
//! (2.7, geometric; 1.54 over all), the share of a history that has the candidate's tag (.139), and the rates of the tasks. The same
//! seed gives the same batches.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluice_features::candidates::Candidates;
use sluice_features::example::{About, Batch, Histories, LabelMode};
use sluice_features::ids::{EventId, ItemId, UserId, salted_key};
use sluice_features::schema::{EventField, Field, Kind, Lookup, Missing, Schema, Source, Table};
use sluice_features::time::EventTime;

use crate::learner::Learner;
use crate::spec::{ModelSpec, SpecError};

/// The parents of the tasks click, long_view, like.
pub const PARENTS: [Option<usize>; 3] = [None, Some(0), Some(0)];
/// What an operator would guess as their rates.
pub const PRIORS: [f64; 3] = [0.4, 0.3, 0.02];
/// Width of all rows.
pub const WIDTH: usize = 16;

/// Rates on all impressions; children are positive only where click is.
const RATES: [f64; 3] = [0.447, 0.313, 0.0143];
/// Share of impressions whose user has no history.
const EMPTY: f64 = 0.428;
/// Chance that a history ends with its next behaviour.
const LAST: f64 = 0.372;
/// Share of behaviours that have the candidate's tag.
const MATCHING: f64 = 0.139;
/// Buckets of the time between behaviour and impression.
const GAPS: u64 = 24;

/// What the values of a field depend on, and how many there are. Video and tag come first, user third.
const FIELDS: [(EventField, u64); 34] = {
    use EventField::{Category, Item, Surface, Time, User};
    [
        (Item, 5564),
        (Category, 43),
        (User, 21_184),
        (User, 9),
        (User, 8),
        (User, 8),
        (User, 9),
        (User, 7),
        (User, 2),
        (User, 7),
        (User, 48),
        (User, 1333),
        (User, 16),
        (User, 28),
        (User, 3),
        (User, 102),
        (User, 434),
        (User, 7),
        (User, 5),
        (User, 5),
        (User, 3),
        (User, 3),
        (User, 3),
        (User, 3),
        (User, 3),
        (User, 3),
        (Item, 5020),
        (Item, 3),
        (Item, 12),
        (Item, 6),
        (Item, 10),
        (Item, 9),
        (Surface, 15),
        (Time, 24),
    ]
};
/// Index of the table of gaps, behind those of the fields.
const GAP_TABLE: usize = FIELDS.len();

/// A source of batches.
#[derive(Debug)]
pub struct Synthetic {
    schema: Schema,
    salts: Vec<u64>,
    random: ChaCha8Rng,
}

impl Synthetic {
    /// Creates a source for a model that reads these looks into the history.
    pub fn new(spec: &ModelSpec, seed: u64) -> Self {
        let schema = schema(spec);
        let salts = schema.tables.iter().map(Table::salt).collect();
        Self { schema, salts, random: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Returns what the batches are made for.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Builds a learner for the batches.
    ///
    /// # Errors
    /// All mistakes of the configuration.
    pub fn learner(&self, spec: &ModelSpec, seed: u64) -> Result<Learner, Vec<SpecError>> {
        Learner::new(spec, &self.schema, &PARENTS, &PRIORS, seed)
    }

    /// Makes labelled impressions of many users.
    pub fn impressions(&mut self, size: usize) -> Batch {
        let mut batch = self.empty();
        for _ in 0..size {
            let (user, item) = (self.skewed(FIELDS[2].1), self.skewed(FIELDS[0].1));
            let (surface, hour) = (self.skewed(15), self.random.random_range(0..24));
            self.example(&mut batch, user, item, [surface, hour]);
            let length = self.length();
            let matching = (0..length).filter(|_| self.random.random_bool(MATCHING)).count();
            for (k, length) in self.lengths(length, matching) {
                self.history(&mut batch.histories[k], length, (k == 1).then_some(item));
            }
            let click = self.random.random_bool(RATES[0]);
            let children =
                [1, 2].map(|task| click && self.random.random_bool(RATES[task] / RATES[0]));
            let labels = [click, children[0], children[1]];
            batch.labels.extend(labels.map(|label| f32::from(u8::from(label))));
        }
        batch
    }

    /// Makes the candidates of one user, with `newest` behaviours, and `matching` ones of each tag among them.
    pub fn request(&mut self, size: usize, newest: usize, matching: usize) -> Candidates {
        let mut candidates = Candidates::new(&self.schema);
        let user = self.skewed(FIELDS[2].1);
        let circumstances = [self.skewed(15), self.random.random_range(0..24)];
        let own = |field: &usize| self.schema.is_own(*field);
        let (own, common): (Vec<usize>, Vec<usize>) = (0..FIELDS.len()).partition(own);
        let mut keys = self.keys(user, 0, circumstances);
        candidates.common.keys.extend(common.iter().map(|&field| keys[field]));
        for (look, length) in self.lengths(newest, matching).into_iter().take(1) {
            self.history(&mut candidates.histories[look], length, None);
        }
        for _ in 0..size {
            let item = self.random.random_range(0..FIELDS[0].1);
            keys = self.keys(user, item, circumstances);
            candidates.own.keys.extend(own.iter().map(|&field| keys[field]));
            if candidates.join(Some(derived(item, 1, FIELDS[1].1))) {
                for (look, length) in self.lengths(newest, matching).into_iter().skip(1) {
                    self.history(&mut candidates.histories[look], length, Some(item));
                }
            }
            candidates.about.push(about(user, item));
        }
        candidates
    }

    /// Makes the same candidates as a batch, in which everything is repeated.
    pub fn candidates(&mut self, size: usize, newest: usize, matching: usize) -> Batch {
        let mut batch = self.empty();
        self.request(size, newest, matching).expand(&self.schema, &mut batch);
        batch
    }

    fn empty(&self) -> Batch {
        Batch::new(0, self.schema.lookups.len())
    }

    /// Each look's place and length.
    fn lengths(&self, newest: usize, matching: usize) -> Vec<(usize, usize)> {
        let looks = self.schema.lookups.iter().enumerate();
        let length = |(k, look): (usize, &Lookup)| match look {
            Lookup::Newest { limit } => (k, newest.min(*limit)),
            Lookup::Matching { limit } => (k, matching.min(*limit)),
        };
        looks.map(length).collect()
    }

    /// The keys of all fields.
    fn keys(&self, user: u64, item: u64, circumstances: [u64; 2]) -> Vec<u64> {
        let fields = FIELDS.iter().zip(&self.salts).enumerate();
        let key = |(k, ((source, values), salt)): (usize, (&(EventField, u64), &u64))| {
            let id = match (k, source) {
                (0, _) => item,
                (2, _) => user,
                (_, EventField::Item | EventField::Category) => derived(item, k, *values),
                (_, EventField::User) => derived(user, k, *values),
                (_, EventField::Surface) => circumstances[0],
                (_, EventField::Time | EventField::Position) => circumstances[1],
            };
            salted_key(*salt, id)
        };
        fields.map(key).collect()
    }

    fn example(&self, batch: &mut Batch, user: u64, item: u64, circumstances: [u64; 2]) {
        batch.keys.extend(self.keys(user, item, circumstances));
        batch.modes.extend([LabelMode::Final; PARENTS.len()]);
        batch.groups.push(batch.groups.len() as u32);
        batch.about.push(about(user, item));
    }

    /// Adds a history, of the tag of an item if there is one.
    fn history(&mut self, history: &mut Histories, length: usize, like: Option<u64>) {
        for _ in 0..length {
            let item = self.skewed(FIELDS[0].1);
            let tag = derived(like.unwrap_or(item), 1, FIELDS[1].1);
            let gap = self.random.random_range(0..GAPS);
            history.items.push(salted_key(self.salts[0], item));
            history.categories.push(salted_key(self.salts[1], tag));
            history.gaps.push(salted_key(self.salts[GAP_TABLE], gap));
        }
        history.starts.push(history.items.len() as u32);
    }

    fn length(&mut self) -> usize {
        if self.random.random_bool(EMPTY) {
            return 0;
        }
        (1..50).find(|_| self.random.random_bool(LAST)).unwrap_or(50)
    }

    /// A value below `values`, small ones more often.
    fn skewed(&mut self, values: u64) -> u64 {
        skew(self.random.random(), values)
    }
}

fn about(user: u64, item: u64) -> About {
    About {
        impression: EventId(0),
        user: UserId(user),
        item: ItemId(item),
        time: EventTime(0),
        new_item: false,
        offered: true,
    }
}

/// The value of field `k` that belongs to a user or an item.
fn derived(id: u64, k: usize, values: u64) -> u64 {
    let bits = salted_key(k as u64, id.wrapping_add(1)) >> 11;
    skew(bits as f64 / (1_u64 << 53) as f64, values)
}

/// The fourth power of an even spread: the first tenth of the values has more than half of all.
fn skew(even: f64, values: u64) -> u64 {
    ((even.powi(4) * values as f64) as u64).min(values - 1)
}

fn schema(spec: &ModelSpec) -> Schema {
    let field = |(k, (source, _)): (usize, &(EventField, u64))| Field {
        name: format!("field {k}"),
        source: Source::Event(*source),
        kind: Kind::Category,
        table: k,
        missing: Missing::Own,
    };
    Schema {
        fields: FIELDS.iter().enumerate().map(field).collect(),
        tables: (0..=GAP_TABLE)
            .map(|k| Table { name: format!("table {k}"), width: WIDTH })
            .collect(),
        counters: vec![],
        lookups: spec.lookups(),
        read: vec![true],
        item_table: 0,
        category_table: 1,
        gap_table: GAP_TABLE,
        tasks: PARENTS.len(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn impressions_have_the_lengths_and_ids_of_the_data_set() {
        let mut source = Synthetic::new(&ModelSpec::reference(), 3);
        let batches: Vec<Batch> = (0..40).map(|_| source.impressions(256)).collect();
        let mean = |count: &dyn Fn(&Batch) -> usize| {
            batches.iter().map(count).sum::<usize>() as f64 / batches.len() as f64
        };
        let close = |found: f64, expected: f64| (found / expected - 1.0).abs() < 0.12;
        let newest = mean(&|batch| batch.histories[0].items.len()) / 256.0;
        let matching = mean(&|batch| batch.histories[1].items.len()) / 256.0;
        assert!(close(newest, 1.54) && close(matching, 0.214), "{newest} {matching}");
        let distinct = mean(&|batch| batch.keys.iter().collect::<BTreeSet<_>>().len());
        assert!(close(distinct, 1171.0), "{distinct}");
        let clicks = mean(&|batch| batch.labels.chunks(3).filter(|row| row[0] > 0.0).count());
        assert!(close(clicks / 256.0, 0.447), "{clicks}");
        let nested = |row: &[f32]| row[0] >= row[1] && row[0] >= row[2];
        assert!(batches.iter().all(|batch| batch.labels.chunks(3).all(nested)));
    }

    #[test]
    fn candidates_share_the_user_and_the_newest_behaviours() {
        let mut source = Synthetic::new(&ModelSpec::reference(), 3);
        let batch = source.candidates(20, 50, 50);
        let first = &batch.histories[0].items[..50];
        assert!(batch.histories[0].items.chunks(50).all(|items| items == first));
        assert_eq!(batch.histories[1].items.len(), 20 * 50);
        let users = batch.keys.chunks(FIELDS.len()).map(|keys| &keys[2..26]);
        assert_eq!(users.collect::<BTreeSet<_>>().len(), 1);
        let items = batch.keys.chunks(FIELDS.len()).map(|keys| keys[0]);
        assert!(items.collect::<BTreeSet<_>>().len() > 15);
        assert_eq!(Synthetic::new(&ModelSpec::reference(), 3).candidates(20, 50, 50), batch);
    }

    #[test]
    fn every_model_can_learn_them() {
        for spec in [ModelSpec::reference(), ModelSpec::default()] {
            let mut source = Synthetic::new(&spec, 3);
            let mut learner = source.learner(&spec, 1).unwrap();
            let batch = source.impressions(32);
            let report = learner.step(&batch);
            assert!(!report.refused && report.labelled == 32);
        }
    }
}
