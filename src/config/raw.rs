//! What the file says, before any default or check: one struct for each table.
//!
//! The structs are also the list of known keys ([`Keyed`]), so a key cannot be read without being
//! known, nor known without being read. Every value keeps its place in the file for errors.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use toml::Spanned;

/// A known key and, where its value is a table or an array of tables, the keys in there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub name: &'static str,
    pub keys: Option<&'static [Key]>,
}

/// Types of values in the file; `KEYS` is `None` where the value is not a table with fixed keys.
pub(super) trait Keyed {
    const KEYS: Option<&'static [Key]>;
}

macro_rules! plain_values {
    ($($type:ty),*) => { $(impl Keyed for $type { const KEYS: Option<&'static [Key]> = None; })* };
}
plain_values!(String, bool, Whole, Scalar);

impl<T: Keyed> Keyed for Vec<T> {
    const KEYS: Option<&'static [Key]> = T::KEYS;
}

impl<T: Keyed> Keyed for Spanned<T> {
    const KEYS: Option<&'static [Key]> = T::KEYS;
}

impl<T: Keyed> Keyed for BTreeMap<String, T> {
    const KEYS: Option<&'static [Key]> = None;
}

/// The key of a field: the field's name without the `r#` of a Rust keyword.
const fn key_of(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}

/// Defines the struct of a table: every field optional and with its place, and its list of keys.
macro_rules! raw_table {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(expecting = "a table", deny_unknown_fields)]
        pub(super) struct $name {
            $(pub $field: Option<Spanned<$type>>,)*
        }

        impl Keyed for $name {
            const KEYS: Option<&'static [Key]> =
                Some(&[$(Key { name: key_of(stringify!($field)), keys: <$type as Keyed>::KEYS },)*]);
        }
    };
}

/// A list of texts, each with its place.
pub(super) type Texts = Vec<Spanned<String>>;

/// Several tables under one `[[name]]`, each with its place.
pub(super) type Tables<T> = Vec<Spanned<T>>;

raw_table! {
    /// The whole file.
    RawFile {
        version: Whole,
        fleet: String,
        root: Tables<RawRoot>,
        role: RawRole,
        discovery: RawDiscovery,
        host: Tables<RawHost>,
        push: RawPush,
        ssh: RawSsh,
        receive: RawReceive,
        mirror: RawMirror,
        failover: RawFailover,
        serve: RawServe,
    }
}

raw_table! {
    /// `[[root]]`
    RawRoot {
        name: String,
        path: String,
        exclude: Texts,
        one_filesystem: bool,
        max_size: Scalar,
        delete: bool,
        xattrs: bool,
        delete_excluded: bool,
        max_delete: Scalar,
        require: String,
        key: String,
    }
}

raw_table! {
    /// `[role]`
    RawRole {
        source: String,
        primary: String,
    }
}

raw_table! {
    /// `[discovery]`
    RawDiscovery {
        source: String,
        tag: String,
        hosts_tag: String,
        address: String,
        refresh: Scalar,
        hosts: Texts,
        command: Texts,
        file: String,
    }
}

raw_table! {
    /// `[[host]]`
    RawHost {
        name: String,
        port: Whole,
        paths: BTreeMap<String, Spanned<String>>,
        command: Texts,
        bandwidth: Scalar,
    }
}

raw_table! {
    /// `[push]`
    RawPush {
        events: bool,
        interval: Scalar,
        settle: Scalar,
        settle_max: Scalar,
        verify_interval: Scalar,
        parallel: Whole,
        bandwidth: Scalar,
        host_bandwidth: Scalar,
        max_failures: Whole,
        timeout: Scalar,
    }
}

raw_table! {
    /// `[ssh]`
    RawSsh {
        user: String,
        identity_file: String,
        known_hosts: String,
        host_keys: String,
        config: String,
        receiver: String,
        connect_timeout: Scalar,
        persist: Scalar,
    }
}

raw_table! {
    /// `[receive]`
    RawReceive {
        allow_delete: bool,
        owner: String,
        setuid: bool,
        devices: bool,
        labels: bool,
        durability: String,
        attic: Scalar,
        attic_max: Scalar,
        quota: Scalar,
        quota_entries: Whole,
        sandbox: bool,
        protect: Texts,
        timeout: Scalar,
        on_commit: Tables<RawCommitHook>,
    }
}

raw_table! {
    /// One of `[receive] on_commit`
    RawCommitHook {
        r#match: String,
        run: Texts,
        timeout: Scalar,
    }
}

raw_table! {
    /// `[mirror]`
    RawMirror {
        url: String,
        endpoint: String,
        pull: bool,
        follow: bool,
        concurrency: Whole,
        cloudfront: RawCloudfront,
    }
}

raw_table! {
    /// `[mirror] cloudfront`
    RawCloudfront {
        distribution: String,
        paths: Texts,
    }
}

raw_table! {
    /// `[failover]`
    RawFailover {
        lease: bool,
        ttl: Scalar,
        automatic: bool,
        on_promote: Vec<Spanned<Texts>>,
    }
}

raw_table! {
    /// `[serve]`
    RawServe {
        listen: String,
        hosts: Texts,
        ready_max_age: Scalar,
    }
}

/// A whole number; its range is checked when the configuration is built.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole(pub i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WholeVisitor;

        impl Visitor<'_> for WholeVisitor {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E>(self, number: i64) -> Result<Whole, E> {
                Ok(Whole(number))
            }
        }

        deserializer.deserialize_any(WholeVisitor)
    }
}

/// A text or a whole number, for values that may be written either way (`max_delete = 100` or
/// `"25%"`).
#[derive(Clone, Debug)]
pub(super) enum Scalar {
    Whole(i64),
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Whole(number) => number.fmt(f),
            Scalar::Text(text) => text.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;

        impl Visitor<'_> for ScalarVisitor {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a whole number")
            }

            fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar::Whole(number))
            }

            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }
        }

        deserializer.deserialize_any(ScalarVisitor)
    }
}
