//! Someone who changes a tree: seeded random operations, most of them renames.
//!
//! A push that compares sizes and times cannot tell two contents of equal size and time apart. So every content here has
//! a size of its own, or a time of its own, except where [`Editor::unseen`] counts that it does not.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};

use super::rng::Rng;
use super::scratch::is_root;
use super::tree::{set_mode, set_time};

/// Sizes modulo this tell which content it is.
const MODULUS: usize = 1024;

/// A tree that is larger is cut back.
const MOST_ENTRIES: usize = 45;

/// Few, so that names come again, in orders where `a-b` and `a/b` matter.
const NAMES: &[&str] = &["a", "b", "c", "d", "a-b", "a.b", "site", "old", "new", "x y", "ü.jpg", "z"];

/// This file stays as it is, so that the source is never empty.
const ANCHOR: &str = ".anchor";

mod links;
mod renames;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Dir,
    File,
    Link,
}

/// What an operation did, in a few words; `None` where the tree has nothing for it.
type Done = io::Result<Option<String>>;

type Operation = fn(&mut Editor) -> Done;

/// The operations, with how often each comes. A rewrite that keeps size and time is not among them: where a host is
/// compared, it is missed as by every tool that goes by these two, unless contents are compared; that the index finds it
/// is probed by itself.
const OPERATIONS: &[(usize, &str, Operation)] = &[
    (3, "create", Editor::create),
    (2, "mkdir -p", Editor::make_path),
    (2, "edit", Editor::edit),
    (1, "append", Editor::append),
    (1, "truncate", Editor::truncate),
    (2, "rewrite, same size", Editor::rewrite),
    (2, "replace", Editor::replace),
    (4, "mv file", Editor::rename_file),
    (2, "mv file over file", Editor::rename_over_file),
    (4, "mv dir", Editor::rename_dir),
    (3, "mv dir into dir", Editor::rename_into),
    (1, "mv dir over empty dir", Editor::rename_over_dir),
    (3, "swap", Editor::swap),
    (1, "exchange", Editor::exchange),
    (2, "chain", Editor::chain),
    (2, "deploy", Editor::deploy),
    (2, "mv into new dir", Editor::wrap),
    (2, "mv dir and change inside", Editor::rename_and_change),
    (3, "mv and make again", Editor::rename_and_make),
    (2, "ln", Editor::link),
    (1, "rm one link", Editor::unlink),
    (1, "mv link over file", Editor::rename_link),
    (1, "mv file over link", Editor::rename_over_link),
    (2, "ln into another directory", Editor::link_across),
    (1, "ln -f", Editor::link_over),
    (1, "cp and mv over link", Editor::break_link),
    (1, "exchange links", Editor::exchange_links),
    (1, "chmod link", Editor::chmod_link),
    (1, "append to link", Editor::append_to_link),
    (1, "rewrite link, same size", Editor::rewrite_link),
    (1, "rm first link", Editor::unlink_first),
    (1, "chmod", Editor::chmod),
    (1, "chown", Editor::chown),
    (1, "touch", Editor::touch),
    (1, "ln -s", Editor::symlink),
    (1, "retarget", Editor::retarget),
    (2, "change kind", Editor::change_kind),
    (1, "rm", Editor::remove_file),
    (1, "rm, directory untouched", Editor::remove_quietly),
    (1, "rm -r", Editor::remove),
];

/// Changes the tree at `root`, and says what it did in `log`.
pub struct Editor {
    root: PathBuf,
    rng: Rng,
    serial: usize,
    pub log: Vec<String>,
    /// How many files were changed without a trace in size or modification time.
    pub unseen: usize,
    /// A push runs meanwhile.
    pub watched: bool,
    /// Files get second names.
    links: bool,
}

impl Editor {
    /// With a first tree of about `entries`.
    pub fn start(root: &Path, rng: Rng, entries: usize) -> Self {
        Self::begin(root, rng, entries, true)
    }

    /// One who never gives a file a second name.
    pub fn without_links(root: &Path, rng: Rng, entries: usize) -> Self {
        Self::begin(root, rng, entries, false)
    }

