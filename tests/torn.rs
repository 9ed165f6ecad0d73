//! Files that change while they are read: what arrives is a state the file was in, or the file is reported.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use support::{Outcome, Push, Rng, Scratch, Tree, assert_rsync_agrees, assert_same};

/// Records divide a page, so that one write is never seen in part.
const RECORD: usize = 64;

fn record(serial: u64) -> Vec<u8> {
    let mut bytes = format!("record {serial:010} ").into_bytes();
    bytes.resize(RECORD - 1, b'.');
    bytes.push(b'\n');
    bytes
}

/// A writer that changes one path over and over until it is dropped.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(mut step: impl FnMut(u64) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut turn = 0;
            while !ended.load(Ordering::Relaxed) {
                step(turn);
                turn += 1;
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Story {
    scratch: Scratch,
    source: PathBuf,
    copy: PathBuf,
}

impl Story {
    /// A tree with quiet files around the live ones.
    fn new() -> Self {
        let scratch = Scratch::new();
        let (source, copy) = (scratch.path("source"), scratch.path("copy"));
        let mut rng = Rng::new(3);
        let mut tree = Tree::new();
        for n in 0..60 {
            tree = tree.file(format!("quiet/{n}"), rng.text(10_000));
        }
        tree.file("quiet/large", rng.bytes(3_000_000)).dir("live").create(&source);
        Self { scratch, source, copy }
    }

    fn live(&self, name: &str) -> PathBuf {
        self.source.join("live").join(name)
    }

    /// Pushes `rounds` times while `writer` writes; every outcome is exit 0, or 3 with problems that name live paths.
    fn push_while(&self, writer: Writer, rounds: usize, mut check: impl FnMut(&Path, &Outcome)) {
        for _ in 0..rounds {
            let outcome = Push::adhoc(&self.scratch, &self.source, &[&self.copy]).arg("--delete").run();
            assert!(matches!(outcome.code(), Some(0 | 3)), "{}", outcome.said());
            let report = outcome.report();
            let root = report.root();
            let problems: Vec<_> = root.problems.iter().chain(root.hosts.iter().flat_map(|h| &h.problems)).collect();
            assert_eq!(outcome.code() == Some(3), !problems.is_empty(), "exit 3 and problems: {}", outcome.said());
            for problem in problems {
                assert!(problem.path.starts_with("live"), "a quiet file is affected: {}", outcome.said());
                assert!(!problem.cause.is_empty() && !problem.cause.contains('\n'), "{}", outcome.said());
            }
            assert_same(&self.source.join("quiet"), &self.copy.join("quiet"));
            check(&self.copy.join("live"), &outcome);
        }
        drop(writer);
        Push::adhoc(&self.scratch, &self.source, &[&self.copy]).arg("--delete").ok();
        assert_same(&self.source, &self.copy);
        assert_rsync_agrees(&self.source, &self.copy);
    }
}

/// Panics unless `bytes` are whole records in order from the first on.
fn assert_log(bytes: &[u8], outcome: &Outcome) {
    assert_eq!(bytes.len() % RECORD, 0, "a record is cut: {}", outcome.said());
    for (serial, found) in bytes.chunks(RECORD).enumerate() {
        assert!(found == record(u64::try_from(serial).unwrap()), "record {serial} is not itself: {}", outcome.said());
    }
}

#[test]
fn a_file_that_grows_arrives_as_it_was_or_is_reported() {
    let story = Story::new();
    let path = story.live("log");
    let records: Vec<u8> = (0..60_000).flat_map(record).collect();
    fs::write(&path, &records).unwrap();
    let writer = Writer::start(move |turn| {
        OpenOptions::new().append(true).open(&path).unwrap().write_all(&record(60_000 + turn)).unwrap();
    });
    story.push_while(writer, 8, |live, outcome| {
        if let Ok(bytes) = fs::read(live.join("log")) {
            assert_log(&bytes, outcome);
        }
    });
}

#[test]
fn a_file_that_shrinks_arrives_as_it_was_or_is_reported() {
    let story = Story::new();
    let path = story.live("log");
    let records: Vec<u8> = (0..50_000).flat_map(record).collect();
    let longest = records.len();
    fs::write(&path, &records).unwrap();
    let mut rng = Rng::new(5);
    let writer = Writer::start(move |turn| {
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        // Now a cut; now the rest again, record by record, so that every state on the way is whole records.
        if turn % 40 == 0 {
            file.set_len(u64::try_from(rng.below(longest / RECORD) * RECORD).unwrap()).unwrap();
        }
        let len = usize::try_from(file.metadata().unwrap().len()).unwrap();
        for serial in (len / RECORD..longest / RECORD).take(1_500) {
            file.write_all_at(&record(u64::try_from(serial).unwrap()), u64::try_from(serial * RECORD).unwrap())
                .unwrap();
        }
    });
    story.push_while(writer, 8, |live, outcome| {
        if let Ok(bytes) = fs::read(live.join("log")) {
            assert_log(&bytes, outcome);
        }
    });
}

#[test]
fn a_file_replaced_by_another_arrives_whole_or_is_reported() {
    let story = Story::new();
    let (path, temporary) = (story.live("page"), story.scratch.path("page.new"));
    let replace = move |turn: u64| {
        let size = 400_000 + usize::try_from(turn * 7_919 % 3_000_000).unwrap();
        let mut content = format!("{turn:012}").into_bytes();
        content.resize(size, u8::try_from(turn % 251).unwrap());
        fs::write(&temporary, content).unwrap();
        fs::rename(&temporary, &path).unwrap();
    };
    replace(0);
    story.push_while(Writer::start(replace), 12, |live, outcome| {
        if let Ok(bytes) = fs::read(live.join("page")) {
            let turn: u64 = std::str::from_utf8(&bytes[..12]).unwrap().parse().unwrap();
            assert_eq!(bytes.len(), 400_000 + usize::try_from(turn * 7_919 % 3_000_000).unwrap(), "{}", outcome.said());
            let fill = u8::try_from(turn % 251).unwrap();
            assert!(bytes[12..].iter().all(|&b| b == fill), "a mixture of two files: {}", outcome.said());
        }
    });
}

/// A file rewritten in place from front to back: on disk the new version is always in front of the old one, so a copy
/// with an older piece in front of a newer one was put together from two moments.
#[test]
fn a_file_rewritten_in_place_is_never_put_together_from_two_moments() {
    const BLOCK: usize = 4_096;
    const BLOCKS: u64 = 400;
    let story = Story::new();
    let path = story.live("database");
    let block = |version: u64| format!("{version:016}").into_bytes().repeat(BLOCK / 16);
    fs::write(&path, block(0).repeat(usize::try_from(BLOCKS).unwrap())).unwrap();
    let mut open: Option<File> = None;
    let writer = Writer::start(move |turn| {
        let file = open.get_or_insert_with(|| OpenOptions::new().write(true).open(&path).unwrap());
        let new = block(turn + 1);
        for at in 0..BLOCKS {
            file.write_all_at(&new, at * u64::try_from(BLOCK).unwrap()).unwrap();
        }
    });
    story.push_while(writer, 12, |live, outcome| {
        let Ok(bytes) = fs::read(live.join("database")) else { return };
        assert_eq!(bytes.len(), BLOCK * usize::try_from(BLOCKS).unwrap(), "{}", outcome.said());
        let versions: Vec<u64> = bytes.chunks(16).map(|c| std::str::from_utf8(c).unwrap().parse().unwrap()).collect();
        let falling = versions.windows(2).all(|pair| pair[0] >= pair[1]);
        let spread = versions[0] - versions[versions.len() - 1];
        assert!(falling && spread <= 1, "put together from several moments: {}", outcome.said());
    });
}

#[test]
fn files_that_vanish_and_come_back_do_not_disturb_the_others() {
    let story = Story::new();
    let live = story.source.join("live");
    let content = |n: u64| format!("file {n} ").repeat(2_000 + usize::try_from(n).unwrap());
    for n in 0..100 {
        fs::write(live.join(n.to_string()), content(n)).unwrap();
    }
    let mut rng = Rng::new(9);
    let writer = Writer::start(move |_| {
        let n = u64::try_from(rng.below(100)).unwrap();
        let path = live.join(n.to_string());
        if fs::remove_file(&path).is_err() {
            let temporary = live.parent().unwrap().with_file_name("vanish.new");
            fs::write(&temporary, content(n)).unwrap();
            fs::rename(&temporary, &path).unwrap();
        }
    });
    story.push_while(writer, 12, |live, outcome| {
        for entry in fs::read_dir(live).unwrap().flatten() {
            let n: u64 = entry.file_name().to_str().unwrap().parse().expect("only our names");
            assert!(fs::read(entry.path()).unwrap() == content(n).into_bytes(), "{n} is torn: {}", outcome.said());
        }
    });
}

#[test]
fn directories_that_vanish_or_turn_into_files_do_not_disturb_the_others() {
    let story = Story::new();
    let live = story.source.join("live");
    let mut rng = Rng::new(10);
    let writer = Writer::start(move |_| {
        let path = live.join(rng.below(20).to_string());
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&path).unwrap(),
            Ok(_) => fs::remove_file(&path).unwrap(),
            Err(_) if rng.chance(3) => fs::write(&path, "file").unwrap(),
            Err(_) if rng.chance(3) => std::os::unix::fs::symlink("/etc", &path).unwrap(),
            Err(_) => {
                fs::create_dir(&path).unwrap();
                for n in 0..10 {
                    fs::write(path.join(n.to_string()), "inside").unwrap();
                }
            }
        }
    });
    story.push_while(writer, 12, |live, outcome| {
        for entry in fs::read_dir(live).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                for inside in fs::read_dir(entry.path()).unwrap().flatten() {
                    let content = fs::read(inside.path()).unwrap();
                    // A file is created and then written: both states existed.
                    assert!(content == b"inside" || content.is_empty(), "{}", outcome.said());
                }
            }
        }
    });
}

/// A file that is never quiet while it is read is a problem that names it, and not a reason to hang.
#[test]
fn a_file_that_never_holds_still_is_reported() {
    let story = Story::new();
    let path = story.live("restless");
    fs::write(&path, vec![0; 24 << 20]).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let ended = stop.clone();
    let thread = std::thread::spawn(move || {
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let mut turn = 0u64;
        while !ended.load(Ordering::Relaxed) {
            file.write_all_at(&turn.to_le_bytes(), turn % (24 << 20)).unwrap();
            turn += 1;
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
    });
    let outcome = Push::adhoc(&story.scratch, &story.source, &[&story.copy]).run();
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    outcome.assert_code(3);
    let report = outcome.report();
    let root = report.root();
    let named = root.problems.iter().chain(root.hosts.iter().flat_map(|h| &h.problems));
    assert!(named.into_iter().any(|p| p.path == "live/restless"), "{}", outcome.said());
    assert!(fs::symlink_metadata(story.copy.join("live/restless")).is_err(), "a torn file arrived");
    assert_same(&story.source.join("quiet"), &story.copy.join("quiet"));
}
