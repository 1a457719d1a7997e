//! What readers hold: towers that stay as they were, over rows that go on being learned.

use std::sync::Arc;

use sluice_features::example::Batch;
use sluice_features::ids::{ItemId, UserId, salted_key};
use sluice_features::time::Span;

use super::columns::{Columns, Facts, Side};
use super::inputs::Inputs;
use crate::layers::Grid;
use crate::params::view_mut;
use crate::retrieval::{TwoTower, Workspace};
use crate::table::RowStore;

/// The retrieval model at one step, for encoding users and items. Cheap to clone; the towers are a
/// snapshot, the rows are those of the learner, read under short locks.
///
/// Vectors of users and items belong together only when they come from towers of one
/// [`version`](Self::version).
#[derive(Clone, Debug)]
pub struct Towers {
    pub(super) model: Arc<TwoTower<f32>>,
    pub(super) rows: Arc<RowStore>,
    pub(super) columns: Arc<Columns>,
    pub(super) version: u64,
}

/// The memory of encoding; one for each thread, used again and again.
#[derive(Clone, Debug)]
pub struct VectorWork {
    user: Facts,
    item: Facts,
    inputs: Inputs,
    x: Grid<f32>,
    pass: Workspace<f32>,
}

impl Towers {
    /// Returns the number of steps after which the towers were taken.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns the width of the vectors.
    pub fn width(&self) -> usize {
        self.model.shape().width
    }

    /// Tells whether an item has lost its own row, or never had one; false where items have none by the schema.
    pub fn lacks_item(&self, item: ItemId) -> bool {
        let key = self.columns.item_id.map(|salt| salted_key(salt, item.0));
        key.is_some_and(|key| !self.rows.contains(key))
    }

    /// Tells the same of a user.
    pub fn lacks_user(&self, user: UserId) -> bool {
        let key = self.columns.user_id.map(|salt| salted_key(salt, user.0));
        key.is_some_and(|key| !self.rows.contains(key))
    }

    /// Returns for how long a row is kept without being used; for ever when absent.
    pub fn expiry(&self) -> Option<Span> {
        self.rows.config().expiry
    }

    /// Creates the memory of encoding, for all versions of this model.
    pub fn work(&self) -> VectorWork {
        VectorWork {
            user: Facts::new(&self.columns.user),
            item: Facts::new(&self.columns.item),
            inputs: Inputs::default(),
            x: Grid::default(),
            pass: self.model.workspace(),
        }
    }

    /// Overwrites `out` by the vectors of the examples' users, `[size, width]`, of length one. Only
    /// the columns of the user side and the newest behaviours are read. An id without a row counts as
    /// zeros; a vector may be shorter than one where next to nothing is known.
    ///
    /// # Panics
    /// When the batch is of another schema.
    pub fn users(&self, batch: &Batch, work: &mut VectorWork, out: &mut Vec<f32>) {
        self.encode(Side::User, batch, work, out);
    }

    /// Overwrites `out` by the vectors of the examples' items, `[size, width]`, as [`Self::users`]
    /// does. Only the columns of the item side are read.
    ///
    /// # Panics
    /// When the batch is of another schema.
    pub fn items(&self, batch: &Batch, work: &mut VectorWork, out: &mut Vec<f32>) {
        self.encode(Side::Item, batch, work, out);
    }

    fn encode(&self, side: Side, batch: &Batch, work: &mut VectorWork, out: &mut Vec<f32>) {
        let (columns, facts) = match side {
            Side::User => (&self.columns.user, &mut work.user),
            Side::Item => (&self.columns.item, &mut work.item),
        };
        facts.clear();
        (0..batch.size()).for_each(|example| facts.push(columns, batch, example));
        let range = work.inputs.read(&self.rows, facts);
        work.inputs.write(columns, facts, range, &mut work.x);
        out.resize(batch.size() * self.width(), 0.0);
        let vectors = view_mut(out, batch.size(), self.width());
        match side {
            Side::User => self.model.users(work.x.view(), &mut work.pass, vectors),
            Side::Item => self.model.items(work.x.view(), &mut work.pass, vectors),
        }
    }
}
