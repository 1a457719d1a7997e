//! Words for messages: what was found, what is known, and which known word may have been meant.

use std::fmt::Write;

/// The most characters of a found value in a message.
const SHOWN: usize = 64;

/// Returns the known word that is most like another one, if any is like it.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Whoever writes the beginning of a word means it.
    let distance = |candidate: &str| match candidate.strip_prefix(word) {
        Some(_) if word.len() > 2 => 0,
        _ => strsim::damerau_levenshtein(word, candidate),
    };
    let (distance, nearest) =
        known.into_iter().map(|candidate| (distance(candidate), candidate)).min()?;
    (distance * 3 <= word.chars().count().max(nearest.chars().count()) + 1).then_some(nearest)
}

/// Returns the words as a choice: `a, b or c`.
pub fn listed(names: &[&str]) -> String {
    match names {
        [] => "nothing".into(),
        [only] => (*only).into(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// Returns the beginning of a found text without line breaks and other characters that spoil a log line.
pub fn shown(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().take(SHOWN) {
        let plain = c == '"' || c == '\'' || c == '`';
        // Writing to a string cannot fail.
        let _ok = if plain { write!(shown, "{c}") } else { write!(shown, "{}", c.escape_debug()) };
    }
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_like_word_is_suggested() {
        let known = ["brokers", "group", "prefix"];
        assert_eq!(nearest("broker", known), Some("brokers"));
        assert_eq!(nearest("gruop", known), Some("group"));
        assert_eq!(nearest("listen", known), None);
        assert_eq!(nearest("pre", known), Some("prefix"));
        assert_eq!(nearest("x", known), None);
    }

    #[test]
    fn what_is_shown_is_short_and_on_one_line() {
        assert_eq!(shown("it's \"so\"\n\u{1b}"), "it's \"so\"\\n\\u{1b}");
        assert_eq!(shown(&"x".repeat(70)), format!("{}…", "x".repeat(64)));
    }
}
