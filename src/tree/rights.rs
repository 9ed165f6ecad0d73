//! What this process may do beyond what its user may: [`Rights`].

use std::sync::OnceLock;

use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, capabilities};

/// The capabilities of this process, whether it has them as root, by its program's file or as ambient ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights(CapabilitySet);

/// It takes all three: who gives a file away still has to set its mode and times (`CAP_FOWNER`), and at the next push
/// to work in directories that are someone else's (`CAP_DAC_OVERRIDE`).
const GIVE_AWAY: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::CHOWN, "cap_chown"),
    (CapabilitySet::FOWNER, "cap_fowner"),
    (CapabilitySet::DAC_OVERRIDE, "cap_dac_override"),
];

impl Rights {
    /// Of this process. Nothing in it changes them.
    pub fn own() -> Self {
        static OWN: OnceLock<Rights> = OnceLock::new();
        *OWN.get_or_init(|| match capabilities(None) {
            Ok(sets) => Rights(sets.effective),
            // A filter of system calls that does not know this one; root's are what they are taken to be.
            Err(_) if geteuid().is_root() => Rights(CapabilitySet::all()),
            Err(_) => Rights(CapabilitySet::empty()),
        })
    }

    fn has(self, wanted: CapabilitySet) -> bool {
        self.0.contains(wanted)
    }

    /// Owners and groups can be set, and what is someone else's can be worked on as one's own.
    pub fn gives_away(self) -> bool {
        self.missing_to_give_away().is_empty()
    }

    /// Names of the capabilities that [`Rights::gives_away`] lacks.
    pub fn missing_to_give_away(self) -> Vec<&'static str> {
        GIVE_AWAY.iter().filter(|(wanted, _)| !self.has(*wanted)).map(|(_, name)| *name).collect()
    }

    /// setuid and setgid can be set of files of any owner and group.
    pub fn sets_ids(self) -> bool {
        self.gives_away() && self.keeps_setgid()
    }

    /// Linux drops no setgid where the group is a foreign one.
    pub(super) fn keeps_setgid(self) -> bool {
        self.has(CapabilitySet::FSETID)
    }

    /// Modes and ACLs bar no reading and writing.
    pub(super) fn overrides_modes(self) -> bool {
        self.has(CapabilitySet::DAC_OVERRIDE)
    }

    /// Devices can be made.
    pub fn makes_devices(self) -> bool {
        self.has(CapabilitySet::MKNOD)
    }

    /// Capabilities of programs can be set.
    pub(super) fn sets_capabilities(self) -> bool {
        self.has(CapabilitySet::SETFCAP)
    }

    /// `trusted.*` and labels can be set.
    pub(super) fn administers(self) -> bool {
        self.has(CapabilitySet::SYS_ADMIN)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::is_unprivileged;
    use super::*;

    #[test]
    fn rights_are_those_of_the_capabilities_and_not_of_the_user() {
        let of = |set: CapabilitySet| Rights(set);
        let three = GIVE_AWAY.iter().fold(CapabilitySet::empty(), |all, (one, _)| all | *one);
        assert!(of(three).gives_away() && !of(three).sets_ids() && !of(three).makes_devices());
        assert!(of(three | CapabilitySet::FSETID).sets_ids() && !of(CapabilitySet::FSETID).sets_ids());
        for (one, name) in GIVE_AWAY {
            assert!(!of(three - one).gives_away());
            assert_eq!(of(three - one).missing_to_give_away(), [name]);
        }
        assert_eq!(of(CapabilitySet::empty()).missing_to_give_away().len(), 3);
    }

    #[test]
    fn a_plain_user_has_none() {
        if is_unprivileged("tree::rights::tests::a_plain_user_has_none") {
            assert_eq!(Rights::own(), Rights(CapabilitySet::empty()));
        }
    }
}
