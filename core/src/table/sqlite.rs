//! The embedded table: `table.sqlite` in the store's folder, for several processes on one folder at once.
//!
//! ```text
//! items   pk TEXT · sk INTEGER · id BLOB(16) · time_ms INTEGER · body BLOB or NULL (stub) · hint TEXT
//!         PRIMARY KEY (pk, sk), WITHOUT ROWID, STRICT
//! header  application_id 0x54696465 ("Tide") · user_version 1
//! ```
//!
//! Two connections, each owned by a thread: one writes, one reads, so that a read never waits for an fsync. A request
//! is sent to the thread whole and runs to its end there: dropping the future never leaves half a transaction, and
//! one dropped while it still waits in the queue is not begun.
//!
//! **Durability.** Write-ahead log with `synchronous=FULL`: COMMIT writes the frames, syncs the log, and only then
//! makes them visible to other connections, so what is read here is on disk. The exception is a log that a killed
//! process left: its frames are recovered without a sync, so opening syncs the log itself. SQLite syncs the folder for
//! the log it creates; opening syncs it for the database file.
//!
//! **Read-only.** Where the file cannot be written it can still be read (`sqlite/read_only.rs`); writes are refused.
//!
//! **Replaced.** Connections go on with the file that they opened, also when another was moved to its name. After each
//! request the name is looked at again, so that nobody is answered from, or acked into, a file that is gone (R10).
//!
//! What each failure means for the caller is in `sqlite/errors.rs`, as a table.

mod errors;
mod open;
mod read_only;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::{mpsc, oneshot};

use super::{
    Answer, Consistency, Item, Page, Put, Table, TableError, TableResult, check_item, check_key, check_limit,
};
use crate::Result;
use crate::limits::{PAGE_BYTES, SQLITE_CLOSE_MS, SQLITE_QUEUE};
use errors::Stage;

/// Name of the database file in the store's folder.
pub const FILE: &str = "table.sqlite";

/// A table in a SQLite file.
#[derive(Debug)]
pub struct SqliteTable {
    /// Or the words why there is none.
    writer: Result<Worker<Connection>, String>,
    reader: Worker<Source>,
    opened: File,
}

/// What is read from.
enum Source {
    Connection(Connection),
    ReadOnly(PathBuf),
}

/// The database file, and which one it was when it was opened.
#[derive(Debug, Clone)]
struct File {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl SqliteTable {
    /// Opens the table in `folder`, which must exist; creates it if `create`. If it is there, cannot be written and need
    /// not be created, it is opened to be read. Blocks; needs no runtime.
    ///
    /// # Errors
    /// `CannotOpen` (absent, read-only, not a Tidelog table), `Newer`, `Damaged`, `Unavailable` (locked, disk full).
    pub fn open(folder: &Path, create: bool) -> Result<Self> {
        let path = folder.join(FILE);
        let opened = open::open(folder, &path, create)?;
        let cannot = |error: std::io::Error| open::cannot(folder, error.to_string());
        let (writer, source) = match opened {
            open::Opened::Writable(writer, reader) => {
                (Ok(Worker::start("tidelog-write", writer).map_err(cannot)?), Source::Connection(reader))
            }
            open::Opened::ReadOnly(words) => (Err(words), Source::ReadOnly(path.clone())),
        };
        let reader = Worker::start("tidelog-read", source).map_err(cannot)?;
        let identity = File::look(&path);
        Ok(Self { writer, reader, opened: File { path, identity } })
    }

    /// A read: one statement, or several that need not agree. May be run more than once.
    async fn read<T: Send + 'static>(
        &self,
        read: impl Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> TableResult<T> {
        let opened = self.opened.clone();
        let ask = move |source: &Source| {
            let answer = match source {
                Source::Connection(conn) => read(conn),
                Source::ReadOnly(path) => read_only::read(path, read),
            };
            opened.check(answer.map_err(|error| errors::map(error, Stage::Read)))
        };
        self.reader.ask(ask).await
    }

    /// A transaction that begins with the write lock, so that what it reads stays true until it commits.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> TableResult<T> {
        let opened = self.opened.clone();
        let writer = self.writer.as_ref().map_err(|words| TableError::Refused(words.clone()))?;
        writer.ask(move |conn| opened.check(transaction(conn, work))).await
    }
}

impl File {
    #[cfg(unix)]
    fn look(path: &Path) -> Option<(u64, u64)> {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
    }

