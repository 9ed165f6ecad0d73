//! What a receiver is able and allowed to hold: [`Fidelity`].

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{AttributeFidelity, Kind, Meta, SpecialKind, Timestamp};

/// Whose entries are at a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OwnerFidelity {
    /// It cannot set them: they are not compared.
    Unset,
    /// As on the primary, by name or number.
    Kept,
    /// All belong to one user and one group.
    Fixed {
        /// The user's number.
        uid: u32,
        /// The group's number.
        gid: u32,
    },
}

/// Which times a receiver's filesystem can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TimeFidelity {
    /// The first second, since 1970.
    pub first: i64,
    /// The last second, since 1970.
    pub last: i64,
    /// Nanoseconds between two times that it can tell apart: 1 for most.
    pub step_nanos: u32,
}

impl TimeFidelity {
    /// Every time.
    pub const FULL: Self = TimeFidelity { first: i64::MIN, last: i64::MAX, step_nanos: 1 };

    /// Whether `time` lies within the range, to a step.
    pub fn reaches(self, time: Timestamp) -> bool {
        (self.first..=self.last).contains(&{ time.secs })
    }

    /// What becomes of `time`, as Linux does it: cut off to a step, and to the ends of the range.
    pub fn held(self, time: Timestamp) -> Timestamp {
        let step = i128::from(self.step_nanos.max(1));
        let nanos = i128::from(time.secs) * NANOS + i128::from(time.nanos);
        let cut = if step == 1 { nanos } else { nanos.div_euclid(step) * step };
        let secs = i64::try_from(cut.div_euclid(NANOS)).unwrap_or(self.first);
        if secs <= self.first && self.first != i64::MIN {
            Timestamp { secs: self.first, nanos: 0 }
        } else if secs >= self.last && self.last != i64::MAX {
            Timestamp { secs: self.last, nanos: 0 }
        } else {
            Timestamp { secs, nanos: u32::try_from(cut.rem_euclid(NANOS)).unwrap_or(0) }
        }
    }
}

const NANOS: i128 = 1_000_000_000;

/// What a receiver is able and allowed to hold. Both sides compare through it, so that what cannot
/// be set is not found different again at every push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fidelity {
    /// Owners and groups.
    pub owner: OwnerFidelity,
    /// setuid and setgid of files are kept.
    pub setuid: bool,
    /// Extended attributes.
    pub attributes: AttributeFidelity,
    /// Named pipes are made.
    pub pipes: bool,
    /// Devices are made.
    pub devices: bool,
    /// Times.
    pub times: TimeFidelity,
}

impl Fidelity {
    /// Everything is held.
    pub const FULL: Fidelity = Fidelity {
        owner: OwnerFidelity::Kept,
        setuid: true,
        attributes: AttributeFidelity::FULL,
        pipes: true,
        devices: true,
        times: TimeFidelity::FULL,
    };

    /// As little as any receiver holds.
    pub const LEAST: Fidelity = Fidelity {
        owner: OwnerFidelity::Unset,
        setuid: false,
        attributes: AttributeFidelity::NONE,
        pipes: false,
        devices: false,
        times: TimeFidelity::FULL,
    };

    /// The permission bits that remain of `mode` at such a receiver. Symbolic links have none.
    pub fn mode(self, kind: &Kind, mode: u32) -> u32 {
        match kind {
            Kind::Symlink { .. } => 0,
            Kind::File { .. } | Kind::Special(_) if !self.setuid => mode & 0o1777,
            _ => mode & 0o7777,
        }
    }

    /// Whether such a receiver has entries of this kind. Sockets are nobody's but the program's that
    /// listens on them.
    pub fn has(self, kind: &Kind) -> bool {
        match kind {
            Kind::Special(SpecialKind::Socket) => false,
            Kind::Special(SpecialKind::Fifo) => self.pipes,
            Kind::Special(_) => self.devices,
            _ => true,
        }
    }

    /// Whether an entry is whose it should be at such a receiver.
    pub(super) fn is_owned(self, meta: &Meta) -> bool {
        match self.owner {
            OwnerFidelity::Fixed { uid, gid } => (meta.uid, meta.gid) == (uid, gid),
            _ => true,
        }
    }
}

/// One word for each part: what is remembered of a host, to be compared and never read back.
impl fmt::Display for Fidelity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fidelity { owner, setuid, attributes, pipes, devices, times } = self;
        let AttributeFidelity { user, acl, capability, trusted, label } = attributes;
        match owner {
            OwnerFidelity::Unset => f.write_str("unset")?,
            OwnerFidelity::Kept => f.write_str("kept")?,
            OwnerFidelity::Fixed { uid, gid } => write!(f, "{uid}:{gid}")?,
        }
        for (is, word) in [
            (*setuid, "setuid"),
            (*user, "user"),
            (*acl, "acl"),
            (*capability, "capability"),
            (*trusted, "trusted"),
            (*label, "label"),
            (*pipes, "pipes"),
            (*devices, "devices"),
        ] {
            if is {
                write!(f, " {word}")?;
            }
        }
        write!(f, " {}..{}/{}", times.first, times.last, times.step_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(secs: i64, nanos: u32) -> Timestamp {
        Timestamp { secs, nanos }
    }

    #[test]
    fn times_become_what_a_filesystem_can_hold() {
        let full = TimeFidelity::FULL;
        for at in [time(i64::MIN, 0), time(-1, 999_999_999), time(0, 0), time(i64::MAX, 999_999_999)] {
            assert_eq!(full.held(at), at);
        }
        let old = TimeFidelity { first: -(1 << 31), last: (1 << 31) - 1, step_nanos: 1_000_000_000 };
        for (at, held) in [
            (time(-5, 7), time(-5, 0)),
            (time(5, 999_999_999), time(5, 0)),
            (time(-(1 << 31) - 1, 5), time(-(1 << 31), 0)),
            (time(1 << 31, 5), time((1 << 31) - 1, 0)),
            (time(i64::MIN, 0), time(-(1 << 31), 0)),
        ] {
            assert_eq!(old.held(at), held);
            assert_eq!(old.held(held), held);
        }
        let fat = TimeFidelity { step_nanos: 2_000_000_000, ..full };
        assert_eq!((fat.held(time(7, 1)), fat.held(time(-1, 1))), (time(6, 0), time(-2, 0)));
    }

    #[test]
    fn two_fidelities_never_have_one_name() {
        let attributes = AttributeFidelity { user: true, ..AttributeFidelity::NONE };
        let all = [
            Fidelity::FULL,
            Fidelity::LEAST,
            Fidelity { setuid: true, ..Fidelity::LEAST },
            Fidelity { owner: OwnerFidelity::Kept, ..Fidelity::LEAST },
            Fidelity { owner: OwnerFidelity::Fixed { uid: 1, gid: 2 }, ..Fidelity::LEAST },
            Fidelity { owner: OwnerFidelity::Fixed { uid: 1, gid: 3 }, ..Fidelity::LEAST },
            Fidelity { attributes, ..Fidelity::LEAST },
            Fidelity { pipes: true, ..Fidelity::LEAST },
            Fidelity { times: TimeFidelity { step_nanos: 2, ..TimeFidelity::FULL }, ..Fidelity::LEAST },
        ];
        let names: std::collections::BTreeSet<String> = all.iter().map(Fidelity::to_string).collect();
        assert_eq!(names.len(), all.len());
    }
}
