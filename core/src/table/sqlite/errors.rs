//! What SQLite's errors mean to the ledger (L3): applied or not, and whether later it may be.
//!
//! | SQLite says | reading | before COMMIT | by COMMIT | why |
//! |---|---|---|---|---|
//! | BUSY, LOCKED, PROTOCOL | Throttled | Throttled | Throttled | another process holds a lock; COMMIT takes its last lock before it writes a frame |
//! | FULL | Throttled | Throttled | **NoAnswer** | before COMMIT no commit frame exists; by COMMIT the frame may be written whole |
//! | IOERR | NoAnswer | Throttled | **NoAnswer** | a failed sync leaves a whole commit frame in the log: a recovery may find it |
//! | NOMEM, CANTOPEN, INTERRUPT, ABORT | Throttled | Throttled | **NoAnswer** | nothing is wrong with the request or the data (too many open files, say) |
//! | CONSTRAINT, MISMATCH, TOOBIG | Damaged | Refused | Refused | a statement's own fault: the whole transaction is rolled back |
//! | READONLY, PERM, AUTH, NOLFS | Refused | Refused | Refused | said before anything is written; only a person can change it |
//! | CORRUPT, NOTADB, FORMAT; a value of a wrong type, size or encoding | Damaged | Damaged | Damaged | the file is not what was written |
//! | anything else (ERROR, MISUSE, SCHEMA, INTERNAL) | Refused | Refused | **NoAnswer** | a fault of this program, or a table changed by hand |
//!
//! "Before COMMIT" is proof enough of "not applied": the transaction is rolled back, and without its commit frame no
//! recovery makes anything of it. By COMMIT, an error that is not listed as definite is no answer: the ledger looks.

use rusqlite::{Error, ErrorCode};

use crate::table::TableError;

/// When the error came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Read,
    BeforeCommit,
    Commit,
}

/// What `error` means at `stage`.
pub(super) fn map(error: Error, stage: Stage) -> TableError {
    use ErrorCode::*;
    let words = format!("sqlite: {error}");
    let Error::SqliteFailure(failure, _) = &error else {
        return unexpected(&error, words, stage);
    };
    let unless_by_commit = |meaning: fn(String) -> TableError, words| match stage {
        Stage::Commit => TableError::NoAnswer(words),
        _ => meaning(words),
    };
    match failure.code {
        DatabaseBusy | DatabaseLocked | FileLockingProtocolFailed => TableError::Throttled(words),
        DiskFull => {
            unless_by_commit(TableError::Throttled, format!("{words}: free some space on the store's disk"))
        }
        SystemIoFailure if stage == Stage::Read => TableError::NoAnswer(words),
        SystemIoFailure | OutOfMemory | CannotOpen | OperationInterrupted | OperationAborted => {
            unless_by_commit(TableError::Throttled, words)
        }
        ConstraintViolation | TypeMismatch | TooBig if stage == Stage::Read => TableError::Damaged(words),
        ConstraintViolation | TypeMismatch | TooBig => TableError::Refused(words),
        ReadOnly | PermissionDenied | AuthorizationForStatementDenied | NoLargeFileSupport => {
            TableError::Refused(format!("{words}: the store's folder must be writable"))
        }
        DatabaseCorrupt | NotADatabase => TableError::Damaged(words),
        // FORMAT has no name of its own in rusqlite.
        _ if failure.extended_code & 0xff == rusqlite::ffi::SQLITE_FORMAT => TableError::Damaged(words),
        _ => unless_by_commit(TableError::Refused, words),
    }
}

/// Errors that rusqlite itself makes: almost all say that a value is not what the schema allows.
fn unexpected(error: &Error, words: String, stage: Stage) -> TableError {
    match error {
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..)
        | Error::QueryReturnedNoRows => TableError::Damaged(words),
        _ if stage == Stage::Commit => TableError::NoAnswer(words),
        _ => TableError::Refused(words),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    fn kind(code: i32, stage: Stage) -> &'static str {
        match map(Error::SqliteFailure(ffi::Error::new(code), None), stage) {
            TableError::Refused(_) => "refused",
            TableError::Throttled(_) => "throttled",
            TableError::NoAnswer(_) => "no answer",
            TableError::Damaged(_) => "damaged",
        }
    }

    #[test]
    fn the_table_above_is_the_code_below() {
        let rows = [
            (ffi::SQLITE_BUSY, ["throttled", "throttled", "throttled"]),
            (ffi::SQLITE_BUSY_RECOVERY, ["throttled", "throttled", "throttled"]),
            (ffi::SQLITE_LOCKED, ["throttled", "throttled", "throttled"]),
            (ffi::SQLITE_PROTOCOL, ["throttled", "throttled", "throttled"]),
            (ffi::SQLITE_FULL, ["throttled", "throttled", "no answer"]),
            (ffi::SQLITE_IOERR, ["no answer", "throttled", "no answer"]),
            (ffi::SQLITE_IOERR_FSYNC, ["no answer", "throttled", "no answer"]),
            (ffi::SQLITE_NOMEM, ["throttled", "throttled", "no answer"]),
            (ffi::SQLITE_CANTOPEN, ["throttled", "throttled", "no answer"]),
            (ffi::SQLITE_INTERRUPT, ["throttled", "throttled", "no answer"]),
            (ffi::SQLITE_CONSTRAINT_DATATYPE, ["damaged", "refused", "refused"]),
            (ffi::SQLITE_TOOBIG, ["damaged", "refused", "refused"]),
            (ffi::SQLITE_READONLY, ["refused", "refused", "refused"]),
            (ffi::SQLITE_READONLY_DBMOVED, ["refused", "refused", "refused"]),
            (ffi::SQLITE_PERM, ["refused", "refused", "refused"]),
            (ffi::SQLITE_AUTH, ["refused", "refused", "refused"]),
            (ffi::SQLITE_CORRUPT, ["damaged", "damaged", "damaged"]),
            (ffi::SQLITE_NOTADB, ["damaged", "damaged", "damaged"]),
            (ffi::SQLITE_FORMAT, ["damaged", "damaged", "damaged"]),
            (ffi::SQLITE_ERROR, ["refused", "refused", "no answer"]),
            (ffi::SQLITE_SCHEMA, ["refused", "refused", "no answer"]),
        ];
        for (code, expected) in rows {
            let found = [Stage::Read, Stage::BeforeCommit, Stage::Commit].map(|stage| kind(code, stage));
            assert_eq!(found, expected, "code {code}");
        }
    }
}
