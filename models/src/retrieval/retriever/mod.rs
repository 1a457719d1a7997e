//! The retrieval model as it runs: positives come in with the stream, towers and rows follow.
//!
//! ```text
//! batch --positives of the task--> pending --every `batch` of them--> step
//!       --items that are offered--> an even sample of them
//! step: rows -> inputs -> two towers -> softmax over the pending items and some drawn from that
//!       sample, each corrected by how often it is expected among them
//!       gradients: Adam on the towers, row-wise Adagrad on the rows, summed by id before the update
//! towers(): a snapshot that encodes users and items while learning goes on
//! ```
//!
//! The model has embedding rows of its own, all of one width, under the keys of the schema's tables.
//! Steps are cut by the number of positives alone, so the size of the batches that bring them does not
//! matter.

mod columns;
mod image;
mod inputs;
mod offered;
mod spec;
mod touched;
mod towers;

#[cfg(test)]
mod tests;

pub use image::{RetrieverError, RetrieverImage};
pub use spec::RetrieverSpec;
pub use touched::Touched;
pub use towers::{Towers, VectorWork};

use std::sync::Arc;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sluice_features::example::{Batch, LabelMode};
use sluice_features::ids::{ItemId, UserId, salted_hash, unsalted};
use sluice_features::schema::Schema;
use sluice_features::time::EventTime;

use self::columns::{Columns, Facts};
use self::inputs::Inputs;
use self::offered::Offered;
use self::touched::Marks;
use super::{LogQ, Pairs, Shape, TwoTower, Workspace};
use crate::kernels::AdagradStep;
use crate::layers::Grid;
use crate::optimizers::{Adam, square_norm};
use crate::table::{RowStore, RowStoreConfig, RowStoreStats};

/// Keeps row-wise Adagrad's quotient finite.
const ROW_EPSILON: f32 = 1e-10;

/// The retrieval model with its optimisers and the positives that wait for a step.
#[derive(Debug)]
pub struct Retriever {
    spec: RetrieverSpec,
    fingerprint: u64,
    seed: u64,
    tasks: usize,
    columns: Arc<Columns>,
    rows: Arc<RowStore>,
    model: Arc<TwoTower<f32>>,
    /// The model's parameters end to end.
    parameters: Vec<f32>,
    adam: Adam<f32>,
    log_q: LogQ,
    offered: Offered,
    pending: Pending,
    /// The newest positive's time.
    now: EventTime,
    refused: u64,
    marks: Marks,
    work: StepWork,
}

/// What the retriever has done and holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetrieverStats {
    /// Steps done.
    pub steps: u64,
    /// Steps refused because the loss or a gradient was not finite; their positives are dropped.
    pub refused: u64,
    /// Positives that wait for a step.
    pub pending: usize,
    /// Offered items that are drawn from.
    pub offered: usize,
    /// Embedding rows; their bytes with those of the frequencies of items.
    pub rows: RowStoreStats,
}

/// Positives that wait, by columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pending {
    users: Facts,
    items: Facts,
    pairs: Vec<(UserId, ItemId)>,
}

/// The memory of a step.
#[derive(Clone, Debug)]
struct StepWork {
    inputs: Inputs,
    users: Grid<f32>,
    items: Grid<f32>,
    d_users: Grid<f32>,
    d_items: Grid<f32>,
    /// An item's facts in words, and those of all items of the step: of the positives, then of the drawn ones.
    packed: Vec<u64>,
    facts: Facts,
    ids: Vec<u64>,
    counts: Vec<f32>,
    weights: Vec<f32>,
    pass: Workspace<f32>,
    grads: TwoTower<f32>,
    /// The gradients of the model's parameters end to end.
    gradient: Vec<f32>,
}

