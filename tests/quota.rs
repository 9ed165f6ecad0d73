//! `[receive] quota` and `quota_entries`, and quotas of the filesystem: what does not fit is refused cleanly, whoever sends it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rfleet::model::{Attribute, Attributes, Digest, Expected, Meta, Position};
use rfleet::wire::{Begin, BlockWriter, Change, Record, Refusal, RefusalKind, ToReceiver};
use rstest::rstest;
use support::keep::{EXT4, file};
use support::primary::{meta, path, seen};
use support::scratch::{run_or_panic, tool_path};
use support::{Config, Outcome, Primary, Push, Rng, Scratch, Snapshot, rfleet_bin};

const MIB: u64 = 1 << 20;

/// Bytes and entries by du, which counts as the quota does.
fn used(root: &Path) -> (u64, u64) {
    let number = |option: &str| {
        let said = run_or_panic(Command::new("du").args(["-s", option]).arg(root));
        said.split_whitespace().next().unwrap().parse().unwrap()
    };
    (number("--block-size=1"), number("--inodes"))
}

/// A push by configuration to a receiver whose `[receive]` can be changed. On ext4, where directories take room.
struct Fleet {
    scratch: Scratch,
    source: PathBuf,
    copy: PathBuf,
    config: PathBuf,
}

impl Fleet {
    fn new(receive: &str) -> Self {
        let scratch = Scratch::new();
        let copy = scratch.mount_image("disk", EXT4, 400 << 20).join("copy");
        let source = scratch.dir("source");
        let far = scratch.path("far.toml");
        let command = [rfleet_bin().to_str().unwrap(), "receive", "--config", far.to_str().unwrap()];
        let config = Config::new("cms").root("www", &source, "").host_command("box", &command, "www", &copy);
        let config = config.write(&scratch, "rfleet.toml");
        let fleet = Fleet { scratch, source, copy, config };
        fleet.allow(receive);
        fleet
    }

    fn allow(&self, receive: &str) {
        let far = Config::new("cms").root("www", &self.copy, "").lines(&format!("[receive]\n{receive}"));
        far.write(&self.scratch, "far.toml");
    }

    fn push(&self) -> Outcome {
        Push::configured(&self.scratch, &self.config).run()
    }

    fn refused(&self, words: &[&str]) {
        let outcome = self.push();
        outcome.assert_code(3);
        let error = outcome.report().host("box").error.clone().unwrap();
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }

    fn done(&self) {
        self.push().assert_code(0);
        support::assert_same(&self.source, &self.copy);
    }
}

#[test]
fn a_push_that_would_not_fit_is_refused_before_anything_is_changed() {
    let fleet = Fleet::new("quota = \"3MiB\"");
    fs::create_dir(fleet.source.join("d")).unwrap();
    file(&fleet.source.join("d/large"), &"x".repeat(4 << 20));
    file(&fleet.source.join("stays"), "x");
    let allowed = format!("of the {} that [receive] quota allows", 3 * MIB);
    fleet.refused(&[
        "up to 421",
        "bytes are needed",
        ", 0 are taken",
        &allowed,
        "nothing was changed",
        "raise the quota",
    ]);
    assert!(!fleet.copy.exists(), "not even the root is made");
    fleet.allow("quota = \"6MiB\"");
    fleet.done();

    // It is full now but for less than that.
    file(&fleet.source.join("more"), &"y".repeat(3 << 20));
    let before = Snapshot::take(&fleet.copy);
    fleet.refused(&["are needed", "nothing was changed"]);
    before.assert_untouched(&fleet.copy);
    assert!(used(&fleet.copy).0 < 6 * MIB);

    // A root above its quota, since that was lowered: what makes room is welcome, and nothing else.
    fleet.allow("quota = \"1MiB\"");
    fs::remove_file(fleet.source.join("more")).unwrap();
    file(&fleet.source.join("small"), "z");
    fleet.refused(&["nothing was changed"]);
    fs::remove_file(fleet.source.join("small")).unwrap();
    fs::remove_file(fleet.source.join("d/large")).unwrap();
    fleet.done();
    file(&fleet.source.join("small"), "z");
    fleet.done();
}

