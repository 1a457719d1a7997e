//! Numbers by their digits. What a number names must not depend on what an f64 holds: 9007199254740992 and 9007199254740993 are two names.

use crate::attributes::number_id;
use crate::ids::stable_hash;

/// The longest number in plain decimals that is read.
const LONGEST: usize = 400;
/// Up to so many characters a number without exponent has no more digits than any f64 tells apart.
const SURE: usize = 15;

/// A number as it was written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Numeral {
    /// The number is known by its shortest decimal text ([`number_id`]).
    Number(f64),
    /// It has digits that an f64 does not hold: the id of its plain decimals, and the nearest f64.
    Digits {
        /// The same as that of the text itself.
        id: u64,
        /// The nearest number.
        nearest: f64,
    },
}

impl Numeral {
    /// Returns the id of what the number names.
    pub fn id(self) -> u64 {
        match self {
            Self::Number(number) => number_id(number),
            Self::Digits { id, .. } => id,
        }
    }

    /// Reads a number as JSON writes it; `None` where it is larger than an f32 or its plain decimals are too long.
    #[inline]
    pub fn read(literal: &str) -> Option<Self> {
        if literal.len() <= SURE && literal.bytes().all(|byte| byte.is_ascii_digit()) {
            let digits = literal.bytes().map(|digit| u64::from(digit - b'0'));
            let number = digits.fold(0, |number, digit| 10 * number + digit);
            return Some(Self::Number(number as f64));
        }
        Self::read_any(literal)
    }

    fn read_any(literal: &str) -> Option<Self> {
        // Minus zero becomes zero: they are one category.
        let nearest = literal.parse::<f64>().ok()? + 0.0;
        if nearest.abs() > f64::from(f32::MAX) || literal.len() > LONGEST {
            return None;
        }
        if literal.len() <= SURE && !literal.contains(['e', 'E']) {
            return Some(Self::Number(nearest));
        }
        let mut text = [0; 2 * LONGEST + 8];
        let length = plain(literal, &mut text)?;
        let id = stable_hash(&text[..length]);
        Some(if id == number_id(nearest) {
            Self::Number(nearest)
        } else {
            Self::Digits { id, nearest }
        })
    }
}

/// Writes a number in plain decimals, without needless zeros: `1.50e3` is `1500`. Returns how many bytes that takes, `None` where it would
/// be too many.
fn plain(literal: &str, text: &mut [u8]) -> Option<usize> {
    let (mantissa, exponent) = literal.split_once(['e', 'E']).unwrap_or((literal, "0"));
    let exponent: i64 = exponent.parse().ok()?;
    let (minus, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    let all = whole.len() + fraction.len();
    let first = digits().take_while(|digit| *digit == b'0').count();
    let mut end = 0;
    let mut push = |byte: u8| {
        text[end] = byte;
        end += 1;
    };
    if first == all {
        push(b'0');
        return Some(1);
    }
    let last = all - digits().rev().take_while(|digit| *digit == b'0').count();
    // Where the point stands among the digits.
    let point = exponent.checked_add(whole.len() as i64)?;
    if point.unsigned_abs() as usize > LONGEST {
        return None;
    }
    if minus {
        push(b'-');
    }
    if point <= first as i64 {
        push(b'0');
        push(b'.');
        (point..first as i64).for_each(|_| push(b'0'));
        digits().take(last).skip(first).for_each(push);
        return Some(end);
    }
    let mut place = first as i64;
    for digit in digits().take(last).skip(first) {
        if place == point {
            push(b'.');
        }
        push(digit);
        place += 1;
    }
    (place..point).for_each(|_| push(b'0'));
    Some(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a number is called.
    fn name(literal: &str) -> u64 {
        Numeral::read(literal).unwrap().id()
    }

    fn decimals(literal: &str) -> String {
        let mut text = [0; 2 * LONGEST + 8];
        let length = plain(literal, &mut text).unwrap();
        String::from_utf8(text[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_number_is_written_in_plain_decimals() {
        let pairs = [
            ("0", "0"),
            ("-0.00e7", "0"),
            ("1.50e3", "1500"),
            ("1.50e1", "15"),
            ("1.50e-3", "0.0015"),
            ("-12.50", "-12.5"),
            ("100", "100"),
            ("0.10", "0.1"),
            ("1E+2", "100"),
            ("123.4e-2", "1.234"),
            ("0.0012e2", "0.12"),
            ("0.0012e3", "1.2"),
            ("18446744073709551617", "18446744073709551617"),
        ];
        for (literal, expected) in pairs {
            assert_eq!(decimals(literal), expected, "{literal}");
            assert_eq!(name(literal), stable_hash(expected.as_bytes()), "{literal}");
        }
    }

    #[test]
    fn what_an_f64_holds_is_a_number_as_before() {
        for literal in
            ["7", "-12.5", "9007199254740992", "1e22", "1e-7", "0.1", "0.30000000000000004"]
        {
            let number: f64 = literal.parse().unwrap();
            assert_eq!(Numeral::read(literal), Some(Numeral::Number(number)), "{literal}");
            assert_eq!(name(literal), stable_hash(number.to_string().as_bytes()));
        }
        assert_eq!(Numeral::read("-0"), Some(Numeral::Number(0.0)));
    }

    #[test]
    fn what_is_too_large_or_too_long_is_not_read() {
        let long = format!("0.{}1", "0".repeat(LONGEST));
        for literal in ["1e39", "-1e39", "1e400", "1e-402", "1e-99999999999999999999", &long] {
            assert_eq!(Numeral::read(literal), None, "{literal}");
        }
        assert!(Numeral::read("3.4e38").is_some() && Numeral::read("1e-400").is_some());
    }

    proptest! {
        /// Digits in, category out: a number in plain decimals is known by just these, whatever its size.
        #[test]
        fn a_number_is_known_by_its_digits(
            minus in any::<bool>(), whole in "0|[1-9][0-9]{0,36}", fraction in "|[0-9]{0,40}[1-9]",
        ) {
            let point = if fraction.is_empty() { "" } else { "." };
            let sign = if minus && (whole != "0" || !fraction.is_empty()) { "-" } else { "" };
            let literal = format!("{sign}{whole}{point}{fraction}");
            prop_assert_eq!(name(&literal), stable_hash(literal.as_bytes()), "{}", literal);
        }

        /// However it is written, it is the same number.
        #[test]
        fn an_exponent_moves_the_point(digits in "[1-9][0-9]{0,24}", zeros in 0usize..5, up in 0usize..12) {
            let shifted = format!("{digits}{}e-{}", "0".repeat(up), up);
            prop_assert_eq!(name(&shifted), name(&digits));
            let padded = format!("{digits}.{}", "0".repeat(zeros + 1));
            prop_assert_eq!(name(&padded), name(&digits));
            prop_assert_eq!(name(&format!("{digits}E{up}")), name(&format!("{digits}{}", "0".repeat(up))));
        }
    }
}
