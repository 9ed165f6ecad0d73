//! Whose entries arrive: the policy with its names looked up, and which local numbers the primary's owners
//! become.

use std::collections::BTreeSet;

use rustix::process::{getegid, geteuid, getgroups};

use super::policy::OwnerPolicy;
use crate::model::{AclMap, OwnerFidelity, OwnerMap, OwnerNames, Owners};
use crate::tree::Rights;

/// What an unprivileged receiver is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// Its user.
    pub(super) uid: u32,
    /// Its group, which what it makes belongs to.
    pub(super) gid: u32,
    /// The groups that it may give its files to; `None` for a privileged one, which may give them to anyone.
    pub(super) groups: Option<Vec<u32>>,
}

impl Process {
    /// What this one is.
    pub(super) fn own() -> Self {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let groups = || getgroups().unwrap_or_default().into_iter().map(|group| group.as_raw()).chain([gid]).collect();
        Process { uid, gid, groups: (!Rights::own().gives_away()).then(groups) }
    }

    fn may_give_to_group(&self, gid: u32) -> bool {
        self.groups.as_ref().is_none_or(|own| own.contains(&gid))
    }

    fn is_privileged(&self) -> bool {
        self.groups.is_none()
    }
}

/// Users and groups of the primary to whom nothing can be given here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Foreign {
    /// The users' numbers there.
    pub(super) users: BTreeSet<u32>,
    /// The groups' numbers there.
    pub(super) groups: BTreeSet<u32>,
}

/// An owner policy of which every name is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// The owner of the same name, else of the same number.
    Preserve,
    /// The owner of the same number.
    Numeric,
    /// Always this user and this group.
    Fixed { uid: u32, gid: u32 },
}

impl Ownership {
    /// Looks up what `policy` names.
    ///
    /// # Errors
    /// One line about a user or group that does not exist here.
    pub(super) fn of(policy: &OwnerPolicy, owners: &dyn Owners, process: &Process) -> Result<Self, String> {
        let unknown = |what: &str, name: &str| {
            let name = name.escape_debug();
            format!("there is no {what} `{name}` on this host, whom [receive] owner names")
        };
        Ok(match policy {
            OwnerPolicy::Preserve => Ownership::Preserve,
            OwnerPolicy::Numeric => Ownership::Numeric,
            OwnerPolicy::Receiver => Ownership::Fixed { uid: process.uid, gid: process.gid },
            OwnerPolicy::Fixed { user, group } => {
                let uid = owners.user_id(user).or_else(|| user.parse().ok());
                let gid = owners.group_id(group).or_else(|| group.parse().ok());
                Ownership::Fixed {
                    uid: uid.ok_or_else(|| unknown("user", user))?,
                    gid: gid.ok_or_else(|| unknown("group", group))?,
                }
            }
        })
    }

    /// Whose entries such a receiver can hold.
    pub(super) fn fidelity(self, process: &Process) -> OwnerFidelity {
        match self {
            Ownership::Preserve | Ownership::Numeric if process.is_privileged() => OwnerFidelity::Kept,
            Ownership::Fixed { uid, gid } if process.is_privileged() => OwnerFidelity::Fixed { uid, gid },
            _ => OwnerFidelity::Unset,
        }
    }

    /// Maps all owners of the primary's tree.
    pub(super) fn map(self, names: &OwnerNames, owners: &dyn Owners, process: &Process) -> OwnerMap {
        let mut mapped = OwnerMap { acl: self.map_acls(names, owners), ..OwnerMap::default() };
        for (id, name) in &names.users {
            let local = self.user(*id, name.as_deref(), owners);
            mapped.users.insert(*id, local.filter(|_| process.is_privileged()));
        }
        for (id, name) in &names.groups {
            let local = self.group(*id, name.as_deref(), owners);
            mapped.groups.insert(*id, local.filter(|local| process.may_give_to_group(*local)));
        }
        mapped
    }

