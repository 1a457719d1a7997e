use ndarray::Array2;

use super::*;

fn wave(rows: usize, columns: usize, phase: f64) -> Array2<f32> {
    let at = |(i, j)| ((i * 37 + j * 11) as f64 * 0.83 + phase).sin() as f32 * 0.5;
    Array2::from_shape_fn((rows, columns), at)
}

/// The unit as its equations have it, in double precision.
fn plain(unit: &ActivationUnit<'_>) -> Array2<f64> {
    let double = |x: ArrayView2<f32>| x.mapv(f64::from);
    let (t, e) = (double(unit.targets), double(unit.behaviours));
    let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
    let mut out = Array2::zeros(t.dim());
    for (t, mut out) in t.rows().into_iter().zip(out.rows_mut()) {
        let mut weights: Vec<f64> = Vec::new();
        for e in e.rows() {
            let pair = &t * &e;
            let first = t.dot(&double(unit.of_target))
                + e.dot(&double(unit.of_behaviour))
                + pair.dot(&double(unit.of_pair));
            let first: Vec<f64> = first
                .iter()
                .zip(unit.first_bias)
                .map(|(&z, &b)| sigmoid(z + f64::from(b)))
                .collect();
            let second = ndarray::arr1(&first).dot(&double(unit.second));
            let weight = second
                .iter()
                .zip(unit.second_bias)
                .zip(unit.last)
                .map(|((&z, &b), &w)| sigmoid(z + f64::from(b)) * f64::from(w))
                .sum::<f64>();
            weights.push(weight + f64::from(unit.last_bias));
        }
        if unit.softmax {
            let total: f64 = weights.iter().map(|w| w.exp()).sum();
            weights.iter_mut().for_each(|w| *w = w.exp() / total);
        }
        for (w, e) in weights.iter().zip(e.rows()) {
            out.scaled_add(*w, &e);
        }
    }
    out
}

#[test]
fn it_is_the_unit_of_its_equations_on_every_path() {
    let shapes = [
        [1, 1, 1, 1, 1],
        [5, 3, 3, 4, 3],
        [49, 7, 16, 5, 9],
        [100, 50, 32, 80, 40],
        [23, 2, 5, 17, 1],
    ];
    for [n, m, width, h1, h2] in shapes {
        for softmax in [false, true] {
            let (targets, behaviours) = (wave(n, width + 2, 0.1), wave(m, width, 0.4));
            let weights = [0.9, 1.4, 2.1].map(|phase| wave(width, h1, phase));
            let (second, last) = (wave(h1, h2, 0.2), wave(1, h2, 0.6));
            let (bias, second_bias) = (wave(1, h1, 0.3), wave(1, h2, 0.8));
            let unit = ActivationUnit {
                targets: targets.slice(ndarray::s![.., 1..=width]),
                behaviours: behaviours.view(),
                of_target: weights[0].view(),
                of_behaviour: weights[1].view(),
                of_pair: weights[2].view(),
                first_bias: bias.as_slice().unwrap(),
                second: second.view(),
                second_bias: second_bias.as_slice().unwrap(),
                last: last.as_slice().unwrap(),
                last_bias: -0.2,
                softmax,
            };
            let exact = plain(&unit);
            for proof in Proof::all() {
                let mut out = Array2::from_elem((n, width), f32::NAN);
                apply(proof, &unit, out.view_mut());
                for (found, exact) in out.iter().zip(&exact) {
                    let error = (f64::from(*found) - exact).abs();
                    assert!(error < 2e-5, "{proof:?} {n} {m} {width} {h1} {h2}: {found} {exact}");
                }
            }
        }
    }
}

#[test]
fn an_empty_history_gives_zeros() {
    let (targets, behaviours, weights) = (wave(3, 2, 0.1), wave(0, 2, 0.0), wave(2, 4, 0.5));
    let (second, ones) = (wave(4, 1, 0.2), [1.0; 4]);
    let unit = ActivationUnit {
        targets: targets.view(),
        behaviours: behaviours.view(),
        of_target: weights.view(),
        of_behaviour: weights.view(),
        of_pair: weights.view(),
        first_bias: &ones,
        second: second.view(),
        second_bias: &ones[..1],
        last: &ones[..1],
        last_bias: 1.0,
        softmax: true,
    };
    let mut out = Array2::from_elem((3, 2), f32::NAN);
    activation_unit(&unit, out.view_mut());
    assert!(out.iter().all(|&x| x.abs() < 1e-12));
}
