//! Candidates of a request: what no item changes is read once, the rest for each item.
//!
//! The rows are those that [`Assembler::snapshot`] and [`Assembler::append`] make of the same items at the same time.

use super::columns::{Column, Place};
use super::{Assembler, History, Known, Shown, Sources};
use crate::candidates::{Candidates, Columns};
use crate::counters::Subjects;
use crate::example::About;
use crate::ids::EventId;
use crate::schema::{Lookup, Source};

impl Assembler {
    /// Starts a request: removes all candidates and reads what those to come have in common. The item of `shown` does not matter.
    pub fn start(
        &self,
        shown: &Shown<'_>,
        known: &Known<'_>,
        history: &impl History,
        candidates: &mut Candidates,
    ) {
        candidates.clear();
        known.users.as_of(shown.user.0, shown.time, |_, user| {
            let subjects =
                Subjects { item: 0, user: shown.user.0, category: None, surface: shown.surface };
            let counters = known.counters;
            let sources = Sources { shown, item: None, user, counters, subjects };
            self.read(&sources, false, &mut candidates.common);
        });
        self.cross(false, &[], &mut candidates.common.keys);
        for (lookup, histories) in self.lookups.iter().zip(&mut candidates.histories) {
            if let Lookup::Newest { .. } = lookup {
                self.look(lookup, None, shown.time, history, histories);
            }
        }
    }

    /// Adds a candidate to a request that was started for the same user, time and circumstances.
    pub fn add(
        &self,
        shown: &Shown<'_>,
        known: &Known<'_>,
        history: &impl History,
        candidates: &mut Candidates,
    ) {
        let row = candidates.own.keys.len();
        let (category, offered) = known.items.as_of(shown.item.0, shown.time, |found, item| {
            let category = item.and_then(|item| item.get(self.category)?.category());
            let (user, surface) = (shown.user.0, shown.surface);
            let subjects = Subjects { item: shown.item.0, user, category, surface };
            let counters = known.counters;
            let sources = Sources { shown, item, user: None, counters, subjects };
            self.read(&sources, true, &mut candidates.own);
            (category, known.items.is_offered(found, item, self.available))
        });
        let Candidates { common, own, .. } = &mut *candidates;
        self.cross(true, &common.keys, &mut own.keys[row..]);
        if candidates.join(category) {
            for (lookup, histories) in self.lookups.iter().zip(&mut candidates.histories) {
                if let Lookup::Matching { .. } = lookup {
                    self.look(lookup, category, shown.time, history, histories);
                }
            }
        }
        candidates.about.push(About {
            impression: EventId(0),
            user: shown.user,
            item: shown.item,
            time: shown.time,
            new_item: shown.new_item,
            offered,
        });
    }

    /// Sets the crosses of a row of the key columns that are a candidate's own, or of the others; `common` are the others.
    fn cross(&self, own: bool, common: &[u64], row: &mut [u64]) {
        for cross in self.crosses.iter().filter(|cross| cross.place.own == own) {
            let keys = &*row;
            let of = |part: Place| if part.own == own { keys } else { common }[part.beside];
            row[cross.place.beside] = cross.key(of);
        }
    }

    /// Adds a row of the columns that are a candidate's own, or of the others; their crosses are not yet made.
    fn read(&self, sources: &Sources<'_>, own: bool, into: &mut Columns) {
        let time = sources.shown.time;
        let mine = |column: &&Column| column.own == own;
        let keys = self.keys.iter().filter(mine);
        into.keys.extend(keys.map(|column| column.key(sources.given(&column.source), time)));
        let numbers = self.numbers.iter().filter(mine);
        let first = into.numbers.len();
        into.numbers.extend(numbers.map(|column| match column.source {
            Source::Counter(_) => 0.0,
            _ => column.number(sources.given(&column.source)),
        }));
        self.read_counters(sources, |i, number| {
            if self.numbers[i].own == own {
                into.numbers[first + self.number_places[i]] = number;
            }
        });
        for (column, list) in self.lists.iter().filter(mine).zip(&mut into.lists) {
            column.list(sources.given(&column.source), |key| list.keys.push(key));
            list.starts.push(u32::try_from(list.keys.len()).unwrap_or(u32::MAX));
        }
    }
}
