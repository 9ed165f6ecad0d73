//! A temporary place of a test's own: home, temporary directory, trees; gone, with its processes, when it is dropped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process;

/// Waits until `condition` holds; panics with `what` at the deadline.
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Where this place's rfleet keeps what outlives a push.
pub const STATE: &str = "state";

/// Where this place's rfleet keeps what does not outlive the machine.
pub const RUNTIME: &str = "run";

/// The place. In memory (/dev/shm) where the machine has that, since the stories write a lot.
pub struct Scratch {
    directory: TempDir,
    mounts: std::cell::RefCell<Vec<PathBuf>>,
}

impl Scratch {
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let builder = || {
            let mut builder = tempfile::Builder::new();
            builder.prefix("rfleet-test-");
            builder
        };
        let directory = builder().tempdir_in(memory).or_else(|_| builder().tempdir()).expect("a temporary directory");
        let scratch = Self { directory, mounts: std::cell::RefCell::default() };
        scratch.dir("home");
        scratch.dir("tmp");
        for private in [RUNTIME, STATE] {
            use std::os::unix::fs::PermissionsExt as _;
            let path = scratch.dir(private);
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
        }
        scratch
    }

    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// A path below, created as a directory.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// An executable /bin/sh script.
    pub fn script(&self, name: &str, body: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.write(name, format!("#!/bin/sh\n{body}\n"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Gives `command` this place's environment and nothing of the caller's.
    pub fn hermetic(&self, command: &mut Command) {
        command.env_clear();
        command.env("PATH", tool_path());
        command.env("HOME", self.path("home")).env("TMPDIR", self.path("tmp"));
        command.env("STATE_DIRECTORY", self.path(STATE)).env("RUNTIME_DIRECTORY", self.path(RUNTIME));
        command.env("LANG", "C.UTF-8").env("USER", current_user()).env("LOGNAME", current_user());
        command.env(process::MARKER, self.root());
    }

    /// A tmpfs of `options` (as for `mount -o`) at `name`; unmounted at the end. Needs root.
    pub fn mount_tmpfs(&self, name: &str, options: &str) -> PathBuf {
        let at = self.dir(name);
        self.mount(&["-t", "tmpfs", "-o", options, "tmpfs"], &at);
        at
    }

    /// A read-only view of `of` at `name`; unmounted at the end. Needs root.
    pub fn mount_read_only(&self, of: &Path, name: &str) -> PathBuf {
        let at = self.dir(name);
        let of = of.to_str().unwrap();
        self.mount(&["--bind", of], &at);
        run_or_panic(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(&at));
        at
    }

    /// A filesystem of its own in a file, made by `mkfs` (a program and its options) and mounted at `name`; unmounted at
    /// the end. Needs root.
    pub fn mount_image(&self, name: &str, mkfs: &[&str], bytes: u64) -> PathBuf {
        let (image, at) = (self.image(name), self.dir(name));
        std::fs::File::create(&image).unwrap().set_len(bytes).unwrap();
        run_or_panic(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&image).env("PATH", tool_path()));
        self.mount_again(name);
        self.mounts.borrow_mut().push(at.clone());
        at
    }

    /// Mounts the filesystem of [`Scratch::mount_image`] once more, after [`Scratch::unmount`].
    pub fn mount_again(&self, name: &str) {
        need_root();
        run_or_panic(Command::new("mount").args(["-o", "loop"]).arg(self.image(name)).arg(self.path(name)));
    }

    /// Takes the filesystem at `name` away, to be mounted again.
    pub fn unmount(&self, name: &str) {
        run_or_panic(Command::new("umount").arg(self.path(name)));
        // A process elsewhere with a mount namespace of its own may have a copy of the mount; as long as it is there, the
        // same filesystem would come back, and not what is in the file.
        let image = self.image(name);
        let is_free = || {
            let mut losetup = Command::new("losetup");
            run_or_panic(losetup.arg("-j").arg(&image).env("PATH", tool_path())).is_empty()
        };
        wait_until("the disk, which another mount namespace holds", Duration::from_secs(60), is_free);
    }

    fn image(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.image"))
    }

    fn mount(&self, arguments: &[&str], at: &Path) {
        need_root();
        run_or_panic(Command::new("mount").args(arguments).arg(at));
        self.mounts.borrow_mut().push(at.to_owned());
    }

    /// Processes that commands of this place started and that are still there, the sshds of the test apart.
    pub fn leftovers(&self) -> Vec<String> {
        process::marked(self.root()).into_iter().map(process::describe).collect()
    }

    /// The ssh processes that hold connections for later runs.
    pub fn masters(&self) -> Vec<u32> {
        process::marked(self.root()).into_iter().filter(|&pid| process::is_ssh_client(pid)).collect()
    }

    /// The sockets of kept connections, and whatever else lies with them.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.path("run/ssh")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Ends the kept connections.
    pub fn stop_masters(&self) {
        for pid in self.masters() {
            process::kill(pid);
            wait_until("a master to end", Duration::from_secs(20), || !process::alive(pid));
        }
    }

    /// Asserts that every process started here (sshd and its sessions are not counted) ends by itself.
    pub fn assert_no_leftovers(&self) {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let left = self.leftovers();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "processes stay behind:\n{}", left.join("\n"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for pid in process::marked(self.root()) {
            process::kill(pid);
        }
        for at in self.mounts.borrow().iter().rev() {
            let _ = Command::new("umount").arg("-l").arg(at).status();
        }
        if std::thread::panicking() && std::env::var_os("RFLEET_TEST_KEEP").is_some() {
            eprintln!("kept: {}", self.root().display());
            self.directory.disable_cleanup(true);
        }
    }
}

/// The name of the user that runs the tests.
pub fn current_user() -> String {
    let uid = nix::unistd::Uid::effective();
    nix::unistd::User::from_uid(uid).unwrap().map_or_else(|| uid.to_string(), |user| user.name)
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Panics unless root runs the test.
fn need_root() {
    assert!(is_root(), "this story mounts a filesystem and needs root: run it as root");
}

/// The caller's search path, with the places of the administrator's tools.
pub fn tool_path() -> String {
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".into());
    format!("{path}:/usr/sbin:/sbin")
}

/// Runs a tool of the test and returns its standard output.
pub fn run_or_panic(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}; tests/run installs it"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