    /// Elsewhere an open file cannot be replaced.
    #[cfg(not(unix))]
    fn look(_: &Path) -> Option<(u64, u64)> {
        None
    }

    /// Passes `answer` on if it was given by the file that has this name now.
    fn check<T>(&self, answer: Result<T, TableError>) -> Result<T, TableError> {
        if Self::look(&self.path) == self.identity {
            return answer;
        }
        let path = self.path.display();
        Err(TableError::Damaged(format!(
            "{path} was replaced or removed under this process: stop every process of a store before its folder is \
             changed by hand"
        )))
    }
}

fn transaction<T>(
    conn: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, TableError> {
    let run = |sql: &str| conn.prepare_cached(sql)?.execute([]).map(drop);
    // Left open only if an earlier ROLLBACK failed.
    if !conn.is_autocommit() {
        run("ROLLBACK").map_err(|error| errors::map(error, Stage::BeforeCommit))?;
    }
    run("BEGIN IMMEDIATE").map_err(|error| errors::map(error, Stage::BeforeCommit))?;
    let (error, stage) = match work(conn) {
        Ok(value) => match run("COMMIT") {
            Ok(()) => return Ok(value),
            Err(error) => (error, Stage::Commit),
        },
        Err(error) => (error, Stage::BeforeCommit),
    };
    // Many errors end the transaction by themselves, and then there is nothing to roll back.
    if !conn.is_autocommit()
        && let Err(rollback) = run("ROLLBACK")
    {
        tracing::warn!(%rollback, "a transaction could not be rolled back; the next request tries again");
    }
    Err(errors::map(error, stage))
}

const GET: &str = "SELECT sk, id, time_ms, body, hint FROM items WHERE pk = ?1 AND sk = ?2";
const NEWEST: &str =
    "SELECT sk, id, time_ms, body, hint FROM items WHERE pk = ?1 AND sk <= ?2 ORDER BY sk DESC LIMIT 1";
const RANGE: &str =
    "SELECT sk, id, time_ms, body, hint FROM items WHERE pk = ?1 AND sk >= ?2 ORDER BY sk LIMIT ?3";
const PUT: &str = "INSERT INTO items (pk, sk, id, time_ms, body, hint) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
                   ON CONFLICT DO NOTHING";
const REPLACE: &str = "UPDATE items SET id = ?3, time_ms = ?4, body = ?5, hint = ?6 \
                       WHERE pk = ?1 AND sk = ?2 AND id = ?7";
const DELETE: &str = "DELETE FROM items WHERE pk = ?1 AND sk = ?2 AND id = ?3";

fn item_of(row: &Row<'_>) -> rusqlite::Result<Item> {
    let id: [u8; 16] = row.get(1)?;
    let body: Option<Vec<u8>> = row.get(3)?;
    Ok(Item {
        sk: row.get(0)?,
        id: u128::from_be_bytes(id),
        time_ms: row.get(2)?,
        body: body.map(Bytes::from),
        hint: row.get(4)?,
    })
}

fn get(conn: &Connection, pk: &str, sk: u64) -> rusqlite::Result<Option<Item>> {
    conn.prepare_cached(GET)?.query_row(params![pk, sk], item_of).optional()
}

fn put_if_absent(conn: &Connection, pk: &str, item: &Item) -> rusqlite::Result<Put> {
    let id = item.id.to_be_bytes();
    let stored = conn.prepare_cached(PUT)?.execute(params![
        pk,
        item.sk,
        id,
        item.time_ms,
        item.body.as_deref(),
        item.hint
    ])?;
    if stored == 1 {
        return Ok(Put::Stored);
    }
    // Under the write lock: what refused the row is still there.
    get(conn, pk, item.sk)?.map(Put::Exists).ok_or(rusqlite::Error::QueryReturnedNoRows)
}

fn range(conn: &Connection, pk: &str, from: u64, limit: usize) -> rusqlite::Result<Page> {
    let mut page = Page { items: Vec::new(), more: false };
    let mut statement = conn.prepare_cached(RANGE)?;
    let mut rows = statement.query(params![pk, from, limit + 1])?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        if page.items.len() == limit {
            page.more = true;
            break;
        }
        let item = item_of(row)?;
        bytes += item.stored_bytes(pk);
        // A first item that is larger than a page was not put by us; it is shown rather than looped over.
        if bytes > PAGE_BYTES && !page.items.is_empty() {
            page.more = true;
            break;
        }
        page.items.push(item);
    }
    Ok(page)
}

