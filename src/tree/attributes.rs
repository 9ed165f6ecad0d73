//! Extended attributes through handles.
//!
//! An entry that is only named (`O_PATH`) is reached over `/proc/self/fd`: the magic link leads to the held
//! entry itself, never to a name that could be swapped, and a symbolic link or a pipe at its end is
//! neither followed nor opened. Without `/proc` nothing can be said of attributes, and that is an error.
//!
//! There is no call that lists the attributes of a name in a held directory before Linux 6.13. A thread that
//! works in that directory asks by the name alone, for a fifth of what the way over `/proc` costs: see [`Reader`].

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{self, XattrFlags};
use rustix::io::Errno;
use rustix::process::fchdir;

use super::beneath::{Dir, NAME_ANY, checked};
use super::meta::{Hold, magic_link};
use super::rights::Rights;
use crate::model::{Attribute, AttributeClass, AttributeFidelity, Attributes, MAX_ATTRIBUTES, MAX_ATTRIBUTES_BYTES};

/// Names of a handful of attributes fit; the kernel clears as much memory as it is offered, at each call.
const LIST_BYTES: usize = 512;

/// As much as Linux ever gives (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const MOST_BYTES: usize = 64 << 10;

/// The attributes of an entry, as far as they can be read and are synced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Those that were read.
    pub attributes: Attributes,
    /// Why some are not among them; none of their content.
    pub left_out: Option<String>,
}

impl Found {
    /// None where nothing could be read, with the reason; without one if the entry is gone: the next scan tells.
    pub fn or_nothing(read: io::Result<Found>) -> Found {
        match read {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Found::default(),
            Err(error) => {
                let left_out = Some(format!("its extended attributes cannot be read: {error}"));
                Found { left_out, ..Found::default() }
            }
        }
    }
}

/// The attributes of `name` in `dir`. Costs one call where there are none.
///
/// # Errors
/// The operating system's, `NotFound` if there is no such entry.
pub fn attributes_of(dir: &Dir, name: &[u8]) -> io::Result<Found> {
    let prefix = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd());
    // The last component is not followed, and those before lead to the held directory.
    match has_some(&[prefix.as_bytes(), checked(name)?].concat()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && fs::stat("/proc/self/fd").is_err() => {
            Err(without_proc())
        }
        found => look_closer(dir, name, found?),
    }
}

