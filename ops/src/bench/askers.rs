//! The shop of the groups that ask: its items, and users with long histories who want some of them ranked.

use std::time::Duration;

use anyhow::Result;
use sluice_features::wire::Topic;

use crate::query::{Kind, question};
use crate::simulate::{Shop, ShopConfig};

/// Candidates of a request.
pub(super) const CANDIDATES: usize = 200;
/// Users about whom is asked.
pub(super) const ASKERS: usize = 16;
/// How often each of them has clicked on each item: with 20 items in a category, more than 50 behaviours of every category.
const CLICKS: usize = 3;
/// Between two behaviours, in milliseconds.
const STEP: i64 = 1_000;
/// The shop: small enough that users come back, and without new items, so that candidates stay.
pub(super) const SHOP: ShopConfig = ShopConfig {
    users: 250,
    items: 400,
    categories: 20,
    impressions: u64::MAX,
    per_day: 1_000_000.0,
    start: 1_704_067_200_000,
    turnover: 0.0,
    duplicates: 0.0,
    bots: 0.0,
    malformed: 0.0,
};

/// Tells of items and users, then of the behaviours of those who ask: `take` gets the topic, key, message and time of each record.
///
/// # Errors
/// Those of `take`.
pub(super) fn introduce(mut take: impl FnMut(Topic, &str, &str, i64) -> Result<()>) -> Result<()> {
    for record in Shop::new(SHOP, 1)?.take_while(|record| record.topic != Topic::Events) {
        take(record.topic, &record.key, &record.message, record.ts)?;
    }
    let mut ts = SHOP.start + 86_400_000;
    for click in 0..CLICKS {
        for user in (0..ASKERS).map(user) {
            for item in (0..SHOP.items).map(item) {
                ts += STEP;
                let id = format!("history/{user}/{item}/{click}");
                let seen = format!(
                    r#"{{"type":"impression","id":"{id}","ts":{ts},"user":"{user}","item":"{item}"}}"#
                );
                take(Topic::Events, &user, &seen, ts)?;
                let clicked = format!(
                    r#"{{"type":"click","id":"{id}/click","ts":{ts},"user":"{user}","item":"{item}","impression":"{id}"}}"#
                );
                take(Topic::Events, &user, &clicked, ts)?;
            }
        }
    }
    Ok(())
}

/// Returns the user and the text of the `number`-th request, to be answered within `patience`.
///
/// # Errors
/// When the text cannot be written.
pub(super) fn request(id: &str, number: usize, patience: Duration) -> Result<(String, String)> {
    let user = user(number % ASKERS);
    let first = number * 7 % SHOP.items;
    let items: Vec<String> =
        (0..SHOP.items).cycle().skip(first).take(CANDIDATES).map(item).collect();
    let k = u32::try_from(CANDIDATES)?;
    let text = question(id, Kind::Rank, Some(&user), &items, k, patience)?;
    Ok((user, text))
}

/// The name of one who asks.
fn user(asker: usize) -> String {
    format!("u{}", asker + 1)
}

/// The name of an item of the shop.
fn item(place: usize) -> String {
    format!("i{}", place + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shop_has_the_items_and_users_that_are_asked_about() {
        let (mut items, mut users, mut clicks) = (Vec::new(), Vec::new(), 0);
        let tell = |topic, key: &str, message: &str, _| {
            match topic {
                Topic::Items => items.push(key.to_owned()),
                Topic::Users => users.push(key.to_owned()),
                _ => clicks += usize::from(message.contains(r#""type":"click""#)),
            }
            Ok(())
        };
        introduce(tell).unwrap();
        assert!((0..SHOP.items).all(|place| items.contains(&item(place))), "{items:?}");
        assert!((0..ASKERS).all(|asker| users.contains(&user(asker))), "{users:?}");
        assert_eq!(clicks, CLICKS * ASKERS * SHOP.items);
        const { assert!(CLICKS * SHOP.items / SHOP.categories >= 50) };
    }
}
