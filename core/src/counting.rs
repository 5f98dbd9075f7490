//! Counts requests and bytes, and what DynamoDB would bill for: wrappers around both ports, for metrics, budgets and the
//! demo's cost line. A request is counted when it is made, whatever its answer.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult, UploadPart,
};

use crate::table::{Consistency, Item, Page, Put, SharedTable, Table, TableResult};

/// A set of counters, and the plain numbers that they are read as.
macro_rules! counters {
    ($(#[$about:meta])* $counts:ident, $counters:ident { $($(#[$doc:meta])* $field:ident,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct $counts { $($(#[$doc])* pub $field: u64,)+ }

        impl $counts {
            /// What has been added since `earlier`.
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($field: self.$field.saturating_sub(earlier.$field),)+ }
            }
        }

        #[derive(Debug, Default)]
        struct $counters { $($field: AtomicU64,)+ }

        impl $counters {
            fn read(&self) -> $counts {
                $counts { $($field: self.$field.load(Relaxed),)+ }
            }
        }
    };
}

counters! {
    /// Requests to an object store.
    ObjectCounts, ObjectCounters {
        /// Puts. A multipart upload is one when it begins, one for each part and one when it is completed, as a store bills it.
        puts,
        /// Gets of bytes.
        gets,
        /// Gets of the metadata alone.
        heads,
        /// Listings begun (a store bills each page of 1,000 names).
        lists,
        /// Deletions begun (one stream is one).
        deletes,
        /// Copies.
        copies,
        /// Bytes put.
        bytes_put,
        /// Bytes that gets were answered with.
        bytes_got,
    }
}

counters! {
    /// Requests to the metadata table, and the units that DynamoDB would bill.
    TableCounts, TableCounters {
        /// Puts if absent.
        puts,
        /// Of these, the ones that found something there.
        conflicts,
        /// Point reads.
        gets,
        /// Queries: the newest item, or a range.
        queries,
        /// Replacements on condition.
        replaces,
        /// Deletions on condition.
        deletes,
        /// Write units: 1 KiB each, rounded up by item; a failed condition is billed like a write.
        write_units,
        /// Half read units: a strong read is billed two for each 4 KiB, an eventual one one.
        read_half_units,
    }
}

impl ObjectCounts {
    /// Requests of any kind.
    pub fn requests(&self) -> u64 {
        self.puts + self.gets + self.heads + self.lists + self.deletes + self.copies
    }
}

impl TableCounts {
    /// Requests of any kind.
    pub fn requests(&self) -> u64 {
        self.puts + self.gets + self.queries + self.replaces + self.deletes
    }
}

fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Relaxed);
}

/// An object store that counts.
#[derive(Debug, Clone)]
pub struct CountingStore {
    inner: Arc<dyn ObjectStore>,
    counters: Arc<ObjectCounters>,
}

impl CountingStore {
    /// Counts what passes to `inner`. Clones share their counters.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, counters: Arc::default() }
    }

    /// The counts so far.
    pub fn counts(&self) -> ObjectCounts {
        self.counters.read()
    }
}

impl fmt::Display for CountingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.inner)
    }
}

/// An upload that counts.
#[derive(Debug)]
struct CountingUpload {
    inner: Box<dyn MultipartUpload>,
    counters: Arc<ObjectCounters>,
}

#[async_trait]
impl MultipartUpload for CountingUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        add(&self.counters.puts, 1);
        add(&self.counters.bytes_put, data.content_length());
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        add(&self.counters.puts, 1);
        self.inner.complete().await
    }

    async fn abort(&mut self) -> StoreResult<()> {
        add(&self.counters.deletes, 1);
        self.inner.abort().await
    }
}

