//! Opening and creating the database file.
//!
//! Several processes may create it at once: the schema is made in one transaction under the write lock, and whoever
//! comes second finds it made. A process killed in between leaves an empty database, which the next `create` fills.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::{FILE, read_only};
use crate::limits::{SQLITE_BUSY_MS, SQLITE_VALUE_BYTES_MAX};
use crate::{Error, Result};

/// "Tide": tells a Tidelog table from any other SQLite file.
const APPLICATION_ID: i32 = 0x5469_6465;
/// The version of the schema. A newer one is refused.
pub(super) const SCHEMA_VERSION: i32 = 1;
const SCHEMA: &str = "CREATE TABLE items (
    pk TEXT NOT NULL,
    sk INTEGER NOT NULL CHECK (sk >= 0),
    id BLOB NOT NULL CHECK (length(id) = 16),
    time_ms INTEGER NOT NULL,
    body BLOB,
    hint TEXT NOT NULL,
    PRIMARY KEY (pk, sk)
) WITHOUT ROWID, STRICT";

/// How the file can be used.
pub(super) enum Opened {
    /// The connection that writes, and the one that reads.
    Writable(Connection, Connection),
    /// Only to be read; why it cannot be written.
    ReadOnly(String),
}

/// Opens `path` for writing; where that is denied, and nothing is to be created, for reading.
pub(super) fn open(folder: &Path, path: &Path, create: bool) -> Result<Opened> {
    if !create && !path.exists() {
        return Err(cannot(folder, format!("there is no {FILE} in it: make the store with `tidelog init`")));
    }
    let opened = match writable(path, create) {
        Ok((writer, reader)) => Opened::Writable(writer, reader),
        Err(Failure::Told(error)) => return Err(error),
        Err(Failure::Sqlite(error)) if !create && is_denied(&error) => {
            let header = read_only::read(path, header).map_err(|error| read_only::explain(path, &error))?;
            if !is_ours(header, path)? {
                return Err(cannot(path, UNFINISHED));
            }
            Opened::ReadOnly(format!("{}: {READ_ONLY}", folder.display()))
        }
        Err(Failure::Sqlite(error)) => return Err(explain(path, &error)),
    };
    match sync(folder, path) {
        // What is mounted read-only was synced when it was written.
        Err(error) if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem => {}
        synced => synced.map_err(|error| cannot(folder, format!("cannot sync it: {error}")))?,
    }
    Ok(opened)
}

const READ_ONLY: &str = "it cannot be written: change the owner or mode of the folder and of every file in it, mount \
                         it writable, or work on a copy; commands that only read need no right to write";
const UNFINISHED: &str = "it was never finished: run `tidelog init` again";

fn writable(path: &Path, create: bool) -> Result<(Connection, Connection), Failure> {
    let flags = |create| match create {
        true => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        false => OpenFlags::SQLITE_OPEN_READ_WRITE,
    };
    let writer = connect(path, flags(create))?;
    if writer.is_readonly("main")? {
        return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_READONLY), None).into());
    }
    prepare(&writer, path, create)?;
    let reader = connect(path, flags(false))?;
    reader.pragma_update(None, "query_only", true)?;
    Ok((writer, reader))
}

/// Opens a connection of this program's kind.
pub(super) fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    // Each connection stays in one thread, so SQLite need not lock for us.
    let mut conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_handler(Some(wait_for_lock))?;
    let largest = i32::try_from(SQLITE_VALUE_BYTES_MAX).unwrap_or(i32::MAX);
    conn.set_limit(Limit::SQLITE_LIMIT_LENGTH, largest)?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    // On macOS a plain fsync does not reach the disk.
    conn.pragma_update(None, "fullfsync", true)?;
    conn.pragma_update(None, "checkpoint_fullfsync", true)?;
    Ok(conn)
}

/// Waits for another process's lock in small steps: its holder is a millisecond's fsync away from letting go, and
/// SQLite's own handler sleeps up to 100 ms.
fn wait_for_lock(tries: i32) -> bool {
    pause();
    u64::try_from(tries).is_ok_and(|tries| tries < SQLITE_BUSY_MS)
}

#[allow(
    clippy::disallowed_methods,
    reason = "a thread of SQLite's, where no Env reaches; never in the simulator"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}

