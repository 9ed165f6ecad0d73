//! Messages, both ways.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::bounded::{
    self, MAX_ASKED_DIRECTORIES, MAX_CHANGES, MAX_DIRECTORIES, MAX_HOOK_TEXT_BYTES, MAX_HOOKS, MAX_NOTES, MAX_PATTERNS,
    MAX_PROBLEMS, MAX_RESEND, MAX_SIGNATURE_REQUESTS, at_most, text_at_most,
};
use super::frame::{FrameKind, WireError, frame_bytes};
use crate::delta::SignatureSpec;
use crate::model::{
    Digest, DirListing, Expected, Fidelity, Meta, OwnerMap, OwnerNames, Position, Problem, RelPath, SpecialKind, Term,
    Timestamp,
};

/// Oldest protocol that this version still speaks.
pub const PROTOCOL_MIN: u16 = 1;
/// Newest protocol that this version speaks.
pub const PROTOCOL_MAX: u16 = 1;

/// The newest protocol that a peer speaking `min..=max` and this version have in common.
pub fn choose_protocol(min: u16, max: u16) -> Option<u16> {
    let chosen = max.min(PROTOCOL_MAX);
    (chosen >= min.max(PROTOCOL_MIN)).then_some(chosen)
}

/// The primary's first word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest protocol that the primary speaks.
    pub protocol_min: u16,
    /// Newest protocol that the primary speaks.
    pub protocol_max: u16,
    /// Version of the primary's software, for messages.
    pub software: String,
    /// The fleet; `None` for a push without configuration.
    pub fleet: Option<String>,
    /// Name of the root; empty for a push without configuration, where the receiver's command line
    /// names the only root.
    pub root: String,
    /// The primaryship that this push belongs to.
    pub term: Term,
    /// Name of the primary, for messages and records.
    pub primary: String,
    /// Nothing is to be changed: only the inventory is wanted.
    pub read_only: bool,
    /// Compare contents, not sizes and times.
    pub checksum: bool,
    /// A root of another fleet may be taken over.
    pub adopt: bool,
    /// Extended attributes are synced; else they are left alone.
    pub attributes: bool,
}

/// What a receiver's `.rfleet/state` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootState {
    /// The fleet that uses this root.
    pub fleet: String,
    /// The root's name in it.
    pub root: String,
    /// The last term under which it was written.
    pub term: Term,
    /// The primary of that term.
    pub primary: String,
    /// What is wholly here; 0 where that is not known.
    pub position: Position,
}

/// The receiver's answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol spoken from here on.
    pub protocol: u16,
    /// Version of the receiver's software, for messages.
    pub software: String,
    /// What entries can keep here.
    pub fidelity: Fidelity,
    /// Whether this receiver deletes at all.
    pub allow_delete: bool,
    /// What an earlier push recorded.
    pub state: Option<RootState>,
    /// Room for content, in bytes; the largest number if it is not known.
    pub free_bytes: u64,
    /// Room for entries; `None` where the filesystem has no limit.
    pub free_inodes: Option<u64>,
    /// Whether the receiver may change the root's directory; for a root that does not exist, the directory
    /// that it would be made in.
    pub writable: bool,
    /// Patterns in gitignore's syntax: what is left alone here whatever comes. To send it is in vain.
    #[serde(deserialize_with = "at_most::<_, _, MAX_PATTERNS>")]
    pub protect: Vec<String>,
    /// Something an operator should know, said once.
    #[serde(deserialize_with = "at_most::<_, _, MAX_NOTES>")]
    pub notes: Vec<String>,
}

/// Why a receiver refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalKind {
    /// No protocol in common.
    Protocol,
    /// The root is none of this receiver's.
    UnknownRoot,
    /// The root's directory cannot be used.
    BadRoot,
    /// Another push writes to this root.
    Busy,
    /// Another fleet's root.
    OtherFleet,
    /// A newer primary exists.
    Fenced,
    /// The content would not fit.
    NoSpace,
    /// The local policy does not allow it.
    Policy,
    /// A message that has no place here.
    BadRequest,
    /// The operating system refused.
    Failed,
    /// The root is not as it was when the primary was last told.
    Stale,
}

/// A receiver's last word: nothing more is changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The class of the cause.
    pub kind: RefusalKind,
    /// The cause and the way out, one line.
    pub message: String,
}

/// What a receiver holds, in sum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Digest of the whole listing.
    pub digest: Digest,
    /// Directories, the root included.
    pub directories: u64,
    /// Entries, the root not counted.
    pub entries: u64,
    /// What could not be listed. Nothing below such a path is touched.
    #[serde(deserialize_with = "at_most::<_, _, MAX_PROBLEMS>")]
    pub unreadable: Vec<Problem>,
}

