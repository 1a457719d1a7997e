//! The shop at work: sessions, pages, impressions and what becomes of them, in event-time order.
//!
//! Everything that will happen waits in one queue by time: the next session (a Poisson process with a
//! daily tide), the next page of each session, outcomes after their delays, the next new item. Whether an
//! impression will be clicked, put into the cart and bought is drawn when it is shown; an interest
//! arises only when the click comes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use anyhow::Result;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluice_features::wire::{EventMessage, Topic, UpdateMessage};

use super::config::{PAGE, ShopConfig};
use super::delay;
use super::item::{DAY, Item, normal};
use super::policy::Policy;
use super::record::{Record, Truth};
use super::shelf::Shelf;
use super::truth::{self, Directions, Setting, Surface};
use super::user::{DEVICES, Segments, User};
use crate::wire::{Fields, add};

/// The tasks, in the order of the funnel.
pub const TASKS: [&str; 3] = ["click", "cart", "purchase"];

const MEAN_PAGES: f64 = 3.0;
/// Milliseconds between pages: median, and standard deviation of the logarithm.
const PAGE_GAP: (f64, f64) = (45_000.0, 0.6);
/// A user takes the device they prefer so often.
const USUAL_DEVICE: f64 = 0.85;
const HOME_SHARE: f64 = 0.5;
const SEARCH_SHARE: f64 = 0.2;
/// By how much sessions at 20 h (UTC) outnumber the mean.
const TIDE: f64 = 0.6;
const BOTS: usize = 10;

/// A simulated shop: an iterator over its records.
pub struct Shop {
    config: ShopConfig,
    random: ChaCha8Rng,
    /// For what goes wrong, so that the same shop with and without it is the same shop.
    mishaps: ChaCha8Rng,
    directions: Directions,
    shelf: Shelf,
    users: Vec<User>,
    /// Sums of the users' activities.
    activity: Vec<f64>,
    policy: Policy,
    queue: BinaryHeap<Reverse<Planned>>,
    planned: u64,
    /// Items, then users, that have been described at the opening.
    described: usize,
    ready: VecDeque<Record>,
    requests: u64,
    shown: u64,
}

/// Something that will happen. Of equal times, what was planned first happens first.
struct Planned {
    ts: i64,
    number: u64,
    what: What,
}

enum What {
    Session,
    Page(Visit),
    Outcome(Outcome),
    NewItem,
}

#[derive(Clone, Copy)]
struct Visit {
    user: usize,
    /// The bot whose visit it is, if any; it sees what the user would.
    bot: Option<usize>,
    device: usize,
    focus: usize,
    pages: u32,
}

struct Outcome {
    task: usize,
    user: usize,
    bot: Option<usize>,
    item: u64,
    category: usize,
    impression: String,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.ts, self.number).cmp(&(other.ts, other.number))
    }
}

impl Shop {
    /// Opens a shop. The same configuration and seed give the same records.
    ///
    /// # Errors
    /// When there can be no such shop: says which value is wrong, and what it must be.
    pub fn new(config: ShopConfig, seed: u64) -> Result<Self> {
        config.check()?;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut mishaps = random.clone();
        mishaps.set_stream(1);
        let directions = Directions::new(config.categories, &mut random);
        let (items, categories) = (config.items, config.categories);
        let shelf = Shelf::new(items, categories, 2 * PAGE, config.start, &mut random);
        let segments = Segments::new(&mut random);
        let users: Vec<User> =
            (0..config.users).map(|_| User::new(&segments, config.start, &mut random)).collect();
        let activity = users
            .iter()
            .scan(0.0, |sum, user| {
                *sum += user.activity;
                Some(*sum)
            })
            .collect();
        let mut shop = Self {
            random,
            mishaps,
            directions,
            shelf,
            users,
            activity,
            policy: Policy::default(),
            queue: BinaryHeap::new(),
            planned: 0,
            described: 0,
            ready: VecDeque::new(),
            requests: 0,
            shown: 0,
            config,
        };
        shop.plan(shop.config.start, What::Session);
        if shop.config.turnover > 0.0 {
            let first = shop.next_arrival(shop.config.start);
            shop.plan(first, What::NewItem);
        }
        Ok(shop)
    }

    fn plan(&mut self, ts: i64, what: What) {
        self.planned += 1;
        self.queue.push(Reverse(Planned { ts, number: self.planned, what }));
    }

