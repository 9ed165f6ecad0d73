//! A primary that follows a script: the messages of protocol 1 to a real receiver, and what it answers.

use std::io::{BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rfleet::model::{Digest, Expected, Meta, Position, RelPath, Term, Timestamp};
use rfleet::wire::{
    Begin, BlockWriter, Change, Committed, FrameKind, Hello, Inventory, Record, Refusal, ToPrimary, ToReceiver,
    Welcome, decode, encode, read_frame,
};

use super::rfleet::rfleet_bin;
use super::scratch::Scratch;

pub fn path(name: &str) -> RelPath {
    RelPath::new_or_root(name.as_bytes()).unwrap()
}

/// The time of what the script makes, with nanoseconds.
pub fn time(secs: i64) -> Timestamp {
    Timestamp { secs, nanos: 5 }
}

pub fn meta(mode: u32, secs: i64) -> Meta {
    Meta { mode, mtime: time(secs), ..Meta::default() }
}

/// What a plan would expect that had seen what is there now.
pub fn seen(at: &Path) -> Expected {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(found) = std::fs::symlink_metadata(at) else { return Expected::Nothing };
    let mtime = Timestamp { secs: found.mtime(), nanos: u32::try_from(found.mtime_nsec()).unwrap() };
    match found.file_type() {
        kind if kind.is_dir() => Expected::Directory,
        kind if kind.is_file() => Expected::File { size_bytes: found.len(), mtime },
        kind if kind.is_symlink() => Expected::Symlink { mtime },
        _ => Expected::Special,
    }
}

/// One session with a receiver of its own.
pub struct Primary {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub welcome: Welcome,
}

impl Primary {
    /// A push without configuration to `dir`, up to the welcome.
    pub fn adhoc(scratch: &Scratch, dir: &Path) -> Self {
        Self::greet(scratch, &["--to".as_ref(), dir.as_os_str()], None, "")
    }

    /// A push of the root `data` of the fleet `cms` to `dir`, up to the welcome.
    pub fn of_fleet(scratch: &Scratch, dir: &Path) -> Self {
        let root = format!("data={}", dir.display());
        Self::greet(scratch, &["--root".as_ref(), root.as_ref()], Some("cms"), "data")
    }

    /// As [`Primary::of_fleet`], to a receiver whose own configuration says `receive` (lines of `[receive]`).
    pub fn of_fleet_with(scratch: &Scratch, dir: &Path, receive: &str) -> Self {
        let text = format!(
            "version = 1\nfleet = \"cms\"\n[[root]]\nname = \"data\"\npath = {:?}\n",
            dir.display().to_string()
        );
        let config = scratch.write("receiver.toml", format!("{text}[receive]\n{receive}\n"));
        Self::greet(scratch, &["--config".as_ref(), config.as_os_str()], Some("cms"), "data")
    }

    fn greet(scratch: &Scratch, arguments: &[&std::ffi::OsStr], fleet: Option<&str>, root: &str) -> Self {
        let mut command = Command::new(rfleet_bin());
        scratch.hermetic(&mut command);
        command.arg("receive").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let hello = Hello {
            protocol_min: 1,
            protocol_max: 1,
            software: "script".into(),
            fleet: fleet.map(Into::into),
            root: root.into(),
            term: Term(0),
            primary: "script".into(),
            read_only: false,
            checksum: false,
            adopt: false,
            attributes: true,
        };
        input.as_mut().unwrap().write_all(&encode(&ToReceiver::Hello(hello))).unwrap();
        let ToPrimary::Welcome(welcome) = next(&mut output).expect("an answer") else { panic!("no welcome") };
        Primary { child, input, output, welcome }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends bytes as they are. A receiver that has refused already does not take them.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.input.as_mut().unwrap().write_all(bytes);
    }

    pub fn send(&mut self, message: &ToReceiver) {
        self.send_bytes(&encode(message));
    }

    /// The next message that says something; `None` at the end.
    pub fn receive(&mut self) -> Option<ToPrimary> {
        next(&mut self.output)
    }

    pub fn list(&mut self) -> Inventory {
        self.send(&ToReceiver::List);
        match self.receive() {
            Some(ToPrimary::Inventory(inventory)) => inventory,
            other => panic!("no inventory but {other:?}"),
        }
    }

    pub fn begin(&mut self, deletions: u64) {
        self.send(&ToReceiver::Begin(Begin { deletions, ..Begin::default() }));
    }

    pub fn changes(&mut self, changes: impl Into<Vec<Change>>) {
        self.send(&ToReceiver::Changes(changes.into()));
    }

    /// A file with mode 0644.
    pub fn content(&mut self, name: &str, text: &str, secs: i64) {
        let digest = Digest::of(text.as_bytes());
        let record = Record::File { path: path(name), meta: meta(0o644, secs), bytes: text.len() as u64, digest };
        let mut block = BlockWriter::new();
        block.push(&record, text.as_bytes());
        self.send_bytes(&block.take_frame(None));
    }

    /// That was all content; what must come again.
    pub fn resend(&mut self) -> Vec<RelPath> {
        self.send(&ToReceiver::EndOfContent);
        match self.receive() {
            Some(ToPrimary::Resend { paths, last: true }) => paths,
            other => panic!("no list of what must come again but {other:?}"),
        }
    }

    /// That was all; what came of it. The receiver must end well.
    pub fn finish(mut self, position: Position) -> Committed {
        self.send(&ToReceiver::Finish { position, record: true });
        let committed = match self.receive() {
            Some(ToPrimary::Committed(committed)) => committed,
            other => panic!("no commit but {other:?}"),
        };
        self.input.take();
        assert!(self.child.wait().unwrap().success());
        committed
    }

    /// The refusal that must come now. The receiver must end, and say that it failed.
    pub fn refused(mut self) -> Refusal {
        let refusal = match self.receive() {
            Some(ToPrimary::Refused(refusal)) => refusal,
            other => panic!("no refusal but {other:?}"),
        };
        self.ended_badly();
        refusal
    }

    /// The receiver must end without another word, and say that it failed.
    pub fn ended_badly(mut self) {
        assert_eq!(self.receive(), None);
        assert_eq!(self.child.wait().unwrap().code(), Some(1));
    }

    /// Says nothing more, in the middle. The receiver must end as after [`Primary::ended_badly`].
    pub fn hang_up(mut self) {
        self.input.take();
        self.ended_badly();
    }

    /// Kills the receiver.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn next(output: &mut BufReader<ChildStdout>) -> Option<ToPrimary> {
    loop {
        let frame = read_frame(output).ok().flatten()?;
        assert_eq!(frame.kind, FrameKind::Message);
        match decode(&frame.body).unwrap() {
            ToPrimary::Heartbeat | ToPrimary::Progress { .. } | ToPrimary::Listing { .. } | ToPrimary::Hooks { .. } => {
            }
            message => return Some(message),
        }
    }
}