    fn begin(root: &Path, rng: Rng, entries: usize, links: bool) -> Self {
        fs::create_dir_all(root).unwrap();
        fs::write(root.join(ANCHOR), "here").unwrap();
        let mut editor =
            Self { root: root.to_owned(), rng, serial: 0, log: Vec::new(), unseen: 0, watched: false, links };
        for _ in 0..entries {
            let fourth = if links { Self::link } else { Self::create };
            let first: [Operation; 4] = [Self::create, Self::make_path, Self::create, fourth];
            let make = *editor.rng.pick(&first);
            make(&mut editor).unwrap();
        }
        editor
    }

    /// One operation. What the filesystem refuses (a directory into itself, say) is logged, too.
    pub fn act(&mut self) {
        if self.list().len() > MOST_ENTRIES {
            let done = self.remove();
            return self.note("rm -r (too many)", &done);
        }
        // Once in a while, since it takes its time.
        if self.rng.chance(200) {
            let done = self.many();
            return self.note("many", &done);
        }
        let mut ticket = self.rng.below(OPERATIONS.iter().map(|o| o.0).sum());
        let (_, name, operation) = OPERATIONS
            .iter()
            .find(|(weight, ..)| {
                let here = ticket < *weight;
                ticket = ticket.wrapping_sub(*weight);
                here
            })
            .expect("tickets are below the sum of the weights");
        let takes_links =
            *name != "ln -s" && name.split([' ', ',']).any(|word| ["ln", "link", "links"].contains(&word));
        let done = if takes_links && !self.links { Ok(None) } else { operation(self) };
        if matches!(done, Ok(None)) {
            let done = self.create();
            return self.note("create", &done);
        }
        self.note(name, &done);
    }

    fn note(&mut self, name: &str, done: &Done) {
        self.log.push(match done {
            Ok(said) => format!("{name} {}", said.as_deref().unwrap_or("(nothing there)")),
            Err(error) => format!("{name}: {error}"),
        });
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Everything below the root but the anchor, in a fixed order.
    fn list(&self) -> Vec<(String, Kind)> {
        let mut found = Vec::new();
        let mut queue = vec![String::new()];
        while let Some(dir) = queue.pop() {
            let children: BTreeMap<_, _> = fs::read_dir(self.at(&dir))
                .unwrap()
                .flatten()
                .map(|e| (e.file_name().into_string().unwrap(), e.file_type().unwrap()))
                .collect();
            for (name, kind) in children {
                let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                if kind.is_dir() {
                    queue.push(path.clone());
                    found.push((path, Kind::Dir));
                } else if path != ANCHOR {
                    found.push((path, if kind.is_symlink() { Kind::Link } else { Kind::File }));
                }
            }
        }
        found
    }

    fn name(&mut self) -> &'static str {
        NAMES[self.rng.below(NAMES.len())]
    }

    fn one(&mut self, mut wanted: impl FnMut(&str, Kind) -> bool) -> Option<String> {
        let found: Vec<_> = self.list().into_iter().filter(|(path, kind)| wanted(path, *kind)).collect();
        (!found.is_empty()).then(|| self.rng.pick(&found).0.clone())
    }

    fn any(&mut self) -> Option<String> {
        self.one(|_, _| true)
    }

    fn file(&mut self) -> Option<String> {
        self.one(|_, kind| kind == Kind::File)
    }

    fn dir(&mut self) -> Option<String> {
        self.one(|_, kind| kind == Kind::Dir)
    }

    /// One of several names of a file.
    fn linked(&mut self) -> Option<String> {
        let root = self.root.clone();
        self.one(|path, kind| kind == Kind::File && fs::symlink_metadata(root.join(path)).unwrap().nlink() > 1)
    }

    /// Two entries of which neither holds the other.
    fn two(&mut self) -> Option<(String, String)> {
        let one = self.any()?;
        let other = self.one(|path, _| path != one && !is_below(path, &one) && !is_below(&one, path))?;
        Some((one, other))
    }

