//! The rules of the house that the compiler does not know.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::Test;
use crate::harness::{Outcome, repository};

pub(crate) const TESTS: &[Test] = &[
    ("crates_use_only_those_before_them", crates_use_only_those_before_them),
    ("only_the_daemon_knows_kafka_and_sled", only_the_daemon_knows_kafka_and_sled),
    ("unsafe_stands_only_in_the_kernels", unsafe_stands_only_in_the_kernels),
    (
        "what_the_daemons_page_says_of_its_rooms_is_so",
        what_the_daemons_page_says_of_its_rooms_is_so,
    ),
    ("no_file_is_too_long_to_be_read", no_file_is_too_long_to_be_read),
    ("no_registry_is_named", no_registry_is_named),
    ("what_the_documents_name_is_there", what_the_documents_name_is_there),
];

/// The straight line of crates: each may use those before it; tests may use all.
const CRATES: [&str; 5] = ["features", "models", "daemon", "ops", "tests"];

/// Lines of code above which a file of logic is refused, and above which it is named.
const TOO_LONG: usize = 600;
const LONG: usize = 400;

/// Catalogues: one form of entry, repeated; they may be as long as what they list.
const CATALOGUES: &[&str] = &["daemon/src/config/file.rs"];

const CONFIG: &str = "daemon/src/config/file.rs";
const REFERENCE: &str = "daemon/config/reference.toml";

/// Rules about files that come into being with the parts they describe.
pub(crate) fn tests_of_files_that_exist() -> Vec<Test> {
    let mut tests: Vec<Test> = Vec::new();
    if repository().join("daemon/README.md").is_file() {
        tests.push(("every_metric_is_documented", every_metric_is_documented));
    }
    if repository().join(CONFIG).is_file() {
        tests.push(("every_key_is_in_the_reference", every_key_is_in_the_reference));
    }
    tests
}

