//! Receivers that are not root, each over a real sshd as a user of its own: what they set, and what they say of the rest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;
use rustix::fs::{FileType, makedev};
use support::keep::{EXT4, file, special};
use support::properties::{attributes, differences, properties, set_attribute};
use support::scratch::{run_or_panic, tool_path};
use support::sshd::client_config;
use support::tree::set_mode;
use support::{Config, Outcome, Push, Scratch, Sshd, SshdOptions, rfleet_bin};

/// Whom the receivers run as. Nobody on this machine: only the test's sshd knows this user.
const USER: u32 = 4711;

/// A source, and a host that is reached over an sshd as the user `deploy`.
struct Far {
    scratch: Scratch,
    source: PathBuf,
    copy: PathBuf,
    /// A copy of the program, on a filesystem where it can have capabilities.
    program: PathBuf,
    /// The far side's own configuration.
    far: PathBuf,
    config: PathBuf,
    _sshd: Sshd,
}

/// What differs between the kinds of receivers.
#[derive(Default)]
struct Kind {
    /// What the primary asks to be run, with PROGRAM and FAR for the two paths; without it `PROGRAM receive --config FAR`.
    receiver: Option<&'static str>,
    /// A line for sudoers, likewise; COPY is the root's path.
    sudoers: Option<&'static str>,
    /// For authorized_keys, likewise.
    forced: Option<&'static str>,
    /// Of the program.
    capabilities: Option<&'static str>,
}

impl Far {
    fn new(kind: &Kind) -> Self {
        let scratch = Scratch::new();
        // The way to the copy, and the receiver's program, must be open to the user.
        set_mode(scratch.root(), 0o755);
        let disk = scratch.mount_image("disk", EXT4, 200 << 20);
        let (source, copy, program) =
            (scratch.mount_image("primary", EXT4, 50 << 20), disk.join("copy"), disk.join("rfleet"));
        fs::remove_dir(source.join("lost+found")).unwrap();
        fs::create_dir(&copy).unwrap();
        lchown(&copy, Some(USER), Some(USER)).unwrap();
        fs::copy(rfleet_bin(), &program).unwrap();
        if let Some(capabilities) = kind.capabilities {
            run_or_panic(Command::new("setcap").arg(capabilities).arg(&program).env("PATH", tool_path()));
        }
        let far = Config::new("cms").root("www", &copy, "").lines("[receive]\nsetuid = true\ndevices = true");
        let far = far.write(&scratch, "far.toml");
        let filled = |text: &str| {
            let text = text.replace("PROGRAM", program.to_str().unwrap()).replace("FAR", far.to_str().unwrap());
            text.replace("COPY", copy.to_str().unwrap())
        };
        let mut options =
            SshdOptions { user: Some("deploy"), forced_command: kind.forced.map(filled), ..SshdOptions::default() };
        for (name, place, line) in
            [("passwd", "/etc/passwd", "deploy:*:4711:4711::/:/bin/sh"), ("group", "/etc/group", "deploy:*:4711:")]
        {
            let text = fs::read_to_string(place).unwrap() + line + "\n";
            options.instead.push((scratch.write(name, text), place));
        }
        if let Some(line) = kind.sudoers {
            let path = scratch.write("sudoers", format!("root ALL=(ALL:ALL) ALL\n{}\n", filled(line)));
            set_mode(&path, 0o440);
            run_or_panic(Command::new("visudo").args(["-c", "-f"]).arg(&path).env("PATH", tool_path()));
            options.instead.push((path, "/etc/sudoers"));
        }
        let sshd = Sshd::start_with(&scratch, "sshd", &options);
        let client = client_config(&scratch, "ssh_config", &[sshd.client_block("box", "")]);
        let receiver = filled(kind.receiver.unwrap_or("PROGRAM receive --config FAR"));
        let config = Config::new("cms").root("www", &source, "").hosts(&["box"]).host_path("box", "www", &copy);
        let ssh = format!("[ssh]\nconfig = {client:?}\nreceiver = {receiver:?}\npersist = \"0s\"");
        let config = config.lines(&ssh).write(&scratch, "rfleet.toml");
        Far { scratch, source, copy, program, far, config, _sshd: sshd }
    }