#[async_trait]
impl Table for SqliteTable {
    fn name(&self) -> &str {
        "local"
    }

    async fn put_if_absent(&self, pk: &str, item: &Item) -> TableResult<Put> {
        check_item(pk, item)?;
        let (pk, item) = (pk.to_owned(), item.clone());
        self.write(move |conn| put_if_absent(conn, &pk, &item)).await
    }

    // Every read is a strong one: it begins at the last commit of any process.
    async fn get(&self, pk: &str, sk: u64, _: Consistency) -> TableResult<Option<Item>> {
        check_key(pk, sk)?;
        let pk = pk.to_owned();
        self.read(move |conn| get(conn, &pk, sk)).await
    }

    async fn newest(&self, pk: &str, to: u64, _: Consistency) -> TableResult<Option<Item>> {
        check_key(pk, to)?;
        let pk = pk.to_owned();
        self.read(move |conn| conn.prepare_cached(NEWEST)?.query_row(params![pk, to], item_of).optional())
            .await
    }

    async fn range(&self, pk: &str, from: u64, limit: usize, _: Consistency) -> TableResult<Page> {
        check_key(pk, from)?;
        let (pk, limit) = (pk.to_owned(), check_limit(limit)?);
        self.read(move |conn| range(conn, &pk, from, limit)).await
    }

    async fn replace_if(&self, pk: &str, item: &Item, expect: u128) -> TableResult<bool> {
        check_item(pk, item)?;
        let (pk, item) = (pk.to_owned(), item.clone());
        self.write(move |conn| {
            let (id, expect) = (item.id.to_be_bytes(), expect.to_be_bytes());
            let body = item.body.as_deref();
            let row = params![pk, item.sk, id, item.time_ms, body, item.hint, expect];
            Ok(conn.prepare_cached(REPLACE)?.execute(row)? == 1)
        })
        .await
    }

    async fn delete_if(&self, pk: &str, sk: u64, expect: u128) -> TableResult<bool> {
        check_key(pk, sk)?;
        let pk = pk.to_owned();
        let expect = expect.to_be_bytes();
        self.write(move |conn| Ok(conn.prepare_cached(DELETE)?.execute(params![pk, sk, expect])? == 1)).await
    }
}

type Job<S> = Box<dyn FnOnce(&S) + Send>;

/// A thread that owns a connection, and the way to ask it.
struct Worker<S> {
    /// `None` only while it is dropped.
    jobs: Option<mpsc::Sender<Job<S>>>,
    /// Disconnected when the connection is closed.
    closed: Mutex<Receiver<()>>,
}

/// Waits until the connection is closed. A process that ends before would leave SQLite's log behind, perhaps without its
/// index, and then nobody can open the database who may only read it.
impl<S> Drop for Worker<S> {
    fn drop(&mut self) {
        self.jobs = None;
        let closed = self.closed.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Nothing is ever sent.
        let _ = closed.recv_timeout(Duration::from_millis(SQLITE_CLOSE_MS));
    }
}

impl<S> std::fmt::Debug for Worker<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Worker")
    }
}

impl<S: Send + 'static> Worker<S> {
    /// The thread ends, and the connection closes, when the worker is dropped and what it was asked is done.
    fn start(name: &str, conn: S) -> std::io::Result<Self> {
        let (jobs, mut asked) = mpsc::channel::<Job<S>>(SQLITE_QUEUE);
        let (open, closed) = sync_channel(0);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(job) = asked.blocking_recv() {
                job(&conn);
            }
            drop(conn);
            drop(open);
        })?;
        Ok(Self { jobs: Some(jobs), closed: Mutex::new(closed) })
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&S) -> Result<T, TableError> + Send + 'static,
    ) -> TableResult<T> {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move |conn: &S| {
            if !answer.is_closed() {
                // Nobody may be waiting any more; what was done stays done.
                let _ = answer.send(work(conn));
            }
        });
        let stopped = "the table's thread has stopped; restart the process";
        let refused = || TableError::Refused(stopped.to_owned());
        let jobs = self.jobs.as_ref().ok_or_else(refused)?;
        jobs.send(job).await.map_err(|_| refused())?;
        let value = answered.await.map_err(|_| TableError::NoAnswer(stopped.to_owned()))??;
        Ok(Answer { value, store_time_ms: None })
    }
}
