//! Layers and graphs against their PyTorch originals (`tests/parity`): outputs, loss, every gradient, ten steps of Adam; relative difference below 1e-9.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use sluice_features::example::{About, Batch, LabelMode};
use sluice_features::ids::{EventId, ItemId, UserId};
use sluice_features::schema::{EventField, Field, Kind, Missing, Schema, Source, Table};
use sluice_features::time::EventTime;

use crate::funnel::{Funnel, FunnelTape, Targets};
use crate::interest::{Attention, AttentionTape, Din, DinTape, History, Normalise};
use crate::layers::Grid;
use crate::model::{Model, Workspace};
use crate::optimizers::Adam;
use crate::params::{Layout, Params};
use crate::sharing::{Sharing, SharingTape};
use crate::spec::{CrossingSpec, ExpertNorm, FunnelSpec, InterestSpec, ModelSpec, SharingSpec};

#[derive(Deserialize)]
struct Array {
    shape: Vec<usize>,
    data: Vec<f64>,
}

type Arrays = BTreeMap<String, Array>;

#[derive(Deserialize)]
struct Fixture {
    parameters: Arrays,
    inputs: Arrays,
    outputs: Arrays,
    loss: f64,
    gradients: Arrays,
    steps: Vec<f64>,
}

/// The blocks that hold a parameter of the original: its parts along the first axis, in order.
type Names = BTreeMap<&'static str, Vec<String>>;

/// Loss, gradients of the parameters, and values by their name in the fixture (`d` in front of gradients).
type Outcome = (f64, Params<f64>, Vec<(String, Vec<f64>)>);

