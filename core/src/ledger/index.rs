//! Index rows: where merged records are. One a range of a fold, in the same table as the chain.
//!
//! ```text
//! pk     era/topic id/partition · sk = base of the fold's range
//! id     hop << 64 | number of the fold or rewrite          a greater one wins, however late a smaller one comes
//! body   u8 version = 1 · list(L1 object), one · list(L1 range), one (· list(uint bytes running), one) · 8 checksum
//! time   0, or since when trim has known that nobody needs it, ms
//! ```
//! Rows only repeat what a commit said: anyone may write them again, from the view, until `Indexed` says that they are
//! all there (R4).

use std::sync::Arc;

use bytes::Bytes;

use super::action::{L1Object, L1Range, ObjectRef};
use super::chain::Chain;
use super::codec::{checksum, read_bytes_running, read_l1, write_bytes_running, write_l1};
use super::wire::{Reader, Writer};
use crate::error::{Error, Result};
use crate::limits;
use crate::objects::{ObjectName, Ulid};
use crate::plant::{self, Bug};
use crate::record::{Offset, TopicId};
use crate::table::{Consistency, Item, Put};

/// Version of row bodies that this release writes.
const ROW_VERSION: u8 = 1;
/// What rows are called in an item's hint.
const HINT: &str = "row";

/// Records of one partition in one merged segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexRow {
    /// Number of the fold or rewrite that put them there.
    pub number: u64,
    /// The segment.
    pub object: L1Object,
    /// The records.
    pub range: L1Range,
}

/// An index row as the table holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredRow {
    /// Its sort key: the base of the fold's range.
    pub sk: u64,
    /// Since when trim has known that nobody needs it, ms; 0: somebody does.
    pub trimmed_ms: i64,
    /// What it says.
    pub row: IndexRow,
}

/// A partition's rows in order, page by page; small pages first, since whoever reads often needs few.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowPages {
    topic: TopicId,
    partition: u32,
    /// Where the next page begins.
    from: Option<u64>,
    /// Most rows of it.
    limit: usize,
}

impl RowPages {
    /// From this sort key on.
    pub(crate) fn new(topic: TopicId, partition: u32, from: u64) -> Self {
        Self { topic, partition, from: Some(from), limit: limits::ROWS_FIRST_PAGE }
    }
}

impl L1Object {
    /// Its name, in the topic called `topic`.
    pub fn name(&self, topic: &str) -> ObjectName {
        self.object.l1_name(topic, self.topic, self.hour)
    }
}

impl ObjectRef {
    /// Its name as a merged segment of this topic and hour.
    pub fn l1_name(&self, topic: &str, id: TopicId, hour: u32) -> ObjectName {
        let Self { era, ledger, drawn, ulid } = *self;
        ObjectName::L1 { topic: topic.into(), id, hour, era, ledger, drawn, ulid: Ulid(ulid) }
    }
}

impl IndexRow {
    /// Its partition key.
    pub fn pk(era: u16, topic: TopicId, partition: u32) -> String {
        format!("{era:04x}/{topic}/{partition}")
    }

    /// Whether it holds `offset`.
    pub fn covers(&self, offset: Offset) -> bool {
        (self.range.base..self.range.end).contains(&offset)
    }

    /// Hops are moves between ledgers: none yet.
    fn id(&self) -> u128 {
        u128::from(self.number)
    }

    /// The item under `sk`; `trimmed_ms`: since when nobody needs it, 0 for a row that somebody does.
    pub fn item(&self, sk: u64, trimmed_ms: i64) -> Item {
        let range = L1Range { object: 0, ..self.range };
        let mut out = Writer::default();
        out.u8(ROW_VERSION);
        write_l1(&mut out, std::slice::from_ref(&self.object), std::slice::from_ref(&range));
        write_bytes_running(&mut out, std::slice::from_ref(&range));
        out.u64(checksum(sk, self.id(), out.as_slice()));
        let body = Some(out.into_bytes());
        Item { sk, id: self.id(), time_ms: trimmed_ms, body, hint: HINT.to_owned() }
    }

