//! Which local numbers the primary's owners become.

use crate::model::{OwnerMap, OwnerNames, Owners};

use super::policy::OwnerPolicy;

/// Maps all owners of the primary's tree. `privileged`: the receiver can give files to others.
/// Without that, only what it could set anyway is mapped: nothing for users, its own groups.
pub(super) fn map(names: &OwnerNames, policy: &OwnerPolicy, owners: &dyn Owners, privileged: bool) -> OwnerMap {
    let mut mapped = OwnerMap::default();
    for (id, name) in &names.users {
        let local = local_id(*id, name.as_deref(), |name| owners.user_id(name), policy, |fixed| &fixed.0);
        mapped.users.insert(*id, local.filter(|_| privileged));
    }
    for (id, name) in &names.groups {
        let local = local_id(*id, name.as_deref(), |name| owners.group_id(name), policy, |fixed| &fixed.1);
        mapped.groups.insert(*id, local.filter(|_| privileged));
    }
    mapped
}

type Fixed<'a> = (&'a str, &'a str);

fn local_id(
    id: u32,
    name: Option<&str>,
    look_up: impl Fn(&str) -> Option<u32>,
    policy: &OwnerPolicy,
    side: impl Fn(&Fixed) -> &str,
) -> Option<u32> {
    match policy {
        OwnerPolicy::Receiver => None,
        OwnerPolicy::Numeric => Some(id),
        OwnerPolicy::Fixed { user, group } => {
            let pair = (user.as_str(), group.as_str());
            let wanted = side(&pair);
            look_up(wanted).or_else(|| wanted.parse().ok())
        }
        OwnerPolicy::Preserve => match name.and_then(&look_up) {
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
        map(&names, &policy, &Table, true).users[&id]
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
