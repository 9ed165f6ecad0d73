//! The receiver confines itself to its roots with Landlock, so that whatever it could be led to do by what it is sent,
//! or by a mistake in it, the kernel keeps it there.
//!
//! ```text
//! start of the process   all roots that exist for a primary            before anything is read from the link
//! greeting               the root that it names                        before anything in that root is read
//! a root was made        that root; until then the directory above it
//! ```
//!
//! Each step narrows the one before and none can be undone. One that would narrow nothing is left out: each makes every
//! name that is opened or renamed cost more. Landlock holds for the thread that asks for it and those that
//! it starts from then on, so each step comes before there is a second one.
//!
//! What is left: everything below the root but executing; reading what look-ups of users and groups read. Names can be
//! walked and attributes looked at everywhere, as Landlock has no say in that. No program can be executed, no TCP port
//! used, nobody outside be signalled; `no_new_privs` is set. A kernel that knows only a part of it enforces that part.
//!
//! What is to be started on behalf of a session, such as a hook, is started by a process that is not confined
//! ([`super::hooks`]): a child is confined as its parent is.
//!
//! RACE: `/etc/passwd` and `/etc/group` are allowed as the files that they were at the start. If one is replaced while a
//! session runs, names that were not asked for until then are unknown from there on, and their owners go by number.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, RestrictSelf, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::policy::Roots;
use crate::tree::{Root, RootError};

/// The newest restrictions that are asked for.
const NEWEST: ABI = ABI::V9;

/// Before it (Linux 5.19) a confined process can rename nothing from one directory to another, and that is how content
/// gets to its place.
const OLDEST: ABI = ABI::V2;

/// What the C library reads to know users and groups.
const NAME_FILES: [&str; 4] = ["/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/ld.so.cache"];

/// Modules of the C library for other sources of names, and what those read: SSSD, systemd, libnss-extrausers; besides
/// what says how many processors there are.
const READABLE: [&str; 14] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/nix/store",
    "/gnu/store",
    "/var/lib/sss/mc",
    "/var/lib/extrausers",
    "/etc/userdb",
    "/run/userdb",
    "/usr/local/lib/userdb",
    "/sys/fs/cgroup",
    "/proc/self",
];

/// Sockets of services that know names. Kernels before Landlock's version 9 let a process connect to any.
const NAME_SOCKETS: [&str; 4] = ["/run/nscd", "/run/nslcd", "/run/systemd/userdb", "/var/lib/sss/pipes"];

/// How far this process is confined.
#[derive(Debug, Default)]
pub(super) struct Sandbox {
    is_on: bool,
    /// The one root that is left.
    only: Option<PathBuf>,
    note: Option<String>,
}

impl Sandbox {
    /// Confines this thread to all of `roots`, if that is `wanted`.
    pub(super) fn enter(wanted: bool, roots: &Roots) -> Self {
        if !wanted {
            return Sandbox::default();
        }
        let paths: Vec<&Path> = roots.named.values().chain(&roots.unnamed).map(PathBuf::as_path).collect();
        let mut sandbox = Sandbox::default();
        match available() {
            Ok(()) => sandbox.is_on = sandbox.confine(&paths),
            Err(why) => sandbox.note = Some(why),
        }
        sandbox
    }

    /// Confines this thread to the root at `path` alone, or to the directory above it as long as there is no root.
    pub(super) fn narrow(&mut self, path: &Path) {
        if self.is_on && self.only.as_deref() != Some(path) {
            self.confine(&[path]);
        }
    }

    /// Confines this thread to `roots`; whether that could be done.
    fn confine(&mut self, roots: &[&Path]) -> bool {
        let confined = confine(roots);
        match &confined {
            Ok(are_there) => self.only = roots.first().filter(|_| *are_there && roots.len() == 1).map(PathBuf::from),
            Err(why) => self.note = Some(why.clone()),
        }
        confined.is_ok()
    }

    /// What the operators of the primary should know.
    pub(super) fn note(&self) -> Option<String> {
        let why = self.note.as_deref()?;
        Some(format!("the receiver could not confine itself to its root ([receive] sandbox): {why}"))
    }
}

/// Sets `no_new_privs`, and says why Landlock cannot be used.
fn available() -> Result<(), String> {
    let status = RestrictSelf::default().apply().map_err(|error| error.to_string())?;
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. } if effective_abi >= OLDEST => Ok(()),
        LandlockStatus::Available { .. } => {
            Err("Landlock of this kernel would forbid renames; Linux 5.19 does not".into())
        }
        LandlockStatus::NotEnabled => Err("Landlock is not enabled on this host (`lsm=` of its kernel)".into()),
        // A container's filter of system calls answers in the same way.
        _ => Err("Landlock is not available here".into()),
    }
}

/// Confines this thread to `roots`; whether all of them are there, and none stands for the directory above it.
fn confine(roots: &[&Path]) -> Result<bool, String> {
    let mut are_there = true;
    let mut restrict = || -> Result<_, RulesetError> {
        let mut rules = Ruleset::default()
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?
            .create()?;
        for path in roots {
            let root = Root::open(path);
            are_there &= root.is_ok();
            rules = allow_root(rules, path, root)?;
        }
        allow_names(rules)?.restrict_self()
    };
    match restrict() {
        Ok(status) if status.ruleset != RulesetStatus::NotEnforced => Ok(are_there),
        Ok(_) => Err("Landlock is not available here".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// All that is done in a root: nothing there is executed, and its devices and sockets are not spoken to.
fn in_root() -> BitFlags<AccessFs> {
    AccessFs::from_all(NEWEST) & !(AccessFs::Execute | AccessFs::IoctlDev | AccessFs::ResolveUnix)
}

/// A root that cannot be opened gets no rule: whoever opens it in earnest tells why it cannot be.
fn allow_root(
    rules: RulesetCreated,
    path: &Path,
    root: Result<Root, RootError>,
) -> Result<RulesetCreated, RulesetError> {
    let opened = match root {
        Err(RootError::Missing(_)) => Root::open_parent(path),
        opened => opened,
    };
    match opened.ok().and_then(|root| root.to_handle().ok()) {
        Some(handle) => rules.add_rule(PathBeneath::new(handle, in_root())),
        None => Ok(rules),
    }
}

/// What is not on this host needs no rule.
fn allow_names(mut rules: RulesetCreated) -> Result<RulesetCreated, RulesetError> {
    let below = AccessFs::ReadFile | AccessFs::ReadDir;
    let files = NAME_FILES.iter().map(|path| (path, AccessFs::ReadFile.into()));
    let directories = READABLE.iter().map(|path| (path, below));
    let sockets = NAME_SOCKETS.iter().map(|path| (path, below | AccessFs::ResolveUnix));
    for (path, access) in files.chain(directories).chain(sockets) {
        if let Ok(handle) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(handle, access))?;
        }
    }
    Ok(rules)
}

#[cfg(test)]
mod tests;
