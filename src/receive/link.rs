//! Frames on standard input and output.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::wire::{Frame, ToPrimary, WireError, encode, read_frame};

/// Silence after which the primary is taken as gone. It says something every second.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How often something is said when there is nothing to say.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// An input that does not wait for ever.
struct Patient(File);

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let timeout = Timespec { tv_sec: TIMEOUT.as_secs().cast_signed(), tv_nsec: 0 };
        loop {
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the primary is silent")),
                Ok(_) => return self.0.read(buffer),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What both the session and the heartbeat write to.
#[derive(Clone)]
pub(super) struct Output(Arc<Mutex<File>>);

impl Output {
    pub(super) fn send(&self, message: &ToPrimary) -> Result<(), WireError> {
        let bytes = encode(message);
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(output.write_all(&bytes)?)
    }
}

/// The link to the primary.
pub(super) struct PrimaryLink {
    input: BufReader<Patient>,
    pub(super) output: Output,
    ended: Arc<AtomicBool>,
    heartbeat: Option<JoinHandle<()>>,
}

impl PrimaryLink {
    pub(super) fn open(input: OwnedFd, output: OwnedFd) -> Self {
        let output = Output(Arc::new(Mutex::new(output.into())));
        let input = BufReader::with_capacity(128 << 10, Patient(input.into()));
        PrimaryLink { input, output, ended: Arc::default(), heartbeat: None }
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
        read_frame(&mut self.input)
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
