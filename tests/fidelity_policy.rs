//! What a copy keeps by the receiver's policy, rights and filesystem, and by history: attributes alone, owners, times that
//! do not fit, holes longer than the disk, paths longer than paths.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;
use rustix::fs::{FileType, Mode, OFlags, makedev, mkdirat, openat};
use support::keep::{Configured, EXT4, acl, file, sparse, special};
use support::properties::{differences, properties, remove_attribute, set_attribute};
use support::scratch::{run_or_panic, tool_path};
use support::tree::{set_mode, set_time};
use support::{Config, Push, Rng, Scratch, rfleet_bin};

#[test]
fn a_push_by_configuration_notices_attributes_alone() {
    let fleet = Configured::new("", "");
    let at = |name: &str| fleet.source.join(name);
    fs::create_dir(at("directory")).unwrap();
    for name in ["file", "directory/other"] {
        file(&at(name), "x");
    }
    symlink("file", at("link")).unwrap();
    fleet.push();
    type Change = fn(&dyn Fn(&str) -> PathBuf);
    let changes: [(&str, Change); 6] = [
        ("an attribute of a file", |at| set_attribute(&at("file"), "user.a", b"1")),
        ("another value", |at| set_attribute(&at("file"), "user.a", b"2")),
        ("an ACL", |at| acl(&["-m", "u:33:r"], &at("directory/other"))),
        ("a default ACL", |at| acl(&["-d", "-m", "g:33:r"], &at("directory"))),
        ("the root, a link", |at| {
            set_attribute(&at(""), "user.root", b"1");
            set_attribute(&at("link"), "trusted.a", b"1");
        }),
        ("taken away", |at| {
            remove_attribute(&at("file"), "user.a");
            acl(&["-k"], &at("directory"));
        }),
    ];
    for (what, change) in changes {
        change(&at);
        let outcome = fleet.push();
        fleet.assert_same(&["attribute", "mode", "content", "time"], what);
        let host = outcome.report();
        assert_eq!(host.host("box").files_sent, 0, "{what}: {}", outcome.said());
        assert_eq!(fleet.push().report().host("box").state, "unchanged", "{what}");
    }
    // A comparison of everything finds the same.
    let full = Push::configured(&fleet.scratch, &fleet.config).arg("--full").ok();
    assert_eq!(full.report().host("box").state, "unchanged", "{}", full.said());
    // A copy's own are put right by it.
    set_attribute(&fleet.copy.join("file"), "user.own", b"1");
    Push::configured(&fleet.scratch, &fleet.config).arg("--full").ok();
    fleet.assert_same(&["attribute"], "repaired");
}

#[test]
fn a_root_without_xattrs_leaves_them_alone() {
    let fleet = Configured::new("xattrs = false", "");
    file(&fleet.source.join("file"), "x");
    set_attribute(&fleet.source.join("file"), "user.a", b"1");
    fleet.push();
    set_attribute(&fleet.copy.join("file"), "user.own", b"1");
    set_mode(&fleet.source.join("file"), 0o600);
    fleet.push();
    let found = support::properties::attributes(&fleet.copy.join("file"));
    assert_eq!(found.keys().collect::<Vec<_>>(), ["user.own"]);
}

#[test]
fn a_receiver_takes_only_what_its_policy_allows() {
    let fleet = Configured::new("", "");
    let at = |name: &str| fleet.source.join(name);
    for name in ["program", "setuid"] {
        file(&at(name), "x");
    }
    set_mode(&at("setuid"), 0o6755);
    run_or_panic(Command::new("setcap").arg("cap_net_raw+ep").arg(at("program")).env("PATH", tool_path()));
    set_attribute(&at("program"), "security.rfleet-test", b"label");
    set_attribute(&at("program"), "user.a", b"1");
    special(&at("pipe"), FileType::Fifo, 0);
    special(&at("null"), FileType::CharacterDevice, makedev(1, 3));
    special(&at("socket"), FileType::Socket, 0);
    let outcome = fleet.push();
    let found = support::properties::attributes(&fleet.copy.join("program"));
    assert_eq!(found.keys().collect::<Vec<_>>(), ["user.a"], "{}", outcome.said());
    assert_eq!(fs::metadata(fleet.copy.join("setuid")).unwrap().permissions().mode() & 0o7777, 0o755);
    for name in ["pipe", "null", "socket"] {
        assert!(fs::symlink_metadata(fleet.copy.join(name)).is_err(), "{name} was made");
    }
    assert!(outcome.said().contains("1 named pipe(s) and 1 device(s) are not made there"), "{}", outcome.said());
    assert!(outcome.said().contains("1 socket(s) are not synced"), "{}", outcome.said());
    assert_eq!(fleet.push().report().host("box").state, "unchanged");

    let open = Configured::new("", "setuid = true\ndevices = true\nlabels = true");
    run_or_panic(Command::new("cp").args(["-a", "-T"]).arg(&fleet.source).arg(&open.source));
    fs::remove_file(open.source.join("socket")).unwrap();
    open.push();
    open.assert_same(&["attribute", "kind", "mode"], "everything is allowed");
    assert_eq!(open.push().report().host("box").state, "unchanged");
}

