//! What a copy keeps, by what tool: each row of the table in docs/fidelity.md is made here, with rfleet, rsync and cp on
//! filesystems of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mkdirat, mknodat, openat};
use support::properties::{differences, properties, remove_attribute, set_attribute};
use support::scratch::{run_or_panic, tool_path};
use support::tree::{set_mode, set_time};
use support::{Config, Push, Rng, Scratch, rfleet_bin};

const EXT4: &[&str] = &["mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "256"];
const XFS: &[&str] = &["mkfs.xfs", "-q"];

/// One row of the table: what is made, changed, and looked at.
struct Row {
    /// As the table calls it.
    name: &'static str,
    /// The properties that count; all if there are none.
    only: &'static [&'static str],
    make: fn(&Path),
    /// Done to the source after it was copied once; then it is copied again.
    change: Option<fn(&Path)>,
    /// Whether rfleet, rsync and cp keep it.
    kept: [bool; 3],
}

const KEPT: [bool; 3] = [true; 3];

fn file(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    set_time(path, (1_600_000_000, 5));
}

fn special(path: &Path, kind: FileType, device: u64) {
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).unwrap();
}

fn acl(options: &[&str], path: &Path) {
    run_or_panic(Command::new("setfacl").args(options).arg(path).env("PATH", tool_path()));
}

/// Data, a hole, data, a hole up to the end.
fn sparse(path: &Path) {
    let sparse = fs::File::create(path).unwrap();
    let bytes = Rng::new(3).bytes(1 << 20);
    sparse.write_all_at(&bytes, 0).unwrap();
    sparse.write_all_at(&bytes[..70_000], 9 << 20).unwrap();
    sparse.set_len(20 << 20).unwrap();
}