#[test]
fn entries_have_a_quota_of_their_own() {
    let fleet = Fleet::new("quota_entries = 20");
    for number in 0..30 {
        file(&fleet.source.join(number.to_string()), "");
    }
    fleet.refused(&[
        "up to 30 entries are needed",
        "of the 20 that [receive] quota_entries allows",
        "nothing was changed",
    ]);
    assert!(!fleet.copy.exists());
    for number in 10..30 {
        fs::remove_file(fleet.source.join(number.to_string())).unwrap();
    }
    fleet.done();
    // With the lock, the record and the stage.
    let (_, entries) = used(&fleet.copy);
    assert!(entries <= 20, "{entries}");
    // Holes take nothing.
    fleet.allow("quota = \"2MiB\"\nquota_entries = 20");
    fs::File::create(fleet.source.join("holes")).unwrap().set_len(1 << 34).unwrap();
    fleet.done();
}

/// What a primary sends that announced nothing.
type Flood = fn(&mut Primary, u32);

fn attributes() -> Attributes {
    let one = |number: u32| Attribute { name: format!("user.{number}").into(), value: vec![1; 3000] };
    Attributes::new(vec![one(1)]).unwrap()
}

/// A file of 1 MiB in pieces, up to its end.
fn pieces(primary: &mut Primary, name: &str, text: &[u8], ends: bool) {
    let mut block = BlockWriter::new();
    let begin = Record::Begin { path: path(name), meta: meta(0o644, 5), size_bytes: text.len() as u64, basis: None };
    block.push(&begin, &[]);
    for piece in text.chunks(256 << 10) {
        block.push(&Record::Data { bytes: piece.len() as u64 }, piece);
    }
    block.push(&if ends { Record::End { digest: Digest::of(text) } } else { Record::Cancel }, &[]);
    primary.send_bytes(&block.take_frame(None));
}

#[rstest]
#[case::small_files("quota_entries = 100", |primary: &mut Primary, number: u32| {
    primary.content(&number.to_string(), "x", 5);
})]
#[case::bytes_of_small_files("quota = \"2MiB\"", |primary: &mut Primary, number: u32| {
    primary.content(&number.to_string(), &"x".repeat(10_000), 5);
})]
#[case::large_files("quota = \"6MiB\"", |primary: &mut Primary, number: u32| {
    pieces(primary, &number.to_string(), &Rng::new(number.into()).bytes(1 << 20), true);
})]
#[case::directories("quota_entries = 100", |primary: &mut Primary, number: u32| {
    primary.changes([Change::MakeDirectory { path: path(&number.to_string()), was: Expected::Nothing }]);
})]
#[case::bytes_of_directories("quota = \"1MiB\"", |primary: &mut Primary, number: u32| {
    primary.changes([Change::MakeDirectory { path: path(&number.to_string()), was: Expected::Nothing }]);
})]
#[case::symlinks("quota = \"1MiB\"", |primary: &mut Primary, number: u32| {
    let (path, target) = (path(&number.to_string()), vec![b'x'; 4000].into());
    primary.changes([Change::Symlink { path, target, meta: Meta::default(), was: Expected::Nothing }]);
})]
#[case::hard_links("quota = \"1MiB\"", |primary: &mut Primary, number: u32| {
    if number == 0 {
        primary.content("0", "x", 5);
    } else {
        let path = path(&format!("{number:0250}"));
        primary.changes([Change::Link { path, to: support::primary::path("0"), was: Expected::Nothing }]);
    }
})]
#[case::attributes("quota = \"1MiB\"", |primary: &mut Primary, number: u32| {
    let meta = Meta { attributes: attributes(), ..meta(0o644, 5) };
    let digest = Digest::of(b"");
    let mut block = BlockWriter::new();
    block.push(&Record::File { path: path(&number.to_string()), meta, bytes: 0, digest }, b"");
    primary.send_bytes(&block.take_frame(None));
})]
fn who_announces_nothing_and_sends_much_is_cut_off_at_the_limit(#[case] receive: &str, #[case] flood: Flood) {
    // As much as exceeds each of the limits many times.
    let times = if receive.contains("6MiB") { 50 } else { 20_000 };
    let scratch = Scratch::new();
    let root = scratch.mount_image("disk", EXT4, 200 << 20).join("root");
    fs::create_dir(&root).unwrap();
    let mut primary = Primary::of_fleet_with(&scratch, &root, receive);
    primary.begin(0);
    for number in 0..times {
        flood(&mut primary, number);
    }
    let Refusal { kind, message } = primary.refused();
    assert_eq!(kind, RefusalKind::NoSpace, "{message}");
    assert!(message.contains("the quota on this host is reached") && message.contains("[receive] quota"), "{message}");
    let (bytes, entries) = used(&root);
    let limit = |name: &str| receive.strip_prefix(name).map(|text| text.trim_matches(['"', ' ', '=']).to_owned());
    match limit("quota_entries") {
        Some(most) => assert!(entries <= most.parse().unwrap(), "{entries} of {most}"),
        None => {
            let most: u64 = limit("quota").unwrap().trim_end_matches("MiB").parse().unwrap();
            assert!(bytes <= most * MIB, "{bytes} of {most} MiB");
        }
    }
    assert!(!root.join(".rfleet/stage").exists());
}

