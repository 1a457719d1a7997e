//! The judge sorts all rows by their exact inner products.

use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::*;

fn normal(random: &mut ChaCha8Rng) -> f32 {
    StandardNormal.sample(random)
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x /= norm);
    vector
}

/// Unit vectors in tight clusters, the hard case for codes: neighbours differ by little.
fn clustered(random: &mut ChaCha8Rng, count: usize, width: usize, deviation: f32) -> Vec<Vec<f32>> {
    let centres: Vec<Vec<f32>> =
        (0..50).map(|_| (0..width).map(|_| normal(random)).collect()).collect();
    (0..count)
        .map(|_| {
            let centre = &centres[random.random_range(0..50)];
            unit(centre.iter().map(|x| x + deviation * normal(random)).collect())
        })
        .collect()
}

fn filled(vectors: &[Vec<f32>]) -> Index {
    let mut index = Index::new(vectors[0].len());
    for (id, vector) in vectors.iter().enumerate() {
        index.upsert(id as u64, vector).unwrap();
    }
    index
}

fn search(index: &Index, query: &[f32], k: usize, filter: impl Fn(u64) -> bool) -> Vec<Hit> {
    let mut hits = Vec::new();
    index.search(query, k, filter, &mut Scratch::default(), &mut hits).unwrap();
    hits
}

fn brute(vectors: &[Vec<f32>], query: &[f32], k: usize, filter: impl Fn(u64) -> bool) -> Vec<Hit> {
    let score = |v: &Vec<f32>| f32::dot(query, v);
    let all = vectors.iter().enumerate().map(|(id, v)| Hit { id: id as u64, score: score(v) });
    let mut hits: Vec<Hit> = all.filter(|hit| filter(hit.id)).collect();
    hits.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap().then(a.id.cmp(&b.id)));
    hits.truncate(k);
    hits
}

#[test]
fn the_exact_best_are_found_among_clustered_vectors() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for (width, deviation) in [(16, 0.5), (64, 0.5), (64, 1e-2), (64, 1e-4), (70, 1e-3)] {
        let vectors = clustered(&mut random, 5_000, width, deviation);
        let index = filled(&vectors);
        for query in vectors.iter().step_by(250) {
            for k in [1, 20, 100] {
                let (hits, exact) =
                    (search(&index, query, k, |_| true), brute(&vectors, query, k, |_| true));
                assert_eq!(hits, exact, "width {width}, deviation {deviation}, {k} wanted");
            }
        }
    }
}

/// A vector of numbers of some size, from the smallest to the largest that there are in a vector, in a cluster or alone.
fn vectors(width: usize) -> impl Strategy<Value = Vec<Vec<f32>>> {
    let exponent = prop_oneof![3 => Just(0), 1 => -44..=16i32];
    let deviation = prop_oneof![Just(0.0), Just(1e-7), Just(1e-4), Just(1e-2), Just(1.0)];
    let group = (any::<u64>(), exponent, deviation, 1..60usize);
    let some = group.prop_map(move |(seed, exponent, deviation, count)| {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let scale = 10f64.powi(exponent);
        let centre: Vec<f64> = (0..width).map(|_| f64::from(normal(&mut random))).collect();
        let mut one = || {
            let near = |x: &f64| (scale * (x + deviation * f64::from(normal(&mut random)))) as f32;
            centre.iter().map(near).collect::<Vec<f32>>()
        };
        (0..count).map(|_| one()).collect::<Vec<_>>()
    });
    let zeros = (1..5usize).prop_map(move |count| vec![vec![0.0; width]; count]);
    let groups = prop::collection::vec(prop_oneof![6 => some, 1 => zeros], 1..8);
    groups.prop_map(|groups| groups.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Clusters that codes cannot tell apart, equal vectors, zeros, and vectors of all lengths side by side.
    #[test]
    fn hits_are_those_of_a_scan_in_full(
        (vectors, query) in (1..80usize).prop_flat_map(|width| (vectors(width), vectors(width))),
        k in 1..30usize,
        own in any::<bool>(),
        turned in any::<bool>(),
        modulus in 1..4u64,
    ) {
        let mut order: Vec<usize> = (0..vectors.len()).collect();
        if turned {
            order.reverse();
        }
        let mut index = Index::new(vectors[0].len());
        for id in order {
            index.upsert(id as u64, &vectors[id]).unwrap();
        }
        let query = if own { &vectors[vectors.len() / 2] } else { &query[0] };
        let filter = |id: u64| id.is_multiple_of(modulus);
        let hits = search(&index, query, k, filter);
        prop_assert!(hits.iter().all(|hit| hit.score.is_finite()));
        prop_assert_eq!(hits, brute(&vectors, query, k, filter));
    }
}

#[test]
fn writes_and_removals_are_seen_at_once() {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let mut vectors = clustered(&mut random, 300, 24, 0.5);
    let mut index = filled(&vectors);
    let mut gone = vec![false; 300];
    for round in 0..400 {
        let id = random.random_range(0..300);
        if random.random_bool(0.5) {
            assert_eq!(index.remove(id as u64), !gone[id]);
            gone[id] = true;
            assert_eq!(index.vector(id as u64), None);
        } else {
            vectors[id] = clustered(&mut random, 1, 24, 0.5).remove(0);
            index.upsert(id as u64, &vectors[id]).unwrap();
            gone[id] = false;
            assert_eq!(index.vector(id as u64), Some(&vectors[id][..]));
        }
        assert_eq!(index.len(), gone.iter().filter(|gone| !**gone).count());
        let query = &vectors[round % 300];
        let exact = brute(&vectors, query, 100, |id| !gone[id as usize]);
        assert_eq!(search(&index, query, 100, |_| true), exact);
    }
    for id in 0..300 {
        index.remove(id);
    }
    assert!(index.is_empty());
    assert_eq!(search(&index, &vectors[0], 5, |_| true), []);
}

#[test]
fn filtered_items_take_no_place() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let vectors = clustered(&mut random, 2_000, 32, 0.5);
    let index = filled(&vectors);
    let query = &vectors[17];
    let few = |id: u64| id % 100 == 3;
    assert_eq!(search(&index, query, 10, few), brute(&vectors, query, 10, few));
    assert_eq!(search(&index, query, 50, few).len(), 20);
    assert_eq!(search(&index, query, 10, |_| false), []);
}

