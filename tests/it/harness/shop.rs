//! Records of a simulated shop as a file of JSON lines, and a model that is small enough to be learned in a test.

use std::path::Path;

use super::process;

/// The default funnel with a small model: what a test of the pipeline needs.
pub(crate) const SMALL: &str = r#"
[model]
width = 4

[model.interest]
name = "base"
limit = 10

[model.sharing]
name = "shared-bottom"
hidden = [16]

[model.funnel]
name = "independent"
tower = [8]

[retrieval]
width = 8
"#;

/// What a file of records holds, counted line by line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    /// Lines of the event topic.
    pub(crate) events: u64,
    /// Those of them that are impressions.
    pub(crate) impressions: u64,
}

/// Writes a shop of 100 users with so many impressions.
///
/// # Errors
/// When the simulator fails.
pub(crate) fn simulate(path: &Path, impressions: u64) -> anyhow::Result<Lines> {
    let (path_text, impressions) = (path.display().to_string(), impressions.to_string());
    let shop = ["--users", "100", "--items", "200", "--categories", "10", "--duplicates", "0.02"];
    let size = ["--impressions", &impressions, "--output", &path_text];
    process::Running::start("sluice", &[&["simulate"][..], &shop, &size].concat())?
        .wait()?
        .succeeded()?;
    Ok(count(&std::fs::read_to_string(path)?))
}

/// Counts the lines of a text.
pub(crate) fn count(text: &str) -> Lines {
    let events = text.lines().filter(|line| line.contains("\"topic\":\"events\""));
    events.fold(Lines::default(), |lines, line| Lines {
        events: lines.events + 1,
        impressions: lines.impressions + u64::from(line.contains("\"type\":\"impression\"")),
    })
}
