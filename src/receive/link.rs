//! Frames on standard input and output.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::fcntl_setpipe_size;

use super::ahead::{Ahead, Incoming};
use crate::wire::{Frame, ToPrimary, WireError, encode, read_frame};

/// Slowest pace of a link that is taken for one, in bytes per second. Below it someone trickles.
const SLOWEST_BYTES_PER_SECOND: u32 = 1000;

/// A primary that lives but gets nowhere while it holds the lock of a root is given up after so many times the bound on
/// silence: an hour by default. It may have to read a very large file before it has content to send, and says once a minute
/// that it does.
const STUCK_TIMEOUTS: u32 = 60;

/// How often a primary may say that it lives: so often at once, and so often a second on top. It does so once a second.
const HEARTBEATS: (u64, u64) = (1000, 10);

/// What is written at a time: an output that can be written to takes so much without blocking (`PIPE_BUF`).
const WRITE_BYTES: usize = 4096;

/// Size that is asked of a pipe that content comes through: what every user may have. What decrypts it on the other side
/// then goes on while it is not read here.
const PIPE_BYTES: usize = 1 << 20;

/// From so many processors on, reading ahead is worth a thread.
const CORES: usize = 2;

/// How often something is said when there is nothing to say.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long one frame may take. All time counts in which the peer is waited for, none in which it is not.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// The bound on silence.
    silence: Duration,
    waited: Duration,
    bytes: usize,
}

impl Patience {
    fn new(silence: Duration) -> Self {
        Patience { silence, waited: Duration::ZERO, bytes: 0 }
    }

    /// How long the next byte may take.
    fn left(&self) -> Duration {
        let bytes = u32::try_from(self.bytes).unwrap_or(u32::MAX);
        let earned = Duration::from_secs(1).saturating_mul(bytes) / SLOWEST_BYTES_PER_SECOND;
        // Twice: a link may fall silent more than once in a frame.
        self.silence.min((self.silence * 2 + earned).saturating_sub(self.waited))
    }

    /// Waits until `file` is ready, at most as long as `left` and this allow.
    fn wait(&mut self, file: &File, events: PollFlags, left: Duration) -> io::Result<()> {
        let began = Instant::now();
        let left = left.min(self.left());
        let outcome = loop {
            let rest = left.saturating_sub(began.elapsed());
            let timeout = Timespec { tv_sec: rest.as_secs().cast_signed(), tv_nsec: rest.subsec_nanos().into() };
            match poll(&mut [PollFd::new(file, events)], Some(&timeout)) {
                Ok(0) if rest.is_zero() => break Err(io::ErrorKind::TimedOut.into()),
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => break Ok(()),
                Err(error) => break Err(error.into()),
            }
        };
        self.waited += began.elapsed();
        outcome
    }
}

/// An input that does not wait for ever.
struct Patient {
    file: File,
    patience: Patience,
    /// For as long as nobody has introduced himself.
    deadline: Option<Instant>,
}

impl Patient {
    /// The next frame; `None` when the primary has ended.
    fn frame(input: &mut BufReader<Self>) -> Result<Option<Frame>, WireError> {
        let patient = input.get_mut();
        patient.patience = Patience::new(patient.patience.silence);
        read_frame(input)
    }
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        self.patience.wait(&self.file, PollFlags::IN, left).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => io::Error::new(error.kind(), "the primary is silent, or sends next to nothing"),
            _ => error,
        })?;
        let read = self.file.read(buffer)?;
        self.patience.bytes += read;
        Ok(read)
    }
}

/// What both the session and the heartbeat write to.
#[derive(Clone)]
pub(super) struct Output {
    /// `None` once something could be written in part only: what follows would be taken for the rest of it.
    file: Arc<Mutex<Option<File>>>,
    silence: Duration,
}

impl Output {
    pub(super) fn send(&self, message: &ToPrimary) -> Result<(), WireError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut open) = file.take() else { return Err(io::Error::from(io::ErrorKind::BrokenPipe).into()) };
        self.write(&mut open, &encode(message))?;
        *file = Some(open);
        Ok(())
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        let mut patience = Patience::new(self.silence);
        for part in bytes.chunks(WRITE_BYTES) {
            patience.wait(file, PollFlags::OUT, Duration::MAX).map_err(|error| match error.kind() {
                io::ErrorKind::TimedOut => io::Error::new(error.kind(), "the primary does not take what it is sent"),
                _ => error,
            })?;
            file.write_all(part)?;
            patience.bytes += part.len();
        }
        Ok(())
    }
}

