//! Names of users and groups from the operating system's databases.

use std::collections::HashMap;
use std::sync::Mutex;

use nix::unistd::{Gid, Group, Uid, User};

use crate::model::Owners;

/// The operating system's users and groups, each asked for once.
///
/// A name that is not known, or whose look-up fails, has no number; it never becomes 0 or any
/// other substitute.
#[derive(Debug, Default)]
pub struct SystemOwners {
    user_names: Cache<u32, String>,
    group_names: Cache<u32, String>,
    user_ids: Cache<String, u32>,
    group_ids: Cache<String, u32>,
}

#[derive(Debug)]
struct Cache<K, V>(Mutex<HashMap<K, Option<V>>>);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Cache(Mutex::new(HashMap::new()))
    }
}

impl<K: std::hash::Hash + Eq, V: Clone> Cache<K, V> {
    fn get(&self, key: K, ask: impl FnOnce(&K) -> Option<V>) -> Option<V> {
        // A panic elsewhere cannot leave the map half-changed.
        let mut map = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = map.get(&key) {
            return known.clone();
        }
        let value = ask(&key);
        map.insert(key, value.clone());
        value
    }
}

impl SystemOwners {
    /// Owners of this host; nothing is asked yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Owners for SystemOwners {
    fn user_name(&self, uid: u32) -> Option<String> {
        self.user_names.get(uid, |&uid| Some(User::from_uid(Uid::from_raw(uid)).ok()??.name))
    }

    fn group_name(&self, gid: u32) -> Option<String> {
        self.group_names.get(gid, |&gid| Some(Group::from_gid(Gid::from_raw(gid)).ok()??.name))
    }

    fn user_id(&self, name: &str) -> Option<u32> {
        self.user_ids.get(name.to_owned(), |name| Some(User::from_name(name).ok()??.uid.as_raw()))
    }

    fn group_id(&self, name: &str) -> Option<u32> {
        self.group_ids.get(name.to_owned(), |name| Some(Group::from_name(name).ok()??.gid.as_raw()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_has_no_number_and_never_root_s() {
        let owners = SystemOwners::new();
        for _ in 0..2 {
            assert_eq!(owners.user_id("no-such-user-here"), None);
            assert_eq!(owners.group_id("no-such-group-here"), None);
            assert_eq!(owners.user_id("root"), Some(0));
            assert_eq!(owners.user_name(0).as_deref(), Some("root"));
            assert_eq!(owners.group_name(0).as_deref(), Some("root"));
            assert_eq!(owners.user_name(4_123_456_789), None);
        }
    }
}
