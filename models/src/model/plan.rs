//! Where the columns of a batch go: from keys to rows, from rows to the features `x`.
//!
//! `x = [key fields; lists; numbers; interest]`, fields in the order of the schema. All tables of one width share one store (their keys are
//! salted apart), and `linear` has a store of its own with a row of one weight for each task. Fields of width 0 have no place in `x`: only
//! `linear` reads them.
//!
//! A store's *occurrences* are, end to end: its key columns example by example, its lists, its parts of the histories. All else finds
//! its row by the place of its occurrence.

use sluice_features::schema::Schema;

use crate::spec::ModelSpec;

/// A place in `x` and the store behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) store: usize,
    /// Among the store's key columns, or among all lists.
    pub(crate) index: usize,
    /// Among the batch's key columns, or among its lists.
    pub(crate) field: usize,
    /// First column of `x`.
    pub(crate) offset: usize,
    pub(crate) width: usize,
}

impl Column {
    /// Its columns of `x`.
    pub(crate) fn rows(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.width
    }
}

/// The stores of one look into the history: items, categories and, where they count, ages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// `(store, width)`
    pub(crate) parts: Vec<(usize, usize)>,
}

impl Look {
    /// Width of one behaviour.
    pub(crate) fn width(&self) -> usize {
        self.parts.iter().map(|&(_, width)| width).sum()
    }
}

/// A store's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreShape {
    pub(crate) width: usize,
    /// How many key columns an example has in it.
    pub(crate) columns: usize,
    pub(crate) linear: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) stores: Vec<StoreShape>,
    pub(crate) keys: Vec<Column>,
    pub(crate) lists: Vec<Column>,
    /// What `linear` adds up for an example beside numbers: key fields and lists.
    pub(crate) terms: usize,
    pub(crate) numbers: usize,
    /// First column of the numbers in `x`.
    pub(crate) numbers_at: usize,
    pub(crate) looks: Vec<Look>,
    /// Which of `keys` hold the candidate's item and category.
    pub(crate) target: Option<[usize; 2]>,
    /// Columns of `x` before the interest's.
    pub(crate) fields: usize,
}

impl Plan {
    /// `aged` tells for each look whether behaviours carry their age.
    pub(crate) fn new(schema: &Schema, spec: &ModelSpec, aged: &[bool]) -> Self {
        let deep = spec.is_deep();
        let width = |table: usize| schema.tables[table].width;
        let (keys, lists) = (schema.key_fields(), schema.list_fields());
        let mut widths = Vec::new();
        if deep || spec.crossing.has_fm() {
            widths.extend(keys.iter().map(|&field| width(schema.fields[field].table)));
            widths.retain(|&width| width > 0);
        }
        if deep {
            widths.extend(lists.iter().map(|&field| width(schema.fields[field].table)));
            widths.extend([width(schema.item_table), width(schema.category_table)]);
            if aged.contains(&true) {
                widths.push(width(schema.gap_table));
            }
        }
        widths.sort_unstable();
        widths.dedup();
        let mut stores: Vec<StoreShape> =
            widths.iter().map(|&width| StoreShape { width, columns: 0, linear: false }).collect();
        let store = |table: usize| widths.iter().position(|&w| w == width(table)).unwrap_or(0);

        let mut offset = 0;
        let mut column = |table: usize, index: usize, field: usize| {
            let column = Column { store: store(table), index, field, offset, width: width(table) };
            offset += column.width;
            column
        };
        let (embedded, terms) = (!stores.is_empty(), keys.len() + lists.len());
        let keys: Vec<Column> = keys
            .into_iter()
            .map(|field| schema.fields[field].table)
            .enumerate()
            .filter(|&(_, table)| embedded && width(table) > 0)
            .map(|(field, table)| {
                let shape = &mut stores[store(table)];
                shape.columns += 1;
                column(table, shape.columns - 1, field)
            })
            .collect();
        let lists: Vec<Column> = lists
            .into_iter()
            .filter(|_| deep)
            .enumerate()
            .map(|(list, field)| column(schema.fields[field].table, list, list))
            .collect();
        let looks = aged
            .iter()
            .filter(|_| deep)
            .map(|&aged| {
                let mut tables = vec![schema.item_table, schema.category_table];
                tables.extend(aged.then_some(schema.gap_table));
                Look { parts: tables.into_iter().map(|t| (store(t), width(t))).collect() }
            })
            .collect();
        if spec.crossing.has_linear() {
            let columns = schema.key_fields().len();
            // A weight with a variance has, behind all weights of the row, the precision that was learned.
            let width = schema.tasks * if spec.has_variances() { 2 } else { 1 };
            stores.push(StoreShape { width, columns, linear: true });
        }
        let place = |field: usize| keys.iter().position(|column| column.field == field);
        let target = [schema.target_item(), schema.target_category()];
        let target = target.map(|field| field.filter(|_| deep).and_then(place));
        let numbers = schema.number_fields().len();
        Self {
            stores,
            keys,
            lists,
            terms,
            numbers,
            numbers_at: offset,
            looks,
            target: target[0].zip(target[1]).map(|(item, category)| [item, category]),
            fields: offset + numbers,
        }
    }

    /// The key fields with a width, by their number among all: `None` where that is all.
    pub(crate) fn wide(&self, fields: usize) -> Option<Vec<usize>> {
        let wide = || self.keys.iter().map(|column| column.field).collect();
        (self.keys.len() < fields).then(wide)
    }

    /// The store of linear weights.
    pub(crate) fn linear(&self) -> Option<usize> {
        self.stores.iter().position(|store| store.linear)
    }

    /// Widths of the item with its category, and of an age.
    pub(crate) fn behaviour(&self) -> (usize, usize) {
        let part = |k: usize| {
            self.looks.iter().filter_map(|look| look.parts.get(k)).map(|&(_, width)| width).max()
        };
        (part(0).unwrap_or(0) + part(1).unwrap_or(0), part(2).unwrap_or(0))
    }
}
