//! A whole host loses its power in the middle of a commit: its network falls silent, its processes are gone, and its disk
//! has what was synced. Then it starts again at the same address.
//!
//! The host is a network namespace with an sshd, and an XFS of its own whose power can be cut. The primary's ssh runs in
//! another namespace, with a cable between the two.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::scratch::{run_or_panic, tool_path};
use support::{Config, Ledger, Push, Rng, Scratch, process, rfleet_bin, versions, wait_until};

const FILES: u64 = 12;
const DISK: &str = "disk";
const ADDRESS: &str = "10.78.0.2";

/// How often the power fails, and what the primary waits for a host that says nothing.
const CUTS: usize = 4;
const TIMEOUT: &str = "3s";

fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", tool_path());
    command
}

/// Two network namespaces with a cable between them.
struct Cable {
    primary: String,
    host: String,
}

impl Cable {
    fn new() -> Self {
        let [primary, host] = ["p", "h"].map(|end| format!("rft{}{end}", std::process::id()));
        let cable = Self { primary, host };
        for name in [&cable.primary, &cable.host] {
            run_or_panic(tool("ip").args(["netns", "add", name]));
            run_or_panic(tool("ip").args(["-n", name, "link", "set", "lo", "up"]));
        }
        let ends = ["link", "add", "cable", "netns", &cable.primary, "type", "veth", "peer", "name", "cable"];
        run_or_panic(tool("ip").args(ends).args(["netns", &cable.host]));
        for (name, address) in [(&cable.primary, "10.78.0.1/24"), (&cable.host, "10.78.0.2/24")] {
            run_or_panic(tool("ip").args(["-n", name, "address", "add", address, "dev", "cable"]));
        }
        cable.plug(true);
        run_or_panic(tool("ip").args(["-n", &cable.primary, "link", "set", "cable", "up"]));
        cable
    }

    fn plug(&self, is_in: bool) {
        run_or_panic(tool("ip").args(["-n", &self.host, "link", "set", "cable", if is_in { "up" } else { "down" }]));
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in [&self.primary, &self.host] {
            let _ = tool("ip").args(["netns", "del", name]).status();
        }
    }
}

struct Host {
    cable: Cable,
    directory: PathBuf,
    sshd: Option<Child>,
}

