//! Trees to push: one with every kind of entry, and seeded random ones that change at random.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};

use super::rng::Rng;
use super::scratch::is_root;
use super::tree::{Tree, at, set_mode, set_time};

/// Every kind of entry and every awkward name that a push must keep.
pub fn every_kind() -> Tree {
    let mut rng = Rng::new(7);
    let long = [b'n'; 255];
    let deep = vec!["deep"; 60].join("/");
    Tree::new()
        .dir("empty")
        .dir("private")
        .mode(0o700)
        .dir("empty/nested/also empty")
        .file("zero", "")
        .file("one", "x")
        .mode(0o600)
        .file("run.sh", "#!/bin/sh\n")
        .mode(0o755)
        .file("unreadable-by-others", rng.text(5_000))
        .mode(0o400)
        .file("odd-mode", "y")
        .mode(0o417)
        .file("block", rng.bytes(1 << 20))
        .file("block-and-one", rng.bytes((1 << 20) + 1))
        .file("large", rng.bytes(5_300_000))
        .file("text", rng.text(3_000_000))
        .file("zeros", vec![0; 2_500_000])
        .file(b"not-utf8-\xff\xfe\x80", "bytes")
        .file("new\nline", "n")
        .file("-rf", "leading dash")
        .file("--delete", "looks like an option")
        .file(" leading and trailing ", "spaces")
        .file("emoji-🦀-é", "utf8")
        .file("back\\slash", "b")
        .file("quote'\"$HOME;`id`*?[x]", "shell")
        .file("tab\tbell\x07", "control")
        .file("~", "tilde")
        .file("a:b", "colon")
        .file("...", "dots")
        .file(".hidden", "h")
        .file(".rfleetx", "not reserved")
        .file(long, "longest name")
        .file([vec![b'd'; 255], b"/inside".to_vec()].concat(), "under the longest directory name")
        .file(format!("{deep}/bottom"), "deep")
        .file("order/a-b", "1")
        .file("order/a/b", "2")
        .file("order/a.b", "3")
        .file("order/a0", "4")
        .link("link-file", "one")
        .link("link-dir", "empty")
        .link("link-dangling", "nowhere/at/all")
        .link("link-absolute", "/etc/passwd")
        .link("link-up", "../../../../outside")
        .link("link-self", "link-self")
        .link(b"link-bytes", b"to-\xff\xfe")
        .link("link-long", "t".repeat(3_000))
        .file("hard/a", rng.bytes(70_000))
        .hard("hard/b", "hard/a")
        .hard("elsewhere/c", "hard/a")
        .file("hard/tiny", "t")
        .hard("hard/tiny too", "hard/tiny")
        .file("hard/large", rng.bytes(1_700_000))
        .hard("a-first-name-of-large", "hard/large")
        .file("owned/by-number", "o")
        .owner(12_345, 54_321)
        .file("owned/by-name", "o")
        .owner(1, 33)
        .mode(0o640)
        .dir("owned/dir")
        .owner(33, 33)
        .mode(0o750)
        .link("owned/link", "by-name")
        .owner(33, 1)
        .file("read-only-dir/file", "r")
        .dir("read-only-dir")
        .mode(0o555)
        .file("old", "epoch")
        .time(0, 1)
        .file("before-epoch", "1960")
        .time(-300_000_000, 500_000_000)
        .file("future", "2100")
        .time(4_102_444_800, 999_999_999)
        .link("link-timed", "one")
        .time(1_234_567_890, 42)
        .dir("dir-timed")
        .time(1_111_111_111, 987_654_321)
}

fn name(rng: &mut Rng, serial: usize) -> Vec<u8> {
    match rng.below(9) {
        0 => [format!("b{serial}-").as_bytes(), &[0xff, 0x80, b'\n']].concat(),
        1 => format!("sp ace {serial}").into_bytes(),
        2 => format!("-dash{serial}").into_bytes(),
        3 => format!("{serial}.jpg").into_bytes(),
        4 => format!("é{serial}").into_bytes(),
        _ => format!("f{serial}").into_bytes(),
    }
}

