//! Progress on a terminal: a line for each host and one in total.
//!
//! What the sessions report only changes numbers under a lock that is held for a few instructions. One
//! thread looks at the numbers ten times a second and draws: a terminal that is slow or stopped delays
//! nobody, and drawing costs the same however often something is reported.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{
    BinaryBytes, HumanCount, HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState,
    ProgressStyle,
};

use super::render::shown;
use crate::observe::{Monitor, Phase};

/// Hosts that have a line; a terminal is seldom higher than this and a few lines more.
const SHOWN_HOSTS: usize = 20;

/// Longest name in characters, so that the rest finds room in 80 columns.
const NAME_CHARS: usize = 20;

/// Time between two drawings. The first one waits as long, so that a short push draws nothing.
const TICK: Duration = Duration::from_millis(100);

/// Drawings a second that indicatif lets through: above our own rate, so that it drops none of them.
const DRAW_HZ: u8 = 20;

/// Beyond this, what looks like an estimate says only that little was sent yet.
const LONGEST_LEFT: Duration = Duration::from_secs(4 * 24 * 60 * 60);

const BAR: &str =
    "{prefix}  {wide_bar} {binary_bytes}/{binary_total_bytes}  {msg}  {binary_bytes_per_sec}  {time_left}";
const WORDS: &str = "{prefix}  {wide_msg}";
const SPINNER: &str = "{spinner} {wide_msg}";

/// Bars on standard error, one for each host and one in total. Without a terminal nothing is drawn.
pub struct Bars(Option<Drawn>);

struct Drawn {
    shared: Arc<Shared>,
    painter: Mutex<Option<JoinHandle<()>>>,
}

impl Bars {
    /// Bars that are drawn if `show` and if standard error is a terminal.
    pub fn new(show: bool) -> Self {
        if show && io::stderr().is_terminal() {
            Self::on(ProgressDrawTarget::stderr_with_hz(DRAW_HZ))
        } else {
            Bars(None)
        }
    }

    fn on(target: ProgressDrawTarget) -> Self {
        let multi = MultiProgress::with_draw_target(target);
        let shared = Arc::new(Shared::default());
        let mut painter = Painter::new(multi);
        let numbers = Arc::clone(&shared);
        let spawned = std::thread::Builder::new().name("progress".into()).spawn(move || {
            while let Some(picture) = numbers.next_picture() {
                painter.paint(&picture);
            }
            painter.clear();
        });
        // Without a thread there is no progress to be seen, and everything else goes on.
        Bars(spawned.ok().map(|painter| Drawn { shared, painter: Mutex::new(Some(painter)) }))
    }

    /// Takes the bars away for good, so that what comes next stands alone.
    pub fn finish(&self) {
        let Some(drawn) = &self.0 else { return };
        drawn.shared.stop();
        let painter = drawn.painter.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A painter that panicked has nothing left to take away.
        let _ = painter.map(JoinHandle::join);
    }

