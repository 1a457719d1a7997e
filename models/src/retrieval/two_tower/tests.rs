use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde_json::Value;

use super::*;
use crate::gradcheck::assert_slope;
use crate::kernels::AdamStep;
use crate::retrieval::{Index, LogQ, Scratch};

const SMALL: Shape = Shape { user: 5, item: 4, hidden: 6, width: 3, temperature: 0.3 };

fn flatten<R: Real>(model: &mut TwoTower<R>) -> Vec<R> {
    let mut flat = Vec::new();
    model.visit(&mut |_, block| flat.extend_from_slice(block));
    flat
}

fn unflatten<R: Real>(model: &mut TwoTower<R>, mut flat: &[R]) {
    model.visit(&mut |_, block| {
        let (head, tail) = flat.split_at(block.len());
        block.copy_from_slice(head);
        flat = tail;
    });
    assert!(flat.is_empty());
}

/// One step of Adam over all blocks.
fn adam<R: Real>(
    model: &mut TwoTower<R>,
    gradient: &[R],
    moments: &mut [Vec<R>; 2],
    t: i32,
    rate: f64,
) {
    let r = R::from_f64;
    let step = AdamStep {
        rate: r(rate),
        beta1: r(0.9),
        beta2: r(0.999),
        eps: r(1e-8),
        correction1: r(1.0 - 0.9f64.powi(t)),
        correction2: r(1.0 - 0.999f64.powi(t)),
    };
    let [m, v] = moments;
    let mut at = 0;
    model.visit(&mut |_, block| {
        let range = at..at + block.len();
        at = range.end;
        R::adam(block, &gradient[range.clone()], &mut m[range.clone()], &mut v[range], &step);
    });
}

fn normal(random: &mut ChaCha8Rng, rows: usize, columns: usize) -> Array2<f64> {
    Array2::from_shape_simple_fn((rows, columns), || random.sample(StandardNormal))
}

#[test]
fn gradients_are_the_slope_of_the_loss() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut model = TwoTower::<f64>::random(SMALL, &mut random);
    // Biases away from zero, so that all of them count.
    let mut point = flatten(&mut model);
    point.iter_mut().for_each(|p| *p += 0.1 * random.sample::<f64, _>(StandardNormal));
    unflatten(&mut model, &point);
    // Behind the four pairs are two items more, one of which is another one's own.
    let (mut users, items) = (normal(&mut random, 4, 5), normal(&mut random, 6, 4));
    users.row_mut(1).fill(0.0); // nothing is known of this user
    let (ids, weights) = ([7, 8, 7, 9, 8, 3], [1.0, 0.4, 2.0, 0.0]);
    let log_q = [-1.0, -3.0, -1.0, -2.0, -3.0, -4.0];

    let loss = |model: &TwoTower<f64>, users: ArrayView2<f64>, items: ArrayView2<f64>| {
        let (mut du, mut di) = (Array2::zeros((4, 5)), Array2::zeros((6, 4)));
        let (mut grads, mut work) = (TwoTower::zeros(SMALL), model.workspace());
        let pairs = Pairs { users, items, ids: &ids, log_q: &log_q, weights: &weights };
        let loss = model.gradients(&pairs, &mut work, &mut grads, du.view_mut(), di.view_mut());
        (loss, flatten(&mut grads), du, di)
    };
    let (_, gradient, du, di) = loss(&model, users.view(), items.view());
    assert_slope(&point, &gradient, |p| {
        let mut moved = TwoTower::zeros(SMALL);
        unflatten(&mut moved, p);
        loss(&moved, users.view(), items.view()).0
    });
    assert_slope(users.as_slice().unwrap(), du.as_slice().unwrap(), |x| {
        loss(&model, ArrayView2::from_shape((4, 5), x).unwrap(), items.view()).0
    });
    assert_slope(items.as_slice().unwrap(), di.as_slice().unwrap(), |x| {
        loss(&model, users.view(), ArrayView2::from_shape((6, 4), x).unwrap()).0
    });
}

#[test]
fn a_workspace_may_be_larger_than_the_batch_and_gradients_add_up() {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let model = TwoTower::<f64>::random(SMALL, &mut random);
    let (users, items) = (normal(&mut random, 9, 5), normal(&mut random, 9, 4));
    let ids: Vec<u64> = (0..9).collect();
    let (mut shared, mut grads) = (model.workspace(), TwoTower::zeros(SMALL));
    let step = |rows: usize, work: &mut Workspace<f64>, grads: &mut TwoTower<f64>| {
        let pairs = Pairs {
            users: users.slice(s![..rows, ..]),
            items: items.slice(s![..rows, ..]),
            ids: &ids[..rows],
            log_q: &[-1.0; 9][..rows],
            weights: &[1.0; 9][..rows],
        };
        let (mut du, mut di) = (Array2::zeros((rows, 5)), Array2::zeros((rows, 4)));
        (model.gradients(&pairs, work, grads, du.view_mut(), di.view_mut()), du, di)
    };
    step(9, &mut shared, &mut grads);
    let before = flatten(&mut grads);
    let again = step(3, &mut shared, &mut grads);
    let mut fresh = TwoTower::zeros(SMALL);
    assert_eq!(again, step(3, &mut model.workspace(), &mut fresh));
    for ((sum, before), part) in flatten(&mut grads).iter().zip(before).zip(flatten(&mut fresh)) {
        assert!((sum - before - part).abs() < 1e-12);
    }
    assert!(step(0, &mut shared, &mut grads).0.abs() < 1e-15, "no pairs, no loss");
}