/// What `Configured` has, with a receiver that runs as the user 1234, of the groups 1234 and 5678.
fn unprivileged(receive: &str) -> Configured {
    let fleet = Configured::new("", receive);
    // The way to the copy, and the receiver's program, must be open to it.
    set_mode(fleet.scratch.root(), 0o755);
    let (program, far) = (fleet.scratch.path("rfleet"), fleet.scratch.path("far.toml"));
    fs::copy(rfleet_bin(), &program).unwrap();
    let own = ["setpriv", "--reuid=1234", "--regid=1234", "--groups=5678"];
    let command = [&own[..], &[program.to_str().unwrap(), "receive", "--config", far.to_str().unwrap()]].concat();
    let config = Config::new("cms").root("www", &fleet.source, "").host_command("box", &command, "www", &fleet.copy);
    config.write(&fleet.scratch, "rfleet.toml");
    fs::create_dir(&fleet.copy).unwrap();
    lchown(&fleet.copy, Some(1234), Some(1234)).unwrap();
    fleet
}

fn owner(path: &Path) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid())
}

/// A tree of several owners, with a directory whose group is handed on, and ACLs that name someone.
fn owned_tree(at: &Path) {
    file(&at.join("file"), "x");
    lchown(at.join("file"), Some(4000), Some(5678)).unwrap();
    fs::create_dir(at.join("shared")).unwrap();
    lchown(at.join("shared"), Some(4000), Some(9)).unwrap();
    set_mode(&at.join("shared"), 0o2775);
    file(&at.join("shared/file"), "x");
    lchown(at.join("shared/file"), Some(33), Some(33)).unwrap();
    fs::create_dir(at.join("shared/below")).unwrap();
    lchown(at.join("shared/below"), Some(33), Some(33)).unwrap();
    set_mode(&at.join("shared/below"), 0o755);
    acl(&["-m", "u:33:rw,g:33:r"], &at.join("file"));
}

const OWNED: [&str; 5] = ["", "file", "shared", "shared/file", "shared/below"];

#[rstest]
#[case::preserve("preserve", None)]
#[case::numeric("numeric", None)]
#[case::fixed("fixed:33:7", Some((33, 7)))]
#[case::names("fixed:www-data:lp", Some((33, 7)))]
#[case::receiver("receiver", Some((0, 0)))]
fn root_gives_entries_to_whom_its_policy_says(#[case] policy: &str, #[case] all: Option<(u32, u32)>) {
    let fleet = Configured::new("", &format!("owner = \"{policy}\""));
    owned_tree(&fleet.source);
    fleet.push();
    let check = |what: &str| {
        for name in OWNED {
            let wanted = all.unwrap_or_else(|| owner(&fleet.source.join(name)));
            assert_eq!(owner(&fleet.copy.join(name)), wanted, "{what}: {name}");
        }
        fleet.assert_same(&["mode", "attribute", "content", "time"], what);
    };
    check("the first push");
    assert_eq!(fleet.push().report().host("box").state, "unchanged");
    // Whose entries became someone else's is found by the comparison of everything.
    for name in &OWNED[1..] {
        lchown(fleet.copy.join(name), Some(77), Some(78)).unwrap();
    }
    Push::configured(&fleet.scratch, &fleet.config).arg("--full").ok();
    check("after they were given away");
    let full = Push::configured(&fleet.scratch, &fleet.config).arg("--full").ok();
    assert_eq!(full.report().host("box").state, "unchanged", "{}", full.said());
}

