use std::sync::Arc;

use super::*;
use crate::gradcheck::assert_slope;
use crate::layers::testing::{filled, wave};

const STARTS: [u32; 4] = [0, 3, 3, 5];

fn layer() -> (Attention, Arc<Layout>) {
    let mut layout = Layout::default();
    let layer = Attention::new(&mut layout, "sim", 3, 2, 2, 3);
    (layer, Arc::new(layout))
}

fn attend(params: &Params<f64>, target: &Grid<f64>, z: &Grid<f64>) -> Grid<f64> {
    let mut out = wave(3, 10, 0.0);
    let history = History { starts: &STARTS, behaviours: z.view() };
    let mut tape = AttentionTape::default();
    layer().0.forward(params, target.view(), &history, &mut tape, out.view_mut());
    out
}

fn with(grid: &Grid<f64>, values: &[f64]) -> Grid<f64> {
    let mut grid = grid.clone();
    grid.values_mut().copy_from_slice(values);
    grid
}

#[test]
fn gradients_are_the_slope_of_the_loss() {
    let (layer, layout) = layer();
    let (target, z, dout) = (wave(3, 3, 0.2), wave(5, 5, 0.8), wave(3, 10, 1.5));
    let point = wave(1, layout.length(), 0.4).values().to_vec();
    let loss = |params: &[f64], target: &Grid<f64>, z: &Grid<f64>| {
        (&attend(&filled(&layout, params), target, z).view() * &dout.view()).sum()
    };
    let params = filled(&layout, &point);
    let history = History { starts: &STARTS, behaviours: z.view() };
    let (mut tape, mut out) = (AttentionTape::default(), wave(3, 10, 0.0));
    layer.forward(&params, target.view(), &history, &mut tape, out.view_mut());
    let (mut grads, mut dt, mut dz) =
        (Params::zeros(layout.clone()), Grid::default(), Grid::default());
    dt.zero(3, 3);
    let dtarget = dt.view_mut();
    layer.backward(
        &params,
        target.view(),
        &history,
        &mut tape,
        dout.view(),
        &mut grads,
        dtarget,
        &mut dz,
    );
    assert_slope(&point, grads.values(), |params| loss(params, &target, &z));
    assert_slope(target.values(), dt.values(), |t| loss(&point, &with(&target, t), &z));
    assert_slope(z.values(), dz.values(), |v| loss(&point, &target, &with(&z, v)));
}

#[test]
fn attention_is_that_of_projected_keys() {
    let (layer, layout) = layer();
    let params = Params::<f64>::initial(layout, 5);
    let (target, z) = (wave(3, 3, 0.2), wave(5, 5, 0.8));
    let out = attend(&params, &target, &z);
    assert_eq!(out.row(1), [0.0; 10], "an empty history gives zeros");
    let query = target.view().dot(&params.matrix(layer.query));
    let keys = z.view().dot(&params.matrix(layer.key));
    for h in 0..2 {
        let of = |row: ndarray::ArrayView1<f64>| row.slice(s![h * 3..(h + 1) * 3]).to_owned();
        let mut a: Vec<f64> = (0..3).map(|j| of(keys.row(j)).dot(&of(query.row(0)))).collect();
        softmax(&mut a);
        for k in 0..5 {
            let wanted: f64 = (0..3).map(|j| a[j] * z.row(j)[k]).sum();
            assert!((out.row(0)[h * 5 + k] - wanted).abs() < 1e-14);
        }
    }
}
