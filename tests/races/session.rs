//! One session of a primary that makes every kind of change, and asks every kind of question, where the user swaps.

use std::os::unix::fs::MetadataExt;

use rfleet::delta::SignatureSpec;
use rfleet::model::{
    ACCESS_ACL, Attribute, Attributes, Digest, Expected, Kind, Meta, OwnerNames, Position, RelPath, Timestamp,
};
use rfleet::wire::{BlockWriter, Change, Committed, Record, SignatureRequest, ToPrimary, ToReceiver, encode};

use super::support::flipper::{Flip, SECRET};
use super::support::primary::{meta, path, seen};
use super::support::victim::{Victim, hello};
use super::{Arena, Tally, leaks};

/// What is done in a directory that is swapped.
const IN_DIRECTORY: &[&str] = &[
    "open",
    "mkdir",
    "rename",
    "symlink",
    "link",
    "link-to",
    "chmod-chown-utimes",
    "set-directory",
    "unlink",
    "rmdir",
    "reuse",
    "basis",
    "signature",
    "listing",
];

/// All that is done.
pub const ALL: &[&str] = IN_DIRECTORY;

/// What must have been both won and lost against `flip`.
pub fn expected(flip: Flip) -> &'static [&'static str] {
    match flip {
        Flip::Directory | Flip::Above => IN_DIRECTORY,
        Flip::Leaf => &["leaf"],
        Flip::Kind => &["leaf"],
        Flip::Home => &["home"],
    }
}

/// With attributes and an ACL, so that these are set as well.
fn full_meta(round: u64) -> Meta {
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1u16, 6u16, u32::MAX), (2, 7, 4711), (4, 4, u32::MAX), (16, 7, u32::MAX), (32, 4, u32::MAX)]
    {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    let attributes = vec![
        Attribute { name: ACCESS_ACL.to_vec(), value: acl },
        Attribute { name: b"user.race".to_vec(), value: round.to_le_bytes().to_vec() },
    ];
    let mode = if round.is_multiple_of(2) { 0o674 } else { 0o640 };
    let secs = 1_000_000 + round.cast_signed();
    Meta { uid: 4711, gid: 4711, attributes: Attributes::new(attributes).unwrap(), ..meta(mode, secs) }
}

fn file_was(arena: &Arena, name: &str) -> (u64, Timestamp) {
    match seen(&arena.root.join(name)) {
        Expected::File { size_bytes, mtime } => (size_bytes, mtime),
        _ => (6, Timestamp::default()),
    }
}

/// The file outside, as whoever wants its content would name it.
fn secret(arena: &Arena) -> (u64, Timestamp) {
    let found = std::fs::symlink_metadata(arena.outside.path.join("d/secret")).unwrap();
    let nanos = u32::try_from(found.mtime_nsec()).unwrap();
    (found.len(), Timestamp { secs: found.mtime(), nanos })
}

struct Session<'a> {
    arena: &'a Arena,
    victim: Victim,
    round: u64,
}

/// Runs the session of number `round`, and notes what was met.
pub fn run(arena: &Arena, round: u64, tally: &mut Tally) {
    let victim = Victim::start(&arena.scratch, &arena.root, "durability = \"none\"\ndevices = true");
    let mut session = Session { arena, victim, round };
    let committed = session.talk(tally);
    tally.note("home", committed.is_none());
    let ended = session.victim.end();
    assert!(!ended.stderr.contains("panicked") && !leaks(ended.stderr.as_bytes()), "{}", ended.stderr);
    if let Some((committed, again)) = committed {
        session_outcome(round, &committed, &again, tally);
    }
}