fn crates_use_only_those_before_them() -> Outcome {
    let mut wrong = Vec::new();
    for (place, name) in CRATES.iter().enumerate() {
        let manifest = manifest(name)?;
        let forbidden = CRATES.iter().skip(place + 1).chain(std::iter::once(name));
        for other in forbidden {
            if *other != *name && dependencies(&manifest).contains(&format!("sluice-{other}")) {
                wrong.push(format!("{name}/Cargo.toml depends on sluice-{other}"));
            }
            let used = format!("sluice_{other}::");
            for file in sources(name)? {
                // A crate's own binary and tests name it: that is no arrow.
                if *other != *name && read(&file)?.contains(&used) {
                    wrong.push(format!("{} uses sluice_{other}", shown(&file)));
                }
            }
        }
    }
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn only_the_daemon_knows_kafka_and_sled() -> Outcome {
    let mut wrong = Vec::new();
    for name in CRATES.iter().filter(|name| **name != "daemon") {
        let dependencies = dependencies(&manifest(name)?);
        for kept in ["rdkafka", "sled"] {
            if dependencies.contains(kept) {
                wrong.push(format!("{name}/Cargo.toml depends on {kept}"));
            }
        }
    }
    for (kept, folder) in [("rdkafka::", "daemon/src/kafka"), ("sled::", "daemon/src/store")] {
        for file in sources("daemon")? {
            let shown = shown(&file);
            if !shown.starts_with(folder) && code_lines(&read(&file)?).any(|line| names(line, kept))
            {
                wrong.push(format!("{shown} uses {kept} outside {folder}"));
            }
        }
    }
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Words of the code that only some files of the daemon may have, as its page says.
const ROOMS: &[(&str, &[&str])] = &[
    ("pipeline.write()", &["daemon/src/live/ingest.rs", "daemon/src/live/ingest/"]),
    ("SystemTime::now(", &["daemon/src/clock.rs"]),
    ("Instant::now(", &["daemon/src/clock.rs", "daemon/src/kafka/", "daemon/src/store/"]),
    ("process::exit", &["daemon/src/main.rs"]),
    ("unbounded(", &[]),
    ("unbounded_channel(", &[]),
    ("rdkafka::", &["daemon/src/kafka/"]),
    ("sled::", &["daemon/src/store/"]),
];

fn what_the_daemons_page_says_of_its_rooms_is_so() -> Outcome {
    let mut wrong = Vec::new();
    for file in walk(&repository().join("daemon/src"), &|path| has_extension(path, "rs"))? {
        let shown = shown(&file);
        if shown.contains("/tests") || shown.contains("/testing/") {
            continue;
        }
        let text = read(&file)?;
        let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for line in code_lines(product) {
            for (word, rooms) in ROOMS {
                if line.contains(word) && !rooms.iter().any(|room| shown.starts_with(room)) {
                    wrong.push(format!("{shown}: {}", line.trim()));
                }
            }
        }
    }
    anyhow::ensure!(wrong.is_empty(), "daemon/README.md says otherwise:\n{}", wrong.join("\n"));
    Ok(())
}

fn unsafe_stands_only_in_the_kernels() -> Outcome {
    let forms = [
        "unsafe {",
        "unsafe fn",
        "unsafe impl",
        "unsafe trait",
        "unsafe extern",
        "allow(unsafe_code",
    ];
    // Put together here, or this file would be the first to break the rule.
    let mut wrong = Vec::new();
    for name in CRATES {
        for file in sources(name)? {
            let shown = shown(&file);
            if shown.starts_with("models/src/kernels/") || shown == "tests/it/house.rs" {
                continue;
            }
            let text = read(&file)?;
            for line in
                code_lines(&text).filter(|line| forms.iter().any(|form| line.contains(form)))
            {
                // The one place where the crate lifts its own ban for the kernels.
                if !(shown == "models/src/lib.rs" && line.contains("unsafe_code")) {
                    wrong.push(format!("{shown}: {}", line.trim()));
                }
            }
        }
    }
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn no_file_is_too_long_to_be_read() -> Outcome {
    let mut wrong = Vec::new();
    for name in CRATES {
        for file in sources(name)? {
            let shown = shown(&file);
            let is_test = shown.starts_with("tests/")
                || shown.contains("/tests/")
                || shown.ends_with("tests.rs");
            if is_test || CATALOGUES.contains(&shown.as_str()) {
                continue;
            }
            let text = read(&file)?;
            let logic = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
            let lines = code_lines(logic).count();
            if lines > TOO_LONG {
                wrong.push(format!("{shown}: {lines} lines of logic, at most {TOO_LONG}"));
            } else if lines > LONG {
                eprintln!("{shown} has {lines} lines of logic: is a part missing?");
            }
        }
    }
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Registries are a matter of the machine's settings; a name in the tree would bypass them.
fn no_registry_is_named() -> Outcome {
    let hosts: Vec<String> = [
        &["static", "crates", "io"][..],
        &["index", "crates", "io"],
        &["repo1", "maven", "org"],
        &["repo", "maven", "apache", "org"],
        &["pypi", "org"],
        &["files", "pythonhosted", "org"],
        &["registry", "npmjs", "org"],
        &["proxy", "golang", "org"],
        &["deb", "debian", "org"],
    ]
    .iter()
    .map(|parts| parts.join("."))
    .collect();
    let mut wrong = Vec::new();
    for file in walk(repository(), &|_| true)? {
        let bytes = std::fs::read(&file).with_context(|| shown(&file))?;
        let text = String::from_utf8_lossy(&bytes);
        for host in hosts.iter().filter(|host| text.contains(host.as_str())) {
            wrong.push(format!("{} names {host}", shown(&file)));
        }
    }
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Links of the documents lead from their folder, paths in code spans from the root of the repository.
fn what_the_documents_name_is_there() -> Outcome {
    let mut wrong = Vec::new();
    for file in walk(repository(), &|path| has_extension(path, "md"))? {
        let text = read(&file)?;
        let folder = file.parent().unwrap_or(repository());
        for target in links(&text).filter(|target| !folder.join(target).exists()) {
            wrong.push(format!("{}: no {target}", shown(&file)));
        }
        for path in paths_in_code(&text).filter(|path| !repository().join(path).exists()) {
            wrong.push(format!("{}: no {path}", shown(&file)));
        }
    }
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Returns the files that a Markdown text links to.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.filter(|target| !target.contains("://"));
    files.filter_map(|target| target.split('#').next()).filter(|target| !target.is_empty())
}

/// Returns the paths below one of the repository's folders that stand alone between backticks.
fn paths_in_code(text: &str) -> impl Iterator<Item = &str> {
    let spans = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    spans.filter(|span| {
        let folder = span.split_once('/').map(|(folder, _)| folder);
        let plain = span.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
        folder.is_some_and(|folder| CRATES.contains(&folder)) && plain && !span.contains("NAME")
    })
}

fn every_metric_is_documented() -> Outcome {
    let document = read(&repository().join("daemon/README.md"))?;
    let written: Vec<&str> =
        document.lines().filter(|line| line.starts_with("| `sluice_")).map(str::trim_end).collect();
    let table = sluice_daemon::metrics::as_markdown();
    let declared: Vec<&str> = table.lines().filter(|line| line.starts_with("| `sluice_")).collect();
    anyhow::ensure!(!declared.is_empty(), "nothing is declared");
    for line in &declared {
        anyhow::ensure!(written.contains(line), "daemon/README.md lacks {line}");
    }
    for line in &written {
        anyhow::ensure!(declared.contains(line), "daemon/README.md has what is not there: {line}");
    }
    Ok(())
}

fn every_key_is_in_the_reference() -> Outcome {
    let code = read(&repository().join(CONFIG))?;
    let reference = read(&repository().join(REFERENCE))?;
    // `key: Kind = default,` inside the sections.
    let keys: BTreeSet<&str> = code
        .lines()
        .filter(|line| line.contains(" = "))
        .filter_map(|line| line.trim().split_once(": "))
        .map(|(name, _)| name)
        .filter(|name| is_name(name))
        .collect();
    anyhow::ensure!(!keys.is_empty(), "{CONFIG} has no keys");
    // A key stands as `key = ...`, commented out where it has no default, or within a table's name.
    let told: BTreeSet<&str> = reference
        .lines()
        .map(|line| line.trim_start_matches(['#', ' ']))
        .flat_map(|line| match line.strip_prefix('[') {
            Some(table) => table.trim_matches(['[', ']', ' ']).split('.').collect(),
            None => line.split_once('=').map_or(Vec::new(), |(key, _)| vec![key.trim()]),
        })
        .collect();
    let missing: Vec<_> = keys.difference(&told).collect();
    anyhow::ensure!(missing.is_empty(), "keys of the code that {REFERENCE} lacks: {missing:?}");
    Ok(())
}

fn manifest(name: &str) -> anyhow::Result<toml::Table> {
    Ok(read(&repository().join(name).join("Cargo.toml"))?.parse()?)
}

fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    ["dependencies", "dev-dependencies", "build-dependencies"]
        .iter()
        .filter_map(|kind| manifest.get(*kind)?.as_table())
        .flat_map(|table| table.keys().cloned())
        .collect()
}

fn sources(name: &str) -> anyhow::Result<Vec<PathBuf>> {
    walk(&repository().join(name), &|path| has_extension(path, "rs"))
}

/// Lists the files below a folder that belong to the project and are wanted.
fn walk(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| shown(folder))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !matches!(name, "target" | ".git" | ".kafka" | "node_modules" | "__pycache__") {
                files.extend(walk(&path, wanted)?);
            }
        } else if path.is_file() && name != "Cargo.lock" && wanted(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Lines that are neither empty nor comments.
fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with("//"))
}

/// Says whether a line names a path, `sled::` but not `unsled::`.
fn names(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        !line[..at]
            .ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':')
    })
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

fn shown(path: &Path) -> String {
    path.strip_prefix(repository()).unwrap_or(path).display().to_string()
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| shown(path))
}
