//! Whether most of what comes is refused: then nothing is learned, however healthy everything else looks.
//!
//! Of each topic the records of the last minute are looked at, second by second. With at least `FEWEST` records in the minute, more than half
//! of them refused is an incident; it is over when fewer than a quarter are. A minute without that many records changes nothing.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_features::reject::{Reason, Rejection};
use sluice_features::wire::Topic;

/// How far back is looked.
const MINUTE: u64 = 60;
/// The fewest records that say anything.
const FEWEST: u64 = 10;
/// How often an incident is told again.
const AGAIN: Duration = Duration::from_secs(60);

/// The topics whose records may be refused.
const TOPICS: [Topic; 3] = [Topic::Events, Topic::Items, Topic::Users];

/// The records of one second.
#[derive(Debug, Default)]
struct Second {
    at: u64,
    records: u64,
    /// By [`Reason`].
    refused: Vec<(Reason, u64)>,
}

/// What is known of one topic.
#[derive(Debug, Default)]
struct Window {
    seconds: VecDeque<Second>,
    /// The newest rejection of each reason of the minute, in words.
    examples: Vec<(Reason, String)>,
    up: bool,
    told: Option<Duration>,
}

/// An incident of one topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    /// The topic.
    pub topic: Topic,
    /// Records of the last minute.
    pub records: u64,
    /// How many of them were refused.
    pub refused: u64,
    /// The commonest reason.
    pub reason: Reason,
    /// Its newest example, in words.
    pub example: String,
    /// It is to be told now.
    pub tell: bool,
}

/// What was refused of late, by topic.
#[derive(Debug, Default)]
pub struct Refusals {
    windows: [Window; TOPICS.len()],
    newest: Vec<Incident>,
}

impl Refusals {
    /// Takes note of records of a topic, and of those among them that were refused.
    pub fn note<'r>(
        &mut self,
        topic: Topic,
        now: Duration,
        records: u64,
        refused: impl Iterator<Item = &'r Rejection>,
    ) {
        let Some(place) = TOPICS.iter().position(|known| *known == topic) else { return };
        let window = &mut self.windows[place];
        let at = now.as_secs();
        if window.seconds.back().is_none_or(|second| second.at != at) {
            window.seconds.push_back(Second { at, ..Second::default() });
        }
        let Some(second) = window.seconds.back_mut() else { return };
        second.records += records;
        let mut newest: Vec<(Reason, &Rejection)> = Vec::new();
        for rejection in refused {
            add(&mut second.refused, rejection.reason, 1);
            newest.retain(|(reason, _)| *reason != rejection.reason);
            newest.push((rejection.reason, rejection));
        }
        for (reason, rejection) in newest {
            window.examples.retain(|(known, _)| *known != reason);
            window.examples.push((reason, rejection.to_string()));
        }
    }

    /// Returns the incidents of this moment.
    pub fn look(&mut self, now: Duration) -> Vec<Incident> {
        let windows = TOPICS.into_iter().zip(&mut self.windows);
        self.newest = windows.filter_map(|(topic, window)| window.look(topic, now)).collect();
        self.newest.clone()
    }

    /// Returns the incidents that the last look has found.
    pub fn newest(&self) -> &[Incident] {
        &self.newest
    }
}

impl Window {
    fn look(&mut self, topic: Topic, now: Duration) -> Option<Incident> {
        while self.seconds.front().is_some_and(|second| second.at + MINUTE <= now.as_secs()) {
            self.seconds.pop_front();
        }
        let records: u64 = self.seconds.iter().map(|second| second.records).sum();
        let mut reasons: Vec<(Reason, u64)> = Vec::new();
        for (reason, count) in self.seconds.iter().flat_map(|second| &second.refused) {
            add(&mut reasons, *reason, *count);
        }
        let refused: u64 = reasons.iter().map(|(_, count)| count).sum();
        if records >= FEWEST {
            self.up = if self.up { 4 * refused >= records } else { 2 * refused > records };
        }
        if !self.up {
            self.told = None;
            return None;
        }
        let commonest = reasons.iter().max_by_key(|(_, count)| *count).map(|(reason, _)| *reason);
        let example =
            self.examples.iter().rev().find(|(reason, _)| commonest.is_none_or(|c| c == *reason));
        let (reason, example) = example?.clone();
        let tell = self.told.is_none_or(|told| now.saturating_sub(told) >= AGAIN);
        if tell {
            self.told = Some(now);
        }
        Some(Incident { topic, records, refused, reason, example, tell })
    }
}

