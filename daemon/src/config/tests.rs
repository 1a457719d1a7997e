//! The reference against the code, layers, and golden lists of mistakes.

use std::collections::BTreeSet;

use sluice_features::attributes::AttributeKey;
use sluice_features::schema::{EventField, Kind, Missing, Reading, Source, Subject};
use toml::{Table, Value};

use super::*;

fn mistakes(file: &str) -> String {
    Config::build(file, &[]).unwrap_err().to_string()
}

fn here() -> Result<Available, String> {
    Ok(Available { bytes: 10 << 30, said_by: "a test".into() })
}

fn variable(name: &str, value: &str) -> (String, String) {
    (name.into(), value.into())
}

#[test]
fn the_reference_equals_the_defaults_of_the_code() {
    let reference: file::Config = toml::from_str(REFERENCE).unwrap();
    assert_eq!(reference, file::Config::default());
    let written: Table = REFERENCE.parse().unwrap();
    assert_eq!(written, Table::try_from(file::Config::default()).unwrap(), "a key is missing");
}

#[test]
fn every_key_of_the_reference_is_explained() {
    let (mut explained, mut section) = (BTreeSet::new(), String::new());
    let mut above = "";
    for line in REFERENCE.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            let path = format!("{section}.{key}");
            if !explained.contains(&path) {
                assert!(
                    above.starts_with("# ") && above.ends_with(['.', ':', ')']),
                    "{path}: {above}"
                );
            }
            explained.insert(path);
        }
        above = line;
    }
    let full = file::Field {
        width: Some(1),
        scale: Some(1.0),
        shift: Some(1.0),
        buckets: Some(1),
        unit: Some(Period::seconds(1)),
        most: Some(1),
        missing: Some(Value::Integer(1)),
        ..file::Field::default()
    };
    for key in Table::try_from(full).unwrap().keys() {
        assert!(REFERENCE.contains(&format!("# {key} = ")), "fields.{key}");
    }
}

#[test]
fn the_defaults_are_a_generic_shop() {
    let config = Config::build("", &[]).unwrap();
    let tasks: Vec<&str> = config.funnel.tasks().iter().map(|task| task.name.as_str()).collect();
    assert_eq!(tasks, ["click", "cart", "purchase"]);
    assert_eq!(config.funnel.parents(), [None, Some(0), Some(1)]);
    assert_eq!(config.schema.read, [true, true, true]);
    assert_eq!(config.schema.counters.len(), 15);
    assert_eq!(config.schema.key_fields().len(), 6);
    assert_eq!(config.schema.number_fields().len(), 15);
    assert_eq!((config.schema.target_item(), config.schema.target_category()), (Some(1), Some(2)));
    assert_eq!(config.schema.fields[20].name, "purchase.user+category");
    assert_eq!(config.schema.counters[14].by, [Subject::User, Subject::Category]);
    assert_eq!(config.kafka.topics.dead_letter, "sluice.dead-letter");
    assert_eq!(config.model.spec.embeddings.expiry, Some(Period::seconds(90 * 86_400).span()));
    assert_eq!(config.learn.max_age, std::time::Duration::from_millis(200));
}

#[test]
fn the_environment_stands_above_the_file_above_the_reference() {
    let file = "[kafka]\nbrokers = \"file:1\"\ngroup = \"file\"\n[learn]\nbatch = 64\n";
    let environment = [
        variable("SLUICE__KAFKA__BROKERS", "env:1,env:2"),
        variable("SLUICE__LEARN__BATCH", "32"),
        variable("SLUICE__KAFKA__PREFIX", "123"),
        variable("SLUICE__SEQUENCE__READ", "[\"cart\"]"),
        variable("SLUICE__SCORES__BUDGET", "0.5"),
        variable("SLUICE_KERNELS", "scalar"),
    ];
    let config = Config::build(file, &environment).unwrap();
    assert_eq!(config.kafka.connection.brokers, "env:1,env:2");
    assert_eq!(config.kafka.group, "file");
    assert_eq!(config.kafka.topics.events, "123.events");
    assert_eq!(config.learn.batch, 32);
    assert_eq!(config.schema.read, [false, true, false]);
    assert!((config.scores.budget - 0.5).abs() < 1e-12);
    assert_eq!(config.serve.candidates, 200);
}

