//! A disk that loses what was not synced.
//!
//! A test runs itself again as a child with [`shim`](../../../tests/disk/disk.c) before the C library. The child works on a folder, the shim
//! writes down every operation, and from that log the test makes the folder as a power loss at any moment might leave it:
//!
//! | what | survives |
//! |---|---|
//! | bytes of a file at its last sync | for sure |
//! | writes after it | each block of 4096 bytes by itself or not, in any order, now and then torn at a sector of 512; `sync_file_range` promises nothing |
//! | lengths after it | a file may have grown without the bytes, which are zero then; a cut may be lost |
//! | names: made, renamed, removed | for sure once the folder was synced; until then any of the states since, each name by itself |
//!
//! This is weaker than ext4 or XFS, which keep names in order and rename as one. What survives it survives them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

const BLOCK: usize = 4096;
const SECTOR: usize = 512;
/// Lies beside the folders that are watched: what a child writes there it has told the world.
const TOLD: &str = "told";
/// The variable that tells a child what it is, and where it works.
const CHILD: &str = "DISK_CHILD";

/// What happened to the disk.
#[derive(Debug)]
pub(crate) enum Operation {
    Create {
        path: PathBuf,
        inode: u64,
    },
    Write {
        inode: u64,
        offset: usize,
        bytes: Vec<u8>,
    },
    Sync {
        path: PathBuf,
        inode: u64,
    },
    Truncate {
        inode: u64,
        length: usize,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
    MakeFolder {
        path: PathBuf,
        inode: u64,
    },
    /// `sync_file_range`: handed to the disk, promised nothing.
    Range {
        inode: u64,
        offset: usize,
        length: usize,
    },
    /// The child has told the world a number.
    Told(u64),
}

/// A folder under watch, and the log of what happens in it.
pub(crate) struct Watched {
    home: tempfile::TempDir,
}

impl Watched {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("root")).unwrap();
        let shim = home.path().join("disk.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/disk/disk.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source);
        let built = compiler.args(["-ldl", "-lpthread"]).status();
        assert!(built.is_ok_and(|status| status.success()), "cc must build {source}");
        Self { home }
    }

    /// Returns the folder that is watched.
    pub(crate) fn root(&self) -> PathBuf {
        self.home.path().join("root").canonicalize().unwrap()
    }

    /// Runs a test of this program again, as a child that finds `what` by [`child`]. `fail` lets a call fail (see the shim). Returns its
    /// status and what it said.
    pub(crate) fn run(&self, test: &str, what: &str, fail: Option<&str>) -> (bool, String) {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args([test, "--exact", "--nocapture", "--test-threads=1"]);
        child.env(CHILD, what).env("LD_PRELOAD", self.home.path().join("disk.so"));
        child.env("DISK_ROOT", self.root()).env("DISK_LOG", self.home.path().join("log"));
        if let Some(fail) = fail {
            child.env("DISK_FAIL", fail);
        }
        let output = child.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Returns what has happened so far.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        read(&std::fs::read(self.home.path().join("log")).unwrap())
    }
}

/// Returns what a child was told, and the folder that it works in; `None` in the test itself.
pub(crate) fn child() -> Option<(String, PathBuf)> {
    let what = std::env::var(CHILD).ok()?;
    Some((what, PathBuf::from(std::env::var_os("DISK_ROOT")?)))
}

/// Tells the world, as a child, that what belongs to this number lasts.
pub(crate) fn tell(root: &Path, number: u64) {
    std::fs::write(root.join(TOLD), number.to_string()).unwrap();
}

fn read(mut log: &[u8]) -> Vec<Operation> {
    let mut operations = Vec::new();
    while !log.is_empty() {
        let word = |at: usize| u32::from_le_bytes(log[at..at + 4].try_into().unwrap()) as usize;
        let number = |at: usize| u64::from_le_bytes(log[at..at + 8].try_into().unwrap());
        let (kind, named, length) = (word(0), word(4), word(8));
        let (inode, offset) = (number(16), number(24) as usize);
        let (path, rest) = log[32..].split_at(named);
        let (bytes, rest) = rest.split_at(length);
        let path = PathBuf::from(std::str::from_utf8(path).unwrap());
        log = rest;
        let told = path.file_name().is_some_and(|name| name == TOLD);
        operations.push(match kind {
            2 if told => Operation::Told(std::str::from_utf8(bytes).unwrap().parse().unwrap()),
            _ if told => continue,
            1 => Operation::Create { path, inode },
            2 => Operation::Write { inode, offset, bytes: bytes.to_vec() },
            3 => Operation::Sync { path, inode },
            4 => Operation::Truncate { inode, length: offset },
            5 => {
                let to = PathBuf::from(std::str::from_utf8(bytes).unwrap());
                Operation::Rename { from: path, to }
            }
            6 => Operation::Unlink { path },
            7 => Operation::MakeFolder { path, inode },
            8 => {
                let length = u64::from_le_bytes(bytes.try_into().unwrap()) as usize;
                Operation::Range { inode, offset, length }
            }
            other => panic!("no operation {other}"),
        });
    }
    operations
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8>, handed: bool },
    Truncate(usize),
}

/// What a name stands for: a file or folder, or nothing.
type Binding = Option<usize>;

#[derive(Clone, Default)]
struct Name {
    durable: Binding,
    since: Vec<Binding>,
}

#[derive(Clone, Default)]
struct Inode {
    folder: bool,
    durable: Vec<u8>,
    since: Vec<Change>,
}

/// The disk after some operations.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    inodes: Vec<Inode>,
    /// By the system's number, which serves again once a file is gone.
    numbers: HashMap<u64, usize>,
    names: BTreeMap<PathBuf, Name>,
    told: u64,
}

