//! When the next window of each open impression closes, in the order of (deadline, arrival).
//!
//! Impressions come nearly in the order of their times, and all of one stage wait equally long: their deadlines come nearly in order
//! too. So each stage has a queue for those that do, and a heap for the few that come out of order. Taking the next one costs O(1) where
//! one heap of all would go through as many levels as its size has bits, each in another line of memory.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::Place;
use crate::time::EventTime;

/// When a stage of an impression is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Deadline {
    pub(super) time: EventTime,
    /// The impression's number in the order of arrival.
    pub(super) number: u64,
    pub(super) place: Place,
}

/// The deadlines of all open impressions.
#[derive(Clone, Debug)]
pub(super) struct Deadlines(Vec<Stage>);

#[derive(Clone, Debug, Default)]
struct Stage {
    in_order: VecDeque<Deadline>,
    others: BinaryHeap<Reverse<Deadline>>,
}

impl Deadlines {
    /// Creates empty deadlines of so many stages.
    pub(super) fn new(stages: usize) -> Self {
        Self(vec![Stage::default(); stages])
    }

    /// Adds the deadline of a stage.
    pub(super) fn push(&mut self, stage: usize, deadline: Deadline) {
        let stage = &mut self.0[stage];
        if stage.in_order.back().is_none_or(|last| *last < deadline) {
            stage.in_order.push_back(deadline);
        } else {
            stage.others.push(Reverse(deadline));
        }
    }

    /// Tells whether a deadline is strictly before the watermark.
    pub(super) fn is_due(&self, watermark: EventTime) -> bool {
        self.0.iter().filter_map(Stage::first).any(|first| first.time < watermark)
    }

    /// Removes the first deadline of all if it is strictly before the watermark. Returns it with its stage.
    pub(super) fn pop_before(&mut self, watermark: EventTime) -> Option<(usize, Deadline)> {
        let firsts = self.0.iter().enumerate().filter_map(|(i, stage)| Some((stage.first()?, i)));
        let (deadline, number) = firsts.min()?;
        if deadline.time >= watermark {
            return None;
        }
        let stage = &mut self.0[number];
        if stage.in_order.front() == Some(&deadline) {
            stage.in_order.pop_front();
        } else {
            stage.others.pop();
        }
        Some((number, deadline))
    }
}

impl Stage {
    fn first(&self) -> Option<Deadline> {
        let other = self.others.peek().map(|Reverse(deadline)| deadline);
        self.in_order.front().into_iter().chain(other).min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_leave_in_order_whatever_the_order_in_which_they_came() {
        let mut plain: Vec<(Deadline, usize)> = Vec::new();
        let mut deadlines = Deadlines::new(3);
        let mut state = 1u64;
        for number in 0..3000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (stage, late) = ((state >> 60) as usize % 3, (state >> 40) as i64 % 7);
            let time = EventTime(number as i64 - late * late);
            let deadline = Deadline { time, number, place: Place(number as usize) };
            deadlines.push(stage, deadline);
            plain.push((deadline, stage));
            if number % 5 == 4 {
                let watermark = EventTime(number as i64 - 100);
                plain.sort_unstable();
                while let Some((stage, deadline)) = deadlines.pop_before(watermark) {
                    assert_eq!(plain.remove(0), (deadline, stage));
                }
                assert!(plain.first().is_none_or(|(first, _)| first.time >= watermark));
            }
        }
    }
}
