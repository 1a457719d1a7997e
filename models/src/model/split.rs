//! How the columns of the features divide when candidates are scored: those that all candidates have in common, and a candidate's own.
//!
//! Each side is `[key fields; lists; numbers]` in the order of the schema; the interest stands behind the candidate's own.

use std::ops::Range;

use sluice_features::schema::Schema;

use super::plan::{Column, Plan};

/// The columns of one side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side {
    /// `index` among the store's key columns of this side.
    pub(crate) keys: Vec<Column>,
    /// `index` among this side's lists.
    pub(crate) lists: Vec<Column>,
    /// Which numbers of the schema this side has.
    pub(crate) numbers: Vec<usize>,
    /// How many key fields a row of this side has.
    pub(crate) row: usize,
    /// For each store the places of its key columns in such a row.
    pub(crate) places: Vec<Vec<usize>>,
    /// Where lists, numbers and, on the candidate's own side, the interest stand in `x`, in order.
    pub(crate) behind_keys: Vec<Range<usize>>,
}

/// Both sides.
#[derive(Clone, Debug)]
pub(crate) struct Split {
    pub(crate) common: Side,
    pub(crate) own: Side,
    /// The candidate's item and category among the own side's key columns.
    pub(crate) target: Option<[usize; 2]>,
}

impl Split {
    /// `interest` is the width of the interest's columns, which stand behind all others in `x`.
    pub(crate) fn new(schema: &Schema, plan: &Plan, interest: usize) -> Self {
        let common = Side::new(schema, plan, false);
        let mut own = Side::new(schema, plan, true);
        push_rows(&mut own.behind_keys, plan.fields..plan.fields + interest);
        // Item and category are always a candidate's own.
        let among_own = |key: usize| {
            let field = plan.keys[key].field;
            own.keys.iter().position(|column| column.field == field).unwrap_or(0)
        };
        let target = plan.target.map(|keys| keys.map(among_own));
        Self { common, own, target }
    }
}

impl Side {
    fn new(schema: &Schema, plan: &Plan, own: bool) -> Self {
        let mine = |field: &usize| schema.is_own(*field) == own;
        let mut side = Self { places: vec![Vec::new(); plan.stores.len()], ..Self::default() };
        for (number, _) in schema.key_fields().iter().enumerate().filter(|(_, f)| mine(f)) {
            if let Some(column) = plan.keys.iter().find(|column| column.field == number) {
                let index = side.places[column.store].len();
                side.keys.push(Column { index, ..*column });
                side.places[column.store].push(side.row);
            }
            if let Some(linear) = plan.linear() {
                side.places[linear].push(side.row);
            }
            side.row += 1;
        }
        let lists = schema.list_fields();
        let lists = lists.iter().zip(&plan.lists).filter(|(field, _)| mine(field));
        for (index, (_, column)) in lists.enumerate() {
            side.lists.push(Column { index, ..*column });
            push_rows(&mut side.behind_keys, column.rows());
        }
        for (number, _) in schema.number_fields().iter().enumerate().filter(|(_, f)| mine(f)) {
            side.numbers.push(number);
            let at = plan.numbers_at + number;
            push_rows(&mut side.behind_keys, at..at + 1);
        }
        side
    }

    /// Adds to `rows` where the columns stand in `x`, in order, of the key columns only these.
    pub(crate) fn rows(&self, keys: impl Iterator<Item = usize>, rows: &mut Vec<Range<usize>>) {
        rows.clear();
        keys.for_each(|key| push_rows(rows, self.keys[key].rows()));
        self.behind_keys.iter().for_each(|behind| push_rows(rows, behind.clone()));
    }
}

/// Adds a range, to the last one where it follows.
fn push_rows(rows: &mut Vec<Range<usize>>, range: Range<usize>) {
    match rows.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ if range.is_empty() => {}
        _ => rows.push(range),
    }
}
