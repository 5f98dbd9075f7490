//! The adapter's own promises: several handles, reopening, locks, damage, and what it does to foreign files.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::Connection;

use super::*;
use crate::Error;
use crate::table::{SK_MAX, SharedTable, contract};

fn open(folder: &Path) -> SharedTable {
    Arc::new(SqliteTable::open(folder, true).unwrap())
}

/// A second, foreign hand on the same file.
fn raw(folder: &Path) -> Connection {
    Connection::open(folder.join(FILE)).unwrap()
}

fn item(sk: u64) -> Item {
    Item {
        sk,
        id: u128::MAX - u128::from(sk),
        time_ms: 5,
        body: Some(Bytes::from_static(b"body")),
        hint: "Append".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let table = open(folder.path());
    contract::check(&table, &table).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_handles_on_one_folder_keep_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (open(folder.path()), open(folder.path()));
    contract::check(&a, &b).await.unwrap();
    contract::check(&b, &a).await.unwrap();
}

#[tokio::test]
async fn items_survive_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let stub = Item { body: None, ..item(2) };
    for round in 0..3 {
        let table = open(folder.path());
        if round == 0 {
            table.put_if_absent("p", &item(1)).await.unwrap();
            table.put_if_absent("p", &stub).await.unwrap();
        }
        let page = table.range("p", 0, 9, Consistency::Strong).await.unwrap().value;
        assert_eq!(page.items, [item(1), stub.clone()]);
    }
    let table = SqliteTable::open(folder.path(), false).unwrap();
    assert_eq!(table.name(), "local");
}

#[tokio::test]
async fn the_log_is_write_ahead_and_synced_in_full() {
    let folder = tempfile::tempdir().unwrap();
    let table = SqliteTable::open(folder.path(), true).unwrap();
    let settings = |conn: &Connection| {
        let mode: String = conn.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
        let sync: i64 = conn.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
        Ok((mode, sync))
    };
    assert_eq!(table.write(settings).await.unwrap().value, ("wal".to_owned(), 2));
    let refused = table.read(|conn| conn.execute("DELETE FROM items", [])).await;
    assert!(matches!(refused, Err(TableError::Refused(_))), "the reading connection writes: {refused:?}");
}

#[test]
fn many_create_one_file_at_once() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let opened: Vec<_> =
                (0..8).map(|_| scope.spawn(|| SqliteTable::open(folder.path(), true))).collect();
            for table in opened {
                table.join().unwrap().unwrap();
            }
        });
    }
}

#[test]
fn an_absent_table_is_not_made_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let error = SqliteTable::open(folder.path(), false).unwrap_err();
    assert!(error.to_string().contains("tidelog init"), "{error}");
    assert!(!folder.path().join(FILE).exists());
    // What a process killed while creating leaves behind.
    fs::write(folder.path().join(FILE), b"").unwrap();
    let error = SqliteTable::open(folder.path(), false).unwrap_err();
    assert!(error.to_string().contains("never finished"), "{error}");
    SqliteTable::open(folder.path(), true).unwrap();
    SqliteTable::open(folder.path(), false).unwrap();
}

#[test]
fn a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteTable::open(folder.path(), true).unwrap());
    raw(folder.path()).pragma_update(None, "user_version", open::SCHEMA_VERSION + 1).unwrap();
    let error = SqliteTable::open(folder.path(), true).unwrap_err();
    assert!(matches!(error, Error::Newer { .. }), "{error}");
}

