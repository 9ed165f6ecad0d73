//! Hooks: what this host's own configuration has run after a commit.
//!
//! ```text
//! runner ── starts hooks ◄── which hook, names ── receiver (confined) ◄── link ── primary
//!    └── reads the same configuration                └── notes what changed
//! ```
//!
//! The receiver is confined and handles what a stranger sends, so it starts nothing itself: the runner does, a process
//! that was started before the confinement ([`runner`]). What is run is never said by the receiver: it names a hook by
//! its number.
//!
//! Between the first change of a push and the end of its hooks, a mark lies in `.rfleet` ([`crate::tree::Staging::mark`]).
//! Whoever finds it knows that hooks did not run for what changed, and not for which names.

mod runner;

use std::collections::BTreeMap;
use std::time::Duration;

pub use runner::{Answers, Due, HookEnd, HookRunner, Orders};

use super::link::Output;
use super::writer::{WriteError, Writer};
use crate::model::{Patterns, RelPath, Sequence};
use crate::tree::find_below;
use crate::wire::{HookResult, MAX_HOOK_TEXT_BYTES, ToPrimary};

/// Most hooks of a configuration: each has a bit in [`Changed`].
pub const MAX_HOOKS: usize = crate::wire::MAX_HOOKS;

/// How long a hook may take, unless it says otherwise.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(60);

/// Most memory for the names that changed, of all hooks together: about 150,000 of usual length.
const MAX_NAMES_BYTES: usize = 16 << 20;

/// What a name takes beside its bytes, about.
const NAME_BYTES: usize = 64;

/// One of `[receive] on_commit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitHook {
    /// Which paths it is for.
    pub patterns: Patterns,
    /// What runs; never empty.
    pub run: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
}

impl CommitHook {
    /// The command as words for people.
    fn shown(&self) -> String {
        let words: Vec<&str> = self.run.iter().map(String::as_str).collect();
        // Only a NUL cannot be quoted, and no configuration holds one.
        clipped(&shlex::try_join(words.iter().copied()).unwrap_or_else(|_| words.join(" ")))
    }
}

/// `text` in one line of a bounded length, fit for a terminal.
pub fn clipped(text: &str) -> String {
    let mut line = String::new();
    for char in text.trim().chars().map(|char| if char.is_control() { '?' } else { char }) {
        if line.len() + char.len_utf8() > MAX_HOOK_TEXT_BYTES {
            break;
        }
        line.push(char);
    }
    line
}

/// What changed so far that a hook is for.
pub(super) struct Changed<'a> {
    hooks: &'a [CommitHook],
    /// The names, each with a bit for every hook that it is for.
    names: BTreeMap<RelPath, u32>,
    bytes: usize,
    /// Hooks that are due.
    due: u32,
    /// Of these, the ones whose names are not known, or too many.
    nameless: u32,
}

impl<'a> Changed<'a> {
    pub(super) fn of(hooks: &'a [CommitHook]) -> Self {
        Changed { hooks, names: BTreeMap::new(), bytes: 0, due: 0, nameless: 0 }
    }

    /// Whether there are no hooks.
    fn is_idle(&self) -> bool {
        self.hooks.is_empty()
    }

    /// Every hook is due, for names that nobody knows.
    fn all_unknown(&mut self) {
        for bit in 0..self.hooks.len() {
            self.due |= 1 << bit;
            self.forget_names(1 << bit);
        }
    }

    pub(super) fn note(&mut self, path: &RelPath, is_directory: bool) {
        let bits = self.hooks.iter().enumerate().filter(|(_, hook)| hook.patterns.excludes(path, is_directory));
        let bits = bits.fold(0, |bits, (at, _)| bits | 1 << at);
        self.due |= bits;
        let named = bits & !self.nameless;
        if named == 0 {
            return;
        }
        match self.names.get_mut(path) {
            Some(known) => *known |= named,
            None => {
                self.bytes += path.as_bytes().len() + NAME_BYTES;
                self.names.insert(path.clone(), named);
            }
        }
        while self.bytes > MAX_NAMES_BYTES {
            let bytes = |bit: u32| self.of_hook(bit).map(|name| name.as_bytes().len() + NAME_BYTES).sum::<usize>();
            let bits = (0..self.hooks.len()).map(|at| 1 << at);
            let Some(most) = bits.max_by_key(|&bit| bytes(bit)) else { return };
            self.forget_names(most);
        }
    }