#[test]
fn a_fixed_owner_whom_a_host_does_not_know_is_refused() {
    let fleet = Configured::new("", "owner = \"fixed:nobody-of-this-name:0\"");
    file(&fleet.source.join("file"), "x");
    let outcome = Push::configured(&fleet.scratch, &fleet.config).run();
    outcome.assert_code(3);
    assert!(outcome.said().contains("there is no user `nobody-of-this-name` on this host"), "{}", outcome.said());
    assert!(fs::symlink_metadata(fleet.copy.join("file")).is_err());
}

#[rstest]
#[case::preserve("preserve")]
#[case::numeric("numeric")]
#[case::fixed("fixed:33:5678")]
#[case::receiver("receiver")]
fn an_unprivileged_receiver_keeps_all_but_what_is_not_its_to_give(#[case] policy: &str) {
    let fleet = unprivileged(&format!("owner = \"{policy}\"\nsetuid = true\ndevices = true"));
    owned_tree(&fleet.source);
    let at = |name: &str| fleet.source.join(name);
    set_attribute(&at("file"), "user.a", b"1");
    set_mode(&at("file"), 0o444);
    special(&at("pipe"), FileType::Fifo, 0);
    special(&at("null"), FileType::CharacterDevice, makedev(1, 3));
    sparse(&at("sparse"));
    let outcome = fleet.push();
    for name in OWNED {
        assert_eq!(owner(&fleet.copy.join(name)).0, 1234, "{name}");
    }
    let group = |name: &str| owner(&fleet.copy.join(name)).1;
    let (file_group, other_group) = match policy {
        "fixed:33:5678" => (5678, 5678),
        "receiver" => (1234, 1234),
        _ => (5678, 1234),
    };
    assert_eq!((group("file"), group("shared"), group("sparse")), (file_group, other_group, other_group), "{policy}");
    assert!(fs::symlink_metadata(fleet.copy.join("null")).is_err(), "a device was made");
    assert!(outcome.said().contains("1 device(s) are not made there"), "{}", outcome.said());
    assert_eq!(outcome.said().contains("which may not give files away"), policy != "receiver", "{}", outcome.said());
    fs::remove_file(at("null")).unwrap();
    fleet.push();
    fleet.assert_same(&["mode", "attribute", "content", "layout", "time", "kind"], policy);

    // In directories that it may not write to.
    set_mode(&at("shared"), 0o2555);
    fleet.push();
    file(&at("shared/file"), "changed");
    fs::remove_dir(at("shared/below")).unwrap();
    fleet.push();
    fleet.assert_same(&["mode", "attribute", "content", "time", "kind"], "read-only directories");
    assert_eq!(fleet.push().report().host("box").state, "unchanged");
}

#[test]
fn a_setgid_that_cannot_be_kept_is_told() {
    let fleet = unprivileged("");
    fs::create_dir(fleet.source.join("d")).unwrap();
    set_mode(&fleet.source.join("d"), 0o2775);
    // A directory of a group that the receiver is no member of.
    fs::create_dir(fleet.copy.join("d")).unwrap();
    lchown(fleet.copy.join("d"), Some(1234), Some(9)).unwrap();
    let outcome = Push::configured(&fleet.scratch, &fleet.config).arg("--adopt").ok();
    assert!(outcome.said().contains("setgid of 1 directories could not be kept"), "{}", outcome.said());
    assert_eq!(fs::metadata(fleet.copy.join("d")).unwrap().permissions().mode() & 0o7777, 0o775);
}

