use std::sync::Arc;

use sluice_features::example::LabelMode;

use super::*;
use crate::layers::testing::wave;

const CHAIN: [Option<usize>; 3] = [None, Some(0), Some(1)];

fn build(spec: &FunnelSpec) -> (Funnel, Params<f64>) {
    let mut layout = Layout::default();
    let funnel = Funnel::new(&mut layout, spec, &CHAIN, Some(4), &[0.3, 0.1, 0.02]);
    let mut params = Params::initial(Arc::new(layout), 4);
    // Heads that say something, and biases that keep most units open.
    params.visit(&mut |name, block| {
        if name.ends_with("head") {
            block.iter_mut().enumerate().for_each(|(k, w)| *w = (k as f64 * 2.3 + 0.4).sin());
        } else if name.ends_with("bias") && name != "funnel.bias" {
            block.fill(0.2);
        }
    });
    (funnel, params)
}

fn streams(n: usize) -> Vec<Grid<f64>> {
    (0..3).map(|t| wave(n, 4, t as f64 + 0.5)).collect()
}

fn set(params: &mut Params<f64>, wanted: &str, value: impl Fn(usize) -> f64) {
    params.visit(&mut |name, block| {
        if name == wanted {
            block.iter_mut().enumerate().for_each(|(k, v)| *v = value(k));
        }
    });
}

fn probabilities(funnel: &Funnel, params: &Params<f64>, n: usize) -> Vec<f64> {
    let mut tape = FunnelTape::default();
    funnel.forward(params, &streams(n), n, None, &mut tape);
    tape.p().values().to_vec()
}

struct Learned {
    grads: Params<f64>,
    dlogits: Grid<f64>,
    dstreams: Vec<Grid<f64>>,
    loss: [f64; 3],
}

fn learn(funnel: &Funnel, params: &Params<f64>, labels: &[f32], modes: &[LabelMode]) -> Learned {
    let n = labels.len() / CHAIN.len();
    let (streams, mut tape) = (streams(n), FunnelTape::default());
    funnel.forward(params, &streams, n, None, &mut tape);
    let mut learned = Learned {
        grads: Params::zeros(params.layout().clone()),
        dlogits: wave(n, 3, 0.0),
        dstreams: streams.clone(),
        loss: [0.0; 3],
    };
    learned.dstreams.iter_mut().for_each(|d| d.zero(n, 4));
    let targets = Targets { labels, modes, labelled: n };
    funnel.backward(
        params,
        &streams,
        &targets,
        &mut tape,
        &mut learned.grads,
        &mut learned.dstreams,
        Some(learned.dlogits.view_mut()),
        &mut learned.loss,
    );
    learned
}

fn tower() -> Vec<usize> {
    vec![5, 3]
}

#[test]
fn esmm_with_certain_children_is_the_parent() {
    let (funnel, mut params) = build(&FunnelSpec::Esmm { tower: tower() });
    set(&mut params, "funnel.bias", |t| if t == 0 { -0.4 } else { 500.0 });
    for p in probabilities(&funnel, &params, 6).chunks(3) {
        assert!((p[0] - p[1]).abs() < 1e-15 && (p[0] - p[2]).abs() < 1e-15, "{p:?}");
    }
    let learned = learn(&funnel, &params, &[0.0; 3], &[LabelMode::Final; 3]);
    assert!(learned.dlogits.row(0)[1].abs() < 1e-200, "no slope where nothing can change");
    assert!(learned.dlogits.row(0)[0] > 0.0);
}

#[test]
fn esmm_stays_finite_at_extreme_logits() {
    let (funnel, mut params) = build(&FunnelSpec::Esmm { tower: tower() });
    for extreme in [-600.0, 600.0] {
        set(&mut params, "funnel.bias", |_| extreme);
        for label in [0.0, 1.0] {
            let learned = learn(&funnel, &params, &[label; 3], &[LabelMode::Final; 3]);
            assert!(learned.loss.iter().all(|loss| loss.is_finite()), "{:?}", learned.loss);
            let slopes = learned.dlogits.values();
            assert!(slopes.iter().all(|d| d.abs() <= 3.0), "{slopes:?}");
        }
    }
}