fn rows() -> Vec<Row> {
    let row = |name, only, make, kept| Row { name, only, make, change: None, kept };
    let changed = |name, only, make, change, kept| Row { name, only, make, change: Some(change), kept };
    vec![
        row(
            "content, empty directories, names of any bytes up to 255",
            &["kind", "content"],
            |at| {
                fs::create_dir_all(at.join("empty/deeper")).unwrap();
                file(&at.join("new\nline \u{1b}[31m"), "x");
                file(&at.join("n".repeat(255)), "x");
                file(&at.join("empty file"), "");
            },
            KEPT,
        ),
        row(
            "permission bits",
            &["mode"],
            |at| {
                for mode in [0o000, 0o444, 0o777] {
                    let path = at.join(format!("{mode:o}"));
                    file(&path, "x");
                    set_mode(&path, mode);
                }
                fs::create_dir(at.join("read only")).unwrap();
                file(&at.join("read only/file"), "x");
                set_mode(&at.join("read only"), 0o555);
            },
            KEPT,
        ),
        row(
            "setuid, setgid, sticky",
            &["mode", "owner"],
            |at| {
                for mode in [0o4755, 0o2755, 0o6711, 0o1644] {
                    let path = at.join(format!("{mode:o}"));
                    file(&path, "x");
                    lchown(&path, Some(1234), Some(5678)).unwrap();
                    set_mode(&path, mode);
                }
                for mode in [0o2775, 0o1777] {
                    let path = at.join(format!("directory {mode:o}"));
                    fs::create_dir_all(path.join("below")).unwrap();
                    lchown(&path, Some(1234), Some(5678)).unwrap();
                    set_mode(&path, mode);
                    file(&path.join("file"), "x");
                    lchown(path.join("file"), Some(1), Some(2)).unwrap();
                }
            },
            KEPT,
        ),
        row(
            "owner and group",
            &["owner"],
            |at| {
                file(&at.join("file"), "x");
                fs::create_dir(at.join("directory")).unwrap();
                symlink("nowhere", at.join("link")).unwrap();
                for name in ["file", "directory", "link"] {
                    lchown(at.join(name), Some(1234), Some(33)).unwrap();
                }
            },
            KEPT,
        ),
        row(
            "time of change, in nanoseconds, also before 1970 and after 2038",
            &["time"],
            |at| {
                for (name, secs) in [("1969", -1), ("1902", -(1 << 31)), ("2038", 1 << 31), ("2100", 4_102_444_800)] {
                    file(&at.join(name), "x");
                    set_time(&at.join(name), (secs, if secs == -(1 << 31) { 0 } else { 123_456_789 }));
                }
                symlink("nowhere", at.join("link")).unwrap();
                fs::create_dir(at.join("directory")).unwrap();
                file(&at.join("directory/file"), "x");
                set_time(&at.join("link"), (-5, 1));
                set_time(&at.join("directory"), (5, 999_999_999));
            },
            KEPT,
        ),
        row(
            "hard links",
            &["hard link", "content"],
            |at| {
                file(&at.join("b"), "one file");
                fs::hard_link(at.join("b"), at.join("a")).unwrap();
                fs::create_dir(at.join("d")).unwrap();
                fs::hard_link(at.join("b"), at.join("d/c")).unwrap();
            },
            KEPT,
        ),
        row(
            "symbolic links as they are",
            &["kind", "target", "owner", "time"],
            |at| {
                for (name, target) in [("a", "nowhere"), ("b", "/etc/passwd"), ("c", "../../.."), ("d", ".")] {
                    symlink(target, at.join(name)).unwrap();
                }
            },
            KEPT,
        ),
        row(
            "holes",
            &["content", "holes"],
            |at| {
                sparse(&at.join("large"));
                let small = fs::File::create(at.join("small")).unwrap();
                small.write_all_at(b"x", 60_000).unwrap();
                fs::File::create(at.join("nothing but a hole")).unwrap().set_len(200 << 20).unwrap();
            },
            KEPT,
        ),
        changed(
            "holes, when the file changes",
            &["content", "holes"],
            |at| sparse(&at.join("large")),
            |at| {
                let large = fs::OpenOptions::new().write(true).open(at.join("large")).unwrap();
                large.write_all_at(b"changed", 500_000).unwrap();
                large.write_all_at(&[7; 4096], 15 << 20).unwrap();
            },
            KEPT,
        ),
        row(
            "`user.*` attributes",
            &["attribute user."],
            |at| {
                file(&at.join("file"), "x");
                fs::create_dir(at.join("directory")).unwrap();
                for name in ["", "file", "directory"] {
                    set_attribute(&at.join(name), "user.mime", b"text/plain");
                    set_attribute(&at.join(name), "user.empty", b"");
                    set_attribute(&at.join(name), "user.\u{e4} \u{1b}", &[0, 255, 10]);
                }
                set_attribute(&at.join("file"), "user.long", &[b'v'; 1500]);
                set_mode(&at.join("file"), 0o400);
            },
            KEPT,
        ),
        row(
            "`trusted.*` attributes, of symbolic links and pipes too",
            &["attribute trusted."],
            |at| {
                file(&at.join("file"), "x");
                fs::create_dir(at.join("directory")).unwrap();
                symlink("nowhere", at.join("link")).unwrap();
                special(&at.join("pipe"), FileType::Fifo, 0);
                for name in ["file", "directory", "link", "pipe"] {
                    set_attribute(&at.join(name), "trusted.x", b"1");
                }
            },
            KEPT,
        ),
        row(
            "capabilities of programs",
            &["attribute security.capability"],
            |at| {
                file(&at.join("program"), "x");
                lchown(at.join("program"), Some(1234), Some(1234)).unwrap();
                run_or_panic(
                    Command::new("setcap").arg("cap_net_raw+ep").arg(at.join("program")).env("PATH", tool_path()),
                );
            },
            KEPT,
        ),
        row(
            "labels of security modules (other `security.*`)",
            &["attribute security."],
            |at| {
                file(&at.join("file"), "x");
                set_attribute(&at.join("file"), "security.rfleet-test", b"label");
            },
            [false, true, true],
        ),
        row(
            "ACLs of files and directories",
            &["attribute system.posix_acl", "mode"],
            |at| {
                file(&at.join("file"), "x");
                fs::create_dir(at.join("directory")).unwrap();
                acl(&["-m", "u:33:rw,g:7:r,u:1234:-"], &at.join("file"));
                acl(&["-m", "u:33:rwx,m::rx"], &at.join("directory"));
                set_mode(&at.join("file"), 0o4640);
            },
            KEPT,
        ),
        row(
            "default ACLs, and nothing inherited from them",
            &["attribute system.posix_acl", "mode"],
            |at| {
                acl(&["-d", "-m", "u:33:rwx,o::-"], at);
                file(&at.join("inherits"), "x");
                file(&at.join("does not"), "x");
                acl(&["-b"], &at.join("does not"));
                fs::create_dir(at.join("directory")).unwrap();
                fs::create_dir(at.join("plain")).unwrap();
                acl(&["-b"], &at.join("plain"));
                acl(&["-k"], &at.join("plain"));
                file(&at.join("plain/file"), "x");
            },
            KEPT,
        ),
        changed(
            "attributes and ACLs that change when nothing else does",
            &["attribute"],
            |at| {
                for name in ["file", "gains"] {
                    file(&at.join(name), "x");
                }
                fs::create_dir(at.join("directory")).unwrap();
                set_attribute(&at.join("file"), "user.a", b"1");
                set_attribute(&at.join("directory"), "user.a", b"1");
            },
            |at| {
                set_attribute(&at.join("file"), "user.a", b"2");
                set_attribute(&at.join("gains"), "user.new", b"1");
                set_attribute(&at.join("directory"), "user.b", b"2");
                acl(&["-m", "u:33:rw"], &at.join("gains"));
            },
            KEPT,
        ),
        changed(
            "attributes and ACLs that are taken away",
            &["attribute", "mode"],
            |at| {
                for name in ["file", "acl"] {
                    file(&at.join(name), "x");
                    set_mode(&at.join(name), 0o640);
                    set_attribute(&at.join(name), "user.a", b"1");
                }
                acl(&["-m", "u:33:rw"], &at.join("acl"));
            },
            |at| {
                remove_attribute(&at.join("file"), "user.a");
                acl(&["-b"], &at.join("acl"));
            },
            [true, true, false],
        ),
        row(
            "named pipes",
            &["kind", "mode", "owner", "time"],
            |at| {
                special(&at.join("pipe"), FileType::Fifo, 0);
                set_mode(&at.join("pipe"), 0o1622);
                set_time(&at.join("pipe"), (5, 5));
            },
            KEPT,
        ),
        row(
            "devices",
            &["kind", "mode", "owner", "time"],
            |at| {
                special(&at.join("null"), FileType::CharacterDevice, makedev(1, 3));
                special(&at.join("disk"), FileType::BlockDevice, makedev(259, 70_000));
                lchown(at.join("disk"), Some(0), Some(6)).unwrap();
                set_time(&at.join("disk"), (5, 5));
            },
            KEPT,
        ),
        row("sockets", &["kind"], |at| special(&at.join("socket"), FileType::Socket, 0), [false, true, true]),
    ]
}

