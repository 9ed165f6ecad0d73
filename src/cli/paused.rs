//! Which hosts an operator holds: `FLEET.paused.toml` in the state directory. The only place that reads and writes it.
//!
//! A file that cannot be understood is an error, not an empty list: to push to a host that is held is what its operator
//! wanted to rule out.

use std::collections::BTreeMap;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::state_dir::StateDir;

/// Version of the format.
const VERSION: u32 = 1;

/// Largest file that is believed: ten thousand hosts.
const MAX_BYTES: u64 = 4 << 20;

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    /// Since when, in seconds after 1970.
    hosts: BTreeMap<String, u64>,
}

/// The hosts of a fleet that are held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Paused {
    hosts: BTreeMap<String, u64>,
}

fn file(fleet: &str) -> String {
    format!("{fleet}.paused.toml")
}

impl Paused {
    /// Reads the file of `fleet`; none is an empty list.
    ///
    /// # Errors
    /// One line with the file: it cannot be read or understood.
    pub(super) fn load(state: &StateDir, fleet: &str) -> Result<Self, String> {
        let read = state.read(&file(fleet), MAX_BYTES).map_err(|error| error.to_string());
        let hosts = read.and_then(|bytes| bytes.map_or_else(|| Ok(BTreeMap::new()), |bytes| parse(&bytes)));
        let path = state.path().join(file(fleet));
        hosts.map(|hosts| Paused { hosts }).map_err(|error| {
            format!("{}: which hosts are paused cannot be told: {error}; mend the file or remove it", path.display())
        })
    }

    /// Since when `host` is held, in seconds after 1970; `None` if it is not.
    pub(super) fn since(&self, host: &str) -> Option<u64> {
        self.hosts.get(host).copied()
    }

    /// The hosts that are held, by name, and since when.
    pub(super) fn hosts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.hosts.iter().map(|(name, since_s)| (name.as_str(), *since_s))
    }

    /// Holds `host` from `now_s` on, or lets it go, and writes that down. Whether anything is different now.
    ///
    /// # Errors
    /// One line: it could not be read or written.
    pub(super) fn set(state: &StateDir, fleet: &str, host: &str, held: bool, now_s: u64) -> Result<bool, String> {
        let path = state.path().join(file(fleet));
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        // Two that change the list at a time must not lose each other's host.
        let lock = state.open_file(&format!("{fleet}.paused.lock")).map_err(|error| failed(&error))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed(&error))?;
        let mut paused = Self::load(state, fleet)?;
        let changed = match held {
            true if paused.hosts.contains_key(host) => false,
            true => paused.hosts.insert(host.to_owned(), now_s).is_none(),
            false => paused.hosts.remove(host).is_some(),
        };
        if changed {
            let stored = Stored { version: VERSION, hosts: paused.hosts };
            let text = toml::to_string(&stored).map_err(|error| failed(&error))?;
            let written = match stored.hosts.is_empty() {
                true => state.remove(&file(fleet)),
                false => state.replace(&file(fleet), text.as_bytes()),
            };
            written.map_err(|error| failed(&error))?;
        }
        Ok(changed)
    }
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<String, u64>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let stored: Stored = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    if stored.version == VERSION { Ok(stored.hosts) } else { Err(format!("it has version {}", stored.version)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn state() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open_at(&dir.path().join("state")).unwrap();
        (dir, state)
    }

    #[test]
    fn what_is_paused_stays_so_until_it_is_resumed() {
        let (_dir, state) = state();
        assert_eq!(Paused::load(&state, "cms").unwrap(), Paused::default());
        assert!(Paused::set(&state, "cms", "web2", true, 5).unwrap());
        assert!(Paused::set(&state, "cms", "web.3", true, 6).unwrap());
        assert!(!Paused::set(&state, "cms", "web2", true, 7).unwrap(), "it was already");
        let paused = Paused::load(&state, "cms").unwrap();
        assert_eq!(paused.hosts().collect::<Vec<_>>(), [("web.3", 6), ("web2", 5)]);
        assert_eq!((paused.since("web2"), paused.since("web4")), (Some(5), None));
        assert_eq!(Paused::load(&state, "other").unwrap(), Paused::default(), "another fleet");
        assert!(Paused::set(&state, "cms", "web2", false, 8).unwrap());
        assert!(!Paused::set(&state, "cms", "web2", false, 9).unwrap());
        assert!(Paused::set(&state, "cms", "web.3", false, 9).unwrap());
        assert!(!state.path().join("cms.paused.toml").exists(), "an empty list is no file");
    }

    #[test]
    fn two_that_change_the_list_at_once_lose_nothing() {
        let (dir, _state) = state();
        let path = dir.path().join("state");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    let state = StateDir::open_at(path).unwrap();
                    Paused::set(&state, "cms", &format!("web{number}"), true, 1).unwrap();
                });
            }
        });
        let state = StateDir::open_at(&path).unwrap();
        assert_eq!(Paused::load(&state, "cms").unwrap().hosts().count(), 8);
    }

    #[test]
    fn a_list_that_cannot_be_understood_is_no_empty_one() {
        let (_dir, state) = state();
        for text in ["version = 2\n[hosts]\n", "version = 1\n[hosts]\nweb2 = \"x\"\n", "[hosts", "\u{0}"] {
            fs::write(state.path().join("cms.paused.toml"), text).unwrap();
            let error = Paused::load(&state, "cms").unwrap_err();
            assert!(error.contains("cms.paused.toml: which hosts are paused cannot be told"), "{error}");
            assert!(Paused::set(&state, "cms", "web2", true, 1).is_err());
            assert_eq!(fs::read_to_string(state.path().join("cms.paused.toml")).unwrap(), text, "it is left alone");
        }
    }
}