    /// Reads the row found under `topic` and `partition`.
    ///
    /// # Errors
    /// `Newer`: a newer version wrote it. Else `Damaged`.
    pub fn read(topic: TopicId, partition: u32, item: &Item) -> Result<Self> {
        let what = format!("index row {topic}/{partition} at {}", item.sk);
        let body: &Bytes = item.body.as_ref().ok_or_else(|| Error::damaged(what.clone(), "has no body"))?;
        if body.len() > limits::ROW_ITEM_BYTES_MAX || body.len() < 9 {
            return Err(Error::damaged(what, format!("{} bytes long", body.len())));
        }
        if body[0] != ROW_VERSION {
            return Err(Error::Newer {
                what: format!("{what} has version {}, known are up to {ROW_VERSION}", body[0]),
            });
        }
        let (bytes, sum) = (body.slice(..body.len() - 8), body.slice(body.len() - 8..));
        if sum[..] != checksum(item.sk, item.id, &bytes).to_be_bytes() {
            return Err(Error::damaged(what, "the checksum differs"));
        }
        let mut from = Reader::new(&what, &bytes);
        from.u8()?;
        let (objects, mut ranges) = read_l1(&mut from)?;
        read_bytes_running(&mut from, &mut ranges)?;
        from.end()?;
        let ([object], [range]) = (&objects[..], &ranges[..]) else {
            return Err(Error::damaged(what, "is not about one range of one object"));
        };
        if (object.topic, range.partition) != (topic, partition) || item.id >> 64 != 0 {
            return Err(Error::damaged(what, "is about another partition"));
        }
        Ok(Self { number: item.id as u64, object: object.clone(), range: *range })
    }
}

/// Reads once more where the first answer is damaged: perhaps only the answer is, and not the row.
async fn undamaged<T, Read: Future<Output = Result<T>>>(read: impl Fn() -> Read) -> Result<T> {
    match read().await {
        Err(error @ (Error::Damaged { .. } | Error::Newer { .. })) => {
            tracing::debug!(%error, "an index row was read damaged: reading it again");
            read().await
        }
        answer => answer,
    }
}

impl Chain {
    /// The row that holds `offset`, if there is one: the one with the greatest base up to it.
    pub(crate) async fn row_at(
        &self,
        topic: TopicId,
        partition: u32,
        offset: Offset,
        consistency: Consistency,
    ) -> Result<Option<IndexRow>> {
        let pk = IndexRow::pk(self.era, topic, partition);
        undamaged(|| async {
            let found = self.timed(self.table.newest(&pk, offset, consistency)).await;
            let found = self.note(found, "reading the index")?;
            found.map(|item| IndexRow::read(topic, partition, &item)).transpose()
        })
        .await
    }

    /// The next page of rows; `None`: there is none.
    pub(crate) async fn next_rows(&self, pages: &mut RowPages) -> Result<Option<Vec<StoredRow>>> {
        let RowPages { topic, partition, from: Some(from), limit } = *pages else { return Ok(None) };
        let pk = IndexRow::pk(self.era, topic, partition);
        let (rows, next) = undamaged(|| async {
            let page = self.timed(self.table.range(&pk, from, limit, Consistency::Strong)).await;
            let page = self.note(page, "reading the index")?;
            let next = page.items.last().filter(|_| page.more).map(|last| last.sk + 1);
            let row = |item: &Item| {
                let row = IndexRow::read(topic, partition, item)?;
                Ok(StoredRow { sk: item.sk, trimmed_ms: item.time_ms, row })
            };
            Ok((page.items.iter().map(row).collect::<Result<_>>()?, next))
        })
        .await?;
        *pages = RowPages { from: next, limit: (limit * 8).min(limits::PAGE_ITEMS), ..*pages };
        Ok(Some(rows))
    }

    /// Notes since when nobody needs a row, unless it is another's by now. `false`: it is.
    pub(crate) async fn mark_row(&self, stored: &StoredRow, trimmed_ms: i64) -> Result<bool> {
        let pk = IndexRow::pk(self.era, stored.row.object.topic, stored.row.range.partition);
        let item = stored.row.item(stored.sk, trimmed_ms);
        let marked = self.timed(self.table.replace_if(&pk, &item, item.id)).await;
        self.note(marked, "marking an index row")
    }

