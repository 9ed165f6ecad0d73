//! All that a copy can keep of an entry, one line for each property: looked at with lstat, lgetxattr and lseek.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{SeekFrom, XattrFlags, lgetxattr, llistxattr, lremovexattr, lsetxattr, seek};

/// Properties of each entry by its path; the root under the empty one.
pub type Properties = BTreeMap<Vec<u8>, BTreeMap<String, String>>;

/// Looks at everything below `root`, `.rfleet` apart.
pub fn properties(root: &Path) -> Properties {
    let mut all = Properties::new();
    let mut links = BTreeMap::new();
    look(root, Vec::new(), &mut all, &mut links);
    all
}

/// Lines that tell what of `wanted` is otherwise in `found`; only of the properties that begin with one of `only`, if
/// there are any.
pub fn differences(wanted: &Properties, found: &Properties, only: &[&str]) -> Vec<String> {
    let mut lines = Vec::new();
    let none = BTreeMap::new();
    let paths: std::collections::BTreeSet<_> = wanted.keys().chain(found.keys()).collect();
    for path in paths {
        let (one, other) = (wanted.get(path).unwrap_or(&none), found.get(path).unwrap_or(&none));
        let names: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).collect();
        for name in names.into_iter().filter(|name| only.is_empty() || only.iter().any(|only| name.starts_with(only))) {
            if one.get(name) != other.get(name) {
                let (one, other) = (one.get(name), other.get(name));
                lines.push(format!("{}: {name}: {one:?} became {other:?}", path.escape_ascii()));
            }
        }
    }
    lines
}

fn look(path: &Path, name: Vec<u8>, all: &mut Properties, links: &mut BTreeMap<u64, Vec<u8>>) {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let kind = meta.file_type();
    let mut own = BTreeMap::new();
    let mut say = |what: &str, value: String| drop(own.insert(what.to_owned(), value));
    let device = || format!("{}:{}", rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    say("owner", format!("{}:{}", meta.uid(), meta.gid()));
    say("time", format!("{}.{:09}", meta.mtime(), meta.mtime_nsec()));
    match kind {
        _ if kind.is_dir() => say("kind", "directory".into()),
        _ if kind.is_symlink() => {
            say("kind", "link".into());
            say("target", fs::read_link(path).unwrap().as_os_str().as_bytes().escape_ascii().to_string());
        }
        _ if kind.is_file() => {
            say("kind", "file".into());
            say("content", format!("{} {}", meta.size(), digest(path)));
            let (data, layout) = layout(path, meta.size());
            say("holes", if data * 4 < meta.size() { "most of it" } else { "few" }.into());
            say("layout", layout);
        }
        _ if kind.is_fifo() => say("kind", "pipe".into()),
        _ if kind.is_socket() => say("kind", "socket".into()),
        _ if kind.is_char_device() => say("kind", format!("character device {}", device())),
        _ => say("kind", format!("block device {}", device())),
    }
    if !kind.is_symlink() {
        say("mode", format!("{:04o}", meta.mode() & 0o7777));
    }
    if !kind.is_dir() {
        let first = links.entry(meta.ino()).or_insert_with(|| name.clone());
        say("hard link", first.escape_ascii().to_string());
    }
    for (attribute, value) in attributes(path) {
        say(&format!("attribute {attribute}"), value);
    }
    all.insert(name.clone(), own);
    if kind.is_dir() {
        let mut children: Vec<_> = fs::read_dir(path).unwrap().map(|child| child.unwrap().file_name()).collect();
        children.sort();
        for child in children.iter().filter(|child| *child != ".rfleet" && *child != "lost+found") {
            let full = if name.is_empty() { Vec::new() } else { [&name[..], b"/"].concat() };
            look(&path.join(child), [&full[..], child.as_bytes()].concat(), all, links);
        }
    }
}

fn digest(path: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut fs::File::open(path).unwrap(), &mut hasher).unwrap();
    hasher.finalize().to_hex()[..16].to_owned()
}

/// How much data there is, and where it lies, as `from-to` in bytes.
fn layout(path: &Path, size: u64) -> (u64, String) {
    let file = fs::File::open(path).unwrap();
    let mut said = String::new();
    let (mut at, mut bytes) = (0, 0);
    while at < size {
        let Ok(data) = seek(&file, SeekFrom::Data(at)) else { break };
        at = seek(&file, SeekFrom::Hole(data)).unwrap();
        bytes += at - data;
        let _ = write!(said, "{data}-{at} ");
    }
    (bytes, said)
}

/// Extended attributes, in hexadecimal.
pub fn attributes(path: &Path) -> BTreeMap<String, String> {
    let mut names = vec![0; 64 << 10];
    let bytes = llistxattr(path, &mut names[..]).unwrap_or(0);
    let names = names[..bytes].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let bytes = lgetxattr(path, name, &mut value[..]).unwrap();
        value[..bytes].iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    };
    names.map(|name| (String::from_utf8(name.to_vec()).unwrap(), value(name))).collect()
}

/// Gives `path`, not followed, the extended attribute `name`.
pub fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap_or_else(|e| panic!("{name} of {}: {e}", path.display()));
}

/// Takes the extended attribute `name` from `path`.
pub fn remove_attribute(path: &Path, name: &str) {
    lremovexattr(path, name).unwrap_or_else(|e| panic!("{name} of {}: {e}", path.display()));
}
