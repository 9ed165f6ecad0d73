//! What two rfleet processes say to each other: frames, messages and content blocks.
//!
//! Pure: bytes in, typed values out, or an error. Nothing here opens a file or a socket. The
//! specification, byte by byte, is `docs/protocol.md`; whoever changes a type here changes it there.
//!
//! A peer is not trusted. Frames are capped before anything is allocated, names are checked while
//! they are decoded ([`crate::model::RelPath`]) and so are lengths of lists, and what a message may mean in which state is for the
//! two sessions to decide.

mod block;
mod bounded;
mod frame;
mod message;

pub use block::{BLOCK_TARGET_BYTES, BlockReader, BlockWriter, MAX_BLOCK_BYTES, Record};
pub use bounded::{
    MAX_ASKED_DIRECTORIES, MAX_CHANGES, MAX_DIRECTORIES, MAX_HOOK_TEXT_BYTES, MAX_HOOKS, MAX_NODES, MAX_NOTES,
    MAX_OWNERS, MAX_PROBLEMS, MAX_RESEND, MAX_SIGNATURE_REQUESTS,
};
pub use frame::{Frame, FrameKind, HEADER_BYTES, Header, MAX_FRAME_BYTES, WireError, frame_bytes, read_frame};
pub use message::{
    Begin, Change, Committed, Hello, HookResult, Inventory, PROTOCOL_MAX, PROTOCOL_MIN, Refusal, RefusalKind,
    RootState, SignatureRequest, ToPrimary, ToReceiver, Welcome, choose_protocol, decode, encode,
};
