//! Dates of the proleptic Gregorian calendar in UTC, as milliseconds since 1970.

/// 1990-01-01T00:00:00Z: earlier times are refused by the wire format.
pub(super) const YEAR_1990: i64 = 631_152_000_000;
/// 10000-01-01T00:00:00Z.
pub(super) const YEAR_10000: i64 = 253_402_300_800_000;

const DAY: i64 = 86_400_000;

/// Reads `2022-04-10` as its midnight.
pub(super) fn date(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() != 4 || month.len() != 2 || day.len() != 2 {
        return None;
    }
    let (year, month, day) = (digits(year)?, digits(month)?, digits(day)?);
    let valid = (1..=12).contains(&month) && (1..=days_of(year, month)).contains(&day);
    valid.then(|| days(year, month, day) * DAY)
}

/// Reads `2019-10-01 00:00:00 UTC`, with or without the zone or a fraction of a second.
pub(super) fn date_time(text: &str) -> Option<i64> {
    let text = text.strip_suffix(" UTC").unwrap_or(text);
    let (day, time) = text.split_once(' ')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = time.split(':').map(digits);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let millisecond = digits(&format!("{fraction:0<3}")[..3])?;
    Some(date(day)? + ((hour * 60 + minute) * 60 + second) * 1000 + millisecond)
}

fn digits(text: &str) -> Option<i64> {
    let valid = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    valid.then(|| text.parse().ok()).flatten()
}

/// Days since 1970-01-01. The year is taken to begin in March, so that the leap day is its last;
/// from there the months have 153 days in fives, and the centuries 146,097 in fours.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + year * 365 + year / 4 - year / 100 + day_of_year - 719_468
}

/// Writes the day of a time: `2022-04-10`. The way back of [`days`].
pub(crate) fn written(milliseconds: i64) -> String {
    let days = milliseconds.div_euclid(DAY) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates_have_their_times() {
        assert_eq!(date("1970-01-01"), Some(0));
        assert_eq!(date("1990-01-01"), Some(YEAR_1990));
        assert_eq!(date("2000-02-29"), Some(951_782_400_000));
        assert_eq!(date("2022-04-10"), Some(1_649_548_800_000));
        assert_eq!(date("9999-12-31").map(|last| last + DAY), Some(YEAR_10000));
        assert_eq!(date_time("2019-10-01 00:00:01 UTC"), Some(1_569_888_001_000));
        assert_eq!(date_time("2015-06-01 21:12:12.535"), Some(1_433_193_132_535));
        assert_eq!(date_time("2015-06-01 21:12:12.5"), Some(1_433_193_132_500));
    }

    #[test]
    fn days_are_read_back() {
        for text in ["1970-01-01", "1999-12-31", "2000-02-29", "2026-03-01", "2100-02-28"] {
            assert_eq!(date(text).map(written).as_deref(), Some(text));
            assert_eq!(date(text).map(|day| written(day + DAY - 1)).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        let wrong =
            ["", "2022", "2022-13-01", "2023-02-29", "1900-02-29", "22-04-10", "2022-04-10-1"];
        for text in wrong.into_iter().chain(["2022-4-010", "+022-04-10", "2022-04-é1"]) {
            assert_eq!(date(text), None, "{text}");
        }
        let wrong = ["2019-10-01", "2019-10-01 24:00:00", "2019-10-01 00:00", "2019-10-01 0:0:0:0"];
        for text in wrong.into_iter().chain(["2019-10-01 00:00:00.é0", "2019-10-01 00:00:00 CET"])
        {
            assert_eq!(date_time(text), None, "{text}");
        }
    }
}