    /// A name that is free, not below `outside` if given.
    fn free(&mut self, outside: Option<&str>) -> String {
        let dirs: Vec<String> = std::iter::once(String::new())
            .chain(self.list().into_iter().filter(|(_, kind)| *kind == Kind::Dir).map(|(path, _)| path))
            .filter(|path| outside.is_none_or(|o| path != o && !is_below(path, o)) && path.matches('/').count() < 4)
            .collect();
        for _ in 0..4 {
            let path = join(&self.rng.pick(&dirs).clone(), self.name());
            if fs::symlink_metadata(self.at(&path)).is_err() {
                return path;
            }
        }
        self.serial += 1;
        join(&self.rng.pick(&dirs).clone(), &format!("n{}", self.serial))
    }

    /// What no other content has as its size modulo [`MODULUS`].
    fn fresh(&mut self) -> usize {
        self.serial += 1;
        assert!(self.serial < MODULUS, "a longer history needs a larger modulus");
        self.serial
    }

    fn content(&mut self) -> Vec<u8> {
        let fresh = self.fresh();
        // Large enough for a delta, once in a while.
        let units = if self.rng.chance(20) { 33 + self.rng.below(40) } else { self.rng.below(2) };
        self.rng.bytes(fresh + MODULUS * units)
    }

    /// Half of the changes keep the time that the kernel gave them, half get one that no other has. The kernel's clock
    /// may give two files the same time, so where there are two of a size they get one of their own.
    fn stamp(&mut self, path: &Path) {
        let of = |path: &Path| fs::symlink_metadata(path).map(|m| (m.len(), m.ino())).unwrap();
        let (size, inode) = of(path);
        let has_twin = || self.list().iter().map(|(other, _)| of(&self.at(other))).any(|o| o.0 == size && o.1 != inode);
        if has_twin() || self.rng.chance(2) {
            self.stamp_surely(path);
        }
    }

    fn stamp_surely(&mut self, path: &Path) {
        let serial = i64::try_from(self.fresh()).unwrap();
        set_time(path, (1_300_000_000 + serial * 1_000, 5 + serial));
    }

