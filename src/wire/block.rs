//! Content blocks: records of files, one after another, about 1 MiB together, compressed as one.
//!
//! A block is the same for every host that receives it. Small files travel whole, many to a block; a
//! large one begins in one block and ends in a later one.

use serde::{Deserialize, Serialize};
use zstd::bulk::Compressor;

use super::frame::{Frame, FrameKind, HEADER_BYTES, MAX_FRAME_BYTES, WireError, frame_bytes, header_bytes};
use crate::model::{Digest, Meta, RelPath, Timestamp};

/// A block is closed when it holds this much.
pub const BLOCK_TARGET_BYTES: usize = 1 << 20;

/// Most that a block may hold once decompressed: the target, a last record on top of it, and room.
pub const MAX_BLOCK_BYTES: usize = 2 << 20;

/// One record. Where `bytes` is named, that many bytes of content follow it directly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A whole file; its content follows.
    File {
        /// Its path.
        path: RelPath,
        /// Its attributes.
        meta: Meta,
        /// Its length.
        bytes: u64,
        /// Digest of its content.
        digest: Digest,
    },
    /// A file that comes in pieces.
    Begin {
        /// Its path.
        path: RelPath,
        /// Its attributes.
        meta: Meta,
        /// Its length.
        size_bytes: u64,
        /// Size and time of the receiver's own file that `Copy` refers to.
        basis: Option<(u64, Timestamp)>,
    },
    /// The next piece; its content follows.
    Data {
        /// Its length.
        bytes: u64,
    },
    /// The next piece is this part of the basis.
    Copy {
        /// Where it starts in the basis.
        offset: u64,
        /// Its length.
        bytes: u64,
    },
    /// The next piece is zeros that take no room.
    Hole {
        /// Its length.
        bytes: u64,
    },
    /// The file is whole.
    End {
        /// Digest of its content.
        digest: Digest,
    },
    /// The file changed while it was read; what came of it is to be forgotten.
    Cancel,
}

impl Record {
    fn content_bytes(&self) -> u64 {
        match self {
            Record::File { bytes, .. } | Record::Data { bytes } => *bytes,
            _ => 0,
        }
    }
}

/// Builds blocks.
pub struct BlockWriter {
    /// Room for the header of a frame, then the records: a block that is not compressed is a frame as it lies here.
    bytes: Vec<u8>,
    packer: Packer,
}

impl Default for BlockWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl BlockWriter {
    /// An empty block.
    pub fn new() -> Self {
        BlockWriter { bytes: vec![0; HEADER_BYTES], packer: Packer::default() }
    }

    /// Adds a record and its content.
    pub fn push(&mut self, record: &Record, content: &[u8]) {
        debug_assert_eq!(record.content_bytes(), content.len() as u64);
        // As in `message::encode`: cannot fail for our types.
        self.bytes.extend_from_slice(&postcard::to_stdvec(record).unwrap_or_default());
        self.bytes.extend_from_slice(content);
    }

    /// Bytes in the block so far.
    pub fn len(&self) -> usize {
        self.bytes.len() - HEADER_BYTES
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is time to close the block.
    pub fn is_full(&self) -> bool {
        self.len() >= BLOCK_TARGET_BYTES
    }

    /// Room for content until the block is full.
    pub fn room(&self) -> usize {
        BLOCK_TARGET_BYTES.saturating_sub(self.len())
    }

    /// The block as the bytes of a frame, compressed at zstd's `level` where given and where a
    /// sample says that it pays; empties the writer.
    pub fn take_frame(&mut self, level: Option<i32>) -> Vec<u8> {
        match level.and_then(|level| self.packer.pack(&self.bytes[HEADER_BYTES..], level)) {
            Some(packed) => {
                let frame = frame_bytes(FrameKind::CompressedBlock, packed);
                self.bytes.truncate(HEADER_BYTES);
                frame
            }
            None => {
                let header = header_bytes(FrameKind::Block, self.len());
                self.bytes[..HEADER_BYTES].copy_from_slice(&header);
                // The next block will be about as long.
                let mut next = Vec::with_capacity(self.bytes.capacity());
                next.resize(HEADER_BYTES, 0);
                std::mem::replace(&mut self.bytes, next)
            }
        }
    }
}

/// Bytes of a sample, one from the start and one from the middle of a block.
const SAMPLE_BYTES: usize = 16 << 10;

/// Compresses one block after the other: zstd's tables and the room for the outcome are made once.
#[derive(Default)]
struct Packer {
    zstd: Option<Compressor<'static>>,
    packed: Vec<u8>,
}

impl Packer {
    /// `bytes` compressed, unless that would save less than a tenth.
    fn pack(&mut self, bytes: &[u8], level: i32) -> Option<&[u8]> {
        if bytes.len() > 8 * SAMPLE_BYTES {
            let mid = bytes.len() / 2;
            let samples = [&bytes[..SAMPLE_BYTES], &bytes[mid..mid + SAMPLE_BYTES]];
            // Images lie beside texts: one sample that compresses is reason enough to try.
            if !samples.into_iter().any(|sample| self.pays(sample, 1)) {
                return None;
            }
        }
        self.pays(bytes, level).then_some(&self.packed)
    }

