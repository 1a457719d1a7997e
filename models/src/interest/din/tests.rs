use std::sync::Arc;

use super::*;
use crate::gradcheck::assert_slope;
use crate::layers::testing::{filled, wave};

const STARTS: [u32; 4] = [0, 3, 3, 5];

fn unit(normalise: Normalise) -> (Din, Arc<Layout>) {
    let mut layout = Layout::default();
    let unit = Din::new(&mut layout, "din", 3, [4, 3], normalise);
    (unit, Arc::new(layout))
}

fn pool(unit: &Din, params: &Params<f64>, target: &Grid<f64>, e: &Grid<f64>) -> Grid<f64> {
    let mut out = wave(3, 3, 0.0);
    let history = History { starts: &STARTS, behaviours: e.view() };
    unit.forward(params, target.view(), &history, &mut DinTape::default(), out.view_mut());
    out
}

fn with(grid: &Grid<f64>, values: &[f64]) -> Grid<f64> {
    let mut grid = grid.clone();
    grid.values_mut().copy_from_slice(values);
    grid
}

#[test]
fn gradients_are_the_slope_of_the_loss() {
    for normalise in [Normalise::None, Normalise::Softmax] {
        let (unit, layout) = unit(normalise);
        let (target, e, dout) = (wave(3, 3, 0.2), wave(5, 3, 0.8), wave(3, 3, 1.5));
        let point = wave(1, layout.length(), 0.4).values().to_vec();
        let loss = |params: &[f64], target: &Grid<f64>, e: &Grid<f64>| {
            (&pool(&unit, &filled(&layout, params), target, e).view() * &dout.view()).sum()
        };
        let params = filled(&layout, &point);
        let history = History { starts: &STARTS, behaviours: e.view() };
        let (mut tape, mut out) = (DinTape::default(), wave(3, 3, 0.0));
        unit.forward(&params, target.view(), &history, &mut tape, out.view_mut());
        let (mut grads, mut dt, mut de) =
            (Params::zeros(layout.clone()), Grid::default(), Grid::default());
        dt.zero(3, 3);
        let dtarget = dt.view_mut();
        unit.backward(
            &params,
            target.view(),
            &history,
            &mut tape,
            dout.view(),
            &mut grads,
            dtarget,
            &mut de,
        );
        assert_slope(&point, grads.values(), |params| loss(params, &target, &e));
        assert_slope(target.values(), dt.values(), |t| loss(&point, &with(&target, t), &e));
        assert_slope(e.values(), de.values(), |v| loss(&point, &target, &with(&e, v)));
    }
}

#[test]
fn an_empty_history_gives_zeros_and_order_does_not_matter() {
    for normalise in [Normalise::None, Normalise::Softmax] {
        let (unit, layout) = unit(normalise);
        let params = Params::initial(layout, 3);
        let (target, e) = (wave(3, 3, 0.2), wave(5, 3, 0.8));
        let out = pool(&unit, &params, &target, &e);
        assert_eq!(out.row(1), [0.0; 3]);
        let mut turned = e.clone();
        for (j, from) in [2, 0, 1].into_iter().enumerate() {
            turned.row_mut(j).copy_from_slice(e.row(from));
        }
        let other = pool(&unit, &params, &target, &turned);
        for (a, b) in out.values().iter().zip(other.values()) {
            assert!((a - b).abs() < 1e-14);
        }
    }
}

#[test]
fn the_split_first_layer_is_the_layer_over_the_four_parts() {
    let (unit, layout) = unit(Normalise::None);
    let params = Params::<f64>::initial(layout, 3);
    let (target, e) = (wave(3, 3, 0.2), wave(5, 3, 0.8));
    let out = pool(&unit, &params, &target, &e);
    let mut pooled = [0.0; 3];
    for j in 0..3 {
        let (t, e) = (target.row(0), e.row(j));
        let mut x = [t, e].concat();
        x.extend(t.iter().zip(e).map(|(t, e)| t - e));
        x.extend(t.iter().zip(e).map(|(t, e)| t * e));
        let mut layers = (Grid::default(), Grid::default(), Grid::default());
        layers.0.reshape(1, 4);
        layers.1.reshape(1, 3);
        layers.2.reshape(1, 1);
        let x = crate::params::view(&x, 1, 12);
        unit.first.forward(&params, x, layers.0.view_mut());
        unit.second.forward(&params, layers.0.view(), layers.1.view_mut());
        unit.last.forward(&params, layers.1.view(), layers.2.view_mut());
        pooled.iter_mut().zip(e).for_each(|(p, e)| *p += layers.2.row(0)[0] * e);
    }
    for (a, b) in out.row(0).iter().zip(pooled) {
        assert!((a - b).abs() < 1e-14, "{a} {b}");
    }
}
