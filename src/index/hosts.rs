//! What is known of each host, and how long the past is kept for them.

use rusqlite::{OptionalExtension, params};

use super::{Index, IndexError, number, sequence};
use crate::model::Sequence;

/// A host that was not heard of for so long is compared anew when it comes back.
const KEEP_SECONDS: u64 = 30 * 24 * 3600;

/// Rows of the past that are kept whatever the size of the tree.
const KEEP_ROWS: i64 = 100_000;

/// What is known of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRecord {
    /// The last change that it has.
    pub sequence: Sequence,
    /// When everything there was last compared, in seconds since 1970.
    pub reconciled: u64,
    /// When it was last heard of, in seconds since 1970.
    pub seen: u64,
    /// What it could hold then, as a text; empty where that is not known.
    pub fidelity: String,
    /// Not everything could be brought over: everything is to be compared.
    pub incomplete: bool,
}

impl Index {
    /// What is known of `host`.
    ///
    /// # Errors
    /// The database fails.
    pub fn host(&self, host: &str) -> Result<Option<HostRecord>, IndexError> {
        let mut statement = self
            .db
            .prepare_cached("SELECT sequence, reconciled, seen, fidelity, incomplete FROM hosts WHERE host = ?1")?;
        let found = statement.query_row([host], |row| {
            Ok(HostRecord {
                sequence: sequence(row.get(0)?),
                reconciled: row.get::<_, i64>(1)?.cast_unsigned(),
                seen: row.get::<_, i64>(2)?.cast_unsigned(),
                fidelity: row.get(3)?,
                incomplete: row.get(4)?,
            })
        });
        Ok(found.optional()?)
    }

    /// Remembers `record` of `host`.
    ///
    /// # Errors
    /// The database fails.
    pub fn set_host(&self, host: &str, record: &HostRecord) -> Result<(), IndexError> {
        self.db.prepare_cached("INSERT OR REPLACE INTO hosts VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(params![
            host,
            number(record.sequence),
            record.reconciled.cast_signed(),
            record.seen.cast_signed(),
            record.fidelity,
            record.incomplete,
        ])?;
        Ok(())
    }

    /// Drops what no host that is heard of needs any more. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// The database fails.
    pub fn forget_the_past(&self, now: u64) -> Result<(), IndexError> {
        let heard_after = now.saturating_sub(KEEP_SECONDS).cast_signed();
        let lowest: Option<i64> =
            self.db.query_row("SELECT min(sequence) FROM hosts WHERE seen > ?1", [heard_after], |row| row.get(0))?;
        let Some(mut keep) = lowest else { return Ok(()) };
        let rows: i64 = self.db.query_row("SELECT count(*) FROM past", [], |row| row.get(0))?;
        let most = KEEP_ROWS.max(self.entries()?.cast_signed());
        if rows > most {
            // A host that far behind is cheaper to compare.
            let beyond =
                self.db.query_row("SELECT until FROM past ORDER BY until LIMIT 1 OFFSET ?1", [rows - most], |row| {
                    row.get::<_, i64>(0)
                })?;
            keep = keep.max(beyond);
        }
        let needless: bool =
            self.db.query_row("SELECT EXISTS (SELECT 1 FROM past WHERE until <= ?1)", [keep], |row| row.get(0))?;
        if needless {
            self.db.execute("DELETE FROM past WHERE until <= ?1", [keep])?;
        }
        self.db.execute(
            "DELETE FROM stamps WHERE sequence < ?1 AND sequence < (SELECT max(sequence) FROM stamps)",
            [keep],
        )?;
        Ok(())
    }
}
