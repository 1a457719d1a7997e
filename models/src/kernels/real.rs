//! The number type of a layer: `f32` when it runs, `f64` when its gradients are tested.
//!
//! Shape letters: `x` `[m, k]` inputs, `w` `[k, n]` weights, `y` `[m, n]` outputs, `dx`, `dw`, `dy`
//! their gradients. Every matrix has contiguous rows; the distance between rows is free.

use std::fmt::{Debug, Display};
use std::iter::Sum;
use std::ops::{AddAssign, DivAssign, MulAssign, Neg, SubAssign};

use ndarray::{ArrayView2, ArrayViewMut2, LinalgScalar};

use super::matrix::{Matrix, MatrixMut};
use super::path::Proof;
use super::{exponential, optimizer, plain, product, vector};

/// What is applied to each output of a product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// `z`
    #[default]
    None,
    /// `max(z, 0)`
    Relu,
    /// `1 / (1 + e⁻ᶻ)`
    Sigmoid,
    /// `z / (1 + e⁻ᶻ)`
    Silu,
}

impl Activation {
    /// Applies the function to one number. NaN stays NaN.
    pub fn apply<R: Real>(self, z: R) -> R {
        match self {
            Self::None => z,
            Self::Relu if z < R::zero() => R::zero(),
            Self::Relu => z,
            Self::Sigmoid => z.sigmoid(),
            Self::Silu => z * z.sigmoid(),
        }
    }
}

/// The constants of one Adam step: `m = β₁ m + (1 - β₁) g`, `v = β₂ v + (1 - β₂) g²`,
/// `p -= rate (m / c₁) / (sqrt(v / c₂) + ε)` (Kingma and Ba 2015, algorithm 1). In `f32`, what is far too small to matter against an `ε` of 10⁻⁸ is
/// flushed to zero, so that no moment becomes subnormal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep<R> {
    /// The learning rate.
    pub rate: R,
    /// The decay of the mean gradient.
    pub beta1: R,
    /// The decay of the mean squared gradient.
    pub beta2: R,
    /// Keeps the quotient finite.
    pub eps: R,
    /// The bias correction `c₁ = 1 - β₁ᵗ` of step `t`, counted from 1.
    pub correction1: R,
    /// The bias correction `c₂ = 1 - β₂ᵗ`.
    pub correction2: R,
}

