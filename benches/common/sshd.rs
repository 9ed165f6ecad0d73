//! A real sshd on 127.0.0.1 with its own keys, configuration, log and home directory, gone when the bench is.

use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::meter::{Accounting, Side};

/// Where Debian and most others install it; it insists on being started by its full path.
const PROGRAM: &str = "/usr/sbin/sshd";

/// A running sshd; dropped, it is stopped.
pub struct Sshd {
    child: Child,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    /// The client's configuration: hosts web1, web2 ... are all this server.
    pub client_config: PathBuf,
    /// What the server has to say.
    log: PathBuf,
}

impl Sshd {
    /// Start a server in the new directory `dir`. With `own_home`, sessions see an empty home directory, so that no
    /// start-up file of the user's shell is run and measured; the shell is the user's own either way.
    pub fn start(dir: &Path, own_home: bool, accounting: &Accounting) -> Result<Self> {
        fs::create_dir_all(dir.join("home"))?;
        let (host_key, user_key) = (dir.join("host_key"), dir.join("user_key"));
        for key in [&host_key, &user_key] {
            let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key).status()?;
            ensure!(made.success(), "ssh-keygen failed");
        }
        let port = free_port()?;
        let server_config = dir.join("sshd_config");
        private_file(&server_config, &server_lines(dir, port, own_home))?;
        let public = fs::read_to_string(host_key.with_extension("pub"))?;
        private_file(&dir.join("known_hosts"), &format!("rfleet-bench {public}"))?;
        let client_config = dir.join("ssh_config");
        private_file(&client_config, &client_lines(dir, port))?;
        let log = dir.join("sshd.log");
        let child = accounting
            .command(Side::Far, PROGRAM)
            .args(["-D", "-e", "-f"])
            .arg(&server_config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        let mut server = Self { child, port, client_config, log };
        server.wait_until_up(port)?;
        Ok(server)
    }

    /// The listener's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What one session that does nothing costs: the median of five, after one.
    pub fn session_cost(&self) -> Result<Duration> {
        let mut costs = Vec::new();
        for _ in 0..6 {
            let start = Instant::now();
            let done = Command::new("ssh").arg("-F").arg(&self.client_config).args(["web1", "true"]).output()?;
            costs.push(start.elapsed());
            if !done.status.success() {
                let said = String::from_utf8_lossy(&done.stderr).into_owned();
                bail!("ssh to the bench's own sshd failed: {said}{}", fs::read_to_string(&self.log)?);
            }
        }
        costs.remove(0);
        costs.sort_unstable();
        Ok(costs[costs.len() / 2])
    }

    fn wait_until_up(&mut self, port: u16) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("sshd did not start: {}", fs::read_to_string(&self.log)?);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // A child that has already ended needs no killing, and nobody is left to hear of anything else.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn server_lines(dir: &Path, port: u16, own_home: bool) -> String {
    let dir = dir.display();
    let home = if own_home { format!("SetEnv HOME={dir}/home\n") } else { String::new() };
    // The directories above lie in /dev/shm, which everybody can write to: StrictModes would refuse the keys.
    format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {dir}/host_key\nAuthorizedKeysFile {dir}/user_key.pub\n\
         PidFile {dir}/sshd.pid\nMaxStartups 200\nMaxSessions 64\nStrictModes no\nUsePAM no\nUseDNS no\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nPrintMotd no\n{home}"
    )
}

fn client_lines(dir: &Path, port: u16) -> String {
    let dir = dir.display();
    format!(
        "Host web*\n  HostName 127.0.0.1\n  Port {port}\n  HostKeyAlias rfleet-bench\n  IdentityFile {dir}/user_key\n  \
         IdentitiesOnly yes\n  IdentityAgent none\n  UserKnownHostsFile {dir}/known_hosts\n  GlobalKnownHostsFile none\n  \
         StrictHostKeyChecking yes\n  BatchMode yes\n"
    )
}

fn private_file(path: &Path, content: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(content.as_bytes())
}

/// A port that nobody listens on. RACE: another program may take it before sshd does; then the bench says so and ends.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}
