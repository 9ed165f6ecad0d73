//! Extended attributes of an entry, ACLs among them: [`Attributes`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Attributes of one entry, at most. Filesystems that can hold more are used with a handful.
pub const MAX_ATTRIBUTES: usize = 256;

/// Bytes of names and values of one entry, at most: with a small file's content it fits a block.
pub const MAX_ATTRIBUTES_BYTES: usize = 256 << 10;

/// As in Linux (`XATTR_NAME_MAX`).
const MAX_NAME_BYTES: usize = 255;

/// As in Linux (`XATTR_SIZE_MAX`).
const MAX_VALUE_BYTES: usize = 64 << 10;

/// The ACL that says who may use an entry.
pub const ACCESS_ACL: &[u8] = b"system.posix_acl_access";

/// The ACL that new entries of a directory get.
pub const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// Capabilities of a program.
pub const CAPABILITY: &[u8] = b"security.capability";

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attribute {
    /// The full name with its namespace.
    pub name: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// What an attribute is for, as far as it decides who may set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeClass {
    /// `user.*`: of whoever may write the entry.
    User,
    /// A POSIX ACL.
    Acl,
    /// What a program may do whoever runs it.
    Capability,
    /// `trusted.*`: of privileged processes.
    Trusted,
    /// Other `security.*`: of the host's own security modules.
    Label,
}

impl AttributeClass {
    /// The class of the attribute `name`; `None` for one that is never synced.
    pub fn of(name: &[u8]) -> Option<Self> {
        let is_below = |prefix: &[u8]| name.len() > prefix.len() && name.starts_with(prefix);
        match name {
            ACCESS_ACL | DEFAULT_ACL => Some(AttributeClass::Acl),
            CAPABILITY => Some(AttributeClass::Capability),
            _ if is_below(b"user.") => Some(AttributeClass::User),
            _ if is_below(b"trusted.") => Some(AttributeClass::Trusted),
            _ if is_below(b"security.") => Some(AttributeClass::Label),
            _ => None,
        }
    }
}

/// Why attributes are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AttributesError {
    /// A name that is empty, too long, holds a NUL or is of a namespace that is not synced.
    #[error("an extended attribute has a name that is not synced")]
    Name,
    /// They are not sorted by name, or one comes twice.
    #[error("extended attributes are not sorted by name, each once")]
    Order,
    /// There are more, or they are longer, than an entry may have.
    #[error("more extended attributes than {MAX_ATTRIBUTES}, or of more than {} KiB", MAX_ATTRIBUTES_BYTES >> 10)]
    TooMuch,
}

/// The extended attributes of one entry, sorted by name, each once, within the bounds above. Empty where
/// they are not synced.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Attributes(Option<Arc<Vec<Attribute>>>);

impl Attributes {
    /// Takes attributes that are sorted by name.
    ///
    /// # Errors
    /// [`AttributesError`].
    pub fn new(all: Vec<Attribute>) -> Result<Self, AttributesError> {
        let mut bytes = 0;
        let mut before: Option<&Attribute> = None;
        for one in &all {
            check(one, before)?;
            bytes += one.bytes();
            before = Some(one);
        }
        if all.len() > MAX_ATTRIBUTES || bytes > MAX_ATTRIBUTES_BYTES {
            return Err(AttributesError::TooMuch);
        }
        Ok(Self::unchecked(all))
    }

    fn unchecked(all: Vec<Attribute>) -> Self {
        Attributes((!all.is_empty()).then(|| all.into()))
    }

    /// Each, by name.
    pub fn iter(&self) -> std::slice::Iter<'_, Attribute> {
        self.0.as_deref().map(Vec::as_slice).unwrap_or_default().iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The value of `name`.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|one| one.name == name).map(|one| &*one.value)
    }

    /// Users and groups that ACLs among them name; some several times.
    pub fn named(&self) -> impl Iterator<Item = AclName> + '_ {
        let acls = self.iter().filter(|one| AttributeClass::of(&one.name) == Some(AttributeClass::Acl));
        acls.filter_map(|acl| acl_entries(&acl.value)).flatten().filter_map(|entry| match entry.tag {
            ACL_USER => Some(AclName::User(entry.id)),
            ACL_GROUP => Some(AclName::Group(entry.id)),
            _ => None,
        })
    }

    /// Bytes of names and values, about as many as they take in a message.
    pub fn bytes(&self) -> usize {
        self.iter().map(Attribute::bytes).sum()
    }

    /// Those that a host of `fidelity` holds, with the numbers in ACLs translated by `map`.
    pub fn kept(&self, fidelity: AttributeFidelity, map: &AclMap) -> Attributes {
        let kept = self.iter().filter(|one| fidelity.holds(&one.name));
        let kept = kept.map(|one| match AttributeClass::of(&one.name) {
            Some(AttributeClass::Acl) => Attribute { name: one.name.clone(), value: map.translate(&one.value) },
            _ => one.clone(),
        });
        if self.is_empty() { Attributes::default() } else { Attributes::unchecked(kept.collect()) }
    }

    /// Whether the ACLs, and whether other attributes differ, of those that a host of `fidelity` holds.
    /// `self` is the primary's, whose numbers in ACLs become others there by `map`.
    pub fn differ(&self, theirs: &Attributes, fidelity: AttributeFidelity, map: &AclMap) -> (bool, bool) {
        if self.is_empty() && theirs.is_empty() {
            return (false, false);
        }
        let (own, theirs) = (self.kept(fidelity, map), theirs.kept(fidelity, &AclMap::default()));
        let is_acl = |one: &&Attribute| AttributeClass::of(&one.name) == Some(AttributeClass::Acl);
        let acl = own.iter().filter(is_acl).ne(theirs.iter().filter(is_acl));
        let other = own.iter().filter(|one| !is_acl(one)).ne(theirs.iter().filter(|one| !is_acl(one)));
        (acl, other)
    }
}

