//! What an index says to one who only looks, and what an operator has it forget. Neither opens it as a push does: nothing
//! is built anew, and nobody is waited for.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::hosts::HostRecord;
use super::schema::{APPLICATION, VERSION};
use super::{Index, IndexError};
use crate::model::Sequence;

/// A writer keeps readers out only while it tidies up.
const PATIENCE: Duration = Duration::from_secs(2);

/// What an index says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peek {
    /// The last change.
    pub sequence: Sequence,
    /// Entries recorded.
    pub entries: u64,
    /// What is known of each host, by name.
    pub hosts: Vec<(String, HostRecord)>,
}

impl Index {
    /// Looks into the index in `file`, as it is at one moment, whoever is writing; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, or a push would build it anew.
    pub fn peek(file: &Path) -> Result<Option<Peek>, IndexError> {
        let Some(index) = existing(file, OpenFlags::SQLITE_OPEN_READ_ONLY)? else { return Ok(None) };
        index.db.execute_batch("BEGIN")?;
        if index.get::<i64>("damaged")?.is_some() {
            return Err(IndexError::Damaged("it is built anew by the next push"));
        }
        let position = index.position()?;
        let mut names = index.db.prepare("SELECT host FROM hosts ORDER BY host")?;
        let names: Vec<String> = names.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let mut hosts = Vec::with_capacity(names.len());
        for name in names {
            if let Some(record) = index.host(&name)? {
                hosts.push((name, record));
            }
        }
        Ok(Some(Peek { sequence: position.sequence, entries: index.entries()?, hosts }))
    }

    /// Forgets what the index in `file` knows of `host`, so that everything there is compared next. Whether anything was
    /// known.
    ///
    /// # Errors
    /// The database fails, or is not one that a push would use.
    pub fn forget_host(file: &Path, host: &str) -> Result<bool, IndexError> {
        let Some(index) = existing(file, OpenFlags::SQLITE_OPEN_READ_WRITE)? else { return Ok(false) };
        Ok(index.db.execute("DELETE FROM hosts WHERE host = ?1", [host])? > 0)
    }
}

/// Opens what is there, of this version.
fn existing(file: &Path, how: OpenFlags) -> Result<Option<Index>, IndexError> {
    if !file.exists() {
        return Ok(None);
    }
    let db = Connection::open_with_flags(file, how | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(PATIENCE)?;
    let number = |name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    if number("application_id")? != APPLICATION || number("user_version")? != VERSION {
        return Err(IndexError::Damaged("it is of another version"));
    }
    let root = db.query_row("SELECT own FROM entries WHERE dir = 0 AND name = x''", [], |row| row.get(0))?;
    Ok(Some(Index { db, root }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Identity;
    use std::fs;

    fn identity() -> Identity {
        Identity {
            machine: "m".into(),
            path: "/srv/a".into(),
            filter: String::new(),
            attributes: false,
            source: (1, 2, 3),
        }
    }

    #[test]
    fn who_looks_sees_what_was_left_also_while_another_writes_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cms:a.index");
        assert_eq!(Index::peek(&file).unwrap(), None);
        assert!(!file.exists(), "nothing is made");
        let (index, _) = Index::open(&file, &identity()).unwrap();
        let record = HostRecord { sequence: Sequence(7), reconciled: 5, seen: 6, ..HostRecord::default() };
        index.set_host("web2", &record).unwrap();
        let left = Peek { hosts: vec![("web2".to_owned(), record.clone())], ..Peek::default() };
        assert_eq!(Index::peek(&file).unwrap(), Some(left.clone()), "while it is open");
        index.db.execute_batch("BEGIN IMMEDIATE; DELETE FROM hosts").unwrap();
        assert_eq!(Index::peek(&file).unwrap(), Some(left.clone()), "in the middle of a write");
        index.db.execute_batch("ROLLBACK").unwrap();
        drop(index);
        let before = fs::read(&file).unwrap();
        assert_eq!(Index::peek(&file).unwrap(), Some(left));
        assert_eq!(fs::read(&file).unwrap(), before);
    }

    #[test]
    fn a_host_that_is_forgotten_is_known_to_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cms:a.index");
        assert!(!Index::forget_host(&file, "web2").unwrap());
        let (index, _) = Index::open(&file, &identity()).unwrap();
        index.set_host("web2", &HostRecord::default()).unwrap();
        index.set_host("web3", &HostRecord::default()).unwrap();
        drop(index);
        assert!(Index::forget_host(&file, "web2").unwrap());
        assert!(!Index::forget_host(&file, "web2").unwrap());
        let hosts: Vec<String> = Index::peek(&file).unwrap().unwrap().hosts.into_iter().map(|(name, _)| name).collect();
        assert_eq!(hosts, ["web3"]);
    }

    #[test]
    fn what_a_push_would_build_anew_tells_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (other, marked) = (dir.path().join("other"), dir.path().join("marked"));
        fs::write(&other, "no database at all, and long enough to be looked at as one").unwrap();
        Index::open(&marked, &identity()).unwrap().0.mark_damaged();
        for file in [other, marked] {
            assert!(Index::peek(&file).is_err(), "{}", file.display());
        }
    }
}
