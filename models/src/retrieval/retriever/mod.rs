//! The retrieval model as it runs: positives come in with the stream, towers and rows follow.
//!
//! ```text
//! batch --positives of the task--> pending --every `batch` of them--> step
//! step: rows -> inputs -> two towers -> softmax over the pending items, each corrected by its ln q
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
    /// Embedding rows.
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
    ids: Vec<u64>,
    frequencies: Vec<f32>,
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
            pending: Pending {
                users: Facts::new(&columns.user),
                items: Facts::new(&columns.item),
                pairs: Vec::new(),
            },
            columns: Arc::new(columns),
            rows: Arc::new(rows),
            work: StepWork::new(&model),
            model: Arc::new(model),
            now: EventTime::MIN,
            refused: 0,
            marks: Marks::default(),
            spec,
        }
    }

    /// Takes the positives of a batch of examples and does a step whenever enough of them wait.
    /// Returns the mean loss of the steps, or nothing when there was none.
    ///
    /// # Panics
    /// When the batch is of another schema.
    pub fn learn(&mut self, batch: &Batch) -> Option<f64> {
        let tasks = self.tasks;
        let (mut losses, mut steps) = (0.0, 0);
        for (example, about) in batch.about.iter().enumerate() {
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
            for &(user, item) in &self.pending.pairs {
                self.marks.user(user);
                self.marks.item(item);
            }
        } else {
            self.refused += 1;
        }
        self.pending.clear();
        finite.then(|| f64::from(loss))
    }

    /// Computes the loss of all positives that wait, and leaves the gradients in `self.work`.
    fn gradients(&mut self) -> f32 {
        let Self { work, pending, columns, .. } = self;
        let (users, items) = (&pending.users, &pending.items);
        work.ids.clear();
        work.ids.extend(pending.pairs.iter().map(|&(_, item)| item.0));
        self.log_q.observe(&work.ids);
        work.frequencies.clear();
        work.frequencies.extend(work.ids.iter().map(|&id| self.log_q.log_q(id) as f32));
        work.weights.resize(work.ids.len(), 1.0);

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
            log_q: &work.frequencies,
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
        RetrieverStats {
            steps: self.adam.steps(),
            refused: self.refused,
            pending: self.pending.pairs.len(),
            rows: self.rows.stats(),
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
    fn new(model: &TwoTower<f32>) -> Self {
        Self {
            inputs: Inputs::default(),
            users: Grid::default(),
            items: Grid::default(),
            d_users: Grid::default(),
            d_items: Grid::default(),
            ids: Vec::new(),
            frequencies: Vec::new(),
            weights: Vec::new(),
            pass: model.workspace(),
            grads: TwoTower::zeros(model.shape()),
            gradient: Vec::new(),
        }
    }
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
