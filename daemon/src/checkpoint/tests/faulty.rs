//! A disk that fails in the middle of a checkpoint: the daemon stops and says so, nothing is told that does not last, and the next start
//! finds a whole checkpoint.

use super::power::{Going, records};
use super::*;
use crate::testing::disk::{Operation, Watched, child, tell};

const STEPS: u64 = 4;

/// The child: goes on until the disk fails.
fn work(root: &Path) {
    let (records, folder) = (records(), root.join("state"));
    let mut run = match Going::open(&folder) {
        Ok(run) => run,
        Err(stop) => {
            return println!(
                "at the start, exit {}: {}",
                stop.exit().code(),
                crate::error::chain(&stop)
            );
        }
    };
    for _ in 0..STEPS {
        let number = run.number();
        if let Err(stop) = run.try_step(&records) {
            let said = crate::error::chain(&stop);
            println!("checkpoint {}, exit {}: {said}", number + 1, stop.exit().code());
            // Whoever tries again is not told that it works now.
            assert!(!said.contains("the store in") || run.try_step(&records).is_err());
            drop(run);
            return println!("ended");
        }
        tell(root, run.number());
    }
    println!("nothing has failed");
}

fn fails_and_is_begun_again(test: &str, fail: &str, words: &[&str]) {
    let watched = Watched::new();
    let (ended, said) = watched.run(&format!("checkpoint::tests::faulty::{test}"), "", Some(fail));
    assert!(ended && !said.contains("panicked"), "{fail}: {said}");
    assert!(!said.contains("nothing has failed"), "{fail}");
    for word in words {
        assert!(said.contains(word), "{fail}: expected {word:?} in {said}");
    }
    let mut told = 0;
    for operation in watched.operations() {
        if let Operation::Told(number) = operation {
            told = number;
        }
    }
    let mut run = Going::open(&watched.root().join("state")).unwrap();
    assert!(
        (told..=told + 1).contains(&run.number()),
        "{fail}: {told} told, {} found",
        run.number()
    );
    run.try_step(&records()).unwrap();
}

#[test]
fn a_sync_that_fails_stops_the_daemon_and_is_not_tried_again() {
    const TEST: &str = "a_sync_that_fails_stops_the_daemon_and_is_not_tried_again";
    if let Some((_, root)) = child() {
        return work(&root);
    }
    for number in 1..=9 {
        // Input/output error.
        let fail = format!("sync:/state/db:{number}once:5");
        fails_and_is_begun_again(TEST, &fail, &["exit 4", "Input/output error"]);
    }
    let words = [
        "exit 4",
        "checkpoint 2 cannot be written: the one before stays in force",
        "Input/output error",
    ];
    for ending in ["000000000002.state.new", "000000000002.changes.new"] {
        fails_and_is_begun_again(TEST, &format!("sync:{ending}:1once:5"), &words);
    }
    let words = ["exit 4", "checkpoint 1 cannot be written", "Input/output error"];
    fails_and_is_begun_again(TEST, "sync:000000000001.parameters.new:1once:5", &words);
    let words = ["exit 4", "checkpoint 2 failed at its last step", "Input/output error"];
    fails_and_is_begun_again(TEST, "sync:/committed.new:2once:5", &words);
}

#[test]
fn a_disk_that_becomes_full_under_the_store_stops_the_daemon() {
    const TEST: &str = "a_disk_that_becomes_full_under_the_store_stops_the_daemon";
    if let Some((_, root)) = child() {
        return work(&root);
    }
    for number in [4, 6, 7] {
        // No space left on device.
        let fail = format!("write:/state/db:{number}:28");
        fails_and_is_begun_again(TEST, &fail, &["exit 4", "next start", "No space left on device"]);
    }
}

/// Runs a test again as a child for which the folder of the state is a mount point; `None` where this is not allowed.
fn run_mounted(test: &str, root: &Path) -> Option<(bool, String)> {
    let script = r#"mount --bind "$DISK_ROOT/state" "$DISK_ROOT/state" && exec "$0" "$@""#;
    let unshared = |what: &[&str]| {
        let mut unshare = std::process::Command::new("unshare");
        unshare.arg("-rm").args(what);
        unshare
    };
    unshared(&["true"]).status().ok().filter(|status| status.success())?;
    let mut mounted = unshared(&["sh", "-c", script]);
    mounted.arg(std::env::current_exe().unwrap());
    mounted.args([&format!("checkpoint::tests::faulty::{test}"), "--exact", "--nocapture"]);
    mounted.env("DISK_CHILD", "mounted").env("DISK_ROOT", root);
    let output = mounted.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// A volume that is mounted at `checkpoint.path` itself, as those of Kubernetes are: nobody can rename it, and who starts the daemon again has
/// no other hand in it.
#[test]
fn a_damaged_state_in_a_mount_point_is_put_aside_in_it() {
    if let Some((_, root)) = child() {
        let folder = root.join("state");
        let stop = Going::open(&folder).err().unwrap();
        assert_eq!(stop.exit(), Exit::Data);
        let said = stop.to_string();
        assert!(said.contains("state/quarantine-1650000000000: start again"), "{said}");
        let mut run = Going::open(&folder).unwrap();
        run.try_step(&records()).unwrap();
        drop(run);
        assert_eq!(Going::open(&folder).unwrap().number(), 1);
        let mut mount = std::process::Command::new("mount");
        let mount = mount.args(["-o", "remount,bind,ro"]).arg(&folder);
        assert!(mount.status().unwrap().success());
        let stop = Going::open(&folder).err().unwrap();
        assert_eq!(stop.exit(), Exit::Config);
        let said = crate::error::chain(&stop);
        assert!(said.contains("mount it for writing"), "{said}");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("state");
    let mut run = Going::open(&folder).unwrap();
    run.try_step(&records()).unwrap();
    drop(run);
    damage(&folder.join("000000000001.state"));
    let test = "a_damaged_state_in_a_mount_point_is_put_aside_in_it";
    let Some((ended, said)) = run_mounted(test, root.path()) else {
        println!("skipped: nothing can be mounted here");
        return;
    };
    assert!(ended, "{said}");
    assert!(folder.join("quarantine-1650000000000/000000000001.parameters").exists());
}