    /// The names that the hook of `bit` is for, in the order of paths.
    fn of_hook(&self, bit: u32) -> impl Iterator<Item = &RelPath> {
        self.names.iter().filter(move |(_, bits)| **bits & bit != 0).map(|(name, _)| name)
    }

    fn forget_names(&mut self, bit: u32) {
        self.nameless |= bit;
        self.names.retain(|_, bits| {
            *bits &= !bit;
            *bits != 0
        });
        self.bytes = self.names.keys().map(|name| name.as_bytes().len() + NAME_BYTES).sum();
    }

    /// Runs what is due, one after another. `told` hears how many have ended. Besides, whether each of them was run.
    fn run(
        &self,
        runner: Option<&mut HookRunner>,
        root: &str,
        sequence: Sequence,
        told: &mut dyn FnMut(u64),
    ) -> (Vec<HookResult>, bool) {
        let (mut results, mut all_run) = (Vec::new(), true);
        let mut runner = runner.ok_or("no process was started that could run it");
        for (at, hook) in self.hooks.iter().enumerate().filter(|(at, _)| self.due & 1 << at != 0) {
            let bit = 1 << at;
            let mut names = Vec::new();
            for name in self.of_hook(bit) {
                names.extend_from_slice(name.as_bytes());
                names.push(0);
            }
            let due = Due { hook: at, root: root.to_owned(), sequence, truncated: self.nameless & bit != 0, names };
            let ended = match &mut runner {
                Ok(runner) => runner.run(&due).map_err(|_| "the process that runs hooks is gone"),
                Err(why) => Err(*why),
            };
            let HookEnd { ok, detail, milliseconds } = ended.unwrap_or_else(|why| {
                all_run = false;
                runner = Err(why);
                HookEnd { ok: false, detail: why.to_owned(), milliseconds: 0 }
            });
            results.push(HookResult { command: hook.shown(), ok, detail: clipped(&detail), milliseconds });
            told(results.len() as u64);
        }
        (results, all_run)
    }
}

impl Writer<'_> {
    /// Before the first change: leaves a mark that is found if hooks do not come to run for this push.
    /// Where nothing of rfleet is to stay (not `keep_state`), no mark can.
    pub(super) fn expect_hooks(&mut self, keep_state: bool) -> Result<(), WriteError> {
        if keep_state && !self.changed.is_idle() && !self.staging.mark().map_err(WriteError::Failed)? {
            self.changed.all_unknown();
        }
        Ok(())
    }

    /// After a push that came to no end: if nothing changed, hooks are owed nothing.
    pub(super) fn release_hooks(&self) {
        if !self.changed.is_idle() && self.changed.due == 0 {
            // A mark that stays costs a run of hooks.
            let _ = self.staging.unmark();
        }
    }

    /// Notes that `path` was made, replaced, removed or got other attributes.
    pub(super) fn note_changed(&mut self, path: &RelPath, is_directory: bool) {
        if !self.changed.is_idle() {
            self.changed.note(path, is_directory);
        }
    }

    /// Notes that all changed that is at or below `at`, under that name and under `also`.
    ///
    /// RACE: what others put there or take away meanwhile may be missed.
    pub(super) fn note_all_below(&mut self, at: &RelPath, also: Option<&RelPath>) {
        if self.changed.is_idle() {
            return;
        }
        let changed = &mut self.changed;
        let looked = find_below(self.applier.parents().root(), at, &mut |path, is_directory| {
            changed.note(path, is_directory);
            let rest = &path.as_bytes()[at.as_bytes().len()..];
            if let Some(also) = also.and_then(|also| RelPath::new(&[also.as_bytes(), rest].concat()).ok()) {
                changed.note(&also, is_directory);
            }
            false
        });
        if looked.is_err() {
            // What cannot be looked through may hold anything.
            self.changed.all_unknown();
        }
    }

    /// Runs the hooks that are due, when all is done.
    pub(super) fn run_hooks(
        &mut self,
        runner: Option<&mut HookRunner>,
        root: &str,
        output: &Output,
    ) -> Vec<HookResult> {
        if self.changed.is_idle() {
            return Vec::new();
        }
        let sequence = if self.has_problems() { Sequence(0) } else { self.outcome.position.sequence };
        let (results, all_run) = self.changed.run(runner, root, sequence, &mut |done| {
            // Whoever is not there any more need not know: what was committed stays, and its hooks run.
            let _ = output.send(&ToPrimary::Hooks { done });
        });
        if all_run {
            // As above.
            let _ = self.staging.unmark();
        }
        results
    }
}

#[cfg(test)]
mod tests;
