//! What this host allows, whatever the primary says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::hooks::CommitHook;
use crate::model::Patterns;
use crate::tree::Retention;

/// Silence after which a primary is given up, unless the policy says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Who owns what arrives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OwnerPolicy {
    /// The owner of the same name, else of the same number.
    #[default]
    Preserve,
    /// The owner of the same number.
    Numeric,
    /// Always this user and group.
    Fixed {
        /// Name or number.
        user: String,
        /// Name or number.
        group: String,
    },
    /// Whoever the receiver runs as.
    Receiver,
}

/// When a commit is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// When it is visible.
    None,
    /// When it is on disk.
    #[default]
    Commit,
}

/// How much a root may hold, `.rfleet` included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Room on the disk in bytes; `None` for as much as there is.
    pub bytes: Option<u64>,
    /// Entries; `None` for as many as the filesystem takes.
    pub entries: Option<u64>,
}

/// What may be done to a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Entries may be deleted.
    pub allow_delete: bool,
    /// Who owns what arrives.
    pub owner: OwnerPolicy,
    /// setuid and setgid of files are kept.
    pub setuid: bool,
    /// Named pipes and devices are made.
    pub devices: bool,
    /// `security.*` attributes other than capabilities are set: SELinux's, Smack's, IMA's.
    pub labels: bool,
    /// When a commit is acknowledged.
    pub durability: Durability,
    /// How much a root may hold.
    pub quota: Quota,
    /// The receiver confines itself to its roots, as far as the kernel can.
    pub sandbox: bool,
    /// What no primary changes, in any root.
    pub protect: Patterns,
    /// Silence after which a primary is given up; it says something every second.
    pub timeout: Duration,
    /// How long what is replaced or deleted is kept. `None`: it is not kept, and an attic that is there is left alone.
    pub attic: Option<Retention>,
    /// What runs after a commit; [`super::MAX_HOOKS`] at most.
    pub on_commit: Vec<CommitHook>,
}

impl Policy {
    /// For a receiver without configuration: whoever started it by name can do as much without it.
    pub fn unconfigured() -> Self {
        Policy {
            allow_delete: true,
            owner: OwnerPolicy::Preserve,
            setuid: true,
            devices: true,
            // They belong to the policy of this host, which may not know those of the other.
            labels: false,
            durability: Durability::Commit,
            quota: Quota::default(),
            sandbox: true,
            protect: Patterns::default(),
            timeout: TIMEOUT,
            attic: None,
            on_commit: Vec::new(),
        }
    }
}

/// The roots that exist for a primary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// By name, from the configuration or the command line.
    pub named: BTreeMap<String, PathBuf>,
    /// The directory that a push without configuration writes to, from the command line.
    pub unnamed: Option<PathBuf>,
}

impl Roots {
    /// The directory of the root that a primary calls `name`.
    ///
    /// # Errors
    /// One line that says which roots there are.
    pub fn find(&self, name: &str) -> Result<&Path, String> {
        let found = if name.is_empty() { self.unnamed.as_ref() } else { self.named.get(name) };
        found.map(PathBuf::as_path).ok_or_else(|| {
            let names: Vec<&str> = self.named.keys().map(String::as_str).collect();
            match (name, names.as_slice()) {
                ("", []) => "this receiver has no root; it needs --to DIR or a configuration".into(),
                ("", names) => format!(
                    "this receiver takes only the roots of its own configuration ({}), not a directory chosen by the \
                     primary",
                    names.join(", ")
                ),
                (name, []) => format!("there is no root `{}` here: no configuration was found", name.escape_debug()),
                (name, names) => {
                    format!("there is no root `{}` here, only {}", name.escape_debug(), names.join(", "))
                }
            }
        })
    }
}
