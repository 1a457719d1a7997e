//! Collections whose copy costs little and stays as it is, for checkpoints: a copy is taken between two records, and written by another
//! thread while the next records change the original.
//!
//! Elements lie in pages; a copy shares all pages, and whoever changes an element of a shared page copies that page first. So a copy of a
//! million elements costs some ten thousand counts, and what it costs later is bounded by the pages that change while it lives. Without a
//! copy nothing is allocated but new pages.

mod map;
mod slab;
mod vec;

pub use map::PagedMap;
pub use slab::PagedSlab;
pub use vec::PagedVec;
