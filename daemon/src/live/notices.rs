//! What was noticed of values and names, told: each field once in ten minutes, and only when there is something new.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::pipeline::counts::Counts;
use crate::pipeline::notes::Notes;

/// How often the same is told again.
const AGAIN: Duration = Duration::from_secs(600);

/// Something to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A field cannot use values that came for it.
    Unusable {
        /// The field.
        field: String,
        /// How many values since the start.
        values: u64,
        /// What the newest was.
        found: &'static str,
        /// What the field can use.
        expected: &'static str,
    },
    /// A field is always missing.
    Missing {
        /// The field.
        field: String,
        /// The name that may have been meant.
        likely: Option<String>,
    },
    /// What came in place of the attribute that says whether an item can be had.
    Available {
        /// That name.
        likely: String,
    },
    /// Names that nobody reads are like one that is read.
    Misspelt {
        /// Where and how they stand in records.
        found: String,
        /// What may have been meant.
        likely: String,
    },
    /// Ends of items or users that are not known.
    UnknownEnds {
        /// How many since the model began.
        ends: u64,
        /// The newest.
        id: String,
    },
}

/// What was told, and when.
#[derive(Debug, Default)]
pub struct Notices {
    told: HashMap<String, (u64, Duration)>,
}

impl Notices {
    /// Returns what is to be told now.
    pub fn look(&mut self, notes: &Notes, counts: &Counts, now: Duration) -> Vec<Notice> {
        let mut notices = Vec::new();
        for (need, (field, unusable)) in notes.unusable().enumerate() {
            if self.is_due(format!("value {need}"), unusable.count, now) {
                notices.push(Notice::Unusable {
                    field: field.to_owned(),
                    values: unusable.count,
                    found: unusable.found,
                    expected: notes.expected(need),
                });
            }
        }
        for (place, (field, missing)) in notes.fields().enumerate() {
            // One that is there again is told anew when it goes.
            if !missing {
                self.told.remove(&format!("field {place}"));
            } else if self.is_due(format!("field {place}"), 1, now) {
                let likely = notes.likely(field).map(str::to_owned);
                notices.push(Notice::Missing { field: field.to_owned(), likely });
            }
        }
        if let Some(likely) = notes.misspelt_available()
            && self.is_due("available".to_owned(), 1, now)
        {
            notices.push(Notice::Available { likely: likely.to_owned() });
        }
        let mut alike: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for misspelt in notes.misspelt() {
            alike.entry(misspelt.likely).or_default().push(misspelt.found);
        }
        for (likely, found) in alike {
            // Told again where there are further names: what is declared or read by nobody on purpose is told once.
            if self.is_due(format!("like {likely}"), found.len() as u64, now) {
                notices.push(Notice::Misspelt { found: found.join(", "), likely });
            }
        }
        if let Some(id) = notes.unknown_end()
            && self.is_due("ends".to_owned(), counts.unknown_ends, now)
        {
            notices.push(Notice::UnknownEnds { ends: counts.unknown_ends, id: id.to_owned() });
        }
        notices
    }

    fn is_due(&mut self, what: String, count: u64, now: Duration) -> bool {
        let told = self.told.get(&what);
        let new =
            told.map_or(count > 0, |(then, at)| count > *then && now.saturating_sub(*at) >= AGAIN);
        if new {
            self.told.insert(what, (count, now));
        }
        new
    }
}

impl Notice {
    /// Says it in the log.
    pub fn tell(&self) {
        match self {
            Self::Unusable { field, values, found, expected } => tracing::warn!(
                field,
                values,
                found,
                expected,
                "values that their field cannot use count as missing, and as no where they say whether an item can be had: mend what sends them"
            ),
            Self::Missing { field, likely } => tracing::warn!(
                field,
                likely = likely.as_deref().unwrap_or("no name like it came"),
                "a declared field is always missing: send it, or name what is sent as its key"
            ),
            Self::Available { likely } => tracing::warn!(
                likely,
                "nothing says whether an item can be had, so all can: name what is sent as items.available"
            ),
            Self::Misspelt { found, likely } => tracing::warn!(
                found,
                "names that nobody reads: did you mean {likely}? Rename what is sent, or name it as the key of a field"
            ),
            Self::UnknownEnds { ends, id } => tracing::warn!(
                ends,
                id,
                "ends of items or users that are not known changed nothing: their keys must be the ids that the records with a value have"
            ),
        }
    }
}

