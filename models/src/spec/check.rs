//! All mistakes of a configuration at once.

use sluice_features::schema::Schema;

use super::{FunnelSpec, InterestSpec, ModelSpec, PriorSpec, SharingSpec, SpecError};

/// No layer is wider, no stack of experts larger, no look into the history longer.
const MOST: usize = 4096;
/// `bayes` keeps a covariance for each pair of numbers.
const MOST_NUMBERS: usize = 512;

impl ModelSpec {
    /// Checks the configuration against what the model will read and the tree of tasks (`parents[t]` is an earlier task).
    ///
    /// # Errors
    /// All mistakes, each with its place and what would be right.
    pub fn validate(
        &self,
        schema: &Schema,
        parents: &[Option<usize>],
    ) -> Result<(), Vec<SpecError>> {
        let mut found = Found(Vec::new());
        if parents.len() != schema.tasks || parents.is_empty() {
            let problem = format!(
                "expected {} tasks as in the schema, found {}",
                schema.tasks,
                parents.len()
            );
            found.add("funnel", problem);
        }
        for (task, parent) in parents.iter().enumerate() {
            if parent.is_some_and(|parent| parent >= task) {
                found.add("funnel", format!("the parent of task {task} must be an earlier task"));
            }
        }
        self.check_interest(schema, &mut found);
        self.check_crossing(schema, &mut found);
        self.check_sharing(&mut found);
        self.check_funnel(&mut found);
        self.check_learning(&mut found);
        self.check_prior(schema, &mut found);
        if found.0.is_empty() { Ok(()) } else { Err(found.0) }
    }

    fn check_interest(&self, schema: &Schema, found: &mut Found) {
        if schema.lookups != self.lookups() {
            let (wanted, given) = (self.lookups(), &schema.lookups);
            let problem = format!("the model looks up {wanted:?}, the schema offers {given:?}");
            found.add("interest", problem);
        }
        if !self.is_deep() {
            return;
        }
        let tables = [schema.item_table, schema.category_table, schema.gap_table];
        if tables.iter().any(|&table| table >= schema.tables.len()) {
            found.add("interest", "the schema lacks a table of items, categories or gaps".into());
        }
        match self.interest {
            InterestSpec::Base { limit } => found.size("interest.limit", limit),
            InterestSpec::Din { limit, hidden, .. } => {
                found.size("interest.limit", limit);
                found.sizes("interest.hidden", &hidden);
            }
            InterestSpec::Sim { limit, hidden, matching, heads, width, .. } => {
                found.size("interest.limit", limit);
                found.size("interest.matching", matching);
                found.size("interest.heads", heads);
                found.size("interest.width", width);
                found.sizes("interest.hidden", &hidden);
            }
        }
        if !matches!(self.interest, InterestSpec::Base { .. }) {
            for (target, what) in
                [(schema.target_item(), "item"), (schema.target_category(), "category")]
            {
                if target.is_none() {
                    let problem = format!(
                        "no field holds the candidate's {what} in the {what} table: declare one, \
                         or choose name = \"base\""
                    );
                    found.add("interest.name", problem);
                }
            }
        }
    }

    fn check_crossing(&self, schema: &Schema, found: &mut Found) {
        let width = |field: usize| schema.tables.get(schema.fields[field].table).map(|t| t.width);
        let (embedded, bare): (Vec<usize>, Vec<usize>) =
            schema.key_fields().into_iter().partition(|&field| width(field) != Some(0));
        if self.crossing.has_linear() && schema.fields.is_empty() {
            found.add("crossing.name", "linear weights need at least one field".into());
        }
        if let (Some(&field), false) = (bare.first(), self.crossing.has_linear()) {
            let problem = format!(
                "the table of field {} has width 0, so nothing reads it: give it a width, or \
                 choose linear or fm+linear",
                schema.fields[field].name
            );
            found.add("crossing.name", problem);
        }
        if !self.crossing.has_fm() {
            return;
        }
        if let (Some(&field), false) = (bare.first(), self.is_deep() || self.has_variances()) {
            let problem = format!(
                "without sharing fm reads all key fields, and the table of {} has width 0: give it \
                 the width of the others, or choose linear or learning.method bayes",
                schema.fields[field].name
            );
            found.add("crossing.name", problem);
        }
        let fields = embedded;
        if fields.len() < 2 {
            let problem = format!("fm needs two key fields or more, found {}", fields.len());
            found.add("crossing.name", problem);
        }
        let Some(&first) = fields.first() else { return };
        for &field in &fields[1..] {
            if width(field) != width(first) {
                let (a, b) = (&schema.fields[first].name, &schema.fields[field].name);
                let problem = format!(
                    "fm needs one width for all key fields, found {:?} for {a} and {:?} for {b}: \
                     give their tables the same width, or choose none or linear",
                    width(first).unwrap_or(0),
                    width(field).unwrap_or(0)
                );
                found.add("crossing.name", problem);
            }
        }
    }