#[test]
fn what_was_replaced_or_given_up_counts_no_more() {
    let scratch = Scratch::new();
    let root = scratch.mount_image("disk", EXT4, 200 << 20).join("root");
    fs::create_dir(&root).unwrap();
    let mut primary = Primary::of_fleet_with(&scratch, &root, "quota = \"24MiB\"\nquota_entries = 2000");
    primary.begin(0);
    // One file again and again, each time another.
    for number in 0..60 {
        primary.changes([Change::Expect { path: path("file"), was: seen(&root.join("file")) }]);
        pieces(&mut primary, "file", &Rng::new(number).bytes(1 << 20), true);
        assert!(primary.resend().is_empty());
    }
    // Files that never come to their end.
    for _ in 0..60 {
        pieces(&mut primary, "never", &Rng::new(7).bytes(1 << 20), false);
    }
    for number in 0..3000 {
        let name = format!("small-{}", number % 10);
        if number >= 10 {
            primary.changes([Change::Expect { path: path(&name), was: seen(&root.join(&name)) }]);
        }
        primary.content(&name, "x", 5);
        if number % 10 == 9 {
            assert!(primary.resend().is_empty());
        }
    }
    let committed = primary.finish(Position::default());
    assert_eq!((committed.problems.len(), committed.drifted), (0, 0), "{committed:?}");
    assert!(used(&root).0 < 2 * MIB);
}

#[test]
fn what_others_put_into_a_root_counts_too() {
    let scratch = Scratch::new();
    let root = scratch.dir("root");
    fs::create_dir_all(root.join(".rfleet/attic/20260101T000000Z-1")).unwrap();
    support::tree::set_mode(&root.join(".rfleet"), 0o700);
    fs::write(root.join(".rfleet/attic/20260101T000000Z-1/kept"), vec![1; 3 << 20]).unwrap();
    let mut primary = Primary::of_fleet_with(&scratch, &root, "quota = \"4MiB\"");
    primary.send(&ToReceiver::Begin(Begin { need_bytes: 2 * MIB, need_inodes: 1, ..Begin::default() }));
    let refusal = primary.refused();
    assert_eq!(refusal.kind, RefusalKind::NoSpace);
    assert!(refusal.message.contains("nothing was changed"), "{}", refusal.message);
}

/// A receiver that strace makes fail.
fn push_with(scratch: &Scratch, inject: &str) -> Outcome {
    let source = scratch.dir("source");
    let root = scratch.dir("root");
    fs::write(source.join("large"), Rng::new(1).bytes(1 << 20)).unwrap();
    let log = scratch.path("strace.log");
    let strace = ["strace", "-f", "-qq", "-o", log.to_str().unwrap(), "-e", inject];
    let command = [&strace[..], &[rfleet_bin().to_str().unwrap(), "receive"]].concat();
    let config = Config::new("cms").root("www", &source, "").host_command("box", &command, "www", &root);
    let config = config.write(scratch, "rfleet.toml");
    Push::configured(scratch, &config).env("PATH", tool_path()).run()
}

