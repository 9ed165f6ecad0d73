//! What a copy keeps, by what tool: each row of the table in docs/fidelity.md is made here, with rfleet, rsync and cp on
//! filesystems of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::{FileExt, lchown, symlink};
use std::path::Path;
use std::process::Command;

use rstest::rstest;
use rustix::fs::{FileType, makedev};
use support::keep::{EXT4, XFS, acl, file, sparse, special};
use support::properties::{differences, properties, remove_attribute, set_attribute};
use support::scratch::{run_or_panic, tool_path};
use support::tree::{set_mode, set_time};
use support::{Push, Scratch};

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
                    set_time(&at.join(name), (1_500_000_000, 7));
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
                small.set_len(60_001).unwrap();
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
                // rsync does not look at what changed within a second of its size and time.
                set_time(&at.join("large"), (1_700_000_000, 5));
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
                set_time(&at.join("null"), (6, 6));
                set_time(&at.join("disk"), (5, 5));
            },
            KEPT,
        ),
        row(
            "sockets",
            &["kind"],
            |at| {
                file(&at.join("beside"), "x");
                special(&at.join("socket"), FileType::Socket, 0);
            },
            [false, true, true],
        ),
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
        // rsync leaves a time that differs by less than a second.
        set_time(&source, (1_400_000_000, 3));
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
            let copied = properties(copy);
            let mut lines = differences(&wanted, &copied, row.only);
            if nth == 0 && row.only.contains(&"holes") {
                // To the block; rsync leaves room on XFS that was taken ahead.
                lines.extend(differences(&wanted, &copied, &["layout"]));
            }
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
