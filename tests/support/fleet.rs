//! Several hosts behind one sshd, each with a destination of its own.

use std::path::{Path, PathBuf};

use super::rfleet::{Push, rfleet_bin};
use super::scratch::Scratch;
use super::sshd::{Sshd, SshdOptions, client_config};

/// Hosts `web1` ... `webN` over real SSH.
pub struct Fleet {
    pub sshd: Sshd,
    pub client: PathBuf,
    pub hosts: Vec<Host>,
}

pub struct Host {
    pub alias: String,
    pub path: PathBuf,
}

impl Host {
    /// The destination as it is given on the command line.
    pub fn destination(&self) -> String {
        format!("{}:{}", self.alias, self.path.display())
    }
}

impl Fleet {
    pub fn start(scratch: &Scratch, count: usize) -> Self {
        Self::start_with(scratch, count, &SshdOptions::default())
    }

    pub fn start_with(scratch: &Scratch, count: usize, options: &SshdOptions) -> Self {
        let sshd = Sshd::start_with(scratch, "sshd", options);
        let hosts: Vec<_> = (1..=count)
            .map(|n| Host { alias: format!("web{n}"), path: scratch.dir(&format!("hosts/web{n}")).join("www") })
            .collect();
        let blocks: Vec<_> = hosts.iter().map(|h| sshd.client_block(&h.alias, "")).collect();
        let client = client_config(scratch, "ssh_config", &blocks);
        Self { sshd, client, hosts }
    }

    pub fn destinations(&self) -> Vec<String> {
        self.hosts.iter().map(Host::destination).collect()
    }

    /// A push of `source` to all hosts (and to `also`) with the client's configuration and our receiver.
    pub fn push<'a>(&self, scratch: &'a Scratch, source: &Path, also: &[String]) -> Push<'a> {
        let destinations: Vec<_> = self.destinations().into_iter().chain(also.iter().cloned()).collect();
        over_ssh(Push::adhoc(scratch, source, &destinations), &self.client)
    }
}

/// The flags for hosts behind `client`, an ssh_config.
pub fn over_ssh<'a>(push: Push<'a>, client: &Path) -> Push<'a> {
    push.arg("--ssh-config").arg(client).arg("--receiver").arg(receiver())
}

/// The command for the far side: this build.
pub fn receiver() -> String {
    format!("{} receive", rfleet_bin().display())
}