#[test]
fn a_mistake_in_the_environment_is_named_like_a_key() {
    let error = Config::build("", &[variable("SLUICE__KAFKA__BROKER", "a:1")]).unwrap_err();
    assert_eq!(error.to_string(), "kafka.broker: no such key: did you mean brokers?");
}

#[test]
fn eight_mistakes_are_reported_at_once() {
    let file = r#"
[kafka]
borkers = "kafka:9092"
start = "begin"

[funnel]
lateness = 300

[[funnel.tasks]]
name = "click"
window = "30 minutes"

[[funnel.tasks]]
name = "purchase"
parent = "klick"
window = "7d"

[learn]
batch = 0
seed = "one"

[[fields]]
name = "price"
source = "item"
kind = "numbr"

[serve]
score = "p.click + p.buy"

[nonsense]
x = 1
"#;
    let expected = "\
line 3: kafka.borkers: no such key: did you mean brokers?
line 4: kafka.start: expected beginning or end, found \"begin\": did you mean beginning?
line 7: funnel.lateness: expected a length of time in quotes with its unit, such as \"30s\", found integer 300
line 11: funnel.tasks.0.window: expected a length of time such as \"200ms\", \"30s\", \"5m\", \"1h\" or \"7d\", found \"30 minutes\"
line 15: funnel.tasks.1.parent: expected click or purchase, found \"klick\": did you mean click?
line 19: learn.batch: expected 1 to 65536, found 0
line 20: learn.seed: expected a whole number of 0 or more, found string \"one\"
line 25: fields.0.kind: expected category, list, number, log, log-bucket, steps, hour, weekday or age, found \"numbr\": did you mean number?
line 28: serve.score: \"p.click + p.buy\", column 11: no task \"buy\" in the funnel: it has click, purchase
line 30: nonsense: no such key: expected one of kafka, funnel, items, sequence, features, fields, counters, model, learn, table, retrieval, serve, publish, scores, checkpoint, memory, open, capture, evaluate, http, log";
    assert_eq!(mistakes(file), expected);
}

#[test]
fn what_is_no_toml_is_told_by_its_line() {
    let text = mistakes("[kafka]\nbrokers = \n[learn]\nbatch = 0\n");
    assert!(text.starts_with("line 2: not TOML: "), "{text}");
    let text = mistakes(&"{\"topic\":\"events\"}\n".repeat(1000));
    assert_eq!(text.lines().count(), 6, "{text}");
    assert!(text.contains("not TOML in 995 places more"), "{text}");
}

#[test]
fn an_odd_list_does_not_hide_the_rest() {
    let text = mistakes(
        "fields = [1]\n[sequence]\nread = [1, 2]\n[funnel]\nbehaviours = 3\nlateness = {}\n",
    );
    let paths: Vec<&str> = text.lines().map(|line| line.split(": ").nth(1).unwrap()).collect();
    assert_eq!(paths, ["fields.0", "sequence.read.0", "funnel.behaviours", "funnel.lateness"]);
}

#[test]
fn a_default_that_no_longer_fits_is_not_guessed() {
    let file = "[[funnel.tasks]]\nname = \"like\"\n";
    assert_eq!(
        mistakes(file),
        "serve.score: \"p.click + 20 * p.purchase\", column 1: no task \"click\" in the funnel: it has like"
    );
}

#[test]
fn a_score_that_orders_nothing_is_told_by_its_place() {
    for (score, problem) in [
        (
            "1",
            "\"1\", column 1: names no probability, so it orders nothing: expected one such as p.click",
        ),
        (
            "1/(p.click-p.click)",
            "\"1/(p.click-p.click)\", column 3: divides by \"(p.click-p.click)\", which can be 0: expected what stays above 0, such as p.click",
        ),
        (
            "p.click + 5 * p.purchase|click",
            "\"p.click + 5 * p.purchase|click\", column 11: \"5 * p.purchase|click\" is given click and \"p.click\" is on the item, which do not add up: expected p.click * (1 + 5 * p.purchase|click) or p.click + 5 * p.purchase",
        ),
    ] {
        let told = mistakes(&format!("[serve]\nscore = \"{score}\"\n"));
        assert_eq!(told, format!("line 2: serve.score: {problem}"));
    }
}