    fn update(&self, change: impl FnOnce(&mut Numbers)) {
        if let Some(drawn) = &self.0 {
            change(&mut drawn.shared.lock().numbers);
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Monitor for Bars {
    fn scanned(&self, entries: u64) {
        self.update(|numbers| numbers.scanned = Some(entries));
    }

    fn phase(&self, host: &str, phase: Phase) {
        self.update(|numbers| numbers.phase(host, phase));
    }

    fn planned(&self, host: &str, files: u64, bytes: u64) {
        self.update(|numbers| numbers.planned(host, Amount { files, bytes }));
    }

    fn progress(&self, host: &str, files: u64, bytes: u64) {
        self.update(|numbers| numbers.progress(host, Amount { files, bytes }));
    }
}

/// The numbers, and the end of them.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Default)]
struct State {
    numbers: Numbers,
    stop: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.lock().stop = true;
        self.stopped.notify_all();
    }

    /// What is to be seen at the next tick; `None` at the end.
    fn next_picture(&self) -> Option<Picture> {
        let waited = self.stopped.wait_timeout_while(self.lock(), TICK, |state| !state.stop);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (!state.stop).then(|| state.numbers.picture())
    }
}

/// An amount of content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    files: u64,
    bytes: u64,
}

impl Amount {
    fn add(&mut self, other: Amount) {
        self.files = self.files.saturating_add(other.files);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    fn minus(self, other: Amount) -> Amount {
        Amount { files: self.files.saturating_sub(other.files), bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

/// One host in the root that is under way.
#[derive(Clone, Debug)]
struct Host {
    name: String,
    phase: Phase,
    planned: Amount,
    done: Amount,
}

impl Host {
    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Done | Phase::Failed)
    }
}

/// What was reported so far.
#[derive(Default)]
struct Numbers {
    /// Entries seen, while the source is scanned.
    scanned: Option<u64>,
    /// In the order of their first appearance.
    hosts: Vec<Host>,
    by_name: HashMap<String, usize>,
    over: usize,
    /// Of all hosts and roots.
    planned: Amount,
    done: Amount,
}

impl Numbers {
    fn host(&mut self, name: &str) -> &mut Host {
        let at = *self.by_name.entry(name.to_owned()).or_insert_with(|| {
            let host = Host {
                name: shortened(&shown(name)),
                phase: Phase::Connecting,
                planned: Amount::default(),
                done: Amount::default(),
            };
            self.hosts.push(host);
            self.hosts.len() - 1
        });
        &mut self.hosts[at]
    }

    fn phase(&mut self, name: &str, phase: Phase) {
        let host = self.host(name);
        let (before, was_over) = (host.phase, host.is_over());
        host.phase = phase;
        let is_over = host.is_over();
        match phase {
            Phase::Connecting => {
                // The next root: what came before stays in the total.
                host.planned = Amount::default();
                host.done = Amount::default();
            }
            // What a receiver counts may fall short of the plan, for instance by a path that vanished.
            Phase::Done if matches!(before, Phase::Sending | Phase::Committing) => {
                let planned = host.planned;
                self.progress(name, planned);
            }
            Phase::Done | Phase::Failed => self.drop_rest(name),
            _ => {}
        }
        match (was_over, is_over) {
            (false, true) => self.over += 1,
            (true, false) => self.over -= 1,
            _ => {}
        }
    }

    /// What a host will not get any more is not waited for in the total.
    fn drop_rest(&mut self, name: &str) {
        let host = self.host(name);
        let rest = host.planned.minus(host.done);
        host.planned = host.done;
        self.planned = self.planned.minus(rest);
    }

    fn planned(&mut self, name: &str, planned: Amount) {
        // Hosts plan when the scan has ended.
        self.scanned = None;
        let host = self.host(name);
        let before = host.planned;
        host.planned = planned;
        self.planned = self.planned.minus(before);
        self.planned.add(planned);
    }

    fn progress(&mut self, name: &str, reported: Amount) {
        let host = self.host(name);
        // A peer says these numbers: they never go back, and never beyond the plan.
        let done = Amount {
            files: reported.files.min(host.planned.files).max(host.done.files),
            bytes: reported.bytes.min(host.planned.bytes).max(host.done.bytes),
        };
        let gained = done.minus(host.done);
        host.done = done;
        self.done.add(gained);
    }

    fn picture(&self) -> Picture {
        Picture {
            scanned: self.scanned,
            hosts: self.hosts.iter().take(SHOWN_HOSTS).cloned().collect(),
            host_count: self.hosts.len(),
            over: self.over,
            planned: self.planned,
            done: self.done,
        }
    }
}

/// What is to be seen.
struct Picture {
    scanned: Option<u64>,
    hosts: Vec<Host>,
    host_count: usize,
    over: usize,
    planned: Amount,
    done: Amount,
}

impl Picture {
    fn total_message(&self) -> String {
        let mut text = format!("{}  {}/{} hosts", files(self.done, self.planned), self.over, self.host_count);
        let more = self.host_count - self.hosts.len();
        if more > 0 {
            text.push_str(&format!(" and {more} more"));
        }
        text
    }
}

/// What tells a host apart is at the start of its name, and at the end of a path.
fn shortened(name: &str) -> String {
    let excess = name.chars().count().saturating_sub(NAME_CHARS);
    if excess == 0 {
        name.to_owned()
    } else if name.contains('/') {
        ['…'].into_iter().chain(name.chars().skip(excess + 1)).collect()
    } else {
        name.chars().take(NAME_CHARS - 1).chain(['…']).collect()
    }
}

fn files(done: Amount, planned: Amount) -> String {
    format!("{}/{} files", HumanCount(done.files), HumanCount(planned.files))
}

/// The words for a host that has no bar now; `None` if it has one.
fn words(host: &Host) -> Option<String> {
    Some(match host.phase {
        Phase::Connecting => "connecting".into(),
        Phase::Comparing => "comparing".into(),
        Phase::Waiting => "waiting for the other hosts' plans".into(),
        Phase::Sending => return None,
        Phase::Committing => "committing".into(),
        Phase::Failed => "failed".into(),
        Phase::Done if host.planned == Amount::default() => "done".into(),
        Phase::Done => {
            let (files, bytes) = (HumanCount(host.planned.files), BinaryBytes(host.planned.bytes));
            format!("done: {files} files, {bytes}")
        }
    })
}

/// The lines on the terminal. Lives on one thread.
struct Painter {
    multi: MultiProgress,
    scan: Option<ProgressBar>,
    hosts: Vec<Line>,
    total: Option<ProgressBar>,
    bar: ProgressStyle,
    words: ProgressStyle,
    spinner: ProgressStyle,
}

struct Line {
    bar: ProgressBar,
    /// Whether it has a bar now.
    sending: bool,
}

impl Painter {
    fn new(multi: MultiProgress) -> Self {
        // The templates are constants and the tests draw each; a wrong one would look plain, no more.
        let style = |template| ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        Painter {
            multi,
            scan: None,
            hosts: Vec::new(),
            total: None,
            bar: style(BAR).progress_chars("=> ").with_key("time_left", time_left),
            words: style(WORDS),
            spinner: style(SPINNER),
        }
    }

    fn paint(&mut self, picture: &Picture) {
        self.paint_scan(picture.scanned);
        if picture.hosts.is_empty() {
            return;
        }
        let width = picture.hosts.iter().map(|host| host.name.chars().count()).max().unwrap_or(0).max("total".len());
        self.paint_total(picture, width);
        for (at, host) in picture.hosts.iter().enumerate() {
            self.paint_host(at, host, width);
        }
    }

    fn paint_scan(&mut self, scanned: Option<u64>) {
        match (scanned, &self.scan) {
            (Some(entries), scan) => {
                let spinner = scan.clone().unwrap_or_else(|| {
                    self.multi.insert(0, ProgressBar::new_spinner().with_style(self.spinner.clone()))
                });
                spinner.set_message(format!("scanning {} entries", HumanCount(entries)));
                spinner.tick();
                self.scan = Some(spinner);
            }
            (None, Some(spinner)) => {
                spinner.finish_and_clear();
                self.multi.remove(spinner);
                self.scan = None;
            }
            (None, None) => {}
        }
    }

    fn paint_total(&mut self, picture: &Picture, width: usize) {
        let (multi, style) = (&self.multi, &self.bar);
        let total = self.total.get_or_insert_with(|| multi.add(ProgressBar::new(0).with_style(style.clone())));
        let prefix = format!("{:width$}", "total");
        update(total, prefix, picture.total_message(), picture.planned.bytes, picture.done.bytes);
    }

    fn paint_host(&mut self, at: usize, host: &Host, width: usize) {
        if self.hosts.len() <= at {
            let bar = ProgressBar::new(0).with_style(self.words.clone());
            let bar = match &self.total {
                Some(total) => self.multi.insert_before(total, bar),
                None => self.multi.add(bar),
            };
            self.hosts.push(Line { bar, sending: false });
        }
        let line = &mut self.hosts[at];
        let words = words(host);
        let sending = words.is_none();
        if sending != line.sending {
            line.sending = sending;
            line.bar.set_style(if sending { self.bar.clone() } else { self.words.clone() });
            // The rate is that of sending, not of what came before.
            line.bar.reset();
        }
        let message = words.unwrap_or_else(|| files(host.done, host.planned));
        update(&line.bar, format!("{:width$}", host.name), message, host.planned.bytes, host.done.bytes);
    }

    fn clear(&mut self) {
        for bar in self.hosts.iter().map(|line| &line.bar).chain(&self.scan).chain(&self.total) {
            bar.finish_and_clear();
        }
        // A terminal that is gone needs no clearing.
        let _ = self.multi.clear();
    }
}

/// Each setter of indicatif draws: only what changed is set, so that a line is seldom drawn half-changed.
fn update(bar: &ProgressBar, prefix: String, message: String, length: u64, position: u64) {
    if bar.length() != Some(length) {
        bar.set_length(length);
    }
    if bar.prefix() != prefix {
        bar.set_prefix(prefix);
    }
    if bar.message() != message {
        bar.set_message(message);
    }
    if bar.position() != position {
        bar.set_position(position);
    }
    bar.tick();
}

/// The time left; nothing where an estimate would be a guess.
fn time_left(state: &ProgressState, out: &mut dyn fmt::Write) {
    let left = state.eta();
    if state.pos() > 0 && !left.is_zero() && left < LONGEST_LEFT {
        // Writing to the line does not fail.
        let _ = write!(out, "{:#} left", HumanDuration(left));
    }
}

#[cfg(test)]
mod tests;