#[test]
fn esmm_slopes_are_those_of_the_plain_formula() {
    let (funnel, params) = build(&FunnelSpec::Esmm { tower: tower() });
    let p = probabilities(&funnel, &params, 1);
    let masked = LabelMode::Masked;
    for label in [0.0_f32, 1.0] {
        let modes = [masked, LabelMode::Final, masked];
        let learned = learn(&funnel, &params, &[0.0, label, 0.0], &modes);
        let (a, both) = (p[0], p[1]);
        let b = both / a;
        let g = (both - f64::from(label)) / (1.0 - both);
        for (ours, wanted) in learned.dlogits.row(0).iter().zip([g * (1.0 - a), g * (1.0 - b), 0.0])
        {
            assert!((ours - wanted).abs() < 1e-12, "{ours} {wanted}");
        }
    }
}

#[test]
fn aitm_that_listens_only_to_itself_is_independent() {
    let (funnel, mut params) = build(&FunnelSpec::Aitm { tower: tower(), calibrator: 0.0 });
    let (alone, mut plain) = build(&FunnelSpec::Independent { tower: tower() });
    let mut values = std::collections::BTreeMap::new();
    // Value weights are the identity; scores are large for the tower and nothing for a silent info.
    set(&mut params, "funnel.transfer", |k| {
        let (row, column) = (k / 9, k % 9);
        let scale = [1e4, 1e4, 1.0][column / 3];
        if row == column % 3 { scale } else { 0.0 }
    });
    for name in ["funnel.1.info.weight", "funnel.1.info.bias", "funnel.2.info.weight"] {
        set(&mut params, name, |_| 0.0);
    }
    set(&mut params, "funnel.2.info.bias", |_| 0.0);
    params.visit(&mut |name, block| drop(values.insert(name.to_owned(), block.to_vec())));
    plain.visit(&mut |name, block| block.copy_from_slice(&values[name]));
    let (a, b) = (probabilities(&funnel, &params, 5), probabilities(&alone, &plain, 5));
    let mut compared = 0;
    for ((a, b), open) in a.iter().zip(&b).zip(open_units(&funnel, &params, 5)) {
        if open {
            assert!((a - b).abs() < 1e-9, "{a} {b}");
            compared += 1;
        }
    }
    assert!(compared > 8, "{compared}");
}

/// Where a tower says anything: with nothing but zeros its score does not win.
fn open_units(funnel: &Funnel, params: &Params<f64>, n: usize) -> Vec<bool> {
    let mut tape = FunnelTape::default();
    funnel.forward(params, &streams(n), n, None, &mut tape);
    (0..n)
        .flat_map(|i| tape.towers.iter().map(move |tower| (i, tower)))
        .map(|(i, tower)| tower.own().row(i).iter().any(|&q| q > 1e-2))
        .collect()
}

#[test]
fn what_a_child_learns_reaches_the_tower_of_its_parent() {
    let (funnel, params) = build(&FunnelSpec::Aitm { tower: tower(), calibrator: 0.0 });
    let masked = LabelMode::Masked;
    let modes = [masked, masked, LabelMode::Final].repeat(4);
    let learned = learn(&funnel, &params, &[1.0; 12], &modes);
    for (task, dstream) in learned.dstreams.iter().enumerate() {
        assert!(dstream.values().iter().any(|&d| d != 0.0), "task {task} of the chain");
    }
    let (funnel, params) = build(&FunnelSpec::Independent { tower: tower() });
    let learned = learn(&funnel, &params, &[1.0; 12], &modes);
    assert!(learned.dstreams[0].values().iter().all(|&d| d == 0.0));
    assert_eq!(learned.loss[..2], [0.0, 0.0]);
}

