//! Signatures of files that the primary will send as a delta, made on a thread of their own: the primary compares one part
//! of a file while the next is described, and other content is placed meanwhile.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::link::Output;
use super::protect::Protect;
use crate::delta::{Parts, Signer};
use crate::tree::{Parents, Root, open_basis};
use crate::wire::{SignatureRequest, ToPrimary, WireError};

/// Signature bytes in one message.
const MESSAGE_BYTES: usize = 1 << 20;

/// Questions that wait for an answer; with more of them nothing is read from the primary until one was answered.
const QUESTIONS: usize = 1024;

/// Answers questions for signatures, in their order. Dropping it leaves the rest unanswered.
pub(super) struct Signatures {
    root: Root,
    protect: Protect,
    output: Output,
    questions: Option<SyncSender<SignatureRequest>>,
    ended: Arc<AtomicBool>,
}

impl Signatures {
    /// For files of `root` that are not protected; the answers go to `output`.
    pub(super) fn new(root: &Root, protect: Protect, output: &Output) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        Signatures { root: root.clone(), protect, output: output.clone(), questions: None, ended }
    }

    /// Takes a question.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn ask(&mut self, request: SignatureRequest) -> io::Result<()> {
        let questions = match &self.questions {
            Some(questions) => questions,
            None => self.questions.insert(self.start()?),
        };
        // If the thread is gone, so is the link, which is noticed where it is read.
        let _ = questions.send(request);
        Ok(())
    }

    fn start(&self) -> io::Result<SyncSender<SignatureRequest>> {
        let (questions, asked) = sync_channel(QUESTIONS);
        let (parents, output, ended) = (Parents::new(&self.root), self.output.clone(), Arc::clone(&self.ended));
        let protect = self.protect.clone();
        let work = move || serve(&asked, parents, &protect, &output, &ended);
        std::thread::Builder::new().name("signatures".into()).spawn(work)?;
        Ok(questions)
    }
}

impl Drop for Signatures {
    fn drop(&mut self) {
        // The thread is not waited for: it may be stuck in a write that nobody reads, and ends with the process.
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn serve(
    asked: &Receiver<SignatureRequest>,
    mut parents: Parents,
    protect: &Protect,
    output: &Output,
    ended: &AtomicBool,
) {
    for request in asked {
        if ended.load(Ordering::Relaxed) || answer(&request, &mut parents, protect, output).is_err() {
            return;
        }
    }
}

/// Answers one request. A file that is not as the inventory said gets no signature, and so does
/// one whose block lengths are out of bounds, or that is protected: then the primary sends it whole.
fn answer(
    request: &SignatureRequest,
    parents: &mut Parents,
    protect: &Protect,
    output: &Output,
) -> Result<(), WireError> {
    let signed = if protect.holds(&request.path) { None } else { sign(request, parents, output)? };
    match signed {
        Some(rest) => output.send(&ToPrimary::Signature { id: request.id, bytes: rest, last: true }),
        None => output.send(&ToPrimary::NoSignature { id: request.id }),
    }
}

/// Sends all but the last records; `None` where there is no signature.
fn sign(request: &SignatureRequest, parents: &mut Parents, output: &Output) -> Result<Option<Vec<u8>>, WireError> {
    let Some((mut signer, file)) = open(request, parents) else { return Ok(None) };
    let mut buffer = vec![0; signer.batch_bytes()];
    let mut pending = Vec::new();
    let mut done = 0;
    // Up to here nothing but zeros is known to be.
    let mut hole_end = 0;
    while done < request.bytes {
        let want = usize::try_from(request.bytes - done).unwrap_or(usize::MAX).min(buffer.len());
        let at = request.offset + done;
        done += want as u64;
        if hole_end < at + want as u64 {
            hole_end = end_of_hole(&file, at);
        }
        if hole_end >= at + want as u64 && want == buffer.len() {
            signer.update_zeros();
        // A file that became shorter or cannot be read.
        } else if file.read_exact_at(&mut buffer[..want], at).is_err() {
            return Ok(None);
        } else {
            signer.update(&buffer[..want]);
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

/// Where the next data of `file` begins, from `at` on: a hole is not read, however long a primary had it made.
fn end_of_hole(file: &File, at: u64) -> u64 {
    match seek(file, SeekFrom::Data(at)) {
        Ok(data) => data,
        // Nothing but zeros up to the end, which was looked at when the file was opened.
        Err(Errno::NXIO) => file.metadata().map_or(at, |metadata| metadata.len()),
        Err(_) => at,
    }
}

/// The file of `request` and a signer for the part that is asked for, if all is in order.
fn open(request: &SignatureRequest, parents: &mut Parents) -> Option<(Signer, File)> {
    let SignatureRequest { path, size_bytes, mtime, spec, offset, bytes, .. } = request;
    // The bounds hold for the file as a whole, so that no cutting gets around them.
    spec.validate(*size_bytes).ok()?;
    if !Parts::of(*spec, *size_bytes).allows(*spec, *offset, *bytes) {
        return None;
    }
    let (file, stat) = open_basis(parents, path).ok()?;
    let is_expected = stat.size_bytes == *size_bytes && stat.mtime == *mtime;
    Some((Signer::new(*spec, *bytes).ok()?, file)).filter(|_| is_expected)
}
