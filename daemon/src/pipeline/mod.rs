//! Records in, micro-batches out: the heart of the daemon, without I/O, clock or threads. What is put away of open impressions goes through
//! a trait ([`spill::Pages`]).
//!
//! Live run, replay and tests call the same functions: [`Pipeline::take`] for each record, [`Pipeline::cut`] when a batch has waited
//! long enough, [`Pipeline::quiet`] for a partition that is silent. Whatever decides about the last two is an input: it is captured
//! beside the records, so a run is a function of both.
//!
//! An event is decoded, looked up as of its time, attributed, remembered; then windows close and examples are assembled. It is
//! remembered after its features were taken, and histories are read strictly before the impression's time.

#[cfg(test)]
mod as_of;
mod batcher;
mod counting;
pub mod counts;
#[cfg(test)]
mod drawn;
pub mod due;
mod effects;
mod groups;
pub mod memory;
pub mod names;
pub mod notes;
pub mod popular;
pub mod record;
pub mod restore;
pub mod shard;
pub mod shared;
pub mod spill;
pub mod stages;
pub mod state;
mod take;
pub mod touched;
pub mod work;

use std::sync::Arc;

use parking_lot::Mutex;

use sluice_features::assemble::{Assembler, FieldValues, UserHistory, ValuePool};
use sluice_features::attributes::AttributeKey;
use sluice_features::attribution::{Effect, JoinCounts};
use sluice_features::catalogue::Catalogue;
use sluice_features::funnel::{Entry, Funnel, LabelRule, MAX_TASKS};
use sluice_features::ids::{ItemId, UserId};
use sluice_features::pack::{OutOfReach, Packs};
use sluice_features::reject::Rejection;
use sluice_features::schema::Schema;
use sluice_features::sequence::{CacheCounts, KindNumbers};
use sluice_features::time::{EventTime, Span};
use sluice_features::wire::Scratch;

use crate::config::{Bounds, Share};
use batcher::Batcher;
use counts::Counts;
use due::Dues;
use memory::Left;
use names::{NamePages, Names};
use notes::Notes;
use shard::Shard;
use shared::Shared;
use spill::Pages;
use stages::{Stages, SteadyClock};
use touched::Changed;
use work::LearnBatch;

/// What the configuration says to the pipeline.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The tree of tasks.
    pub funnel: Funnel,
    /// What the model reads.
    pub schema: Schema,
    /// How much later than others an event may come.
    pub lateness: Span,
    /// How much memory what grows may take, over all shards.
    pub bounds: Bounds,
    /// Bytes of an item's vector in the retrieval index.
    pub vector_bytes: usize,
    /// The most behaviours of a user.
    pub max_length: usize,
    /// The attribute that holds an item's category.
    pub category: AttributeKey,
    /// The attribute that says whether an item can be had; absent means yes.
    pub available: AttributeKey,
    /// An item is new for so long after it was first seen.
    pub new_for: Span,
    /// Examples in a micro-batch.
    pub batch: usize,
    /// Share of impressions that are judged, from 0 to 1.
    pub share: f64,
    /// Seed of sampled negatives.
    pub seed: u64,
}

/// Windows up to this long: the prediction of the step that learns an impression is as good as that of its arrival.
const SHORT: Span = Span::seconds(1);

/// Bytes of a prediction that waits for its verdict, with its place in a map.
const PREDICTION: usize = 3 * size_of::<(u64, [f32; MAX_TASKS])>() / 2;

/// Such a part of what open impressions may take waits for a checkpoint at most, before one is made ahead of its time.
pub(crate) const UNSTORED: u64 = 8;

/// Memory of closed impressions that is kept for new ones.
const SPARE_VALUES: usize = 16_384;

/// The state of all shards and what they share.
pub struct Pipeline {
    rules: Rules,
    assembler: Assembler,
    shards: Vec<Shard>,
    shared: Shared,
    batcher: Batcher,
    counts: Counts,
    notes: Notes,
    /// An impression is judged by the step that learns it, not by a prediction kept since its arrival.
    judged_by_step: bool,
    scratch: Scratch,
    effects: Vec<Effect>,
    due: Dues,
    pool: ValuePool,
    /// Items drawn beside the view that has just come, with their features.
    drawn: Vec<(ItemId, FieldValues)>,
    /// Features that were put away, for as long as they are looked at.
    brought: FieldValues,
    /// What went wrong with features that were put away: what came after it does not count.
    trouble: Option<OutOfReach>,
    changed: Mutex<Changed>,
    stages: Stages,
    /// Whose event was taken last.
    latest_user: Option<UserId>,
    latest_name: String,
    left: Left,
    /// Bytes that users in memory may take.
    most_users: usize,
}

