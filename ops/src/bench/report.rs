//! The rows of a run: printed group by group, or all together as JSON.

use anyhow::Result;
use serde::{Serialize, Serializer};

use sluice_daemon::say::{note, tell};

/// What a figure should reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    /// `>=`
    AtLeast(f64),
    /// `<=`
    AtMost(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    fn bound(self) -> f64 {
        match self {
            Self::AtLeast(bound) | Self::AtMost(bound) => bound,
        }
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.bound())
    }
}

/// One figure.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Row {
    /// The group's name on the command line.
    pub(super) group: &'static str,
    /// What was measured.
    pub(super) name: String,
    /// None where it could not be measured; the note says why.
    pub(super) value: Option<f64>,
    pub(super) unit: &'static str,
    /// What the machine allows, measured in the same run.
    pub(super) limit: Option<f64>,
    /// What another system reaches, measured in the same run.
    pub(super) peer: Option<f64>,
    /// What the value should reach. None where the comparison has no peer.
    pub(super) target: Option<Target>,
    /// Another figure meets the target in this one's place; the note says which.
    pub(super) met_otherwise: bool,
    /// What the table says beside the row: why there is no value or no peer, or what holds the value back.
    pub(super) note: Option<String>,
}

impl Row {
    /// A figure without limit, peer or target.
    pub(super) fn new(
        group: &'static str,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
    ) -> Self {
        Self { group, name: name.into(), value: Some(value), unit, ..Self::default() }
    }

    /// With what the machine allows.
    pub(super) fn limit(self, limit: f64) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// With what it should reach.
    pub(super) fn target(self, target: Target) -> Self {
        Self { target: Some(target), ..self }
    }

    /// Tells whether the target is met; none without a target or a value.
    fn met(&self) -> Option<bool> {
        Some(self.target?.is_met(self.value?) || self.met_otherwise)
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            group: &'a str,
            name: &'a str,
            value: Option<f64>,
            unit: &'a str,
            limit: Option<f64>,
            peer: Option<f64>,
            target: Option<Target>,
            met: Option<bool>,
        }
        let Self { group, name, value, unit, limit, peer, target, .. } = self;
        let met = self.met();
        Shown { group, name, value: *value, unit, limit: *limit, peer: *peer, target: *target, met }
            .serialize(serializer)
    }
}

/// What was measured so far.
#[derive(Debug)]
pub(super) struct Report {
    rows: Vec<Row>,
    shown: usize,
    prints: bool,
}

impl Report {
    /// Creates an empty report that prints tables, or only collects.
    pub(super) fn new(prints: bool) -> Self {
        Self { rows: Vec::new(), shown: 0, prints }
    }

    /// Adds a row.
    pub(super) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// All rows so far.
    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Prints what stands above the tables.
    pub(super) fn head(&self, text: &str) -> Result<()> {
        if self.prints {
            tell(&format!("{text}\n"))?;
        }
        Ok(())
    }

    /// Prints the rows that were not shown yet, or where only JSON is wanted their notes on standard error.
    pub(super) fn show(&mut self) -> Result<()> {
        let fresh = self.rows.get(self.shown..).unwrap_or_default();
        if self.prints && !fresh.is_empty() {
            tell(&format!("{}\n", table(fresh)))?;
        } else {
            for row in fresh.iter().filter(|row| row.note.is_some()) {
                let said = row.note.as_deref().unwrap_or_default();
                note(&format!("sluice bench: {}: {said}\n", row.name));
            }
        }
        self.shown = self.rows.len();
        Ok(())
    }
}

fn table(rows: &[Row]) -> String {
    let wide = |text: &dyn Fn(&Row) -> usize, least: usize| {
        rows.iter().map(text).max().unwrap_or(0).max(least) + 2
    };
    let group = wide(&|row| row.group.len(), 5);
    let name = wide(&|row| row.name.chars().count(), 4);
    let unit = wide(&|row| row.unit.chars().count(), 4);
    let mut text = format!(
        "{:group$}{:name$}{:>10}  {:unit$}{:>10}{:>10}{:>13}\n",
        "group", "name", "value", "unit", "limit", "peer", "target",
    );
    for row in rows {
        let target = row.target.map_or("-".to_owned(), |target| match target {
            Target::AtLeast(bound) => format!(">= {}", digits(bound)),
            Target::AtMost(bound) => format!("<= {}", digits(bound)),
        });
        let met = match row.met() {
            Some(true) => "  met",
            Some(false) => "  missed",
            None => "",
        };
        let note = row.note.as_ref().map_or(String::new(), |note| format!("  {note}"));
        let shown = |figure: Option<f64>| figure.map_or("-".to_owned(), digits);
        text.push_str(&format!(
            "{:group$}{:name$}{:>10}  {:unit$}{:>10}{:>10}{:>13}{met}{note}\n",
            row.group,
            row.name,
            shown(row.value),
            row.unit,
            shown(row.limit),
            shown(row.peer),
            target,
        ));
    }
    text
}

/// Four digits that count.
fn digits(figure: f64) -> String {
    let places = match figure.abs() {
        large if large >= 1000.0 => 0,
        middle if middle >= 100.0 => 1,
        small if small >= 10.0 || small == 0.0 => 2,
        _ => 3,
    };
    format!("{figure:.places$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let row = Row::new("kafka", "rank p50", 4.25, "ms").limit(3.5);
        row.target(Target::AtMost(13.5))
    }

    #[test]
    fn a_row_has_its_eight_members_and_a_line() {
        let json = serde_json::to_string(&row()).unwrap();
        assert_eq!(
            json,
            r#"{"group":"kafka","name":"rank p50","value":4.25,"unit":"ms","limit":3.5,"peer":null,"target":13.5,"met":true}"#
        );
        let table = table(&[row()]);
        let line = table.lines().nth(1).unwrap();
        assert!(line.contains("4.25") && line.ends_with("<= 13.50  met"), "{table}");
    }

    #[test]
    fn a_target_has_a_direction_and_needs_a_value() {
        let met = |value, target| Row { value, target: Some(target), ..row() }.met();
        assert_eq!(met(Some(2.0), Target::AtLeast(2.0)), Some(true));
        assert_eq!(met(Some(1.9), Target::AtLeast(2.0)), Some(false));
        assert_eq!(met(Some(2.1), Target::AtMost(2.0)), Some(false));
        assert_eq!(met(None, Target::AtMost(2.0)), None);
        assert_eq!(Row { target: None, ..row() }.met(), None);
        assert_eq!(Row { value: Some(20.0), met_otherwise: true, ..row() }.met(), Some(true));
        assert_eq!(Row { value: None, met_otherwise: true, ..row() }.met(), None);
    }

    #[test]
    fn a_row_without_a_peer_says_so() {
        let row = Row { value: None, note: Some("no peer: python3 has no torch".into()), ..row() };
        assert!(serde_json::to_string(&row).unwrap().contains(r#""value":null"#));
        let table = table(&[row]);
        assert!(
            table.lines().nth(1).unwrap().ends_with("no peer: python3 has no torch"),
            "{table}"
        );
    }

    #[test]
    fn figures_have_four_digits() {
        assert_eq!(
            [0.0, 0.1234, 12.345, 123.45, 12_345.6].map(digits).join(" "),
            "0.00 0.123 12.35 123.5 12346"
        );
    }
}