#[test]
fn foreign_files_are_refused_and_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    raw(folder.path()).execute_batch("CREATE TABLE photos (name TEXT)").unwrap();
    let before = fs::read(folder.path().join(FILE)).unwrap();
    let error = SqliteTable::open(folder.path(), true).unwrap_err();
    assert!(
        matches!(&error, Error::CannotOpen { reason, .. } if reason.contains("not a Tidelog")),
        "{error}"
    );
    assert_eq!(fs::read(folder.path().join(FILE)).unwrap(), before);

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(FILE), vec![b'x'; 8192]).unwrap();
    let error = SqliteTable::open(folder.path(), true).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_throttles_writes_but_not_reads() {
    let folder = tempfile::tempdir().unwrap();
    let table = open(folder.path());
    table.put_if_absent("p", &item(1)).await.unwrap();
    let other = raw(folder.path());
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answer = table.put_if_absent("p", &item(2)).await;
    assert!(matches!(answer, Err(TableError::Throttled(_))), "{answer:?}");
    let read = table.newest("p", SK_MAX, Consistency::Strong).await.unwrap().value;
    assert_eq!(read, Some(item(1)));
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(table.put_if_absent("p", &item(2)).await.unwrap().value, Put::Stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_put_is_done_whole_or_not_begun() {
    let folder = tempfile::tempdir().unwrap();
    let table = open(folder.path());
    let other = raw(folder.path());
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // The first waits for the lock in its thread, the second in the queue.
    for sk in [1, 2] {
        let late = item(sk);
        let put = table.put_if_absent("p", &late);
        let pause = crate::env::SystemEnv::shared().sleep(Duration::from_millis(50));
        assert!(matches!(futures::future::select(put, pause).await, futures::future::Either::Right(_)));
    }
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(table.put_if_absent("p", &item(3)).await.unwrap().value, Put::Stored);
    let page = table.range("p", 0, 9, Consistency::Strong).await.unwrap().value;
    assert_eq!(page.items, [item(1), item(3)]);
}

#[tokio::test]
async fn a_full_file_throttles_and_leaves_nothing_half_done() {
    let folder = tempfile::tempdir().unwrap();
    let table = SqliteTable::open(folder.path(), true).unwrap();
    table.put_if_absent("p", &item(1)).await.unwrap();
    let limit = |pages: i64| move |conn: &Connection| conn.pragma_update(None, "max_page_count", pages);
    table
        .writer
        .as_ref()
        .unwrap()
        .ask(move |conn| limit(4)(conn).map_err(|error| errors::map(error, Stage::Read)))
        .await
        .unwrap();
    let large = Item { body: Some(Bytes::from(vec![1; 300_000])), ..item(2) };
    let answer = table.put_if_absent("p", &large).await;
    assert!(matches!(&answer, Err(TableError::Throttled(words)) if words.contains("full")), "{answer:?}");
    assert_eq!(table.newest("p", SK_MAX, Consistency::Strong).await.unwrap().value, Some(item(1)));
    table
        .writer
        .as_ref()
        .unwrap()
        .ask(move |conn| limit(1 << 20)(conn).map_err(|error| errors::map(error, Stage::Read)))
        .await
        .unwrap();
    assert_eq!(table.put_if_absent("p", &large).await.unwrap().value, Put::Stored);
}

#[tokio::test]
async fn rows_that_no_tidelog_wrote_are_damage() {
    let folder = tempfile::tempdir().unwrap();
    let table = open(folder.path());
    let row = "INSERT INTO items VALUES ('p', ?1, zeroblob(16), 0, zeroblob(?2), cast(? as text))";
    let other = raw(folder.path());
    other.execute(row, rusqlite::params![1, 2 << 20, b"x"]).unwrap();
    other.execute(row, rusqlite::params![2, 1, &[0xffu8, 0xfe][..]]).unwrap();
    for sk in [1, 2] {
        let answer = table.get("p", sk, Consistency::Strong).await;
        assert!(matches!(answer, Err(TableError::Damaged(_))), "{sk}: {answer:?}");
    }
    assert!(table.get("p", 3, Consistency::Strong).await.unwrap().value.is_none());
}

#[tokio::test]
async fn flipped_pages_are_damage_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let table = open(folder.path());
    for sk in 0..200 {
        table.put_if_absent("p", &item(sk)).await.unwrap();
    }
    raw(folder.path()).query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(table);
    let path = folder.path().join(FILE);
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096..].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let seen = match SqliteTable::open(folder.path(), false) {
        Ok(table) => {
            table.newest("p", SK_MAX, Consistency::Strong).await.unwrap_err().into_error("reading", "local")
        }
        Err(error) => error,
    };
    assert!(matches!(seen, Error::Damaged { .. }), "{seen}");
}
