//! Every file of the fuzzers' corpus through its target, and the seeds that a corpus begins with, made of what rfleet
//! itself says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "../fuzz/src/targets.rs"]
mod targets;

use targets::{TARGETS, find};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

#[test]
fn every_target_takes_its_corpus() {
    for (name, target) in TARGETS {
        let files: Vec<_> = fs::read_dir(corpus().join(name)).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(files.len() >= 3, "the corpus of {name} has {} files", files.len());
        for file in files {
            let bytes = fs::read(&file).unwrap();
            let taken = std::panic::catch_unwind(|| target(&bytes));
            assert!(taken.is_ok(), "{}", file.display());
        }
    }
    let strangers = fs::read_dir(corpus()).unwrap().map(|dir| dir.unwrap().file_name().into_string().unwrap());
    assert_eq!(strangers.filter(|name| find(name).is_none()).collect::<Vec<_>>(), Vec::<String>::new());
}

/// Frames of each message, change and record, by name.
fn golden() -> BTreeMap<String, Vec<u8>> {
    let text = fs::read_to_string(corpus().join("../../tests/golden/protocol-1.txt")).unwrap();
    let is_frame = |name: &str| ["change/", "record/", "to-"].iter().any(|start| name.starts_with(start));
    let lines = text.lines().filter_map(|line| line.split_once(' ')).filter(|(name, _)| is_frame(name));
    let hex = |text: &str| -> Option<Vec<u8>> {
        (0..text.len() / 2).map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()).collect()
    };
    lines.filter_map(|(name, text)| Some((name.to_owned(), hex(text)?))).collect()
}

/// The seeds of each target.
fn seeds() -> BTreeMap<(&'static str, String), Vec<u8>> {
    let mut seeds = BTreeMap::new();
    let golden = golden();
    assert!(golden.len() > 20, "{}", golden.len());
    for (name, frame) in &golden {
        let file = name.replace('/', "-");
        let mut add = |target, bytes: &[u8]| drop(seeds.insert((target, file.clone()), bytes.to_vec()));
        add("frames", frame);
        match frame[4] {
            0 if name.starts_with("to-primary") => {
                add("to_primary", &frame[5..]);
                add("inventory", frame);
            }
            0 => add("to_receiver", &frame[5..]),
            kind => add("block", &[&[kind - 1], &frame[5..]].concat()),
        }
    }
    let all: Vec<u8> = golden.values().flatten().copied().collect();
    let mut add = |target, file: &str, bytes: &[u8]| drop(seeds.insert((target, file.to_owned()), bytes.to_vec()));
    add("frames", "all", &all);
    add("inventory", "all", &all);
    let text: Vec<u8> = (0..3000_u32).flat_map(|at| (at * at % 251).to_le_bytes()).collect();
    for (file, block, shift) in [("short", 64_u16, 0_u8), ("long", 1024, 1), ("none", 0, 0)] {
        let [low, high] = block.to_le_bytes();
        add("signature", file, &[&[low, high, shift, 8, 0, 16, 0, 100], &text[..]].concat());
        add("delta", file, &[&[shift, 100, 50], &text[..]].concat());
        let mut operations = [4096_u64.to_le_bytes(), 3000_u64.to_le_bytes()].concat();
        for (kind, first, second) in [(0_u8, 0_u64, u64::from(block)), (1, 0, 30), (2, 0, 500), (0, 4000, 96)] {
            operations.extend([&[kind][..], &first.to_le_bytes(), &second.to_le_bytes()].concat());
        }
        add("operations", file, &operations);
    }
    for (file, path) in
        [("plain", "a/b.c/d e"), ("outside", "a/../b"), ("own", "a/.rfleet"), ("bytes", "\u{7f}/\u{202e}x")]
    {
        add("path", file, path.as_bytes());
    }
    for (file, text) in [
        ("plain", "a/b.tmp\n*.tmp\n/a/\n!a/b\n"),
        ("deep", "a/b/c\n**/c\na/**/c\n\\#x\n[a-c]?\\ \n"),
        ("wrong", "x\n[\n\\\n[z-a]\n"),
    ] {
        add("patterns", file, text.as_bytes());
    }
    let full = fs::read(corpus().join("../../src/config/testdata/full.toml")).unwrap();
    add("config", "full", &full);
    add("config", "example", &fs::read(corpus().join("../../examples/rfleet.toml")).unwrap());
    add("config", "small", b"version = 1\nfleet = \"c\"\n[[root]]\nname = \"w\"\npath = \"${HOME}/w\"\n");
    seeds
}

/// With `RFLEET_WRITE_SEEDS` in the environment it writes them.
#[test]
fn the_corpus_has_every_seed() {
    let write = std::env::var_os("RFLEET_WRITE_SEEDS").is_some();
    for ((target, file), bytes) in seeds() {
        let path = corpus().join(target).join(format!("seed-{file}"));
        if write {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        let there = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(there == bytes, "{}: write them anew with RFLEET_WRITE_SEEDS=1", path.display());
    }
}