#[async_trait]
impl ObjectStore for CountingStore {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        add(&self.counters.puts, 1);
        add(&self.counters.bytes_put, payload.content_length());
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        add(&self.counters.puts, 1);
        let inner = self.inner.put_multipart_opts(path, options).await?;
        Ok(Box::new(CountingUpload { inner, counters: self.counters.clone() }))
    }

    // `get_ranges` keeps its default, which comes here once a request.
    async fn get_opts(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
        let head = options.head;
        add(if head { &self.counters.heads } else { &self.counters.gets }, 1);
        let found = self.inner.get_opts(path, options).await?;
        if !head {
            let bytes = found.range.end.saturating_sub(found.range.start);
            self.counters.bytes_got.fetch_add(bytes, Relaxed);
        }
        Ok(found)
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        add(&self.counters.deletes, 1);
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        add(&self.counters.lists, 1);
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        add(&self.counters.lists, 1);
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        add(&self.counters.lists, 1);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        add(&self.counters.copies, 1);
        self.inner.copy_opts(from, to, options).await
    }
}

/// A table that counts.
#[derive(Debug, Clone)]
pub struct CountingTable {
    inner: SharedTable,
    counters: Arc<TableCounters>,
}

impl CountingTable {
    /// Counts what passes to `inner`. Clones share their counters.
    pub fn new(inner: SharedTable) -> Self {
        Self { inner, counters: Arc::default() }
    }

    /// The counts so far.
    pub fn counts(&self) -> TableCounts {
        self.counters.read()
    }

    fn wrote(&self, bytes: usize) {
        const WRITE_UNIT: usize = 1 << 10;
        add(&self.counters.write_units, bytes.div_ceil(WRITE_UNIT).max(1));
    }

    fn read(&self, bytes: usize, consistency: Consistency) {
        const READ_UNIT: usize = 4 << 10;
        let halves = if consistency == Consistency::Strong { 2 } else { 1 };
        add(&self.counters.read_half_units, bytes.div_ceil(READ_UNIT).max(1) * halves);
    }
}

#[async_trait]
impl Table for CountingTable {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn put_if_absent(&self, pk: &str, item: &Item) -> TableResult<Put> {
        add(&self.counters.puts, 1);
        let answer = self.inner.put_if_absent(pk, item).await;
        let mut bytes = item.stored_bytes(pk);
        if let Ok(answer) = &answer
            && let Put::Exists(there) = &answer.value
        {
            add(&self.counters.conflicts, 1);
            bytes = bytes.max(there.stored_bytes(pk));
        }
        self.wrote(bytes);
        answer
    }

    async fn get(&self, pk: &str, sk: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        add(&self.counters.gets, 1);
        let answer = self.inner.get(pk, sk, consistency).await;
        let found = answer.as_ref().ok().and_then(|answer| answer.value.as_ref());
        self.read(found.map_or(0, |item| item.stored_bytes(pk)), consistency);
        answer
    }

    async fn newest(&self, pk: &str, to: u64, consistency: Consistency) -> TableResult<Option<Item>> {
        add(&self.counters.queries, 1);
        let answer = self.inner.newest(pk, to, consistency).await;
        let found = answer.as_ref().ok().and_then(|answer| answer.value.as_ref());
        self.read(found.map_or(0, |item| item.stored_bytes(pk)), consistency);
        answer
    }

    async fn range(&self, pk: &str, from: u64, limit: usize, consistency: Consistency) -> TableResult<Page> {
        add(&self.counters.queries, 1);
        let answer = self.inner.range(pk, from, limit, consistency).await;
        let items = answer.as_ref().map_or(&[][..], |answer| &answer.value.items);
        self.read(items.iter().map(|item| item.stored_bytes(pk)).sum(), consistency);
        answer
    }

    async fn replace_if(&self, pk: &str, item: &Item, expect: u128) -> TableResult<bool> {
        add(&self.counters.replaces, 1);
        // The larger of old and new is billed; the old one is not seen here.
        self.wrote(item.stored_bytes(pk));
        self.inner.replace_if(pk, item, expect).await
    }

    async fn delete_if(&self, pk: &str, sk: u64, expect: u128) -> TableResult<bool> {
        add(&self.counters.deletes, 1);
        // The size of what is deleted is billed, and is not seen here.
        self.wrote(0);
        self.inner.delete_if(pk, sk, expect).await
    }
}