fn size(rng: &mut Rng) -> usize {
    match rng.below(20) {
        0 => 0,
        1 => 1_200_000 + rng.below(900_000),
        2 | 3 => 60_000 + rng.below(200_000),
        _ => rng.below(9_000),
    }
}

fn content(rng: &mut Rng) -> Vec<u8> {
    let size = size(rng);
    if rng.chance(2) { rng.text(size) } else { rng.bytes(size) }
}

fn dress(rng: &mut Rng, path: &Path) {
    let meta = fs::symlink_metadata(path).unwrap();
    if is_root() && rng.chance(4) {
        lchown(path, Some(*rng.pick(&[0, 1, 33, 4_242])), Some(*rng.pick(&[0, 33, 777]))).unwrap();
    }
    if !meta.file_type().is_symlink() {
        let modes: &[u32] = if meta.is_dir() { &[0o755, 0o700, 0o775] } else { &[0o644, 0o600, 0o755, 0o640] };
        set_mode(path, *rng.pick(modes));
    }
    if rng.chance(3) {
        set_time(path, (1_400_000_000 + i64::try_from(rng.below(300_000_000)).unwrap(), 17));
    }
}

fn create_something(rng: &mut Rng, path: &Path, others: &[PathBuf]) {
    match rng.below(10) {
        0 => {
            fs::create_dir(path).unwrap();
            for serial in 0..rng.below(4) {
                let inside = path.join(format!("in{serial}"));
                fs::write(&inside, content(rng)).unwrap();
            }
        }
        1 => symlink(*rng.pick(&["f1", "../x", "/nowhere", "."]), path).unwrap(),
        2 if !others.is_empty() => fs::hard_link(rng.pick(others), path).unwrap(),
        _ => fs::write(path, content(rng)).unwrap(),
    }
    dress(rng, path);
}

/// Fills `root` with about `count` entries.
pub fn random_tree(root: &Path, rng: &mut Rng, count: usize) {
    fs::create_dir_all(root).unwrap();
    let mut dirs = vec![root.to_owned()];
    for serial in 0..count {
        let parent = rng.pick(&dirs).clone();
        let path = at(&parent, name(rng, serial));
        if rng.chance(8) {
            fs::create_dir(&path).unwrap();
            dirs.push(path);
        } else {
            let others = list(root).files;
            create_something(rng, &path, &others);
        }
    }
}

#[derive(Default)]
struct Listed {
    files: Vec<PathBuf>,
    dirs: Vec<PathBuf>,
    links: Vec<PathBuf>,
}

impl Listed {
    fn any(&self, rng: &mut Rng) -> Option<PathBuf> {
        let all: Vec<_> = self.files.iter().chain(&self.dirs).chain(&self.links).collect();
        (!all.is_empty()).then(|| (*rng.pick(&all)).clone())
    }
}

/// What is below `root`, in a fixed order.
fn list(root: &Path) -> Listed {
    let mut listed = Listed::default();
    let mut queue = vec![root.to_owned()];
    while let Some(dir) = queue.pop() {
        let children: BTreeMap<_, _> =
            fs::read_dir(&dir).unwrap().flatten().map(|e| (e.file_name(), e.file_type().unwrap())).collect();
        for (name, kind) in children {
            let path = dir.join(name);
            if kind.is_dir() {
                listed.dirs.push(path.clone());
                queue.push(path);
            } else if kind.is_symlink() {
                listed.links.push(path);
            } else {
                listed.files.push(path);
            }
        }
    }
    listed
}

fn remove(path: &Path) {
    if fs::symlink_metadata(path).unwrap().is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}

