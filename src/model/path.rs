//! Names of entries: [`RelPath`].

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Longest single name, as on every Linux filesystem.
pub const MAX_NAME_BYTES: usize = 255;

/// Longest relative name: PATH_MAX less its final NUL.
pub const MAX_PATH_BYTES: usize = 4095;

/// The directory in which a receiver keeps its state and stages content. The name is reserved at
/// every level: a root can lie inside another root's tree, and its state must not be synced,
/// served or deleted by the outer one.
pub const RESERVED_NAME: &[u8] = b".rfleet";

/// Why bytes are not a valid relative name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    /// A name between two separators is empty (also: the path starts or ends with `/`).
    #[error("it has an empty component")]
    Empty,
    /// A component is `.` or `..`.
    #[error("it has a `.` or `..` component")]
    Dots,
    /// A component holds a NUL byte or, for a single name, a `/`.
    #[error("it holds a byte that no file name can hold")]
    BadByte,
    /// A component is longer than [`MAX_NAME_BYTES`].
    #[error("a component is longer than {MAX_NAME_BYTES} bytes")]
    NameTooLong,
    /// The whole is longer than [`MAX_PATH_BYTES`].
    #[error("it is longer than {MAX_PATH_BYTES} bytes")]
    TooLong,
    /// A component is [`RESERVED_NAME`].
    #[error("the name `.rfleet` is reserved")]
    Reserved,
}

/// Checks one component of a name.
///
/// # Errors
/// Any [`PathError`] but `TooLong`.
pub fn check_name(name: &[u8]) -> Result<(), PathError> {
    match name {
        b"" => Err(PathError::Empty),
        b"." | b".." => Err(PathError::Dots),
        _ if name == RESERVED_NAME => Err(PathError::Reserved),
        _ if name.len() > MAX_NAME_BYTES => Err(PathError::NameTooLong),
        _ if name.iter().any(|&byte| byte == 0 || byte == b'/') => Err(PathError::BadByte),
        _ => Ok(()),
    }
}

/// The name of an entry relative to its root, any bytes that Linux allows.
///
/// - Components are separated by single `/`; there is none at the start or the end.
/// - No component is empty, `.`, `..`, [`RESERVED_NAME`], longer than 255 bytes or holds a NUL.
/// - The empty name is the root itself ([`RelPath::root`]).
///
/// The order is component by component, by bytes: a directory comes directly before everything
/// in it (`a` < `a/b` < `a-b`), which is the order of a depth-first walk.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RelPath(Box<[u8]>);

impl RelPath {
    /// The root itself.
    pub fn root() -> Self {
        RelPath(Box::default())
    }

    /// Checks and takes `bytes` as a name below the root.
    ///
    /// # Errors
    /// [`PathError`] says which rule `bytes` break. Empty bytes are an error here.
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong);
        }
        bytes.split(|&byte| byte == b'/').try_for_each(check_name)?;
        Ok(RelPath(bytes.into()))
    }

    /// Like [`RelPath::new`], but empty bytes are the root.
    ///
    /// # Errors
    /// As [`RelPath::new`].
    pub fn new_or_root(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.is_empty() { Ok(Self::root()) } else { Self::new(bytes) }
    }

    /// The entry `name` in the directory `self`.
    ///
    /// # Errors
    /// As [`check_name`], or `TooLong` for the whole.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        check_name(name)?;
        if self.is_root() {
            return Ok(RelPath(name.into()));
        }
        if self.0.len() + 1 + name.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong);
        }
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        Ok(RelPath(bytes.into()))
    }

    /// Whether this is the root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that holds this entry and its name in it; `None` for the root.
    pub fn split(&self) -> Option<(RelPath, &[u8])> {
        let (parent, name) = self.split_bytes()?;
        Some((RelPath(parent.into()), name))
    }

    /// As [`RelPath::split`], with the parent as bytes (empty for the root).
    pub fn split_bytes(&self) -> Option<(&[u8], &[u8])> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
            None => (&[], &self.0),
        })
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.split_bytes().map_or(&[], |(_, name)| name)
    }

    /// The components from the root down; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/').filter(|name| !name.is_empty())
    }

    /// The bytes of the directories that hold this entry, from the topmost on, and at last its own (true).
    pub fn prefixes(&self) -> impl Iterator<Item = (&[u8], bool)> {
        let ends = self.0.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let own = (!self.is_root()).then_some((&*self.0, true));
        ends.map(|at| (&self.0[..at], false)).chain(own)
    }

    /// Whether `self` lies below `dir` at any depth (not: is `dir`).
    pub fn is_below(&self, dir: &RelPath) -> bool {
        if dir.is_root() {
            return !self.is_root();
        }
        self.0.len() > dir.0.len() && self.0[dir.0.len()] == b'/' && self.0.starts_with(&dir.0)
    }

    /// The bytes, components separated by `/`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As a relative path of the operating system; for matchers and messages, never for joining
    /// to a root.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }
}

impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> Ordering {
        // No component holds a NUL, so ranking the separator below every byte is the order by component.
        let rank = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
        let same = self.0.iter().zip(other.0.iter()).take_while(|(a, b)| a == b).count();
        self.0.get(same).map(rank).cmp(&other.0.get(same).map(rank))
    }
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RelPath {
    /// For people: control characters, backslashes and bytes that are not UTF-8 are escaped
    /// (`\n`, `\\`, `\xff`), so that no name can move a cursor or start a line in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for chunk in self.0.utf8_chunks() {
            for char in chunk.valid().chars() {
                match char {
                    '\\' => f.write_str("\\\\")?,
                    '\n' => f.write_str("\\n")?,
                    '\t' => f.write_str("\\t")?,
                    // Format characters that reorder a line are as bad as control characters.
                    '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                        write!(f, "{}", char.escape_unicode())?
                    }
                    _ if char.is_control() => write!(f, "{}", char.escape_unicode())?,
                    _ => write!(f, "{char}")?,
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelPath({self})")
    }
}

impl Serialize for RelPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

// Names come from peers; they are checked while they are decoded, never later.
impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> serde::de::Visitor<'de> for Bytes {
            type Value = RelPath;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a relative name")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<RelPath, E> {
                RelPath::new_or_root(bytes).map_err(E::custom)
            }
            // JSON has no bytes, only numbers.
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut numbers: A) -> Result<RelPath, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = numbers.next_element()? {
                    if bytes.len() >= MAX_PATH_BYTES {
                        return Err(serde::de::Error::custom(PathError::TooLong));
                    }
                    bytes.push(byte);
                }
                self.visit_bytes(&bytes)
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_outside_or_nowhere_are_refused() {
        let long_name = vec![b'n'; MAX_NAME_BYTES + 1];
        let long_path = vec![b"d".as_slice(); MAX_PATH_BYTES / 2 + 2].join(&b'/');
        let table: &[(&[u8], PathError)] = &[
            (b"", PathError::Empty),
            (b"/", PathError::Empty),
            (b"/a", PathError::Empty),
            (b"a/", PathError::Empty),
            (b"a//b", PathError::Empty),
            (b".", PathError::Dots),
            (b"..", PathError::Dots),
            (b"a/..", PathError::Dots),
            (b"../a", PathError::Dots),
            (b"a/./b", PathError::Dots),
            (b"a/../../x", PathError::Dots),
            (b"a\0b", PathError::BadByte),
            (b".rfleet", PathError::Reserved),
            (b".rfleet/stage/1", PathError::Reserved),
            (b"a/.rfleet", PathError::Reserved),
            (&long_name, PathError::NameTooLong),
            (&long_path, PathError::TooLong),
        ];
        for (bytes, error) in table {
            assert_eq!(RelPath::new(bytes), Err(*error), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn the_longest_names_and_any_bytes_are_taken() {
        let longest_name = vec![b'n'; MAX_NAME_BYTES];
        let longest_path = vec![b"d".as_slice(); MAX_PATH_BYTES / 2 + 1].join(&b'/');
        assert_eq!(longest_path.len(), MAX_PATH_BYTES);
        for bytes in [&longest_name[..], &longest_path, b"-rf", b"...", b"a b", b"\xff\xfe", b"a\nb", b".rfleetx"] {
            assert_eq!(RelPath::new(bytes).unwrap().as_bytes(), bytes);
        }
    }

    #[test]
    fn a_directory_comes_directly_before_what_is_in_it() {
        let names: Vec<RelPath> = ["a", "a/b", "a/b/c", "a-b", "a.b", "ab", "b"]
            .iter()
            .map(|name| RelPath::new(name.as_bytes()).unwrap())
            .collect();
        let mut sorted = names.clone();
        sorted.reverse();
        sorted.sort();
        assert_eq!(sorted, names);
        assert!(RelPath::root() < names[0]);
    }

    #[test]
    fn display_escapes_what_could_move_a_cursor() {
        let shown = |bytes: &[u8]| RelPath::new(bytes).unwrap().to_string();
        assert_eq!(shown(b"a\nb\x1b[2J\xff\\"), "a\\nb\\u{1b}[2J\\xff\\\\");
        assert_eq!(shown("x\u{202e}y".as_bytes()), "x\\u{202e}y");
        assert_eq!(RelPath::root().to_string(), ".");
    }

    #[test]
    fn below_is_by_component() {
        let path = |name: &str| RelPath::new(name.as_bytes()).unwrap();
        assert!(path("a/b").is_below(&path("a")));
        assert!(!path("ab").is_below(&path("a")));
        assert!(!path("a").is_below(&path("a")));
        assert!(path("a").is_below(&RelPath::root()));
    }
}