    fn open_for_business(&self) -> bool {
        self.shown < self.config.impressions
    }

    /// Describes an item or user that was there at the opening.
    fn describe(&mut self) -> Option<Record> {
        let (number, items, ts) = (self.described, self.shelf.len(), self.config.start);
        if number < items {
            self.described += 1;
            return Some(item_record(self.shelf.item(number), ts, true));
        }
        let user = self.users.get(number - items)?;
        self.described += 1;
        let key = user_id(number - items);
        let features = user.features();
        let message = json(&UpdateMessage {
            user: Some(&key),
            ts,
            features: Some(&features),
            ..UpdateMessage::default()
        });
        Some(Record { topic: Topic::Users, key, ts, message, truth: None, outcome: None })
    }

    /// Draws the time between two points of a Poisson process, in milliseconds.
    fn wait(&mut self, per_day: f64) -> i64 {
        (-(1.0 - self.random.random::<f64>()).ln() / per_day * DAY).ceil() as i64
    }

    fn next_arrival(&mut self, now: i64) -> i64 {
        now + self.wait(self.config.turnover * self.config.items as f64)
    }

    fn new_item(&mut self, now: i64) {
        let (gone, place) = self.shelf.replace(now, &mut self.random);
        self.ready.push_back(item_record(&gone, now, false));
        self.ready.push_back(item_record(self.shelf.item(place), now, true));
        if self.open_for_business() {
            let next = self.next_arrival(now);
            self.plan(next, What::NewItem);
        }
    }

    /// Begins a session, if the tide of the day allows it, and plans the next.
    fn session(&mut self, now: i64) {
        if !self.open_for_business() {
            return;
        }
        let sessions = self.config.per_day / (PAGE as f64 * MEAN_PAGES);
        let next = now + self.wait(sessions * (1.0 + TIDE));
        self.plan(next, What::Session);
        let hour = (now as f64 / DAY).fract() * 24.0;
        let tide = 1.0 + TIDE * ((hour - 20.0) / 24.0 * std::f64::consts::TAU).cos();
        if self.random.random::<f64>() * (1.0 + TIDE) > tide {
            return;
        }
        let point = self.random.random::<f64>() * self.activity[self.activity.len() - 1];
        let user = self.activity.partition_point(|sum| *sum <= point).min(self.users.len() - 1);
        let device = if self.random.random_bool(USUAL_DEVICE) {
            self.users[user].device
        } else {
            self.random.random_range(0..DEVICES.len())
        };
        let bot = (self.config.bots > 0.0 && self.mishaps.random_bool(self.config.bots))
            .then(|| self.mishaps.random_range(0..BOTS));
        let mut pages = 1;
        while self.random.random_bool(1.0 - 1.0 / MEAN_PAGES) {
            pages += 1;
        }
        self.users[user].drift(now, &mut self.random);
        let focus = self.policy.focus(
            &self.directions,
            self.config.categories,
            &self.users[user],
            now,
            &mut self.random,
        );
        self.page(now, Visit { user, bot, device, focus, pages });
    }

    /// Shows a page and plans the next one of the visit.
    fn page(&mut self, now: i64, visit: Visit) {
        let surface = match self.random.random::<f64>() {
            share if share < HOME_SHARE => Surface::Home,
            share if share < HOME_SHARE + SEARCH_SHARE => Surface::Search,
            _ => Surface::Category,
        };
        let places = self.policy.page(
            &self.shelf,
            &self.directions,
            (&self.users[visit.user], self.config.categories, now),
            (surface, visit.focus),
            &mut self.random,
        );
        self.requests += 1;
        for (index, place) in places.into_iter().enumerate() {
            if self.open_for_business() {
                let position = index + 1;
                let setting = Setting { now, surface, device: visit.device, position };
                self.show(visit, place, setting);
            }
        }
        if visit.pages > 1 {
            let gap = PAGE_GAP.0 * (PAGE_GAP.1 * normal(&mut self.random)).exp();
            let next = now + (gap as i64).max(1_000);
            self.plan(next, What::Page(Visit { pages: visit.pages - 1, ..visit }));
        }
    }

