//! The durable record of a root: what it holds, and which change came when.
//!
//! An SQLite database for each root, in the primary's state directory. Directories are rows with numbers
//! that stay when they are renamed, so a directory that moves is one change, whatever it holds. What
//! an entry was before a change stays in the `past` until every host that is heard of has passed it.
//!
//! | file      | what it owns |
//! |-----------|--------------|
//! | `schema`  | the tables; what makes an index usable; rebuilding |
//! | `row`     | entries as bytes |
//! | `merge`   | a scan, directory by directory, or single names, against what is recorded |
//! | `states`  | one state for all names of a file |
//! | `history` | what happened after a point |
//! | `left`    | what scans left out; breaks in the history |
//! | `lookup`  | listings and places of what is there now |
//! | `hosts`   | what is known of each host; how long the past is kept |
//! | `peek`    | what it says to one who only looks |
//!
//! Knows only its own database: no synced directory, no clock.

mod history;
mod hosts;
mod left;
mod lookup;
mod merge;
mod peek;
mod row;
mod schema;
mod states;
#[cfg(test)]
mod tests;

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};
use thiserror::Error;

pub use hosts::HostRecord;
pub use lookup::SharedFiles;
pub use merge::{Look, Merge, Summary, Taken};
pub use peek::Peek;
pub use schema::{Condition, Identity};

use crate::model::{Position, Sequence, Stamp};

/// Why an index cannot be used. One that is damaged is rebuilt without a word of this.
#[derive(Debug, Error)]
pub enum IndexError {
    /// The database fails.
    #[error("the index fails: {0}")]
    Database(#[from] rusqlite::Error),
    /// A row is not what was written. The index must be rebuilt.
    #[error("the index is damaged: {0}")]
    Damaged(&'static str),
}

/// The index of one root.
pub struct Index {
    db: Connection,
    root: i64,
}

impl Index {
    /// Opens the index in `file`, making or rebuilding it where it is missing, damaged, of another version
    /// or of something else than `identity`.
    ///
    /// # Errors
    /// The file cannot be made or written.
    pub fn open(file: &Path, identity: &Identity) -> Result<(Self, Condition), IndexError> {
        let (db, condition) = schema::open(file, identity)?;
        let root = db.query_row("SELECT own FROM entries WHERE dir = 0 AND name = x''", [], |row| row.get(0))?;
        Ok((Index { db, root }, condition))
    }

    /// The index in `file`, which is open elsewhere, to be read beside whoever writes to it.
    ///
    /// # Errors
    /// The database fails.
    pub fn open_to_read(file: &Path) -> Result<Self, IndexError> {
        let db = schema::open_to_read(file)?;
        let root = db.query_row("SELECT own FROM entries WHERE dir = 0 AND name = x''", [], |row| row.get(0))?;
        Ok(Index { db, root })
    }

    /// From now on reads see what is recorded now, whatever is written.
    ///
    /// # Errors
    /// The database fails.
    pub fn freeze(&self) -> Result<Position, IndexError> {
        self.thaw();
        self.db.execute_batch("BEGIN")?;
        // The first read is what it begins with.
        self.position()
    }

    /// From now on each read sees what is recorded then.
    pub fn thaw(&self) {
        if !self.db.is_autocommit() {
            // Nothing was written, and nothing is lost.
            let _ = self.db.execute_batch("COMMIT");
        }
    }

    /// The last change.
    ///
    /// # Errors
    /// The database fails.
    pub fn position(&self) -> Result<Position, IndexError> {
        let last = self
            .db
            .prepare_cached("SELECT sequence, stamp FROM stamps ORDER BY sequence DESC LIMIT 1")?
            .query_row([], |row| {
                let stamp: i64 = row.get(1)?;
                Ok(Position { sequence: sequence(row.get(0)?), stamp: Stamp(stamp.cast_unsigned()) })
            });
        Ok(last.optional()?.unwrap_or_default())
    }

    /// All points of this history from which everything is still known.
    ///
    /// # Errors
    /// The database fails.
    pub fn positions(&self) -> Result<Vec<Position>, IndexError> {
        let mut statement = self.db.prepare_cached("SELECT sequence, stamp FROM stamps")?;
        let found = statement.query_map([], |row| {
            let stamp: i64 = row.get(1)?;
            Ok(Position { sequence: sequence(row.get(0)?), stamp: Stamp(stamp.cast_unsigned()) })
        })?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// Marks the index as damaged: it is built anew when it is opened next.
    pub fn mark_damaged(&self) {
        // If even this fails, opening it will too.
        let _ = self.set("damaged", 1i64);
    }

    /// Whether it was marked so.
    pub fn is_damaged(&self) -> bool {
        self.get::<i64>("damaged").map_or(true, |mark| mark.is_some())
    }

    /// Whether `position` is a point of this history from which everything is still known.
    ///
    /// # Errors
    /// The database fails.
    pub fn knows(&self, position: Position) -> Result<bool, IndexError> {
        let known = self
            .db
            .prepare_cached("SELECT 1 FROM stamps WHERE sequence = ?1 AND stamp = ?2")?
            .exists(params![number(position.sequence), position.stamp.0.cast_signed()])?;
        Ok(known && position.sequence.0 > 0)
    }

    /// Entries recorded.
    ///
    /// # Errors
    /// The database fails.
    pub fn entries(&self) -> Result<u64, IndexError> {
        let entries: i64 = self.get("entries")?.unwrap_or(0);
        Ok(entries.cast_unsigned())
    }

    /// Whether the source is another one than before and no push of it was accepted yet.
    ///
    /// # Errors
    /// The database fails.
    pub fn is_exchanged(&self) -> Result<bool, IndexError> {
        Ok(self.get::<i64>("exchanged")?.unwrap_or(0) != 0)
    }

    /// A push of an exchanged source was accepted.
    ///
    /// # Errors
    /// The database fails.
    pub fn accept(&self) -> Result<(), IndexError> {
        if self.is_exchanged()? {
            self.set("exchanged", 0i64)?;
        }
        Ok(())
    }

    fn get<T: rusqlite::types::FromSql>(&self, key: &str) -> Result<Option<T>, IndexError> {
        let mut statement = self.db.prepare_cached("SELECT value FROM facts WHERE key = ?1")?;
        Ok(statement.query_row([key], |row| row.get(0)).optional()?)
    }

    fn set(&self, key: &str, value: impl rusqlite::ToSql) -> Result<(), IndexError> {
        schema::set_fact(&self.db, key, value)?;
        Ok(())
    }
}

fn sequence(number: i64) -> Sequence {
    Sequence(number.cast_unsigned())
}

fn number(sequence: Sequence) -> i64 {
    sequence.0.cast_signed()
}
