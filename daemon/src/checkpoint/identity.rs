//! What a checkpoint belongs to, in words, so that a difference can be told and not only noticed.

use serde::{Deserialize, Serialize};
use sluice_features::ids::salted_hash;

use super::difference;
use crate::pipeline::Rules;

/// Lines in words that say what state and parameters were made with. Equal lines mean that they fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The types of behaviour as they are configured, tasks first: joins hold their places.
    behaviours: Vec<String>,
    /// Tasks, fields, tables, counters and looks: open impressions hold their columns.
    schema: Vec<String>,
    /// The model: parameters belong to it and to the schema.
    model: Vec<String>,
}

impl Identity {
    /// Describes the rules, and the model by `model`: one line for each of its parts.
    ///
    /// Windows are not part of it: they may change under a checkpoint, and open impressions then close by the new ones.
    pub fn new(rules: &Rules, model: Vec<String>) -> Self {
        let funnel = &rules.funnel;
        let behaviours = funnel.behaviour_names().map(str::to_owned).collect();
        let mut schema = vec![format!("entry {} {}", funnel.entry_name(), json(&funnel.entry()))];
        schema.extend(funnel.tasks().iter().map(|task| {
            let below = task.parent.map_or(funnel.entry_name(), |p| &funnel.tasks()[p].name);
            format!("task {} below {below}, labels {}", task.name, json(&task.labels))
        }));
        let described = &rules.schema;
        schema.extend(described.fields.iter().map(|field| format!("field {}", json(field))));
        schema.extend(described.tables.iter().map(|table| format!("table {}", json(table))));
        schema
            .extend(described.counters.iter().map(|counter| format!("counter {}", json(counter))));
        schema.extend(described.lookups.iter().map(|lookup| format!("look {}", json(lookup))));
        schema.push(format!("looks read {}", json(&described.read)));
        let (items, categories) = (described.item_table, described.category_table);
        let gap = described.gap_table;
        schema.push(format!("tables of items {items}, of categories {categories}, of gaps {gap}"));
        Self { behaviours, schema, model }
    }

    /// Returns a hash of everything: a parameter file belongs to one.
    pub fn fingerprint(&self) -> u64 {
        salted_hash(2, json(self).as_bytes())
    }

    /// Tells whether open impressions of the other belong here.
    pub fn same_schema(&self, other: &Self) -> bool {
        self.behaviours == other.behaviours && self.schema == other.schema
    }

    /// Returns, in words, what an older identity has otherwise: which fields, tables, tasks and parts of the model, and what of them; empty when
    /// there is no difference.
    pub fn difference(&self, older: &Self) -> String {
        let told = difference::told(&older.lines(), &self.lines());
        if told.is_empty() && self != older {
            return "the same parts in another order".to_owned();
        }
        told
    }

    fn lines(&self) -> Vec<String> {
        let behaviours = self.behaviours.iter().map(|name| format!("behaviour {name}"));
        let model = self.model.iter().map(|line| format!("model {line}"));
        behaviours.chain(self.schema.iter().cloned()).chain(model).collect()
    }
}

fn json(value: &impl Serialize) -> String {
    // Plain structs and enums: they always have a text.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(schema: &[&str], model: &[&str]) -> Identity {
        let owned = |lines: &[&str]| lines.iter().map(|line| String::from(*line)).collect();
        Identity { behaviours: owned(&["click"]), schema: owned(schema), model: owned(model) }
    }

    #[test]
    fn a_difference_is_told_in_words() {
        let old = identity(&["field a", "field b"], &["sharing ple"]);
        let new = identity(&["field a", "field c"], &["sharing mmoe"]);
        assert_eq!(old.difference(&old), "");
        assert_eq!(
            new.difference(&old),
            "only in the checkpoint: field b, model sharing ple; only in the configuration: field c, model sharing mmoe"
        );
        let turned = identity(&["field b", "field a"], &["sharing ple"]);
        assert_eq!(turned.difference(&old), "the same parts in another order");
        assert_ne!(turned.fingerprint(), old.fingerprint());
        assert!(!new.same_schema(&old));
        assert!(identity(&["field a", "field b"], &["sharing mmoe"]).same_schema(&old));
    }
}
