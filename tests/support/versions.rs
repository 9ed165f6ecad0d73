//! A tree whose content tells its own version, and a reader that checks it while pushes run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use super::rng::Rng;
use super::tree::set_time;

/// The lines of a versioned file are this long, so that a delta has blocks to match.
const LINE: usize = 512;

/// How many lines file `id` has in version `version`: it grows and shrinks with the version.
fn lines(id: u64, version: u64) -> u64 {
    let base = [1, 3, 9, 40, 150, 700, 2_600][usize::try_from(id % 7).unwrap()];
    base + (version * 7 + id) % (base / 2 + 2)
}

/// One line: its version, and bytes that stay the same from version to version.
fn line(id: u64, version: u64, number: u64) -> Vec<u8> {
    let mut line = format!("v={version:08} id={id:04} line={number:06} ").into_bytes();
    let mut rng = Rng::new(id * 1_000_003 + number);
    line.extend_from_slice(&rng.bytes(LINE - line.len()));
    line
}

/// The whole content of file `id` in `version`.
pub fn content(id: u64, version: u64) -> Vec<u8> {
    let count = lines(id, version);
    let mut all = format!("head v={version:08} id={id:04} lines={count:06}\n").into_bytes();
    for number in 0..count {
        // One line in four carries its version; the others are the basis of a delta.
        all.extend(line(id, if number % 4 == 0 { version } else { 0 }, number));
    }
    all
}

/// The version of `bytes`, or what is torn about them.
pub fn check(bytes: &[u8]) -> Result<u64, String> {
    identify(bytes).map(|(_, version)| version)
}

/// Which file `bytes` are and of which version, or what is torn about them.
pub fn identify(bytes: &[u8]) -> Result<(u64, u64), String> {
    let head = bytes.get(..36).and_then(|h| std::str::from_utf8(h).ok()).ok_or("no head: the file is cut")?;
    let field = |name: &str| -> Result<u64, String> {
        let from = head.find(name).ok_or_else(|| format!("head {head:?}"))? + name.len();
        head[from..].split_whitespace().next().unwrap_or("").parse().map_err(|_| format!("head {head:?}"))
    };
    let (version, id) = (field("v=")?, field("id=")?);
    if bytes == content(id, version) {
        Ok((id, version))
    } else {
        Err(format!("a mixture that says it is version {version} of file {id}, {} bytes", bytes.len()))
    }
}

/// Writes version `version` of a tree of `count` files into `root`, with directories and links that come and go.
pub fn write(root: &Path, count: u64, version: u64) {
    for id in 0..count {
        let dir = root.join(format!("d{}", id % 5));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join(format!("f{id}"));
        // A few files stay as they are for several versions.
        if id % 6 == 5 && version % 4 != 1 {
            continue;
        }
        fs::write(&path, content(id, version)).unwrap();
        set_time(&path, (1_600_000_000 + i64::try_from(version * 10).unwrap(), i64::try_from(id).unwrap()));
    }
    change_shapes(root, version);
}

/// Whether a copy between two versions may do without file `id`: some versions do, or it swaps names with another, and
/// between the two renames both names are the other's.
pub fn may_be_missing(id: u64) -> bool {
    (997..=999).contains(&id) || id == MOVING + LEFT || id == MOVING + RIGHT
}

/// What is left of a version with a symbolic link when it is divided by 3.
pub const HAS_SYMLINK: u64 = 2;

fn change_shapes(root: &Path, version: u64) {
    let flip = root.join("flip");
    if fs::symlink_metadata(&flip).is_ok_and(|m| m.is_dir()) {
        fs::remove_dir_all(&flip).unwrap();
    } else {
        let _ = fs::remove_file(&flip);
    }
    match version % 3 {
        0 => fs::write(&flip, content(999, version)).unwrap(),
        1 => {
            fs::create_dir_all(flip.join("in/deep")).unwrap();
            fs::write(flip.join("in/deep/file"), content(998, version)).unwrap();
        }
        _ => std::os::unix::fs::symlink(format!("to-{version}"), &flip).unwrap(),
    }
    let came = root.join(format!("only-{version}"));
    fs::create_dir_all(&came).unwrap();
    fs::write(came.join("file"), content(997, version)).unwrap();
    fs::hard_link(came.join("file"), came.join("hard")).unwrap();
    let _ = fs::remove_dir_all(root.join(format!("only-{}", version.wrapping_sub(1))));
}

/// Files whose names move from version to version are numbered from here on.
const MOVING: u64 = 700;

/// The two that swap names.
const LEFT: u64 = 20;
const RIGHT: u64 = 21;

/// Files of [`write_moving`] in a directory that gets another name with each version.
const IN_SITE: u64 = 8;

