//! Extended attributes through handles.
//!
//! An entry that is only named (`O_PATH`) is reached over `/proc/self/fd`: the magic link leads to the held
//! entry itself, never to a name that could be swapped, and a symbolic link or a pipe at its end is
//! neither followed nor opened. Without `/proc` nothing can be said of attributes, and that is an error.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{self, XattrFlags};
use rustix::io::Errno;

use super::beneath::{Dir, NAME_ANY, checked};
use super::meta::{Hold, magic_link};
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

/// The attributes of `name` in `dir`. Costs one call where there are none.
///
/// # Errors
/// The operating system's, `NotFound` if there is no such entry.
pub fn attributes_of(dir: &Dir, name: &[u8]) -> io::Result<Found> {
    let prefix = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd());
    let path = [prefix.as_bytes(), checked(name)?].concat();
    let mut names = [0; LIST_BYTES];
    // The last component is not followed, and those before lead to the held directory.
    match fs::llistxattr(path.as_slice(), &mut names[..]) {
        Ok(bytes) if !names[..bytes].split(|&byte| byte == 0).any(is_synced) => return Ok(Found::default()),
        Err(Errno::OPNOTSUPP) => return Ok(Found::default()),
        Err(Errno::NOENT) if fs::stat("/proc/self/fd").is_err() => return Err(without_proc()),
        // There are too many for this list, too.
        Ok(_) | Err(Errno::RANGE) => {}
        Err(errno) => return Err(errno.into()),
    }
    let named = dir.open(name, NAME_ANY)?;
    read(Hold::Named(named.as_fd()))
}

fn without_proc() -> io::Error {
    io::Error::other("extended attributes cannot be read where /proc is not mounted")
}

fn is_synced(name: &[u8]) -> bool {
    AttributeClass::of(name).is_some()
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
    for Attribute { name, value: wanted } in local.wanted.iter() {
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

/// Takes the ACLs of the directory `dir` away, so that what is made in it has none and has the modes that
/// it is made with.
pub(super) fn without_acls(dir: &Dir) {
    for name in [crate::model::DEFAULT_ACL, crate::model::ACCESS_ACL] {
        // Where there are no ACLs there is nothing to take away; else what is made there is looked at.
        let _ = remove(Hold::Open(dir.as_fd()), name);
    }
}

/// The kinds of attributes that can be set in `dir` by the effective user, by its filesystem and its rights.
/// Changes nothing.
pub(super) fn possible(dir: &Dir, privileged: bool) -> AttributeFidelity {
    let mut none = [0; 0];
    let has = |name: &str| !matches!(fs::fgetxattr(dir, name, &mut none[..]), Err(Errno::OPNOTSUPP));
    let mut has = has;
    let user = has("user.rfleet");
    // Whoever may not set it may not remove it either, though it is not there.
    let trusted = privileged && matches!(fs::fremovexattr(dir, "trusted.rfleet.probe"), Ok(()) | Err(Errno::NODATA));
    AttributeFidelity {
        user,
        acl: has("system.posix_acl_access"),
        capability: privileged && has("security.capability"),
        trusted,
        label: privileged && has("security.rfleet"),
    }
}
