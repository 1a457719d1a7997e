//! Lengths of time and sizes as they are written: `"200ms"`, `"5m"`, `"7d"`, `"64MiB"`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sluice_features::time::Span;

/// A length of time in whole milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(i64);

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// How much of something there is a size of: so many bytes, or so many per cent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// From 1 to 100 per cent.
    Percent(u8),
    /// A size.
    Size(Size),
}

const PERIOD_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Period {
    /// Creates a period of so many milliseconds.
    pub const fn milliseconds(milliseconds: i64) -> Self {
        Self(milliseconds)
    }

    /// Creates a period of so many seconds.
    pub const fn seconds(seconds: i64) -> Self {
        Self(seconds * 1000)
    }

    /// Returns the period as a length of event time.
    pub fn span(self) -> Span {
        Span(self.0)
    }

    /// Returns the period as a length of the clock's time.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0.unsigned_abs())
    }
}

impl Size {
    /// Creates a size of so many bytes.
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Creates a size of so many MiB.
    pub const fn mebibytes(mebibytes: u64) -> Self {
        Self(mebibytes << 20)
    }

    /// Returns the number of bytes.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_in_units(f, self.0.unsigned_abs(), &PERIOD_UNITS, "s")
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_in_units(f, self.0, &SIZE_UNITS, "B")
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Size(size) => size.fmt(f),
        }
    }
}

impl std::str::FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = || {
            let number = text.trim().strip_suffix('%')?.trim_end();
            let number = number.bytes().all(|byte| byte.is_ascii_digit()).then_some(number)?;
            number.parse().ok().filter(|number| (1..=100).contains(number)).map(Self::Percent)
        };
        let size = || parse_in_units(text, &SIZE_UNITS).map(|bytes| Self::Size(Size(bytes)));
        percent().or_else(size).ok_or_else(|| {
            format!(
                "expected a size such as \"4GiB\" or a part from \"1%\" to \"100%\", found \"{text}\""
            )
        })
    }
}

impl std::str::FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_in_units(text, &PERIOD_UNITS)
            .and_then(|number| i64::try_from(number).ok())
            .map(Self)
            .ok_or_else(|| {
                format!(
                    "expected a length of time such as \"200ms\", \"30s\", \"5m\", \"1h\" or \"7d\", found \"{text}\""
                )
            })
    }
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_in_units(text, &SIZE_UNITS).map(Self).ok_or_else(|| {
            format!("expected a size such as \"512KiB\", \"64MiB\" or \"2GiB\", found \"{text}\"")
        })
    }
}

/// Writes the number in the largest unit that divides it.
fn write_in_units(
    f: &mut fmt::Formatter<'_>,
    number: u64,
    units: &[(&str, u64)],
    of_zero: &str,
) -> fmt::Result {
    let whole = units.iter().find(|(_, size)| number > 0 && number.is_multiple_of(*size));
    match whole {
        Some((name, size)) => write!(f, "{}{name}", number / size),
        None => write!(f, "0{of_zero}"),
    }
}

/// Reads a number that stands directly, or behind spaces, before its unit.
fn parse_in_units(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim_start();
    let (_, size) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*size)
}

macro_rules! as_text {
    ($name:ident, $what:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }
    };
}

as_text!(Period, "a length of time in quotes with its unit, such as \"30s\"");
as_text!(Size, "a size in quotes with its unit, such as \"64MiB\"");
as_text!(Amount, "a size or a percentage in quotes, such as \"4GiB\" or \"80%\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["0s", "200ms", "90s", "5m", "36h", "7d"] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        }
        for text in ["0B", "100B", "3KiB", "64MiB", "2GiB"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        for text in ["1%", "80%", "100%", "64MiB"] {
            assert_eq!(text.parse::<Amount>().unwrap().to_string(), text);
        }
        assert_eq!("48 h".parse::<Period>().unwrap().to_string(), "2d");
    }

    #[test]
    fn a_number_without_its_unit_is_refused() {
        for text in ["", "5", "-5s", "5 minutes", "s", "99999999999999999999d", "1e3s"] {
            assert!(text.parse::<Period>().unwrap_err().contains("expected a length"), "{text}");
        }
        for text in ["64", "64MB", "64 mib", "99999999TiB"] {
            assert!(text.parse::<Size>().unwrap_err().contains("expected a size"), "{text}");
        }
        for text in ["", "%", "0%", "101%", "-5%", "+5%", "80.5%", "80", "300%", "5%%", "99999%"] {
            assert!(text.parse::<Amount>().unwrap_err().contains("expected a size"), "{text}");
        }
    }
}
