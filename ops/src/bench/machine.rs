//! What the figures were measured on.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::import::calendar;

/// Returns one line: kernel path, processor, cores, date.
pub(super) fn describe(path: &str) -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let date = calendar::written(i64::try_from(now).unwrap_or(i64::MAX));
    format!("kernels {path}, {}, {cores} cores, {date}\n", processor())
}

/// The processor's own name, or its architecture where the system does not tell.
fn processor() -> String {
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |key: &str| {
        let line = told.lines().find(|line| line.starts_with(key))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    match (value("model name"), value("cpu family"), value("model\t")) {
        (Some(name), Some(family), Some(model)) => {
            format!("{name} (family {family}, model {model})")
        }
        (Some(name), ..) => name,
        _ => std::env::consts::ARCH.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_path_processor_cores_and_date() {
        let line = describe("avx2");
        let parts: Vec<&str> = line.trim().split(", ").collect();
        assert_eq!(parts.first(), Some(&"kernels avx2"), "{line}");
        assert!(line.contains(" cores, 20"), "{line}");
        assert!(!processor().is_empty());
    }
}
