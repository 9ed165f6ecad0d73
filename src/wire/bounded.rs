//! Lists of a peer's that have a bound: what exceeds it is refused while it is decoded, before it takes memory. A frame
//! alone is no bound for that: in memory an element takes up to a hundred times the bytes that it has in a frame.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::model::{DirListing, OwnerNames};

/// Changes in one `Changes`.
pub const MAX_CHANGES: usize = 2000;

/// Directories in one `GetEntries`.
pub const MAX_ASKED_DIRECTORIES: usize = 1000;

/// Requests in one `GetSignatures`.
pub const MAX_SIGNATURE_REQUESTS: usize = 250;

/// Directories in one `Directories`.
pub const MAX_DIRECTORIES: usize = 5000;

/// Entries in one `Entries`.
pub const MAX_NODES: usize = 2000;

/// Paths in one `Resend`.
pub const MAX_RESEND: usize = 500;

/// Problems in one message.
pub const MAX_PROBLEMS: usize = 1000;

/// Notes in one message.
pub const MAX_NOTES: usize = 100;

/// Hooks of one receiver.
pub const MAX_HOOKS: usize = 32;

/// Bytes of each text that a receiver says of a hook.
pub const MAX_HOOK_TEXT_BYTES: usize = 1024;

/// Patterns in `Welcome`.
pub const MAX_PATTERNS: usize = 65_536;

/// Users, and groups, in one message.
pub const MAX_OWNERS: usize = 65_536;

/// A list of at most `MAX` elements.
pub(super) fn at_most<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct All<T, const MAX: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for All<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(one) = seq.next_element()? {
                if all.len() == MAX {
                    return Err(A::Error::custom("a list is too long"));
                }
                all.push(one);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_seq(All::<T, MAX>(PhantomData))
}

/// A text of at most `MAX` bytes.
pub(super) fn text_at_most<'de, D: Deserializer<'de>, const MAX: usize>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.len() > MAX { Err(D::Error::custom("a text is too long")) } else { Ok(text) }
}

/// Names of not too many owners: each is looked up in the system's database.
pub(super) fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OwnerNames, D::Error> {
    let names = OwnerNames::deserialize(deserializer)?;
    if names.users.len() > MAX_OWNERS || names.groups.len() > MAX_OWNERS {
        return Err(D::Error::custom("too many owners"));
    }
    Ok(names)
}

/// A part of a directory, of a bounded length.
pub(super) fn listing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DirListing, D::Error> {
    /// As [`DirListing`].
    #[derive(Deserialize)]
    struct Bounded {
        path: crate::model::RelPath,
        meta: crate::model::Meta,
        #[serde(deserialize_with = "at_most::<_, _, MAX_NODES>")]
        nodes: Vec<crate::model::Node>,
    }
    let Bounded { path, meta, nodes } = Bounded::deserialize(deserializer)?;
    Ok(DirListing { path, meta, nodes })
}

#[cfg(test)]
mod tests {
    use super::super::{Change, Committed, HookResult, Inventory, ToPrimary, ToReceiver, WireError, decode, encode};
    use super::*;
    use crate::model::{Digest, Expected, Kind, Meta, Node, Problem, ProblemKind, RelPath};

    fn path() -> RelPath {
        RelPath::new(b"a").unwrap()
    }

    fn to_primary(message: &ToPrimary) -> Result<ToPrimary, WireError> {
        decode(&encode(message)[5..])
    }

    fn to_receiver(message: &ToReceiver) -> Result<ToReceiver, WireError> {
        decode(&encode(message)[5..])
    }

    #[test]
    fn lists_beyond_their_bound_are_refused_and_those_within_are_not() {
        let problem = || Problem::new(path(), ProblemKind::Failed, "");
        let node = Node { name: b"n".as_slice().into(), kind: Kind::Directory, meta: Meta::default() };
        let hook = |bytes| HookResult { command: "x".repeat(bytes), ..HookResult::default() };
        let hooks = |hooks| ToPrimary::Committed(Committed { hooks, ..Committed::default() });
        let to_primary_of: [(usize, &dyn Fn(usize) -> ToPrimary); 9] = [
            (MAX_HOOKS, &|n| hooks(vec![hook(1); n])),
            (MAX_HOOK_TEXT_BYTES, &|n| hooks(vec![hook(n)])),
            (MAX_HOOK_TEXT_BYTES, &|n| hooks(vec![HookResult { detail: "x".repeat(n), ..hook(0) }])),
            (MAX_PROBLEMS, &|n| {
                ToPrimary::Committed(Committed { problems: vec![problem(); n], ..Committed::default() })
            }),
            (MAX_NOTES, &|n| ToPrimary::Committed(Committed { notes: vec![String::new(); n], ..Committed::default() })),
            (MAX_PROBLEMS, &|n| {
                let unreadable = vec![problem(); n];
                ToPrimary::Inventory(Inventory { digest: Digest([0; 32]), directories: 0, entries: 0, unreadable })
            }),
            (MAX_DIRECTORIES, &|n| ToPrimary::Directories {
                owners: crate::model::OwnerMap::default(),
                directories: vec![(path(), Digest([0; 32])); n],
                last: true,
            }),
            (MAX_NODES, &|n| {
                ToPrimary::Entries(DirListing { path: path(), meta: Meta::default(), nodes: vec![node.clone(); n] })
            }),
            (MAX_RESEND, &|n| ToPrimary::Resend { paths: vec![path(); n], last: true }),
        ];
        for (max, of) in to_primary_of {
            assert_eq!(to_primary(&of(max)).unwrap(), of(max));
            assert!(matches!(to_primary(&of(max + 1)), Err(WireError::BadMessage(_))), "{max}");
        }
        let remove = Change::Remove { path: path(), was: Expected::Directory };
        let names = |n: usize| OwnerNames {
            users: (0..n).map(|at| (u32::try_from(at).unwrap(), None)).collect(),
            ..OwnerNames::default()
        };
        let to_receiver_of: [(usize, &dyn Fn(usize) -> ToReceiver); 3] = [
            (MAX_CHANGES, &|n| ToReceiver::Changes(vec![remove.clone(); n])),
            (MAX_ASKED_DIRECTORIES, &|n| ToReceiver::GetEntries { paths: vec![path(); n] }),
            (MAX_OWNERS, &|n| ToReceiver::GetDirectories { names: names(n) }),
        ];
        for (max, of) in to_receiver_of {
            assert_eq!(to_receiver(&of(max)).unwrap(), of(max));
            assert!(matches!(to_receiver(&of(max + 1)), Err(WireError::BadMessage(_))), "{max}");
        }
    }
}
