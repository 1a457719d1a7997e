use std::cell::RefCell;

use sluice_features::example::LabelMode;
use sluice_features::schema::{EventField, Field, Kind, Missing, Source, Table};

use super::testing::{PARENTS, PRIORS, batch, combinations, schema};
use super::*;
use crate::funnel::labelled;
use crate::gradcheck::assert_slope;
use crate::spec::FunnelSpec;

/// A model in double precision with every number away from zero, and a batch with its rows.
struct Bench {
    spec: ModelSpec,
    model: Model<f64>,
    batch: Batch,
    rows: Rows<f64>,
}

fn bench(spec: &ModelSpec, size: usize) -> Bench {
    let schema = schema(spec);
    let mut model = Model::build(spec, &schema, &PARENTS, &PRIORS, 3).unwrap();
    for (i, value) in model.params_mut().values_mut().iter_mut().enumerate() {
        *value = *value * 0.7 + 0.4 * (i as f64 * 0.83 + 0.3).sin();
    }
    let (batch, mut rows) = (batch(&schema, size), Rows::default());
    rows.prepare(model.plan(), &batch);
    rows.fill(|store, key, k| ((key % 1000) as f64 + store as f64 * 0.3 + k as f64 * 1.9).sin());
    Bench { spec: spec.clone(), model, batch, rows }
}

impl Bench {
    fn probabilities(&self, slice: Range<usize>, pass: &mut Pass<f64>) -> Vec<f64> {
        self.model.forward(&self.batch, &slice, &self.rows, pass, &mut ());
        pass.probabilities().to_vec()
    }

    /// The loss as its definition has it, from probabilities; `constant` are those that the weights are made of.
    fn loss(&self, p: &[f64], constant: &[f64]) -> f64 {
        let (tasks, mut sum) = (PARENTS.len(), 0.0);
        for k in 0..p.len() {
            let (i, t) = (k / tasks, k % tasks);
            let (own, stopped) = (p[k], constant[k]);
            let y = f64::from(self.batch.labels[k]);
            let weight = match self.batch.modes[k] {
                LabelMode::Masked => continue,
                LabelMode::Final => 1.0,
                LabelMode::FnwNegative => (1.0 - stopped) * (1.0 + stopped),
                LabelMode::FnwPositive => 1.0 + stopped,
            };
            sum -= weight * (y * own.ln() + (1.0 - y) * (1.0 - own).ln());
            if let (FunnelSpec::Aitm { calibrator, .. }, Some(parent)) =
                (&self.spec.funnel, PARENTS[t])
            {
                sum += calibrator * (p[k] - p[i * tasks + parent]).max(0.0);
            }
        }
        sum / labelled(&self.batch) as f64
    }

    fn gradients(&self, slice: Range<usize>) -> (Params<f64>, Vec<Grid<f64>>, f64) {
        let mut pass = Pass::default();
        self.model.forward(&self.batch, &slice, &self.rows, &mut pass, &mut ());
        let mut grads = Params::zeros(self.model.params().layout().clone());
        // What a step leaves behind is overwritten, not added to.
        grads.values_mut().fill(f64::NAN);
        let mut loss = vec![0.0; PARENTS.len()];
        let known = labelled(&self.batch);
        let (batch, rows) = (&self.batch, &self.rows);
        self.model.backward(batch, &slice, known, rows, &mut pass, &mut grads, &mut loss, &mut ());
        (grads, pass.drows, loss.iter().sum())
    }
}