#[test]
fn declared_fields_become_columns() {
    let file = r#"
[features]
standard = ["item", "category"]
[[fields]]
name = "brand"
source = "item"
width = 8
[[fields]]
name = "maker"
source = "context"
key = "manufacturer"
table = "brand"
missing = "zero"
[[fields]]
name = "price"
source = "item"
kind = "number"
scale = 0.1
missing = -1
[[fields]]
name = "age"
source = "item"
key = "born"
kind = "age"
unit = "1h"
most = 48
[[fields]]
name = "tags"
source = "item"
kind = "list"
[[fields]]
name = "item"
source = "event"
"#;
    let schema = Config::build(file, &[]).unwrap().schema;
    let field = |name: &str| schema.fields.iter().find(|field| field.name == name).unwrap();
    assert_eq!(field("brand").table, field("maker").table);
    assert_eq!(schema.tables[field("maker").table].width, 8);
    assert_eq!(field("maker").missing, Missing::Zero);
    assert_eq!(field("price").kind, Kind::Number { scale: 0.1, shift: 0.0 });
    assert_eq!(field("price").missing, Missing::Value(-1.0));
    assert_eq!(field("age").kind, Kind::Age { unit: Period::seconds(3600).span(), most: 48 });
    assert_eq!((field("tags").is_list(), &field("tags").missing), (true, &Missing::Zero));
    assert_eq!(field("item").source, Source::Event(EventField::Item));
    assert_eq!(schema.fields.iter().filter(|field| field.name == "item").count(), 1);
    let target = schema.target_item().map(|column| schema.key_fields()[column]);
    assert_eq!(target.map(|field| schema.fields[field].name.as_str()), Some("item"));
}

#[test]
fn a_cross_is_made_of_key_fields_wherever_they_stand() {
    let file = r#"
[features]
standard = ["item", "category", "position"]
[[fields]]
name = "category x price"
cross = ["category", "price"]
width = 0
[[fields]]
name = "price"
source = "item"
kind = "log-bucket"
[[fields]]
name = "weight"
source = "item"
kind = "log"
scale = 0.5
[[fields]]
name = "dearness"
source = "counter"
key = "price.category.beside"
kind = "steps"
scale = 2
buckets = 9
[[fields]]
name = "dearness x item"
cross = ["dearness", "item"]
[[counters]]
by = ["category"]
read = "beside"
value = "price"
[model.crossing]
name = "linear"
"#;
    let schema = Config::build(file, &[]).unwrap().schema;
    let cross = schema.fields.iter().position(|field| field.name == "category x price").unwrap();
    assert_eq!(schema.fields[cross].source, Source::Cross(vec![1, 3]));
    assert_eq!(schema.tables[schema.fields[cross].table].width, 0);
    let weight = schema.fields.iter().find(|field| field.name == "weight").unwrap();
    assert_eq!(weight.kind, Kind::Log { scale: 0.5, shift: 0.0 });

    let steps = schema.fields.iter().position(|field| field.name == "dearness").unwrap();
    assert_eq!(schema.fields[steps].source, Source::Counter(0));
    assert_eq!(schema.fields[steps].kind, Kind::Steps { scale: 2.0, buckets: 9 });
    assert_eq!(
        schema.fields[steps + 2].source,
        Source::Cross(vec![steps, 0]),
        "counters are parts too"
    );
    assert_eq!((schema.number_fields().len(), schema.counters.len()), (2, 1));

    let deep_alone = file.replace("\"linear\"", "\"none\"");
    assert!(mistakes(&deep_alone).contains("field category x price has width 0"), "{deep_alone}");
    let text = mistakes(
        r#"
[[fields]]
name = "a"
source = "item"
cross = ["category", "category", "weight", "none"]
[[fields]]
name = "weight"
source = "item"
kind = "number"
"#,
    );
    for path in ["fields.0.source", "cross.1", "cross.2", "cross.3"] {
        assert!(text.contains(path), "{path} in {text}");
    }
    let text = mistakes("[[fields]]\nname = \"a\"\ncross = [\"category\"]\n");
    assert!(text.contains("fields.0.cross: expected 2 to 4, found 1"), "{text}");
}

