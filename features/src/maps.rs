//! Maps and sets whose keys come from outside.
//!
//! Ids are unkeyed hashes of what a producer writes, so whoever writes events could choose ids that meet in one place of a table. A seed
//! that each process draws for itself keeps that place from being known. Nothing that is learned, answered or written may depend on the
//! seed: such a map is only asked by key, or what is read of all of it is brought into an order of its own first. Ids keep the stable hash
//! ([`crate::ids`]); where a hash decides about results it is that one.

use std::collections::{HashMap, HashSet};

/// The hash of places in tables: another one in every process.
pub type Seeded = foldhash::fast::RandomState;

/// A map by ids from outside.
pub type Map<K, V> = HashMap<K, V, Seeded>;

/// A set of ids from outside.
pub type Set<K> = HashSet<K, Seeded>;
