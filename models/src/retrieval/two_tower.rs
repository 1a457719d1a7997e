//! The two-tower model (Yi et al. 2019): a user and an item are near when the one
//! takes the other.
//!
//! ```text
//! fields, numbers, mean of the newest history          fields, numbers
//!          user tower -> u, |u| = 1                 v, |v| = 1 <- item tower
//!                           score = <u, v> / temperature
//! ```
//! Learned by the softmax over the items of the batch and further ones that were drawn evenly (mixed negative sampling, Yang et al. 2020),
//! each corrected by the logarithm of how often it is expected among them ([`sampled_softmax`]). Item vectors are what the [`Index`](super::Index) searches, and what is
//! published as embeddings. The rows of the embedding tables are outside: the gradients of the
//! towers' inputs are handed back.
//!
//! Shapes: users `[B, user]`, items `[C, item]`, `C >= B`, vectors `[B or C, width]`, scores `[B, C]`.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::tower::{Pass, Tower};
use crate::kernels::{Activation, Real};
use crate::losses::sampled_softmax::sampled_softmax;

/// The widths of the two towers and the temperature of their scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// The width of a user's input.
    pub user: usize,
    /// The width of an item's input.
    pub item: usize,
    /// The width of the hidden layers.
    pub hidden: usize,
    /// The width of the vectors.
    pub width: usize,
    /// What inner products are divided by, above 0.
    pub temperature: f64,
}

impl Shape {
    /// Returns towers of 128 and 64 units with a temperature of 0.07 over inputs of these widths.
    pub fn of(user: usize, item: usize) -> Self {
        Self { user, item, hidden: 128, width: 64, temperature: 0.07 }
    }
}

/// The parameters of both towers, or their gradients.
#[derive(Clone, Debug, PartialEq)]
pub struct TwoTower<R> {
    shape: Shape,
    user: Tower<R>,
    item: Tower<R>,
}

/// Users and the items that they took, one pair a row, and items behind them that are negatives only.
#[derive(Clone, Copy, Debug)]
pub struct Pairs<'a, R> {
    /// The users' inputs, `[B, user]`.
    pub users: ArrayView2<'a, R>,
    /// The items' inputs, `[C, item]`.
    pub items: ArrayView2<'a, R>,
    /// Which items they are, `[C]`: the same item in another row is no negative.
    pub ids: &'a [u64],
    /// The logarithms of how often the items are expected among all ([`LogQ`](super::LogQ)), up to a constant, `[C]`.
    pub log_q: &'a [R],
    /// How much a pair counts, `[B]`.
    pub weights: &'a [R],
}

/// The memory of a step; grows to the largest batch and stays.
#[derive(Clone, Debug)]
pub struct Workspace<R> {
    user: Side<R>,
    item: Side<R>,
    scores: Array2<R>,
}

#[derive(Clone, Debug)]
struct Side<R> {
    pass: Pass<R>,
    vectors: Array2<R>,
    d_vectors: Array2<R>,
}

impl<R: Real> TwoTower<R> {
    /// Creates a model whose parameters are all zero: what gradients start from.
    pub fn zeros(shape: Shape) -> Self {
        Self {
            shape,
            user: Tower::zeros(shape.user, shape.hidden, shape.width),
            item: Tower::zeros(shape.item, shape.hidden, shape.width),
        }
    }

    /// Creates a model with random weights, the user tower's drawn first.
    pub fn random(shape: Shape, random: &mut impl Rng) -> Self {
        let user = Tower::random(shape.user, shape.hidden, shape.width, random);
        let item = Tower::random(shape.item, shape.hidden, shape.width, random);
        Self { shape, user, item }
    }

    /// Returns the shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Creates the memory of a step, still without rows.
    pub fn workspace(&self) -> Workspace<R> {
        let side = |tower: &Tower<R>| {
            let empty = Array2::zeros((0, self.shape.width));
            Side { pass: tower.pass(), vectors: empty.clone(), d_vectors: empty }
        };
        let (user, item) = (side(&self.user), side(&self.item));
        Workspace { user, item, scores: Array2::zeros((0, 0)) }
    }

