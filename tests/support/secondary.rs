//! A secondary as a story knows it: its tree, what was done to it behind rfleet's back, and what it takes to repair that.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::copy::plain_copy;
use super::rng::Rng;
use super::tree::set_mode;

/// How whatever was written into a secondary by hand begins.
const BY_HAND: &[u8] = b"by hand ";

/// The push that makes a host equal again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Any.
    Push,
    /// `--full`: the host is not what it says it is.
    Full,
    /// `--full --checksum`: and sizes and times do not tell.
    Contents,
}

/// What is known of the tree of a host.
#[derive(Clone)]
pub struct Standing {
    pub need: Need,
    /// A content was changed that only the primary's index tells, and it is not here yet.
    pub waits_for_unseen: bool,
    /// The next push cannot rely on the host's sequence.
    pub unknown: bool,
    /// What was written by hand and is still somewhere here.
    by_hand: Vec<Vec<u8>>,
}

struct Copy {
    path: PathBuf,
    standing: Standing,
    unseen: usize,
}

pub struct Secondary {
    pub name: String,
    pub root: PathBuf,
    pub now: Standing,
    copies: Vec<Copy>,
    serial: usize,
}

/// What becomes of `.rfleet` when an older tree is put back.
#[derive(Clone, Copy, Debug)]
enum Record {
    Restored,
    Kept,
    Gone,
}

impl Secondary {
    /// A host without its root yet.
    pub fn new(name: &str, root: &Path) -> Self {
        let now = Standing { need: Need::Push, waits_for_unseen: false, unknown: true, by_hand: Vec::new() };
        Self { name: name.to_owned(), root: root.to_owned(), now, copies: Vec::new(), serial: 0 }
    }

    /// Keeps a copy of the tree and its record as they are now. `unseen`: how many unseen changes there have been.
    pub fn keep_copy(&mut self, unseen: usize) {
        if self.copies.len() < 3 && self.root.exists() {
            self.serial += 1;
            let path = self.root.with_extension(format!("copy{}", self.serial));
            plain_copy(&self.root, &path);
            self.copies.push(Copy { path, standing: self.now.clone(), unseen });
        }
    }

    /// A content changed that sizes and times do not tell. `found`: an index on the primary tells.
    pub fn unseen(&mut self, found: bool) {
        if found && !self.now.unknown && self.now.need == Need::Push {
            self.now.waits_for_unseen = true;
        } else {
            self.now.need = Need::Contents;
        }
    }

    /// The tree is there and the record is not: a push needs `--adopt`.
    pub fn is_a_strangers(&self) -> bool {
        let holds_something = || fs::read_dir(&self.root).is_ok_and(|mut children| children.next().is_some());
        !self.root.join(".rfleet/state").exists() && holds_something()
    }

    /// The primary lost what it knew.
    pub fn forgotten(&mut self) {
        self.now.unknown = true;
        if self.now.waits_for_unseen {
            self.now.need = Need::Contents;
        }
    }

    /// Something happens to the tree; says what.
    pub fn strike(&mut self, rng: &mut Rng, unseen: usize) -> String {
        let said = match rng.below(12) {
            0 => self.empty(rng.chance(2)),
            1 => self.empty_but_the_record(),
            2..=4 if !self.copies.is_empty() => self.restore(rng, unseen, Record::Restored),
            5 if !self.copies.is_empty() => self.restore(rng, unseen, Record::Kept),
            6 if !self.copies.is_empty() => self.restore(rng, unseen, Record::Gone),
            _ => self.edit_by_hand(rng),
        };
        let left = self.written_by_hand();
        self.now.by_hand.retain(|content| left.contains(content));
        format!("{}: {said}; needs {:?}", self.name, self.now.need)
    }

    /// What was written here by hand and is neither in the tree nor in `.rfleet` any more.
    pub fn lost_by_hand(&self) -> Vec<String> {
        if self.now.by_hand.is_empty() {
            return Vec::new();
        }
        let left = self.written_by_hand();
        let lost = self.now.by_hand.iter().filter(|content| !left.contains(*content));
        lost.map(|content| format!("{}: {}", self.name, String::from_utf8_lossy(content))).collect()
    }

    fn empty(&mut self, with_root: bool) -> String {
        remove(&self.root);
        if !with_root {
            fs::create_dir(&self.root).unwrap();
        }
        let by_hand = Vec::new();
        self.now = Standing { need: Need::Push, waits_for_unseen: false, unknown: true, by_hand };
        if with_root { "removed".into() } else { "emptied".into() }
    }

    fn empty_but_the_record(&mut self) -> String {
        for child in fs::read_dir(&self.root).into_iter().flatten().flatten().filter(|c| c.file_name() != ".rfleet") {
            remove(&child.path());
        }
        self.now.need = Need::Full;
        self.now.waits_for_unseen = false;
        "emptied, its record kept".into()
    }

