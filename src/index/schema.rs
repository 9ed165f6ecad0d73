//! The tables, and what makes an index usable.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::IndexError;
use super::left::MOUNTS;

/// Version of the tables. Another one is rebuilt: an index is a memory, not the only copy of anything.
pub(super) const VERSION: i64 = 2;

/// "rflt": tells our databases from others.
pub(super) const APPLICATION: i64 = 0x7266_6c74;

/// Memory for pages. A scan reads each page once, so more gains nothing.
const CACHE_KIBIBYTES: i64 = 8 << 10;

const TABLES: &str = "
    CREATE TABLE facts (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE entries (
        dir INTEGER NOT NULL,      -- number of the directory that holds it
        name BLOB NOT NULL,
        state BLOB NOT NULL,       -- kind, size, times, inode, mode, owner: see row.rs
        own INTEGER,               -- for a directory, its number
        inode INTEGER,             -- for a directory or a file with several names
        target BLOB,               -- of a symbolic link
        sequence INTEGER NOT NULL, -- of the last change
        content INTEGER NOT NULL,  -- of the last change of the content
        racy INTEGER NOT NULL,     -- too young to be trusted: to be looked at again
        digest BLOB,               -- of the content, where it was read
        attributes BLOB,           -- extended attributes, where there are any
        PRIMARY KEY (dir, name)
    ) WITHOUT ROWID;
    CREATE INDEX by_sequence ON entries (sequence);
    CREATE INDEX by_own ON entries (own) WHERE own IS NOT NULL;
    CREATE INDEX by_inode ON entries (inode) WHERE inode IS NOT NULL;
    CREATE TABLE past (
        until INTEGER NOT NULL,    -- the change that ended it
        since INTEGER NOT NULL,    -- the change that made it
        dir INTEGER NOT NULL,
        name BLOB NOT NULL,
        state BLOB NOT NULL,
        own INTEGER,
        target BLOB,
        digest BLOB,
        attributes BLOB,
        PRIMARY KEY (until, dir, name)
    ) WITHOUT ROWID;
    CREATE TABLE acl_names (     -- whom ACLs name, and named once
        is_group INTEGER NOT NULL,
        id INTEGER NOT NULL,
        PRIMARY KEY (is_group, id)
    ) WITHOUT ROWID;
    CREATE TABLE stamps (sequence INTEGER PRIMARY KEY, stamp INTEGER NOT NULL, entries INTEGER NOT NULL);
    CREATE TABLE hosts (
        host TEXT PRIMARY KEY,
        sequence INTEGER NOT NULL,
        reconciled INTEGER NOT NULL, -- seconds since 1970
        seen INTEGER NOT NULL,       -- seconds since 1970
        fidelity TEXT NOT NULL,
        incomplete INTEGER NOT NULL  -- something could not be brought over
    ) WITHOUT ROWID;
    INSERT INTO entries VALUES (0, x'', x'', 1, NULL, NULL, 0, 0, 0, NULL, NULL);
";

/// What an index is of. One of something else describes nothing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The machine: a copied disk is no longer the same.
    pub machine: String,
    /// The source as the configuration names it.
    pub path: PathBuf,
    /// What is left out.
    pub filter: String,
    /// Extended attributes are recorded.
    pub attributes: bool,
    /// Device number, inode number and filesystem id of the source.
    pub source: (u64, u64, u64),
}

/// What an index was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// As it was left.
    Known,
    /// There was none.
    New,
    /// It could not be read, or is damaged.
    Damaged,
    /// Written by another version.
    OtherVersion,
    /// Of another machine.
    OtherMachine,
    /// Of another path, or with other options: what is excluded, whether extended attributes are synced.
    OtherOptions,
    /// The source is another directory or filesystem than before.
    OtherSource,
}

impl Condition {
    /// What an operator is told, after "the index "; nothing where there is nothing to tell.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Condition::Known | Condition::New => None,
            Condition::Damaged => Some("was damaged"),
            Condition::OtherVersion => Some("was written by another version"),
            Condition::OtherMachine => Some("was of another machine"),
            Condition::OtherOptions => Some("was made for another path or other rules of what is synced"),
            Condition::OtherSource => Some("was of another filesystem or directory than the source is now"),
        }
    }
}

pub(super) fn open(file: &Path, identity: &Identity) -> Result<(Connection, Condition), IndexError> {
    let found = if file.exists() { examine(file, identity) } else { Err(Condition::New) };
    let condition = match found {
        Ok(db) => return Ok((db, Condition::Known)),
        Err(condition) => condition,
    };
    // Other patterns make no other disk: that something was mounted is not forgotten with them.
    let mounts = (condition == Condition::OtherOptions).then(|| mounts_of(file, &identity.path)).flatten();
    for suffix in ["", "-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(cannot_open(&error));
            }
            _ => {}
        }
    }
    let db = create(file, identity, condition)?;
    if let Some(mounts) = mounts {
        set_fact(&db, MOUNTS, mounts)?;
    }
    Ok((db, condition))
}