#[test]
fn a_calibrator_pulls_a_child_below_its_parent() {
    let rate = |calibrator: f64| {
        let (funnel, mut params) = build(&FunnelSpec::Aitm { tower: tower(), calibrator });
        set(&mut params, "funnel.bias", |_| 0.1);
        let mut adam = crate::optimizers::Adam::new(0.01, params.values().len());
        for _ in 0..300 {
            let labels = [1.0, 1.0, 1.0, 0.0, 1.0, 1.0].repeat(4);
            let learned = learn(&funnel, &params, &labels, &[LabelMode::Final; 24]);
            adam.step(params.values_mut(), learned.grads.values());
        }
        let p = probabilities(&funnel, &params, 8);
        p.chunks(3).map(|p| (p[1] - p[0]).max(0.0) + (p[2] - p[1]).max(0.0)).sum::<f64>()
    };
    assert!(rate(5.0) < 0.5 * rate(0.0), "{} {}", rate(5.0), rate(0.0));
}

/// What the calibrator adds to the loss of each task, and its slopes by the logits of `n` examples whose labels are all final.
fn calibrated(p: &[f64], weight: f64) -> ([f64; 3], Vec<f64>) {
    let n = p.len() / 3;
    let (labels, modes) = (vec![0.0; 3 * n], vec![LabelMode::Final; 3 * n]);
    let targets = Targets { labels: &labels, modes: &modes, labelled: n };
    let (mut loss, mut slopes) = ([0.0; 3], vec![0.0; p.len()]);
    for (i, (p, slopes)) in p.chunks(3).zip(slopes.chunks_mut(3)).enumerate() {
        aitm::calibrate(&CHAIN, &targets.example(i, 3), weight, p, slopes, &mut loss);
    }
    (loss, slopes)
}

#[test]
fn a_calibrator_adds_what_a_child_is_above_its_parent() {
    // By hand: two examples; p of the second task is above that of the first in one, the third's nowhere.
    let (loss, slopes) = calibrated(&[0.2, 0.5, 0.5, 0.6, 0.3, 0.1], 0.5);
    let share = 0.5 / 2.0;
    for (found, wanted) in loss.iter().zip([0.0, share * 0.3, 0.0]) {
        assert!((found - wanted).abs() < 1e-15, "{loss:?}");
    }
    let wanted = [-share * 0.2 * 0.8, share * 0.5 * 0.5, 0.0, 0.0, 0.0, 0.0];
    for (found, wanted) in slopes.iter().zip(wanted) {
        assert!((found - wanted).abs() < 1e-15, "{slopes:?}");
    }
}

#[test]
fn a_product_head_makes_a_calibrator_zero() {
    for bias in [-2.0, 3.0, 20.0] {
        let [product, own] = [
            FunnelSpec::Esmm { tower: tower() },
            FunnelSpec::Aitm { tower: tower(), calibrator: 0.6 },
        ]
        .map(|spec| {
            let (funnel, mut params) = build(&spec);
            // Children that are likelier than their parents where they stand alone.
            set(&mut params, "funnel.bias", |task| bias + task as f64);
            let p = probabilities(&funnel, &params, 8);
            let (loss, slopes) = calibrated(&p, 0.6);
            (loss.iter().sum::<f64>(), slopes.iter().any(|slope| *slope != 0.0))
        });
        assert_eq!(product, (0.0, false), "{bias}");
        assert!(own.0 > 0.0 && own.1, "{bias}: the same heads without the product need one");
    }
}

#[test]
fn fnw_has_its_stationary_point_at_the_true_rate() {
    // Every impression is a negative at once; a share r of them comes back as a positive.
    let r = 0.2_f64;
    let logit = (r / (1.0 - r)).ln();
    let (funnel, mut params) = build(&FunnelSpec::Independent { tower: tower() });
    params.values_mut().fill(0.0);
    set(&mut params, "funnel.bias", |_| logit);
    let slope = |mode: LabelMode, label: f32| {
        learn(&funnel, &params, &[label; 3], &[mode; 3]).dlogits.row(0)[0]
    };
    let sum = slope(LabelMode::FnwNegative, 0.0) + r * slope(LabelMode::FnwPositive, 1.0);
    assert!(sum.abs() < 1e-12, "{sum}");
}