    /// Entries of several owners, and one of each kind that takes a right to make.
    fn fill(&self) {
        let at = |name: &str| self.source.join(name);
        file(&at("file"), "x");
        lchown(at("file"), Some(4000), Some(5678)).unwrap();
        fs::create_dir(at("shared")).unwrap();
        file(&at("shared/file"), "x");
        lchown(at("shared/file"), Some(33), Some(33)).unwrap();
        set_mode(&at("shared/file"), 0o600);
        fs::create_dir(at("shared/below")).unwrap();
        lchown(at("shared/below"), Some(33), Some(33)).unwrap();
        lchown(at("shared"), Some(4000), Some(9)).unwrap();
        set_mode(&at("shared"), 0o2755);
        file(&at("setuid"), "x");
        lchown(at("setuid"), Some(33), Some(4000)).unwrap();
        set_mode(&at("setuid"), 0o6755);
        file(&at("program"), "x");
        run_or_panic(Command::new("setcap").arg("cap_net_raw+ep").arg(at("program")).env("PATH", tool_path()));
        special(&at("pipe"), FileType::Fifo, 0);
        special(&at("null"), FileType::CharacterDevice, makedev(1, 3));
    }

    fn push(&self) -> Outcome {
        let outcome = Push::configured(&self.scratch, &self.config).run();
        outcome.assert_code(0);
        outcome
    }

    fn assert_same(&self, only: &[&str], what: &str) {
        let lines = differences(&properties(&self.source), &properties(&self.copy), only);
        assert!(lines.is_empty(), "{what}: {lines:#?}");
    }

    /// The next push, and one that compares everything, must find nothing to do and say only `notes`.
    fn assert_quiet(&self, notes: &[&str]) {
        for full in [false, true] {
            let mut push = Push::configured(&self.scratch, &self.config);
            if full {
                push = push.arg("--full");
            }
            let outcome = push.ok();
            assert_eq!(outcome.report().host("box").state, "unchanged", "{}", outcome.said());
            assert_eq!(self.notes(&outcome), notes, "{}", outcome.said());
        }
    }

    fn notes(&self, outcome: &Outcome) -> Vec<String> {
        outcome.report().host("box").notes.clone()
    }

    /// What comes later arrives too, in directories that are someone else's and closed.
    fn assert_goes_on(&self, only: &[&str]) {
        file(&self.source.join("shared/file"), "changed");
        file(&self.source.join("shared/below/new"), "new");
        set_mode(&self.source.join("shared/below"), 0o500);
        fs::rename(self.source.join("shared"), self.source.join("renamed")).unwrap();
        self.push();
        self.assert_same(only, "changes");
        fs::remove_dir_all(self.source.join("renamed")).unwrap();
        self.push();
        self.assert_same(only, "removals");
    }

    fn owner(&self, name: &str) -> u32 {
        fs::symlink_metadata(self.copy.join(name)).unwrap().uid()
    }
}

const NO_DEVICE: &str =
    "1 device(s) are not made there: that takes `[receive] devices`, and for devices root or cap_mknod";

#[test]
fn a_plain_user_accounts_for_all_that_it_could_not_set_once() {
    let far = Far::new(&Kind::default());
    far.fill();
    set_attribute(&far.source.join("file"), "trusted.a", b"1");
    let first = far.push();
    assert_eq!(
        far.notes(&first),
        [
            NO_DEVICE,
            "the owner of 8 entries could not be set: the receiver runs as deploy, which may not give files away (no \
             cap_chown, cap_fowner, cap_dac_override)",
            "setuid or setgid of 1 files was left out: the receiver runs as deploy, which may not set them",
            "`trusted.*` attributes of 1 entries were left out: the receiver runs as deploy, which may not set them",
            "capabilities of 1 entries were left out: the receiver runs as deploy, which may not set them",
        ],
        "{}",
        first.said()
    );
    for name in ["", "file", "shared", "shared/file", "setuid", "pipe"] {
        assert_eq!(far.owner(name), USER, "{name}");
    }
    assert_eq!(fs::metadata(far.copy.join("setuid")).unwrap().permissions().mode() & 0o7777, 0o755);
    far.assert_quiet(&[NO_DEVICE]);
    fs::remove_file(far.source.join("null")).unwrap();
    far.assert_goes_on(&["kind", "content", "time"]);
    far.assert_quiet(&[]);
}

