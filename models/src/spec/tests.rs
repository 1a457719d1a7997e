use super::*;
use crate::model::testing::{PARENTS, combinations, schema, with_variances};
use sluice_features::schema::Schema;

fn problems(spec: &ModelSpec, schema: &Schema) -> Vec<String> {
    match spec.validate(schema, &PARENTS) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.iter().map(SpecError::to_string).collect(),
    }
}

#[test]
fn entries_are_chosen_by_name() {
    let text = r#"{
        "interest": {"name": "din", "normalise": "softmax"},
        "crossing": {"name": "fm+linear"},
        "sharing": {"name": "mmoe", "experts": 6, "normalise": "layer-norm"},
        "funnel": {"name": "esmm", "tower": [8]}
    }"#;
    let spec: ModelSpec = serde_json::from_str(text).unwrap();
    let normalise = Normalise::Softmax;
    assert_eq!(spec.interest, InterestSpec::Din { limit: 50, hidden: [80, 40], normalise });
    assert_eq!(spec.crossing, CrossingSpec::FmLinear {});
    assert_eq!(spec.funnel.tower(), [8]);
    assert_eq!(spec.learning, LearningSpec::default());
    assert_eq!(spec.lookups(), [Lookup::Newest { limit: 50 }]);
}

#[test]
fn every_spec_survives_its_text() {
    for spec in combinations().into_iter().chain(with_variances()) {
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<ModelSpec>(&text).unwrap(), spec, "{text}");
    }
}

#[test]
fn unknown_names_and_keys_are_refused_with_the_choices() {
    let refused = |text: &str| serde_json::from_str::<ModelSpec>(text).unwrap_err().to_string();
    let error = refused(r#"{"sharing": {"name": "moe"}}"#);
    assert!(error.contains("`shared-bottom`, `mmoe`, `ple`"), "{error}");
    let error = refused(r#"{"crossing": {"name": "none", "width": 8}}"#);
    assert!(error.contains("width"), "{error}");
    let error = refused(r#"{"interset": {"name": "din"}}"#);
    assert!(error.contains("`interest`"), "{error}");
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let mut spec = ModelSpec {
        crossing: CrossingSpec::Fm {},
        sharing: SharingSpec::Ple {
            levels: 0,
            shared: 0,
            own: 0,
            hidden: vec![],
            normalise: ExpertNorm::None,
        },
        funnel: FunnelSpec::Aitm { tower: vec![], calibrator: -1.0 },
        ..ModelSpec::default()
    };
    spec.learning.dense_rate = f64::NAN;
    let mut schema = schema(&spec);
    schema.tables[2].width = 5;
    schema.fields.remove(3);
    let found = problems(&spec, &schema);
    for place in [
        "interest.name",
        "crossing.name",
        "sharing.levels",
        "sharing.shared",
        "sharing.hidden",
        "funnel.tower",
        "funnel.calibrator",
        "learning.dense_rate",
    ] {
        let named = found.iter().any(|problem| problem.starts_with(&format!("{place}: ")));
        assert!(named, "{place} in {found:#?}");
    }
}

#[test]
fn slots_that_do_not_fit_together_are_refused() {
    let bare = ModelSpec { sharing: SharingSpec::None {}, ..ModelSpec::default() };
    let found = problems(&bare, &schema(&bare)).join("\n");
    assert!(found.contains("needs a crossing") && found.contains("aitm passes on"), "{found}");
    let looks = schema(&bare);
    let found = problems(&ModelSpec::default(), &looks).join("\n");
    assert!(found.contains("looks up"), "{found}");
    let tree = ModelSpec::default().validate(&schema(&ModelSpec::default()), &[Some(0)]);
    assert_eq!(tree.unwrap_err().len(), 2);
}

#[test]
fn variances_need_a_model_without_a_deep_part_and_a_prior() {
    let mut spec = ModelSpec::default();
    spec.learning.method = Method::Bayes;
    let found = problems(&spec, &schema(&spec));
    assert!(found.len() == 1 && found[0].starts_with("learning.method: bayes"), "{found:?}");
    for (deviation, right) in [(0.0, false), (f64::NAN, false), (2.0, true), (20.0, false)] {
        let mut spec = with_variances().remove(0);
        let [weights, numbers, rows] = [deviation; 3];
        spec.learning.prior = PriorSpec { weights, numbers, rows, ..PriorSpec::default() };
        assert_eq!(problems(&spec, &schema(&spec)).len(), if right { 0 } else { 3 });
        spec.learning.prior = PriorSpec { child: deviation, ..PriorSpec::default() };
        assert_eq!(problems(&spec, &schema(&spec)).len(), 1, "at most 1");
        spec.learning.prior = PriorSpec { least: deviation, ..PriorSpec::default() };
        assert_eq!(problems(&spec, &schema(&spec)).is_empty(), deviation == 0.0);
    }
}
