//! The collisionless embedding store.