#[test]
fn fields_that_cannot_be_are_all_named() {
    let file = r#"
[[fields]]
source = "event"
key = "clock"
[[fields]]
name = "a"
source = "event"
key = "time"
[[fields]]
name = "b"
source = "item"
kind = "number"
table = "b"
buckets = 3
missing = "own"
[[fields]]
name = "b"
source = "counter"
key = "click.nobody"
[[fields]]
name = "click.item"
source = "user"
[[fields]]
name = "gap"
source = "user"
[[fields]]
name = "c"
source = "user"
table = "item"
width = 3
[[fields]]
name = "d"
source = "item"
kind = "number"
scale = 0.0
[[fields]]
name = "e"
source = "item"
kind = "log-bucket"
scale = -1.0
[[fields]]
name = "f"
source = "item"
kind = "number"
scale = nan
missing = 1e300
"#;
    let text = mistakes(file);
    let paths: Vec<&str> = text
        .lines()
        .map(|line| line.split(": ").find(|part| !part.starts_with("line ")).unwrap())
        .collect();
    let expected = [
        "fields.0.name",
        "fields.0.key",
        "fields.1.kind",
        "fields.2.table",
        "fields.2.buckets",
        "fields.2.missing",
        "fields.3.name",
        "fields.3.key",
        "fields.3.kind",
        "counters.0",
        "fields.5.table",
        "fields.6.width",
        "fields.7.scale",
        "fields.8.scale",
        "fields.9.scale",
        "fields.9.missing",
    ];
    let sorted =
        |paths: &[&str]| paths.iter().map(|path| String::from(*path)).collect::<BTreeSet<_>>();
    assert_eq!(sorted(&paths), sorted(&expected), "{text}");
}

#[test]
fn counters_of_the_same_subjects_differ_by_reading_and_half_life() {
    let counter = |rest: &str| format!("[[counters]]\ntask = \"click\"\nby = [\"user\"]\n{rest}\n");
    let file =
        ["", "read = \"count\"", "read = \"count\"\nhalf_life = \"1h\""].map(counter).concat();
    let config = Config::build(&file, &[]).unwrap();
    let fields = config.schema.number_fields().into_iter();
    let names: Vec<&str> = fields.map(|field| config.schema.fields[field].name.as_str()).collect();
    assert_eq!(names, ["click.user", "click.user.count", "click.user.count.1h"]);
    assert!(mistakes(&counter("read = \"sum\"")).contains("counters.0.read"));
    let beside = "[[counters]]\nby = [\"category\"]\nread = \"beside\"\n";
    let schema = Config::build(&format!("{beside}value = \"price\"\n"), &[]).unwrap().schema;
    let field = &schema.fields[schema.number_fields()[0]];
    assert_eq!((field.name.as_str(), schema.counters.len()), ("price.category.beside", 1));
    assert_eq!(schema.counters[0].read, Reading::Beside(AttributeKey::of("price")));
    assert!(mistakes(beside).contains("counters.0.value: expected the attribute"));
    assert!(mistakes(&counter("value = \"price\"")).contains("counters.0.value: is only used"));
    let of_task = counter("read = \"beside\"\nvalue = \"price\"");
    assert!(mistakes(&of_task).contains("counters.0.task: is not used"));
    let twice = counter("half_life = \"1h\"").repeat(3);
    assert!(mistakes(&twice).contains("\"click.user.1h\" is counted or declared already"));
}

#[test]
fn a_shop_without_impressions_is_configured_by_its_view() {
    let file =
        "serve.score = \"p.view\"\n[funnel]\nentry = \"view\"\n[[funnel.tasks]]\nname = \"view\"\n";
    let config = Config::build(file, &[]).unwrap();
    assert_eq!(config.funnel.entry(), sluice_features::funnel::Entry::View { negatives: 4 });
    assert!(mistakes("[funnel]\nentry = \"view\"\n").contains("the first task must be \"view\""));
}

