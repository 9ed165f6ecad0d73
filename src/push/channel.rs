//! Messages over a link: framing, heartbeats, counting, and a bound on silence.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::limit::Limits;
use super::output::{Output, OutputError};
use crate::model::Problem;
use crate::payload::Block;
use crate::transport::{ErrorText, Exit, Link, Peer};
use crate::wire::{
    FrameKind, HEADER_BYTES, Header, MAX_HOOKS, Refusal, RefusalKind, ToPrimary, ToReceiver, WireError, decode, encode,
};

/// How often something is said when there is nothing to say.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A receiver that lives but gets nowhere (a disk that hangs) is given up after so many times the
/// bound on silence: ten minutes by default, more than the longest sync to disk should take.
const STUCK_TIMEOUTS: u32 = 20;

/// Frames that wait to be written; with a megabyte each this is what a slow link holds in memory.
const OUTGOING_FRAMES: usize = 2;

/// Messages that wait to be looked at. In memory the largest can take twenty times a frame.
const INCOMING_MESSAGES: usize = 4;

/// Most of a text of the far side's that is passed on, in characters.
const TEXT_CHARS: usize = 4096;

/// How often a peer may say that it lives or how far it is: so often at once, and so often a second on top. It does so
/// ten times a second at most.
const SMALL_TALK: (u64, u64) = (1000, 30);

/// How long an ended receiver may take to be gone.
const EXIT_GRACE: Duration = Duration::from_secs(3);

/// Why a session ended before its end.
#[derive(Debug, Error)]
pub(super) enum ChannelError {
    #[error("it was silent for {} s; given up", .0.as_secs_f64())]
    Silent(Duration),
    #[error("it lives, but nothing went on for {} s; given up", .0.as_secs_f64())]
    Stuck(Duration),
    #[error("the connection ended")]
    Closed,
    #[error("content kept for a slow host cannot be read back from the temporary directory: {0}")]
    Content(String),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("{}", .0.message)]
    Refused(Refusal),
    #[error("it said {0} where that has no place; the two sides do not understand each other")]
    Unexpected(&'static str),
}

impl ChannelError {
    /// Whether a session that was kept open may fail so and a new one may not.
    pub(super) fn is_stale(&self) -> bool {
        let stale = |refusal: &Refusal| matches!(refusal.kind, RefusalKind::Stale);
        match self {
            ChannelError::Silent(_) | ChannelError::Closed => true,
            ChannelError::Refused(refusal) => stale(refusal),
            ChannelError::Wire(error) => matches!(error, WireError::Io(_)),
            _ => false,
        }
    }
}

/// Frames to be written.
pub(super) enum Outgoing {
    Own(Vec<u8>),
    Shared(Block),
}

/// What both tasks of a channel share with its owner.
pub(super) struct Shared {
    started: Instant,
    /// When something was last heard, in milliseconds after `started`.
    heard_ms: AtomicU64,
    /// When something last went on: a message with a meaning came, or bytes were taken.
    moved_ms: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) received_bytes: AtomicU64,
    /// Messages that were understood.
    pub(super) messages: AtomicU64,
    /// Of these, the ones that ask for nothing and answer nothing.
    small_talk: AtomicU64,
    /// Why the writer gave up, if the link is not the reason.
    fault: OnceLock<String>,
}

impl Shared {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn heard(&self) {
        self.heard_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Counts a message that says only that the peer lives, or how far it is.
    ///
    /// # Errors
    /// There are more than anybody has to say.
    fn small_talk(&self) -> Result<(), WireError> {
        let (at_once, a_second) = SMALL_TALK;
        let allowed = at_once + self.started.elapsed().as_secs() * a_second;
        if self.small_talk.fetch_add(1, Ordering::Relaxed) < allowed { Ok(()) } else { Err(WireError::Flood) }
    }

    /// Why the link ended.
    fn ended(&self) -> ChannelError {
        self.fault.get().map_or(ChannelError::Closed, |fault| ChannelError::Content(fault.clone()))
    }

    pub(super) fn moved(&self) {
        self.moved_ms.store(self.now_ms(), Ordering::Relaxed);
    }
}

/// Called with files and bytes that the receiver has done.
pub(super) type OnProgress = Box<dyn Fn(u64, u64) + Send>;

/// A receiver at the other end of a link.
pub(super) struct Channel {
    outgoing: mpsc::Sender<Outgoing>,
    incoming: mpsc::Receiver<Result<ToPrimary, WireError>>,
    pub(super) shared: Arc<Shared>,
    errors: ErrorText,
    peer: Peer,
    timeout: Duration,
    tasks: [JoinHandle<()>; 2],
}

impl Channel {
    pub(super) fn open(link: Link, timeout: Duration, limits: Limits, on_progress: OnProgress) -> Self {
        let shared = Arc::new(Shared {
            started: Instant::now(),
            heard_ms: AtomicU64::new(0),
            moved_ms: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            small_talk: AtomicU64::new(0),
            fault: OnceLock::new(),
        });
        let (outgoing, to_write) = mpsc::channel(OUTGOING_FRAMES);
        let (to_read, incoming) = mpsc::channel(INCOMING_MESSAGES);
        let tasks = [
            tokio::spawn(write_frames(link.output, to_write, Arc::clone(&shared), limits)),
            tokio::spawn(read_messages(link.input, to_read, Arc::clone(&shared), on_progress)),
        ];
        Channel { outgoing, incoming, shared, errors: link.peer.errors.clone(), peer: link.peer, timeout, tasks }
    }