impl Retriever {
    /// Creates a model that has learned nothing; `seed` decides all first parameters.
    pub fn new(spec: RetrieverSpec, schema: &Schema, seed: u64) -> Self {
        let columns = Columns::new(schema, spec.history);
        let shape = Shape {
            user: columns.user.width(spec.row_width),
            item: columns.item.width(spec.row_width),
            hidden: spec.hidden,
            width: spec.width,
            temperature: spec.temperature,
        };
        let mut random = ChaCha8Rng::seed_from_u64(salted_hash(seed, b"retrieval.towers"));
        let mut model = TwoTower::random(shape, &mut random);
        let mut parameters = Vec::new();
        flatten(&mut model, &mut parameters);
        let rows = RowStore::new(RowStoreConfig {
            width: spec.row_width,
            seed: salted_hash(seed, b"retrieval.rows"),
            initial_scale: spec.row_deviation as f32,
            admission: spec.admission,
            max_rows: spec.max_rows,
            expiry: spec.expiry,
            step: AdagradStep { rate: spec.row_rate as f32, eps: ROW_EPSILON },
        });
        Self {
            fingerprint: spec.fingerprint(schema),
            seed,
            tasks: schema.tasks,
            adam: Adam::new(spec.dense_rate, parameters.len()),
            parameters,
            log_q: LogQ::new(spec.frequency_rate, spec.max_rows),
            offered: Offered::new(offered_seed(seed)),
            pending: Pending {
                users: Facts::new(&columns.user),
                items: Facts::new(&columns.item),
                pairs: Vec::new(),
            },
            work: StepWork::new(&model, &columns),
            columns: Arc::new(columns),
            rows: Arc::new(rows),
            model: Arc::new(model),
            now: EventTime::MIN,
            refused: 0,
            marks: Marks::default(),
            spec,
        }
    }

    /// Takes the positives and the offered items of a batch of examples, and does a step whenever enough positives wait.
    /// Returns the mean loss of the steps, or nothing when there was none.
    ///
    /// # Panics
    /// When the batch is of another schema.
    pub fn learn(&mut self, batch: &Batch) -> Option<f64> {
        let tasks = self.tasks;
        let (mut losses, mut steps) = (0.0, 0);
        for (example, about) in batch.about.iter().enumerate() {
            self.offer(batch, example);
            let positive = |task: usize| {
                let place = example * tasks + task;
                let counts =
                    matches!(batch.modes[place], LabelMode::Final | LabelMode::FnwPositive);
                counts && batch.labels[place] > 0.5
            };
            if (0..tasks).any(positive) {
                self.marks.user(about.user);
            }
            if !positive(self.spec.task) {
                continue;
            }
            self.now = self.now.max(about.time);
            self.pending.users.push(&self.columns.user, batch, example);
            self.pending.items.push(&self.columns.item, batch, example);
            self.pending.pairs.push((about.user, about.item));
            let enough = self.pending.pairs.len() >= self.spec.batch;
            if let Some(loss) = enough.then(|| self.step()).flatten() {
                losses += loss;
                steps += 1;
            }
        }
        (steps > 0).then(|| losses / f64::from(steps))
    }

    /// Enters the item of an example among those that are drawn from, or takes it out.
    fn offer(&mut self, batch: &Batch, example: usize) {
        let about = &batch.about[example];
        if self.spec.uniform == 0 {
            return;
        }
        if about.offered {
            // One number that is none would spoil every step that draws it.
            if self.columns.item.pack(batch, example, &mut self.work.packed) {
                self.offered.see(about.item, about.time, &self.work.packed);
            }
        } else {
            self.offered.withdraw(about.item);
        }
    }

    /// Learns from all positives that wait. Returns the loss, or nothing when it was refused.
    fn step(&mut self) -> Option<f64> {
        let loss = self.gradients();
        let finite = loss.is_finite()
            && square_norm(&self.work.gradient).is_finite()
            && square_norm(self.work.inputs.sum()).is_finite();
        if finite {
            self.adam.step(&mut self.parameters, &self.work.gradient);
            unflatten(Arc::make_mut(&mut self.model), &self.parameters);
            self.work.inputs.apply(&self.rows);
            self.pending.pairs.iter().for_each(|&(user, _)| self.marks.user(user));
            self.work.ids.iter().for_each(|&item| self.marks.item(ItemId(item)));
        } else {
            self.refused += 1;
        }
        self.pending.clear();
        finite.then(|| f64::from(loss))
    }

    /// Gathers the items of a step: those of all positives that wait, and some drawn evenly. With `B` positives and `M` drawn from `n` items,
    /// item `j` is expected `B q_j + M / n` times among them, the latter where it may be drawn.
    fn gather_items(&mut self) {
        let Self { work, pending, columns, offered, .. } = self;
        work.ids.clear();
        work.ids.extend(pending.pairs.iter().map(|&(_, item)| item.0));
        self.log_q.observe(&work.ids);
        work.weights.resize(work.ids.len(), 1.0);
        work.facts.copy_from(&pending.items);
        let steps = self.adam.steps() + self.refused;
        let seed = salted_hash(self.seed, b"retrieval.uniform");
        let mut random = ChaCha8Rng::seed_from_u64(salted_hash(seed, &steps.to_le_bytes()));
        let positives = work.ids.len();
        let (ids, facts) = (&mut work.ids, &mut work.facts);
        offered.draw(self.spec.uniform, self.now, self.spec.expiry, &mut random, |item, packed| {
            ids.push(item.0);
            facts.push_packed(&columns.item, packed);
        });
        let each = (work.ids.len() - positives) as f64 / offered.len().max(1) as f64;
        work.counts.clear();
        work.counts.extend(work.ids.iter().map(|&id| {
            let drawn = if offered.has(ItemId(id)) { each } else { 0.0 };
            self.log_q.log_count(id, positives as f64, drawn) as f32
        }));
    }