    fn check_sharing(&self, found: &mut Found) {
        match &self.sharing {
            SharingSpec::None {} => {
                if !self.crossing.has_fm() && !self.crossing.has_linear() {
                    let problem = "without sharing a model needs a crossing: choose fm, linear or \
                                   fm+linear";
                    found.add("crossing.name", problem.into());
                }
            }
            SharingSpec::SharedBottom { hidden } => found.widths("sharing.hidden", hidden),
            SharingSpec::Mmoe { experts, hidden, .. } => {
                found.size("sharing.experts", *experts);
                found.widths("sharing.hidden", hidden);
            }
            SharingSpec::Ple { levels, shared, own, hidden, .. } => {
                if !(1..=8).contains(levels) {
                    found.add("sharing.levels", format!("expected 1 to 8, found {levels}"));
                }
                if !(1..=MOST).contains(&(shared + own)) {
                    let problem = "expected at least one expert, shared or own, found none";
                    found.add("sharing.shared", problem.into());
                }
                found.widths("sharing.hidden", hidden);
            }
        }
    }

    fn check_funnel(&self, found: &mut Found) {
        found.sizes("funnel.tower", self.funnel.tower());
        if let FunnelSpec::Aitm { tower, calibrator } = &self.funnel {
            if !self.is_deep() {
                let problem = "aitm passes on what towers know, and without sharing there are \
                               none: choose independent or esmm";
                found.add("funnel.name", problem.into());
            }
            if tower.is_empty() {
                found.add("funnel.tower", "aitm needs at least one layer, found none".into());
            }
            if !(0.0..=1e3).contains(calibrator) {
                found.add("funnel.calibrator", format!("expected 0 to 1000, found {calibrator}"));
            }
        }
    }

    fn check_learning(&self, found: &mut Found) {
        let learning = &self.learning;
        for (name, rate) in [
            ("learning.dense_rate", learning.dense_rate),
            ("learning.row_rate", learning.row_rate),
            ("learning.linear_rate", learning.linear_rate),
        ] {
            if !(rate > 0.0 && rate <= 10.0) {
                found.add(name, format!("expected a rate above 0 and at most 10, found {rate}"));
            }
        }
        if !(0.0..=1.0).contains(&learning.row_deviation) {
            let problem = format!("expected 0 to 1, found {}", learning.row_deviation);
            found.add("learning.row_deviation", problem);
        }
        if self.embeddings.max_rows == 0 {
            found.add("embeddings.max_rows", "expected at least 1 row, found 0".into());
        }
        if !(learning.clip >= 0.0 && learning.clip.is_finite()) {
            let problem = format!("expected a norm, or 0 for never, found {}", learning.clip);
            found.add("learning.clip", problem);
        }
    }

    fn check_prior(&self, schema: &Schema, found: &mut Found) {
        if !self.has_variances() {
            return;
        }
        if self.is_deep() {
            let problem = "bayes learns one example after the other, without a deep part: choose \
                           sharing none, or gradient";
            found.add("learning.method", problem.into());
        }
        let numbers = schema.number_fields().len();
        if numbers > MOST_NUMBERS {
            let problem = format!(
                "bayes reads at most {MOST_NUMBERS} numbers, found {numbers}: choose gradient"
            );
            found.add("learning.method", problem);
        }
        let PriorSpec { weights, numbers, rows, least, child } = self.learning.prior;
        for (place, value, range) in [
            ("learning.prior.weights", weights, 1e-3..=10.0),
            ("learning.prior.numbers", numbers, 1e-3..=10.0),
            ("learning.prior.rows", rows, 1e-3..=10.0),
            ("learning.prior.least", least, 0.0..=1.0),
            ("learning.prior.child", child, 1e-3..=1.0),
        ] {
            if !range.contains(&value) {
                let (from, to) = (range.start(), range.end());
                found.add(place, format!("expected {from} to {to}, found {value}"));
            }
        }
    }
}

struct Found(Vec<SpecError>);

impl Found {
    fn add(&mut self, place: &str, problem: String) {
        self.0.push(SpecError { place: place.into(), problem });
    }

    fn size(&mut self, place: &str, size: usize) {
        if !(1..=MOST).contains(&size) {
            self.add(place, format!("expected 1 to {MOST}, found {size}"));
        }
    }

    fn sizes(&mut self, place: &str, sizes: &[usize]) {
        sizes.iter().for_each(|&size| self.size(place, size));
    }

    fn widths(&mut self, place: &str, widths: &[usize]) {
        if widths.is_empty() {
            self.add(place, "expected at least one layer, found none".into());
        }
        self.sizes(place, widths);
    }
}
