//! What a receiver and its runner say to each other, over two pipes: [`HookRunner`] is the receiver's end, [`Orders`]
//! the runner's.
//!
//! The runner believes the receiver nothing but that a commit came to an end: roots and hooks are those of the
//! configuration, which it reads itself, and names go nowhere but to a hook's standard input. Both make sure beforehand
//! that they have read the same configuration. The end of the receiver is the end of its pipe.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use serde::{Deserialize, Serialize};

use super::{CommitHook, MAX_NAMES_BYTES};
use crate::model::{Digest, Sequence};
use crate::receive::Roots;
use crate::wire::{WireError, decode, encode, read_frame};

/// How long a runner may take to be ready: it reads one file.
const READY: Duration = Duration::from_secs(20);

/// Bytes of names in one message.
const PART_BYTES: usize = 1 << 20;

/// To the runner.
#[derive(Serialize, Deserialize)]
enum ToRunner {
    /// Run a hook.
    Run {
        /// Its number in the configuration.
        hook: usize,
        root: String,
        sequence: u64,
        truncated: bool,
        /// So many bytes of names follow.
        names_bytes: usize,
    },
    /// The next bytes of them.
    Names(Vec<u8>),
}

/// From the runner.
#[derive(Serialize, Deserialize)]
enum FromRunner {
    /// First: the digest of what it knows.
    Ready(Digest),
    /// The hook has ended.
    Ended(HookEnd),
}

/// A hook that is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its number in the configuration.
    pub hook: usize,
    /// The root's name.
    pub root: String,
    /// What was reached; 0 where not all of it was.
    pub sequence: Sequence,
    /// What changed is not known, or too much to be told.
    pub truncated: bool,
    /// What changed, relative to the root, each with a NUL at its end.
    pub names: Vec<u8>,
}

/// How a hook ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookEnd {
    /// Well.
    pub ok: bool,
    /// In words, with the last line that it said.
    pub detail: String,
    /// How long it took.
    pub milliseconds: u64,
}

/// Of what both have to have read in the same way.
fn digest(roots: &Roots, hooks: &[CommitHook]) -> Digest {
    // Both are the same program.
    Digest::of(format!("{roots:?} {hooks:?}").as_bytes())
}

/// A runner, as the receiver sees it.
pub struct HookRunner {
    orders: File,
    answers: BufReader<File>,
}

impl HookRunner {
    /// `orders` and `answers` are the runner's standard input and output. Waits until it is ready.
    ///
    /// # Errors
    /// One line: it is not ready in time, or knows another configuration than this.
    pub fn open(orders: OwnedFd, answers: OwnedFd, roots: &Roots, hooks: &[CommitHook]) -> Result<Self, String> {
        let timeout = Timespec { tv_sec: READY.as_secs().cast_signed(), tv_nsec: 0 };
        let ready = retry_on_intr(|| poll(&mut [PollFd::new(&answers, PollFlags::IN)], Some(&timeout)));
        if ready != Ok(1) {
            return Err(format!("the process that runs hooks is not ready within {} s", READY.as_secs()));
        }
        let mut runner = HookRunner { orders: orders.into(), answers: BufReader::new(answers.into()) };
        match runner.answer() {
            Ok(FromRunner::Ready(known)) if known == digest(roots, hooks) => Ok(runner),
            Ok(_) => Err("the configuration changed while it was read; the next push reads it anew".into()),
            Err(error) => Err(format!("the process that runs hooks did not start: {error}")),
        }
    }

    /// Has a hook run and waits for its end. The runner keeps its time.
    pub(super) fn run(&mut self, due: &Due) -> Result<HookEnd, WireError> {
        let Due { hook, root, sequence, truncated, names } = due;
        let run = ToRunner::Run {
            hook: *hook,
            root: root.clone(),
            sequence: sequence.0,
            truncated: *truncated,
            names_bytes: names.len(),
        };
        self.orders.write_all(&encode(&run))?;
        for part in names.chunks(PART_BYTES) {
            self.orders.write_all(&encode(&ToRunner::Names(part.to_vec())))?;
        }
        match self.answer()? {
            FromRunner::Ended(end) => Ok(end),
            FromRunner::Ready(_) => Err(io::Error::from(io::ErrorKind::InvalidData).into()),
        }
    }

    fn answer(&mut self) -> Result<FromRunner, WireError> {
        let frame = read_frame(&mut self.answers)?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        decode(&frame.body)
    }
}

/// What the receiver asks of the runner.
pub struct Orders {
    input: File,
    roots: Roots,
    hooks: usize,
}

/// What the runner answers.
pub struct Answers {
    output: File,
}

impl Orders {
    /// Says that the runner is ready.
    ///
    /// # Errors
    /// The receiver is gone.
    pub fn open(input: OwnedFd, output: OwnedFd, roots: &Roots, hooks: &[CommitHook]) -> io::Result<(Orders, Answers)> {
        let mut answers = Answers { output: output.into() };
        answers.say(&FromRunner::Ready(digest(roots, hooks)))?;
        Ok((Orders { input: input.into(), roots: roots.clone(), hooks: hooks.len() }, answers))
    }

    /// What is to be run next, and where the root lies; `None` when the receiver has ended. As long as nothing is
    /// answered, whatever comes is the end.
    ///
    /// # Errors
    /// It asks for what it should not: a hook or a root that does not exist, or more names than it may know.
    pub fn due(&mut self) -> Result<Option<(Due, PathBuf)>, WireError> {
        let stranger = |what| WireError::Io(io::Error::new(io::ErrorKind::InvalidData, what));
        let (hook, root, sequence, truncated, names_bytes) = match self.hear()? {
            Some(ToRunner::Run { hook, root, sequence, truncated, names_bytes }) => {
                (hook, root, Sequence(sequence), truncated, names_bytes)
            }
            Some(ToRunner::Names(_)) => return Err(stranger("names for nothing")),
            None => return Ok(None),
        };
        if hook >= self.hooks {
            return Err(stranger("a hook that is not configured"));
        }
        let path = self.roots.named.get(&root).ok_or_else(|| stranger("a root that is not configured"))?.clone();
        if names_bytes > MAX_NAMES_BYTES {
            return Err(stranger("more names than are kept"));
        }
        let mut names = Vec::new();
        while names.len() < names_bytes {
            match self.hear()? {
                Some(ToRunner::Names(part)) if !part.is_empty() && names.len() + part.len() <= names_bytes => {
                    names.extend(part);
                }
                Some(_) => return Err(stranger("something else than names")),
                None => return Ok(None),
            }
        }
        Ok(Some((Due { hook, root, sequence, truncated, names }, path)))
    }

    fn hear(&mut self) -> Result<Option<ToRunner>, WireError> {
        read_frame(&mut self.input)?.map(|frame| decode(&frame.body)).transpose()
    }
}

impl Answers {
    /// Says how the hook ended.
    ///
    /// # Errors
    /// The receiver is gone.
    pub fn ended(&mut self, end: HookEnd) -> io::Result<()> {
        self.say(&FromRunner::Ended(end))
    }

    fn say(&mut self, message: &FromRunner) -> io::Result<()> {
        self.output.write_all(&encode(message))
    }
}
