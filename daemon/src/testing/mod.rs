//! What several tests of this crate stand on: records, and a shop that has learned some.

pub(crate) mod disk;
pub(crate) mod played;
pub(crate) mod shop;
pub(crate) mod stream;

use crate::config::{Bounds, Config};

/// The bounds of the default configuration on a machine with 16 GiB.
pub(crate) fn bounds() -> Bounds {
    Config::build("", &[]).expect("the default configuration").memory.bounds
}

/// A small model that learns clicks within a window, with a lateness of a second.
pub(crate) fn small(window: &str) -> String {
    format!(
        r#"
[funnel]
lateness = "1s"
[[funnel.tasks]]
name = "click"
window = "{window}"
labels = "wait"
[model]
width = 4
[model.interest]
name = "base"
limit = 5
[model.sharing]
name = "shared-bottom"
hidden = [8]
[model.funnel]
name = "independent"
tower = [8]
[serve]
score = "p.click"
"#
    )
}
