//! Which local numbers the primary's owners become.

use std::collections::BTreeSet;

use crate::model::{OwnerMap, OwnerNames, Owners};

use super::policy::OwnerPolicy;

/// Maps all owners of the primary's tree. `own_groups`: those that an unprivileged receiver can
/// set; `None`: it is privileged and can set all.
pub(super) fn map(
    names: &OwnerNames,
    policy: &OwnerPolicy,
    owners: &dyn Owners,
    own_groups: Option<&[u32]>,
) -> OwnerMap {
    let (fixed_user, fixed_group) = match policy {
        OwnerPolicy::Fixed { user, group } => (user.as_str(), group.as_str()),
        _ => ("", ""),
    };
    let mut mapped = OwnerMap::default();
    for (id, name) in &names.users {
        let local = local_id(*id, name.as_deref(), &|name| owners.user_id(name), policy, fixed_user);
        mapped.users.insert(*id, local.filter(|_| own_groups.is_none()));
    }
    for (id, name) in &names.groups {
        let local = local_id(*id, name.as_deref(), &|name| owners.group_id(name), policy, fixed_group);
        mapped.groups.insert(*id, local.filter(|local| own_groups.is_none_or(|own| own.contains(local))));
    }
    mapped
}

/// Users of the primary's tree whose entries an unprivileged receiver, `own`, would have to give away.
pub(super) fn foreign_users(names: &OwnerNames, policy: &OwnerPolicy, owners: &dyn Owners, own: u32) -> BTreeSet<u32> {
    let wanted = map(names, policy, owners, None).users;
    wanted.into_iter().filter(|(_, local)| local.is_some_and(|local| local != own)).map(|(id, _)| id).collect()
}

fn local_id(
    id: u32,
    name: Option<&str>,
    look_up: &dyn Fn(&str) -> Option<u32>,
    policy: &OwnerPolicy,
    fixed: &str,
) -> Option<u32> {
    match policy {
        OwnerPolicy::Receiver => None,
        OwnerPolicy::Numeric => Some(id),
        OwnerPolicy::Fixed { .. } => look_up(fixed).or_else(|| fixed.parse().ok()),
        OwnerPolicy::Preserve => match name.and_then(look_up) {
            Some(local) => Some(local),
            // A name that is not known here must never become root by its number.
            None => (id != 0 || name.is_none_or(|name| name == "root")).then_some(id),
        },
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

    fn mapped(policy: OwnerPolicy, id: u32, name: Option<&str>) -> Option<u32> {
        let mut names = OwnerNames::default();
        names.users.insert(id, name.map(Into::into));
        map(&names, &policy, &Table, None).users[&id]
    }

    #[test]
    fn owners_go_by_name_then_by_number_and_never_become_root() {
        assert_eq!(mapped(OwnerPolicy::Preserve, 48, Some("www-data")), Some(33));
        assert_eq!(mapped(OwnerPolicy::Preserve, 48, Some("apache")), Some(48));
        assert_eq!(mapped(OwnerPolicy::Preserve, 1001, None), Some(1001));
        assert_eq!(mapped(OwnerPolicy::Preserve, 0, Some("root")), Some(0));
        assert_eq!(mapped(OwnerPolicy::Preserve, 0, Some("toor")), None);
        assert_eq!(mapped(OwnerPolicy::Numeric, 48, Some("www-data")), Some(48));
        assert_eq!(mapped(OwnerPolicy::Receiver, 48, Some("www-data")), None);
        let fixed = OwnerPolicy::Fixed { user: "www-data".into(), group: "7".into() };
        assert_eq!(mapped(fixed, 48, Some("apache")), Some(33));
    }
}