/// A file of the receiver's whose signature is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureRequest {
    /// Chosen by the primary; comes back with the answer.
    pub id: u32,
    /// The file.
    pub path: RelPath,
    /// Its size by the inventory.
    pub size_bytes: u64,
    /// Its time by the inventory.
    pub mtime: Timestamp,
    /// Block and hash lengths.
    pub spec: SignatureSpec,
    /// Where the part begins that is to be described: a whole number of blocks.
    pub offset: u64,
    /// Length of that part: a whole number of blocks, or up to the end of the file.
    pub bytes: u64,
}

/// What is about to come, so that the receiver can say no before anything changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Names of the owners that occur.
    #[serde(deserialize_with = "bounded::names")]
    pub names: OwnerNames,
    /// Room that is needed beyond what is freed on the way, in bytes.
    pub need_bytes: u64,
    /// Entries that are made.
    pub need_inodes: u64,
    /// Entries that are deleted or replaced by another kind.
    pub deletions: u64,
}

/// One change of the visible tree that needs no content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Rename a directory to where nothing is. Before anything else.
    Move {
        /// Its path.
        from: RelPath,
        /// Its path from now on.
        to: RelPath,
        /// It changes places with what is there.
        exchange: bool,
    },
    /// Make a directory; what else stands there is replaced.
    MakeDirectory {
        /// The directory.
        path: RelPath,
        /// What is taken to be there.
        was: Expected,
    },
    /// The file or link that comes later for this path may replace a directory with all it holds.
    ReplaceDirectory {
        /// The directory to be replaced.
        path: RelPath,
        /// What goes, the directory itself included; they count as deletions.
        entries: u64,
    },
    /// The content that comes later for this path replaces something. Without this, nothing is there.
    Expect {
        /// The path.
        path: RelPath,
        /// What is taken to be there.
        was: Expected,
    },
    /// `path` gets the content that lies under another name, which goes later.
    Reuse {
        /// The path.
        path: RelPath,
        /// What is taken to be there.
        was: Expected,
        /// The other name.
        from: RelPath,
        /// Size of the file there.
        size_bytes: u64,
        /// Time of the file there.
        mtime: Timestamp,
        /// Its attributes from now on.
        meta: Meta,
    },
    /// Make `path` another name of the file `to`.
    Link {
        /// The new name.
        path: RelPath,
        /// A name that is there already.
        to: RelPath,
        /// What is taken to be at `path`.
        was: Expected,
    },
    /// Make a symbolic link.
    Symlink {
        /// The link.
        path: RelPath,
        /// Its target, verbatim.
        target: Box<[u8]>,
        /// Its attributes.
        meta: Meta,
        /// What is taken to be there.
        was: Expected,
    },
    /// Set the attributes of anything but a directory, whose content is right.
    SetMeta {
        /// The entry.
        path: RelPath,
        /// Its attributes.
        meta: Meta,
        /// What is taken to be there: something, and no directory.
        was: Expected,
    },
    /// Delete a directory (empty by now) or anything else.
    Remove {
        /// The entry.
        path: RelPath,
        /// What is taken to be there.
        was: Expected,
    },
    /// Set the attributes of a directory, times included; after everything in it is done.
    SetDirectoryMeta {
        /// The directory.
        path: RelPath,
        /// Its attributes.
        meta: Meta,
    },
    /// Make a named pipe or a device.
    Special {
        /// The entry.
        path: RelPath,
        /// What it is; no socket.
        kind: SpecialKind,
        /// Its attributes.
        meta: Meta,
        /// What is taken to be there.
        was: Expected,
    },
}

/// From the primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToReceiver {
    /// First.
    Hello(Hello),
    /// Nothing to say; the link lives.
    Heartbeat,
    /// What does the root hold? At most once, and before any other question.
    List,
    /// The digest differs: the directories and their digests, please.
    GetDirectories {
        /// Names of the owners in the primary's tree.
        #[serde(deserialize_with = "bounded::names")]
        names: OwnerNames,
    },
    /// What these directories hold. Answered in order.
    GetEntries {
        /// The directories, as the receiver listed them.
        #[serde(deserialize_with = "at_most::<_, _, MAX_ASKED_DIRECTORIES>")]
        paths: Vec<RelPath>,
    },
    /// Signatures of files. Answered in order.
    GetSignatures {
        /// The files.
        #[serde(deserialize_with = "at_most::<_, _, MAX_SIGNATURE_REQUESTS>")]
        requests: Vec<SignatureRequest>,
    },
    /// Changes follow.
    Begin(Begin),
    /// Changes without content, in order.
    Changes(#[serde(deserialize_with = "at_most::<_, _, MAX_CHANGES>")] Vec<Change>),
    /// All content has been sent; which of it must be sent again?
    EndOfContent,
    /// That was all: make it durable, record it, say so.
    Finish {
        /// What is reached.
        position: Position,
        /// The fleet's record is to be written (never for a push without configuration).
        record: bool,
    },
}

