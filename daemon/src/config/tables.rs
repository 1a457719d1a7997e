//! The embedding tables that fields name: each with one width.

use sluice_features::schema::Table;

use super::mistake::Mistakes;

/// The name of the table of the time between behaviour and impression, which no field may take.
pub(super) const GAP_NAME: &str = "gap";

/// The tables so far. Those that a history reads come first.
pub(super) struct Tables {
    list: Vec<Table>,
    standard: usize,
    asked: Vec<Option<usize>>,
}

impl Tables {
    /// The table of items.
    pub(super) const ITEM: usize = 0;
    /// The table of categories.
    pub(super) const CATEGORY: usize = 1;
    /// The table of the time between behaviour and impression.
    pub(super) const GAP: usize = 2;

    /// Creates the tables of the history, of the standard width.
    pub(super) fn new(width: usize) -> Self {
        let list =
            ["item", "category", GAP_NAME].map(|name| Table { name: name.into(), width }).to_vec();
        Self { asked: vec![None; list.len()], list, standard: width }
    }

    /// Returns the number of a table by its name, making it when it is new.
    pub(super) fn number(
        &mut self,
        name: &str,
        width: Option<usize>,
        path: &str,
        mistakes: &mut Mistakes,
    ) -> usize {
        if let Some(number) = self.list.iter().position(|table| table.name == name) {
            match (self.asked[number], width) {
                (Some(earlier), Some(width)) if earlier != width => mistakes.add(
                    format!("{path}.width"),
                    format!("table \"{name}\" has width {earlier} by an earlier field, found {width}: give one width"),
                ),
                (None, Some(width)) if number <= Self::GAP && width != self.standard => mistakes.add(
                    format!("{path}.width"),
                    format!("table \"{name}\" is read by the history too and has the width of model.width ({}), found {width}: leave it out", self.standard),
                ),
                (None, Some(width)) => {
                    self.asked[number] = Some(width);
                    self.list[number].width = width;
                }
                _ => {}
            }
            return number;
        }
        self.list.push(Table { name: name.into(), width: width.unwrap_or(self.standard) });
        self.asked.push(width);
        self.list.len() - 1
    }

    /// Returns the tables in the order of their numbers.
    pub(super) fn into_list(self) -> Vec<Table> {
        self.list
    }
}