    fn write(&mut self, path: &str) -> io::Result<()> {
        let content = self.content();
        fs::write(self.at(path), content)?;
        let path = self.at(path);
        self.stamp(&path);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn create(&mut self) -> Done {
        let path = self.free(None);
        self.write(&path)?;
        Ok(Some(path))
    }

    fn make_path(&mut self) -> Done {
        let mut path = self.free(None);
        for _ in 0..self.rng.below(3) {
            path = join(&path, self.name());
        }
        fs::create_dir_all(self.at(&path))?;
        for name in &NAMES[..self.rng.below(3)] {
            self.write(&join(&path, name))?;
        }
        Ok(Some(path))
    }

    fn many(&mut self) -> Done {
        let dir = self.free(None);
        fs::create_dir(self.at(&dir))?;
        for number in 0..80 {
            let path = self.at(&dir).join(format!("many{number}"));
            fs::write(&path, format!("{dir} {number}"))?;
            set_time(&path, (1_200_000_000 + number, i64::try_from(self.serial).unwrap()));
        }
        Ok(Some(dir))
    }

    fn edit(&mut self) -> Done {
        let Some(path) = self.file() else { return Ok(None) };
        let file = OpenOptions::new().write(true).open(self.at(&path))?;
        let size = usize::try_from(file.metadata()?.len()).unwrap();
        if size < 9 {
            return Ok(None);
        }
        let piece = self.rng.bytes(8);
        file.write_all_at(&piece, u64::try_from(self.rng.below(size - 8)).unwrap())?;
        let full = self.at(&path);
        if self.watched {
            // The kernel changes the time before the bytes. Who reads in between has old bytes with the new time, and
            // no time that moves later tells.
            self.stamp_surely(&full);
        } else {
            self.stamp(&full);
        }
        Ok(Some(path))
    }

    fn append(&mut self) -> Done {
        let Some(path) = self.file() else { return Ok(None) };
        self.append_to(path)
    }

    fn append_to(&mut self, path: String) -> Done {
        let mut file = OpenOptions::new().append(true).open(self.at(&path))?;
        let size = usize::try_from(file.metadata()?.len()).unwrap();
        let fresh = self.fresh();
        let more = self.rng.bytes(MODULUS + fresh - size % MODULUS);
        file.write_all(&more)?;
        let full = self.at(&path);
        self.stamp(&full);
        Ok(Some(path))
    }

    fn truncate(&mut self) -> Done {
        let Some(path) = self.file() else { return Ok(None) };
        let file = OpenOptions::new().write(true).open(self.at(&path))?;
        let size = usize::try_from(file.metadata()?.len()).unwrap();
        let fresh = self.fresh();
        let kept = (0..).map(|n| fresh + n * MODULUS).take_while(|kept| *kept < size).last().unwrap_or(0);
        file.set_len(u64::try_from(kept).unwrap())?;
        let full = self.at(&path);
        self.stamp(&full);
        Ok(Some(format!("{path} to {kept}")))
    }

    fn rewrite(&mut self) -> Done {
        let Some(path) = self.file() else { return Ok(None) };
        self.rewrite_at(path)
    }

    fn rewrite_at(&mut self, path: String) -> Done {
        let full = self.at(&path);
        let size = usize::try_from(fs::metadata(&full)?.len()).unwrap();
        fs::write(&full, self.rng.bytes(size))?;
        self.stamp(&full);
        Ok(Some(path))
    }

    /// As editors and deployment tools save: a new file takes the name.
    fn replace(&mut self) -> Done {
        let Some(path) = self.file() else { return Ok(None) };
        let new = format!("{path}.part");
        self.write(&new)?;
        self.rename(&new, &path)?;
        Ok(Some(path))
    }

    fn chmod(&mut self) -> Done {
        let Some(path) = self.one(|_, kind| kind != Kind::Link) else { return Ok(None) };
        let full = self.at(&path);
        let mode = *self.rng.pick(if full.is_dir() { &[0o755, 0o700, 0o775] } else { &[0o644, 0o600, 0o755, 0o444] });
        set_mode(&full, mode);
        Ok(Some(format!("{mode:o} {path}")))
    }

    fn chown(&mut self) -> Done {
        let Some(path) = self.any() else { return Ok(None) };
        if !is_root() {
            return self.chmod();
        }
        let (user, group) = (*self.rng.pick(&[0, 1, 33, 4_242]), *self.rng.pick(&[0, 33, 777]));
        lchown(self.at(&path), Some(user), Some(group))?;
        Ok(Some(format!("{user}:{group} {path}")))
    }

    fn touch(&mut self) -> Done {
        let Some(path) = self.any() else { return Ok(None) };
        let full = self.at(&path);
        self.stamp_surely(&full);
        Ok(Some(path))
    }

    fn change_kind(&mut self) -> Done {
        let Some(path) = self.any() else { return Ok(None) };
        let full = self.at(&path);
        let was = fs::symlink_metadata(&full)?.file_type();
        remove(&full)?;
        match self.rng.below(3) {
            0 if !was.is_dir() => {
                fs::create_dir(&full)?;
                self.write(&join(&path, "b"))?;
            }
            1 if !was.is_symlink() => symlink("changed", &full)?,
            _ if was.is_file() => fs::create_dir(&full)?,
            _ => self.write(&path)?,
        }
        Ok(Some(path))
    }

    fn remove_file(&mut self) -> Done {
        let Some(path) = self.one(|_, kind| kind != Kind::Dir) else { return Ok(None) };
        fs::remove_file(self.at(&path))?;
        Ok(Some(path))
    }

    /// The directory has the time that it had before: its list is all that tells.
    fn remove_quietly(&mut self) -> Done {
        let Some(path) = self.one(|_, kind| kind != Kind::Dir) else { return Ok(None) };
        let dir = self.at(parent_of(&path));
        let before = fs::metadata(&dir)?;
        fs::remove_file(self.at(&path))?;
        set_time(&dir, (before.mtime(), before.mtime_nsec()));
        Ok(Some(path))
    }

    fn remove(&mut self) -> Done {
        let Some(path) = self.dir().or_else(|| self.any()) else { return Ok(None) };
        remove(&self.at(&path))?;
        Ok(Some(path))
    }
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn is_below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}
