//! Reading a table that this user, or this mount, may not write: a connection a read.
//!
//! SQLite reads a write-ahead log with the help of its index, `-shm`. Where both are there they are read, also while
//! other processes write. A process that closes the file last, and in order, removes both: then the database file is
//! whole by itself, and is read as one that does not change (`immutable`). What was read so counts only if it did not:
//! the first thing a writer does is to make the log, and to the file it writes only when it moves the log there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::{Connection, OpenFlags, ffi};

use super::open;
use crate::Error;

/// Reads in a row that may meet a change.
const TRIES: u32 = 3;

/// The database file without a log: its size and when it was changed. `None`: there is a log.
type Quiet = Option<(u64, SystemTime)>;

/// Runs `read` on the table as of its last commit.
pub(super) fn read<T>(path: &Path, read: impl Fn(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    for _ in 0..TRIES {
        let before = look(path)?;
        let answer = connect(path, before.is_some()).and_then(|conn| read(&conn));
        if look(path)? == before || (before.is_none() && answer.is_ok()) {
            return answer;
        }
    }
    Err(failure(ffi::SQLITE_BUSY, "another process changes it all the time".to_owned()))
}

fn look(path: &Path) -> rusqlite::Result<Quiet> {
    let look = || -> io::Result<Quiet> {
        // Told apart from one that may not be looked at.
        if open::log_of(path).try_exists()? {
            return Ok(None);
        }
        let found = fs::metadata(path)?;
        Ok(Some((found.len(), found.modified()?)))
    };
    look().map_err(|error| failure(ffi::SQLITE_CANTOPEN, error.to_string()))
}

fn connect(path: &Path, immutable: bool) -> rusqlite::Result<Connection> {
    if !immutable {
        return open::connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    open::connect(&immutable_uri(path)?, flags)
}

fn immutable_uri(path: &Path) -> rusqlite::Result<PathBuf> {
    let path = path.canonicalize().map_err(|error| failure(ffi::SQLITE_CANTOPEN, error.to_string()))?;
    let Some(path) = path.to_str() else {
        return Err(failure(ffi::SQLITE_CANTOPEN, "its path is not UTF-8".to_owned()));
    };
    // What would end the path, and what would begin an escape.
    let path = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    Ok(format!("file:{path}?immutable=1").into())
}

fn failure(code: i32, words: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(words))
}

/// Why the file cannot even be read.
pub(super) fn explain(path: &Path, error: &rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::*;
    let reason = match error.sqlite_error_code() {
        Some(CannotOpen | ReadOnly | PermissionDenied) if look(path).is_ok_and(|quiet| quiet.is_none()) => {
            "it cannot be written, and must be once before it can be read: a process left its log there without the \
             log's index; run any command on it as a user who may write it, or on a copy"
        }
        Some(CannotOpen | ReadOnly | PermissionDenied) => {
            "this user may not read it: change its owner or mode"
        }
        _ => return open::explain(path, error),
    };
    open::cannot(path, format!("{reason} ({error})"))
}
