//! A bare walk of a tree, the yardstick of a scan: every directory read, every entry looked at, in path order, on one
//! thread, and nothing done with any of it.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, StatxFlags, openat, statx};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How many entries the tree below `root` has, each of them looked at.
pub fn walk(root: &Path) -> Result<u64> {
    let mut buffer = vec![MaybeUninit::uninit(); 1 << 16];
    visit(openat(CWD, root, DIRECTORY, Mode::empty())?, &mut buffer)
}

fn visit(directory: OwnedFd, buffer: &mut [MaybeUninit<u8>]) -> Result<u64> {
    // All names in one piece of memory, each with its NUL.
    let mut text: Vec<u8> = Vec::new();
    let mut names: Vec<Range<usize>> = Vec::new();
    let mut reader = RawDir::new(&directory, &mut *buffer);
    while let Some(entry) = reader.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes_with_nul();
        if !matches!(name, b".\0" | b"..\0") {
            names.push(text.len()..text.len() + name.len());
            text.extend_from_slice(name);
        }
    }
    names.sort_unstable_by(|a, b| text[a.clone()].cmp(&text[b.clone()]));
    let mut count = 0;
    for name in names {
        let name = CStr::from_bytes_with_nul(&text[name])?;
        let seen = statx(&directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
        ensure!(seen.stx_mask & StatxFlags::BASIC_STATS.bits() != 0, "a look that saw nothing");
        count += 1;
        if FileType::from_raw_mode(u32::from(seen.stx_mode)) == FileType::Directory {
            count += visit(openat(&directory, name, DIRECTORY, Mode::empty())?, buffer)?;
        }
    }
    Ok(count)
}