    /// Writes the vectors of users into `vectors`.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn users(&self, inputs: ArrayView2<R>, work: &mut Workspace<R>, vectors: ArrayViewMut2<R>) {
        self.user.forward(inputs, &mut work.user.pass, vectors);
    }

    /// Writes the vectors of items into `vectors`.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn items(&self, inputs: ArrayView2<R>, work: &mut Workspace<R>, vectors: ArrayViewMut2<R>) {
        self.item.forward(inputs, &mut work.item.pass, vectors);
    }

    /// Returns the loss of the pairs, adds to the gradients of the parameters, and overwrites
    /// those of the inputs.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn gradients(
        &self,
        pairs: &Pairs<R>,
        work: &mut Workspace<R>,
        grads: &mut Self,
        d_users: ArrayViewMut2<R>,
        d_items: ArrayViewMut2<R>,
    ) -> R {
        let (rows, columns) = (pairs.users.nrows(), pairs.items.nrows());
        work.reserve(rows, columns);
        let Workspace { user, item, scores } = work;
        let mut u = user.vectors.slice_mut(s![..rows, ..]);
        let mut v = item.vectors.slice_mut(s![..columns, ..]);
        self.user.forward(pairs.users, &mut user.pass, u.view_mut());
        self.item.forward(pairs.items, &mut item.pass, v.view_mut());

        let sharpness = R::from_f64(1.0 / self.shape.temperature);
        let mut scores = scores.slice_mut(s![..rows, ..columns]);
        R::matmul_nt(u.view(), v.view(), false, scores.view_mut());
        scores.mapv_inplace(|product| product * sharpness);
        let loss = sampled_softmax(scores.view_mut(), pairs.ids, pairs.log_q, pairs.weights);
        scores.mapv_inplace(|slope| slope * sharpness);

        let mut du = user.d_vectors.slice_mut(s![..rows, ..]);
        let mut dv = item.d_vectors.slice_mut(s![..columns, ..]);
        R::matmul(scores.view(), v.view(), None, Activation::None, du.view_mut());
        dv.fill(R::zero());
        R::matmul_tn(scores.view(), u.view(), true, dv.view_mut());
        self.user.backward(pairs.users, u.view(), du, &mut user.pass, &mut grads.user, d_users);
        self.item.backward(pairs.items, v.view(), dv, &mut item.pass, &mut grads.item, d_items);
        loss
    }

    /// Shows every parameter block under its name, always in the same order.
    pub fn visit(&mut self, visit: &mut dyn FnMut(&'static str, &mut [R])) {
        const USER: [&str; 4] =
            ["two_tower.user.w1", "two_tower.user.b1", "two_tower.user.w2", "two_tower.user.b2"];
        const ITEM: [&str; 4] =
            ["two_tower.item.w1", "two_tower.item.b1", "two_tower.item.w2", "two_tower.item.b2"];
        for (names, tower) in [(USER, &mut self.user), (ITEM, &mut self.item)] {
            for (name, block) in names.into_iter().zip(tower.blocks()) {
                visit(name, block);
            }
        }
    }
}

impl<R: Real> Workspace<R> {
    fn reserve(&mut self, rows: usize, columns: usize) {
        let (most_rows, most_columns) = self.scores.dim();
        if rows > most_rows || columns > most_columns {
            self.scores = Array2::zeros((rows.max(most_rows), columns.max(most_columns)));
        }
        for (side, count) in [(&mut self.user, rows), (&mut self.item, columns)] {
            if side.vectors.nrows() < count {
                let shape = (count, side.vectors.ncols());
                side.vectors = Array2::zeros(shape);
                side.d_vectors = Array2::zeros(shape);
            }
        }
    }
}

#[cfg(test)]
mod tests;