    /// Deletes a row, unless it is another's by now: one that was written late, or overwritten, is not the one read.
    pub(crate) async fn delete_row(&self, stored: &StoredRow) -> Result<bool> {
        let pk = IndexRow::pk(self.era, stored.row.object.topic, stored.row.range.partition);
        let mut expect = stored.row.id();
        if plant::on(Bug::RowDeletedUnasked) {
            let there = self.timed(self.table.get(&pk, stored.sk, Consistency::Strong)).await;
            expect = self.note(there, "reading an index row")?.map_or(expect, |there| there.id);
        }
        let deleted = self.timed(self.table.delete_if(&pk, stored.sk, expect)).await;
        self.note(deleted, "deleting an index row")
    }

    /// Writes the rows of a fold or rewrite: one for the range, and over every one that the index has for it. Answers how
    /// many it wrote.
    pub(crate) async fn write_rows(&self, row: &IndexRow, rewrite: bool) -> Result<u64> {
        if !rewrite {
            self.write_row(row.range.base, row, None).await?;
            return Ok(1);
        }
        // All of them were written before the rewrite, and each holds an offset that a reader may come with. Those that are
        // gone were trimmed.
        let mut written = 0;
        let mut pages = RowPages::new(row.object.topic, row.range.partition, row.range.base);
        'rows: while let Some(rows) = self.next_rows(&mut pages).await? {
            for there in rows {
                if there.sk >= row.range.end {
                    break 'rows;
                }
                if there.row.number < row.number {
                    self.write_row(there.sk, row, Some(there.row.id())).await?;
                    written += 1;
                }
            }
        }
        Ok(written)
    }

    /// Writes a row under `sk`, unless the one there is of the same fold or a later one. Late, twice or never is the same.
    /// `known`: the id of what was there a moment ago.
    async fn write_row(&self, sk: u64, row: &IndexRow, mut known: Option<u128>) -> Result<()> {
        let pk = IndexRow::pk(self.era, row.object.topic, row.range.partition);
        let item = row.item(sk, 0);
        let mut last = None;
        for attempt in 0..limits::ROW_ATTEMPTS_MAX {
            if attempt > 0 {
                self.pause(attempt).await;
            }
            let there = match known.take() {
                Some(id) => id,
                None => {
                    // No answer: whatever came of it, the next attempt finds it.
                    let put = self.timed(self.table.put_if_absent(&pk, &item)).await;
                    match self.note(put, "writing the index") {
                        Ok(Put::Stored) => return Ok(()),
                        Ok(Put::Exists(there)) => there.id,
                        Err(error) => {
                            last = Some(error);
                            continue;
                        }
                    }
                }
            };
            if there >= item.id && !plant::on(Bug::OlderRowWins) || there == item.id {
                return Ok(());
            }
            let replaced = self.timed(self.table.replace_if(&pk, &item, there)).await;
            match self.note(replaced, "writing the index") {
                Ok(true) => return Ok(()),
                // Somebody was faster.
                Ok(false) => {}
                Err(error) => last = Some(error),
            }
        }
        let busy = || Error::Unavailable { what: "writing the index", cause: "others write it, too".into() };
        Err(last.unwrap_or_else(busy))
    }
}