/// A floating-point number with the products that layers are made of.
///
/// # Panics
/// Every product panics when shapes do not fit or when a row is not contiguous.
pub trait Real:
    LinalgScalar
    + Default
    + Debug
    + Display
    + Send
    + Sync
    + PartialOrd
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + Sum
{
    /// Rounds to this precision.
    fn from_f64(value: f64) -> Self;
    /// The same number in double precision.
    fn to_f64(self) -> f64;
    /// `eᶻ`
    fn exp(self) -> Self;
    /// The natural logarithm.
    fn ln(self) -> Self;
    /// `ln(1 + z)`, exact near zero.
    fn ln_1p(self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// The hyperbolic tangent.
    fn tanh(self) -> Self;
    /// The larger of two; a NaN loses.
    fn max(self, other: Self) -> Self;
    /// The smaller of two; a NaN loses.
    fn min(self, other: Self) -> Self;
    /// The magnitude.
    fn abs(self) -> Self;
    /// Whether it is neither infinite nor NaN.
    fn is_finite(self) -> bool;

    /// `1 / (1 + e⁻ᶻ)`: 0 and 1 at the infinities.
    fn sigmoid(self) -> Self {
        Self::one() / (Self::one() + (-self).exp())
    }

    /// `ln(1 + eᶻ)` without overflow; minus its negative is the log of a sigmoid.
    fn softplus(self) -> Self {
        self.max(Self::zero()) + (-self.abs()).exp().ln_1p()
    }

    /// `y = act(x w + bias)`; `bias` has `n` numbers.
    fn matmul(
        x: ArrayView2<Self>,
        w: ArrayView2<Self>,
        bias: Option<&[Self]>,
        act: Activation,
        y: ArrayViewMut2<Self>,
    ) {
        check_product([x.dim(), w.dim(), y.dim()]);
        assert!(bias.is_none_or(|b| b.len() == y.ncols()), "bias does not fit y {:?}", y.dim());
        plain::matmul(x, w, bias, act, y);
    }

    /// `y += x w`
    fn matmul_add(x: ArrayView2<Self>, w: ArrayView2<Self>, y: ArrayViewMut2<Self>) {
        check_product([x.dim(), w.dim(), y.dim()]);
        plain::matmul_add(x, w, y);
    }

    /// `y = act(y + x w)`
    fn matmul_onto(
        x: ArrayView2<Self>,
        w: ArrayView2<Self>,
        act: Activation,
        mut y: ArrayViewMut2<Self>,
    ) {
        Self::matmul_add(x, w, y.view_mut());
        y.iter_mut().for_each(|y| *y = act.apply(*y));
    }

    /// `dw = xᵀ dy`, or `dw += xᵀ dy` when `add`.
    fn matmul_tn(x: ArrayView2<Self>, dy: ArrayView2<Self>, add: bool, dw: ArrayViewMut2<Self>) {
        check_product([x.dim(), dw.dim(), dy.dim()]);
        plain::matmul_tn(x, dy, add, dw);
    }

    /// `dx = dy wᵀ`, or `dx += dy wᵀ` when `add`.
    fn matmul_nt(dy: ArrayView2<Self>, w: ArrayView2<Self>, add: bool, dx: ArrayViewMut2<Self>) {
        check_product([dx.dim(), w.dim(), dy.dim()]);
        plain::matmul_nt(dy, w, add, dx);
    }

    /// `out[j] += Σ_i dy[i, j]`: the gradient of a bias.
    fn column_sums_add(dy: ArrayView2<Self>, out: &mut [Self]) {
        assert_eq!(dy.ncols(), out.len(), "columns of dy, and sums");
        plain::column_sums_add(dy, out);
    }

    /// `Σ a[i] b[i]`
    fn dot(a: &[Self], b: &[Self]) -> Self {
        assert_eq!(a.len(), b.len(), "lengths of a and b");
        plain::dot(a, b)
    }

    /// `y += alpha x`
    fn axpy(alpha: Self, x: &[Self], y: &mut [Self]) {
        assert_eq!(x.len(), y.len(), "lengths of x and y");
        plain::axpy(alpha, x, y);
    }

    /// `z = eᶻ` for each.
    fn exp_in_place(z: &mut [Self]) {
        z.iter_mut().for_each(|z| *z = z.exp());
    }

    /// `z = 1 / (1 + e⁻ᶻ)` for each.
    fn sigmoid_in_place(z: &mut [Self]) {
        z.iter_mut().for_each(|z| *z = z.sigmoid());
    }

    /// One step of Adam on a block of parameters, with its moments `m` and `v`.
    fn adam(
        parameter: &mut [Self],
        gradient: &[Self],
        m: &mut [Self],
        v: &mut [Self],
        step: &AdamStep<Self>,
    ) {
        let found = [gradient.len(), m.len(), v.len()];
        assert_eq!(found, [parameter.len(); 3], "lengths of gradient, m and v");
        plain::adam(parameter, gradient, m, v, step);
    }
}

/// Asserts that `[m, k]`, `[k, n]`, `[m, n]` fit.
fn check_product(shapes: [(usize, usize); 3]) {
    let [(m, k), (k2, n), (m2, n2)] = shapes;
    assert!((k, m, n) == (k2, m2, n2), "[m, k] [k, n] [m, n] do not fit: {shapes:?}");
}

macro_rules! impl_real {
    ($float:ty { $($products:tt)* }) => {
        impl Real for $float {
            fn from_f64(value: f64) -> Self {
                value as Self
            }
            fn to_f64(self) -> f64 {
                self.into()
            }
            fn exp(self) -> Self {
                <$float>::exp(self)
            }
            fn ln(self) -> Self {
                <$float>::ln(self)
            }
            fn ln_1p(self) -> Self {
                <$float>::ln_1p(self)
            }
            fn sqrt(self) -> Self {
                <$float>::sqrt(self)
            }
            fn tanh(self) -> Self {
                <$float>::tanh(self)
            }
            fn max(self, other: Self) -> Self {
                <$float>::max(self, other)
            }
            fn min(self, other: Self) -> Self {
                <$float>::min(self, other)
            }
            fn abs(self) -> Self {
                <$float>::abs(self)
            }
            fn is_finite(self) -> bool {
                <$float>::is_finite(self)
            }
            $($products)*
        }
    };
}

impl_real!(f32 {
    fn matmul(
        x: ArrayView2<Self>,
        w: ArrayView2<Self>,
        bias: Option<&[Self]>,
        act: Activation,
        y: ArrayViewMut2<Self>,
    ) {
        let (x, w, y) = (Matrix::new(x), Matrix::new(w), MatrixMut::new(y));
        product::matmul(Proof::current(), x, w, false, bias, act, y);
    }
    fn matmul_add(x: ArrayView2<Self>, w: ArrayView2<Self>, y: ArrayViewMut2<Self>) {
        let (x, w, y) = (Matrix::new(x), Matrix::new(w), MatrixMut::new(y));
        product::matmul(Proof::current(), x, w, true, None, Activation::None, y);
    }
    fn matmul_onto(
        x: ArrayView2<Self>,
        w: ArrayView2<Self>,
        act: Activation,
        y: ArrayViewMut2<Self>,
    ) {
        let (x, w, y) = (Matrix::new(x), Matrix::new(w), MatrixMut::new(y));
        product::matmul(Proof::current(), x, w, true, None, act, y);
    }
    fn matmul_tn(x: ArrayView2<Self>, dy: ArrayView2<Self>, add: bool, dw: ArrayViewMut2<Self>) {
        let (x, dy, dw) = (Matrix::new(x), Matrix::new(dy), MatrixMut::new(dw));
        product::matmul_tn(Proof::current(), x, dy, add, dw);
    }
    fn matmul_nt(dy: ArrayView2<Self>, w: ArrayView2<Self>, add: bool, dx: ArrayViewMut2<Self>) {
        let (dy, w, dx) = (Matrix::new(dy), Matrix::new(w), MatrixMut::new(dx));
        product::matmul_nt(Proof::current(), dy, w, add, dx);
    }
    fn column_sums_add(dy: ArrayView2<Self>, out: &mut [Self]) {
        assert_eq!(dy.ncols(), out.len(), "columns of dy, and sums");
        vector::column_sums_add(Proof::current(), Matrix::new(dy), out);
    }
    fn dot(a: &[Self], b: &[Self]) -> Self {
        assert_eq!(a.len(), b.len(), "lengths of a and b");
        vector::dot(Proof::current(), a, b)
    }
    fn axpy(alpha: Self, x: &[Self], y: &mut [Self]) {
        assert_eq!(x.len(), y.len(), "lengths of x and y");
        vector::axpy(Proof::current(), alpha, x, y);
    }
    fn exp_in_place(z: &mut [Self]) {
        exponential::exp_in_place(Proof::current(), z);
    }
    fn sigmoid_in_place(z: &mut [Self]) {
        exponential::sigmoid_in_place(Proof::current(), z);
    }
    fn adam(
        parameter: &mut [Self],
        gradient: &[Self],
        m: &mut [Self],
        v: &mut [Self],
        step: &AdamStep<Self>,
    ) {
        let found = [gradient.len(), m.len(), v.len()];
        assert_eq!(found, [parameter.len(); 3], "lengths of gradient, m and v");
        optimizer::adam(Proof::current(), parameter, gradient, m, v, step);
    }
});
impl_real!(f64 {});

#[cfg(test)]
mod tests {
    use ndarray::{Array2, arr1, arr2};

    use super::*;

    #[test]
    fn products_match_numbers_worked_by_hand() {
        let x = arr2(&[[1.0, 2.0], [3.0, 4.0], [-5.0, 6.0]]);
        let w = arr2(&[[1.0, 0.0, -1.0], [2.0, 1.0, 0.5]]);
        let mut y = Array2::zeros((3, 3));
        f64::matmul(x.view(), w.view(), Some(&[0.0, 1.0, -8.0]), Activation::Relu, y.view_mut());
        assert_eq!(y, arr2(&[[5.0, 3.0, 0.0], [11.0, 5.0, 0.0], [7.0, 7.0, 0.0]]));

        let dy = arr2(&[[1.0, 0.0, 2.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0]]);
        let mut dw = Array2::ones((2, 3));
        f64::matmul_tn(x.view(), dy.view(), true, dw.view_mut());
        assert_eq!(dw, arr2(&[[-3.0, -1.0, -2.0], [9.0, 11.0, 11.0]]));
        f64::matmul_tn(x.view(), dy.view(), false, dw.view_mut());
        assert_eq!(dw, arr2(&[[-4.0, -2.0, -3.0], [8.0, 10.0, 10.0]]));

        let mut dx = Array2::ones((3, 2));
        f64::matmul_nt(dy.view(), w.view(), false, dx.view_mut());
        assert_eq!(dx, arr2(&[[-1.0, 3.0], [0.0, 1.0], [0.0, 3.5]]));
        f64::matmul_nt(dy.view(), w.view(), true, dx.view_mut());
        assert_eq!(dx, arr2(&[[-2.0, 6.0], [0.0, 2.0], [0.0, 7.0]]));

        let mut sums = [1.0, 0.0, 0.0];
        f64::column_sums_add(dy.view(), &mut sums);
        assert_eq!(arr1(&sums), arr1(&[3.0, 2.0, 3.0]));
    }

    #[test]
    fn sigmoid_and_softplus_keep_their_limits() {
        for z in [-1e4, -30.0, -1.0, 0.0, 1.0, 30.0, 1e4, f64::INFINITY, f64::NEG_INFINITY] {
            let p = z.sigmoid();
            assert!((0.0..=1.0).contains(&p), "sigmoid({z}) = {p}");
            assert!((z.softplus() - z - (-z).softplus()).abs() < 1e-9 || z.is_infinite());
        }
        assert!(f64::NAN.sigmoid().is_nan());
        assert!(Activation::Relu.apply(f32::NAN).is_nan());
    }

    #[test]
    fn first_adam_step_has_the_length_of_the_rate() {
        let (mut p, mut m, mut v) = ([1.0_f64, 1.0], [0.0; 2], [0.0; 2]);
        let step = AdamStep {
            rate: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-12,
            correction1: 0.1,
            correction2: 0.001,
        };
        f64::adam(&mut p, &[3.0, -0.01], &mut m, &mut v, &step);
        assert!((p[0] - 0.9).abs() < 1e-9 && (p[1] - 1.1).abs() < 1e-9, "{p:?}");
    }

    #[test]
    #[should_panic(expected = "do not fit")]
    fn products_refuse_shapes_that_do_not_fit() {
        let (x, w, mut y) = (Array2::ones((2, 3)), Array2::ones((4, 2)), Array2::zeros((2, 2)));
        f32::matmul_add(x.view(), w.view(), y.view_mut());
    }
}