/// What each path is for, in even rounds and in odd ones.
fn session_outcome(round: u64, committed: &Committed, again: &[RelPath], tally: &mut Tally) {
    let is_problem = |name: &str| committed.problems.iter().any(|problem| problem.path == path(name));
    let mut note = |what, name: &str| tally.note(what, is_problem(name));
    let even = round.is_multiple_of(2);
    note("open", "w/d/new");
    note(if even { "mkdir" } else { "rmdir" }, "w/d/made");
    note(if even { "symlink" } else { "unlink" }, "w/d/sym");
    note("rename", if even { "w/d/moved" } else { "w/d/sub" });
    note("link", "w/d/hard");
    note("link-to", "w/hard-to");
    note("chmod-chown-utimes", "w/d/f");
    note("set-directory", "w/d");
    note("leaf", "w/f");
    tally.note("reuse", again.contains(&path("w/d/reused")) || is_problem("w/d/reused"));
    tally.note("basis", again.contains(&path("w/d/secret")) || is_problem("w/d/secret"));
}

impl Session<'_> {
    fn answer(&mut self) -> Option<ToPrimary> {
        let answer = self.victim.receive()?;
        assert!(!leaks(&encode(&answer)), "{answer:?}");
        match answer {
            ToPrimary::Refused(_) => None,
            answer => Some(answer),
        }
    }

    /// `None` if the receiver refused.
    fn talk(&mut self, tally: &mut Tally) -> Option<(Committed, Vec<RelPath>)> {
        self.victim.send(&ToReceiver::Hello(hello(false)));
        self.answer()?;
        self.look(tally)?;
        let begin = rfleet::wire::Begin { deletions: 1000, ..rfleet::wire::Begin::default() };
        self.victim.send(&ToReceiver::Begin(begin));
        self.change_first();
        self.ask(tally)?;
        self.send_content();
        self.victim.send(&ToReceiver::EndOfContent);
        let ToPrimary::Resend { paths, .. } = self.answer()? else { panic!("no list of what comes again") };
        self.change_last();
        self.victim.send(&ToReceiver::Finish { position: Position::default(), record: true });
        let ToPrimary::Committed(committed) = self.answer()? else { panic!("no end") };
        Some((committed, paths))
    }

    /// Has everything listed.
    fn look(&mut self, tally: &mut Tally) -> Option<()> {
        self.victim.send(&ToReceiver::List);
        self.answer()?;
        self.victim.send(&ToReceiver::GetDirectories { names: OwnerNames::default() });
        self.answer()?;
        let paths = ["", "w", "w/d", "w/d/sub", "w/e", "v", "v/d"].map(path).to_vec();
        self.victim.send(&ToReceiver::GetEntries { paths });
        let mut is_link = None;
        loop {
            match self.answer()? {
                ToPrimary::EndOfEntries => break,
                ToPrimary::Entries(listing) => {
                    // Of the directory above in one kind of swap, of the directory itself in the other.
                    let at = if listing.path == path("w") { listing.find(b"d") } else { listing.find(b"w") };
                    if let Some(node) = at {
                        is_link = Some(is_link.unwrap_or(false) || matches!(node.kind, Kind::Symlink { .. }));
                    }
                }
                other => panic!("no entries but {other:?}"),
            }
        }
        is_link.into_iter().for_each(|is_link| tally.note("listing", is_link));
        Some(())
    }

    /// Directories that move and are made, and what is expected where.
    fn change_first(&mut self) {
        let even = self.round.is_multiple_of(2);
        let (sub, moved) = (path("w/d/sub"), path("w/d/moved"));
        let (from, to) = if even { (sub, moved) } else { (moved, sub) };
        let mut changes = vec![Change::Move { from, to, exchange: false }];
        if even {
            changes.push(Change::MakeDirectory { path: path("w/d/made"), was: Expected::Nothing });
        }
        for name in ["w/d/new", "w/d/secret"] {
            changes.push(Change::Expect { path: path(name), was: seen(&self.arena.root.join(name)) });
        }
        let (size_bytes, mtime) = if even { file_was(self.arena, "w/d/f") } else { secret(self.arena) };
        let from = path(if even { "w/d/f" } else { "w/d/secret" });
        let was = seen(&self.arena.root.join("w/d/reused"));
        changes.push(Change::Reuse {
            path: path("w/d/reused"),
            was,
            from,
            size_bytes,
            mtime,
            meta: full_meta(self.round),
        });
        self.victim.send(&ToReceiver::Changes(changes));
    }

    /// Asks for signatures of what is there, and of what is outside.
    fn ask(&mut self, tally: &mut Tally) -> Option<()> {
        let spec = SignatureSpec { block_bytes: 512, strong_bytes: 8 };
        let inside = file_was(self.arena, "w/d/f");
        let outside = secret(self.arena);
        let asked = [("w/d/f", inside), ("w/d/secret", outside), ("w/f", inside), ("w/l", outside), ("w/p", inside)];
        let request = |(id, (name, (size_bytes, mtime))): (u32, (&str, (u64, Timestamp)))| SignatureRequest {
            id,
            path: path(name),
            size_bytes,
            mtime,
            spec,
            offset: 0,
            bytes: size_bytes,
        };
        let requests = (0..).zip(asked).map(request).collect();
        self.victim.send(&ToReceiver::GetSignatures { requests });
        for _ in asked {
            match self.answer()? {
                ToPrimary::NoSignature { id: 0 } => tally.note("signature", true),
                ToPrimary::Signature { id: 0, .. } => tally.note("signature", false),
                ToPrimary::Signature { id: 1, .. } => panic!("a file outside was described"),
                _ => {}
            }
        }
        Some(())
    }

    /// New files, and one of the content of a file that is there, or of the one outside.
    fn send_content(&mut self) {
        let mut block = BlockWriter::new();
        let digest = Digest::of(b"inside");
        for name in ["w/d/new", "w/d/x/y"] {
            block.push(&Record::File { path: path(name), meta: full_meta(self.round), bytes: 6, digest }, b"inside");
        }
        let even = self.round.is_multiple_of(2);
        let (basis, digest) = if even {
            (file_was(self.arena, "w/d/secret"), Digest::of(b"inside"))
        } else {
            (secret(self.arena), Digest::of(SECRET.as_bytes()))
        };
        let begin =
            Record::Begin { path: path("w/d/secret"), meta: meta(0o644, 5), size_bytes: basis.0, basis: Some(basis) };
        block.push(&begin, b"");
        if basis.0 > 0 {
            block.push(&Record::Copy { offset: 0, bytes: basis.0 }, b"");
        }
        block.push(&Record::End { digest }, b"");
        self.victim.send_bytes(&block.take_frame(None));
    }

    fn change_last(&mut self) {
        let was = |name: &str| seen(&self.arena.root.join(name));
        let of_file = |name: &str| match was(name) {
            file @ Expected::File { .. } => file,
            _ => Expected::File { size_bytes: 6, mtime: Timestamp::default() },
        };
        let meta = full_meta(self.round);
        let link = |name: &str, to: &str| Change::Link { path: path(name), to: path(to), was: was(name) };
        let mut changes = vec![
            link("w/d/hard", "told"),
            link("w/hard-to", "w/d/f"),
            Change::SetMeta { path: path("w/d/f"), meta: meta.clone(), was: of_file("w/d/f") },
            Change::SetMeta { path: path("w/f"), meta: meta.clone(), was: of_file("w/f") },
        ];
        let even = self.round.is_multiple_of(2);
        let sym = path("w/d/sym");
        if even {
            let target = b"x".as_slice().into();
            // Links have neither modes nor attributes of users.
            let meta = Meta { attributes: Attributes::default(), ..meta.clone() };
            changes.push(Change::Symlink { path: sym, target, meta, was: was("w/d/sym") });
        } else {
            let made = Expected::Symlink { mtime: full_meta(self.round - 1).mtime };
            changes.push(Change::Remove { path: sym, was: made });
            changes.push(Change::Remove { path: path("w/d/made"), was: Expected::Directory });
        }
        changes.push(Change::SetDirectoryMeta { path: path("w/d"), meta: Meta { mode: 0o755, ..meta } });
        self.victim.send(&ToReceiver::Changes(changes));
    }
}
