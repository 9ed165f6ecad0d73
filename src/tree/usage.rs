//! How much room a root takes: [`Usage`].

use std::collections::HashSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs;
use rustix::io::Errno;

use super::beneath::{NAME_ANY, Parents, Root, Stat};
use crate::model::RelPath;

const LIST_BUFFER_BYTES: usize = 32 * 1024;

/// From this length on a way is opened in two steps: Linux takes 4,095 bytes at a time, and a name has 255.
const LONGEST_WAY_BYTES: usize = 3500;

/// Room that entries take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// On the disk, in bytes: holes take none.
    pub bytes: u64,
    /// Entries; a file with several names is one.
    pub entries: u64,
}

impl Usage {
    fn of(stat: &Stat) -> Self {
        Usage { bytes: stat.allocated_bytes, entries: 1 }
    }

    fn add(&mut self, other: Usage) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.entries = self.entries.saturating_add(other.entries);
    }
}

/// What all of `root` takes, itself, `.rfleet` and what is mounted below included, as `du -s` has it.
///
/// RACE: what is moved meanwhile may be counted twice or not at all.
///
/// # Errors
/// A directory cannot be listed: what it holds is not known then.
pub fn usage(root: &Root) -> io::Result<Usage> {
    let mut used = Usage::of(&root.stat()?);
    let mut linked = HashSet::new();
    let mut buffer = vec![MaybeUninit::uninit(); LIST_BUFFER_BYTES];
    let mut ahead = vec![(Arc::new(root.dir(&RelPath::root())?), Vec::new())];
    while let Some((from, way)) = ahead.pop() {
        let dir = match from.open_way(&way) {
            Err(error) if is_gone(&error) => continue,
            dir => Arc::new(dir?),
        };
        let is_far = way.len() > LONGEST_WAY_BYTES;
        dir.each_name(&mut buffer, &mut |name| {
            let name = name.to_bytes();
            let stat = match dir.stat(name) {
                Err(error) if is_gone(&error) => return Ok(()),
                stat => stat?,
            };
            if stat.is_directory() || stat.nlink < 2 || linked.insert((stat.dev, stat.ino)) {
                used.add(Usage::of(&stat));
            }
            if stat.is_directory() {
                let (from, before) = if is_far { (&dir, &[][..]) } else { (&from, &way[..]) };
                let below = if before.is_empty() { name.to_vec() } else { [before, b"/", name].concat() };
                ahead.push((Arc::clone(from), below));
            }
            Ok(())
        })?;
    }
    Ok(used)
}

fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

/// An entry that something is about to be put in the place of, held so that it can be told whether it went.
#[derive(Debug)]
pub struct Going {
    held: OwnedFd,
    usage: Usage,
}

impl Going {
    /// What is at `path`, if anything is.
    pub fn at(parents: &mut Parents, path: &RelPath) -> Option<Self> {
        let (dir, name) = parents.parent(path).ok()?;
        let held = dir.open(name, NAME_ANY).ok()?;
        let usage = Usage::of(&Stat::from(fs::fstat(&held).ok()?));
        Some(Going { held, usage })
    }

    /// The room that is free since: all that it took if it has no name any more, else none.
    pub fn freed(self) -> Usage {
        let is_gone = fs::fstat(&self.held).is_ok_and(|stat| stat.st_nlink == 0);
        if is_gone { self.usage } else { Usage::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self as std_fs, File};
    use std::process::Command;

    use super::super::beneath::errno;
    use super::super::fixture::{Fixture, is_unprivileged, path};
    use super::*;

    /// What du says, which counts in the same way.
    fn du(fixture: &Fixture) -> Usage {
        let number = |options: &[&str]| {
            let du = Command::new("du").arg("-s").args(options).arg(&fixture.path).output().unwrap();
            let said = String::from_utf8(du.stdout).unwrap();
            said.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap()
        };
        Usage { bytes: number(&["--block-size=1"]), entries: number(&["--inodes"]) }
    }

    #[test]
    fn it_is_what_du_says() {
        let fixture = Fixture::with(&["d", "d/e", "f=x", "d/e/g=y", "l>nowhere", ".rfleet"]);
        std_fs::write(fixture.path.join(".rfleet/state"), [1; 10_000]).unwrap();
        std_fs::hard_link(fixture.path.join("f"), fixture.path.join("d/second name")).unwrap();
        File::create(fixture.path.join("hole")).unwrap().set_len(1 << 40).unwrap();
        let used = usage(&fixture.root).unwrap();
        assert_eq!(used, du(&fixture));
        assert!(used.bytes < 1 << 30 && used.entries == 9, "{used:?}");
    }

    #[test]
    fn it_reaches_to_the_bottom_with_and_without_openat2() {
        let fixture = Fixture::new();
        let name = [b'n'; 250];
        let mut dir = fixture.root.dir(&RelPath::root()).unwrap();
        for _ in 0..40 {
            dir.mkdir(&name, 0o755).unwrap();
            dir.mkdir(b"beside", 0o755).unwrap();
            dir = dir.open_dir(&name).unwrap();
        }
        assert_eq!(usage(&fixture.root).unwrap().entries, 81);
        let way = [&[b'n'; 250][..]; 3].join(&b'/');
        let top = fixture.root.dir(&RelPath::root()).unwrap();
        assert!(top.open_way(&way).unwrap().stat(b"beside").is_ok());
        for bad in [&b"beside/../beside"[..], b"/etc", b"beside//x", b".."] {
            assert!(top.open_way(bad).is_err(), "{bad:?}");
        }
        std::os::unix::fs::symlink(&fixture.outside, fixture.path.join("out")).unwrap();
        assert!(top.open_way(b"out").is_err());
    }

    #[test]
    fn what_cannot_be_listed_is_an_error() {
        if !is_unprivileged("tree::usage::tests::what_cannot_be_listed_is_an_error") {
            return;
        }
        use std::os::unix::fs::PermissionsExt;
        let fixture = Fixture::with(&["d", "d/f=x"]);
        let mode = |mode| std_fs::set_permissions(fixture.path.join("d"), std_fs::Permissions::from_mode(mode));
        mode(0).unwrap();
        assert_eq!(errno(&usage(&fixture.root)), Some(Errno::ACCESS));
        mode(0o700).unwrap();
    }

    #[test]
    fn what_went_is_told_from_what_has_another_name() {
        let fixture = Fixture::with(&["gone=x", "kept=x"]);
        let mut parents = Parents::new(&fixture.root);
        let mut held = |name: &str| Going::at(&mut parents, &path(name)).unwrap();
        let (gone, kept) = (held("gone"), held("kept"));
        std_fs::remove_file(fixture.path.join("gone")).unwrap();
        std_fs::rename(fixture.path.join("kept"), fixture.path.join("elsewhere")).unwrap();
        assert_eq!((gone.freed().entries, kept.freed()), (1, Usage::default()));
        assert!(Going::at(&mut parents, &path("nothing")).is_none());
    }
}
