//! The counters of a configuration, and the number field of each.

use sluice_features::attributes::AttributeKey;
use sluice_features::funnel::Funnel;
use sluice_features::schema::{Counter, Field, Kind, Missing, Reading, Source, Subject};
use sluice_features::time::Span;

use crate::config::check::{one_of, within};
use crate::config::file;
use crate::config::mistake::Mistakes;

/// The shortest half-life of a counter: below it there is nothing to be counted between two events.
const SHORTEST: Span = Span::seconds(1);
const MOST_COUNTERS: usize = 64;

const SUBJECTS: [(&str, Subject); 4] = [
    ("item", Subject::Item),
    ("user", Subject::User),
    ("category", Subject::Category),
    ("surface", Subject::Surface),
];

/// What may be read of a counter, and what stands behind its field's name.
const READINGS: [(&str, &str); 4] =
    [("log-odds", ""), ("count", ".count"), ("any", ".any"), ("beside", ".beside")];

/// Reads the counters and adds a number field for each.
pub(super) fn read(
    config: &file::Config,
    funnel: &Funnel,
    fields: &mut Vec<Field>,
    mistakes: &mut Mistakes,
) -> Vec<Counter> {
    let (mut counters, declared) = (Vec::new(), fields.len());
    for (i, counter) in config.counters.iter().enumerate() {
        let path = format!("counters.{i}");
        let all = 0..funnel.tasks().len();
        let names: Vec<_> =
            funnel.tasks().iter().map(|task| task.name.as_str()).zip(all.clone()).collect();
        let tasks = if counter.task.is_empty() {
            all
        } else {
            match one_of(mistakes, &format!("{path}.task"), &counter.task, &names) {
                Some(task) => task..task + 1,
                None => continue,
            }
        };
        let mut by: Vec<Subject> = Vec::new();
        for (j, subject) in counter.by.iter().enumerate() {
            let here = format!("{path}.by.{j}");
            match one_of(mistakes, &here, subject, &SUBJECTS) {
                Some(subject) if by.contains(&subject) => {
                    mistakes.add(here, "is named twice: name each once");
                }
                subject => by.extend(subject),
            }
        }
        if counter.by.is_empty() {
            mistakes.add(
                format!("{path}.by"),
                "expected one or several of item, user, category, surface, found none",
            );
        }
        if counter.half_life.span() < SHORTEST {
            mistakes.add(format!("{path}.half_life"), "expected 1s or more, such as \"3d\"");
        }
        within(mistakes, &format!("{path}.smoothing"), counter.smoothing, 0.001..=1e9);
        let here = format!("{path}.read");
        let Some(suffix) = one_of(mistakes, &here, &counter.read, &READINGS) else { continue };
        let Some(read) = reading(counter, &path, mistakes) else { continue };
        let beside = matches!(read, Reading::Beside(_));
        for task in if beside { 0..1 } else { tasks } {
            let subjects = counter.by.join("+");
            let of = if beside { &counter.value } else { &funnel.tasks()[task].name };
            let mut name = format!("{of}.{subjects}{suffix}");
            if fields[declared..].iter().any(|field| field.name == name) {
                name = format!("{name}.{}", counter.half_life);
            }
            if fields.iter().any(|field| field.name == name) {
                mistakes.add(
                    &path,
                    format!("\"{name}\" is counted or declared already: remove one of the two"),
                );
                continue;
            }
            fields.push(Field {
                name,
                source: Source::Counter(counters.len()),
                kind: Kind::Number { scale: 1.0, shift: 0.0 },
                table: 0,
                missing: Missing::Value(0.0),
            });
            counters.push(Counter {
                task,
                by: by.clone(),
                half_life: counter.half_life.span(),
                smoothing: counter.smoothing as f32,
                read,
            });
        }
    }
    if counters.len() > MOST_COUNTERS {
        mistakes.add(
            "counters",
            format!(
                "expected at most {MOST_COUNTERS} counters, those of each task counted, found {}",
                counters.len()
            ),
        );
    }
    counters
}

/// What the model reads of a counter whose `read` is one of [`READINGS`].
fn reading(counter: &file::Counter, path: &str, mistakes: &mut Mistakes) -> Option<Reading> {
    let beside = counter.read == "beside";
    if beside && !counter.task.is_empty() {
        mistakes.add(
            format!("{path}.task"),
            "is not used by read = \"beside\", which counts no outcomes: remove it",
        );
        return None;
    }
    if beside == counter.value.is_empty() {
        let problem = if beside {
            "expected the attribute of items whose number is read, such as \"price\", found none"
        } else {
            "is only used by read = \"beside\": remove it"
        };
        mistakes.add(format!("{path}.value"), problem);
        return None;
    }
    Some(match counter.read.as_str() {
        "beside" => Reading::Beside(AttributeKey::of(&counter.value)),
        "count" => Reading::Count,
        "any" => Reading::Any,
        _ => Reading::LogOdds,
    })
}