const TOOLS: [&str; 3] = ["rfleet", "rsync", "cp"];

/// Copies `source` to `copy` with one of [`TOOLS`].
fn copy_with(scratch: &Scratch, tool: &str, source: &Path, copy: &Path) {
    let contents = |path: &Path| format!("{}/.", path.display());
    match tool {
        "rfleet" => drop(Push::adhoc(scratch, source, &[copy]).args(&["-X", "--delete"]).ok()),
        "rsync" => {
            fs::create_dir_all(copy).unwrap();
            let mut rsync = Command::new("rsync");
            rsync.args(["-aHAXS", "--delete", "--numeric-ids"]).arg(contents(source)).arg(contents(copy));
            run_or_panic(&mut rsync);
        }
        _ => {
            fs::create_dir_all(copy).unwrap();
            run_or_panic(Command::new("cp").args(["-a", "-T"]).arg(source).arg(copy));
        }
    }
}

/// The table of docs/fidelity.md: each row as its name and the cells of rfleet, rsync and cp.
fn documented() -> Vec<(String, Vec<String>)> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/fidelity.md")).unwrap();
    let table = page.lines().skip_while(|line| !line.starts_with("| property |")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|'));
    rows.map(|line| {
        let mut cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
        (cells.next().unwrap(), cells.take(TOOLS.len()).collect())
    })
    .collect()
}