/// Rows shared by whoever reads them.
pub(crate) type SharedRow = Arc<IndexRow>;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::Log;
    use crate::env::SystemEnv;
    use crate::ledger::Settings;
    use crate::ledger::action::ObjectRef;
    use crate::record::RecordSum;
    use crate::segment::Span;
    use crate::store::Store;
    use crate::table::{Page, SharedTable, Table, TableResult};

    const TOPIC: TopicId = TopicId(0x77);

    fn row() -> IndexRow {
        counted(0)
    }

    fn counted(bytes_running: u64) -> IndexRow {
        let object = ObjectRef { era: 1, ledger: 0, drawn: 8, ulid: 0x0123_4567_89ab_cdef };
        let footer = Span { position: 4_000_000_000, length: 1_000, crc: 0xdead_beef };
        let range = L1Range {
            object: 0,
            partition: 3,
            base: 100,
            end: 4_100,
            rows: 4_000,
            groups: (2, 5),
            append_ms: (1_766_000_000_000, 1_766_000_003_000),
            time_us_max: -1,
            bytes_running,
            sum: RecordSum { hashes: 1 << 127, places: u128::MAX },
        };
        IndexRow { number: 9, object: L1Object { object, hour: 490_555, topic: TOPIC, footer }, range }
    }

    #[test]
    fn golden_rows_are_read_and_written_for_ever() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/v1");
        // RFC 0003: with the bytes of merged records, and as it was before.
        for (name, row) in [("index.row", row()), ("index-counted.row", counted(70_000))] {
            let (path, item) = (folder.join(name), row.item(100, 0));
            if std::env::var_os("TIDELOG_BLESS").is_some() {
                std::fs::write(&path, item.body.as_ref().unwrap()).unwrap();
            }
            let body = Some(std::fs::read(path).unwrap().into());
            assert_eq!(IndexRow::read(TOPIC, 3, &Item { body: body.clone(), ..item.clone() }).unwrap(), row);
            assert_eq!(item.body, body, "{name} changed: that is a change of format");
        }
    }

    /// Flips a bit of every row in its next answers, as many as told.
    #[derive(Debug)]
    struct Flipping {
        table: SharedTable,
        answers: Mutex<u32>,
        /// Which bit of the body.
        bit: usize,
    }

    impl Flipping {
        fn flip<'a>(&self, pk: &str, items: impl IntoIterator<Item = &'a mut Item>) {
            let mut answers = self.answers.lock().unwrap();
            if *answers == 0 || !pk.contains(&TOPIC.to_string()) {
                return;
            }
            *answers -= 1;
            for item in items {
                let mut body = item.body.take().unwrap().to_vec();
                body[self.bit / 8] ^= 1 << (self.bit % 8);
                item.body = Some(body.into());
            }
        }
    }

    #[async_trait]
    impl Table for Flipping {
        fn name(&self) -> &str {
            self.table.name()
        }
        async fn put_if_absent(&self, pk: &str, item: &Item) -> TableResult<Put> {
            self.table.put_if_absent(pk, item).await
        }
        async fn get(&self, pk: &str, sk: u64, consistency: Consistency) -> TableResult<Option<Item>> {
            self.table.get(pk, sk, consistency).await
        }
        async fn newest(&self, pk: &str, to: u64, consistency: Consistency) -> TableResult<Option<Item>> {
            let mut found = self.table.newest(pk, to, consistency).await?;
            self.flip(pk, &mut found.value);
            Ok(found)
        }
        async fn range(
            &self,
            pk: &str,
            from: u64,
            limit: usize,
            consistency: Consistency,
        ) -> TableResult<Page> {
            let mut page = self.table.range(pk, from, limit, consistency).await?;
            self.flip(pk, &mut page.value.items);
            Ok(page)
        }
        async fn replace_if(&self, pk: &str, item: &Item, expect: u128) -> TableResult<bool> {
            self.table.replace_if(pk, item, expect).await
        }
        async fn delete_if(&self, pk: &str, sk: u64, expect: u128) -> TableResult<bool> {
            self.table.delete_if(pk, sk, expect).await
        }
    }

    /// What a reader of one row, and one of a page, hear when so many answers are damaged.
    async fn heard(answers: u32, bit: usize) -> [Result<IndexRow>; 2] {
        let env = SystemEnv::shared();
        let mut store = Store::memory(env.clone());
        let table = Arc::new(Flipping { table: store.table.clone(), answers: Mutex::new(0), bit });
        store.table = table.clone();
        let log = Log::with_store(store, env, true, Settings::default()).await.unwrap();
        let chain = &log.ledger().chain;
        chain.write_rows(&row(), false).await.unwrap();
        *table.answers.lock().unwrap() = answers;
        let one = chain.row_at(TOPIC, 3, 200, Consistency::Strong).await;
        *table.answers.lock().unwrap() = answers;
        let page = chain.next_rows(&mut RowPages::new(TOPIC, 3, 0)).await;
        [one.map(Option::unwrap), page.map(|rows| rows.unwrap().remove(0).row)]
    }

    #[tokio::test]
    async fn one_damaged_answer_is_no_damage_and_two_are() {
        // The version, and what the checksum covers.
        for bit in [1, 100] {
            heard(1, bit).await.into_iter().for_each(|heard| assert_eq!(heard.unwrap(), row()));
            for heard in heard(2, bit).await {
                let error = heard.unwrap_err();
                assert!(matches!(error, Error::Damaged { .. } | Error::Newer { .. }), "{error}");
            }
        }
    }
}