    fn restore(&mut self, rng: &mut Rng, unseen: usize, record: Record) -> String {
        let copy = rng.pick(&self.copies);
        let (aside, own) = (self.root.with_extension("aside"), self.root.join(".rfleet"));
        let kept = matches!(record, Record::Kept) && own.exists();
        if kept {
            fs::rename(&own, &aside).unwrap();
        }
        remove(&self.root);
        plain_copy(&copy.path, &self.root);
        if !matches!(record, Record::Restored) {
            remove(&own);
        }
        if kept {
            fs::rename(&aside, &own).unwrap();
        }
        let was = &copy.standing;
        let by_hand = was.by_hand.iter().chain(&self.now.by_hand).cloned().collect();
        let mut need = was.need.max(if matches!(record, Record::Kept) { Need::Full } else { Need::Push });
        if was.waits_for_unseen || copy.unseen != unseen {
            need = Need::Contents;
        }
        self.now = Standing { need, waits_for_unseen: false, unknown: true, by_hand };
        format!("older copy {}, record {record:?}", copy.path.display())
    }

    fn edit_by_hand(&mut self, rng: &mut Rng) -> String {
        let said: Vec<_> = (0..1 + rng.below(2)).map(|_| self.one_edit(rng)).collect();
        self.now.need = self.now.need.max(Need::Full);
        said.join(", ")
    }

    fn one_edit(&mut self, rng: &mut Rng) -> String {
        fs::create_dir_all(&self.root).unwrap();
        let (dirs, others) = self.list();
        let is_theirs = |path: &PathBuf| !fs::read(path).is_ok_and(|content| content.starts_with(BY_HAND));
        let others: Vec<_> = others.into_iter().filter(is_theirs).collect();
        let files: Vec<_> = others.iter().filter(|path| !path.is_symlink()).cloned().collect();
        let dir = rng.pick(&dirs).clone();
        match rng.below(7) {
            0 | 1 if !files.is_empty() => {
                let path = rng.pick(&files);
                self.write_by_hand(path);
                format!("wrote {}", path.display())
            }
            2 if !others.is_empty() => {
                let path = rng.pick(&others);
                fs::remove_file(path).unwrap();
                format!("deleted {}", path.display())
            }
            3 if !others.is_empty() => {
                let path = rng.pick(&others);
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
                self.write_by_hand(&path.join("inside"));
                format!("directory in place of {}", path.display())
            }
            4 if !files.is_empty() => {
                let path = rng.pick(&files);
                set_mode(path, 0o617);
                format!("mode of {}", path.display())
            }
            5 if !others.is_empty() => {
                let (from, to) = (rng.pick(&others), dir.join(format!("moved{}", self.serial)));
                self.serial += 1;
                fs::rename(from, &to).unwrap();
                format!("moved {} to {}", from.display(), to.display())
            }
            _ => {
                // Also under names that the primary will use.
                let path = dir.join(*rng.pick(&["a", "b", "site", "extra", "old", "zz"]));
                if fs::symlink_metadata(&path).is_ok() {
                    return format!("left {} as it is", path.display());
                }
                self.write_by_hand(&path);
                format!("added {}", path.display())
            }
        }
    }

    fn write_by_hand(&mut self, path: &Path) {
        self.serial += 1;
        let mut content = BY_HAND.to_vec();
        content.extend_from_slice(format!("{}", self.serial).as_bytes());
        // Two of one size could be written in one tick of the clock, and look the same.
        content.resize(content.len() + self.serial, b'.');
        // Of a size that the primary's file does not have.
        let size = fs::metadata(path).map_or(0, |m| m.len());
        if u64::try_from(content.len()).unwrap() == size {
            content.push(b'.');
        }
        fs::write(path, &content).unwrap();
        self.now.by_hand.push(content);
    }

    /// Directories, the root first, and everything else, `.rfleet` apart.
    fn list(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let (mut dirs, mut others) = (vec![self.root.clone()], Vec::new());
        let mut next = 0;
        while let Some(dir) = dirs.get(next).cloned() {
            next += 1;
            let mut children: Vec<_> = fs::read_dir(&dir).unwrap().flatten().map(|c| c.path()).collect();
            children.sort();
            for child in children.into_iter().filter(|child| *child != self.root.join(".rfleet")) {
                if child.is_dir() && !child.is_symlink() { dirs.push(child) } else { others.push(child) }
            }
        }
        (dirs, others)
    }

    /// Everything below the root, `.rfleet` included, that was written by hand.
    fn written_by_hand(&self) -> HashSet<Vec<u8>> {
        let mut found = HashSet::new();
        let mut queue = vec![self.root.clone()];
        while let Some(dir) = queue.pop() {
            for child in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let kind = child.file_type().unwrap();
                if kind.is_dir() {
                    queue.push(child.path());
                } else if kind.is_file() {
                    found.extend(Some(fs::read(child.path()).unwrap()).filter(|c| c.starts_with(BY_HAND)));
                }
            }
        }
        found
    }
}

/// Removes whatever is at `path`, if anything.
pub fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}
