//! Secondaries that do not keep to the protocol: threads of the test, each at the far end of two pipes that a host's
//! `command` leads to.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use rfleet::model::{
    AttributeFidelity, Digest, DirListing, Fidelity, Kind, Meta, Node, OwnerMap, Position, RelPath, Term, Timestamp,
};
use rfleet::wire::{
    Committed, Frame, FrameKind, Inventory, RootState, SignatureRequest, ToPrimary, ToReceiver, Welcome, decode,
    encode, read_frame,
};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::scratch::Scratch;

/// What a primary waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    Welcome,
    Inventory,
    Directories,
    Entries,
    Signatures,
    Content,
    Resend,
    Commit,
}

pub const AWAITED: [Awaited; 8] = [
    Awaited::Welcome,
    Awaited::Inventory,
    Awaited::Directories,
    Awaited::Entries,
    Awaited::Signatures,
    Awaited::Content,
    Awaited::Resend,
    Awaited::Commit,
];

/// The file that every impostor says that it has, in an old version.
pub const LARGE: &str = "large";

/// Its size, and in the source as well.
pub const LARGE_BYTES: usize = 300_000;

/// What a primary said.
pub enum Heard {
    Message(ToReceiver),
    Block(Frame),
}

/// The far end of a link.
pub struct Line {
    input: BufReader<File>,
    output: Arc<Mutex<File>>,
    /// Signs of life are given.
    lives: Arc<AtomicBool>,
    /// What was asked for when the state was reached.
    pub requests: Vec<SignatureRequest>,
    /// For scripts that count.
    pub rounds: usize,
    pub position: Position,
}

impl Line {
    /// What the primary says next, signs of life apart; `None` at the end.
    pub fn hear(&mut self) -> Option<Heard> {
        loop {
            let frame = read_frame(&mut self.input).ok().flatten()?;
            if frame.kind != FrameKind::Message {
                return Some(Heard::Block(frame));
            }
            match decode(&frame.body).unwrap() {
                ToReceiver::Heartbeat => {}
                message => return Some(Heard::Message(message)),
            }
        }
    }

    /// Sends bytes as they are; `false` once nobody takes them.
    pub fn say_bytes(&mut self, bytes: &[u8]) -> bool {
        self.output.lock().unwrap().write_all(bytes).is_ok()
    }

    pub fn say(&mut self, message: &ToPrimary) -> bool {
        self.say_bytes(&encode(message))
    }

    /// Hears the primary out.
    pub fn until_end(&mut self) {
        while self.hear().is_some() {}
    }

    /// Answers as a host would that has another tree, until the primary waits for `awaited`.
    ///
    /// # Panics
    /// The primary ends before.
    pub fn serve_until(&mut self, awaited: Awaited) {
        self.lives.store(true, Ordering::Relaxed);
        loop {
            let heard = self.hear().unwrap_or_else(|| panic!("the primary never waited for {awaited:?}"));
            let (state, answers) = self.answer(heard);
            if state == Some(awaited) {
                // Under the lock, so that none is under way.
                let _output = self.output.lock().unwrap();
                self.lives.store(false, Ordering::Relaxed);
                return;
            }
            answers.iter().for_each(|answer| assert!(self.say(answer)));
        }
    }

    /// What is awaited after `heard`, and what an honest host would answer.
    fn answer(&mut self, heard: Heard) -> (Option<Awaited>, Vec<ToPrimary>) {
        let message = match heard {
            Heard::Block(_) => return (Some(Awaited::Content), Vec::new()),
            Heard::Message(message) => message,
        };
        match message {
            ToReceiver::Hello(_) => (Some(Awaited::Welcome), vec![ToPrimary::Welcome(welcome())]),
            ToReceiver::List => (Some(Awaited::Inventory), vec![ToPrimary::Inventory(inventory())]),
            ToReceiver::GetDirectories { .. } => (Some(Awaited::Directories), vec![directories()]),
            ToReceiver::GetEntries { .. } => {
                (Some(Awaited::Entries), vec![ToPrimary::Entries(entries()), ToPrimary::EndOfEntries])
            }
            ToReceiver::GetSignatures { requests } => {
                let answers = requests.iter().map(|request| ToPrimary::NoSignature { id: request.id }).collect();
                self.requests = requests;
                (Some(Awaited::Signatures), answers)
            }
            ToReceiver::EndOfContent => {
                (Some(Awaited::Resend), vec![ToPrimary::Resend { paths: Vec::new(), last: true }])
            }
            ToReceiver::Finish { position, .. } => {
                self.position = position;
                (Some(Awaited::Commit), vec![ToPrimary::Committed(Committed { position, ..Committed::default() })])
            }
            _ => (None, Vec::new()),
        }
    }
}