/// Whether the entry at `path`, which is not followed, seems to have attributes that are synced.
fn has_some(path: &[u8]) -> io::Result<bool> {
    let mut names = [0; LIST_BYTES];
    match fs::llistxattr(path, &mut names[..]) {
        Ok(bytes) => Ok(names[..bytes].split(|&byte| byte == 0).any(is_synced)),
        Err(Errno::OPNOTSUPP) => Ok(false),
        // There are too many for this list.
        Err(Errno::RANGE) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

fn look_closer(dir: &Dir, name: &[u8], has_some: bool) -> io::Result<Found> {
    if !has_some {
        return Ok(Found::default());
    }
    let named = dir.open(name, NAME_ANY)?;
    read(Hold::Named(named.as_fd()))
}

/// Reads the attributes of many entries on a thread of its own.
pub struct Reader {
    /// Whether this thread may work in another directory than the others of its process.
    is_alone: bool,
    /// Bound to its thread.
    _thread: PhantomData<*const ()>,
}

impl Reader {
    /// For the calling thread, which must start no process and end when its reader is not needed any more: from now
    /// on its working directory is any, and not that of the others. Where the system does not allow that,
    /// reading costs more.
    pub fn on_this_thread() -> Reader {
        Reader { is_alone: unshare(CloneFlags::CLONE_FS).is_ok(), _thread: PhantomData }
    }

    /// As [`attributes_of`].
    ///
    /// # Errors
    /// The operating system's, `NotFound` if there is no such entry.
    pub fn read(&mut self, dir: &Dir, name: &[u8]) -> io::Result<Found> {
        // Who may not enter a directory may not ask for what is in it over /proc either, but learns there why.
        if !self.is_alone || fchdir(dir).is_err() {
            return attributes_of(dir, name);
        }
        look_closer(dir, name, has_some(checked(name)?)?)
    }
}

fn without_proc() -> io::Error {
    io::Error::other("extended attributes cannot be read where /proc is not mounted")
}

fn is_synced(name: &[u8]) -> bool {
    AttributeClass::of(name).is_some()
}

/// The attributes of a directory itself.
///
/// # Errors
/// The operating system's.
pub fn own_attributes(dir: &Dir) -> io::Result<Found> {
    read(Hold::Open(dir.as_fd()))
}

/// The attributes of what is held.
///
/// # Errors
/// The operating system's.
pub(super) fn read(hold: Hold<'_>) -> io::Result<Found> {
    let mut all = Vec::new();
    let mut left_out = None;
    let mut bytes = 0;
    for name in names(hold)? {
        let value = match value(hold, &name) {
            Ok(Some(value)) => value,
            // It went meanwhile.
            Ok(None) => continue,
            Err(error) => {
                left_out = Some(format!("its extended attribute {} cannot be read: {error}", name.escape_ascii()));
                continue;
            }
        };
        bytes += name.len() + value.len() + 8;
        if all.len() == MAX_ATTRIBUTES || bytes > MAX_ATTRIBUTES_BYTES {
            let most = MAX_ATTRIBUTES_BYTES >> 10;
            left_out = Some(format!("of its extended attributes only {MAX_ATTRIBUTES} and {most} KiB are synced"));
            break;
        }
        all.push(Attribute { name, value });
    }
    let attributes = Attributes::new(all).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Found { attributes, left_out })
}

/// Names of the attributes that are synced, sorted.
fn names(hold: Hold<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut list = vec![0; LIST_BYTES];
    let bytes = loop {
        let listed = match hold {
            Hold::Open(fd) => fs::flistxattr(fd, &mut list[..]),
            Hold::Named(fd) => fs::listxattr(magic_link(fd), &mut list[..]),
        };
        match listed {
            Err(Errno::RANGE) if list.len() < MOST_BYTES => list.resize(MOST_BYTES, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(Errno::NOENT) => return Err(without_proc()),
            bytes => break bytes?,
        }
    };
    let names = list[..bytes].split(|&byte| byte == 0).filter(|name| is_synced(name));
    let mut names: Vec<_> = names.map(<[u8]>::to_vec).collect();
    names.sort_unstable();
    Ok(names)
}

/// The value of `name`; `None` if there is no such attribute.
fn value(hold: Hold<'_>, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; LIST_BYTES];
    loop {
        let read = match hold {
            Hold::Open(fd) => fs::fgetxattr(fd, name, &mut value[..]),
            Hold::Named(fd) => fs::getxattr(magic_link(fd), name, &mut value[..]),
        };
        match read {
            Err(Errno::RANGE) if value.len() < MOST_BYTES => value.resize(MOST_BYTES, 0),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            bytes => {
                value.truncate(bytes?);
                return Ok(Some(value));
            }
        }
    }
}

/// Attributes as this host is to set them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalAttributes {
    /// The kinds that are set, and taken away where they are not wanted. Others are left alone.
    pub managed: AttributeFidelity,
    /// What is wanted, of these kinds only.
    pub wanted: Attributes,
}

/// What came of [`write`].
#[derive(Debug, Default)]
pub(super) struct Written {
    /// An ACL is another one than before, and with it the permission bits may be.
    pub(super) acl: bool,
    /// The first that could not be set, and why.
    pub(super) refused: Option<String>,
}

/// Makes the managed attributes of what is held the wanted ones. `fresh`: it has none yet.
///
/// A failure is told and the others are tried all the same: nothing here is worth an entry less.
pub(super) fn write(hold: Hold<'_>, local: &LocalAttributes, fresh: bool) -> Written {
    let mut written = Written::default();
    if !local.managed.any() || (fresh && local.wanted.is_empty()) {
        return written;
    }
    let mut refuse = |name: &[u8], what: &str, error: &io::Error| {
        let detail = format!("its extended attribute {} could not be {what}: {error}", name.escape_ascii());
        written.refused.get_or_insert(detail);
    };
    let is_acl = |name: &[u8]| AttributeClass::of(name) == Some(AttributeClass::Acl);
    if !fresh {
        let there = match names(hold) {
            Ok(there) => there,
            Err(error) => {
                written.refused = Some(format!("its extended attributes could not be looked at: {error}"));
                return written;
            }
        };
        for name in there.iter().filter(|name| local.managed.holds(name) && local.wanted.get(name).is_none()) {
            match remove(hold, name) {
                Ok(()) => written.acl |= is_acl(name),
                Err(error) => refuse(name, "removed", &error),
            }
        }
    }
    // ACLs last: with one the owner may lose the right to set others.
    let (acls, others): (Vec<_>, Vec<_>) = local.wanted.iter().partition(|one| is_acl(&one.name));
    for Attribute { name, value: wanted } in others.into_iter().chain(acls) {
        if !fresh && value(hold, name).is_ok_and(|there| there.as_deref() == Some(wanted)) {
            continue;
        }
        match set(hold, name, wanted) {
            Ok(()) => written.acl |= is_acl(name),
            Err(error) => refuse(name, "set", &error),
        }
    }
    written
}

fn set(hold: Hold<'_>, name: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(match hold {
        Hold::Open(fd) => fs::fsetxattr(fd, name, value, XattrFlags::empty()),
        Hold::Named(fd) => fs::setxattr(magic_link(fd), name, value, XattrFlags::empty()),
    }?)
}

