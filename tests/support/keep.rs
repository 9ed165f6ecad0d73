//! Entries with what a copy has to keep, and a fleet of one host to bring them to.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::properties::{differences, properties};
use super::rfleet::{Config, Outcome, Push, rfleet_bin};
use super::rng::Rng;
use super::scratch::{Scratch, run_or_panic, tool_path};
use super::tree::set_time;

/// Programs that make filesystems which hold everything.
pub const EXT4: &[&str] = &["mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "256"];
pub const XFS: &[&str] = &["mkfs.xfs", "-q"];

pub fn file(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    set_time(path, (1_600_000_000, 5));
}

pub fn special(path: &Path, kind: FileType, device: u64) {
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).unwrap();
}

pub fn acl(options: &[&str], path: &Path) {
    run_or_panic(Command::new("setfacl").args(options).arg(path).env("PATH", tool_path()));
}

/// Data, a hole, data, a hole up to the end.
pub fn sparse(path: &Path) {
    let sparse = fs::File::create(path).unwrap();
    let bytes = Rng::new(3).bytes(1 << 20);
    // The length first: XFS takes room ahead for what grows.
    sparse.set_len(20 << 20).unwrap();
    sparse.write_all_at(&bytes, 0).unwrap();
    sparse.write_all_at(&bytes[..70_000], 9 << 20).unwrap();
}

/// A source and a root of the fleet `cms`, with an index, both on a filesystem of their own.
pub struct Configured {
    pub scratch: Scratch,
    pub source: PathBuf,
    pub copy: PathBuf,
    pub config: PathBuf,
}

impl Configured {
    pub fn new(root_lines: &str, receive: &str) -> Self {
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

    pub fn push(&self) -> Outcome {
        Push::configured(&self.scratch, &self.config).ok()
    }

    pub fn assert_same(&self, only: &[&str], what: &str) {
        let lines = differences(&properties(&self.source), &properties(&self.copy), only);
        assert!(lines.is_empty(), "{what}: {lines:#?}");
    }
}