/// What came of a hook that the receiver's own configuration has run after a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookResult {
    /// The command, as words for people.
    #[serde(deserialize_with = "text_at_most::<_, MAX_HOOK_TEXT_BYTES>")]
    pub command: String,
    /// Whether it ended well.
    pub ok: bool,
    /// How it ended, with the last line that it said.
    #[serde(deserialize_with = "text_at_most::<_, MAX_HOOK_TEXT_BYTES>")]
    pub detail: String,
    /// How long it took.
    pub milliseconds: u64,
}

/// What was reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// As asked for.
    pub position: Position,
    /// Entries that were not what the plan took them to be. What was replaced or deleted of them is kept
    /// aside; the others were left as they are and are among the problems.
    pub drifted: u64,
    /// Paths that could not be brought to what the primary has.
    #[serde(deserialize_with = "at_most::<_, _, MAX_PROBLEMS>")]
    pub problems: Vec<Problem>,
    /// Problems that found no place in the list.
    pub more_problems: u64,
    /// Something an operator should know, said once.
    #[serde(deserialize_with = "at_most::<_, _, MAX_NOTES>")]
    pub notes: Vec<String>,
    /// The hooks that ran after it, in their order.
    #[serde(deserialize_with = "at_most::<_, _, MAX_HOOKS>")]
    pub hooks: Vec<HookResult>,
}

/// From the receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToPrimary {
    /// Answer to `Hello`.
    Welcome(Welcome),
    /// No; nothing more follows.
    Refused(Refusal),
    /// Still at work.
    Heartbeat,
    /// Answer to `List`.
    Inventory(Inventory),
    /// Answer to `GetDirectories`, in path order, over as many messages as it takes.
    Directories {
        /// What the owners of the primary become here; in the first message only.
        owners: OwnerMap,
        /// The directories and the digests of what they hold.
        #[serde(deserialize_with = "at_most::<_, _, MAX_DIRECTORIES>")]
        directories: Vec<(RelPath, Digest)>,
        /// Nothing follows.
        last: bool,
    },
    /// Answer to `GetEntries`: a part of one directory; the same path again goes on where it stopped.
    Entries(#[serde(deserialize_with = "bounded::listing")] DirListing),
    /// All that was asked by one `GetEntries` has been sent.
    EndOfEntries,
    /// A part of an answer to one signature request.
    Signature {
        /// The request.
        id: u32,
        /// The next bytes.
        bytes: Vec<u8>,
        /// Nothing follows for this request.
        last: bool,
    },
    /// The file is not what the inventory said, or cannot be read.
    NoSignature {
        /// The request.
        id: u32,
    },
    /// Where it is with the content.
    Progress {
        /// Files done.
        files: u64,
        /// Bytes of files done.
        bytes: u64,
    },
    /// Answer to `EndOfContent`, over as many messages as it takes: files that must be sent in full,
    /// since their basis was not as expected.
    Resend {
        /// The files.
        #[serde(deserialize_with = "at_most::<_, _, MAX_RESEND>")]
        paths: Vec<RelPath>,
        /// Nothing follows.
        last: bool,
    },
    /// Answer to `Finish`.
    Committed(Committed),
    /// Before `Inventory`: where it is with listing the root.
    Listing {
        /// Entries seen so far.
        entries: u64,
    },
    /// Between `Finish` and `Committed`: all is done, and hooks are being run.
    Hooks {
        /// Hooks that have ended.
        done: u64,
    },
}

/// A message as the bytes of a frame.
pub fn encode<M: Serialize>(message: &M) -> Vec<u8> {
    // Serialising to a growing vector fails only for types that postcard does not know, and ours it does.
    let body = postcard::to_stdvec(message).unwrap_or_default();
    frame_bytes(FrameKind::Message, &body)
}

/// A message from the body of a frame.
///
/// # Errors
/// The body is not exactly one message, or a name in it is not allowed.
pub fn decode<M: DeserializeOwned>(body: &[u8]) -> Result<M, WireError> {
    let (message, rest) = postcard::take_from_bytes(body)?;
    if rest.is_empty() { Ok(message) } else { Err(WireError::TrailingBytes(rest.len())) }
}