impl Incident {
    /// Returns the incident for readers of `/status`.
    pub fn object(&self) -> Value {
        json!({
            "topic": self.topic.name(),
            "records": self.records,
            "refused": self.refused,
            "reason": self.reason.name(),
            "example": self.example,
        })
    }

    /// Returns the incident in words.
    pub fn text(&self) -> String {
        let Self { records, refused, example, .. } = self;
        let topic = self.topic.name();
        format!(
            "{refused} of the last minute's {records} {topic} were refused, most of them such as: {example}"
        )
    }
}

fn add(reasons: &mut Vec<(Reason, u64)>, reason: Reason, more: u64) {
    match reasons.iter_mut().find(|(known, _)| *known == reason) {
        Some((_, count)) => *count += more,
        None => reasons.push((reason, more)),
    }
}

#[cfg(test)]
mod tests {
    use sluice_features::time::EventTime;

    use super::*;
    use crate::clock::Clock;

    /// Notes records of one second, so many of them refused, and looks.
    fn after(refusals: &mut Refusals, clock: &Clock, records: u64, refused: u64) -> Vec<Incident> {
        clock.turn(Duration::from_secs(1));
        let wrong = Rejection::found(Reason::UnknownType, "type", "vew");
        let rest = Rejection::field(Reason::MissingField, "user");
        let list = (0..refused).map(|k| if k % 3 == 0 { &rest } else { &wrong });
        refusals.note(Topic::Events, clock.steady(), records, list);
        refusals.look(clock.steady())
    }

    #[test]
    fn more_than_half_is_an_incident_until_it_is_less_than_a_quarter() {
        let (mut refusals, clock) = (Refusals::default(), Clock::manual(EventTime(0)));
        assert_eq!(after(&mut refusals, &clock, 9, 9), [], "too few to say");
        let found = after(&mut refusals, &clock, 1, 1);
        assert_eq!((found[0].records, found[0].refused, found[0].tell), (10, 10, true));
        assert_eq!(found[0].reason, Reason::UnknownType);
        assert!(found[0].text().contains("type: found vew"), "{}", found[0].text());
        // 10 of 40 are still a quarter; 10 of 41 are not.
        let found = after(&mut refusals, &clock, 30, 0);
        assert_eq!((found.len(), found[0].tell), (1, false));
        assert_eq!(after(&mut refusals, &clock, 1, 0), []);
        // 21 of 52 are less than half of them.
        assert_eq!(after(&mut refusals, &clock, 11, 11), []);
        assert_eq!(after(&mut refusals, &clock, 12, 12).len(), 1);
    }

    #[test]
    fn an_incident_is_told_once_a_minute_and_silence_does_not_end_it() {
        let (mut refusals, clock) = (Refusals::default(), Clock::manual(EventTime(0)));
        let mut told = 0;
        for _ in 0..121 {
            let found = after(&mut refusals, &clock, 100, 100);
            told += usize::from(found[0].tell);
            assert_eq!(found[0].records, 100 * found[0].records.div_ceil(100).min(60));
        }
        assert_eq!(told, 3);
        clock.turn(Duration::from_secs(600));
        assert_eq!(refusals.look(clock.steady()).len(), 1, "nothing says that it is mended");
        for _ in 0..60 {
            after(&mut refusals, &clock, 100, 0);
        }
        assert_eq!(refusals.look(clock.steady()), []);
    }

    #[test]
    fn topics_are_judged_by_themselves() {
        let mut refusals = Refusals::default();
        let wrong = Rejection::whole(Reason::InvalidJson);
        refusals.note(Topic::Events, Duration::ZERO, 1_000, std::iter::empty());
        refusals.note(Topic::Items, Duration::ZERO, 20, std::iter::repeat_n(&wrong, 20));
        let found = refusals.look(Duration::ZERO);
        assert_eq!((found.len(), found[0].topic), (1, Topic::Items));
    }
}