impl Disk {
    /// Returns the newest number that the world was told.
    pub(crate) fn told(&self) -> u64 {
        self.told
    }

    pub(crate) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Create { path, inode } => self.make(path, *inode, false),
            Operation::MakeFolder { path, inode } => self.make(path, *inode, true),
            Operation::Write { inode, offset, bytes } => {
                let change = Change::Write { offset: *offset, bytes: bytes.clone(), handed: false };
                self.at(*inode).since.push(change);
            }
            Operation::Truncate { inode, length } => {
                self.at(*inode).since.push(Change::Truncate(*length));
            }
            Operation::Range { inode, offset, length } => {
                for change in &mut self.at(*inode).since {
                    if let Change::Write { offset: at, handed, .. } = change {
                        *handed |= (*offset..offset + length).contains(at);
                    }
                }
            }
            Operation::Rename { from, to } => {
                let what = self.names.get(from).and_then(newest);
                self.name(from, None);
                self.name(to, what);
            }
            Operation::Unlink { path } => self.name(path, None),
            Operation::Sync { path, inode } => {
                let folder = self.numbers.get(inode).is_none_or(|at| self.inodes[*at].folder);
                if folder {
                    let inside = |name: &PathBuf| name.parent() == Some(path);
                    for (_, name) in self.names.iter_mut().filter(|(name, _)| inside(name)) {
                        name.durable = newest(name);
                        name.since.clear();
                    }
                } else {
                    let inode = self.at(*inode);
                    let mut bytes = std::mem::take(&mut inode.durable);
                    inode.since.drain(..).for_each(|change| happen(&mut bytes, &change));
                    inode.durable = bytes;
                }
            }
            Operation::Told(number) => self.told = *number,
        }
    }

    /// Returns what of what is there is not on the disk for sure: files whose newest bytes are not, and names that are not.
    pub(crate) fn unsure(&self) -> Vec<String> {
        let mut unsure = Vec::new();
        for (path, name) in &self.names {
            let Some(inode) = newest(name) else { continue };
            if !name.since.is_empty() {
                unsure.push(format!("the name {}", path.display()));
            }
            if !self.inodes[inode].since.is_empty() {
                unsure.push(format!("the bytes of {}", path.display()));
            }
        }
        unsure
    }

    fn make(&mut self, path: &Path, number: u64, folder: bool) {
        self.inodes.push(Inode { folder, ..Inode::default() });
        let inode = self.inodes.len() - 1;
        self.numbers.insert(number, inode);
        self.name(path, Some(inode));
    }

    fn name(&mut self, path: &Path, what: Binding) {
        self.names.entry(path.into()).or_default().since.push(what);
    }

    fn at(&mut self, number: u64) -> &mut Inode {
        &mut self.inodes[self.numbers[&number]]
    }

    /// Writes into an empty folder what a power loss now might leave of what is below `root`.
    pub(crate) fn lose_power(&self, root: &Path, to: &Path, random: &mut impl FnMut(u64) -> u64) {
        // Of a hundred: what is kept of writes, of writes that were handed to the disk, and of names.
        let (kept, handed, names) = [
            (0, 0, 0),
            (0, 100, 0),
            (0, 100, 100),
            (50, 100, 50),
            (50, 50, 50),
            (95, 95, 95),
            (100, 100, 0),
            (100, 100, 100),
        ][random(8) as usize];
        // Sorted: a folder comes before what is in it.
        for (path, name) in &self.names {
            let mut what = name.durable;
            for &since in &name.since {
                if random(100) < names {
                    what = since;
                }
            }
            let place = to.join(path.strip_prefix(root).unwrap());
            let Some(inode) = what.filter(|_| place.parent().is_some_and(Path::is_dir)) else {
                continue;
            };
            let inode = &self.inodes[inode];
            if inode.folder {
                std::fs::create_dir(place).unwrap();
                continue;
            }
            let mut bytes = inode.durable.clone();
            for change in &inode.since {
                match change {
                    Change::Write { offset, bytes: written, handed: was_handed } => {
                        let of_hundred = if *was_handed { handed } else { kept };
                        lose(&mut bytes, *offset, written, of_hundred, random);
                    }
                    truncated if random(100) < kept => happen(&mut bytes, truncated),
                    Change::Truncate(_) => {}
                }
            }
            std::fs::write(place, bytes).unwrap();
        }
    }
}

fn newest(name: &Name) -> Binding {
    name.since.last().copied().unwrap_or(name.durable)
}

fn happen(to: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes, .. } => put(to, *offset, bytes),
        Change::Truncate(length) => to.resize(*length, 0),
    }
}

fn put(to: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    to[offset..end].copy_from_slice(bytes);
}

/// Keeps some blocks of a write.
fn lose(
    to: &mut Vec<u8>,
    offset: usize,
    bytes: &[u8],
    of_hundred: u64,
    random: &mut impl FnMut(u64) -> u64,
) {
    let mut at = offset;
    let end = offset + bytes.len();
    while at < end {
        let next = ((at / BLOCK + 1) * BLOCK).min(end);
        let piece = &bytes[at - offset..next - offset];
        if random(100) < of_hundred {
            let torn = of_hundred < 100 && random(16) == 0;
            let whole =
                if torn { random((BLOCK / SECTOR) as u64) as usize * SECTOR } else { BLOCK };
            // A sector is written whole or not at all.
            let last = (at / BLOCK * BLOCK + whole).clamp(at, next) - at;
            put(to, at, &piece[..last]);
        } else if random(4) == 0 && to.len() < next {
            to.resize(next, 0);
        }
        at = next;
    }
}
