//! Matrix products, activations and optimiser steps, beside the processor's own multiply-adds.
//!
//! Throughput is floating-point operations for products (Gelem/s = GFLOP/s), elements otherwise.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array2;
use sluice_models::kernels::{
    Activation, AdagradStep, AdamStep, Path, Real, Terms, Weights, adagrad_row, byte_products,
    select, spin_multiply_adds,
};

/// Shapes `[m, k] x [k, n]`: first layer of the towers for three batches, a tower, attention.
const SHAPES: [[usize; 3]; 6] = [
    [16, 674, 640],
    [64, 674, 640],
    [256, 674, 640],
    [256, 128, 64],
    [12_800, 128, 80],
    [12_800, 40, 1],
];

fn numbers(rows: usize, columns: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |(i, j)| ((i * 37 + j) as f32).sin())
}

fn products(c: &mut Criterion, path: Path) {
    let mut group = c.benchmark_group(format!("{path}/product"));
    group.throughput(Throughput::Elements(spin_multiply_adds(1000)));
    group.bench_function("peak", |b| b.iter(|| spin_multiply_adds(black_box(1000))));
    for [m, k, n] in SHAPES {
        let (x, w, bias) = (numbers(m, k), numbers(k, n), vec![0.1; n]);
        let (mut y, dy) = (numbers(m, n), numbers(m, n));
        let (mut dw, mut dx) = (numbers(k, n), numbers(m, k));
        let shape = format!("{m}x{k}x{n}");
        group.throughput(Throughput::Elements((2 * m * k * n) as u64));
        group.bench_function(BenchmarkId::new("forward", &shape), |b| {
            b.iter(|| {
                f32::matmul(x.view(), w.view(), Some(&bias), Activation::Relu, y.view_mut());
            });
        });
        group.bench_function(BenchmarkId::new("dw", &shape), |b| {
            b.iter(|| f32::matmul_tn(x.view(), dy.view(), false, dw.view_mut()));
        });
        group.bench_function(BenchmarkId::new("dx", &shape), |b| {
            b.iter(|| f32::matmul_nt(dy.view(), w.view(), false, dx.view_mut()));
        });
    }
    group.finish();
}

fn slices(c: &mut Criterion, path: Path) {
    let mut group = c.benchmark_group(format!("{path}/slice"));
    let (mut p, g) = (vec![0.5_f32; 519_519], vec![0.01_f32; 519_519]);
    let (mut m, mut v) = (vec![0.0; p.len()], vec![0.0; p.len()]);
    let step = AdamStep {
        rate: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        correction1: 0.1,
        correction2: 0.001,
    };
    group.throughput(Throughput::Elements(p.len() as u64));
    group.bench_function("adam", |b| b.iter(|| f32::adam(&mut p, &g, &mut m, &mut v, &step)));
    // Long after the last gradient, as for units that are never open again.
    let nothing = vec![0.0; p.len()];
    (0..2000).for_each(|_| f32::adam(&mut p, &nothing, &mut m, &mut v, &step));
    group.bench_function("adam, no gradient for long", |b| {
        b.iter(|| f32::adam(&mut p, &nothing, &mut m, &mut v, &step));
    });

    let mut z = vec![0.3_f32; 4096];
    group.throughput(Throughput::Elements(4096));
    group.bench_function("sigmoid", |b| b.iter(|| f32::sigmoid_in_place(black_box(&mut z))));

    let (mut row, gradient, mut state) = ([0.1_f32; 16], [0.01_f32; 16], 0.0);
    let step = AdagradStep { rate: 0.05, eps: 1e-8 };
    group.throughput(Throughput::Elements(1));
    group.bench_function("adagrad row of 16", |b| {
        b.iter(|| adagrad_row(black_box(&mut row), &gradient, &mut state, step));
    });
    group.bench_function("dot of 64", |b| b.iter(|| f32::dot(black_box(&z[..64]), &z[64..128])));

    let (mut rows, places) = (vec![[0.1_f32, 1.0]; 1200], (0..34).map(|k| k * 35 % 1200));
    let (places, shares) = (places.collect::<Vec<u32>>(), [1.0; 34]);
    let (mut weights, terms) = (Weights::default(), Terms { rows: &places, shares: &shares });
    group.throughput(Throughput::Elements(34));
    group.bench_function("linear example of 34 terms", |b| {
        b.iter(|| {
            let [sum, _] = weights.take(black_box(&rows), terms);
            let change = weights.advance(&shares, sum * 1e-6, step);
            weights.put(&mut rows, terms, change * 1e-6);
        });
    });

    let (query, rows, mut out) = (vec![3_i8; 64], vec![-5_i8; 64 * 4096], vec![0; 4096]);
    group.throughput(Throughput::Elements(4096));
    group.bench_function("byte products, rows of 64", |b| {
        b.iter(|| byte_products(&query, black_box(&rows), &mut out));
    });
    group.finish();
}

fn all_paths(c: &mut Criterion) {
    for path in Path::ALL {
        if select(path).is_ok() {
            products(c, path);
            slices(c, path);
        }
    }
}

criterion_group!(kernels, all_paths);
criterion_main!(kernels);
