use std::sync::Arc;

use super::*;
use crate::gradcheck::assert_slope;
use crate::layers::testing::{filled, wave};

fn build(spec: &SharingSpec, tasks: usize) -> (Sharing, Arc<Layout>) {
    let mut layout = Layout::default();
    let sharing = Sharing::build(&mut layout, spec, 4, tasks).unwrap();
    (sharing, Arc::new(layout))
}

fn mmoe(experts: usize, normalise: ExpertNorm) -> SharingSpec {
    SharingSpec::Mmoe { experts, hidden: vec![5, 3], normalise }
}

fn ple(levels: usize, shared: usize, own: usize, normalise: ExpertNorm) -> SharingSpec {
    SharingSpec::Ple { levels, shared, own, hidden: vec![5, 3], normalise }
}

/// `Σ_t <stream_t, wave_t>` over the tasks in `of`.
fn loss(
    sharing: &Sharing,
    params: &Params<f64>,
    x: &Grid<f64>,
    of: &[usize],
    tape: &mut SharingTape<f64>,
) -> f64 {
    sharing.forward(params, x.view(), tape);
    of.iter()
        .map(|&t| (&sharing.streams(tape)[t].view() * &wave(x.rows(), 3, t as f64).view()).sum())
        .sum()
}

fn gradients(
    sharing: &Sharing,
    params: &Params<f64>,
    x: &Grid<f64>,
    of: &[usize],
) -> (Params<f64>, Grid<f64>) {
    let mut tape = SharingTape::default();
    loss(sharing, params, x, of, &mut tape);
    let (_, dstreams) = sharing.dstreams(&mut tape);
    for &t in of {
        let mut d = dstreams[t].view_mut();
        d += &wave(x.rows(), 3, t as f64).view();
    }
    let (mut grads, mut dx) = (Params::zeros(params.layout().clone()), Grid::default());
    sharing.backward(params, x.view(), &mut tape, &mut grads, &mut dx);
    (grads, dx)
}

#[test]
fn gradients_are_the_slope_of_the_loss() {
    let (none, norm) = (ExpertNorm::None, ExpertNorm::LayerNorm);
    let specs = [
        SharingSpec::SharedBottom { hidden: vec![5, 3] },
        SharingSpec::SharedBottom { hidden: vec![3] },
        mmoe(3, none),
        mmoe(2, norm),
        ple(1, 2, 1, none),
        ple(1, 1, 2, norm),
        ple(2, 2, 1, none),
        ple(3, 1, 1, norm),
        ple(2, 0, 2, none),
        ple(2, 2, 0, none),
    ];
    for spec in specs {
        let (sharing, layout) = build(&spec, 3);
        let (x, all) = (wave(3, 4, 0.5), [0, 1, 2]);
        let point: Vec<f64> =
            (0..layout.length()).map(|i| (i as f64 * 0.731 + 0.2).sin() * 0.8).collect();
        let params = filled(&layout, &point);
        let (grads, dx) = gradients(&sharing, &params, &x, &all);
        let tape = std::cell::RefCell::new(SharingTape::default());
        assert_slope(&point, grads.values(), |values| {
            loss(&sharing, &filled(&layout, values), &x, &all, &mut tape.borrow_mut())
        });
        assert_slope(x.values(), dx.values(), |values| {
            let mut x = x.clone();
            x.values_mut().copy_from_slice(values);
            loss(&sharing, &params, &x, &all, &mut tape.borrow_mut())
        });
    }
}

/// The streams of all tasks with every block of the same name ending given the same start.
fn streams(spec: &SharingSpec, tasks: usize) -> Vec<f64> {
    let (sharing, layout) = build(spec, tasks);
    let mut params = Params::<f64>::zeros(layout);
    params.visit(&mut |name, block| {
        if !name.contains("gate") {
            block.iter_mut().enumerate().for_each(|(i, v)| *v = (i as f64 * 1.3 + 0.4).sin());
        }
    });
    let mut tape = SharingTape::default();
    sharing.forward(&params, wave(2, 4, 0.1).view(), &mut tape);
    (0..tasks).flat_map(|t| sharing.streams(&tape)[t].values().to_vec()).collect()
}

