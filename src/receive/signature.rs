//! Signatures of files that the primary will send as a delta.

use std::io::Read;

use super::link::Output;
use crate::delta::Signer;
use crate::tree::{Parents, open_basis};
use crate::wire::{SignatureRequest, ToPrimary, WireError};

/// How much is read at a time.
const READ_BYTES: usize = 1 << 20;

/// Signature bytes in one message.
const MESSAGE_BYTES: usize = 1 << 20;

/// Answers one request. A file that is not as the inventory said gets no signature, and so does
/// one whose block lengths are out of bounds: then the primary sends it whole.
pub(super) fn answer(request: &SignatureRequest, parents: &mut Parents, output: &Output) -> Result<(), WireError> {
    match sign(request, parents, output)? {
        Some(rest) => output.send(&ToPrimary::Signature { id: request.id, bytes: rest, last: true }),
        None => output.send(&ToPrimary::NoSignature { id: request.id }),
    }
}

/// Sends all but the last part; `None` where there is no signature.
fn sign(request: &SignatureRequest, parents: &mut Parents, output: &Output) -> Result<Option<Vec<u8>>, WireError> {
    let Ok(mut signer) = Signer::new(request.spec, request.size_bytes) else { return Ok(None) };
    let Ok((mut file, stat)) = open_basis(parents, &request.path) else { return Ok(None) };
    if stat.size_bytes != request.size_bytes || stat.mtime != request.mtime {
        return Ok(None);
    }
    let mut buffer = vec![0; READ_BYTES];
    let mut pending = Vec::new();
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => signer.update(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(None),
        }
        pending.append(&mut signer.take());
        if pending.len() >= MESSAGE_BYTES {
            let bytes = std::mem::take(&mut pending);
            output.send(&ToPrimary::Signature { id: request.id, bytes, last: false })?;
        }
    }
    let Ok(rest) = signer.finish() else { return Ok(None) };
    pending.extend_from_slice(&rest);
    Ok(Some(pending))
}