/// The link to the primary.
pub(super) struct PrimaryLink {
    /// `None` while it is read ahead.
    input: Option<BufReader<Patient>>,
    ahead: Option<Ahead>,
    pub(super) output: Output,
    ended: Arc<AtomicBool>,
    heartbeat: Option<JoinHandle<()>>,
    opened: Instant,
    heartbeats: u64,
    /// When something that means something was last received.
    worked: Instant,
}

impl PrimaryLink {
    /// `silence` is the time after which a primary that says nothing is taken as gone; also the time in which it must have
    /// introduced itself.
    pub(super) fn open(input: OwnedFd, output: OwnedFd, silence: Duration) -> Self {
        let opened = Instant::now();
        let output = Output { file: Arc::new(Mutex::new(Some(output.into()))), silence };
        let deadline = opened.checked_add(silence);
        let input = Patient { file: input.into(), patience: Patience::new(silence), deadline };
        let input = Some(BufReader::with_capacity(128 << 10, input));
        let ended = Arc::default();
        PrimaryLink { input, ahead: None, output, ended, heartbeat: None, opened, heartbeats: 0, worked: opened }
    }

    /// From now on something is said when there is nothing to say. Done by a thread: where one does so already,
    /// another takes its place, as confined as the caller is by now.
    pub(super) fn start_heartbeat(&mut self) {
        if let Some(heartbeat) = self.stop_heartbeat() {
            // It is stuck only in a write that nobody reads, in which the caller would be stuck as well.
            let _ = heartbeat.join();
        }
        self.ended = Arc::new(AtomicBool::new(false));
        let (beat, stop) = (self.output.clone(), Arc::clone(&self.ended));
        self.heartbeat = Some(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::thread::park_timeout(HEARTBEAT);
                // A link that is gone is noticed where it is read.
                if stop.load(Ordering::Relaxed) || beat.send(&ToPrimary::Heartbeat).is_err() {
                    return;
                }
            }
        }));
    }

    fn stop_heartbeat(&mut self) -> Option<JoinHandle<()>> {
        self.ended.store(true, Ordering::Relaxed);
        let heartbeat = self.heartbeat.take()?;
        heartbeat.thread().unpark();
        Some(heartbeat)
    }

    /// The next frame; `None` when the primary has ended.
    pub(super) fn receive(&mut self) -> Result<Option<Frame>, WireError> {
        match (&mut self.input, &mut self.ahead) {
            (Some(input), _) => Patient::frame(input),
            // In a later round of a session in which much came before.
            (None, Some(ahead)) => match ahead.next()? {
                None => Ok(None),
                Some(Incoming::Message(frame)) => Ok(Some(frame)),
                Some(Incoming::Block(_)) => Err(WireError::BadBlock("content has no place here")),
            },
            (None, None) => Err(io::Error::other("the link is gone").into()),
        }
    }

    /// What the primary sends next while it changes a root. Once there is more content than fits a block, it is read ahead,
    /// by a thread as confined as the caller is by now.
    pub(super) fn receive_ahead(&mut self) -> Result<Option<Incoming>, WireError> {
        if let Some(ahead) = &mut self.ahead {
            return ahead.next();
        }
        let incoming = self.receive()?.map(Incoming::of).transpose()?;
        let is_much = matches!(&incoming, Some(Incoming::Block(block)) if block.is_full());
        let has_cores = || std::thread::available_parallelism().is_ok_and(|cores| cores.get() >= CORES);
        if is_much
            && has_cores()
            && let Some(input) = self.input.take()
        {
            // It may be no pipe, or this user's pipes may be large enough already.
            let _ = fcntl_setpipe_size(&input.get_ref().file, PIPE_BYTES);
            match Ahead::start(input, Patient::frame) {
                Ok(ahead) => self.ahead = Some(ahead),
                Err(input) => self.input = Some(input),
            }
        }
        Ok(incoming)
    }

    /// The primary has introduced itself.
    pub(super) fn greeted(&mut self) {
        if let Some(input) = &mut self.input {
            input.get_mut().deadline = None;
        }
    }

    /// The primary said something that means something, and it was dealt with.
    pub(super) fn worked(&mut self) {
        self.worked = Instant::now();
    }

    /// The primary said that it lives, and no more. `is_changing`: it holds the lock of a root.
    ///
    /// # Errors
    /// It says so far too often, or has said nothing else for far too long.
    pub(super) fn lives(&mut self, is_changing: bool) -> Result<(), WireError> {
        let (at_once, a_second) = HEARTBEATS;
        self.heartbeats += 1;
        if self.heartbeats > at_once + self.opened.elapsed().as_secs() * a_second {
            return Err(WireError::Flood);
        }
        if is_changing && self.worked.elapsed() > self.output.silence * STUCK_TIMEOUTS {
            let stuck = io::Error::new(io::ErrorKind::TimedOut, "the primary lives, but nothing goes on");
            return Err(stuck.into());
        }
        Ok(())
    }

    pub(super) fn send(&self, message: &ToPrimary) -> Result<(), WireError> {
        self.output.send(message)
    }
}