#[test]
fn vectors_have_length_one_and_nothing_has_no_direction() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let model = TwoTower::<f32>::random(SMALL, &mut random);
    let inputs = normal(&mut random, 6, 5).mapv(|x| x as f32);
    let mut vectors = Array2::zeros((6, 3));
    model.users(inputs.view(), &mut model.workspace(), vectors.view_mut());
    for row in vectors.rows() {
        assert!((row.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-6);
    }
    // All biases are zero, and so is what they are added to.
    model.users(Array2::zeros((6, 5)).view(), &mut model.workspace(), vectors.view_mut());
    assert!(vectors.iter().all(|x| x.abs() < f32::MIN_POSITIVE));
}

fn fixture(path: &str) -> Value {
    let path = format!("{}/../tests/parity/{path}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value["data"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn matrix(value: &Value) -> Array2<f64> {
    let shape: Vec<usize> =
        value["shape"].as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect();
    Array2::from_shape_vec((shape[0], shape[1]), numbers(value)).unwrap()
}

#[track_caller]
fn assert_near(what: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 1e-9 * (1.0 + b.abs()), "{what}[{i}]: found {a}, PyTorch has {b}");
    }
}

#[test]
fn parity_with_pytorch() {
    let json = fixture("two_tower.json");
    let width = |name: &str| json["configuration"][name].as_u64().unwrap() as usize;
    let shape = Shape {
        user: width("user"),
        item: width("item"),
        hidden: width("hidden"),
        width: width("width"),
        temperature: json["configuration"]["temperature"].as_f64().unwrap(),
    };
    let mut model = TwoTower::<f64>::zeros(shape);
    model.visit(&mut |name, block| block.copy_from_slice(&numbers(&json["parameters"][name])));

    let (users, items) = (matrix(&json["inputs"]["users"]), matrix(&json["inputs"]["items"]));
    let ids: Vec<u64> = numbers(&json["inputs"]["ids"]).iter().map(|&id| id as u64).collect();
    let (log_q, weights) = (numbers(&json["inputs"]["log_q"]), numbers(&json["inputs"]["weights"]));
    let pairs = Pairs {
        users: users.view(),
        items: items.view(),
        ids: &ids,
        log_q: &log_q,
        weights: &weights,
    };
    let mut work = model.workspace();
    let mut step = |model: &TwoTower<f64>| {
        let (mut du, mut di) = (Array2::zeros(users.dim()), Array2::zeros(items.dim()));
        let mut grads = TwoTower::zeros(shape);
        let loss = model.gradients(&pairs, &mut work, &mut grads, du.view_mut(), di.view_mut());
        (loss, grads, du, di)
    };
    let (loss, mut grads, du, di) = step(&model);
    assert_near("loss", &[loss], &[json["loss"].as_f64().unwrap()]);
    grads.visit(&mut |name, block| assert_near(name, block, &numbers(&json["gradients"][name])));
    assert_near("users", du.as_slice().unwrap(), &numbers(&json["gradients"]["users"]));
    assert_near("items", di.as_slice().unwrap(), &numbers(&json["gradients"]["items"]));
    for (name, inputs) in [("user_vectors", &users), ("item_vectors", &items)] {
        let mut vectors = Array2::zeros((ids.len(), shape.width));
        let mut work = model.workspace();
        match name {
            "user_vectors" => model.users(inputs.view(), &mut work, vectors.view_mut()),
            _ => model.items(inputs.view(), &mut work, vectors.view_mut()),
        }
        assert_near(name, vectors.as_slice().unwrap(), &numbers(&json["outputs"][name]));
    }

    let size = flatten(&mut model).len();
    let mut moments = [vec![0.0; size], vec![0.0; size]];
    for (k, expected) in json["steps"].as_array().unwrap().iter().enumerate() {
        let gradient = flatten(&mut step(&model).1);
        adam(&mut model, &gradient, &mut moments, k as i32 + 1, 1e-3);
        assert_near(&format!("step {k}"), &[step(&model).0], &[expected.as_f64().unwrap()]);
    }
}