    /// Resolves when nothing was heard for too long, or nothing went on for far too long.
    async fn silence(shared: &Shared, timeout: Duration) -> ChannelError {
        loop {
            let heard = Duration::from_millis(shared.heard_ms.load(Ordering::Relaxed));
            let moved = Duration::from_millis(shared.moved_ms.load(Ordering::Relaxed));
            let (silent, stuck) = (shared.started + heard + timeout, shared.started + moved + timeout * STUCK_TIMEOUTS);
            if Instant::now() >= silent {
                return ChannelError::Silent(timeout);
            }
            if Instant::now() >= stuck {
                return ChannelError::Stuck(timeout * STUCK_TIMEOUTS);
            }
            tokio::time::sleep_until(silent.min(stuck)).await;
        }
    }

    /// Sends a message.
    pub(super) async fn send(&self, message: &ToReceiver) -> Result<(), ChannelError> {
        self.send_frame(Outgoing::Own(encode(message))).await
    }

    async fn send_frame(&self, frame: Outgoing) -> Result<(), ChannelError> {
        tokio::select! {
            sent = self.outgoing.send(frame) => sent.map_err(|_| ChannelError::Closed),
            silent = Self::silence(&self.shared, self.timeout) => Err(silent),
        }
    }

    /// The next message that wants an answer or is one. Dropping the future loses nothing.
    pub(super) async fn receive(&mut self) -> Result<ToPrimary, ChannelError> {
        let message = tokio::select! {
            message = self.incoming.recv() => message.ok_or_else(|| self.shared.ended())??,
            silent = Self::silence(&self.shared, self.timeout) => return Err(silent),
        };
        match message {
            ToPrimary::Refused(Refusal { kind, message }) => {
                Err(ChannelError::Refused(Refusal { kind, message: shortened(message) }))
            }
            message => Ok(message),
        }
    }

    /// Whether the link is there, and was heard of lately.
    pub(super) fn is_alive(&self) -> bool {
        let heard = self.shared.started + Duration::from_millis(self.shared.heard_ms.load(Ordering::Relaxed));
        self.incoming.is_empty() && self.tasks.iter().all(|task| !task.is_finished()) && heard.elapsed() < self.timeout
    }

    /// Begins another round: patience with the far side begins anew.
    pub(super) fn begin_round(&self) {
        self.shared.moved();
    }

    /// Waits for room for one more frame.
    pub(super) async fn reserve(outgoing: &mpsc::Sender<Outgoing>) -> Result<mpsc::Permit<'_, Outgoing>, ChannelError> {
        outgoing.reserve().await.map_err(|_| ChannelError::Closed)
    }

    /// Where frames go, for [`Channel::reserve`].
    pub(super) fn outgoing(&self) -> mpsc::Sender<Outgoing> {
        self.outgoing.clone()
    }

    /// Ends the link in order and says what the far side had to say about its end.
    pub(super) async fn close(self) -> (Exit, Option<String>) {
        let Channel { outgoing, mut incoming, tasks: [writer, reader], peer, errors, .. } = self;
        drop(outgoing);
        // The far side ends when its input does; what is still under way is of no interest.
        let drained = async { while incoming.recv().await.is_some() {} };
        let _ = tokio::time::timeout(EXIT_GRACE, drained).await;
        writer.abort();
        reader.abort();
        let exit = peer.wait(EXIT_GRACE).await;
        errors.complete().await;
        (exit, errors.last_line())
    }
}

async fn write_frames(output: OwnedFd, mut frames: mpsc::Receiver<Outgoing>, shared: Arc<Shared>, limits: Limits) {
    let heartbeat = encode(&ToReceiver::Heartbeat);
    // As a link that cannot be written to, below.
    let Ok(mut output) = Output::new(output) else { return };
    loop {
        let frame = match tokio::time::timeout(HEARTBEAT, frames.recv()).await {
            Ok(Some(frame)) => Some(frame),
            Ok(None) => return,
            Err(_) => None,
        };
        let written = match &frame {
            None => write(&mut output, Piece::Bytes(&heartbeat), &limits, &|| {}).await,
            Some(Outgoing::Own(bytes)) => write(&mut output, Piece::Bytes(bytes), &limits, &|| shared.moved()).await,
            Some(Outgoing::Shared(block)) => write(&mut output, Piece::Block(block), &limits, &|| shared.moved()).await,
        };
        match written {
            Ok(bytes) => shared.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed),
            // A link that cannot be written to will also end for the reader, who says so.
            Err(OutputError::Link) => return,
            Err(OutputError::Block(error)) => {
                // Only one writer sets it.
                let _ = shared.fault.set(error.to_string());
                return;
            }
        };
    }
}

