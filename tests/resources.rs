//! What a push may cost: memory on both sides, and bytes on the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::scratch::run_or_panic;
use support::tree::set_time;
use support::{Fleet, Outcome, Push, Rng, Running, Scratch, assert_rsync_agrees, process};

const LIMIT_BYTES: u64 = 200 << 20;

/// Follows the peak memory of the sender and of everything below it until the end.
fn finish_and_measure(mut running: Running) -> (Outcome, u64) {
    let mut peaks: HashMap<u32, u64> = HashMap::new();
    while !running.is_over() {
        for pid in process::descendants(running.pid()).into_iter().chain([running.pid()]) {
            if let Some(peak) = process::peak_resident_bytes(pid) {
                peaks.insert(pid, peak);
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let outcome = running.finish();
    assert!(peaks.len() >= 2, "both sides were seen: {peaks:?}");
    let peak = peaks.values().copied().max().unwrap();
    (outcome, peak)
}

fn assert_modest(outcome: &Outcome, peak: u64, what: &str) {
    outcome.assert_code(0);
    assert!(peak < LIMIT_BYTES, "{what}: a process took {} MiB", peak >> 20);
}

#[test]
fn a_hundred_thousand_small_files_take_little_memory_and_again_nothing() {
    let scratch = Scratch::new();
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    let mut rng = Rng::new(1);
    for dir in 0..500 {
        let path = source.join(format!("{:02}/{dir:03}", dir % 20));
        fs::create_dir_all(&path).unwrap();
        for n in 0..200 {
            fs::write(path.join(format!("photo-{n:04}.jpg")), rng.bytes(100)).unwrap();
        }
    }
    let (first, peak) = finish_and_measure(Push::adhoc(&scratch, &source, &[&copy]).start());
    assert_modest(&first, peak, "the first push");
    let (second, peak) = finish_and_measure(Push::adhoc(&scratch, &source, &[&copy]).arg("--delete").start());
    assert_modest(&second, peak, "the second push");
    let report = second.report();
    let host = &report.root().hosts[0];
    assert_eq!((host.state.as_str(), report.root().read_bytes), ("unchanged", 0), "{}", second.said());
    assert!(host.bytes_sent + host.bytes_received < 100_000, "{}", second.said());
    fs::write(source.join("00/000/photo-0000.jpg"), "edited").unwrap();
    let (third, peak) = finish_and_measure(Push::adhoc(&scratch, &source, &[&copy]).start());
    assert_modest(&third, peak, "the third push");
    let host = &third.report().root().hosts[0].bytes_received.to_owned();
    assert!(*host < 1_000_000, "one change in 100,000 files took {host} bytes of inventory: {}", third.said());
    assert_rsync_agrees(&source, &copy);
}

/// The sum of what rsync says it sent and received, delta algorithm on.
fn rsync_wire_bytes(source: &Path, copy: &Path) -> u64 {
    let said = run_or_panic(
        Command::new("rsync")
            .args(["-a", "--no-whole-file", "--stats"])
            .arg(format!("{}/", source.display()))
            .arg(format!("{}/", copy.display()))
            .env("LC_ALL", "C"),
    );
    let total = |name: &str| -> u64 {
        let line = said.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {said}"));
        line[name.len()..].chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap()
    };
    total("Total bytes sent:") + total("Total bytes received:")
}

#[test]
fn a_large_file_with_small_edits_costs_little_memory_and_no_more_bytes_than_rsync() {
    const SIZE: u64 = 256 << 20;
    let scratch = Scratch::new();
    let (source, copy, rsyncs) = (scratch.dir("source"), scratch.path("copy"), scratch.path("rsyncs"));
    let mut rng = Rng::new(2);
    let file = fs::File::create(source.join("disk.img")).unwrap();
    for at in 0..SIZE >> 20 {
        file.write_all_at(&rng.bytes(1 << 20), at << 20).unwrap();
    }
    let (first, peak) = finish_and_measure(Push::adhoc(&scratch, &source, &[&copy]).start());
    assert_modest(&first, peak, "the first push");
    run_or_panic(Command::new("cp").arg("-a").arg(&copy).arg(&rsyncs));
    for _ in 0..64 {
        let at = rng.next() % (SIZE - 100);
        file.write_all_at(&rng.bytes(60), at).unwrap();
    }
    drop(file);
    // Seconds later, as it would be: rsync takes a file changed within the second of its copy for unchanged.
    set_time(&source.join("disk.img"), (1_700_000_000, 0));
    let (second, peak) = finish_and_measure(Push::adhoc(&scratch, &source, &[&copy]).start());
    assert_modest(&second, peak, "the delta");
    let report = second.report();
    let host = &report.root().hosts[0];
    let theirs = rsync_wire_bytes(&source, &rsyncs);
    let ours = host.bytes_sent + host.bytes_received;
    assert!(ours <= theirs, "{ours} bytes, rsync {theirs}: {}", second.said());
    assert!(host.matched_bytes > SIZE - (8 << 20), "{}", second.said());
    assert_eq!(host.matched_bytes + host.literal_bytes, SIZE, "{}", second.said());
    assert_rsync_agrees(&source, &copy);
}

#[test]
fn an_insertion_at_the_front_moves_the_rest_as_matches() {
    let scratch = Scratch::new();
    let (source, copy) = (scratch.dir("source"), scratch.path("copy"));
    let content = Rng::new(3).bytes(40_000_000);
    fs::write(source.join("log"), &content).unwrap();
    Push::adhoc(&scratch, &source, &[&copy]).ok();
    fs::write(source.join("log"), [b"a new first line\n".as_slice(), &content].concat()).unwrap();
    let outcome = Push::adhoc(&scratch, &source, &[&copy]).ok();
    let report = outcome.report();
    assert!(report.root().hosts[0].literal_bytes < 1_000_000, "{}", outcome.said());
    assert_rsync_agrees(&source, &copy);
}

#[test]
fn an_append_sends_what_was_appended() {
    let scratch = Scratch::new();
    let (source, copy) = (scratch.dir("source"), scratch.path("copy"));
    let mut content = Rng::new(4).bytes(20_000_000);
    fs::write(source.join("log"), &content).unwrap();
    Push::adhoc(&scratch, &source, &[&copy]).ok();
    content.extend(Rng::new(5).bytes(10_000));
    fs::write(source.join("log"), &content).unwrap();
    let outcome = Push::adhoc(&scratch, &source, &[&copy]).ok();
    let report = outcome.report();
    assert!(report.root().hosts[0].bytes_sent < 200_000, "{}", outcome.said());
    assert_rsync_agrees(&source, &copy);
}

#[test]
fn text_is_compressed_on_the_wire() {
    let scratch = Scratch::new();
    let source = scratch.dir("source");
    let fleet = Fleet::start(&scratch, 1);
    let mut rng = Rng::new(6);
    for n in 0..300 {
        fs::write(source.join(n.to_string()), rng.text(20_000)).unwrap();
    }
    let outcome = fleet.push(&scratch, &source, &[]).ok();
    let report = outcome.report();
    assert!(report.root().hosts[0].bytes_sent < report.root().bytes / 2, "{}", outcome.said());
    assert_rsync_agrees(&source, &fleet.hosts[0].path);
}