#[rstest]
#[case::of_a_write("inject=pwrite64:error=EDQUOT")]
#[case::of_the_first_directory("inject=mkdirat:error=EDQUOT:when=1")]
#[case::of_the_record("inject=fsync:error=EDQUOT:when=1")]
#[case::of_a_sync("inject=syncfs:error=EDQUOT:when=1")]
fn a_quota_of_the_filesystem_is_told_as_a_full_disk_is(#[case] inject: &str) {
    let scratch = Scratch::new();
    let outcome = push_with(&scratch, inject);
    outcome.assert_code(3);
    let error = outcome.report().host("box").error.clone().unwrap();
    assert!(error.contains("no room is left") && error.contains("quota exceeded"), "{error}");
    assert!(!scratch.path("root/.rfleet/stage").exists() && !scratch.path("root/large").exists());
}

#[test]
fn a_quota_of_a_real_filesystem_is_told_and_leaves_nothing_half_done() {
    let scratch = Scratch::new();
    let disk = scratch.mount_image("disk", &["mkfs.btrfs", "-q"], 300 << 20);
    let (source, copy) = (scratch.dir("source"), disk.join("copy"));
    let btrfs = |arguments: &[&str], at: &Path| {
        run_or_panic(Command::new("btrfs").args(arguments).arg(at).env("PATH", tool_path()));
    };
    btrfs(&["quota", "enable"], &disk);
    btrfs(&["subvolume", "create"], &copy);
    btrfs(&["qgroup", "limit", "10M"], &copy);
    fs::write(source.join("a"), Rng::new(1).bytes(4 << 20)).unwrap();
    Push::adhoc(&scratch, &source, &[&copy]).ok();
    fs::write(source.join("b"), Rng::new(2).bytes(30 << 20)).unwrap();
    let outcome = Push::adhoc(&scratch, &source, &[&copy]).run();
    outcome.assert_code(3);
    let error = outcome.report().root().hosts[0].error.clone().unwrap();
    assert!(error.contains("no room is left") && error.contains("quota exceeded"), "{error}");
    assert!(fs::read(copy.join("a")).unwrap() == fs::read(source.join("a")).unwrap());
    assert!(!copy.join("b").exists() && !copy.join(".rfleet").exists());
    btrfs(&["qgroup", "limit", "none"], &copy);
    Push::adhoc(&scratch, &source, &[&copy]).ok();
    support::assert_same(&source, &copy);
}

#[test]
fn the_attic_gives_way_to_a_quota_before_a_push_is_refused() {
    let fleet = Fleet::new("quota = \"4MiB\"\nattic = \"7d\"");
    let mut said = Vec::new();
    for letter in ["a", "b", "c", "d", "e", "f"] {
        file(&fleet.source.join("page"), &letter.repeat(1 << 20));
        let outcome = fleet.push();
        outcome.assert_code(0);
        support::assert_same(&fleet.source, &fleet.copy);
        said.extend(outcome.report().host("box").notes.clone());
        assert!(used(&fleet.copy).0 <= 4 * MIB, "{said:?}");
    }
    assert!(said.iter().any(|note| note.contains("the attic has given up")), "{said:?}");
    assert!(used(&fleet.copy).0 > 2 * MIB, "it keeps what there is room for");
}

#[test]
fn a_push_that_would_not_fit_anyway_costs_the_attic_nothing() {
    let fleet = Fleet::new("quota = \"4MiB\"\nattic = \"7d\"");
    for letter in ["a", "b"] {
        file(&fleet.source.join("page"), &letter.repeat(1 << 20));
        fleet.done();
    }
    let attic = fleet.copy.join(".rfleet/attic");
    let before = Snapshot::take(&attic);
    assert!(before.entries.len() > 2, "something is kept");
    file(&fleet.source.join("more"), &"c".repeat(8 << 20));
    fleet.refused(&["are needed", "nothing was changed"]);
    before.assert_untouched(&attic);
}
