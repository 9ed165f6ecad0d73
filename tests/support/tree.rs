//! A tree literal with create, and a comparer that looks with lstat at everything a copy must keep.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::scratch::wait_until;

/// A time of its own for what a literal leaves open: in the past, with nanoseconds.
const DEFAULT_TIME: (i64, i64) = (1_500_000_000, 123_456_789);

enum Node {
    Dir,
    File(Vec<u8>),
    Link(Vec<u8>),
    Hard(Vec<u8>),
}

struct Item {
    path: Vec<u8>,
    node: Node,
    mode: Option<u32>,
    time: (i64, i64),
    owner: Option<(u32, u32)>,
}

/// A tree literal: what to create, in order; a parent is created when it is missing.
#[derive(Default)]
pub struct Tree {
    items: Vec<Item>,
}

impl Tree {
    pub fn new() -> Self {
        Self::default()
    }

    fn push(mut self, path: impl AsRef<[u8]>, node: Node) -> Self {
        let seconds = DEFAULT_TIME.0 + i64::try_from(self.items.len()).unwrap() * 61;
        let path = path.as_ref().to_vec();
        self.items.push(Item { path, node, mode: None, time: (seconds, DEFAULT_TIME.1), owner: None });
        self
    }

    pub fn dir(self, path: impl AsRef<[u8]>) -> Self {
        self.push(path, Node::Dir)
    }

    pub fn file(self, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        self.push(path, Node::File(content.as_ref().to_vec()))
    }

    pub fn link(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.push(path, Node::Link(target.as_ref().to_vec()))
    }

    /// A further name of the file at `to`.
    pub fn hard(self, path: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Self {
        self.push(path, Node::Hard(to.as_ref().to_vec()))
    }

    fn last(&mut self) -> &mut Item {
        self.items.last_mut().expect("an item to change")
    }

    /// The mode of the item before.
    pub fn mode(mut self, mode: u32) -> Self {
        self.last().mode = Some(mode);
        self
    }

    /// The modification time of the item before, in seconds and nanoseconds.
    pub fn time(mut self, seconds: i64, nanoseconds: i64) -> Self {
        self.last().time = (seconds, nanoseconds);
        self
    }

    /// Owner and group of the item before; only where root runs the test.
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.last().owner = super::scratch::is_root().then_some((uid, gid));
        self
    }

    /// Creates the tree in `root`, which may exist.
    pub fn create(&self, root: &Path) {
        fs::create_dir_all(root).unwrap();
        for item in &self.items {
            item.create(root);
        }
        // Times of directories last and deepest first: what is created in them changes them.
        for item in self.items.iter().rev() {
            if let Some((uid, gid)) = item.owner {
                std::os::unix::fs::lchown(at(root, &item.path), Some(uid), Some(gid)).unwrap();
            }
            if let (Some(mode), false) = (item.mode, matches!(item.node, Node::Link(_))) {
                set_mode(&at(root, &item.path), mode);
            }
            if !matches!(item.node, Node::Hard(_)) {
                set_time(&at(root, &item.path), item.time);
            }
        }
        set_time(root, DEFAULT_TIME);
    }
}

impl Item {
    fn create(&self, root: &Path) {
        let path = at(root, &self.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match &self.node {
            Node::Dir => fs::create_dir_all(&path).unwrap(),
            Node::File(content) => fs::write(&path, content).unwrap(),
            Node::Link(target) => symlink(OsStr::from_bytes(target), &path).unwrap(),
            Node::Hard(to) => fs::hard_link(at(root, to), &path).unwrap(),
        }
    }
}

/// The path of `name` (bytes) in `root`.
pub fn at(root: &Path, name: impl AsRef<[u8]>) -> PathBuf {
    root.join(OsStr::from_bytes(name.as_ref()))
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Sets the modification time without following a link.
pub fn set_time(path: &Path, (seconds, nanoseconds): (i64, i64)) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Waits until the last change in `root` is older than a filesystem's clock can tell: then a scan need not look at it again.
pub fn wait_until_old(root: &Path) {
    fn youngest(path: &Path) -> (i64, i64) {
        let meta = fs::symlink_metadata(path).unwrap();
        let below = if meta.is_dir() { fs::read_dir(path).unwrap().collect() } else { Vec::new() };
        let below = below.into_iter().map(|child| youngest(&child.unwrap().path())).max();
        below.unwrap_or_default().max((meta.ctime(), meta.ctime_nsec()))
    }
    let (seconds, nanoseconds) = youngest(root);
    let changed = Duration::new(u64::try_from(seconds).unwrap(), u32::try_from(nanoseconds).unwrap());
    let is_old = || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        now > changed + Duration::from_millis(50)
    };
    wait_until("the clock to go on", Duration::from_secs(20), is_old);
}

/// What lstat and a read say of one entry.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen {
    kind: &'static str,
    mode: u32,
    uid: u32,
    gid: u32,
    time: (i64, i64),
    size: u64,
    content: Option<String>,
    target: Option<Vec<u8>>,
    /// The first path of the group of hard links this one is in.
    group: Option<Vec<u8>>,
    inode: u64,
    changed: (i64, i64),
}

/// A tree as it is on disk; the root itself under the empty name.
pub struct Snapshot {
    pub entries: BTreeMap<Vec<u8>, Seen>,
}

impl Snapshot {
    /// Looks at everything below `root` except `.rfleet` directly in it. A root that does not exist has no entry.
    pub fn take(root: &Path) -> Self {
        let mut entries = BTreeMap::new();
        if fs::symlink_metadata(root).is_ok() {
            look(root, Vec::new(), &mut entries);
        }
        let mut first: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for (path, seen) in &mut entries {
            if seen.kind == "file" {
                seen.group = Some(first.entry(seen.inode).or_insert_with(|| path.clone()).clone());
            }
        }
        Self { entries }
    }