    /// Whose entries this process would have to give away and cannot.
    pub(super) fn foreign(self, names: &OwnerNames, owners: &dyn Owners, process: &Process) -> Foreign {
        if process.is_privileged() {
            return Foreign::default();
        }
        let is_users = |id: u32, name: Option<&str>| self.user(id, name, owners).is_some_and(|own| own != process.uid);
        let is_groups = |id: u32, name: Option<&str>| {
            self.group(id, name, owners).is_some_and(|own| !process.may_give_to_group(own))
        };
        let users = names.users.iter().filter(|(id, name)| is_users(**id, name.as_deref()));
        let groups = names.groups.iter().filter(|(id, name)| is_groups(**id, name.as_deref()));
        Foreign { users: users.map(|(id, _)| *id).collect(), groups: groups.map(|(id, _)| *id).collect() }
    }

    fn user(self, id: u32, name: Option<&str>, owners: &dyn Owners) -> Option<u32> {
        match self {
            Ownership::Preserve => preserved(id, name, |name| owners.user_id(name)),
            Ownership::Numeric => Some(id),
            Ownership::Fixed { uid, .. } => Some(uid),
        }
    }

    fn group(self, id: u32, name: Option<&str>, owners: &dyn Owners) -> Option<u32> {
        match self {
            Ownership::Preserve => preserved(id, name, |name| owners.group_id(name)),
            Ownership::Numeric => Some(id),
            Ownership::Fixed { gid, .. } => Some(gid),
        }
    }

    /// An ACL gives nothing away, so anyone may name anyone in it; and it names others than the owner, so a
    /// fixed owner says nothing of it.
    fn map_acls(self, names: &OwnerNames, owners: &dyn Owners) -> AclMap {
        if self == Ownership::Numeric {
            return AclMap::default();
        }
        let user = |id, name| preserved(id, name, |name| owners.user_id(name));
        let group = |id, name| preserved(id, name, |name| owners.group_id(name));
        let users = names.users.iter().filter_map(|(id, name)| Some((*id, user(*id, name.as_deref())?)));
        let groups = names.groups.iter().filter_map(|(id, name)| Some((*id, group(*id, name.as_deref())?)));
        AclMap {
            users: users.filter(|(id, local)| id != local).collect(),
            groups: groups.filter(|(id, local)| id != local).collect(),
        }
    }
}

