//! Owner, extended attributes, mode and times through a handle.
//!
//! The owner comes first, since a change of owner clears setuid, setgid and capabilities; then what an ACL
//! changes of the mode; the times last, since nothing after them may touch the entry.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{self, AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use super::attributes::{self, LocalAttributes};
use super::beneath::Stat;
use super::rights::Rights;
use crate::model::{AttributeFidelity, Attributes, Timestamp};

/// Attributes as this host is to set them: numbers already translated, policy already applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalMeta {
    /// Permission bits, `0o7777`; ignored for symbolic links.
    pub mode: u32,
    /// Owner, `None` to leave it.
    pub uid: Option<u32>,
    /// Group, `None` to leave it.
    pub gid: Option<u32>,
    /// Time of the last change of the content.
    pub mtime: Timestamp,
    /// Extended attributes.
    pub attributes: LocalAttributes,
}

impl LocalMeta {
    /// All of an entry of this host, for a copy of it.
    pub(super) fn of(stat: &Stat, wanted: Attributes) -> Self {
        let all = AttributeFidelity { user: true, acl: true, capability: true, trusted: true, label: true };
        let managed = if wanted.is_empty() { AttributeFidelity::NONE } else { all };
        LocalMeta {
            mode: stat.permissions(),
            uid: Some(stat.uid),
            gid: Some(stat.gid),
            mtime: stat.mtime,
            attributes: LocalAttributes { managed, wanted },
        }
    }
}

/// What could not be set of what was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Shortfall {
    /// The owner or the group, for want of the right to.
    pub owner: bool,
    /// setgid, since the group is none of this process's.
    pub setgid: bool,
    /// An extended attribute: which, and why.
    pub attribute: Option<String>,
}

/// Times with the access time left alone.
pub(super) fn times(mtime: Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() },
    }
}

/// How an entry is held.
#[derive(Clone, Copy)]
pub(super) enum Hold<'h> {
    /// Open for reading or writing.
    Open(BorrowedFd<'h>),
    /// Only named (`O_PATH`).
    Named(BorrowedFd<'h>),
}

/// Sets what differs from `now`. `fresh`: made in the stage a moment ago, without extended attributes.
///
/// Where the owner cannot be set, setuid and setgid are not set either: they would lend the rights of
/// whoever owns the entry here instead of those of its owner at home.
pub(super) fn set(hold: Hold<'_>, now: &Stat, meta: &LocalMeta, fresh: bool) -> io::Result<Shortfall> {
    let is_symlink = now.is_symlink();
    let (uid, gid) = (meta.uid.filter(|&uid| uid != now.uid), meta.gid.filter(|&gid| gid != now.gid));
    let changes_owner = uid.is_some() || gid.is_some();
    let owner_denied = changes_owner && !set_owner(hold, uid, gid)?;
    let mut mode = meta.mode & 0o7777;
    if owner_denied && !now.is_directory() {
        mode &= 0o1777;
    }
    let cleared_by_chown = changes_owner && mode & 0o6000 != 0;
    let opened_up = !is_symlink && is_too_closed(now, meta, fresh) && set_mode(hold, mode | 0o600).is_ok();
    let written = attributes::write(hold, &meta.attributes, fresh);
    let disturbed = cleared_by_chown || opened_up || written.acl;
    if !is_symlink && (mode != now.permissions() || disturbed) {
        set_mode(hold, mode)?;
    }
    // Linux drops setgid without a word where the group is none of the effective user's.
    let dropped = mode & 0o2000 != 0 && !Rights::own().keeps_setgid() && is_setgid(hold).is_ok_and(|is| !is);
    // Always: content written through this handle may have changed them since `now`.
    let times = times(meta.mtime);
    match hold {
        Hold::Open(fd) => fs::futimens(fd, &times)?,
        Hold::Named(fd) => set_times_named(fd, &times)?,
    }
    Ok(Shortfall { owner: owner_denied, setgid: dropped, attribute: written.refused })
}

fn is_setgid(hold: Hold<'_>) -> io::Result<bool> {
    let (Hold::Open(fd) | Hold::Named(fd)) = hold;
    Ok(Stat::from(fs::fstat(fd)?).permissions() & 0o2000 != 0)
}

/// Whether the owner has first to be given the rights that reading and setting `user.*` takes.
fn is_too_closed(now: &Stat, meta: &LocalMeta, fresh: bool) -> bool {
    let works = meta.attributes.managed.any() && !(fresh && meta.attributes.wanted.is_empty());
    works && now.permissions() & 0o600 != 0o600 && !Rights::own().overrides_modes()
}

/// Whether both could be set. `EINVAL`: the number is not mapped in this user namespace.
fn set_owner(hold: Hold<'_>, uid: Option<u32>, gid: Option<u32>) -> io::Result<bool> {
    // -1 means "leave it" to the kernel and is no valid number.
    let user = uid.filter(|&uid| uid != u32::MAX).map(Uid::from_raw);
    let group = gid.filter(|&gid| gid != u32::MAX).map(Gid::from_raw);
    let chown = |user, group| match hold {
        Hold::Open(fd) => fs::fchown(fd, user, group),
        Hold::Named(fd) => fs::chownat(fd, c"", user, group, AtFlags::EMPTY_PATH),
    };
    match chown(user, group) {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::INVAL) => {
            if user.is_some() && group.is_some() {
                // A group of which the effective user is a member can be set alone.
                let _ = chown(None, group);
            }
            Ok(false)
        }
        Err(errno) => Err(errno.into()),
    }
}

fn set_mode(hold: Hold<'_>, mode: u32) -> io::Result<()> {
    let mode = Mode::from_raw_mode(mode);
    match hold {
        Hold::Open(fd) => fs::fchmod(fd, mode)?,
        // The magic link leads to the held entry itself, not to a name that could be swapped.
        Hold::Named(fd) => fs::chmod(magic_link(fd), mode)?,
    }
    Ok(())
}

fn set_times_named(fd: BorrowedFd<'_>, times: &Timestamps) -> io::Result<()> {
    match fs::utimensat(fd, c"", times, AtFlags::EMPTY_PATH) {
        // Before Linux 5.8.
        Err(Errno::INVAL | Errno::NOENT) => Ok(fs::utimensat(fs::CWD, magic_link(fd), times, AtFlags::empty())?),
        result => Ok(result?),
    }
}

pub(super) fn magic_link(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Gives the owner all rights on a directory that is held by name only; the mode it had.
/// `EPERM` if it is not the effective user's.
pub(super) fn loosen(named: impl AsFd) -> io::Result<u32> {
    let named = named.as_fd();
    let mode = Stat::from(fs::fstat(named)?).permissions();
    set_mode(Hold::Named(named), mode | 0o700)?;
    Ok(mode)
}