/// Writes version `version` of a further part of the tree, in which names move: a directory whose name changes, two
/// files that swap theirs, and directories that go back and forth. Versions must come in order.
pub fn write_moving(root: &Path, version: u64) {
    let put = |path: PathBuf, id: u64| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content(MOVING + id, version)).unwrap();
        set_time(&path, (1_700_000_000 + i64::try_from(version * 10).unwrap(), i64::try_from(id).unwrap()));
    };
    let found = fs::read_dir(root).unwrap().flatten().map(|child| child.path());
    let old = found.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("site-"));
    let site = root.join(format!("site-{version}"));
    let [left, right, aside] = ["left", "right", "aside"].map(|name| root.join(name));
    match old {
        None => {
            (0..IN_SITE).for_each(|id| put(site.join(format!("s{id}")), id));
            put(left, LEFT);
            put(right, RIGHT);
            (0..3).for_each(|id| put(root.join(format!("inbox/m{id}/file")), 30 + id));
            fs::create_dir(root.join("archive")).unwrap();
        }
        Some(old) => {
            fs::rename(old, &site).unwrap();
            let id = version % IN_SITE;
            put(site.join(format!("s{id}")), id);
            for (from, to) in [(&left, &aside), (&right, &left), (&aside, &right)] {
                fs::rename(from, to).unwrap();
            }
            let moved = format!("m{}", version % 3);
            let (inbox, archive) = (root.join("inbox").join(&moved), root.join("archive").join(&moved));
            let (from, to) = if inbox.exists() { (inbox, archive) } else { (archive, inbox) };
            fs::rename(from, &to).unwrap();
            if version.is_multiple_of(2) {
                put(to.join("file"), 30 + version % 3);
            }
        }
    }
}

/// Writes version `version` of a further part of the tree: many small files, of which a third changes each time, some of
/// them by rename as editors save.
pub fn write_small(root: &Path, version: u64) {
    let dir = root.join("small");
    fs::create_dir_all(&dir).unwrap();
    for number in (0..150).filter(|number| version == 1 || number % 3 == version % 3) {
        // A multiple of seven is small, and so is what follows it.
        let id = 7_000 + number * 7 + number % 2;
        let (path, part) = (dir.join(format!("f{number}")), dir.join("part"));
        fs::write(&part, content(id, version)).unwrap();
        set_time(&part, (1_800_000_000 + i64::try_from(version).unwrap(), i64::try_from(number).unwrap()));
        fs::rename(&part, &path).unwrap();
    }
}

/// The files below `root`, `.rfleet` apart, each with its version; or what is torn.
pub fn whole(root: &Path) -> Result<BTreeMap<u64, u64>, String> {
    let mut found = BTreeMap::new();
    let mut queue = vec![root.to_owned()];
    while let Some(dir) = queue.pop() {
        for child in fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?.flatten() {
            let (path, kind) = (child.path(), child.file_type().unwrap());
            if kind.is_dir() && path != root.join(".rfleet") {
                queue.push(path);
            } else if kind.is_file() {
                let bytes = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
                let (id, version) = identify(&bytes).map_err(|what| format!("{}: {what}", path.display()))?;
                let known = found.entry(id).or_insert(version);
                *known = version.min(*known);
            }
        }
    }
    Ok(found)
}

/// Reads the files of a copy in a loop; each must be one whole version.
pub struct Reader {
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Reader {
    /// Watches the files that [`write`] makes, below each of `roots`.
    pub fn watch(roots: Vec<PathBuf>, count: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let reads = Arc::new(AtomicU64::new(0));
        let (ended, counted) = (stop.clone(), reads.clone());
        let thread = std::thread::spawn(move || {
            let mut torn = Vec::new();
            let mut last = vec![0; roots.len() * usize::try_from(count).unwrap()];
            let mut rng = Rng::new(1);
            while !ended.load(Ordering::Relaxed) && torn.len() < 10 {
                let pick = rng.below(last.len());
                let id = u64::try_from(pick).unwrap() % count;
                let root = &roots[pick / usize::try_from(count).unwrap()];
                let path = root.join(format!("d{}/f{id}", id % 5));
                if let Ok(bytes) = fs::read(&path) {
                    counted.fetch_add(1, Ordering::Relaxed);
                    match check(&bytes) {
                        Ok(version) if version >= last[pick] => last[pick] = version,
                        Ok(version) => torn.push(format!("{}: back from {} to {version}", path.display(), last[pick])),
                        Err(what) => torn.push(format!("{}: {what}", path.display())),
                    }
                } else if last[pick] > 0 {
                    torn.push(format!("{}: gone for a moment", path.display()));
                }
                // Leaves the machine's two cores to what is tested.
                std::thread::sleep(std::time::Duration::from_micros(300));
            }
            torn
        });
        Self { stop, reads, thread: Some(thread) }
    }

    /// Ends the loop and panics with what was torn; returns how many files were read whole.
    pub fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let torn = self.thread.take().unwrap().join().unwrap();
        assert!(torn.is_empty(), "a reader saw:\n{}", torn.join("\n"));
        self.reads.load(Ordering::Relaxed)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