#[test]
fn secrets_are_not_printed_and_what_is_printed_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sluice.toml");
    let extra =
        "kafka.extra = { \"ssl.keystore.password\" = \"hunter2\", \"socket.timeout.ms\" = 5000 }";
    std::fs::write(&path, extra).unwrap();
    let printed = Config::print(&path).unwrap();
    assert!(!printed.contains("hunter2") && printed.contains("socket.timeout.ms"), "{printed}");
    assert!(Config::build(&printed, &[]).is_ok());
    assert!(
        Config::open(&folder.path().join("none"))
            .unwrap_err()
            .to_string()
            .contains("cannot read the file")
    );
}

#[test]
fn a_secured_connection_reads_its_password_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "hunter2\n").unwrap();
    let file = format!(
        "[kafka]\nsecurity = \"sasl_ssl\"\n[kafka.sasl]\nmechanism = \"SCRAM-SHA-512\"\nusername = \"sluice\"\npassword_file = {:?}\n",
        password.display().to_string()
    );
    let connection = Config::build(&file, &[]).unwrap().kafka.connection;
    assert_eq!(connection.sasl.as_ref().unwrap().password, crate::kafka::Secret::new("hunter2"));
    assert!(!format!("{connection:?}").contains("hunter2"));
    assert!(!Config::print_text(&file, &[], here).unwrap().contains("hunter2"));
}

#[test]
fn mistakes_of_the_connection_have_their_paths() {
    let file = r#"
[kafka]
brokers = "nohost"
security = "sasl_ssl"
[kafka.sasl]
mechanism = "PLAIN"
password_file = "/no/such/file"
[kafka.extra]
"group.id" = "x"
"socket.timeout.ms" = "soon"
"fetch.min.bytes" = [1]
"#;
    let text = mistakes(file);
    let starts: Vec<String> = text
        .lines()
        .map(|line| line.splitn(3, ": ").take(2).collect::<Vec<_>>().join(" "))
        .collect();
    let expected = [
        "line 3 kafka.brokers",
        "line 5 kafka.sasl.username",
        "line 7 kafka.sasl.password_file",
        "line 9 kafka.extra.group.id",
        "line 10 kafka.extra.socket.timeout.ms",
        "line 11 kafka.extra.fetch.min.bytes",
    ];
    assert_eq!(starts, expected, "{text}");
}

#[test]
fn the_default_model_is_that_of_the_models_crate() {
    let config = Config::build("", &[]).unwrap();
    let mut default = sluice_models::spec::ModelSpec::default();
    default.embeddings.expiry = Some(Period::seconds(90 * 86_400).span());
    default.embeddings.max_rows = config.model.spec.embeddings.max_rows;
    assert_eq!(config.model.spec, default);
    assert_eq!(config.schema.lookups, config.model.spec.lookups());
    assert_eq!(config.model.priors, [0.1, 0.02, 0.005]);
}

#[test]
fn a_view_is_expected_as_often_as_it_stands_in_its_sample() {
    let file = |negatives: usize, prior: &str| {
        format!(
            "[serve]\nscore = \"p.view\"\n[funnel]\nentry = \"view\"\nnegatives = {negatives}\n\
             [[funnel.tasks]]\nname = \"view\"\n{prior}\n[[funnel.tasks]]\nname = \"cart\"\n"
        )
    };
    let priors = |file: &str| Config::build(file, &[]).unwrap().model.priors;
    assert_eq!(priors(&file(4, "")), [0.2, 0.05]);
    assert_eq!(priors(&file(9, "")), [0.1, 0.05]);
    assert_eq!(priors(&file(4, "prior = 0.3")), [0.3, 0.05]);
    // What is in force is printed whole.
    let printed = Config::print_text(&file(9, ""), &[], here).unwrap();
    assert!(printed.contains("prior = 0.1\n") && printed.contains("prior = 0.05\n"), "{printed}");
    assert_eq!(priors(&printed), [0.1, 0.05]);
    let found = mistakes(&file(4, "prior = 1.0"));
    assert!(found.contains("funnel.tasks.0.prior: expected 0.000001 to 0.999999"), "{found}");
    let found = mistakes(&file(0, ""));
    assert!(
        found.contains("funnel.negatives: expected 1 to 100") && !found.contains("prior"),
        "{found}"
    );
}