impl Host {
    fn new(scratch: &Scratch) -> Self {
        std::fs::create_dir_all("/run/sshd").expect("/run/sshd, which sshd wants");
        let directory = scratch.dir("host");
        for key in ["host_key", "user_key"] {
            run_or_panic(tool("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(directory.join(key)));
        }
        let d = directory.display();
        let config = format!(
            "Port 22\nListenAddress {ADDRESS}\nHostKey {d}/host_key\nAuthorizedKeysFile {d}/user_key.pub\nPidFile none\n\
             StrictModes no\nUsePAM no\nPermitRootLogin yes\nUseDNS no\nPrintMotd no\nPrintLastLog no\nSetEnv HOME={d}\n"
        );
        scratch.write("host/sshd_config", config);
        let mut host = Self { cable: Cable::new(), directory, sshd: None };
        host.start();
        let key = std::fs::read_to_string(host.directory.join("host_key.pub")).unwrap();
        scratch.write("host/known_hosts", format!("{ADDRESS} {key}"));
        // rfleet finds this ssh first: it runs where the cable ends.
        let ssh = ["/usr/bin/ssh", "/usr/local/bin/ssh"].into_iter().find(|path| Path::new(path).exists()).unwrap();
        scratch.script("bin/ssh", &format!("exec nsenter --net=/run/netns/{} {ssh} \"$@\"", host.cable.primary));
        host
    }

    fn start(&mut self) {
        let log = self.directory.join("log");
        // Not `ip netns exec`: that takes a copy of all mounts, which keeps the disk busy.
        let mut sshd = tool("nsenter");
        sshd.arg(format!("--net=/run/netns/{}", self.cable.host)).args(["/usr/sbin/sshd", "-D", "-e", "-f"]);
        sshd.arg(self.directory.join("sshd_config")).env_remove(process::MARKER).process_group(0);
        sshd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        self.sshd = Some(sshd.spawn().unwrap());
        self.cable.plug(true);
        wait_until("the host's sshd", Duration::from_secs(20), || {
            std::fs::read_to_string(&log).is_ok_and(|log| log.contains("Server listening"))
        });
        // The primary's kernel may remember for a while that nobody was there.
        wait_until("the way to the host", Duration::from_secs(20), || {
            let mut scan = tool("nsenter");
            scan.arg(format!("--net=/run/netns/{}", self.cable.primary)).args(["ssh-keyscan", "-T", "1", ADDRESS]);
            scan.stderr(Stdio::null()).output().is_ok_and(|output| !output.stdout.is_empty())
        });
    }

    /// Nothing is flushed, nobody says goodbye.
    fn power_off(&mut self, disk: &Path) {
        self.cable.plug(false);
        run_or_panic(tool("xfs_io").args(["-x", "-c", "shutdown"]).arg(disk));
        if let Some(mut sshd) = self.sshd.take() {
            process::kill_tree(sshd.id());
            let _ = sshd.wait();
        }
    }

    fn client_config(&self, scratch: &Scratch) -> PathBuf {
        let d = self.directory.display();
        scratch.write(
            "ssh_config",
            format!(
                "Host box\n  HostName {ADDRESS}\n  User root\n  IdentityFile {d}/user_key\n  IdentitiesOnly yes\n  \
                 IdentityAgent none\n  UserKnownHostsFile {d}/known_hosts\n  GlobalKnownHostsFile /dev/null\n  \
                 StrictHostKeyChecking yes\n  LogLevel ERROR\n"
            ),
        )
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut sshd) = self.sshd.take() {
            process::kill_tree(sshd.id());
            let _ = sshd.wait();
        }
    }
}

struct Story {
    host: Host,
    scratch: Scratch,
    ledger: Ledger,
    config: PathBuf,
    version: u64,
}

impl Story {
    fn new() -> Self {
        let scratch = Scratch::new();
        let copy = scratch.mount_image(DISK, &["mkfs.xfs", "-q"], 320 << 20).join("www");
        let host = Host::new(&scratch);
        let far = Config::new("cms").root("www", &copy, "").lines("[receive]\ndurability = \"commit\"");
        let far = far.write(&scratch, "far.toml");
        let ledger = Ledger::new(scratch.path("source"), copy);
        let receiver = format!("{} receive --config {}", rfleet_bin().display(), far.display());
        let ssh = format!(
            "[ssh]\nconnect_timeout = \"2s\"\nconfig = {:?}\nreceiver = {receiver:?}",
            host.client_config(&scratch)
        );
        let config = Config::new("cms").root("www", &ledger.source, "delete = true\nmax_delete = \"100%\"");
        let config = config.hosts(&["box"]).host_path("box", "www", &ledger.copy).lines(&ssh);
        let config = config.write(&scratch, "rfleet.toml");
        let mut story = Self { host, scratch, ledger, config, version: 0 };
        story.change();
        story
    }

    fn change(&mut self) {
        self.version += 1;
        versions::write(&self.ledger.source, FILES, self.version);
        versions::write_moving(&self.ledger.source, self.version);
        versions::write_small(&self.ledger.source, self.version);
    }

    fn push(&self) -> Push<'_> {
        let path = format!("{}:{}", self.scratch.path("bin").display(), tool_path());
        Push::configured(&self.scratch, &self.config).args(&["--timeout", TIMEOUT, "--host", "box"]).env("PATH", path)
    }

    fn converge(&mut self, what: &str) -> Duration {
        let outcome = self.push().run();
        assert_eq!(outcome.code(), Some(0), "{what}: {}", outcome.said());
        self.ledger.note_acknowledged(what);
        outcome.wall
    }

    fn start_again(&mut self) {
        self.scratch.unmount(DISK);
        self.scratch.mount_again(DISK);
        self.host.start();
    }
}

#[test]
fn a_host_without_power_is_given_up_in_time_and_has_what_it_acknowledged_when_it_starts_again() {
    let mut story = Story::new();
    let mut rng = Rng::new(77);
    story.converge("the first push");
    story.change();
    let mut clean = story.converge("a push");
    let mut hits = 0;
    for attempt in 0..4 * CUTS {
        if hits == CUTS {
            break;
        }
        story.change();
        let what = format!("cut {attempt}, version {}", story.version);
        let running = story.push().start();
        // The story is about a random moment, so this is a wait for nothing but time.
        std::thread::sleep(clean * u32::try_from(rng.below(1_000)).unwrap() / 1_000);
        story.host.power_off(&story.scratch.path(DISK));
        // Silence of the session or of a handshake, and then whoever is to end has his grace.
        let outcome = running.finish_within(Duration::from_secs(30));
        story.start_again();
        story.ledger.check(&outcome, "box", &what);
        if outcome.code() == Some(0) {
            clean = clean * 9 / 10;
            continue;
        }
        hits += 1;
        // The connection that was kept leads to a host that knows nothing of it.
        clean = clean.max(story.converge(&what));
    }
    story.scratch.stop_masters();
    assert_eq!(hits, CUTS, "cuts in the middle of a push, which takes {clean:?}");
}
