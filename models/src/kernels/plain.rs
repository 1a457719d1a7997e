//! The textbook loops, in any precision: what the fast kernels must agree with.
//!
//! Shapes as in [`Real`]: `x` `[m, k]`, `w` `[k, n]`, `y` `[m, n]`.

use ndarray::{ArrayView2, ArrayViewMut2, Zip};

use super::real::{Activation, AdamStep, Real};

/// `y = act(x w + bias)`.
pub(super) fn matmul<R: Real>(
    x: ArrayView2<R>,
    w: ArrayView2<R>,
    bias: Option<&[R]>,
    act: Activation,
    mut y: ArrayViewMut2<R>,
) {
    for mut row in y.rows_mut() {
        match bias {
            Some(bias) => row.iter_mut().zip(bias).for_each(|(y, &b)| *y = b),
            None => row.fill(R::zero()),
        }
    }
    matmul_add(x, w, y.view_mut());
    y.mapv_inplace(|value| act.apply(value));
}

/// `y += x w`.
pub(super) fn matmul_add<R: Real>(x: ArrayView2<R>, w: ArrayView2<R>, mut y: ArrayViewMut2<R>) {
    for (x, mut y) in x.rows().into_iter().zip(y.rows_mut()) {
        for (&x, w) in x.iter().zip(w.rows()) {
            Zip::from(&mut y).and(w).for_each(|y, &w| *y += x * w);
        }
    }
}

/// `dw = xᵀ dy`, or `dw += xᵀ dy` when `add`.
pub(super) fn matmul_tn<R: Real>(
    x: ArrayView2<R>,
    dy: ArrayView2<R>,
    add: bool,
    mut dw: ArrayViewMut2<R>,
) {
    if !add {
        dw.fill(R::zero());
    }
    for (x, dy) in x.rows().into_iter().zip(dy.rows()) {
        for (&x, mut dw) in x.iter().zip(dw.rows_mut()) {
            Zip::from(&mut dw).and(dy).for_each(|dw, &dy| *dw += x * dy);
        }
    }
}

/// `dx = dy wᵀ`, or `dx += dy wᵀ` when `add`.
pub(super) fn matmul_nt<R: Real>(
    dy: ArrayView2<R>,
    w: ArrayView2<R>,
    add: bool,
    mut dx: ArrayViewMut2<R>,
) {
    for (dy, mut dx) in dy.rows().into_iter().zip(dx.rows_mut()) {
        for (w, dx) in w.rows().into_iter().zip(&mut dx) {
            let sum: R = dy.iter().zip(&w).map(|(&dy, &w)| dy * w).sum();
            *dx = if add { *dx + sum } else { sum };
        }
    }
}

/// `out[j] += Σ_i dy[i, j]`.
pub(super) fn column_sums_add<R: Real>(dy: ArrayView2<R>, out: &mut [R]) {
    for row in dy.rows() {
        out.iter_mut().zip(row).for_each(|(out, &dy)| *out += dy);
    }
}

/// `Σ a[i] b[i]`.
pub(super) fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    a.iter().zip(b).map(|(&a, &b)| a * b).sum()
}

/// `y += alpha x`.
pub(super) fn axpy<R: Real>(alpha: R, x: &[R], y: &mut [R]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y += alpha * x);
}

/// One step of Adam on a block of parameters; the formula is at [`AdamStep`].
pub(super) fn adam<R: Real>(
    parameter: &mut [R],
    gradient: &[R],
    m: &mut [R],
    v: &mut [R],
    step: &AdamStep<R>,
) {
    let rate = step.rate / step.correction1;
    let scale = R::one() / step.correction2.sqrt();
    let moments = m.iter_mut().zip(v.iter_mut());
    for ((p, &g), (m, v)) in parameter.iter_mut().zip(gradient).zip(moments) {
        *m = step.beta1 * *m + (R::one() - step.beta1) * g;
        *v = step.beta2 * *v + (R::one() - step.beta2) * g * g;
        *p -= rate * *m / (v.sqrt() * scale + step.eps);
    }
}