#[rstest]
#[case::ext4(EXT4)]
#[case::xfs(XFS)]
fn each_row_of_the_table_is_so(#[case] mkfs: &[&str]) {
    let scratch = Scratch::new();
    let disk = scratch.mount_image("disk", mkfs, 400 << 20);
    let documented = documented();
    let mut wrong = String::new();
    for (at, row) in rows().iter().enumerate() {
        let source = disk.join(format!("{at} source"));
        fs::create_dir(&source).unwrap();
        (row.make)(&source);
        let copies = TOOLS.map(|tool| disk.join(format!("{at} {tool}")));
        for (tool, copy) in TOOLS.iter().zip(&copies) {
            copy_with(&scratch, tool, &source, copy);
        }
        if let Some(change) = row.change {
            change(&source);
            for (tool, copy) in TOOLS.iter().zip(&copies) {
                copy_with(&scratch, tool, &source, copy);
            }
        }
        let wanted = properties(&source);
        let shown = documented.iter().find(|(name, _)| name == row.name);
        for (nth, (tool, copy)) in TOOLS.iter().zip(&copies).enumerate() {
            let lines = differences(&wanted, &properties(copy), row.only);
            if lines.is_empty() != row.kept[nth] {
                wrong += &format!("{}: {tool}: kept: {}, {lines:#?}\n", row.name, lines.is_empty());
            }
            let cell = shown.map(|(_, cells)| cells[nth].as_str());
            let is_shown = cell.is_some_and(|cell| cell.starts_with("no") != row.kept[nth]);
            if !is_shown {
                wrong += &format!("{}: {tool}: docs/fidelity.md has {cell:?}\n", row.name);
            }
        }
        // What was brought over once is found equal.
        let again = Push::adhoc(&scratch, &source, &[&copies[0]]).args(&["-X", "--delete", "-i"]).ok();
        let report = again.report();
        if report.root().hosts[0].state != "unchanged" {
            wrong += &format!("{}: rfleet finds it different again: {}\n", row.name, again.said());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let names: Vec<&str> = rows().iter().map(|row| row.name).collect();
    let unproven: Vec<_> = documented.iter().filter(|(name, _)| !names.contains(&name.as_str())).collect();
    assert!(unproven.is_empty(), "docs/fidelity.md has rows that nothing proves: {unproven:?}");
}

/// A source and a root of the fleet `cms`, with an index, both on a filesystem of their own.
struct Configured {
    scratch: Scratch,
    source: PathBuf,
    copy: PathBuf,
    config: PathBuf,
}

impl Configured {
    fn new(root_lines: &str, receive: &str) -> Self {
        let scratch = Scratch::new();
        let disk = scratch.mount_image("disk", EXT4, 100 << 20);
        let (source, copy) = (disk.join("source"), disk.join("copy"));
        fs::create_dir(&source).unwrap();
        let far = Config::new("cms").root("www", &copy, "").lines(&format!("[receive]\n{receive}"));
        let far = far.write(&scratch, "far.toml");
        let command = [rfleet_bin().to_str().unwrap(), "receive", "--config", far.to_str().unwrap()];
        let config = Config::new("cms").root("www", &source, root_lines).host_command("box", &command, "www", &copy);
        let config = config.write(&scratch, "rfleet.toml");
        Configured { scratch, source, copy, config }
    }

    fn push(&self) -> support::Outcome {
        Push::configured(&self.scratch, &self.config).ok()
    }

    fn assert_same(&self, only: &[&str], what: &str) {
        let lines = differences(&properties(&self.source), &properties(&self.copy), only);
        assert!(lines.is_empty(), "{what}: {lines:#?}");
    }
}

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
    fleet.assert_same(&["mode", "attribute", "content", "holes", "time", "kind"], policy);

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
    assert!(outcome.said().contains("which may not give files away"), "{}", outcome.said());
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
    let lines = differences(&properties(&source), &properties(&copy), &["content", "holes"]);
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