#[test]
fn gradients_of_every_combination_are_the_slope_of_the_loss() {
    let specs = combinations();
    assert!(specs.len() > 100, "{}", specs.len());
    for spec in specs {
        let mut bench = bench(&spec, 5);
        let pass = RefCell::new(Pass::default());
        let constant = bench.probabilities(0..5, &mut pass.borrow_mut());
        let (grads, drows, loss) = bench.gradients(0..5);
        let wanted = bench.loss(&constant, &constant);
        assert!((loss - wanted).abs() < 1e-12 * (1.0 + wanted), "{loss} {wanted} {spec:?}");

        let point = bench.model.params().values().to_vec();
        let at = RefCell::new(bench);
        assert_slope(&point, grads.values(), |values| {
            let mut bench = at.borrow_mut();
            bench.model.params_mut().values_mut().copy_from_slice(values);
            let p = bench.probabilities(0..5, &mut pass.borrow_mut());
            bench.loss(&p, &constant)
        });
        bench = at.into_inner();
        bench.model.params_mut().values_mut().copy_from_slice(&point);
        for (store, gradient) in drows.iter().enumerate() {
            let point = bench.rows.numbers(store).to_vec();
            let at = RefCell::new(&mut bench);
            let nothing = at.borrow().rows.nothing(store);
            let slope = |values: &[f64]| {
                let mut bench = at.borrow_mut();
                bench.rows.numbers(store).copy_from_slice(values);
                if let Some(row) = nothing.clone() {
                    bench.rows.numbers(store)[row].fill(0.0);
                }
                let p = bench.probabilities(0..5, &mut pass.borrow_mut());
                bench.loss(&p, &constant)
            };
            assert_slope(&point, gradient.values(), slope);
            bench.rows.numbers(store).copy_from_slice(&point);
        }
    }
}

#[test]
fn slices_of_a_batch_add_up_to_the_batch() {
    for spec in combinations().iter().step_by(7) {
        let bench = bench(spec, 9);
        let mut pass = Pass::default();
        let whole = bench.probabilities(0..9, &mut pass);
        let parts = [0..4, 4..5, 5..9].map(|slice| bench.probabilities(slice, &mut pass)).concat();
        assert_eq!(whole, parts, "a forward pass of a slice is that of the batch");
        let (all, rows, loss) = bench.gradients(0..9);
        let (first, second) = (bench.gradients(0..4), bench.gradients(4..9));
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12 * (1.0 + a.abs()), "{a} {b}");
        close(loss, first.2 + second.2);
        for (k, &g) in all.values().iter().enumerate() {
            close(g, first.0.values()[k] + second.0.values()[k]);
        }
        for (store, rows) in rows.iter().enumerate() {
            for (k, &g) in rows.values().iter().enumerate() {
                close(g, first.1[store].values()[k] + second.1[store].values()[k]);
            }
        }
    }
}

#[test]
fn an_example_does_not_depend_on_its_neighbours() {
    let spec = ModelSpec::default();
    let bench = bench(&spec, 8);
    let mut pass = Pass::default();
    let all = bench.probabilities(0..8, &mut pass);
    for i in 0..8 {
        let alone = bench.probabilities(i..i + 1, &mut pass);
        assert_eq!(alone, all[i * PARENTS.len()..(i + 1) * PARENTS.len()]);
    }
}

#[test]
fn the_reference_graph_has_its_parameters() {
    let spec = ModelSpec::reference();
    let key = |source: Source, table| Field {
        name: "field".into(),
        source,
        kind: Kind::Category,
        table,
        missing: Missing::Own,
    };
    let mut fields =
        vec![key(Source::Event(EventField::Item), 0), key(Source::Event(EventField::Category), 1)];
    fields.extend(vec![key(Source::Event(EventField::User), 2); 32]);
    let schema = Schema {
        fields,
        tables: vec![Table { name: "any".into(), width: 16 }; 4],
        gap_table: 3,
        tasks: 3,
        ..schema(&spec)
    };
    let priors = [0.4, 0.3, 0.02];
    let model: Model<f32> =
        Model::build(&spec, &schema, &[None, Some(0), Some(0)], &priors, 1).unwrap();
    assert_eq!(model.params().layout().length(), 519_519);
    assert_eq!(model.plan().stores.len(), 1);
}
