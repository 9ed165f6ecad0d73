//! What a root's attic holds: [`KeptSessions`].

use std::io;

use super::attic::{ATTIC, KeptSize, Why, check_owner};
use super::beneath::{Dir, Parents, Root, Stat};
use super::dispose;
use super::home::open_home;
use super::stage::StageError;
use crate::model::RelPath;

/// The attic of a root, to be read.
#[derive(Debug)]
pub struct KeptSessions {
    pub(super) attic: Dir,
}

/// What one session has kept for one reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeptSession {
    /// Name of the session: its time in UTC and its process.
    pub session: String,
    /// Why it is kept.
    pub why: Why,
    /// Name of the directory in the attic.
    pub directory: String,
}

impl KeptSession {
    /// Whether `stat`, of an entry of it, is that of a directory that only leads to what is kept.
    pub fn is_way(&self, stat: &Stat) -> bool {
        self.why.is_way(stat)
    }
}

impl KeptSessions {
    /// `None` if `root` has no attic. Changes nothing.
    ///
    /// # Errors
    /// `.rfleet` or the attic is not what a receiver of this user makes, else the operating system's.
    pub fn open(root: &Root) -> io::Result<Option<KeptSessions>> {
        let home = match open_home(&root.dir(&RelPath::root())?) {
            Ok(Some(home)) => home,
            Ok(None) => return Ok(None),
            Err(StageError::Io(error)) => return Err(error),
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
        };
        Ok(open_attic(&home)?.map(|attic| KeptSessions { attic }))
    }

    /// What is there, the newest first.
    ///
    /// # Errors
    /// The operating system's.
    pub fn sessions(&self) -> io::Result<Vec<KeptSession>> {
        let mut sessions = sessions_in(&self.attic)?;
        sessions.sort_by(|a, b| b.session.cmp(&a.session).then(a.why.cmp(&b.why)));
        Ok(sessions)
    }

    /// Opens what a session has kept.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open_session(&self, session: &KeptSession) -> io::Result<Root> {
        let dir = self.attic.open_dir_same_mount(session.directory.as_bytes())?;
        Ok(Root::held(dir.fd, session.directory.as_ref()))
    }

    /// Shows everything that a session has kept at and below `path`, in path order: directories on the way to it
    /// are left out.
    ///
    /// # Errors
    /// Those of `visit` and of the operating system; nothing at `path` is none.
    pub fn each(
        &self,
        session: &KeptSession,
        path: &RelPath,
        visit: &mut dyn FnMut(&RelPath, &Stat) -> io::Result<()>,
    ) -> io::Result<()> {
        let top = match self.open_session(session) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        walk(&top, path, &mut |path, stat| if session.is_way(stat) { Ok(()) } else { visit(path, stat) })
    }
}

/// The attic in `.rfleet`, if there is one.
pub(super) fn open_attic(home: &Dir) -> io::Result<Option<Dir>> {
    match home.open_dir_same_mount(ATTIC) {
        Ok(attic) => check_owner(&attic).map(|()| Some(attic)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The sessions in an attic; what has another name is not ours to judge.
pub(super) fn sessions_in(attic: &Dir) -> io::Result<Vec<KeptSession>> {
    let names = dispose::names(attic)?;
    let sessions = names.into_iter().filter_map(|name| {
        let directory = String::from_utf8(name).ok()?;
        let (session, why) = Why::of(&directory)?;
        Some(KeptSession { session: session.to_owned(), why, directory: directory.clone() })
    });
    Ok(sessions.collect())
}

/// The size of `name` in `dir`, with everything in it if it is a directory.
pub(super) fn measure(dir: &Dir, name: &[u8]) -> io::Result<KeptSize> {
    let top = Root::held(dir.open_dir_same_mount(name)?.fd, "".as_ref());
    let mut size = KeptSize { bytes: 0, entries: 1 };
    walk(&top, &RelPath::root(), &mut |_, stat| {
        size.add(KeptSize::of(stat));
        Ok(())
    })?;
    Ok(size)
}

/// Shows what is at `start` and below it, in path order, `top` itself left out. Holds the names of the directories on
/// the way, and follows no link. What its own mode closes to its owner is not looked into.
fn walk(top: &Root, start: &RelPath, visit: &mut dyn FnMut(&RelPath, &Stat) -> io::Result<()>) -> io::Result<()> {
    let mut parents = Parents::new(top);
    let mut frames = Vec::new();
    match start.split() {
        Some((parent, name)) => frames.push((parent, vec![name.to_vec()].into_iter())),
        None => frames.push((RelPath::root(), sorted_names(&top.dir(start)?)?.into_iter())),
    }
    while let Some((path, names)) = frames.last_mut() {
        let Some(name) = names.next() else {
            frames.pop();
            continue;
        };
        // What was kept had a path; a number at its end can have made it longer than one can be.
        let Ok(child) = path.join(&name) else { continue };
        let stat = match parents.parent(&child).and_then(|(dir, name)| dir.stat(name)) {
            Ok(stat) => stat,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(error),
        };
        visit(&child, &stat)?;
        if stat.is_directory() {
            match top.dir(&child).and_then(|dir| sorted_names(&dir)) {
                Ok(names) => frames.push((child, names.into_iter())),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

pub(super) fn sorted_names(dir: &Dir) -> io::Result<Vec<Vec<u8>>> {
    let mut names = dispose::names(dir)?;
    names.sort_unstable();
    Ok(names)
}