enum Failure {
    Told(Error),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

/// Brings the file to write-ahead logging and the schema, unless it is there already; changes no foreign file.
fn prepare(conn: &Connection, path: &Path, create: bool) -> Result<(), Failure> {
    if is_ours(header(conn)?, path)? {
        return Ok(write_ahead(conn)?);
    }
    if !create {
        return Err(cannot(path, UNFINISHED).into());
    }
    write_ahead(conn)?;
    conn.execute_batch("BEGIN IMMEDIATE")?;
    let made = make(conn, path);
    let end = if made.is_ok() { "COMMIT" } else { "ROLLBACK" };
    conn.execute_batch(end)?;
    made
}

fn make(conn: &Connection, path: &Path) -> Result<(), Failure> {
    // Another process may have made it while this one waited for the lock.
    if is_ours(header(conn)?, path)? {
        return Ok(());
    }
    conn.execute_batch(SCHEMA)?;
    conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    conn.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    Ok(())
}

/// Application id, version of the schema, number of tables: one statement, so that the three belong together.
fn header(conn: &Connection) -> rusqlite::Result<(i32, i32, i64)> {
    let sql = "SELECT (SELECT application_id FROM pragma_application_id), \
               (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)";
    conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
}

/// Whether the schema is there. A newer or foreign one is refused.
fn is_ours((application, version, tables): (i32, i32, i64), path: &Path) -> Result<bool> {
    match (application, version) {
        (0, 0) if tables == 0 => Ok(false),
        (APPLICATION_ID, SCHEMA_VERSION) => Ok(true),
        (APPLICATION_ID, newer) if newer > SCHEMA_VERSION => {
            let what = format!("{}: schema version {newer}, known is {SCHEMA_VERSION}", path.display());
            Err(Error::Newer { what })
        }
        _ => Err(cannot(path, "it is a SQLite file, but not a Tidelog table")),
    }
}

/// Switching to write-ahead logging needs the file alone, and SQLite does not call the busy handler for it.
fn write_ahead(conn: &Connection) -> rusqlite::Result<()> {
    let mut tries = 0;
    loop {
        let mode = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
        match mode {
            Ok(mode) if mode.eq_ignore_ascii_case("wal") => return Ok(()),
            Err(error) if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) => return Err(error),
            _ if !wait_for_lock(tries) => {
                let words = "write-ahead logging could not be switched on".to_owned();
                let busy = ffi::Error::new(ffi::SQLITE_BUSY);
                return Err(rusqlite::Error::SqliteFailure(busy, Some(words)));
            }
            _ => tries += 1,
        }
    }
}

/// Makes durable what opening found: the database file's name, and the frames of a log that a killed process left.
///
/// The database file itself must not be opened beside SQLite: closing it would drop this process's POSIX locks on it.
/// SQLite syncs it whenever it writes it. The log carries no locks.
fn sync(folder: &Path, path: &Path) -> std::io::Result<()> {
    match File::open(log_of(path)) {
        Ok(log) => log.sync_all()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    File::open(folder)?.sync_all()
}

/// The write-ahead log of the database `path`.
pub(super) fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

/// Whether it is the right to write that is missing.
fn is_denied(error: &rusqlite::Error) -> bool {
    use ErrorCode::*;
    matches!(error.sqlite_error_code(), Some(CannotOpen | ReadOnly | PermissionDenied))
}

pub(super) fn cannot(path: &Path, reason: impl Into<String>) -> Error {
    Error::CannotOpen { url: path.display().to_string(), reason: reason.into() }
}

pub(super) fn explain(path: &Path, error: &rusqlite::Error) -> Error {
    use ErrorCode::*;
    match error.sqlite_error_code() {
        Some(DatabaseBusy | DatabaseLocked | FileLockingProtocolFailed) => {
            let cause = format!("{} is locked by another process: {error}", path.display());
            Error::Unavailable { what: "opening the table", cause }
        }
        Some(DiskFull) => {
            let cause = format!("the disk of {} is full: free some space", path.display());
            Error::Unavailable { what: "opening the table", cause }
        }
        Some(DatabaseCorrupt | NotADatabase) => Error::damaged(path.display().to_string(), error.to_string()),
        _ if is_denied(error) => cannot(path, format!("{READ_ONLY} ({error})")),
        _ => cannot(path, error.to_string()),
    }
}