const ALL: &str = "cap_chown,cap_fowner,cap_dac_override,cap_fsetid,cap_mknod,cap_setfcap+ep";

/// As root, but for `trusted.*`, which takes a right to administer the whole machine.
fn assert_as_root(far: &Far) {
    far.fill();
    let first = far.push();
    assert_eq!(far.notes(&first), [""; 0], "{}", first.said());
    far.assert_same(&[], "as root");
    far.assert_quiet(&[]);
    // What became someone else's is put right.
    lchown(far.copy.join("file"), Some(77), Some(78)).unwrap();
    Push::configured(&far.scratch, &far.config).arg("--full").ok();
    far.assert_same(&[], "given back");
    far.assert_goes_on(&[]);
}

#[test]
fn a_program_with_capabilities_is_as_good_as_root() {
    let far = Far::new(&Kind { capabilities: Some(ALL), ..Kind::default() });
    assert_as_root(&far);
    set_attribute(&far.source.join("file"), "trusted.a", b"1");
    let told = far.push();
    let note = "`trusted.*` attributes of 1 entries were left out: the receiver runs as deploy, which may not set them";
    // The attribute alone is nothing that this host could be given.
    assert!(far.notes(&told).iter().all(|line| line == note), "{}", told.said());
    assert!(!attributes(&far.copy.join("file")).contains_key("trusted.a"));
    far.assert_quiet(&[]);
}

/// As a unit of systemd with AmbientCapabilities= starts its program.
#[test]
fn ambient_capabilities_are_as_good_as_those_of_the_program() {
    let names = "+chown,+fowner,+dac_override,+fsetid,+mknod,+setfcap";
    let far = Far::new(&Kind::default());
    let user = ["setpriv", "--reuid=4711", "--regid=4711", "--clear-groups", "--no-new-privs"];
    let sets = [format!("--inh-caps={names}"), format!("--ambient-caps={names}")];
    let receiver = [far.program.to_str().unwrap(), "receive", "--config", far.far.to_str().unwrap()];
    let command = [&user[..], &sets.each_ref().map(String::as_str), &receiver].concat();
    let config = Config::new("cms").root("www", &far.source, "").host_command("box", &command, "www", &far.copy);
    config.write_to(&far.config);
    assert_as_root(&far);
}

#[test]
fn three_capabilities_are_what_owners_take() {
    let far = Far::new(&Kind { capabilities: Some("cap_chown,cap_fowner,cap_dac_override+ep"), ..Kind::default() });
    far.fill();
    let first = far.push();
    assert_eq!(
        far.notes(&first),
        [
            NO_DEVICE,
            "setuid or setgid of 1 files was left out: the receiver runs as deploy, which may not set them",
            "setgid of 1 directories could not be kept: the receiver runs as deploy, which is not in their group",
            "capabilities of 1 entries were left out: the receiver runs as deploy, which may not set them",
        ],
        "{}",
        first.said()
    );
    set_mode(&far.source.join("shared"), 0o755);
    for path in [far.source.join("setuid"), far.source.join("program"), far.source.join("null")] {
        fs::remove_file(path).unwrap();
    }
    far.push();
    far.assert_same(&[], "all the rest");
    far.assert_quiet(&[]);
    far.assert_goes_on(&[]);
}