impl Drop for PrimaryLink {
    fn drop(&mut self) {
        // Not joined: it may be stuck in a write that nobody reads, and ends with the process.
        drop(self.stop_heartbeat());
    }
}

/// The process's own standard input and output.
///
/// # Errors
/// They are not open.
pub(super) fn standard_streams() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok((io::stdin().as_fd().try_clone_to_owned()?, io::stdout().as_fd().try_clone_to_owned()?))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;
    use crate::wire::{ToReceiver, decode};

    const SILENCE: Duration = Duration::from_millis(200);

    /// A link, what is to be written to it and what can be read of it.
    fn link() -> (PrimaryLink, File, OwnedFd) {
        let (input, theirs) = rustix::pipe::pipe().unwrap();
        let (ours, output) = rustix::pipe::pipe().unwrap();
        (PrimaryLink::open(input, output, SILENCE), theirs.into(), ours)
    }

    fn assert_timed_out(outcome: Result<Option<Frame>, WireError>) {
        assert!(matches!(&outcome, Err(WireError::Io(error)) if error.kind() == ErrorKind::TimedOut), "{outcome:?}");
    }

    /// Writes `bytes` one by one, each well within the bound on silence, until nobody reads them.
    fn trickle(mut to: File, bytes: Vec<u8>) {
        std::thread::spawn(move || {
            for byte in bytes {
                std::thread::sleep(SILENCE / 8);
                if to.write_all(&[byte]).is_err() {
                    return;
                }
            }
        });
    }

    #[test]
    fn a_greeting_that_trickles_is_not_waited_for() {
        let (mut link, theirs, _ours) = link();
        trickle(theirs, encode(&ToReceiver::GetEntries { paths: Vec::new() }).repeat(100));
        // Frame by frame it is alive all the time.
        let ended = loop {
            match link.receive() {
                Ok(Some(_)) => {}
                other => break other,
            }
        };
        assert_timed_out(ended);
    }

    #[test]
    fn a_frame_that_trickles_is_not_waited_for_and_a_slow_one_is() {
        let (mut link, theirs, _ours) = link();
        link.greeted();
        let long =
            encode(&ToReceiver::GetEntries { paths: vec![crate::model::RelPath::new(&[b'a'; 200]).unwrap(); 20] });
        trickle(theirs, long.clone());
        assert_timed_out(link.receive());
        let (mut link, mut theirs, _ours) = super::tests::link();
        link.greeted();
        // Four times as long as a trickle may take, at several times the slowest pace.
        let slow = long.clone();
        std::thread::spawn(move || {
            for part in slow.chunks(slow.len() / 16 + 1) {
                theirs.write_all(part).unwrap();
                std::thread::sleep(SILENCE / 2);
            }
        });
        let frame = link.receive().unwrap().unwrap();
        assert!(matches!(decode(&frame.body), Ok(ToReceiver::GetEntries { paths }) if paths.len() == 20));
    }

    #[test]
    fn a_primary_that_does_not_read_is_given_up() {
        let (link, _theirs, _ours) = link();
        let message = ToPrimary::Signature { id: 0, bytes: vec![0; 1 << 20], last: true };
        let error = link.send(&message).unwrap_err();
        assert!(matches!(&error, WireError::Io(error) if error.kind() == ErrorKind::TimedOut), "{error}");
    }

    #[test]
    fn signs_of_life_are_bounded_in_number_and_while_a_root_is_locked_in_time() {
        let (mut link, _theirs, _ours) = link();
        let flood = (0..1_000_000).position(|_| link.lives(false).is_err());
        assert!(flood.is_some_and(|after| after >= 1000), "{flood:?}");
        let (mut link, _theirs, _ours) = super::tests::link();
        link.worked = Instant::now().checked_sub(SILENCE * (STUCK_TIMEOUTS + 1)).unwrap();
        assert!(link.lives(false).is_ok(), "it may wait for other hosts as long as it likes");
        assert!(link.lives(true).is_err());
        link.worked();
        assert!(link.lives(true).is_ok());
    }
}