fn fixture(name: &str) -> Fixture {
    let path = format!("{}/../tests/parity/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

impl Fixture {
    fn input(&self, name: &str) -> Grid<f64> {
        let Array { shape, data } = &self.inputs[name];
        let columns = shape[1..].iter().product();
        let mut grid = Grid::default();
        grid.reshape(shape[0], columns);
        grid.values_mut().copy_from_slice(data);
        grid
    }

    fn starts(&self, owner: &str, examples: usize) -> Vec<u32> {
        let owners = &self.inputs[owner].data;
        (0..=examples).map(|i| owners.iter().filter(|&&o| o < i as f64).count() as u32).collect()
    }

    fn labels(&self) -> Vec<f32> {
        self.inputs["labels"].data.iter().map(|&y| y as f32).collect()
    }
}

fn stacked(pattern: &str, count: usize) -> Vec<String> {
    (0..count).map(|k| pattern.replace('#', &k.to_string())).collect()
}

fn funnel_names(tasks: usize, children: &[usize]) -> Names {
    let info = |kind: &str| children.iter().map(|t| format!("funnel.{t}.info.{kind}")).collect();
    BTreeMap::from([
        ("funnel.w1", stacked("funnel.#.1.weight", tasks)),
        ("funnel.b1", stacked("funnel.#.1.bias", tasks)),
        ("funnel.w2", stacked("funnel.#.2.weight", tasks)),
        ("funnel.b2", stacked("funnel.#.2.bias", tasks)),
        ("funnel.info", info("weight")),
        ("funnel.info_bias", info("bias")),
        ("funnel.ait", vec!["funnel.transfer".into()]),
        ("funnel.out", stacked("funnel.#.head", tasks)),
        ("funnel.out_bias", vec!["funnel.bias".into()]),
    ])
}

fn sharing_names(layer: [&'static str; 6], experts: usize) -> Names {
    let one = |name: &str| vec![format!("sharing.0.{name}")];
    let [w1, b1, w2, b2, gate, gate_bias] = layer;
    BTreeMap::from([
        (w1, one("0.1.weight")),
        (b1, one("0.1.bias")),
        (w2, stacked("sharing.0.expert.#.2.weight", experts)),
        (b2, stacked("sharing.0.expert.#.2.bias", experts)),
        (gate, one("0.gate.weight")),
        (gate_bias, one("0.gate.bias")),
    ])
}

const PLE: [&str; 6] = ["ple.w1", "ple.b1", "ple.w2", "ple.b2", "ple.gate", "ple.gate_bias"];

fn din_names(name: &str) -> Names {
    let block = |k: usize, kind: &str| vec![format!("{name}.{k}.{kind}")];
    BTreeMap::from([
        ("din.w1", block(1, "weight")),
        ("din.b1", block(1, "bias")),
        ("din.w2", block(2, "weight")),
        ("din.b2", block(2, "bias")),
        ("din.w3", block(3, "weight")),
        ("din.b3", block(3, "bias")),
    ])
}

#[track_caller]
fn same(name: &str, ours: &[f64], theirs: &[f64]) {
    assert_eq!(ours.len(), theirs.len(), "numbers of {name}");
    for (k, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= 1e-9 * b.abs() + 1e-12, "{name}[{k}]: {a}, PyTorch {b}");
    }
}

/// The numbers of a parameter of the original.
fn collect(params: &mut Params<f64>, blocks: &[String]) -> Vec<f64> {
    let mut found = BTreeMap::new();
    params.visit(&mut |name, block| drop(found.insert(name.to_owned(), block.to_vec())));
    blocks.iter().flat_map(|name| found[name].clone()).collect()
}

fn judge(fixture: &Fixture, layout: Layout, names: &Names, run: impl Fn(&Params<f64>) -> Outcome) {
    let wanted: usize = fixture.parameters.values().map(|array| array.data.len()).sum();
    assert_eq!(layout.length(), wanted, "all parameters, and no others");
    let mut params = Params::zeros(Arc::new(layout));
    for (name, array) in &fixture.parameters {
        let blocks = &names[name.as_str()];
        let size = array.data.len() / blocks.len();
        params.visit(&mut |block, values| {
            if let Some(k) = blocks.iter().position(|name| name == block) {
                values.copy_from_slice(&array.data[k * size..(k + 1) * size]);
            }
        });
    }
    let (loss, mut grads, values) = run(&params);
    same("loss", &[loss], &[fixture.loss]);
    for (name, ours) in &values {
        let theirs = match name.strip_prefix("d ") {
            Some(name) => &fixture.gradients[name],
            None => &fixture.outputs[name],
        };
        same(name, ours, &theirs.data);
    }
    for name in fixture.parameters.keys() {
        let ours = collect(&mut grads, &names[name.as_str()]);
        same(&format!("gradient of {name}"), &ours, &fixture.gradients[name].data);
    }
    let mut adam = Adam::new(1e-3, params.values().len());
    for (step, &wanted) in fixture.steps.iter().enumerate() {
        let (_, grads, _) = run(&params);
        adam.step(params.values_mut(), grads.values());
        same(&format!("loss after {} steps", step + 1), &[run(&params).0], &[wanted]);
    }
}

/// `mean (pooled - wanted)²`, and the gradient of `pooled`.
fn squares(pooled: &Grid<f64>, wanted: &Grid<f64>) -> (f64, Grid<f64>) {
    let (mut gradient, count) = (pooled.clone(), pooled.values().len() as f64);
    let mut loss = 0.0;
    for (p, w) in gradient.values_mut().iter_mut().zip(wanted.values()) {
        loss += (*p - w).powi(2) / count;
        *p = 2.0 * (*p - w) / count;
    }
    (loss, gradient)
}

#[test]
fn din_is_that_of_pytorch() {
    let fixture = fixture("din");
    let mut layout = Layout::default();
    let unit = Din::new(&mut layout, "din", 4, [80, 40], Normalise::None);
    let (target, e) = (fixture.input("target"), fixture.input("behaviours"));
    let (starts, wanted) = (fixture.starts("owner", target.rows()), fixture.input("wanted"));
    judge(&fixture, layout, &din_names("din"), |params| {
        let history = History { starts: &starts, behaviours: e.view() };
        let (mut tape, mut pooled) = (DinTape::default(), target.clone());
        unit.forward(params, target.view(), &history, &mut tape, pooled.view_mut());
        let (loss, d) = squares(&pooled, &wanted);
        let (mut grads, mut dt, mut de) =
            (Params::zeros(params.layout().clone()), target.clone(), Grid::default());
        dt.values_mut().fill(0.0);
        let (t, dtarget) = (target.view(), dt.view_mut());
        unit.backward(params, t, &history, &mut tape, d.view(), &mut grads, dtarget, &mut de);
        let values = [("pooled", pooled), ("d pooled", d), ("d target", dt), ("d behaviours", de)];
        (loss, grads, values.map(|(name, grid)| (name.into(), grid.values().to_vec())).into())
    });
}

#[test]
fn attention_is_that_of_pytorch() {
    let fixture = fixture("sim");
    let mut layout = Layout::default();
    let layer = Attention::new(&mut layout, "sim", 8, 4, 2, 4);
    let names = BTreeMap::from([
        ("sim.key", vec!["sim.key".to_owned()]),
        ("sim.query", vec!["sim.query".to_owned()]),
    ]);
    let (target, e) = (fixture.input("target"), fixture.input("behaviours"));
    let (starts, wanted) = (fixture.starts("owner", target.rows()), fixture.input("wanted"));
    judge(&fixture, layout, &names, |params| {
        let history = History { starts: &starts, behaviours: e.view() };
        let (mut tape, mut pooled) = (AttentionTape::default(), wanted.clone());
        layer.forward(params, target.view(), &history, &mut tape, pooled.view_mut());
        let (loss, d) = squares(&pooled, &wanted);
        let (mut grads, mut dt, mut de) =
            (Params::zeros(params.layout().clone()), target.clone(), Grid::default());
        dt.values_mut().fill(0.0);
        let (t, dtarget) = (target.view(), dt.view_mut());
        layer.backward(params, t, &history, &mut tape, d.view(), &mut grads, dtarget, &mut de);
        let values = [("pooled", pooled), ("d pooled", d), ("d target", dt), ("d behaviours", de)];
        (loss, grads, values.map(|(name, grid)| (name.into(), grid.values().to_vec())).into())
    });
}

/// Labels of examples that are all final.
struct Finals {
    labels: Vec<f32>,
    modes: Vec<LabelMode>,
    tasks: usize,
}

impl Finals {
    fn new(labels: Vec<f32>, tasks: usize) -> Self {
        Self { modes: vec![LabelMode::Final; labels.len()], labels, tasks }
    }

    fn targets(&self) -> Targets<'_> {
        let labelled = self.labels.len() / self.tasks;
        Targets { labels: &self.labels, modes: &self.modes, labelled }
    }
}

const TREE: [Option<usize>; 3] = [None, Some(0), Some(0)];
const CHAIN: [Option<usize>; 4] = [None, Some(0), Some(0), Some(1)];

fn shared(name: &str, spec: &SharingSpec, layer: [&'static str; 6], experts: usize) {
    let fixture = fixture(name);
    let (x, finals) = (fixture.input("x"), Finals::new(fixture.labels(), 3));
    let mut layout = Layout::default();
    let sharing = Sharing::build(&mut layout, spec, 8, 3).unwrap();
    let head = FunnelSpec::Independent { tower: vec![5, 4] };
    let funnel = Funnel::new(&mut layout, &head, &TREE, Some(5), &[0.5; 3]);
    let mut names = funnel_names(3, &[]);
    names.append(&mut sharing_names(layer, experts));
    judge(&fixture, layout, &names, |params| {
        let (mut below, mut above) = (SharingTape::default(), FunnelTape::default());
        sharing.forward(params, x.view(), &mut below);
        funnel.forward(params, sharing.streams(&below), x.rows(), None, &mut above);
        let mixed = sharing.streams(&below).iter().flat_map(|s| s.values().to_vec()).collect();
        let p = above.p().values().to_vec();
        let (mut grads, mut dx) = (Params::zeros(params.layout().clone()), Grid::default());
        let mut loss = [0.0; 3];
        let (streams, dstreams) = sharing.dstreams(&mut below);
        let targets = finals.targets();
        funnel
            .backward(params, streams, &targets, &mut above, &mut grads, dstreams, None, &mut loss);
        let dmixed = dstreams.iter().flat_map(|s| s.values().to_vec()).collect();
        sharing.backward(params, x.view(), &mut below, &mut grads, &mut dx);
        let values = [
            ("mixed", mixed),
            ("probabilities", p),
            ("d mixed", dmixed),
            ("d x", dx.values().to_vec()),
        ];
        (loss.iter().sum(), grads, values.map(|(name, values)| (name.into(), values)).into())
    });
}

#[test]
fn mmoe_is_that_of_pytorch() {
    let spec = SharingSpec::Mmoe { experts: 3, hidden: vec![6, 5], normalise: ExpertNorm::None };
    let layer = ["mmoe.w1", "mmoe.b1", "mmoe.w2", "mmoe.b2", "mmoe.gate", "mmoe.gate_bias"];
    shared("mmoe", &spec, layer, 3);
}

#[test]
fn ple_is_that_of_pytorch() {
    let (hidden, normalise) = (vec![6, 5], ExpertNorm::None);
    let spec = SharingSpec::Ple { levels: 1, shared: 2, own: 1, hidden, normalise };
    shared("ple", &spec, PLE, 5);
}

fn head(name: &str, spec: &FunnelSpec) {
    let fixture = fixture(name);
    let finals = Finals::new(fixture.labels(), 4);
    let mixed = &fixture.inputs["mixed"];
    let streams: Vec<Grid<f64>> = mixed
        .data
        .chunks(mixed.data.len() / 4)
        .map(|values| {
            let mut grid = Grid::default();
            grid.reshape(5, 6);
            grid.values_mut().copy_from_slice(values);
            grid
        })
        .collect();
    let mut layout = Layout::default();
    let funnel = Funnel::new(&mut layout, spec, &CHAIN, Some(6), &[0.5; 4]);
    judge(&fixture, layout, &funnel_names(4, &[1, 2, 3]), |params| {
        let mut tape = FunnelTape::default();
        funnel.forward(params, &streams, 5, None, &mut tape);
        let p = tape.p().values().to_vec();
        let mut grads = Params::zeros(params.layout().clone());
        let (mut dstreams, mut dlogits, mut loss) =
            (vec![Grid::default(); 4], Grid::default(), [0.0; 4]);
        dstreams.iter_mut().for_each(|grid| grid.zero(5, 6));
        dlogits.zero(5, 4);
        let (targets, dextra) = (finals.targets(), Some(dlogits.view_mut()));
        funnel.backward(
            params,
            &streams,
            &targets,
            &mut tape,
            &mut grads,
            &mut dstreams,
            dextra,
            &mut loss,
        );
        let dmixed = dstreams.iter().flat_map(|s| s.values().to_vec()).collect();
        let values =
            [("probabilities", p), ("d logits", dlogits.values().to_vec()), ("d mixed", dmixed)];
        (loss.iter().sum(), grads, values.map(|(name, values)| (name.into(), values)).into())
    });
}

#[test]
fn esmm_is_that_of_pytorch() {
    head("esmm", &FunnelSpec::Esmm { tower: vec![5, 4] });
}

#[test]
fn aitm_is_that_of_pytorch() {
    head("aitm", &FunnelSpec::Aitm { tower: vec![5, 4], calibrator: 0.6 });
}

/// The reference graph's schema: three fields of width 4, the candidate is the first and the third.
fn reference() -> (ModelSpec, Schema) {
    let spec = ModelSpec {
        interest: InterestSpec::Sim {
            limit: 50,
            hidden: [10, 6],
            normalise: Normalise::None,
            matching: 50,
            heads: 2,
            width: 4,
        },
        crossing: CrossingSpec::None {},
        sharing: SharingSpec::Ple {
            levels: 1,
            shared: 2,
            own: 1,
            hidden: vec![6, 5],
            normalise: ExpertNorm::None,
        },
        funnel: FunnelSpec::Aitm { tower: vec![5, 4], calibrator: 0.6 },
        ..ModelSpec::default()
    };
    let field = |source, table| Field {
        name: "field".into(),
        source: Source::Event(source),
        kind: Kind::Category,
        table,
        missing: Missing::Own,
    };
    let schema = Schema {
        fields: vec![
            field(EventField::Item, 0),
            field(EventField::User, 2),
            field(EventField::Category, 1),
        ],
        tables: vec![Table { name: "any".into(), width: 4 }; 4],
        counters: vec![],
        lookups: spec.lookups(),
        read: vec![true],
        item_table: 0,
        category_table: 1,
        gap_table: 3,
        tasks: 3,
    };
    (spec, schema)
}

/// Every occurrence gets a key of its own, in the order of the fixture's numbers: fields, recent behaviours, matches.
fn occurrences(fixture: &Fixture) -> (Batch, Vec<f64>) {
    let mut next = 0;
    let mut key = || {
        next += 1;
        next
    };
    let mut batch = Batch::new(0, 2);
    batch.keys.extend((0..15).map(|_| key()));
    for (look, (owner, parts)) in [("recent_owner", 2), ("match_owner", 3)].into_iter().enumerate()
    {
        let history = &mut batch.histories[look];
        history.starts = fixture.starts(owner, 5);
        for _ in 0..fixture.inputs[owner].data.len() {
            history.items.push(key());
            history.categories.push(key());
            history.gaps.push(if parts == 3 { key() } else { 0 });
        }
    }
    batch.labels = fixture.labels();
    batch.modes = vec![LabelMode::Final; 15];
    batch.about = vec![
        About {
            impression: EventId(0),
            user: UserId(0),
            item: ItemId(0),
            time: EventTime(0),
            new_item: false,
            offered: true,
        };
        5
    ];
    let numbers = ["fields", "recent", "match"].map(|name| fixture.inputs[name].data.clone());
    (batch, numbers.concat())
}

#[test]
fn the_reference_graph_is_that_of_pytorch() {
    let fixture = fixture("reference");
    let (spec, schema) = reference();
    let model: Model<f64> = Model::build(&spec, &schema, &TREE, &[0.5; 3], 1).unwrap();
    let (batch, numbers) = occurrences(&fixture);
    let mut names = funnel_names(3, &[1, 2]);
    names.append(&mut sharing_names(PLE, 5));
    names.append(&mut din_names("interest.din"));
    names.insert("sim.key", vec!["interest.sim.key".into()]);
    names.insert("sim.query", vec!["interest.sim.query".into()]);
    let layout = (**model.params().layout()).clone();
    judge(&fixture, layout, &names, |params| {
        let mut model = model.clone();
        model.params_mut().values_mut().copy_from_slice(params.values());
        let mut workspace = Workspace::default();
        let (rows, pass) = workspace.split();
        rows.prepare(model.plan(), &batch);
        rows.fill(|_, key, k| numbers[(key as usize - 1) * 4 + k]);
        model.forward(&batch, &(0..5), rows, pass, &mut ());
        let p = pass.probabilities().to_vec();
        let (mut grads, mut loss) = (Params::zeros(params.layout().clone()), [0.0; 3]);
        model.backward(&batch, &(0..5), 5, rows, pass, &mut grads, &mut loss, &mut ());
        let mut rest = vec![0.0; numbers.len()];
        for (row, &key) in rows.keys(0).iter().enumerate() {
            if key > 0 {
                let at = (key as usize - 1) * 4;
                rest[at..at + 4].copy_from_slice(pass.drows[0].row(row));
            }
        }
        let mut values = vec![("probabilities".to_owned(), p)];
        for name in ["fields", "recent", "match"] {
            let others = rest.split_off(fixture.inputs[name].data.len());
            values.push((format!("d {name}"), std::mem::replace(&mut rest, others)));
        }
        (loss.iter().sum(), grads, values)
    });
}