impl Pipeline {
    /// Creates the pipeline of so many partitions, with nothing in it.
    pub fn new(rules: Rules, partitions: usize) -> Self {
        let kinds = KindNumbers::new(&rules.funnel);
        Self::with_kinds(rules, partitions, kinds)
    }

    /// The same where types of behaviour have their numbers already.
    fn with_kinds(rules: Rules, partitions: usize, kinds: KindNumbers) -> Self {
        let tasks = rules.funnel.tasks();
        let alike = tasks.windows(2).all(|pair| pair[0].window == pair[1].window);
        let judged_by_step = alike
            && rules.funnel.entry() == Entry::Impression
            && rules.funnel.longest_window() <= SHORT
            && tasks.iter().all(|task| task.labels == LabelRule::Wait);
        Self {
            assembler: Assembler::new(&rules.schema, rules.category, &kinds)
                .offering(rules.available),
            shards: (0..partitions.max(1) as u32)
                .map(|number| Shard::new(&rules, number, &kinds))
                .collect(),
            shared: Shared::new(&rules, kinds),
            batcher: Batcher::new(rules.batch, &rules.schema),
            counts: Counts::default(),
            notes: Notes::new(&rules),
            judged_by_step,
            scratch: Scratch::default(),
            effects: Vec::new(),
            due: Dues::new(),
            pool: ValuePool::new(SPARE_VALUES),
            drawn: Vec::new(),
            brought: FieldValues::default(),
            trouble: None,
            changed: Mutex::default(),
            stages: Stages::default(),
            latest_user: None,
            latest_name: String::new(),
            left: Left::default(),
            most_users: usize::MAX,
            rules,
        }
    }

