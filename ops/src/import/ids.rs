//! Ids and times of imported records: within the limits of the wire format, or the row is bad.

use xxhash_rust::xxh3::Xxh3;

use super::calendar;
use super::table::{Row, RowError};

const MAX_ID: usize = 256;
const MILLISECONDS: f64 = 1000.0;

impl<'a> Row<'a> {
    /// Returns the id in a column: 1 to 256 bytes, no control characters.
    pub(super) fn id(&self, column: &str) -> Result<&'a str, RowError> {
        let id = self.need(column)?;
        if id.len() > MAX_ID || id.chars().any(char::is_control) {
            let what = "an id of 1 to 256 bytes without control characters";
            return Err(RowError::Bad(format!("expected {what} in column {column}")));
        }
        Ok(id)
    }

    /// Returns the stable hash of the whole row as 16 hexadecimal digits: the id of an event that has
    /// none. Rows that are equal in every column have the same.
    pub(super) fn hash(&self) -> String {
        let mut hash = Xxh3::new();
        for (_, _, value) in self.columns() {
            hash.update(value.as_bytes());
            hash.update(&[0x1f]);
        }
        format!("{:016x}", hash.digest())
    }

    /// Returns the time in a column of milliseconds since 1970.
    pub(super) fn milliseconds(&self, column: &str) -> Result<i64, RowError> {
        self.time(column, 1.0)
    }

    /// Returns the time in a column of seconds since 1970, as milliseconds.
    pub(super) fn seconds(&self, column: &str) -> Result<i64, RowError> {
        self.time(column, MILLISECONDS)
    }

    fn time(&self, column: &str, unit: f64) -> Result<i64, RowError> {
        let text = self.need(column)?;
        let time = match text.parse::<i64>() {
            Ok(whole) => whole.checked_mul(unit as i64),
            Err(_) => text.parse::<f64>().ok().map(|number| (number * unit).round() as i64),
        };
        time.filter(|time| (calendar::YEAR_1990..calendar::YEAR_10000).contains(time)).ok_or_else(
            || RowError::Bad(format!("expected a time from 1990 to 9999 in column {column}")),
        )
    }
}