#[test]
fn more_hits_than_items_is_all_items_and_none_is_none() {
    let index = filled(&[vec![1.0, 0.0], vec![0.0, 2.0], vec![-1.0, 0.0]]);
    let ids =
        |k| search(&index, &[1.0, 0.25], k, |_| true).iter().map(|h| h.id).collect::<Vec<_>>();
    assert_eq!(ids(10), [0, 1, 2]);
    assert_eq!(ids(usize::MAX), [0, 1, 2]);
    assert!(ids(0).is_empty());
}

#[test]
fn equal_scores_are_ordered_by_id_whatever_the_order_of_writing() {
    let mut index = Index::new(3);
    for id in (0..500).rev() {
        index.upsert(id, &[0.5, 0.5, 0.5]).unwrap();
    }
    index.remove(2);
    let ids: Vec<u64> =
        search(&index, &[1.0, 1.0, 1.0], 4, |_| true).iter().map(|h| h.id).collect();
    assert_eq!(ids, [0, 1, 3, 4]);
}

#[test]
fn zeros_and_the_smallest_numbers_are_vectors_too() {
    let tiny = f32::from_bits(1);
    let index = filled(&[vec![0.0; 4], vec![tiny; 4], vec![1.0; 4], vec![-1.0; 4]]);
    let hits = search(&index, &[1.0; 4], 4, |_| true);
    assert_eq!(hits.iter().map(|h| h.id).collect::<Vec<_>>(), [2, 1, 0, 3]);
    let hits = search(&index, &[0.0; 4], 4, |_| true);
    assert_eq!(hits.len(), 4);
    assert!(hits.iter().all(|hit| hit.score.abs() < f32::MIN_POSITIVE));
}

#[test]
fn a_vector_of_another_width_or_without_value_is_refused() {
    let mut index = filled(&[vec![1.0, 2.0]]);
    let width = IndexError::Width { expected: 2, found: 3 };
    assert_eq!(index.upsert(9, &[1.0; 3]), Err(width));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let refused = Err(IndexError::NotFinite { position: 1, bits: bad.to_bits() });
        assert_eq!(index.upsert(0, &[1.0, bad]), refused);
        let mut hits = vec![Hit { id: 1, score: 1.0 }];
        let found = index.search(&[1.0, bad], 1, |_| true, &mut Scratch::default(), &mut hits);
        assert_eq!((found, hits), (refused, vec![]));
    }
    let long = index.upsert(0, &[3e18, 4e18]).unwrap_err();
    assert!(matches!(long, IndexError::TooLong { .. }) && long.to_string().contains("e18"));
    assert!(index.upsert(5, &[6e17, -8e17]).is_ok() && index.remove(5));
    assert_eq!((index.len(), index.vector(0)), (1, Some(&[1.0, 2.0][..])));
    let text = IndexError::NotFinite { position: 1, bits: f32::NAN.to_bits() }.to_string();
    assert!(text.starts_with("expected finite numbers, found NaN at 1"), "{text}");
}
