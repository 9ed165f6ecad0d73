//! A real sshd on 127.0.0.1 with its own keys, configuration and log, and the client's side of it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::process;
use super::scratch::{Scratch, current_user, is_root, run_or_panic, wait_until};

/// What a server does beyond letting the test's key in.
#[derive(Default)]
pub struct SshdOptions {
    /// Runs for every session instead of what was asked for, as `restrict,command="..."` in authorized_keys.
    pub forced_command: Option<String>,
    /// Files of the test's that this server, and all that runs in its sessions, sees in the place of others, such as
    /// /etc/passwd. Needs root.
    pub instead: Vec<(PathBuf, &'static str)>,
    /// Whom the client logs in as, if not as the user that runs the test.
    pub user: Option<&'static str>,
}

/// A running sshd; killed with all its sessions when dropped.
pub struct Sshd {
    directory: PathBuf,
    port: u16,
    child: Child,
    instead: Vec<(PathBuf, &'static str)>,
    user: String,
}

impl Sshd {
    pub fn start(scratch: &Scratch, name: &str) -> Self {
        Self::start_with(scratch, name, &SshdOptions::default())
    }

    pub fn start_with(scratch: &Scratch, name: &str, options: &SshdOptions) -> Self {
        if is_root() {
            fs::create_dir_all("/run/sshd").expect("/run/sshd, which sshd wants as root");
        }
        let directory = scratch.dir(name);
        for key in ["host_key", "user_key"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", key, "-f"]).arg(directory.join(key));
            run_or_panic(&mut keygen);
        }
        let key = fs::read_to_string(directory.join("user_key.pub")).unwrap();
        let limits =
            options.forced_command.as_ref().map(|c| format!("restrict,command=\"{}\" ", c.replace('"', "\\\"")));
        fs::write(directory.join("authorized_keys"), limits.unwrap_or_default() + &key).unwrap();
        // Between the choice of a port and sshd's bind another process can take it: then another port.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(child) = spawn(scratch, &directory, port, &options.instead) {
                let host_key = fs::read_to_string(directory.join("host_key.pub")).unwrap();
                fs::write(directory.join("known_hosts"), format!("[127.0.0.1]:{port} {host_key}")).unwrap();
                let user = options.user.map_or_else(current_user, str::to_owned);
                return Self { directory, port, child, instead: options.instead.clone(), user };
            }
        }
        panic!("sshd does not start: {}", fs::read_to_string(directory.join("log")).unwrap_or_default());
    }

    /// Kills it with all its sessions and starts it again at the same port; the log begins anew.
    pub fn restart(&mut self, scratch: &Scratch) {
        process::kill_tree(self.child.id());
        let _ = self.child.wait();
        wait_until("sshd at its old port", Duration::from_secs(20), || {
            spawn(scratch, &self.directory, self.port, &self.instead).map(|child| self.child = child).is_some()
        });
    }

    /// How many connections were let in so far.
    pub fn logins(&self) -> usize {
        self.log().matches("Accepted publickey").count()
    }

    /// The processes of its sessions.
    pub fn sessions(&self) -> Vec<u32> {
        process::descendants(self.pid())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The receivers that run in this server's sessions now.
    pub fn receivers(&self) -> Vec<u32> {
        process::descendants(self.pid()).into_iter().filter(|&pid| process::is_receiver(pid)).collect()
    }

    /// The client's block for `alias`; what `other` says wins, since ssh takes the first value it finds.
    pub fn client_block(&self, alias: &str, other: &str) -> String {
        let directory = self.directory.display();
        format!(
            "Host {alias}\n{other}\n  HostName 127.0.0.1\n  Port {}\n  User {}\n  IdentityFile {directory}/user_key\n  \
             IdentitiesOnly yes\n  IdentityAgent none\n  UserKnownHostsFile {directory}/known_hosts\n  \
             GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  LogLevel ERROR\n",
            self.port, self.user,
        )
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        process::kill_tree(self.child.id());
        let _ = self.child.wait();
    }
}

fn spawn(scratch: &Scratch, directory: &Path, port: u16, instead: &[(PathBuf, &'static str)]) -> Option<Child> {
    let sshd = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|p| Path::new(p).exists());
    let sshd = sshd.expect("sshd (Debian's openssh-server); tests/run installs it");
    let config = directory.join("sshd_config");
    let basic = configuration(scratch, directory, port);
    // Newer servers slow down an address whose logins fail, which some stories do on purpose; older ones do not know
    // the option.
    fs::write(&config, format!("{basic}PerSourcePenalties no\n")).unwrap();
    let knows = Command::new(sshd).arg("-t").arg("-f").arg(&config).stderr(Stdio::null()).status().unwrap().success();
    if !knows {
        fs::write(&config, basic).unwrap();
    }
    let log_path = directory.join("log");
    let log = fs::File::create(&log_path).unwrap();
    let mut command = Command::new(if instead.is_empty() { sshd } else { "unshare" });
    if !instead.is_empty() {
        // In a mount namespace of its own; the server has the id of this process in the end.
        let mount =
            "while [ \"$1\" != -- ]; do mount --bind \"$1\" \"$2\" || exit 1; shift 2; done; shift; exec \"$@\"";
        command.args(["--mount", "--propagation", "private", "sh", "-c", mount, "sh"]);
        for (file, place) in instead {
            command.arg(file).arg(place);
        }
        command.arg("--").arg(sshd);
    }
    command.arg("-D").arg("-e").arg("-f").arg(&config);
    command.env_remove(process::MARKER).process_group(0);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) {
        if fs::read_to_string(&log_path).is_ok_and(|log| log.contains("Server listening on 127.0.0.1")) {
            return Some(child);
        }
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    process::kill_tree(child.id());
    let _ = child.wait();
    None
}

fn configuration(scratch: &Scratch, directory: &Path, port: u16) -> String {
    let (d, root, tmp) = (directory.display(), scratch.root().display(), scratch.path("tmp"));
    format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {d}/host_key\nAuthorizedKeysFile {d}/authorized_keys\n\
         PidFile {d}/pid\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPubkeyAuthentication yes\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nLogLevel VERBOSE\nMaxStartups 200\n\
         MaxSessions 100\nUseDNS no\nPrintMotd no\nPrintLastLog no\n\
         SetEnv {}={root} HOME={root} TMPDIR={} STATE_DIRECTORY={} RUNTIME_DIRECTORY={}\n",
        process::MARKER,
        tmp.display(),
        scratch.dir("far-state").display(),
        scratch.dir("far-run").display(),
    )
}

/// Writes a client configuration of `blocks` and returns its path.
pub fn client_config(scratch: &Scratch, name: &str, blocks: &[String]) -> PathBuf {
    scratch.write(name, blocks.join("\n"))
}
