//! Frames: a length, a kind, a body.

use std::io::{self, Read};

use thiserror::Error;

/// Bytes before a frame's body: length as `u32` little-endian, then the kind.
pub const HEADER_BYTES: usize = 5;

/// Largest body. Four blocks' worth: a message that needs more is split by its sender.
pub const MAX_FRAME_BYTES: usize = 4 << 20;

/// What the peer sent cannot be understood. The connection ends.
#[derive(Debug, Error)]
pub enum WireError {
    /// The length is over [`MAX_FRAME_BYTES`].
    #[error("a frame of {0} bytes is over the limit; the other side does not speak rfleet's protocol")]
    FrameTooLong(u32),
    /// The kind is none that this version knows.
    #[error("unknown frame kind {0}; the other side does not speak rfleet's protocol")]
    UnknownKind(u8),
    /// The body is not a message.
    #[error("a message cannot be decoded: {0}")]
    BadMessage(#[from] postcard::Error),
    /// There are bytes after the end of a message.
    #[error("{0} bytes follow the end of a message")]
    TrailingBytes(usize),
    /// A content block breaks its own rules.
    #[error("a content block is damaged: {0}")]
    BadBlock(&'static str),
    /// Messages that mean nothing come faster than anybody has reason to send them.
    #[error("it sends signs of life without end")]
    Flood,
    /// The link failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a frame's body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// One message, postcard.
    Message = 0,
    /// Content, not compressed.
    Block = 1,
    /// Content, one zstd frame.
    CompressedBlock = 2,
}

/// A frame's length and kind, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the body.
    pub body_bytes: usize,
    /// What the body holds.
    pub kind: FrameKind,
}

impl Header {
    /// Decodes a header.
    ///
    /// # Errors
    /// A length over the limit or an unknown kind.
    pub fn decode(bytes: [u8; HEADER_BYTES]) -> Result<Self, WireError> {
        let [a, b, c, d, kind] = bytes;
        let length = u32::from_le_bytes([a, b, c, d]);
        let kind = match kind {
            0 => FrameKind::Message,
            1 => FrameKind::Block,
            2 => FrameKind::CompressedBlock,
            other => return Err(WireError::UnknownKind(other)),
        };
        match usize::try_from(length) {
            Ok(body_bytes) if body_bytes <= MAX_FRAME_BYTES => Ok(Header { body_bytes, kind }),
            _ => Err(WireError::FrameTooLong(length)),
        }
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the body holds.
    pub kind: FrameKind,
    /// The body.
    pub body: Vec<u8>,
}

/// A frame as bytes, header and body.
///
/// # Panics
/// Never for a body of at most [`MAX_FRAME_BYTES`], which is the caller's duty.
pub fn frame_bytes(kind: FrameKind, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&header_bytes(kind, body.len()));
    bytes.extend_from_slice(body);
    bytes
}

/// The header of a frame whose body has `body_bytes`.
pub(super) fn header_bytes(kind: FrameKind, body_bytes: usize) -> [u8; HEADER_BYTES] {
    debug_assert!(body_bytes <= MAX_FRAME_BYTES);
    let [a, b, c, d] = u32::try_from(body_bytes).unwrap_or(u32::MAX).to_le_bytes();
    [a, b, c, d, kind as u8]
}

/// Reads the next frame; `None` at an orderly end between two frames.
///
/// # Errors
/// As [`Header::decode`], or the link's own, an end inside a frame included.
pub fn read_frame(link: &mut impl Read) -> Result<Option<Frame>, WireError> {
    let mut header = [0; HEADER_BYTES];
    if link.read(&mut header[..1])? == 0 {
        return Ok(None);
    }
    link.read_exact(&mut header[1..])?;
    let header = Header::decode(header)?;
    let mut body = Vec::with_capacity(header.body_bytes);
    let read = link.by_ref().take(header.body_bytes as u64).read_to_end(&mut body)?;
    if read < header.body_bytes {
        return Err(WireError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(Some(Frame { kind: header.kind, body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_survives_the_way() {
        let bytes = frame_bytes(FrameKind::Block, b"content");
        let frame = read_frame(&mut &bytes[..]).unwrap().unwrap();
        assert_eq!(frame, Frame { kind: FrameKind::Block, body: b"content".to_vec() });
        assert!(read_frame(&mut &[][..]).unwrap().is_none());
    }

    #[test]
    fn hostile_headers_are_refused_before_anything_is_allocated() {
        for bytes in [[0xff, 0xff, 0xff, 0xff, 0], [1, 0, 0x40, 0, 0], [0, 0, 0, 0, 9], *b"SSH-2"] {
            assert!(read_frame(&mut &bytes[..]).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn an_end_inside_a_frame_is_an_error() {
        let bytes = frame_bytes(FrameKind::Message, b"content");
        for end in 1..bytes.len() {
            assert!(matches!(read_frame(&mut &bytes[..end]), Err(WireError::Io(_))), "{end}");
        }
    }
}