#[test]
fn mmoe_with_one_expert_is_shared_bottom() {
    let bottom = SharingSpec::SharedBottom { hidden: vec![5, 3] };
    assert_eq!(streams(&mmoe(1, ExpertNorm::None), 3), streams(&bottom, 3));
}

#[test]
fn ple_with_one_level_and_no_own_experts_is_mmoe() {
    for norm in [ExpertNorm::None, ExpertNorm::LayerNorm] {
        let (a, b) = (build(&ple(1, 3, 0, norm), 2), build(&mmoe(3, norm), 2));
        assert_eq!(a.1, b.1, "the same blocks");
        let params = Params::<f64>::initial(a.1, 5);
        let (mut ta, mut tb) = (SharingTape::default(), SharingTape::default());
        let x = wave(2, 4, 0.1);
        a.0.forward(&params, x.view(), &mut ta);
        b.0.forward(&params, x.view(), &mut tb);
        assert_eq!(a.0.streams(&ta)[1].values(), b.0.streams(&tb)[1].values());
    }
}

#[test]
fn ple_without_shared_experts_has_no_gradient_between_tasks() {
    let (sharing, layout) = build(&ple(1, 0, 2, ExpertNorm::None), 2);
    let params = Params::<f64>::initial(layout, 5);
    let x = wave(3, 4, 0.5);
    let (both, _) = gradients(&sharing, &params, &x, &[0, 1]);
    let (mut first, _) = gradients(&sharing, &params, &x, &[0]);
    let (second, _) = gradients(&sharing, &params, &x, &[1]);
    let parts = first.values().iter().zip(second.values());
    assert!(parts.clone().all(|(&a, &b)| a == 0.0 || b == 0.0), "each number has one task");
    assert!(parts.clone().any(|(&a, _)| a != 0.0) && parts.clone().any(|(_, &b)| b != 0.0));
    first.values_mut().iter_mut().zip(second.values()).for_each(|(a, b)| *a += b);
    assert_eq!(first.values(), both.values());
}

#[test]
fn gates_start_uniform_and_mixtures_are_averages() {
    // Of each output the experts that it mixes: in `ple` the task's own ones first, then the shared ones; the one behind the tasks' mixes all.
    let own_and_shared = |task: usize| vec![2 * task, 2 * task + 1, 4, 5, 6];
    let cases = [
        (mmoe(4, ExpertNorm::None), vec![(0..4).collect(); 2]),
        (mmoe(3, ExpertNorm::LayerNorm), vec![(0..3).collect(); 2]),
        (
            ple(2, 3, 2, ExpertNorm::None),
            vec![own_and_shared(0), own_and_shared(1), (0..7).collect::<Vec<usize>>()],
        ),
    ];
    for (spec, mixed) in cases {
        let (sharing, layout) = build(&spec, 2);
        let params = Params::<f64>::initial(layout, 9);
        let mut tape = SharingTape::default();
        sharing.forward(&params, wave(2, 4, 0.1).view(), &mut tape);
        let level = &tape.levels[0];
        let mut columns = 0;
        for (output, experts) in mixed.iter().enumerate() {
            let share = 1.0 / experts.len() as f64;
            for i in 0..2 {
                let gate = &level.gates().row(i)[columns..columns + experts.len()];
                assert!(gate.iter().all(|g| (g - share).abs() < 1e-15), "{gate:?} {spec:?}");
                let outputs = level.experts(i, 3);
                for (k, found) in level.stream(output).row(i).iter().enumerate() {
                    let mean = experts.iter().map(|&e| outputs[e][k] * share).sum::<f64>();
                    assert!((found - mean).abs() < 1e-14, "{found} {mean} {spec:?}");
                }
            }
            columns += experts.len();
        }
        let outputs = level.experts(0, 3);
        assert!(outputs.iter().any(|output| *output != outputs[0]), "experts differ");
    }
}