#[test]
fn another_slot_is_taken_without_the_keys_of_the_default_one() {
    use sluice_models::spec::{FunnelSpec, InterestSpec, SharingSpec};

    let file = "[model.interest]\nname = \"din\"\nlimit = 20\n[model.sharing]\nown = 3\n";
    let spec =
        Config::build(file, &[variable("SLUICE__MODEL__FUNNEL__NAME", "esmm")]).unwrap().model.spec;
    assert!(matches!(spec.interest, InterestSpec::Din { limit: 20, hidden: [80, 40], .. }));
    assert!(matches!(spec.sharing, SharingSpec::Ple { own: 3, shared: 2, .. }));
    assert_eq!(spec.funnel, FunnelSpec::Esmm { tower: vec![64, 32] });
}

#[test]
fn mistakes_in_the_model_have_their_places() {
    let file = r#"
[model.interest]
name = "dinn"
[model.sharing]
name = "mmoe"
expert = 3
[model.funnel]
towers = [3]
calibrator = -1.0
[learn]
row_rate = 100.0
[table]
admission = 300
"#;
    let expected = "\
line 3: model.interest.name: expected base, din or sim, found \"dinn\"
line 6: model.sharing.expert: no such key: did you mean experts?
line 8: model.funnel.towers: no such key: did you mean tower?
line 9: model.funnel.calibrator: expected 0 to 1000, found -1
line 11: learn.row_rate: expected a rate above 0 and at most 10, found 100
line 13: table.admission: expected a whole number from 0 to 255, found integer 300";
    assert_eq!(mistakes(file), expected);
}

#[test]
fn variances_learn_labels_as_they_come_and_have_no_deep_part() {
    let shallow = "[learn]\nmethod = \"bayes\"\n[model.crossing]\nname = \"linear\"\n[model.sharing]\nname = \"none\"\n";
    let with = |rest: &str| format!("{shallow}{rest}");
    let tasks = "[[funnel.tasks]]\nname = \"click\"\n[[funnel.tasks]]\nname = \"buy\"\nparent = \"click\"\nlabels = \"wait\"\n[serve]\nscore = \"p.click\"\n";
    let of = |funnel: &str| with(&format!("[model.funnel]\nname = \"{funnel}\"\n{tasks}"));
    assert!(Config::build(&of("independent"), &[]).is_ok());
    let found = mistakes(&of("esmm"));
    assert!(found.contains("funnel.tasks.1.labels: bayes learns the heads of esmm"), "{found}");
    let found = mistakes(&with("[model.funnel]\nname = \"esmm\"\n[learn.prior]\nchild = 2.0\n"));
    assert!(found.contains("learn.prior.child: expected 0.001 to 1, found 2"), "{found}");
    let found = mistakes("[learn]\nmethod = \"bayes\"\n");
    assert!(found.contains("learn.method: bayes learns one example after the other"), "{found}");
    let found = mistakes("[learn]\nmethod = \"newton\"\n");
    assert!(found.contains("learn.method") && found.contains("gradient"), "{found}");
}

#[test]
fn the_configurations_of_the_data_sets_are_valid() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../ops/datasets"));
    let build = |name: &str| {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        Config::build(&text, &[]).unwrap_or_else(|mistakes| panic!("{name}: {mistakes}"))
    };
    for name in ["taobao.toml", "retailrocket.toml", "rees46.toml", "movielens.toml"] {
        let config = build(name);
        assert_eq!(config.funnel.entry_name(), "view");
        assert!(config.schema.target_category().is_some());
    }
    assert_eq!(build("simulator.toml").schema.counters.len(), 20);
    let best = build("kuairand.toml");
    assert_eq!((best.schema.counters.len(), best.schema.number_fields().len()), (15, 15));
    let reference = build("kuairand-reference.toml");
    let schema = &reference.schema;
    assert_eq!((schema.fields.len(), schema.key_fields().len()), (34, 34));
    assert!(schema.tables.iter().all(|table| table.width == 16));
    assert_eq!(schema.read.iter().filter(|read| **read).count(), 1);
    assert_eq!(reference.funnel.parents(), [None, Some(0), Some(0)]);
    let mut model = sluice_models::spec::ModelSpec::reference();
    model.learning.clip = 0.0;
    model.embeddings.max_rows = reference.model.spec.embeddings.max_rows;
    assert_eq!(reference.model.spec, model);
}