    /// Computes the loss of all positives that wait, and leaves the gradients in `self.work`.
    fn gradients(&mut self) -> f32 {
        self.gather_items();
        let Self { work, pending, columns, .. } = self;
        let (users, items) = (&pending.users, &work.facts);
        let [user_rows, item_rows] = work.inputs.learn(&self.rows, self.now, [users, items]);
        work.inputs.write(&columns.user, users, user_rows.clone(), &mut work.users);
        work.inputs.write(&columns.item, items, item_rows.clone(), &mut work.items);
        work.grads.visit(&mut |_, block| block.fill(0.0));
        work.d_users.reshape(work.users.rows(), work.users.columns());
        work.d_items.reshape(work.items.rows(), work.items.columns());
        let pairs = Pairs {
            users: work.users.view(),
            items: work.items.view(),
            ids: &work.ids,
            log_q: &work.counts,
            weights: &work.weights,
        };
        let (d_users, d_items) = (work.d_users.view_mut(), work.d_items.view_mut());
        let loss = self.model.gradients(&pairs, &mut work.pass, &mut work.grads, d_users, d_items);
        flatten(&mut work.grads, &mut work.gradient);
        work.inputs.start_gradients();
        work.inputs.take(&columns.user, users, user_rows, &work.d_users);
        work.inputs.take(&columns.item, items, item_rows, &work.d_items);
        loss
    }

    /// Returns the towers as they are now, for readers.
    pub fn towers(&self) -> Towers {
        Towers {
            model: Arc::clone(&self.model),
            rows: Arc::clone(&self.rows),
            columns: Arc::clone(&self.columns),
            version: self.adam.steps(),
        }
    }

    /// Returns the users whose behaviours or rows and the items whose rows have changed since the last
    /// call. A step moves all vectors a little; these are the ones that it was about.
    pub fn touched(&mut self) -> Touched {
        self.marks.drain()
    }

    /// Removes rows that were not used for the configured span before `now`, some at each call; see
    /// [`RowStore::sweep`]. Users and items whose rows go are touched.
    pub fn sweep(&mut self, now: EventTime) {
        let Self { rows, marks, columns, .. } = self;
        rows.sweep(now, |key| {
            // A key tells its id, not its table: in all others it is the id of nobody and nothing.
            if let Some(salt) = columns.user_id {
                marks.user(UserId(unsalted(salt, key)));
            }
            if let Some(salt) = columns.item_id {
                marks.item(ItemId(unsalted(salt, key)));
            }
        });
    }

    /// Returns what was done so far.
    pub fn stats(&self) -> RetrieverStats {
        let mut rows = self.rows.stats();
        rows.bytes += self.log_q.memory();
        RetrieverStats {
            steps: self.adam.steps(),
            refused: self.refused,
            pending: self.pending.pairs.len(),
            offered: self.offered.len(),
            rows,
        }
    }
}

impl Pending {
    fn clear(&mut self) {
        self.users.clear();
        self.items.clear();
        self.pairs.clear();
    }
}

impl StepWork {
    fn new(model: &TwoTower<f32>, columns: &Columns) -> Self {
        Self {
            inputs: Inputs::default(),
            users: Grid::default(),
            items: Grid::default(),
            d_users: Grid::default(),
            d_items: Grid::default(),
            packed: Vec::new(),
            facts: Facts::new(&columns.item),
            ids: Vec::new(),
            counts: Vec::new(),
            weights: Vec::new(),
            pass: model.workspace(),
            grads: TwoTower::zeros(model.shape()),
            gradient: Vec::new(),
        }
    }
}

/// Decides which offered items are kept where there are too many.
fn offered_seed(seed: u64) -> u64 {
    salted_hash(seed, b"retrieval.offered")
}

/// Writes all parameters end to end.
fn flatten(model: &mut TwoTower<f32>, flat: &mut Vec<f32>) {
    flat.clear();
    model.visit(&mut |_, block| flat.extend_from_slice(block));
}

/// Takes all parameters from where they stand end to end.
fn unflatten(model: &mut TwoTower<f32>, mut flat: &[f32]) {
    model.visit(&mut |_, block| {
        let (head, tail) = flat.split_at(block.len());
        block.copy_from_slice(head);
        flat = tail;
    });
}