/// A text of the far side's, cut to a length that does not fill logs.
pub(super) fn shortened(text: String) -> String {
    match text.char_indices().nth(TEXT_CHARS) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}

/// A problem as the far side tells it.
pub(super) fn told(problem: Problem) -> Problem {
    Problem { detail: shortened(problem.detail), ..problem }
}

/// What is written at a time.
#[derive(Clone, Copy)]
enum Piece<'f> {
    Bytes(&'f [u8]),
    Block(&'f Block),
}

/// Writes `piece` at the pace of `limits` and returns its length in bytes. `moved` hears of each part that was taken: at
/// a slow pace a frame takes longer than the patience with a peer.
async fn write(
    output: &mut Output,
    piece: Piece<'_>,
    limits: &Limits,
    moved: &(dyn Fn() + Sync),
) -> Result<usize, OutputError> {
    let bytes = match piece {
        Piece::Bytes(bytes) => bytes.len(),
        Piece::Block(block) => block.bytes(),
    };
    let step = limits.piece_bytes().unwrap_or(bytes);
    let mut start = 0;
    while start < bytes {
        let count = step.min(bytes - start);
        limits.acquire(count).await;
        match piece {
            Piece::Bytes(bytes) => output.write(&bytes[start..start + count]).await?,
            Piece::Block(block) => output.write_block(block, start, count).await?,
        }
        start += count;
        moved();
    }
    Ok(bytes)
}

async fn read_messages(
    mut input: Box<dyn AsyncRead + Send + Unpin>,
    messages: mpsc::Sender<Result<ToPrimary, WireError>>,
    shared: Arc<Shared>,
    on_progress: OnProgress,
) {
    let (mut told, mut listed, mut hooks) = ((0, 0), 0, 0);
    loop {
        let message = match read_message(&mut input, &shared).await {
            Ok(None) => return,
            // These never queue up: however long nobody asks, the link stays readable.
            Ok(Some(
                small @ (ToPrimary::Heartbeat
                | ToPrimary::Progress { .. }
                | ToPrimary::Listing { .. }
                | ToPrimary::Hooks { .. }),
            )) => {
                match small {
                    // Only what grows is progress.
                    ToPrimary::Progress { files, bytes } => {
                        if (files, bytes) > told {
                            told = (files, bytes);
                            shared.moved();
                        }
                        on_progress(files, bytes);
                    }
                    ToPrimary::Listing { entries } if entries > listed => {
                        listed = entries;
                        shared.moved();
                    }
                    ToPrimary::Hooks { done } if done > hooks && done <= MAX_HOOKS as u64 => {
                        hooks = done;
                        shared.moved();
                    }
                    _ => {}
                }
                match shared.small_talk() {
                    Ok(()) => continue,
                    Err(flood) => Err(flood),
                }
            }
            Ok(Some(message)) => {
                shared.moved();
                Ok(message)
            }
            Err(error) => Err(error),
        };
        let last = message.is_err();
        if messages.send(message).await.is_err() || last {
            return;
        }
    }
}

async fn read_message(
    input: &mut (dyn AsyncRead + Send + Unpin),
    shared: &Shared,
) -> Result<Option<ToPrimary>, WireError> {
    let mut header = [0; HEADER_BYTES];
    if input.read(&mut header[..1]).await? == 0 {
        return Ok(None);
    }
    input.read_exact(&mut header[1..]).await?;
    let header = Header::decode(header)?;
    if header.kind != FrameKind::Message {
        return Err(WireError::BadBlock("a receiver sends none"));
    }
    // Grows as bytes come: a length alone allocates nothing. A slow link is heard all the time.
    let mut body = Vec::new();
    let mut rest = input.take(header.body_bytes as u64);
    while rest.read_buf(&mut body).await? > 0 {
        shared.heard();
    }
    if body.len() < header.body_bytes {
        return Err(WireError::Io(std::io::ErrorKind::UnexpectedEof.into()));
    }
    shared.received_bytes.fetch_add((HEADER_BYTES + body.len()) as u64, Ordering::Relaxed);
    let message = decode(&body)?;
    shared.messages.fetch_add(1, Ordering::Relaxed);
    Ok(Some(message))
}