fn check(one: &Attribute, before: Option<&Attribute>) -> Result<(), AttributesError> {
    let is_name = one.name.len() <= MAX_NAME_BYTES && !one.name.contains(&0);
    if !is_name || AttributeClass::of(&one.name).is_none() {
        return Err(AttributesError::Name);
    }
    if before.is_some_and(|before| before.name >= one.name) {
        return Err(AttributesError::Order);
    }
    if one.value.len() > MAX_VALUE_BYTES { Err(AttributesError::TooMuch) } else { Ok(()) }
}

impl Attribute {
    fn bytes(&self) -> usize {
        self.name.len() + self.value.len() + 8
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Attributes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("extended attributes sorted by name")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Attributes, A::Error> {
                let mut all: Vec<Attribute> = Vec::new();
                let mut bytes = 0;
                while let Some(one) = seq.next_element::<Attribute>()? {
                    check(&one, all.last()).map_err(A::Error::custom)?;
                    bytes += one.bytes();
                    if all.len() == MAX_ATTRIBUTES || bytes > MAX_ATTRIBUTES_BYTES {
                        return Err(A::Error::custom(AttributesError::TooMuch));
                    }
                    all.push(one);
                }
                Ok(Attributes::unchecked(all))
            }
        }
        deserializer.deserialize_seq(All)
    }
}

/// Whom an entry of an ACL is for, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AclName {
    /// One user.
    User(u32),
    /// One group.
    Group(u32),
}

/// Which attributes a host holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AttributeFidelity {
    /// `user.*`.
    pub user: bool,
    /// POSIX ACLs.
    pub acl: bool,
    /// `security.capability`.
    pub capability: bool,
    /// `trusted.*`.
    pub trusted: bool,
    /// Other `security.*`.
    pub label: bool,
}

impl AttributeFidelity {
    /// All of them.
    pub const FULL: Self = AttributeFidelity { user: true, acl: true, capability: true, trusted: true, label: true };

    /// None: attributes are neither compared nor set nor taken away.
    pub const NONE: Self =
        AttributeFidelity { user: false, acl: false, capability: false, trusted: false, label: false };

    /// Whether the attribute `name` is held.
    pub fn holds(self, name: &[u8]) -> bool {
        match AttributeClass::of(name) {
            Some(AttributeClass::User) => self.user,
            Some(AttributeClass::Acl) => self.acl,
            Some(AttributeClass::Capability) => self.capability,
            Some(AttributeClass::Trusted) => self.trusted,
            Some(AttributeClass::Label) => self.label,
            None => false,
        }
    }

    /// Whether any is.
    pub fn any(self) -> bool {
        self != Self::NONE
    }
}

/// Which of the receiver's numbers those in the primary's ACLs become; one that is not named stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AclMap {
    /// Users, by the primary's number.
    pub users: BTreeMap<u32, u32>,
    /// Groups, by the primary's number.
    pub groups: BTreeMap<u32, u32>,
}

impl AclMap {
    /// The ACL `value` with its numbers translated; as it is if it is no ACL.
    pub fn translate(&self, value: &[u8]) -> Vec<u8> {
        let Some(entries) = acl_entries(value) else { return value.to_vec() };
        let mut translated = value[..ACL_HEADER_BYTES].to_vec();
        for entry in entries {
            let id = match entry.tag {
                ACL_USER => self.users.get(&entry.id).copied().unwrap_or(entry.id),
                ACL_GROUP => self.groups.get(&entry.id).copied().unwrap_or(entry.id),
                _ => entry.id,
            };
            translated.extend_from_slice(&entry.tag.to_le_bytes());
            translated.extend_from_slice(&entry.permissions.to_le_bytes());
            translated.extend_from_slice(&id.to_le_bytes());
        }
        translated
    }
}

/// One entry of an ACL as Linux gives it out (`posix_acl_xattr_entry`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AclEntry {
    pub(super) tag: u16,
    pub(super) permissions: u16,
    /// Means something for the tags of single users and groups only.
    pub(super) id: u32,
}

/// An entry for one user.
pub(super) const ACL_USER: u16 = 0x02;

/// An entry for one group.
pub(super) const ACL_GROUP: u16 = 0x08;

const ACL_HEADER_BYTES: usize = 4;
const ACL_VERSION: [u8; ACL_HEADER_BYTES] = 2u32.to_le_bytes();