pub fn welcome() -> Welcome {
    let state = RootState {
        fleet: "cms".into(),
        root: "www".into(),
        term: Term(0),
        primary: "script".into(),
        position: Position::default(),
    };
    Welcome {
        protocol: 1,
        software: "script".into(),
        fidelity: Fidelity { attributes: AttributeFidelity::NONE, ..Fidelity::FULL },
        allow_delete: true,
        state: Some(state),
        free_bytes: u64::MAX,
        free_inodes: None,
        writable: true,
        protect: Vec::new(),
        notes: Vec::new(),
    }
}

pub fn inventory() -> Inventory {
    Inventory { digest: Digest([7; 32]), directories: 1, entries: 1, unreadable: Vec::new() }
}

pub fn directories() -> ToPrimary {
    let directories = vec![(RelPath::root(), Digest([7; 32]))];
    ToPrimary::Directories { owners: OwnerMap::default(), directories, last: true }
}

pub fn node(name: &[u8], kind: Kind) -> Node {
    Node { name: name.into(), kind, meta: Meta { mtime: Timestamp { secs: 5, nanos: 5 }, ..Meta::default() } }
}

/// The root, with an old version of one file.
pub fn entries() -> DirListing {
    let nodes = vec![node(LARGE.as_bytes(), Kind::file(LARGE_BYTES as u64))];
    DirListing { path: RelPath::root(), meta: Meta::default(), nodes }
}

/// Says that the host lives, while `lives` says so, as long as there is an output.
fn beat(output: Weak<Mutex<File>>, lives: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let heartbeat = encode(&ToPrimary::Heartbeat);
        while let Some(output) = output.upgrade() {
            let mut output = output.lock().unwrap();
            if lives.load(Ordering::Relaxed) && output.write_all(&heartbeat).is_err() {
                return;
            }
            drop(output);
            std::thread::sleep(Duration::from_millis(100));
        }
    });
}

/// One of them.
pub struct Impostor {
    pub name: String,
    /// What leads to it.
    pub command: Vec<String>,
    thread: JoinHandle<()>,
}

impl Impostor {
    /// Follows `script` once a primary connects.
    pub fn new(scratch: &Scratch, name: &str, script: impl FnOnce(&mut Line) + Send + 'static) -> Self {
        let fifo = |end: &str| -> PathBuf {
            scratch.dir("fifo");
            let path = scratch.path(&format!("fifo/{name}.{end}"));
            mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
            path
        };
        let (input, output) = (fifo("in"), fifo("out"));
        let shell = "cat \"$1\" & exec cat >\"$0\"";
        let command = ["sh", "-c", shell, input.to_str().unwrap(), output.to_str().unwrap()];
        let command = command.map(str::to_owned).to_vec();
        let thread = std::thread::spawn(move || {
            let input = BufReader::new(File::open(input).unwrap());
            let output = Arc::new(Mutex::new(OpenOptions::new().write(true).open(output).unwrap()));
            let lives = Arc::new(AtomicBool::new(false));
            beat(Arc::downgrade(&output), Arc::clone(&lives));
            script(&mut Line { input, output, lives, requests: Vec::new(), rounds: 0, position: Position::default() });
        });
        Self { name: name.to_owned(), command, thread }
    }

    /// Whatever `command` does.
    pub fn program(name: &str, command: &[&str]) -> Self {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        Self { name: name.to_owned(), command, thread: std::thread::spawn(|| {}) }
    }

    /// Panics if its script did.
    pub fn join(self) {
        if let Err(panic) = self.thread.join() {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            panic!("{}: {text}", self.name);
        }
    }
}