    /// Lines that tell what differs as a copy: kind, content, mode, owner, time, target and hard links.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        self.compare(other, false)
    }

    /// Panics unless `root` is untouched since this snapshot: also inodes and change times are the same.
    pub fn assert_untouched(&self, root: &Path) {
        let lines = self.compare(&Self::take(root), true);
        assert!(lines.is_empty(), "{} was touched:\n{}", root.display(), lines.join("\n"));
    }

    /// Panics unless `root` holds what it held, as a copy is compared.
    pub fn assert_equal(&self, root: &Path) {
        let lines = self.differences(&Self::take(root));
        assert!(lines.is_empty(), "{} changed:\n{}", root.display(), lines.join("\n"));
    }

    fn compare(&self, other: &Self, strict: bool) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, seen) in &self.entries {
            match other.entries.get(path) {
                None => lines.push(format!("- {} {}", seen.kind, path.escape_ascii())),
                Some(copy) => {
                    let said = seen.against(copy, strict);
                    if !said.is_empty() {
                        lines.push(format!("! {} {}:{said}", seen.kind, path.escape_ascii()));
                    }
                }
            }
        }
        for (path, seen) in &other.entries {
            if !self.entries.contains_key(path) {
                lines.push(format!("+ {} {}", seen.kind, path.escape_ascii()));
            }
        }
        lines
    }
}

impl Seen {
    fn against(&self, copy: &Self, strict: bool) -> String {
        let mut said = String::new();
        let mut say = |what: &str, a: String, b: String| {
            if a != b {
                let _ = write!(said, " {what} {a} -> {b};");
            }
        };
        say("kind", self.kind.into(), copy.kind.into());
        if self.kind == copy.kind {
            say("mode", format!("{:o}", self.mode), format!("{:o}", copy.mode));
            say("size", self.size.to_string(), copy.size.to_string());
            say("content", format!("{:?}", self.content), format!("{:?}", copy.content));
            say("target", escaped(self.target.as_ref()), escaped(copy.target.as_ref()));
            say("hard link of", escaped(self.group.as_ref()), escaped(copy.group.as_ref()));
        }
        say("owner", format!("{}:{}", self.uid, self.gid), format!("{}:{}", copy.uid, copy.gid));
        say("mtime", format!("{:?}", self.time), format!("{:?}", copy.time));
        if strict {
            say("inode", self.inode.to_string(), copy.inode.to_string());
            say("ctime", format!("{:?}", self.changed), format!("{:?}", copy.changed));
        }
        said
    }
}

fn escaped(bytes: Option<&Vec<u8>>) -> String {
    bytes.map_or_else(|| "nothing".into(), |b| b.escape_ascii().to_string())
}

fn look(path: &Path, name: Vec<u8>, into: &mut BTreeMap<Vec<u8>, Seen>) {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let kind = meta.file_type();
    let (kind, content, target) = if kind.is_dir() {
        ("dir", None, None)
    } else if kind.is_symlink() {
        ("link", None, Some(fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec()))
    } else if kind.is_file() {
        let mut hasher = blake3::Hasher::new();
        std::io::copy(&mut fs::File::open(path).unwrap(), &mut hasher).unwrap();
        ("file", Some(hasher.finalize().to_hex()[..16].to_owned()), None)
    } else {
        ("special", None, None)
    };
    let seen = Seen {
        kind,
        // The mode of a link means nothing on Linux; the size of a directory is the filesystem's business.
        mode: if kind == "link" { 0 } else { meta.mode() & 0o7777 },
        uid: meta.uid(),
        gid: meta.gid(),
        time: (meta.mtime(), meta.mtime_nsec()),
        size: if kind == "dir" { 0 } else { meta.size() },
        content,
        target,
        group: None,
        inode: meta.ino(),
        changed: (meta.ctime(), meta.ctime_nsec()),
    };
    if kind == "dir" {
        for child in fs::read_dir(path).unwrap() {
            let child = child.unwrap();
            let own = child.file_name();
            if name.is_empty() && own == ".rfleet" {
                continue;
            }
            let mut full = name.clone();
            if !full.is_empty() {
                full.push(b'/');
            }
            full.extend_from_slice(own.as_bytes());
            look(&child.path(), full, into);
        }
    }
    into.insert(name, seen);
}

/// Panics with a line for each difference between a source and its copy, the roots' own attributes included.
pub fn assert_same(source: &Path, copy: &Path) {
    let lines = Snapshot::take(source).differences(&Snapshot::take(copy));
    let shown = lines.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
    assert!(
        lines.is_empty(),
        "{} differs from its source {} in {} places:\n{shown}",
        copy.display(),
        source.display(),
        lines.len()
    );
}

/// Panics when something of rfleet's own is left in an ad-hoc destination.
pub fn assert_no_state(copy: &Path) {
    assert!(fs::symlink_metadata(copy.join(".rfleet")).is_err(), "{} still holds .rfleet", copy.display());
}

/// The sequence in the record that a fleet left in `copy`; `None` where there is no record.
pub fn recorded_sequence(copy: &Path) -> Option<u64> {
    let path = copy.join(".rfleet/state");
    let text = fs::read_to_string(&path).ok()?;
    let record: toml::Table = text.parse().unwrap_or_else(|e| panic!("{}: {e}\n{text}", path.display()));
    let sequence = record["sequence"].as_integer().unwrap_or_else(|| panic!("no sequence in {text}"));
    Some(u64::try_from(sequence).unwrap())
}