/// The entries of an ACL; `None` for a value that is none.
pub(super) fn acl_entries(value: &[u8]) -> Option<impl Iterator<Item = AclEntry>> {
    let entries = value.strip_prefix(&ACL_VERSION)?;
    let (entries, rest) = entries.as_chunks::<8>();
    rest.is_empty().then(|| {
        entries.iter().map(|&[tag, tag_high, permissions, permissions_high, id @ ..]| AclEntry {
            tag: u16::from_le_bytes([tag, tag_high]),
            permissions: u16::from_le_bytes([permissions, permissions_high]),
            id: u32::from_le_bytes(id),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &[u8]) -> Attribute {
        Attribute { name: name.as_bytes().to_vec(), value: value.to_vec() }
    }

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut value = ACL_VERSION.to_vec();
        for (tag, permissions, id) in entries {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&permissions.to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        value
    }

    #[test]
    fn what_no_host_may_send_is_refused() {
        let long = "user.".to_owned() + &"n".repeat(251);
        let many = |count: usize| (0..count).map(|at| one(&format!("user.{at:05}"), b"")).collect::<Vec<_>>();
        let refused = [
            (vec![one("", b"")], AttributesError::Name),
            (vec![one("user.", b"")], AttributesError::Name),
            (vec![one("system.nfs4_acl", b"")], AttributesError::Name),
            (vec![one("os2.x", b"")], AttributesError::Name),
            (vec![one("user.a\0b", b"")], AttributesError::Name),
            (vec![one(&long, b"")], AttributesError::Name),
            (vec![one("user.b", b""), one("user.a", b"")], AttributesError::Order),
            (vec![one("user.a", b""), one("user.a", b"")], AttributesError::Order),
            (vec![one("user.a", &[0; (64 << 10) + 1])], AttributesError::TooMuch),
            (many(MAX_ATTRIBUTES + 1), AttributesError::TooMuch),
            ((0..5).map(|at| one(&format!("user.{at}"), &[0; 60_000])).collect(), AttributesError::TooMuch),
        ];
        for (all, error) in refused {
            let bytes = serde_json::to_vec(&all).unwrap();
            let decoded = serde_json::from_slice::<Attributes>(&bytes);
            assert!(decoded.unwrap_err().to_string().contains(&error.to_string()), "{error}");
            assert_eq!(Attributes::new(all).unwrap_err(), error);
        }
        assert_eq!(Attributes::new(many(MAX_ATTRIBUTES)).unwrap().iter().count(), MAX_ATTRIBUTES);
        assert_eq!(Attributes::new(Vec::new()).unwrap(), Attributes::default());
    }

    #[test]
    fn what_a_host_does_not_hold_is_no_difference() {
        let names = ["security.capability", "security.selinux", "trusted.x", "user.x"];
        let own = Attributes::new(names.map(|name| one(name, b"1")).to_vec()).unwrap();
        let none = Attributes::default();
        let map = AclMap::default();
        assert_eq!(own.differ(&none, AttributeFidelity::NONE, &map), (false, false));
        assert_eq!(own.differ(&none, AttributeFidelity { acl: true, ..AttributeFidelity::NONE }, &map), (false, false));
        for fidelity in [
            AttributeFidelity { user: true, ..AttributeFidelity::NONE },
            AttributeFidelity { capability: true, ..AttributeFidelity::NONE },
            AttributeFidelity { trusted: true, ..AttributeFidelity::NONE },
            AttributeFidelity { label: true, ..AttributeFidelity::NONE },
        ] {
            assert_eq!(own.kept(fidelity, &map).iter().count(), 1, "{fidelity:?}");
            assert_eq!(own.differ(&none, fidelity, &map), (false, true));
            assert_eq!(none.differ(&own, fidelity, &map), (false, true));
            assert_eq!(own.differ(&own, fidelity, &map), (false, false));
        }
    }

    #[test]
    fn numbers_in_acls_become_the_receivers() {
        let own = acl(&[(1, 6, u32::MAX), (ACL_USER, 7, 33), (4, 4, u32::MAX), (ACL_GROUP, 5, 33), (0x10, 7, 33)]);
        let theirs = acl(&[(1, 6, u32::MAX), (ACL_USER, 7, 48), (4, 4, u32::MAX), (ACL_GROUP, 5, 7), (0x10, 7, 33)]);
        let map = AclMap { users: [(33, 48)].into(), groups: [(33, 7)].into() };
        assert_eq!(map.translate(&own), theirs);
        assert_eq!(AclMap::default().translate(&own), own);
        for broken in [&own[..own.len() - 1], &own[1..], b"", b"\x03\0\0\0"] {
            assert_eq!(map.translate(broken), broken);
        }
        let attributes = |value: &[u8]| {
            Attributes::new(vec![Attribute { name: ACCESS_ACL.to_vec(), value: value.to_vec() }]).unwrap()
        };
        let (own, theirs) = (attributes(&own), attributes(&theirs));
        assert_eq!(own.differ(&theirs, AttributeFidelity::FULL, &map), (false, false));
        assert_eq!(own.differ(&theirs, AttributeFidelity::FULL, &AclMap::default()), (true, false));
    }
}
