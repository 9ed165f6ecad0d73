//! Signatures of the hosts' files: asked of one host, used for all.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::delta::SignatureSpec;
use crate::model::{Listing, RelPath};
use crate::payload::{Item, PeerSignature, Signatures};
use crate::plan::Basis;

/// How many bytes of signatures may be under way or waiting.
const AHEAD_BYTES: u64 = 8 << 20;

/// How many may be, however small: a host that is asked for more answers no sooner.
const AHEAD_QUERIES: usize = 256;

/// How long one host may take before another one is asked. It computes as fast as it reads its disk.
const PATIENCE: Duration = Duration::from_secs(60);

/// A question to a session.
pub(super) struct SignatureQuery {
    pub(super) path: RelPath,
    pub(super) basis: Basis,
    pub(super) spec: SignatureSpec,
    /// Gets the records, or `None` if the file is not what was expected. Dropped with the session.
    pub(super) answer: blocking::Sender<Option<Vec<u8>>>,
}

struct Asked {
    item: Item,
    spec: SignatureSpec,
    /// Which candidate.
    of: usize,
    answer: blocking::Receiver<Option<Vec<u8>>>,
}

/// Asks the first of some hosts, and the next when it fails.
pub(super) struct SharedSignatures {
    candidates: Vec<mpsc::UnboundedSender<SignatureQuery>>,
    /// The candidate that is asked now.
    current: usize,
    listing: Arc<Listing>,
    announced: VecDeque<Item>,
    asked: VecDeque<Asked>,
}

impl SharedSignatures {
    pub(super) fn new(candidates: Vec<mpsc::UnboundedSender<SignatureQuery>>, listing: Arc<Listing>) -> Self {
        SharedSignatures { candidates, current: 0, listing, announced: VecDeque::new(), asked: VecDeque::new() }
    }

    fn ask(&self, item: Item, basis: Basis, of: usize) -> Option<Asked> {
        let spec = SignatureSpec::for_basis(basis.size_bytes);
        let (answer, receiver) = blocking::channel();
        let query = SignatureQuery { path: item.entry.path(&self.listing), basis, spec, answer };
        // A closed channel shows as a dropped answer.
        let _ = self.candidates.get(of)?.send(query);
        Some(Asked { item, spec, of, answer: receiver })
    }

    fn ask_ahead(&mut self) {
        let bytes = |asked: &Asked| asked.item.basis.map_or(0, |basis| asked.spec.signature_bytes(basis.size_bytes));
        let mut ahead_bytes: u64 = self.asked.iter().map(bytes).sum();
        while self.asked.len() < AHEAD_QUERIES && (ahead_bytes < AHEAD_BYTES || self.asked.is_empty()) {
            let Some(item) = self.announced.pop_front() else { return };
            let asked = item.basis.and_then(|basis| self.ask(item, basis, self.current));
            let Some(asked) = asked else { return };
            ahead_bytes += bytes(&asked);
            self.asked.push_back(asked);
        }
    }
}

impl Signatures for SharedSignatures {
    fn announce(&mut self, items: &[Item]) {
        self.announced.extend(items.iter().filter(|item| item.basis.is_some()));
        self.ask_ahead();
    }

    fn next(&mut self, item: &Item) -> Option<PeerSignature> {
        let basis = item.basis?;
        self.ask_ahead();
        let mut asked = self.asked.pop_front().filter(|asked| asked.item == *item)?;
        loop {
            match asked.answer.recv_timeout(PATIENCE) {
                Ok(Some(bytes)) => return Some(PeerSignature { spec: asked.spec, bytes }),
                // This host's file is not what was expected; another's may be.
                Ok(None) => {}
                // This host is gone or stuck: later questions go to the next one at once.
                Err(_) => self.current = self.current.max(asked.of + 1),
            }
            asked = self.ask(*item, basis, asked.of.max(self.current.saturating_sub(1)) + 1)?;
        }
    }
}
