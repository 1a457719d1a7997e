//! A line of a table, split into its fields.

/// The fields of one line.
///
/// A line is a row and a row is a line: none of the sets has a field of several lines, and a reader that looks for the end of a
/// field in later lines takes all rows behind a stray quote for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    text: String,
    /// Where each field ends in the text.
    ends: Vec<usize>,
}

/// How the fields of a line are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// By commas. A field may stand in quotes, in which two quotes are one.
    Commas,
    /// By tabs. There are no quotes: one in a file of tabs is a character of a title.
    Tabs,
}

impl Record {
    /// Splits a line, in place of what was there. Spaces around a field do not belong to it.
    ///
    /// # Errors
    /// Names the field whose quote does not close in the line, or does not close the field.
    pub(super) fn split(&mut self, line: &str, dialect: Dialect) -> Result<(), String> {
        let separator = match dialect {
            Dialect::Commas => ',',
            Dialect::Tabs => '\t',
        };
        self.text.clear();
        self.ends.clear();
        let mut rest = line;
        loop {
            let field = rest.trim_start_matches(' ');
            rest = match field.strip_prefix('"').filter(|_| dialect == Dialect::Commas) {
                Some(quoted) => self.quoted(quoted, separator)?,
                None => {
                    let (value, rest) =
                        field.split_at(field.find(separator).unwrap_or(field.len()));
                    self.text.push_str(value.trim_end_matches(' '));
                    rest
                }
            };
            self.ends.push(self.text.len());
            match rest.strip_prefix(separator) {
                Some(next) => rest = next,
                None => return Ok(()),
            }
        }
    }

    /// Takes a field behind its opening quote; returns what comes behind the closing one.
    fn quoted<'l>(&mut self, mut rest: &'l str, separator: char) -> Result<&'l str, String> {
        let column = self.ends.len() + 1;
        loop {
            let open =
                || format!("expected the quote that opens column {column} to close in its line");
            let (value, behind) = rest.split_once('"').ok_or_else(open)?;
            self.text.push_str(value);
            match behind.strip_prefix('"') {
                Some(next) => {
                    self.text.push('"');
                    rest = next;
                }
                None => {
                    let behind = behind.trim_start_matches(' ');
                    if behind.is_empty() || behind.starts_with(separator) {
                        return Ok(behind);
                    }
                    return Err(format!("expected column {column} to end with its closing quote"));
                }
            }
        }
    }

    /// Returns how many fields there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns a field.
    pub(super) fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.text.get(start..end)
    }

    /// Returns the fields in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl<'a> FromIterator<&'a str> for Record {
    fn from_iter<I: IntoIterator<Item = &'a str>>(fields: I) -> Self {
        let mut record = Self::default();
        for field in fields {
            record.text.push_str(field);
            record.ends.push(record.text.len());
        }
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Result<Vec<String>, String> {
        let mut record = Record::default();
        record.split(line, Dialect::Commas)?;
        Ok(record.iter().map(str::to_owned).collect())
    }

    #[test]
    fn fields_stand_between_commas_with_or_without_quotes() {
        assert_eq!(split("a,,b").unwrap(), ["a", "", "b"]);
        assert_eq!(split("").unwrap(), [""]);
        assert_eq!(split(",").unwrap(), ["", ""]);
        assert_eq!(split("\"39,12\",\"\",\"a \"\"b\"\"\"").unwrap(), ["39,12", "", "a \"b\""]);
        assert_eq!(split(" 7 , \" 8 \" ,9  ").unwrap(), ["7", " 8 ", "9"]);
        assert_eq!(split("12\" disc,x").unwrap(), ["12\" disc", "x"]);
    }

    #[test]
    fn a_quote_that_does_not_close_its_field_is_named() {
        assert!(split("a,\"b,c").unwrap_err().contains("opens column 2"));
        assert!(split("\"").unwrap_err().contains("opens column 1"));
        assert!(split("a,\"b\"\"").unwrap_err().contains("opens column 2"));
        assert!(split("a,\"b,c\"d,e").unwrap_err().contains("column 2 to end"));
    }

    #[test]
    fn between_tabs_a_quote_is_a_character() {
        let mut record = Record::default();
        record.split("10\t\"Toy\" Story\t\"x", Dialect::Tabs).unwrap();
        assert!(record.iter().eq(["10", "\"Toy\" Story", "\"x"]));
    }
}
