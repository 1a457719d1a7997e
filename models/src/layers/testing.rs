//! Numbers for tests of layers.

use std::sync::Arc;

use super::Grid;
use crate::params::{Layout, Params};

/// A matrix of numbers between -1 and 1 that do not repeat.
pub(crate) fn wave(rows: usize, columns: usize, phase: f64) -> Grid<f64> {
    let mut grid = Grid::default();
    grid.reshape(rows, columns);
    for (i, value) in grid.values_mut().iter_mut().enumerate() {
        *value = (i as f64 * 1.7 + phase).sin();
    }
    grid
}

/// Parameters with these values.
pub(crate) fn filled(layout: &Arc<Layout>, values: &[f64]) -> Params<f64> {
    let mut params = Params::zeros(layout.clone());
    params.values_mut().copy_from_slice(values);
    params
}
