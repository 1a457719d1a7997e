//! Who gets a top list next: the newest behaviour first, one list a user and interval.
//!
//! ```text
//! behaviour ──> ready ──next──> resting (an interval) ──behaviour meanwhile──> ready
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use sluice_features::ids::UserId;
use sluice_features::maps::Map;

/// The most users who wait; beyond, who was active longest ago is put off until the next behaviour.
const MOST: usize = 100_000;

/// A user's place.
#[derive(Clone, Copy, Debug)]
struct Place {
    order: u64,
    /// That this user waits has been counted.
    counted: bool,
}

/// Users with new behaviour.
#[derive(Debug)]
pub(super) struct Waiting {
    interval: Duration,
    next: u64,
    ready: BTreeMap<u64, UserId>,
    places: Map<UserId, Place>,
    /// Users who have just got a list, and whether there was new behaviour since.
    resting: Map<UserId, bool>,
    /// When their rest ends, in order.
    ends: VecDeque<(Duration, UserId)>,
    put_off: u64,
}

impl Waiting {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            next: 0,
            ready: BTreeMap::new(),
            places: Map::default(),
            resting: Map::default(),
            ends: VecDeque::new(),
            put_off: 0,
        }
    }

    /// Takes note of a behaviour that is newer than all before.
    pub(super) fn add(&mut self, user: UserId) {
        if let Some(again) = self.resting.get_mut(&user) {
            *again = true;
            return;
        }
        let counted = self.remove(user).is_some_and(|place| place.counted);
        self.ready.insert(self.next, user);
        self.places.insert(user, Place { order: self.next, counted });
        self.next += 1;
        if self.ready.len() > MOST
            && let Some((_, oldest)) = self.ready.pop_first()
            && let Some(place) = self.places.remove(&oldest)
        {
            self.put_off += u64::from(!place.counted);
        }
    }

    /// Returns the user whose list is made next.
    pub(super) fn next(&mut self, now: Duration) -> Option<UserId> {
        while let Some(&(end, user)) = self.ends.front()
            && end <= now
        {
            self.ends.pop_front();
            if self.resting.remove(&user) == Some(true) {
                self.add(user);
            }
        }
        let (_, user) = self.ready.pop_last()?;
        self.places.remove(&user);
        if !self.interval.is_zero() {
            self.resting.insert(user, false);
            self.ends.push_back((now.saturating_add(self.interval), user));
        }
        Some(user)
    }

    /// Returns how many users were put off since the last call, each counted once until their list is made.
    pub(super) fn count_put_off(&mut self) -> u64 {
        let waiting = self.places.values_mut().filter(|place| !place.counted);
        let newly = waiting.map(|place| place.counted = true).count() as u64;
        newly + std::mem::take(&mut self.put_off)
    }

    fn remove(&mut self, user: UserId) -> Option<Place> {
        let place = self.places.remove(&user)?;
        self.ready.remove(&place.order);
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_newest_behaviour_comes_first_and_nobody_twice() {
        let mut waiting = Waiting::new(INTERVAL);
        for user in [1, 2, 3, 1] {
            waiting.add(UserId(user));
        }
        let order: Vec<u64> = std::iter::from_fn(|| waiting.next(at(0))).map(|u| u.0).collect();
        assert_eq!(order, [1, 3, 2]);
    }

    #[test]
    fn a_user_gets_one_list_an_interval() {
        let mut waiting = Waiting::new(INTERVAL);
        waiting.add(UserId(1));
        assert_eq!(waiting.next(at(0)), Some(UserId(1)));
        waiting.add(UserId(1));
        assert_eq!(waiting.next(at(9)), None);
        assert_eq!(waiting.next(at(10)), Some(UserId(1)));
        assert_eq!(waiting.next(at(30)), None, "nothing new happened");
    }

    #[test]
    fn who_is_put_off_is_counted_once_and_memory_is_bounded() {
        let mut waiting = Waiting::new(INTERVAL);
        [1, 2].map(UserId).into_iter().for_each(|user| waiting.add(user));
        assert_eq!(waiting.count_put_off(), 2);
        waiting.add(UserId(1));
        assert_eq!(waiting.count_put_off(), 0);
        for user in 0..2 * MOST as u64 {
            waiting.add(UserId(10 + user));
        }
        assert_eq!(waiting.ready.len(), MOST);
        assert_eq!(waiting.count_put_off(), 2 * MOST as u64);
    }
}
