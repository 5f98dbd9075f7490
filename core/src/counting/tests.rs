use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;

use super::*;
use crate::table::{MemoryTable, SK_MAX, contract};

fn item(sk: u64, body: usize) -> Item {
    Item { sk, id: 1, time_ms: 1, body: Some(Bytes::from(vec![1; body])), hint: String::new() }
}

#[tokio::test]
async fn table_requests_are_counted_in_the_units_that_are_billed() {
    let table = CountingTable::new(Arc::new(MemoryTable::new()));
    let overhead = item(1, 0).stored_bytes("p");
    table.put_if_absent("p", &item(1, 1024 - overhead)).await.unwrap();
    assert_eq!(table.counts(), TableCounts { puts: 1, write_units: 1, ..TableCounts::default() });
    table.put_if_absent("p", &item(2, 1025 - overhead)).await.unwrap();
    assert_eq!(table.counts().write_units, 3);

    let before = table.counts();
    table.put_if_absent("p", &item(2, 0)).await.unwrap();
    let expected = TableCounts { puts: 1, conflicts: 1, write_units: 2, ..TableCounts::default() };
    assert_eq!(table.counts().since(&before), expected);

    let before = table.counts();
    table.get("p", 9, Consistency::Strong).await.unwrap();
    table.newest("p", SK_MAX, Consistency::Eventual).await.unwrap();
    let expected = TableCounts { gets: 1, queries: 1, read_half_units: 3, ..TableCounts::default() };
    assert_eq!(table.counts().since(&before), expected);

    let before = table.counts();
    table.put_if_absent("q", &item(1, 4096)).await.unwrap();
    table.range("q", 0, 9, Consistency::Strong).await.unwrap();
    assert_eq!(table.counts().since(&before).read_half_units, 4);
    table.replace_if("q", &item(1, 0), 1).await.unwrap();
    table.delete_if("q", 1, 1).await.unwrap();
    assert_eq!(table.counts().since(&before).requests(), 4);
}

#[tokio::test]
async fn object_requests_are_counted() {
    let store = CountingStore::new(Arc::new(InMemory::new()));
    let path = Path::from("a/b");
    store.put(&path, vec![1; 10].into()).await.unwrap();
    store.get(&path).await.unwrap();
    store.get_range(&path, 2..5).await.unwrap();
    store.head(&path).await.unwrap();
    assert!(store.get(&Path::from("absent")).await.is_err());
    let counts = store.counts();
    let expected =
        ObjectCounts { puts: 1, gets: 3, heads: 1, bytes_put: 10, bytes_got: 13, ..ObjectCounts::default() };
    assert_eq!(counts, expected);
    store.list_with_delimiter(None).await.unwrap();
    store.delete(&path).await.unwrap();
    let expected = ObjectCounts { lists: 1, deletes: 1, ..ObjectCounts::default() };
    assert_eq!(store.counts().since(&counts), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn counting_changes_nothing() {
    let table: SharedTable = Arc::new(CountingTable::new(Arc::new(MemoryTable::new())));
    contract::check(&table, &table).await.unwrap();
}
