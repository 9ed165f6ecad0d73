//! The naive oracle: a plain recursive copy, with nothing of rfleet in it.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};

use super::scratch::is_root;
use super::tree::{set_mode, set_time};

/// Copies `from` to `to`, which must not exist: contents, kinds, modes, times, owners (as root) and hard links.
/// Nothing else may write in `from` meanwhile.
pub fn plain_copy(from: &Path, to: &Path) {
    copy(from, to, &mut HashMap::new());
}

fn copy(from: &Path, to: &Path, links: &mut HashMap<(u64, u64), PathBuf>) {
    let meta = fs::symlink_metadata(from).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    if meta.is_dir() {
        fs::create_dir(to).unwrap_or_else(|e| panic!("{}: {e}", to.display()));
        for child in fs::read_dir(from).unwrap() {
            let name = child.unwrap().file_name();
            copy(&from.join(&name), &to.join(&name), links);
        }
    } else if meta.is_symlink() {
        symlink(fs::read_link(from).unwrap(), to).unwrap();
    } else {
        if let Some(first) = links.get(&(meta.dev(), meta.ino())) {
            fs::hard_link(first, to).unwrap();
            return;
        }
        fs::write(to, fs::read(from).unwrap()).unwrap();
        if meta.nlink() > 1 {
            links.insert((meta.dev(), meta.ino()), to.to_owned());
        }
    }
    if is_root() {
        lchown(to, Some(meta.uid()), Some(meta.gid())).unwrap();
    }
    if !meta.is_symlink() {
        set_mode(to, meta.mode() & 0o7777);
    }
    set_time(to, (meta.mtime(), meta.mtime_nsec()));
}
