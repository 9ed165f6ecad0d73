//! Signatures of the hosts' files: asked of one host, used for all.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::delta::{Parts, SignatureSpec};
use crate::model::{Listing, RelPath};
use crate::payload::Signatures;
use crate::plan::{Basis, Item, Runs};

/// How many bytes of files may be described ahead: a fraction of a second's work, after which a part of the file that is
/// compared now gets its turn.
const AHEAD_BYTES: u64 = 64 << 20;

/// How many may be, however small: a host that is asked for more answers no sooner.
const AHEAD_QUERIES: usize = 256;

/// How long one host may take before another one is asked. It computes as fast as it reads its disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the last that is asked may take: after it, the content is sent whole.
const LAST_PATIENCE: Duration = Duration::from_secs(60);

/// So many hosts may have let us wait before it is taken to be better to send the content whole: the other hosts wait, too.
const MAX_LATE: usize = 3;

/// A question to a session.
pub(super) struct SignatureQuery {
    pub(super) path: RelPath,
    pub(super) basis: Basis,
    pub(super) spec: SignatureSpec,
    /// Which bytes of the file are to be described.
    pub(super) part: Range<u64>,
    /// Gets the records, or `None` if the file is not what was expected. Dropped with the session.
    pub(super) answer: blocking::Sender<Option<Vec<u8>>>,
}

struct Asked {
    item: Item,
    part: Range<u64>,
    /// Which candidate.
    of: usize,
    answer: blocking::Receiver<Option<Vec<u8>>>,
}

/// Asks the first of some hosts, and the next when it fails.
pub(super) struct SharedSignatures {
    candidates: Vec<mpsc::UnboundedSender<SignatureQuery>>,
    /// The candidate that is asked now.
    current: usize,
    /// Candidates that did not answer in time.
    late: usize,
    listing: Arc<Listing>,
    announced: VecDeque<Item>,
    /// First parts, of items to come.
    asked: VecDeque<Asked>,
    /// Other parts, of the item that is compared now.
    parts: VecDeque<Asked>,
}

impl SharedSignatures {
    pub(super) fn new(candidates: Vec<mpsc::UnboundedSender<SignatureQuery>>, listing: Arc<Listing>) -> Self {
        SharedSignatures {
            candidates,
            current: 0,
            late: 0,
            listing,
            announced: VecDeque::new(),
            asked: VecDeque::new(),
            parts: VecDeque::new(),
        }
    }

    fn ask_of(&self, item: Item, part: Range<u64>, of: usize) -> Option<Asked> {
        let basis = item.basis?;
        let spec = SignatureSpec::for_basis(basis.size_bytes);
        let (answer, receiver) = blocking::channel();
        let query = SignatureQuery { path: item.entry.path(&self.listing), basis, spec, part: part.clone(), answer };
        // A closed channel shows as a dropped answer.
        let _ = self.candidates.get(of)?.send(query);
        Some(Asked { item, part, of, answer: receiver })
    }

    fn ask_ahead(&mut self) {
        let bytes = |asked: &Asked| asked.part.end - asked.part.start;
        let mut ahead_bytes: u64 = self.asked.iter().map(bytes).sum();
        while self.asked.len() < AHEAD_QUERIES && (ahead_bytes < AHEAD_BYTES || self.asked.is_empty()) {
            let Some(item) = self.announced.pop_front() else { return };
            let first = item.basis.map(|basis| {
                let spec = SignatureSpec::for_basis(basis.size_bytes);
                Parts::of(spec, basis.size_bytes).range(0)
            });
            let asked = first.and_then(|part| self.ask_of(item, part, self.current));
            let Some(asked) = asked else { return };
            ahead_bytes += bytes(&asked);
            self.asked.push_back(asked);
        }
    }

    /// Waits for an answer, from one host after the other.
    fn wait(&mut self, mut asked: Asked) -> Option<Vec<u8>> {
        loop {
            let patience = match asked.of {
                // It let us wait before. What it has answered since then is used.
                of if of < self.current => Duration::ZERO,
                of if of + 1 < self.candidates.len() => PATIENCE,
                _ => LAST_PATIENCE,
            };
            match asked.answer.recv_timeout(patience) {
                Ok(Some(records)) => return Some(records),
                // This host's file is not what was expected; another's may be.
                Ok(None) => {}
                // This host is gone or stuck: later questions go to the next one at once.
                Err(error) => {
                    self.late += usize::from(error == blocking::RecvTimeoutError::Timeout && !patience.is_zero());
                    let next = if self.late < MAX_LATE { asked.of + 1 } else { self.candidates.len() };
                    self.current = self.current.max(next);
                }
            }
            let next = asked.of.max(self.current.saturating_sub(1)) + 1;
            asked = self.ask_of(asked.item, asked.part, next)?;
        }
    }
}

impl Signatures for SharedSignatures {
    fn announce(&mut self, items: &Runs<Item>) {
        self.announced.extend(items.iter().filter(|item| item.basis.is_some()));
        self.ask_ahead();
    }

    fn first(&mut self, item: &Item) -> Option<Vec<u8>> {
        self.ask_ahead();
        let asked = self.asked.pop_front().filter(|asked| asked.item == *item)?;
        self.wait(asked)
    }

    fn ask(&mut self, item: &Item, part: Range<u64>) {
        // Without a host that can be asked there is nothing to wait for.
        self.parts.extend(self.ask_of(*item, part, self.current));
    }

    fn answer(&mut self) -> Option<Vec<u8>> {
        let asked = self.parts.pop_front()?;
        self.wait(asked)
    }
}