fn remove(hold: Hold<'_>, name: &[u8]) -> io::Result<()> {
    let removed = match hold {
        Hold::Open(fd) => fs::fremovexattr(fd, name),
        Hold::Named(fd) => fs::removexattr(magic_link(fd), name),
    };
    match removed {
        Err(Errno::NODATA) => Ok(()),
        removed => Ok(removed?),
    }
}

/// Takes the ACLs of the directory `dir` away, so that what is made in it has none.
pub(super) fn without_acls(dir: &Dir) {
    for name in [crate::model::DEFAULT_ACL, crate::model::ACCESS_ACL] {
        // Where there are no ACLs there is nothing to take away.
        let _ = remove(Hold::Open(dir.as_fd()), name);
    }
}

/// The kinds of attributes that can be set in `dir` by the effective user, by its filesystem and by `rights`.
/// Changes nothing.
pub(super) fn possible(dir: &Dir, rights: Rights) -> AttributeFidelity {
    let mut none = [0; 0];
    let has = |name: &str| !matches!(fs::fgetxattr(dir, name, &mut none[..]), Err(Errno::OPNOTSUPP));
    let mut has = has;
    let user = has("user.rfleet");
    // Whoever may not set it may not remove it either, though it is not there.
    let trusted =
        rights.administers() && matches!(fs::fremovexattr(dir, "trusted.rfleet.probe"), Ok(()) | Err(Errno::NODATA));
    AttributeFidelity {
        user,
        acl: has("system.posix_acl_access"),
        capability: rights.sets_capabilities() && has("security.capability"),
        trusted,
        label: rights.administers() && has("security.rfleet"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs as std_fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::super::apply::{Applier, MetaSet};
    use super::super::fixture::{Fixture, flip_while, is_unprivileged, meta, path};
    use super::super::meta::LocalMeta;
    use super::*;
    use crate::model::{Kind, RelPath, SpecialKind};

    fn top(fixture: &Fixture) -> Dir {
        fixture.root.dir(&RelPath::root()).unwrap()
    }

    fn all(pairs: &[(&str, &[u8])]) -> Attributes {
        let one = |(name, value): &(&str, &[u8])| Attribute { name: name.as_bytes().into(), value: value.to_vec() };
        Attributes::new(pairs.iter().map(one).collect()).unwrap()
    }

    fn with(mode: u32, pairs: &[(&str, &[u8])]) -> LocalMeta {
        let attributes = LocalAttributes { managed: AttributeFidelity::FULL, wanted: all(pairs) };
        LocalMeta { attributes, ..meta(mode, 7) }
    }

    /// What a thread of its own finds, which may have a working directory of its own or not.
    fn read_elsewhere(fixture: &Fixture, name: &str, is_alone: bool) -> Found {
        let before = std::env::current_dir().unwrap();
        let read = || {
            let mut reader = Reader::on_this_thread();
            assert!(reader.is_alone);
            reader.is_alone = is_alone;
            assert!(reader.read(&top(fixture), b"none").is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
            assert!(reader.read(&top(fixture), b"..").is_err());
            reader.read(&top(fixture), name.as_bytes()).unwrap()
        };
        let found = std::thread::scope(|scope| scope.spawn(read).join().unwrap());
        assert_eq!(std::env::current_dir().unwrap(), before, "the others stay where they are");
        found
    }

    fn set_all(fixture: &Fixture, name: &str, kind: &Kind, meta: &LocalMeta) -> Option<String> {
        match Applier::new(&fixture.root).set_meta(&path(name), kind, meta, &|_| true).unwrap() {
            MetaSet::Done(short) => short.attribute,
            MetaSet::Unexpected => panic!("{name} is not as expected"),
        }
    }

    #[test]
    fn what_is_set_is_what_is_found_on_every_kind_of_entry() {
        let fixture = Fixture::with(&["f=x", "d", "l>nowhere"]);
        mknodat(CWD, fixture.path.join("p"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let privileged = rustix::process::geteuid().is_root();
        let trusted: (&str, &[u8]) = ("trusted.x", b"1");
        let user: [(&str, &[u8]); 2] = [("user.a", b"1"), ("user.long", &[7; 1000])];
        let link = Kind::Symlink { target: Box::default() };
        for (name, kind) in
            [("f", Kind::file(1)), ("d", Kind::Directory), ("l", link), ("p", Kind::Special(SpecialKind::Fifo))]
        {
            let has_user = matches!(name, "f" | "d");
            let mut wanted: Vec<(&str, &[u8])> = if privileged { vec![trusted] } else { Vec::new() };
            wanted.extend(user.iter().filter(|_| has_user));
            assert_eq!(set_all(&fixture, name, &kind, &with(0o400, &wanted)), None, "{name}");
            let found = attributes_of(&top(&fixture), name.as_bytes()).unwrap();
            assert_eq!(found, Found { attributes: all(&wanted), left_out: None }, "{name}");
            for is_alone in [false, true] {
                assert_eq!(read_elsewhere(&fixture, name, is_alone), found, "{name}");
            }
            assert_eq!(set_all(&fixture, name, &kind, &with(0o400, &[])), None, "{name}");
            assert_eq!(attributes_of(&top(&fixture), name.as_bytes()).unwrap(), Found::default(), "{name}");
        }
        let mode = std_fs::metadata(fixture.path.join("f")).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o400);
    }

    #[test]
    fn an_owner_without_the_right_to_write_sets_them_all_the_same() {
        let name = "tree::attributes::tests::what_is_set_is_what_is_found_on_every_kind_of_entry";
        if is_unprivileged(name) {
            what_is_set_is_what_is_found_on_every_kind_of_entry();
        }
    }

    #[test]
    fn kinds_that_are_not_managed_stay_and_what_cannot_be_set_is_told() {
        let fixture = Fixture::with(&["f=x", "l>f"]);
        assert_eq!(set_all(&fixture, "f", &Kind::file(1), &with(0o644, &[("user.a", b"1")])), None);
        let mut other = with(0o644, &[]);
        other.attributes.managed = AttributeFidelity { acl: true, ..AttributeFidelity::NONE };
        assert_eq!(set_all(&fixture, "f", &Kind::file(1), &other), None);
        assert_eq!(attributes_of(&top(&fixture), b"f").unwrap().attributes, all(&[("user.a", b"1")]));
        let link = Kind::Symlink { target: Box::default() };
        let told = set_all(&fixture, "l", &link, &with(0, &[("user.a", b"1")])).unwrap();
        assert!(told.starts_with("its extended attribute user.a could not be set"), "{told}");
        assert!(attributes_of(&top(&fixture), b"none").is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
        assert!(attributes_of(&top(&fixture), b"..").is_err());
    }

    #[test]
    fn a_swapped_leaf_gets_no_attributes_outside() {
        let fixture = Fixture::with(&["f=x"]);
        let secret = fixture.outside.join("secret");
        symlink(&secret, fixture.path.join("trap")).unwrap();
        fs::setxattr(&secret, "user.secret", b"s", XattrFlags::empty()).unwrap();
        flip_while(&fixture.path.join("f"), &fixture.path.join("trap"), || {
            let start = std::time::Instant::now();
            while start.elapsed() < std::time::Duration::from_secs(2) {
                for name in ["f", "trap"] {
                    let mut apply = Applier::new(&fixture.root);
                    let wanted = with(0o600, &[("user.planted", b"1")]);
                    let _ = apply.set_meta(&path(name), &Kind::file(1), &wanted, &|_| true);
                    let found = attributes_of(&top(&fixture), name.as_bytes()).unwrap_or_default();
                    assert_eq!(found.attributes.get(b"user.secret"), None);
                }
            }
        });
        fixture.assert_outside_untouched();
        let outside = super::super::beneath::Root::open(&fixture.outside).unwrap().dir(&RelPath::root()).unwrap();
        assert_eq!(attributes_of(&outside, b"secret").unwrap().attributes, all(&[("user.secret", b"s")]));
    }

    #[test]
    fn a_default_acl_of_the_root_reaches_only_those_who_set_no_acls() {
        let fixture = Fixture::new();
        // The owner and the group all, user 33 too, others nothing.
        let acl: [(u16, u16, u32); 5] =
            [(1, 7, u32::MAX), (2, 7, 33), (4, 7, u32::MAX), (0x10, 7, u32::MAX), (0x20, 0, u32::MAX)];
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in acl {
            value.extend([&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat());
        }
        fs::setxattr(&fixture.path, "system.posix_acl_default", &value, XattrFlags::empty()).unwrap();
        let staging = super::super::stage::Staging::open(&fixture.root).unwrap();
        let inherits = staging.create_file(0o666).unwrap().seal(&meta(0o666, 7)).unwrap();
        assert!(!attributes_of(&staging.stage.dir, &inherits.entry.name).unwrap().attributes.is_empty());
        staging.shed_acls();
        let staged = staging.create_file(0o666).unwrap().seal(&with(0o666, &[])).unwrap();
        assert_eq!(attributes_of(&staging.stage.dir, &staged.entry.name).unwrap(), Found::default());
        assert_eq!(staging.stage.dir.stat(&staged.entry.name).unwrap().permissions(), 0o666);
    }

    #[test]
    fn what_is_possible_is_what_works() {
        let fixture = Fixture::with(&["f=x"]);
        let possible = fixture.root.attributes(Rights::own()).unwrap();
        let set = |name: &str| fs::setxattr(fixture.path.join("f"), name, b"1", XattrFlags::empty()).is_ok();
        assert_eq!(possible.user, set("user.x"));
        assert_eq!(possible.trusted, set("trusted.x"));
        let before = std_fs::metadata(&fixture.path).unwrap();
        fixture.root.attributes(Rights::own()).unwrap();
        fixture.root.times().unwrap();
        use std::os::unix::fs::MetadataExt;
        let after = std_fs::metadata(&fixture.path).unwrap();
        assert_eq!((before.ctime(), before.ctime_nsec()), (after.ctime(), after.ctime_nsec()));
    }
}