/// An ext4 with small inodes holds whole seconds from 1901 to 2038.
#[test]
fn a_time_that_a_filesystem_cannot_hold_is_told_once() {
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    let disk = scratch.mount_image("disk", &["mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "128"], 50 << 20);
    let copy = disk.join("copy");
    for (name, secs) in [("past", -(1 << 33)), ("now", 1_700_000_000), ("future", 1 << 33)] {
        file(&source.join(name), "x");
        set_time(&source.join(name), (secs, 123_456_789));
    }
    let pushed = Push::adhoc(&scratch, &source, &[&copy]).ok();
    assert!(pushed.said().contains("2 entries have times that the filesystem"), "{}", pushed.said());
    use std::os::unix::fs::MetadataExt;
    let time = |name: &str| fs::metadata(copy.join(name)).unwrap().mtime();
    assert_eq!([time("past"), time("now"), time("future")], [-(1 << 31), 1_700_000_000, (1 << 31) - 1]);
    let again = Push::adhoc(&scratch, &source, &[&copy]).ok();
    assert_eq!(again.report().root().hosts[0].state, "unchanged", "{}", again.said());
    // What changes there still arrives.
    file(&source.join("future"), "changed");
    set_time(&source.join("future"), (1 << 34, 0));
    let last = Push::adhoc(&scratch, &source, &[&copy]).ok();
    assert!(!last.said().contains("not what it was taken to be"), "{}", last.said());
}

/// By history, where nothing there is looked at before.
#[test]
fn what_a_filesystem_made_of_a_time_is_expected_there() {
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    let disk = scratch.mount_image("disk", &["mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "128"], 50 << 20);
    let copy = disk.join("copy");
    let command = [rfleet_bin().to_str().unwrap(), "receive", "--root", &format!("www={}", copy.display())];
    let config = Config::new("cms").root("www", &source, "").host_command("box", &command, "www", &copy);
    let config = config.write(&scratch, "rfleet.toml");
    for name in ["changes", "renamed", "goes", "mode"] {
        file(&source.join(name), name);
        set_time(&source.join(name), (1_700_000_000, 123_456_789));
    }
    Push::configured(&scratch, &config).ok();
    file(&source.join("changes"), "other");
    fs::rename(source.join("renamed"), source.join("new name")).unwrap();
    fs::remove_file(source.join("goes")).unwrap();
    set_mode(&source.join("mode"), 0o600);
    let outcome = Push::configured(&scratch, &config).ok();
    let host = outcome.report();
    assert_eq!(host.host("box").state, "done", "{}", outcome.said());
    let lines = differences(&properties(&source), &properties(&copy), &["content", "mode"]);
    assert!(lines.is_empty(), "{lines:#?}");
    assert!(!copy.join(".rfleet/attic").exists());
}

#[test]
fn a_file_longer_than_the_disk_arrives_if_its_data_fits() {
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    let disk = scratch.mount_image("disk", EXT4, 30 << 20);
    let large = fs::File::create(source.join("image")).unwrap();
    large.set_len(500 << 20).unwrap();
    large.write_all_at(&Rng::new(1).bytes(1 << 20), 300 << 20).unwrap();
    let copy = disk.join("copy");
    Push::adhoc(&scratch, &source, &[&copy]).ok();
    let lines = differences(&properties(&source), &properties(&copy), &["content", "layout"]);
    assert!(lines.is_empty(), "{lines:#?}");
}

/// The directory `depth` levels of `name` below `from`, by handle; made where `make` is set.
fn descend(from: &Path, name: &str, depth: usize, make: bool) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut at = rustix::fs::open(from, flags, Mode::empty()).unwrap();
    for _ in 0..depth {
        if make {
            mkdirat(&at, name, Mode::from_raw_mode(0o755)).unwrap();
        }
        at = openat(&at, name, flags, Mode::empty()).unwrap();
    }
    at
}

/// Linux takes no path longer than 4,095 bytes; handles lead there all the same.
#[test]
fn paths_that_are_longer_than_a_path_can_be_arrive() {
    let scratch = Scratch::new();
    let name = "n".repeat(200);
    // The root and the path below it together are too long; each alone is not.
    let (mut source, mut copy) = (scratch.dir("source"), scratch.dir("copy"));
    for _ in 0..15 {
        (source, copy) = (source.join(&name), copy.join(&name));
    }
    fs::create_dir_all(&source).unwrap();
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    let deepest = descend(&source, &name, 20, true);
    drop(openat(&deepest, "file", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600)).unwrap());
    Push::adhoc(&scratch, &source, &[&copy]).ok();
    assert!(openat(descend(&copy, &name, 20, false), "file", OFlags::RDONLY, Mode::empty()).is_ok());
    let again = Push::adhoc(&scratch, &source, &[&copy]).arg("-X").ok();
    assert_eq!(again.report().root().hosts[0].state, "unchanged", "{}", again.said());
}
