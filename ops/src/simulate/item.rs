//! Items: what can be seen of them, and the hidden qualities behind clicks and purchases.
//!
//! An item's hidden appeal is that of its brand plus its own plus a part of its exposure, for a shop
//! shows what sells: `quality = brand + own + lift * standardised ln(exposure)`.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::wire::{Fields, add, add_number};

pub(super) const DAY: f64 = 86_400_000.0;

const BRANDS: usize = 60;
/// Ages at the opening: exponential with this mean, days.
const AGE: f64 = 30.0;

const BRAND_APPEAL: f64 = 0.25;
const OWN_APPEAL: f64 = 0.40;
const EXPOSURE_LIFT: f64 = 0.20;
const BRAND_CONVERSION: f64 = 0.25;
const OWN_CONVERSION: f64 = 0.10;
/// Spread of ln(price) between categories, and within one.
const PRICE_BETWEEN: f64 = 0.8;
const PRICE_WITHIN: f64 = 0.6;
const PRICE_MEDIAN: f64 = 30.0;

/// Draws from the standard normal distribution.
pub(super) fn normal(random: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(random)
}

/// An item on offer.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) number: u64,
    pub(super) category: usize,
    pub(super) brand: usize,
    pub(super) price: f64,
    /// ln(price) against the other items of its category, standardised.
    pub(super) dearness: f64,
    pub(super) created: i64,
    /// Log-odds of a click, beside those of the category.
    pub(super) quality: f64,
    /// Log-odds of a cart after a click.
    pub(super) conversion: f64,
}

impl Item {
    /// Returns its id.
    pub(super) fn id(&self) -> String {
        format!("i{}", self.number)
    }

    /// Returns what can be seen of it.
    pub(super) fn features(&self, available: bool) -> Fields {
        let mut features = Fields::new();
        add(&mut features, "category", format!("c{}", self.category));
        add(&mut features, "brand", format!("b{}", self.brand));
        add_number(&mut features, "price", (self.price * 100.0).round() / 100.0);
        add(&mut features, "created_ts", self.created);
        add(&mut features, "available", available);
        features
    }
}

/// What makes items: the hidden qualities of categories and brands.
#[derive(Debug)]
pub(super) struct Makers {
    /// ln(price) of a category.
    prices: Vec<f64>,
    brands: Vec<Brand>,
    made: u64,
}

#[derive(Debug)]
struct Brand {
    appeal: f64,
    conversion: f64,
}

impl Makers {
    pub(super) fn new(categories: usize, random: &mut ChaCha8Rng) -> Self {
        let price = |random: &mut ChaCha8Rng| PRICE_MEDIAN.ln() + PRICE_BETWEEN * normal(random);
        let brand = |random: &mut ChaCha8Rng| Brand {
            appeal: BRAND_APPEAL * normal(random),
            conversion: BRAND_CONVERSION * normal(random),
        };
        Self {
            prices: (0..categories).map(|_| price(random)).collect(),
            brands: (0..BRANDS).map(|_| brand(random)).collect(),
            made: 0,
        }
    }

    /// Makes an item. `exposure` is the standardised ln of how often its place is shown.
    pub(super) fn make(
        &mut self,
        category: usize,
        exposure: f64,
        created: i64,
        random: &mut ChaCha8Rng,
    ) -> Item {
        let brand = random.random_range(0..self.brands.len());
        let Brand { appeal, conversion } = self.brands[brand];
        let dearness = normal(random);
        self.made += 1;
        Item {
            number: self.made,
            category,
            brand,
            price: (self.prices[category] + PRICE_WITHIN * dearness).exp(),
            dearness,
            created,
            quality: appeal + OWN_APPEAL * normal(random) + EXPOSURE_LIFT * exposure,
            conversion: conversion + OWN_CONVERSION * normal(random),
        }
    }
}

/// Draws the time at which an item on offer at the opening was created.
pub(super) fn created_before(start: i64, random: &mut ChaCha8Rng) -> i64 {
    let age = -AGE * (1.0 - random.random::<f64>()).ln();
    start - (age * DAY) as i64
}
