//! Hardening must not be in the way of honest use: set-ups that look like an attack and are none. Others of them are in
//! `equality` (read-only directories, a link as destination) and `torn` (files that grow and shrink).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::scratch::tool_path;
use support::{Push, Rng, Scratch, Tree, assert_rsync_agrees, assert_same, random_tree, rfleet_bin};

/// Somebody else.
const OTHER: u32 = 65_534;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_link_of_root_s_to_a_mount_is_a_destination_and_a_source() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    random_tree(&source, &mut Rng::new(1), 80);
    let (disk, other) = (scratch.mount_tmpfs("disk", "size=64m"), scratch.mount_tmpfs("other", "size=64m"));
    let (link, below) = (scratch.path("www"), scratch.path("srv"));
    symlink(&disk, &link).unwrap();
    symlink(&other, &below).unwrap();
    // The mount itself, a directory in one, and one that does not exist yet.
    fs::create_dir(other.join("there")).unwrap();
    let copies = [link.clone(), below.join("there"), below.join("new")];
    Push::adhoc(&scratch, &source, &copies).ok();
    for copy in &copies {
        assert_same(&source, &fs::canonicalize(copy).unwrap());
        assert_rsync_agrees(&source, &fs::canonicalize(copy).unwrap());
    }
    assert!(link.is_symlink() && below.is_symlink());
    // And as what is pushed.
    let copy = scratch.path("copy");
    Push::adhoc(&scratch, &link, &[&copy]).ok();
    assert_same(&source, &copy);
}

#[test]
fn a_root_below_a_private_directory_of_someone_else_is_a_destination_and_a_source() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    random_tree(&source, &mut Rng::new(2), 60);
    let private = scratch.dir("private");
    mode(&private, 0o700);
    chown(&private, Some(OTHER), Some(OTHER)).unwrap();
    let copy = private.join("www");
    Push::adhoc(&scratch, &source, &[&copy]).ok();
    assert_same(&source, &copy);
    let back = scratch.path("back");
    Push::adhoc(&scratch, &copy, &[&back]).ok();
    assert_same(&source, &back);
    assert_eq!(fs::metadata(&private).unwrap().mode() & 0o7777, 0o700);
}

/// Also where `fs.protected_regular` is on, as systemd has it, which refuses to root itself to open such a file so that it
/// is made if it is not there.
#[test]
fn files_of_others_in_sticky_directories_are_read_and_replaced() {
    let scratch = Scratch::new();
    let (source, copy) = (scratch.path("source"), scratch.path("copy"));
    Tree::new()
        .dir("tmp")
        .mode(0o1777)
        .owner(0, 0)
        .file("tmp/theirs", "one")
        .owner(OTHER, OTHER)
        .file("tmp/large", Rng::new(3).bytes(200_000))
        .owner(OTHER, OTHER)
        .dir("of-other")
        .mode(0o1777)
        .owner(OTHER, OTHER)
        .file("of-other/root-s", "one")
        .create(&source);
    Push::adhoc(&scratch, &source, &[&copy]).ok();
    assert_same(&source, &copy);
    // In place there, by someone else here, and gone.
    fs::write(source.join("of-other/root-s"), "two, and longer").unwrap();
    fs::remove_file(source.join("tmp/theirs")).unwrap();
    fs::write(source.join("tmp/theirs"), "two, and longer").unwrap();
    let mut large = fs::read(source.join("tmp/large")).unwrap();
    large.extend_from_slice(b"and more");
    fs::write(source.join("tmp/large"), large).unwrap();
    chown(source.join("tmp/large"), Some(OTHER + 1), None).unwrap();
    Push::adhoc(&scratch, &source, &[&copy]).arg("--delete").ok();
    assert_same(&source, &copy);
    fs::remove_file(source.join("tmp/large")).unwrap();
    Push::adhoc(&scratch, &source, &[&copy]).arg("--delete").ok();
    assert_same(&source, &copy);
}

/// `rfleet push` with at most `limit` descriptors, on both sides.
fn push_with_few(scratch: &Scratch, limit: u32, source: &Path, copies: &[PathBuf]) -> Output {
    let mut command = Command::new("prlimit");
    scratch.hermetic(&mut command);
    command.env("PATH", tool_path()).arg(format!("--nofile={limit}")).arg(rfleet_bin()).arg("push").arg(source);
    command.args(copies).args(["--delete", "--max-delete", "100%"]).output().unwrap()
}

#[test]
fn thousands_of_files_need_no_more_than_64_descriptors() {
    let scratch = Scratch::new();
    let source = scratch.path("source");
    let mut deep = source.clone();
    for level in 0..20 {
        deep = deep.join(format!("level{level}"));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), format!("{level}")).unwrap();
    }
    for dir in 0..60 {
        let dir = source.join(format!("wide{dir}"));
        fs::create_dir(&dir).unwrap();
        for file in 0..60 {
            fs::write(dir.join(format!("file{file}")), format!("{file}")).unwrap();
        }
    }
    fs::write(source.join("large"), Rng::new(4).bytes(5_000_000)).unwrap();
    fs::hard_link(source.join("large"), source.join("wide1/large")).unwrap();
    let copies = ["one", "two", "three"].map(|name| scratch.path(name));
    let assert_pushed = |what: &str| {
        let output = push_with_few(&scratch, 64, &source, &copies);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{what}: {said}{}", String::from_utf8_lossy(&output.stdout));
        copies.iter().for_each(|copy| assert_same(&source, copy));
    };
    assert_pushed("the first push");
    let mut large = fs::read(source.join("large")).unwrap();
    large[2_500_000] ^= 1;
    fs::write(source.join("large"), large).unwrap();
    for dir in 0..30 {
        fs::rename(source.join(format!("wide{dir}")), deep.join(format!("moved{dir}"))).unwrap();
    }
    assert_pushed("the second push");
}
