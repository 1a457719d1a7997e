//! One tower: what is known of a user or an item becomes a vector of length one.
//!
//! `h = max(x W1 + b1, 0)`, `z = h W2 + b2`, `y = z / max(|z|, ε)`
//!
//! Backward, with `dy` given: `dz = (dy - y <y, dy>) / |z|`, or `dy / ε`
//! where `|z| <= ε`; then `dW2 += hᵀ dz`, `dh = dz W2ᵀ` where `h > 0`, `dW1 += xᵀ dh`, `dx = dh W1ᵀ`.
//!
//! Shapes: `x` `[batch, inputs]`, `W1` `[inputs, hidden]`, `W2` `[hidden, width]`, `y` `[batch, width]`.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};
use rand::Rng;
use rand_distr::StandardNormal;

use crate::kernels::{Activation, Real};

/// Shorter vectors are divided by this instead of their length. Not tiny: the slope of a vector of
/// length zero (an input of which nothing is known, all of its ReLUs shut) is the inverse of this,
/// and one such row must not outweigh all others of a batch.
const SHORTEST: f64 = 0.1;

/// The parameters of a tower, or their gradients.
#[derive(Clone, Debug, PartialEq)]
pub struct Tower<R> {
    w1: Array2<R>,
    b1: Vec<R>,
    w2: Array2<R>,
    b2: Vec<R>,
}

/// What the backward pass needs of the forward pass; grows to the largest batch and stays.
#[derive(Clone, Debug)]
pub struct Pass<R> {
    hidden: Array2<R>,
    d_hidden: Array2<R>,
    lengths: Vec<R>,
}

impl<R: Real> Tower<R> {
    /// Creates a tower whose parameters are all zero.
    pub fn zeros(inputs: usize, hidden: usize, width: usize) -> Self {
        Self {
            w1: Array2::zeros((inputs, hidden)),
            b1: vec![R::zero(); hidden],
            w2: Array2::zeros((hidden, width)),
            b2: vec![R::zero(); width],
        }
    }

    /// Creates a tower with normal weights, of variance `2 / inputs` before the ReLU and
    /// `1 / hidden` after it; biases are zero.
    pub fn random(inputs: usize, hidden: usize, width: usize, random: &mut impl Rng) -> Self {
        let mut tower = Self::zeros(inputs, hidden, width);
        let mut draw = |w: &mut Array2<R>, gain: f64| {
            let scale = (gain / w.nrows().max(1) as f64).sqrt();
            w.mapv_inplace(|_| R::from_f64(scale * random.sample::<f64, _>(StandardNormal)));
        };
        draw(&mut tower.w1, 2.0);
        draw(&mut tower.w2, 1.0);
        tower
    }

    /// Returns the width of the input.
    pub fn inputs(&self) -> usize {
        self.w1.nrows()
    }

    /// Returns the width of the vectors.
    pub fn width(&self) -> usize {
        self.w2.ncols()
    }

    /// Creates the memory of a pass, still without rows.
    pub fn pass(&self) -> Pass<R> {
        let empty = Array2::zeros((0, self.w1.ncols()));
        Pass { hidden: empty.clone(), d_hidden: empty, lengths: Vec::new() }
    }

    /// Writes the vectors of the inputs `x` into `y`.
    ///
    /// # Panics
    /// When the shapes do not fit.
    pub fn forward(&self, x: ArrayView2<R>, pass: &mut Pass<R>, mut y: ArrayViewMut2<R>) {
        let rows = x.nrows();
        pass.reserve(rows);
        let mut hidden = pass.hidden.slice_mut(s![..rows, ..]);
        R::matmul(x, self.w1.view(), Some(&self.b1), Activation::Relu, hidden.view_mut());
        let (w2, b2) = (self.w2.view(), Some(&self.b2[..]));
        R::matmul(hidden.view(), w2, b2, Activation::None, y.view_mut());
        pass.lengths.clear();
        for mut row in y.rows_mut() {
            let length = row.iter().map(|&z| z * z).sum::<R>().sqrt();
            let divisor = length.max(R::from_f64(SHORTEST));
            row.mapv_inplace(|z| z / divisor);
            pass.lengths.push(length);
        }
    }

    /// Given the inputs and outputs of the forward pass and `dy`, adds to the gradients of the
    /// parameters and overwrites `dx`; `dy` becomes `dz`.
    ///
    /// # Panics
    /// When the shapes do not fit or `pass` is not that of the forward pass.
    pub fn backward(
        &self,
        x: ArrayView2<R>,
        y: ArrayView2<R>,
        mut dy: ArrayViewMut2<R>,
        pass: &mut Pass<R>,
        grads: &mut Self,
        dx: ArrayViewMut2<R>,
    ) {
        let rows = x.nrows();
        assert_eq!(pass.lengths.len(), rows, "rows of the forward pass, and of x");
        let shortest = R::from_f64(SHORTEST);
        for ((mut dy, y), &length) in dy.rows_mut().into_iter().zip(y.rows()).zip(&pass.lengths) {
            let along = if length > shortest {
                y.iter().zip(&dy).map(|(&y, &dy)| y * dy).sum()
            } else {
                R::zero()
            };
            let divisor = length.max(shortest);
            dy.zip_mut_with(&y, |dy, &y| *dy = (*dy - y * along) / divisor);
        }
        let hidden = pass.hidden.slice(s![..rows, ..]);
        let mut d_hidden = pass.d_hidden.slice_mut(s![..rows, ..]);
        R::matmul_tn(hidden, dy.view(), true, grads.w2.view_mut());
        R::column_sums_add(dy.view(), &mut grads.b2);
        R::matmul_nt(dy.view(), self.w2.view(), false, d_hidden.view_mut());
        d_hidden.zip_mut_with(&hidden, |d, &h| {
            if h <= R::zero() {
                *d = R::zero();
            }
        });
        R::matmul_tn(x, d_hidden.view(), true, grads.w1.view_mut());
        R::column_sums_add(d_hidden.view(), &mut grads.b1);
        R::matmul_nt(d_hidden.view(), self.w1.view(), false, dx);
    }

    /// Returns the parameter blocks in the order `w1, b1, w2, b2`.
    pub(super) fn blocks(&mut self) -> [&mut [R]; 4] {
        let contiguous = "weights are made contiguous and never reshaped";
        [
            self.w1.as_slice_mut().expect(contiguous),
            &mut self.b1,
            self.w2.as_slice_mut().expect(contiguous),
            &mut self.b2,
        ]
    }
}

impl<R: Real> Pass<R> {
    fn reserve(&mut self, rows: usize) {
        if self.hidden.nrows() < rows {
            let shape = (rows, self.hidden.ncols());
            self.hidden = Array2::zeros(shape);
            self.d_hidden = Array2::zeros(shape);
        }
    }
}