/// What an index remembers of the mount points in `source`, whatever else it is of.
pub(super) fn mounts_of(file: &Path, source: &Path) -> Option<Vec<u8>> {
    let db = file.exists().then(|| connect(file).ok()).flatten()?;
    let fact = |key| db.query_row("SELECT value FROM facts WHERE key = ?1", [key], |row| row.get::<_, Vec<u8>>(0));
    let is_same_path = fact("path").ok()? == path_bytes(source);
    fact(MOUNTS).ok().filter(|_| is_same_path)
}

fn cannot_open(error: &std::io::Error) -> IndexError {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
    rusqlite::Error::SqliteFailure(code, Some(error.to_string())).into()
}

fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(file)?;
    db.busy_timeout(std::time::Duration::from_secs(10))?;
    db.set_prepared_statement_cache_capacity(64);
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update(None, "cache_size", -CACHE_KIBIBYTES)?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    // No plan here depends on what is bound. Without this SQLite may think so, and plans the statement that reads a
    // directory again for each one.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(db)
}

/// Opens what is there to be read only.
pub(super) fn open_to_read(file: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(std::time::Duration::from_secs(10))?;
    db.set_prepared_statement_cache_capacity(64);
    db.pragma_update(None, "cache_size", -CACHE_KIBIBYTES)?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(db)
}

/// Opens what is there, if it can be used.
fn examine(file: &Path, identity: &Identity) -> Result<Connection, Condition> {
    let damaged = |_| Condition::Damaged;
    let db = connect(file).map_err(damaged)?;
    let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(damaged);
    if pragma("application_id")? != APPLICATION || pragma("user_version")? != VERSION {
        return Err(Condition::OtherVersion);
    }
    let fact = |key: &str| {
        let value = db.query_row("SELECT value FROM facts WHERE key = ?1", [key], |row| row.get::<_, Vec<u8>>(0));
        value.optional().map_err(damaged)
    };
    let is = |key, value: &[u8]| Ok::<bool, Condition>(fact(key)?.as_deref() == Some(value));
    // Left by a process that found a row that cannot be.
    let mark = db.prepare("SELECT 1 FROM facts WHERE key = 'damaged'").and_then(|mut mark| mark.exists([]));
    if mark.map_err(damaged)? {
        return Err(Condition::Damaged);
    }
    if !is("machine", identity.machine.as_bytes())? {
        return Err(Condition::OtherMachine);
    }
    if !is("path", path_bytes(&identity.path))? || !is("filter", identity.filter.as_bytes())? {
        return Err(Condition::OtherOptions);
    }
    if !is("attributes", &[u8::from(identity.attributes)])? {
        return Err(Condition::OtherOptions);
    }
    // One of them may change when a machine starts anew; not both.
    let (dev, ino, fsid) = identity.source;
    let same_inode = is("ino", &ino.to_le_bytes())?;
    if !same_inode || !(is("dev", &dev.to_le_bytes())? || is("fsid", &fsid.to_le_bytes())?) {
        return Err(Condition::OtherSource);
    }
    Ok(db)
}

fn create(file: &Path, identity: &Identity, condition: Condition) -> Result<Connection, IndexError> {
    let mut db = connect(file)?;
    // The names of a private tree are nobody else's business. SQLite's other files take the mode over.
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(file, private).map_err(|error| cannot_open(&error))?;
    db.pragma_update(None, "application_id", APPLICATION)?;
    db.pragma_update(None, "user_version", VERSION)?;
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(TABLES)?;
    let (dev, ino, fsid) = identity.source;
    set_fact(&transaction, "machine", identity.machine.as_bytes())?;
    set_fact(&transaction, "path", path_bytes(&identity.path))?;
    set_fact(&transaction, "filter", identity.filter.as_bytes())?;
    set_fact(&transaction, "attributes", [u8::from(identity.attributes)])?;
    set_fact(&transaction, "dev", dev.to_le_bytes())?;
    set_fact(&transaction, "ino", ino.to_le_bytes())?;
    set_fact(&transaction, "fsid", fsid.to_le_bytes())?;
    set_fact(&transaction, "exchanged", i64::from(condition == Condition::OtherSource))?;
    transaction.commit()?;
    Ok(db)
}

pub(super) fn set_fact(db: &Connection, key: &str, value: impl rusqlite::ToSql) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO facts VALUES (?1, ?2)")?.execute(params![key, value]).map(|_| ())
}

fn path_bytes(path: &Path) -> &[u8] {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes()
}