/// Makes `count` random changes below `root`.
///
/// Each changed file gets a new time, as an editor gives it one: rsync's quick check, which rfleet shares, needs that.
pub fn mutate(root: &Path, rng: &mut Rng, count: usize) {
    for serial in 0..count {
        let listed = list(root);
        let serial = 100_000 + rng.below(1_000_000) * 100 + serial;
        let fresh = name(rng, serial);
        let parent =
            if listed.dirs.is_empty() || rng.chance(4) { root.to_owned() } else { rng.pick(&listed.dirs).clone() };
        match rng.below(12) {
            0..=3 if !listed.files.is_empty() => {
                let path: &PathBuf = rng.pick(&listed.files);
                edit(rng, path);
            }
            4 => create_something(rng, &at(&parent, fresh), &listed.files),
            5 => rename(rng, &listed, &at(&parent, fresh)),
            6 | 7 => {
                if let Some(path) = listed.any(rng) {
                    change_type(rng, &path, &listed);
                }
            }
            8 => {
                if let Some(path) = listed.any(rng) {
                    remove(&path);
                }
            }
            9 => {
                if let Some(path) = listed.any(rng) {
                    dress(rng, &path);
                }
            }
            10 => {
                if let Some(path) = listed.any(rng) {
                    set_time(&path, (1_300_000_000 + i64::try_from(rng.below(90_000_000)).unwrap(), 5));
                }
            }
            _ => relink(rng, &listed),
        }
    }
}

fn edit(rng: &mut Rng, path: &Path) {
    let meta = fs::metadata(path).unwrap();
    let len = usize::try_from(meta.len()).unwrap();
    let piece = rng.bytes(1 + rng.clone().below(3_000));
    match rng.below(5) {
        0 => fs::OpenOptions::new().append(true).open(path).unwrap().write_all(&piece).unwrap(),
        1 => {
            let mut content = fs::read(path).unwrap();
            let middle = rng.below(len + 1);
            content.splice(middle..middle, piece);
            fs::write(path, content).unwrap();
        }
        2 => {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(u64::try_from(rng.below(len + 1)).unwrap()).unwrap();
        }
        3 => {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            let place = u64::try_from(rng.below(len.saturating_sub(piece.len()) + 1)).unwrap();
            file.write_all_at(&piece, place).unwrap();
        }
        _ => fs::write(path, content(rng)).unwrap(),
    }
    // Never the time it had: two edits within one tick of the filesystem's clock would be invisible to any quick check.
    set_time(path, (meta.mtime() + 1 + i64::try_from(rng.below(1_000)).unwrap(), meta.mtime_nsec()));
}

fn rename(rng: &mut Rng, listed: &Listed, to: &Path) {
    let Some(from) = listed.any(rng) else { return };
    if !to.as_os_str().as_bytes().starts_with(from.as_os_str().as_bytes()) {
        fs::rename(from, to).unwrap();
    }
}

/// Puts something of another kind at `path`: also a file in place of a directory that is not empty.
fn change_type(rng: &mut Rng, path: &Path, listed: &Listed) {
    let kind = fs::symlink_metadata(path).unwrap().file_type();
    remove(path);
    let others: Vec<_> = listed.files.iter().filter(|f| f.exists()).cloned().collect();
    match rng.below(3) {
        0 if !kind.is_dir() => {
            fs::create_dir(path).unwrap();
            fs::write(path.join("inside"), content(rng)).unwrap();
            fs::create_dir(path.join("empty")).unwrap();
        }
        1 if !kind.is_symlink() => symlink("changed-type", path).unwrap(),
        2 if !others.is_empty() && !kind.is_file() => fs::hard_link(rng.pick(&others), path).unwrap(),
        _ if kind.is_file() => fs::create_dir(path).unwrap(),
        _ => fs::write(path, content(rng)).unwrap(),
    }
}

/// Breaks a file out of its hard links, or makes it one more.
fn relink(rng: &mut Rng, listed: &Listed) {
    if listed.files.len() < 2 {
        return;
    }
    let (path, other) = (rng.pick(&listed.files).clone(), rng.pick(&listed.files).clone());
    if path == other {
        return;
    }
    if rng.chance(2) {
        let content = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, content).unwrap();
    } else {
        fs::remove_file(&path).unwrap();
        fs::hard_link(&other, &path).unwrap();
    }
}