fn bounds(file: &str, machine: Machine) -> Result<Bounds, String> {
    let built = written(file, &[], machine).map_err(|mistakes| mistakes.to_string());
    built.map(|(_, config)| config.memory.bounds)
}

#[test]
fn the_bounds_are_shares_of_the_limit_unless_they_are_given() {
    let there = bounds("", here).unwrap();
    assert_eq!(there.limit, 8 << 30);
    assert_eq!(bounds("[memory]\nlimit = \"8GiB\"\n", || Err("none".into())), Ok(there));
    let left = there.limit - there.limit / 10;
    for share in Share::ALL.into_iter().filter(|share| *share != Share::Tables) {
        assert_eq!(there.of(share), left / 100 * share.percent());
    }
    let given = "[open]\nmax_bytes = \"3MiB\"\n[table]\nmax_rows = 5000\n";
    let given = bounds(given, here).unwrap();
    assert_eq!((given.of(Share::Open), given.rows), (3 << 20, 5_000));
    assert_eq!(given.of(Share::State), there.of(Share::State));
    let less: Machine = || Ok(Available { bytes: 4 << 30, said_by: "a test".into() });
    for (machine, too_much) in [(less, true), (here, false)] {
        let (_, config) = written("[memory]\nlimit = \"8GiB\"\n", &[], machine).unwrap();
        assert_eq!(config.memory.too_much, too_much);
    }
    // A wider table has fewer rows in the same share.
    let wide = bounds("[model]\nwidth = 128\n", here).unwrap();
    assert!(wide.rows < there.rows / 2 && wide.rows > there.rows / 9, "{wide:?} {there:?}");
    let config = Config::build("[memory]\nlimit = \"8GiB\"\n", &[]).unwrap();
    assert_eq!(config.model.spec.embeddings.max_rows as u64, there.rows);
    let other = config.clone().bounded(given);
    assert_eq!(other.model.spec.embeddings.max_rows, 5_000);
    assert_eq!(other.memory.bounds, given);
}

#[test]
fn a_limit_that_will_not_do_is_told_with_its_remedy() {
    let of = |text: &str| format!("[memory]\nlimit = {text}\n");
    let small: Machine = || Ok(Available { bytes: 300 << 20, said_by: "memory.max".into() });
    assert_eq!(
        bounds("", small).unwrap_err(),
        "memory.limit: expected 512MiB to 1024TiB, found 240MiB (80% of 300MiB (memory.max)): give the process more memory or another limit"
    );
    let none: Machine = || Ok(Available { bytes: 0, said_by: "memory.max".into() });
    assert!(bounds("", none).unwrap_err().contains("found 0B (80% of 0B (memory.max))"));
    let told = bounds("", || Err("no file".into())).unwrap_err();
    assert!(told.contains("(no file): expected a size such as \"4GiB\", found \"80%\""), "{told}");
    for text in ["\"80\"", "\"0%\"", "\"120%\"", "\"4 GB\"", "0.8", "\"511MiB\"", "\"\""] {
        let told = bounds(&of(text), here).unwrap_err();
        assert!(told.starts_with("line 2: memory.limit: expected "), "{told}");
    }
    let told = mistakes("[open]\nmax_bytes = \"1000\"\n[table]\nmax_rows = 7\n");
    let expected = "line 4: table.max_rows: expected 1000 to 4000000000, found 7";
    assert!(told.contains("line 2: open.max_bytes: expected a size") && told.contains(expected));
    let odd: Machine = || Ok(Available { bytes: u64::MAX, said_by: "memory.max".into() });
    assert!(bounds("", odd).unwrap_err().contains("expected 512MiB to 1024TiB"));
}

#[test]
fn what_is_printed_has_the_bounds_in_force() {
    let printed = Config::print_text("", &[], here).unwrap();
    let (comment, _) = printed.split_once("\n\n").unwrap();
    assert!(comment.starts_with("# memory.limit = 8GiB: 80% of 10GiB (a test)\n"), "{comment}");
    for share in Share::ALL {
        assert!(comment.contains(&format!("#   {} ", share.name())), "{comment}");
    }
    // On another machine it means the same.
    assert_eq!(bounds(&printed, || Err("none".into())), bounds("", here));
}