#[rstest]
#[case::chown("cap_fowner,cap_dac_override+ep", "cap_chown")]
#[case::fowner("cap_chown,cap_dac_override+ep", "cap_fowner")]
#[case::dac_override("cap_chown,cap_fowner+ep", "cap_dac_override")]
fn without_one_of_them_it_is_as_a_plain_user_and_says_which(#[case] has: &'static str, #[case] lacks: &str) {
    let far = Far::new(&Kind { capabilities: Some(has), ..Kind::default() });
    far.fill();
    let first = far.push();
    let told = format!("the receiver runs as deploy, which may not give files away (no {lacks})");
    assert!(far.notes(&first).iter().any(|note| note.ends_with(&told)), "{}", first.said());
    assert_eq!((far.owner("file"), far.owner("shared")), (USER, USER));
    far.assert_quiet(&[NO_DEVICE]);
    fs::remove_file(far.source.join("null")).unwrap();
    far.assert_goes_on(&["content", "time"]);
}

/// The line of sudoers names the command with its arguments: `=` and the like have to be escaped there.
#[rstest]
#[case::by_a_forced_command(Kind {
    forced: Some("sudo -n PROGRAM receive --config FAR"),
    sudoers: Some("deploy ALL=(root) NOPASSWD: PROGRAM receive --config FAR"),
    receiver: Some("anything at all"),
    ..Kind::default()
})]
#[case::by_the_primarys_configuration(Kind {
    receiver: Some("sudo -n PROGRAM receive --config FAR"),
    sudoers: Some("deploy ALL=(root) NOPASSWD: PROGRAM receive --config FAR --root www\\=COPY"),
    ..Kind::default()
})]
fn with_sudo_it_is_root(#[case] kind: Kind) {
    let far = Far::new(&kind);
    fs::remove_dir(&far.copy).unwrap();
    far.fill();
    set_attribute(&far.source.join("file"), "trusted.a", b"1");
    let first = far.push();
    assert_eq!(far.notes(&first), [""; 0], "{}", first.said());
    far.assert_same(&[], "as root");
    far.assert_quiet(&[]);
    far.assert_goes_on(&[]);
}

#[test]
fn sudo_starts_nothing_but_what_its_line_says() {
    let far = Far::new(&Kind {
        receiver: Some("sudo -n PROGRAM receive --config FAR"),
        sudoers: Some("deploy ALL=(root) NOPASSWD: PROGRAM receive --config FAR --root www\\=/elsewhere"),
        ..Kind::default()
    });
    file(&far.source.join("file"), "x");
    let outcome = Push::configured(&far.scratch, &far.config).run();
    outcome.assert_code(3);
    assert!(outcome.said().contains("sudo: a password is required"), "{}", outcome.said());
    assert!(Path::new(&far.copy).read_dir().unwrap().next().is_none());
}

/// The user and the effective capabilities of a hook.
#[rstest]
#[case::of_a_plain_user(Kind::default(), USER, "0000000000000000")]
#[case::of_a_program_with_capabilities(Kind { capabilities: Some(ALL), ..Kind::default() }, USER, "0000000000000000")]
#[case::of_root_by_sudo(
    Kind {
        forced: Some("sudo -n PROGRAM receive --config FAR"),
        sudoers: Some("deploy ALL=(root) NOPASSWD: PROGRAM receive --config FAR"),
        receiver: Some("anything at all"),
        ..Kind::default()
    },
    0,
    ""
)]
fn hooks_have_the_user_of_the_receiver_and_not_the_capabilities_of_its_file(
    #[case] kind: Kind,
    #[case] user: u32,
    #[case] capabilities: &str,
) {
    let far = Far::new(&kind);
    let out = far.scratch.dir("out");
    set_mode(&out, 0o777);
    let told = out.join("status");
    let hook = format!("on_commit = [{{ match = \"*\", run = [\"cp\", \"/proc/self/status\", {told:?}] }}]\n");
    let config = fs::read_to_string(&far.far).unwrap() + &hook;
    fs::write(&far.far, config).unwrap();
    file(&far.source.join("file"), "x");
    let outcome = far.push();
    assert_eq!(outcome.report().host("box").hooks[0].detail, "exit 0", "{}", outcome.said());
    let status = fs::read_to_string(told).unwrap();
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(line("Uid:").split_whitespace().next(), Some(user.to_string().as_str()));
    assert!(line("CapEff:").starts_with(capabilities) && line("NoNewPrivs:") == "0", "{status}");
}