fn preserved(id: u32, name: Option<&str>, look_up: impl Fn(&str) -> Option<u32>) -> Option<u32> {
    match name.and_then(look_up) {
        Some(local) => Some(local),
        // A name that is not known here must never become root by its number.
        None => (id != 0 || name.is_none_or(|name| name == "root")).then_some(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Table;

    impl Owners for Table {
        fn user_name(&self, _: u32) -> Option<String> {
            None
        }
        fn group_name(&self, _: u32) -> Option<String> {
            None
        }
        fn user_id(&self, name: &str) -> Option<u32> {
            [("root", 0), ("www-data", 33)].into_iter().find(|(known, _)| *known == name).map(|(_, id)| id)
        }
        fn group_id(&self, name: &str) -> Option<u32> {
            self.user_id(name)
        }
    }

    const ROOT: Process = Process { uid: 0, gid: 0, groups: None };

    fn fixed(user: &str, group: &str) -> OwnerPolicy {
        OwnerPolicy::Fixed { user: user.into(), group: group.into() }
    }

    fn mapped(policy: &OwnerPolicy, id: u32, name: Option<&str>, process: &Process) -> (Option<u32>, Option<u32>) {
        let mut names = OwnerNames::default();
        names.users.insert(id, name.map(Into::into));
        names.groups.insert(id, name.map(Into::into));
        let map = Ownership::of(policy, &Table, process).unwrap().map(&names, &Table, process);
        (map.users[&id], map.groups[&id])
    }

    #[test]
    fn owners_go_by_name_then_by_number_and_never_become_root() {
        let user = |policy, id, name| mapped(&policy, id, name, &ROOT).0;
        assert_eq!(user(OwnerPolicy::Preserve, 48, Some("www-data")), Some(33));
        assert_eq!(user(OwnerPolicy::Preserve, 48, Some("apache")), Some(48));
        assert_eq!(user(OwnerPolicy::Preserve, 1001, None), Some(1001));
        assert_eq!(user(OwnerPolicy::Preserve, 0, Some("root")), Some(0));
        assert_eq!(user(OwnerPolicy::Preserve, 0, Some("toor")), None);
        assert_eq!(user(OwnerPolicy::Numeric, 48, Some("www-data")), Some(48));
        assert_eq!(user(OwnerPolicy::Receiver, 48, Some("www-data")), Some(0));
        assert_eq!(mapped(&fixed("www-data", "7"), 48, Some("apache"), &ROOT), (Some(33), Some(7)));
    }

    #[test]
    fn an_unprivileged_receiver_gives_nothing_away_but_to_its_own_groups() {
        let process = Process { uid: 33, gid: 33, groups: Some(vec![33, 48]) };
        for policy in [OwnerPolicy::Preserve, OwnerPolicy::Numeric] {
            assert_eq!(mapped(&policy, 48, None, &process), (None, Some(48)));
            assert_eq!(mapped(&policy, 49, None, &process), (None, None));
        }
        assert_eq!(mapped(&OwnerPolicy::Receiver, 49, None, &process), (None, Some(33)));
        assert_eq!(mapped(&fixed("root", "48"), 49, None, &process), (None, Some(48)));
        let mut names = OwnerNames::default();
        names.users.insert(48, Some("www-data".into()));
        names.users.insert(49, None);
        names.groups.extend([(48, None), (49, None)]);
        let foreign = |policy: &OwnerPolicy, process: &Process| {
            let ownership = Ownership::of(policy, &Table, process).unwrap();
            assert!(process.is_privileged() || ownership.fidelity(process) == OwnerFidelity::Unset);
            let Foreign { users, groups } = ownership.foreign(&names, &Table, process);
            (Vec::from_iter(users), Vec::from_iter(groups))
        };
        assert_eq!(foreign(&OwnerPolicy::Preserve, &process), (vec![49], vec![49]));
        assert_eq!(foreign(&OwnerPolicy::Numeric, &process), (vec![48, 49], vec![49]));
        assert_eq!(foreign(&OwnerPolicy::Receiver, &process), (vec![], vec![]));
        assert_eq!(foreign(&OwnerPolicy::Preserve, &ROOT), (vec![], vec![]));
    }

    #[test]
    fn acls_name_whom_they_name_whoever_owns_the_file() {
        let mut names = OwnerNames::default();
        names.users.extend([(48, Some("www-data".into())), (33, Some("apache".into())), (7, None)]);
        names.groups.insert(48, Some("www-data".into()));
        for policy in [OwnerPolicy::Preserve, OwnerPolicy::Receiver, fixed("7", "7")] {
            let map = Ownership::of(&policy, &Table, &ROOT).unwrap().map(&names, &Table, &ROOT);
            assert_eq!(map.acl, AclMap { users: [(48, 33)].into(), groups: [(48, 33)].into() }, "{policy:?}");
        }
        assert_eq!(Ownership::Numeric.map(&names, &Table, &ROOT).acl, AclMap::default());
    }

    #[test]
    fn a_fixed_owner_that_does_not_exist_is_refused() {
        for (policy, missing) in [(fixed("nobody-here", "7"), "user"), (fixed("7", "nobody-here"), "group")] {
            let error = Ownership::of(&policy, &Table, &ROOT).unwrap_err();
            assert!(error.starts_with(&format!("there is no {missing} `nobody-here`")), "{error}");
        }
    }
}