    /// Shows an item, and draws what will become of it.
    fn show(&mut self, visit: Visit, place: usize, setting: Setting) {
        self.shown += 1;
        let (item, user) = (self.shelf.item(place), &self.users[visit.user]);
        let (number, category) = (item.number, item.category);
        let p = match visit.bot {
            Some(_) => truth::of_bot(),
            None => truth::probabilities(&self.directions, user, item, setting),
        };
        let request = format!("r{}", self.requests);
        let id = format!("{request}/{}", setting.position);
        let (ts, key) = (setting.now, visitor_id(visit.user, visit.bot));
        let mut context = Fields::new();
        add(&mut context, "device", DEVICES[setting.device].0);
        let message = json(&EventMessage {
            name: "impression",
            id: Some(&id),
            ts,
            user: &key,
            item: &item.id(),
            request: Some(&request),
            position: Some(setting.position as u32),
            surface: Some(setting.surface.name()),
            context: Some(&context),
            ..EventMessage::default()
        });

        let mut outcomes = [false; TASKS.len()];
        let (mut before, mut after) = (1.0, ts);
        let steps = [delay::CLICK, delay::CART, delay::PURCHASE];
        for (task, (p, step)) in p.in_order().into_iter().zip(steps).enumerate() {
            if self.random.random::<f64>() * before >= p {
                break;
            }
            outcomes[task] = true;
            before = p;
            after = step.draw(ts, after, &mut self.random);
            let (user, bot, impression) = (visit.user, visit.bot, id.clone());
            let outcome = Outcome { task, user, bot, item: number, category, impression };
            self.plan(after, What::Outcome(outcome));
        }
        let truth = Some(Truth { impression: id, ts, p, outcomes, item: number });
        self.send(Record { topic: Topic::Events, key, ts, message, truth, outcome: None });
    }

    fn outcome(&mut self, ts: i64, outcome: &Outcome) {
        if outcome.task == 0 && outcome.bot.is_none() {
            self.users[outcome.user].clicked(outcome.category, ts);
        }
        let key = visitor_id(outcome.user, outcome.bot);
        let name = TASKS[outcome.task];
        let message = json(&EventMessage {
            name,
            id: Some(&format!("{}/{name}", outcome.impression)),
            ts,
            user: &key,
            item: &format!("i{}", outcome.item),
            impression: Some(&outcome.impression),
            ..EventMessage::default()
        });
        let outcome = Some((outcome.item, outcome.task));
        self.send(Record { topic: Topic::Events, key, ts, message, truth: None, outcome });
    }

    /// Sends an event, and what may go wrong with it.
    fn send(&mut self, record: Record) {
        if self.config.malformed > 0.0 && self.mishaps.random_bool(self.config.malformed) {
            self.ready.push_back(record.malformed(&mut self.mishaps));
        }
        if self.config.duplicates > 0.0 && self.mishaps.random_bool(self.config.duplicates) {
            let twin = Record { truth: None, outcome: None, ..record.clone() };
            self.ready.extend([record, twin]);
        } else {
            self.ready.push_back(record);
        }
    }
}

impl Iterator for Shop {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        if let Some(record) = self.describe() {
            return Some(record);
        }
        while self.ready.is_empty() {
            let Reverse(Planned { ts, what, .. }) = self.queue.pop()?;
            match what {
                What::Session => self.session(ts),
                What::Page(visit) if self.open_for_business() => {
                    self.users[visit.user].drift(ts, &mut self.random);
                    self.page(ts, visit);
                }
                What::Page(_) => {}
                What::Outcome(outcome) => self.outcome(ts, &outcome),
                What::NewItem => self.new_item(ts),
            }
        }
        self.ready.pop_front()
    }
}

fn user_id(number: usize) -> String {
    format!("u{}", number + 1)
}

fn visitor_id(user: usize, bot: Option<usize>) -> String {
    bot.map_or_else(|| user_id(user), |bot| format!("bot{}", bot + 1))
}

fn item_record(item: &Item, ts: i64, available: bool) -> Record {
    let (key, features) = (item.id(), item.features(available));
    let message = json(&UpdateMessage {
        item: Some(&key),
        ts,
        features: Some(&features),
        ..UpdateMessage::default()
    });
    Record { topic: Topic::Items, key, ts, message, truth: None, outcome: None }
}

#[allow(clippy::expect_used, reason = "text and finite numbers can always be written as JSON")]
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("text and finite numbers can always be written as JSON")
}