    /// Compresses `bytes` into `packed`; whether that saves enough.
    fn pays(&mut self, bytes: &[u8], level: i32) -> bool {
        let zstd = self.zstd.get_or_insert_default();
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
        let packed = zstd.set_compression_level(level).and_then(|()| zstd.compress_to_buffer(bytes, &mut self.packed));
        packed.is_ok_and(|packed| packed < bytes.len() - bytes.len() / 10)
    }
}

/// Takes a block apart.
pub struct BlockReader {
    bytes: Vec<u8>,
    at: usize,
}

impl BlockReader {
    /// Decompresses the block in `frame`.
    ///
    /// # Errors
    /// The frame is no block, or holds more than [`MAX_BLOCK_BYTES`], or does not decompress.
    pub fn open(frame: Frame) -> Result<Self, WireError> {
        let bytes = match frame.kind {
            FrameKind::Block => frame.body,
            // The capacity bounds the output, whatever the frame's own header claims.
            FrameKind::CompressedBlock => zstd::bulk::decompress(&frame.body, MAX_BLOCK_BYTES)
                .map_err(|_| WireError::BadBlock("it does not decompress within its limit"))?,
            FrameKind::Message => return Err(WireError::BadBlock("it is a message")),
        };
        if bytes.len() > MAX_BLOCK_BYTES || bytes.len() > MAX_FRAME_BYTES {
            return Err(WireError::BadBlock("it is too long"));
        }
        Ok(BlockReader { bytes, at: 0 })
    }

    /// Whether it holds as much as its writer lets one hold.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= BLOCK_TARGET_BYTES
    }

    /// Begins again with the first record.
    pub fn rewind(&mut self) {
        self.at = 0;
    }

    /// The next record and its content; `None` at the end.
    ///
    /// # Errors
    /// The record cannot be decoded or its content is cut off.
    pub fn next_record(&mut self) -> Result<Option<(Record, &[u8])>, WireError> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let (record, after) = postcard::take_from_bytes::<Record>(rest)?;
        let content_bytes = usize::try_from(record.content_bytes())
            .ok()
            .filter(|bytes| *bytes <= after.len())
            .ok_or(WireError::BadBlock("content is cut off"))?;
        let start = self.bytes.len() - after.len();
        self.at = start + content_bytes;
        Ok(Some((record, &self.bytes[start..self.at])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::read_frame;

    fn file(name: &str, content: &[u8]) -> Record {
        let path = RelPath::new(name.as_bytes()).unwrap();
        Record::File { path, meta: Meta::default(), bytes: content.len() as u64, digest: Digest::of(content) }
    }

    #[test]
    fn records_survive_the_way_compressed_or_not() {
        let text = b"<?php echo 'hello'; ".repeat(20_000);
        for level in [None, Some(1)] {
            let mut writer = BlockWriter::new();
            writer.push(&file("a", b"small"), b"small");
            writer.push(&file("b", &text), &text);
            writer.push(&Record::Cancel, b"");
            let bytes = writer.take_frame(level);
            assert_eq!(level.is_some(), bytes.len() < text.len() / 10);
            let mut reader = BlockReader::open(read_frame(&mut &bytes[..]).unwrap().unwrap()).unwrap();
            assert_eq!(reader.next_record().unwrap().unwrap(), (file("a", b"small"), &b"small"[..]));
            assert_eq!(reader.next_record().unwrap().unwrap().1, text);
            assert_eq!(reader.next_record().unwrap().unwrap().0, Record::Cancel);
            assert!(reader.next_record().unwrap().is_none());
        }
    }

    #[test]
    fn a_bomb_does_not_go_off() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
        assert!(bomb.len() < MAX_FRAME_BYTES);
        let frame = Frame { kind: FrameKind::CompressedBlock, body: bomb };
        assert!(BlockReader::open(frame).is_err());
    }

    #[test]
    fn content_that_is_cut_off_is_an_error() {
        let mut writer = BlockWriter::new();
        writer.push(&file("a", b"content"), b"content");
        let mut frame = read_frame(&mut &writer.take_frame(None)[..]).unwrap().unwrap();
        frame.body.pop();
        assert!(BlockReader::open(frame).unwrap().next_record().is_err());
    }
}