    /// Puts the features of impressions that wait longer than their first window into pages from now on, and keeps in memory no more users than
    /// there is room for. What is learned is the same with pages and packs and without.
    pub fn put_away_to<S: Pages + Packs + 'static>(&mut self, store: &Arc<S>) {
        for shard in &mut self.shards {
            shard.spill.begin(Arc::<S>::clone(store));
            shard.sequences.read_from(Arc::<S>::clone(store));
        }
        self.fit_users();
    }

    /// Keeps strings of names in pages from now on, with so many bytes of memory for pages that are read. What is learned and answered is the
    /// same with pages and without.
    pub fn names_in(&mut self, pages: Arc<dyn NamePages>, cache_bytes: u64) {
        self.shared.names = Arc::new(Names::over(pages, cache_bytes));
    }

    /// Returns where the strings of names are found, for readers in all threads.
    pub fn names(&self) -> Arc<Names> {
        Arc::clone(&self.shared.names)
    }

    /// Forgets what pages and packs have: what changed until the last checkpoint was cut, which is in force now.
    pub fn stored(&mut self) {
        self.shared.names_stored();
        for shard in &mut self.shards {
            shard.spill.stored();
            shard.sequences.stored();
        }
    }

    /// Tells whether so much memory would be free if a checkpoint were in force that one should be made: an eighth of what open impressions may
    /// take, as much of what is known of users and items in names, or half of what users may take.
    pub fn wants_checkpoint(&self) -> bool {
        let open: usize = self.shards.iter().map(|shard| shard.spill.waiting_bytes()).sum();
        let much = |bytes: usize, share| bytes as u64 > self.rules.bounds.of(share) / UNSTORED;
        much(open, Share::Open)
            || much(self.shared.names_waiting(), Share::State)
            || self.unstored_users() > self.most_users / 2
    }

    /// Puts nothing more into pages: for a run that must leave them as they are.
    pub fn stop_spilling(&mut self) {
        self.shards.iter_mut().for_each(|shard| shard.spill.end());
    }

    /// Makes sure that no features were out of reach so far. Otherwise the pipeline is to be used no more: what it has taken since does not
    /// count, and a checkpoint is refused.
    ///
    /// # Errors
    /// Why they were.
    pub fn check(&self) -> Result<(), OutOfReach> {
        self.shards.iter().try_for_each(|shard| shard.sequences.check())?;
        self.trouble.clone().map_or(Ok(()), Err)
    }

    /// Takes back a batch whose memory may serve again.
    pub fn recycle(&mut self, used: LearnBatch) {
        self.batcher.recycle(used);
    }

    /// Returns what has changed since the last call. A reader may ask: nothing that is learned or answered depends on it.
    pub fn take_changed(&self) -> Changed {
        std::mem::take(&mut self.changed.lock())
    }

    /// Tells whether a batch is filling.
    pub fn is_filling(&self) -> bool {
        self.batcher.is_filling()
    }

    /// Returns the event time up to which everything that was due is in the batches, over all shards that are not idle; `None` before
    /// the first event.
    pub fn covered(&self) -> Option<EventTime> {
        let newest = |idle: bool| {
            self.shards.iter().filter(move |shard| shard.idle <= idle).filter_map(Shard::newest)
        };
        newest(false).min().or_else(|| newest(true).max())
    }

    /// Returns about how many bytes of memory open impressions take, with the predictions that the learner keeps of them and without
    /// what was put away: at a bound, reading has to pause.
    pub fn open_bytes(&self) -> usize {
        let shards = self.shards.iter().map(|shard| shard.joiner.memory() + shard.spill.memory());
        let predictions = if self.judged_by_step { 0 } else { PREDICTION };
        shards.sum::<usize>() + predictions * usize::try_from(self.open_impressions()).unwrap_or(0)
    }

    /// Returns how many impressions are open.
    pub fn open_impressions(&self) -> u64 {
        self.shards.iter().map(Shard::open_impressions).sum()
    }

    /// Returns the user of the record that was taken last, with the user's name, if it was an event and not taken before.
    pub fn latest_user(&self) -> Option<(UserId, &str)> {
        Some((self.latest_user?, &self.latest_name))
    }

    /// Counts a record that was refused before it could be told where it belongs.
    pub fn reject(&mut self, rejection: &Rejection) {
        self.counts.reject(rejection.reason);
    }

    /// Returns what was counted of records.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns what was noticed of values and names since the start.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Returns the event time before which nothing is asked of the catalogue any more: the lowest watermark, of shards that are not idle.
    pub(super) fn horizon(&self) -> EventTime {
        self.covered().map_or(EventTime::MIN, |covered| covered - self.rules.lateness)
    }

    /// Returns what the joiners of all shards have counted together.
    pub fn join_counts(&self) -> JoinCounts {
        let mut sum = self.shards[0].joiner.counts().clone();
        for shard in &self.shards[1..] {
            sum.add(shard.joiner.counts());
        }
        sum
    }

    /// Measures from now on how long the stages take, by a sample of the records; results do not depend on it.
    pub fn watch(&mut self, clock: SteadyClock) {
        self.stages.watch(clock);
    }

    /// Returns how long the stages took since [`Pipeline::watch`].
    pub fn stages(&self) -> &Stages {
        &self.stages
    }

    /// Returns the rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Returns what makes examples.
    pub fn assembler(&self) -> &Assembler {
        &self.assembler
    }

    /// Returns what belongs to no shard.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Returns what belongs to no shard, and the shard of a partition, to fill a state directly.
    pub fn parts_mut(&mut self, partition: u32) -> (&mut Shared, &mut Shard) {
        let number = self.shard_number(partition);
        (&mut self.shared, &mut self.shards[number])
    }

    /// Returns the shards, by partition.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Returns a user's behaviours, in whatever shard they are.
    pub fn past(&self, user: UserId) -> UserHistory<'_> {
        let known = self.shards.iter().find(|shard| shard.sequences.knows(user));
        self.shared.past(known.unwrap_or(&self.shards[0]).sequences.of(user))
    }

    /// Returns what the caches of users have done, of all shards together.
    pub fn user_counts(&self) -> CacheCounts {
        let mut sum = CacheCounts::default();
        self.shards.iter().for_each(|shard| sum.add(shard.sequences.counts()));
        sum
    }

    /// Returns the features of items, for readers in other threads.
    pub fn item_features(&self) -> Arc<Catalogue> {
        Arc::clone(&self.shared.item_features)
    }

    fn shard_number(&self, partition: u32) -> usize {
        partition as usize % self.shards.len()
    }
}
