//! How much memory a process may use here: the least of what its control groups and the machine say.
//!
//! ```text
//! /proc/self/cgroup    0::/a/b          v2: memory.max of /a/b, /a and / below /sys/fs/cgroup, or below /sys/fs/cgroup/unified
//!                      7:memory:/a/b    v1: memory.limit_in_bytes of the same below /sys/fs/cgroup/memory
//! /proc/meminfo        MemTotal
//! ```
//!
//! Inside a container the group's own files often lie where the root's would: files that are not there say nothing.

use super::units::Size;

/// What a process may use, and which file says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Available {
    /// How many bytes.
    pub(super) bytes: u64,
    /// The file.
    pub(super) said_by: String,
}

impl Available {
    /// What a configuration is taken for that belongs to no machine: 16 GiB.
    pub(super) fn nowhere() -> Self {
        Self { bytes: 16 << 30, said_by: "no machine".into() }
    }

    /// Looks at this machine.
    ///
    /// # Errors
    /// When nothing says how much it is, or something that cannot be read as a number.
    pub(super) fn here() -> Result<Self, String> {
        look(|path| std::fs::read_to_string(path).ok())
    }

    /// Tells how much it is, and what says so.
    pub(super) fn words(&self) -> String {
        format!("{} ({})", Size::bytes(self.bytes), self.said_by)
    }
}

/// Looks at files that `read` has.
fn look(read: impl Fn(&str) -> Option<String>) -> Result<Available, String> {
    let mut least: Option<Available> = None;
    let mut say = |path: &str, bytes: u64| {
        if least.as_ref().is_none_or(|least| bytes < least.bytes) {
            least = Some(Available { bytes, said_by: path.into() });
        }
    };
    for path in limits(&read("/proc/self/cgroup").unwrap_or_default()) {
        let Some(text) = read(&path) else { continue };
        match text.trim() {
            "max" => {}
            number => {
                let bytes = number.parse().map_err(|_| {
                    format!("{path} has \"{}\"", number.chars().take(40).collect::<String>())
                })?;
                say(&path, bytes);
            }
        }
    }
    let path = "/proc/meminfo";
    if let Some(text) = read(path) {
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kibibytes =
            total.and_then(|total| total.trim().strip_suffix("kB")?.trim().parse().ok());
        let kibibytes: u64 = kibibytes.ok_or_else(|| format!("{path} has no MemTotal in kB"))?;
        say(path, kibibytes.saturating_mul(1024));
    }
    least.ok_or_else(|| "neither /proc/meminfo nor a control group says how much it is".into())
}

/// Returns the files that may limit the groups of `/proc/self/cgroup`: of each group and of all above it.
fn limits(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(group)) =
            (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (roots, file): (&[&str], _) = if number == "0" && controllers.is_empty() {
            (&["/sys/fs/cgroup", "/sys/fs/cgroup/unified"], "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (&["/sys/fs/cgroup/memory"], "memory.limit_in_bytes")
        } else {
            continue;
        };
        // A process that was moved out of its container's view of the groups has a path that begins with `/..`.
        let names: Vec<&str> =
            group.split('/').filter(|name| !name.is_empty() && *name != "..").collect();
        for root in roots {
            for depth in (0..=names.len()).rev() {
                let mut path = (*root).to_owned();
                names[..depth].iter().for_each(|name| path.extend(["/", name]));
                files.push(format!("{path}/{file}"));
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: (&str, &str) =
        ("/proc/meminfo", "MemTotal:       16384000 kB\nMemFree:  1 kB\nSwapTotal: 9 kB\n");
    const MACHINE: u64 = 16_384_000 << 10;

    fn found(files: &[(&str, &str)]) -> Result<(u64, String), String> {
        let read = |path: &str| {
            let file = files.iter().find(|(name, _)| *name == path);
            file.map(|(_, text)| (*text).to_owned())
        };
        look(read).map(|found| (found.bytes, found.said_by))
    }

    #[test]
    fn the_least_of_all_groups_above_and_of_the_machine_counts() {
        let own = ("/proc/self/cgroup", "0::/kube/pod7/sluice\n");
        let files = |pod: &'static str, own_limit: &'static str| {
            [
                MEMINFO,
                own,
                ("/sys/fs/cgroup/kube/pod7/sluice/memory.max", own_limit),
                ("/sys/fs/cgroup/kube/pod7/memory.max", pod),
                ("/sys/fs/cgroup/kube/memory.max", "max\n"),
            ]
        };
        let pod = "/sys/fs/cgroup/kube/pod7/memory.max".to_owned();
        assert_eq!(found(&files("1073741824\n", "max\n")), Ok((1 << 30, pod)));
        let sluice = "/sys/fs/cgroup/kube/pod7/sluice/memory.max".to_owned();
        assert_eq!(found(&files("1073741824\n", "5\n")), Ok((5, sluice)));
        let meminfo = "/proc/meminfo".to_owned();
        assert_eq!(found(&files("max\n", "max\n")), Ok((MACHINE, meminfo.clone())));
        assert_eq!(found(&files("18446744073709551615", "max")), Ok((MACHINE, meminfo)));
    }

    #[test]
    fn the_first_version_of_control_groups_counts_too() {
        let groups = "12:cpu,cpuacct:/docker/9\n7:foo,memory:/docker/9\n0::/\n";
        let own = ("/proc/self/cgroup", groups);
        let root = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        let inside = "/sys/fs/cgroup/memory/docker/9/memory.limit_in_bytes";
        // No limit at all is written as a number of pages just below 2^63 bytes.
        let unlimited = found(&[MEMINFO, own, (root, "9223372036854771712\n")]);
        assert_eq!(unlimited, Ok((MACHINE, "/proc/meminfo".into())));
        assert_eq!(found(&[MEMINFO, own, (root, "2097152000")]), Ok((2_097_152_000, root.into())));
        let both = [MEMINFO, own, (root, "9223372036854771712"), (inside, "4096")];
        assert_eq!(found(&both), Ok((4096, inside.into())));
        let other = ("/sys/fs/cgroup/cpu/docker/9/memory.limit_in_bytes", "1");
        assert_eq!(found(&[MEMINFO, own, other]), Ok((MACHINE, "/proc/meminfo".into())));
    }

    #[test]
    fn odd_files_are_told_and_missing_ones_say_nothing() {
        let own = |text| ("/proc/self/cgroup", text);
        assert_eq!(found(&[MEMINFO]).unwrap().0, MACHINE);
        let root = "/sys/fs/cgroup/memory.max";
        assert_eq!(found(&[own("0::/\n"), (root, "7")]), Ok((7, root.into())));
        assert_eq!(found(&[own("0::/../../x\n"), (root, "0")]), Ok((0, root.into())));
        assert!(found(&[]).unwrap_err().contains("says how much"));
        assert!(found(&[own("nonsense\n:::\n0\n\n")]).is_err());
        for text in ["", "-1", "12 GB", "1e9", "99999999999999999999"] {
            let error = found(&[MEMINFO, own("0::/"), (root, text)]).unwrap_err();
            assert!(error.contains(root) && error.contains(text), "{error}");
        }
        for text in ["", "MemTotal: x kB", "MemTotal: 5 MB", "memtotal: 5 kB"] {
            assert!(found(&[("/proc/meminfo", text)]).unwrap_err().contains("MemTotal"), "{text}");
        }
    }

    #[test]
    fn this_machine_has_some_memory() {
        assert!(Available::here().unwrap().bytes > 1 << 26);
    }
}