#[test]
fn pairs_can_be_learned_by_heart() {
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let mut model =
        TwoTower::<f32>::random(Shape { temperature: 0.05, ..Shape::of(12, 12) }, &mut random);
    let users = normal(&mut random, 64, 12).mapv(|x| x as f32);
    let items = normal(&mut random, 64, 12).mapv(|x| x as f32);
    let ids: Vec<u64> = (0..64).collect();
    let pairs = Pairs {
        users: users.view(),
        items: items.view(),
        ids: &ids,
        log_q: &[0.0; 64],
        weights: &[1.0; 64],
    };
    let mut work = model.workspace();
    let size = flatten(&mut model).len();
    let mut moments = [vec![0.0; size], vec![0.0; size]];
    let mut loss = f32::INFINITY;
    for t in 1..=500 {
        let (mut du, mut di) = (Array2::zeros((64, 12)), Array2::zeros((64, 12)));
        let mut grads = TwoTower::zeros(model.shape());
        loss = model.gradients(&pairs, &mut work, &mut grads, du.view_mut(), di.view_mut());
        adam(&mut model, &flatten(&mut grads), &mut moments, t, 3e-3);
    }
    assert!(loss < 1e-3, "loss {loss}");
}

/// Users of twenty tastes take items of their own taste: after a few hundred batches the index
/// finds those items, through the whole chain of towers, frequencies and codes.
#[test]
fn what_users_take_is_found_by_search() {
    const TASTES: usize = 20;
    const ITEMS: usize = 400;
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let shape = Shape { user: 16, item: 16, hidden: 32, width: 16, temperature: 0.1 };
    let mut model = TwoTower::<f32>::random(shape, &mut random);
    let mut features = |rows: usize, own: f64| {
        let noise = normal(&mut random, rows, 16).mapv(|x| (own * x) as f32);
        let tastes = normal(&mut random, TASTES, 16).mapv(|x| x as f32);
        Array2::from_shape_fn((rows, 16), |(i, j)| tastes[[i % TASTES, j]] + noise[[i, j]])
    };
    let (users, items) = (features(200, 0.3), features(ITEMS, 0.3));

    let mut random = ChaCha8Rng::seed_from_u64(6);
    let (mut work, mut log_q) = (model.workspace(), LogQ::new(0.01, 1000));
    let size = flatten(&mut model).len();
    let (mut moments, mut losses) = ([vec![0.0; size], vec![0.0; size]], Vec::new());
    for t in 1..=300 {
        let pairs: Vec<(usize, usize)> = (0..64)
            .map(|_| {
                let user = random.random_range(0..200);
                (user, random.random_range(0..ITEMS / TASTES) * TASTES + user % TASTES)
            })
            .collect();
        let pick = |from: &Array2<f32>, which: &dyn Fn(usize) -> usize| {
            Array2::from_shape_fn((64, 16), |(i, j)| from[[which(i), j]])
        };
        let ids: Vec<u64> = pairs.iter().map(|pair| pair.1 as u64).collect();
        log_q.observe(&ids);
        let frequencies: Vec<f32> =
            ids.iter().map(|&id| log_q.log_count(id, 1.0, 0.0) as f32).collect();
        let (x, y) = (pick(&users, &|i| pairs[i].0), pick(&items, &|i| pairs[i].1));
        let pairs = Pairs {
            users: x.view(),
            items: y.view(),
            ids: &ids,
            log_q: &frequencies,
            weights: &[1.0; 64],
        };
        let (mut du, mut di) = (Array2::zeros((64, 16)), Array2::zeros((64, 16)));
        let mut grads = TwoTower::zeros(shape);
        losses.push(model.gradients(&pairs, &mut work, &mut grads, du.view_mut(), di.view_mut()));
        adam(&mut model, &flatten(&mut grads), &mut moments, t, 3e-3);
    }
    assert!(losses[299] < 0.5 * losses[0], "from {} to {}", losses[0], losses[299]);

    let (mut u, mut v) = (Array2::zeros((200, 16)), Array2::zeros((ITEMS, 16)));
    model.users(users.view(), &mut work, u.view_mut());
    model.items(items.view(), &mut work, v.view_mut());
    let mut index = Index::new(16);
    for (id, vector) in v.rows().into_iter().enumerate() {
        index.upsert(id as u64, vector.as_slice().unwrap()).unwrap();
    }
    let (mut scratch, mut hits, mut right) = (Scratch::default(), Vec::new(), 0);
    for (user, query) in u.rows().into_iter().enumerate() {
        index.search(query.as_slice().unwrap(), 10, |_| true, &mut scratch, &mut hits).unwrap();
        right += hits.iter().filter(|hit| hit.id as usize % TASTES == user % TASTES).count();
    }
    assert!(right >= 1_900, "{right} of 2000 hits are of the user's taste; chance gives 100");
}