/// Returns what was noticed, for readers of `/status` and of a replay's report.
pub fn object(notes: &Notes, counts: &Counts) -> Value {
    let unusable: Map<String, Value> = notes
        .unusable()
        .filter(|(_, unusable)| unusable.count > 0)
        .map(|(field, unusable)| {
            (field.to_owned(), json!({"values": unusable.count, "found": unusable.found}))
        })
        .collect();
    let missing: Map<String, Value> = notes
        .fields()
        .filter(|(_, missing)| *missing)
        .map(|(field, _)| (field.to_owned(), json!({ "likely": notes.likely(field) })))
        .collect();
    let names: Map<String, Value> = notes
        .names()
        .map(|(name, count)| (sluice_features::words::shown(name), json!(count)))
        .collect();
    json!({
        "unusable_values": unusable,
        "missing_fields": missing,
        "undeclared_names": names,
        "misspelt_names": notes.misspelt().map(|name| (name.found, json!({ "likely": name.likely }))).collect::<Map<_, _>>(),
        "unknown_ends": counts.unknown_ends,
        "later_features": counts.later_features,
        "dropped_versions": counts.dropped_versions,
    })
}

#[cfg(test)]
mod tests {
    use sluice_features::funnel::{Entry, LabelRule};
    use sluice_features::time::EventTime;
    use sluice_features::wire::Topic;

    use super::*;
    use crate::clock::Clock;
    use crate::pipeline::Pipeline;
    use crate::pipeline::record::Record;
    use crate::testing::stream;

    #[test]
    fn the_same_is_told_once_in_ten_minutes_and_only_when_there_is_more() {
        let rules = stream::rules(Entry::Impression, LabelRule::Wait);
        let (mut pipeline, mut offset) = (Pipeline::new(rules, 1), 0);
        let mut item = |pipeline: &mut Pipeline| {
            offset += 1;
            let value = br#"{"item":"a","ts":1650000000000,"features":{"available":"perhaps"}}"#;
            let arrived = EventTime(1_650_000_000_000);
            let topic = Topic::Items;
            let value = Some(&value[..]);
            pipeline
                .take(&Record { topic, partition: 0, offset, arrived, key: None, value })
                .unwrap();
        };
        let (mut notices, clock) = (Notices::default(), Clock::manual(EventTime(0)));
        let mut look =
            |pipeline: &Pipeline| notices.look(pipeline.notes(), pipeline.counts(), clock.steady());
        assert_eq!(look(&pipeline), []);
        item(&mut pipeline);
        let told = look(&pipeline);
        assert!(
            matches!(&told[..], [Notice::Unusable { field, values: 1, found: "a text", .. }] if field == "items.available"),
            "{told:?}"
        );
        item(&mut pipeline);
        clock.turn(AGAIN / 2);
        assert_eq!(look(&pipeline), [], "too soon");
        clock.turn(AGAIN / 2);
        assert_eq!(look(&pipeline).len(), 1);
        clock.turn(AGAIN);
        assert_eq!(look(&pipeline), [], "nothing new");
        let told = object(pipeline.notes(), pipeline.counts());
        assert_eq!(told["unusable_values"]["items.available"]["values"], 2);
    }

    #[test]
    fn a_misspelt_name_is_told_once_and_again_with_others_like_the_same() {
        let rules = stream::rules(Entry::Impression, LabelRule::Wait);
        let (mut pipeline, mut offset) = (Pipeline::new(rules, 1), 0);
        let mut item = |pipeline: &mut Pipeline, name: &str| {
            offset += 1;
            let value = format!(r#"{{"item":"a","ts":1650000000000,"features":{{"{name}":"c"}}}}"#);
            let arrived = EventTime(1_650_000_000_000);
            let (topic, value) = (Topic::Items, Some(value.as_bytes()));
            pipeline
                .take(&Record { topic, partition: 0, offset, arrived, key: None, value })
                .unwrap();
        };
        let (mut notices, clock) = (Notices::default(), Clock::manual(EventTime(0)));
        let mut look =
            |pipeline: &Pipeline| notices.look(pipeline.notes(), pipeline.counts(), clock.steady());
        let misspelt = |found: &str| {
            let likely = "features.category".to_owned();
            [Notice::Misspelt { found: found.to_owned(), likely }]
        };
        item(&mut pipeline, "catgory");
        assert_eq!(look(&pipeline), misspelt("features.catgory"));
        item(&mut pipeline, "catgory");
        item(&mut pipeline, "colour");
        clock.turn(AGAIN);
        assert_eq!(look(&pipeline), [], "the same name");
        item(&mut pipeline, "categori");
        assert_eq!(look(&pipeline), misspelt("features.catgory, features.categori"));
        let told = object(pipeline.notes(), pipeline.counts());
        assert_eq!(told["misspelt_names"]["features.catgory"]["likely"], "features.category");
    }
}
