//! Objects: immutable bytes under names that are used once (L5), over any [`ObjectStore`].
//!
//! ```text
//! l0/<era>/<ledger>/<drawn>/<ulid>.parquet     a segment as a flush wrote it
//! topics/<topic>/<topic id>/date=<date>/hour=<hour>/<era>.<ledger>.<drawn>.<ulid>.parquet     what merge made of many
//! ckpt/<era>/<ledger>/<at>/<ulid>              a checkpoint
//! probe/<ulid>                                 left by `init`, which tried whether the store holds its promises
//! ```
//!
//! Era and ledger are 4 hex digits, `drawn` and `at` (commit numbers) 16; date and hour (UTC) are those of the append. [`Objects`] answers a put only when the object
//! is durable, and a get only with as many bytes as were asked for; it never overwrites. Only sweep lists and deletes (L5,
//! L6).

mod answer;
mod attempts;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod folder;
mod hedge;
mod name;
#[cfg(test)]
pub(crate) mod tests;
mod upload;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::{Either, select};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt, pin_mut};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, Error as StoreError, GetOptions, GetResult, GetResultPayload, ObjectMeta,
    ObjectStore, PutMode, PutOptions, PutPayload, memory::InMemory,
};
use xxhash_rust::xxh3::Xxh3;

use crate::env::SharedEnv;
use crate::limits::{OBJECT_ATTEMPTS_MAX, OBJECT_OUTAGE_MS};
use crate::plant::{self, Bug};
use crate::{Error, Result};
pub use answer::Answer;
use answer::Verdict;
use attempts::Attempt;
use folder::Folder;
pub use folder::Half;
use hedge::Hedge;
pub use name::{ObjectName, Ulid};
pub(crate) use upload::Upload;

/// The metadata of an object (`x-amz-meta-…`) that holds the xxh3-128 of its bytes, 32 hex digits: a HEAD tells whose
/// they are.
const SUM: &str = "tidelog-xxh3";

/// A store of objects.
#[derive(Debug, Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    env: SharedEnv,
    folder: Option<Arc<Folder>>,
    /// Only behind a network.
    hedge: Option<Arc<Hedge>>,
}

impl Objects {
    /// Objects in any store, which answers a put only when the object is durable.
    pub fn new(store: Arc<dyn ObjectStore>, env: SharedEnv) -> Self {
        Self { store, env, folder: None, hedge: None }
    }

    /// Objects in a store behind a network, which keeps metadata with objects (S3 and what speaks its language). Attempts
    /// are given up sooner, a put without an answer is settled by metadata, slow GETs are asked twice.
    pub fn remote(store: Arc<dyn ObjectStore>, env: SharedEnv) -> Self {
        Self { store, env, folder: None, hedge: Some(Arc::default()) }
    }

    /// Objects in memory.
    pub fn memory(env: SharedEnv) -> Self {
        Self::new(Arc::new(InMemory::new()), env)
    }

    /// Objects in the folder `path`, which must exist. Each put syncs the file and the folders above it.
    ///
    /// # Errors
    /// `CannotOpen`.
    pub fn folder(path: &FilePath, env: SharedEnv) -> Result<Self> {
        let (folder, store) = Folder::open(path)?;
        Ok(Self { store: Arc::new(store), env, folder: Some(Arc::new(folder)), hedge: None })
    }

    /// The same objects, each request passing through `wrap`: a counter, or a fault.
    pub fn wrapped(mut self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        self.store = wrap(self.store);
        self
    }

    /// The store itself, for tools and tests. The read path neither lists nor deletes (L6).
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// GETs that were asked twice because the first was slow.
    pub fn hedged(&self) -> u64 {
        self.hedge.as_ref().map_or(0, |hedge| hedge.sent())
    }

    /// Puts a new object. When it answers, the object is durable and complete; if it does not, the object may be
    /// there, may appear later, or never: an orphan, whose name is not used again.
    ///
    /// # Errors
    /// `NameReused`: other bytes are under this name. `CannotOpen`: no right to write. `Unavailable`: all else.
    pub async fn put_new(&self, name: &ObjectName, bytes: impl Into<PutPayload>) -> Result<()> {
        let bytes = bytes.into();
        if let Some(folder) = &self.folder {
            folder.prepare(name).await?;
        }
        // Only a store behind a network keeps it.
        let mut sum = Xxh3::new();
        if self.hedge.is_some() {
            bytes.iter().for_each(|part| sum.update(part));
        }
        let sum = format!("{:032x}", sum.digest128());
        let (bytes, sum) = (&bytes, sum.as_str());
        // Boxed, as below: the futures of callers would else nest deeper than the compiler follows.
        let attempt = |tries| self.try_put(name, bytes, sum, tries).boxed();
        self.repeat_for(OBJECT_OUTAGE_MS, "putting an object", attempt).await
    }

    async fn try_put(&self, name: &ObjectName, bytes: &PutPayload, sum: &str, tries: u32) -> Attempt<()> {
        let mode = if plant::on(Bug::NameReused) { PutMode::Overwrite } else { PutMode::Create };
        let mut options = PutOptions::from(mode);
        if self.hedge.is_some() {
            let sum = (Attribute::Metadata(SUM.into()), sum.to_owned());
            options.attributes = Attributes::from_iter([sum]);
        }
        let path = name.path();
        let put = self.store.put_opts(&path, bytes.clone(), options);
        let (outcome, denied) =
            match self.timed(self.patience(tries, bytes.content_length() as u64), put).await {
                Ok(Ok(_)) => return Attempt::Done(()),
                // Of an earlier attempt without an answer.
                Ok(Err(StoreError::AlreadyExists { .. })) => return self.own(name, bytes, sum, tries).await,
                Ok(Err(error)) => {
                    let answer = Answer::of(&error);
                    let conflict = answer.is_some_and(|answer| answer.verdict() == Verdict::Conflict);
                    if conflict && plant::on(Bug::ConflictTakenForExists) {
                        return Attempt::Done(());
                    }
                    (self.judge(&error), answer.is_some_and(Answer::denies))
                }
                Err(timeout) => (Attempt::Again(timeout), false),
            };
        if denied || self.hedge.is_none() || matches!(outcome, Attempt::Failed(_)) {
            return outcome;
        }
        // It may have landed: a look is cheaper than sending the bytes again, and no put is repeated blindly (L3).
        match self.own(name, bytes, sum, tries).await {
            Attempt::Again(_) | Attempt::Throttled(_) => outcome,
            settled => settled,
        }
    }

    /// Whether the name is ours: if it holds our bytes, which nobody else can have put under a random name. `Again`:
    /// nothing is there (yet).
    async fn own(&self, name: &ObjectName, bytes: &PutPayload, sum: &str, tries: u32) -> Attempt<()> {
        let found = match self.same(name, bytes, sum, tries).await {
            Attempt::Done(found) => found,
            other => return other.map(drop),
        };
        match found {
            None => Attempt::Again("nothing is under the name".to_owned()),
            Some(Err(size)) => Attempt::Failed(Error::NameReused {
                name: name.to_string(),
                ours: bytes.content_length() as u64,
                found: size,
            }),
            // The attempt that wrote it was not answered, so nothing says that it is on disk.
            Some(Ok(())) => match &self.folder {
                Some(folder) => folder.sync(name).await.map_or_else(Attempt::Failed, Attempt::Done),
                None => Attempt::Done(()),
            },
        }
    }

    /// Compares what is under the name with ours, by length and sum where the store keeps the sum, else by the bytes;
    /// the error is the size of what is there.
    async fn same(
        &self,
        name: &ObjectName,
        bytes: &PutPayload,
        sum: &str,
        tries: u32,
    ) -> Attempt<Option<Result<(), u64>>> {
        if self.hedge.is_some() {
            let found = match self.try_head(name, tries).await {
                Attempt::Done(Some(found)) => found,
                other => return other.map(|_| None),
            };
            let size = found.meta.size;
            if size != bytes.content_length() as u64 {
                return Attempt::Done(Some(Err(size)));
            }
            if let Some(there) = found.attributes.get(&Attribute::Metadata(SUM.into())) {
                return Attempt::Done(Some(if **there == *sum { Ok(()) } else { Err(size) }));
            }
        }
        let mut there = self.try_get(name, None, tries).await;
        if matches!(&there, Attempt::Done(Some(there)) if !is_same(there, bytes)) {
            // Perhaps only this answer is damaged, and not the object.
            there = self.try_get(name, None, tries).await;
        }
        there.map(|there| {
            there.map(|there| if is_same(&there, bytes) { Ok(()) } else { Err(there.len() as u64) })
        })
    }

    /// The whole object, or `None` if there is none.
    ///
    /// # Errors
    /// `TooLarge` above the limit of its kind, before it is read. `CannotOpen`: no right to read. `Unavailable`.
    pub async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>> {
        self.repeat("reading an object", |tries| self.try_get(name, None, tries).boxed()).await
    }

    /// Exactly the bytes `range` of the object, or `None` if there is no object.
    ///
    /// # Errors
    /// `Damaged`: the object is too short for it. Else as [`get`](Self::get).
    pub async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Option<Bytes>> {
        let wanted = range.end.saturating_sub(range.start);
        if wanted == 0 {
            return Err(Error::invalid("range", format!("{range:?} is empty")));
        }
        check_size(name, wanted)?;
        let attempt = |tries| self.try_get(name, Some(range.clone()), tries).boxed();
        let read = self.repeat("reading an object", attempt).await;
        let Err(Error::Unavailable { .. }) = &read else { return read };
        // Perhaps it is the object that is short, and not the answers.
        match self.try_head(name, 0).await {
            Attempt::Done(Some(found)) if found.meta.size < range.end => {
                Err(short(name, found.meta.size, &range))
            }
            _ => read,
        }
    }

    /// Everything below a first part of names, behind a name. For sweep alone: nothing that is read rests on it (L6).
    pub(crate) fn list(
        &self,
        kind: &str,
        after: Option<&Path>,
    ) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        let kind = Path::from(kind);
        match after {
            Some(after) => self.store.list_with_offset(Some(&kind), after),
            None => self.store.list(Some(&kind)),
        }
    }

    /// Whether a [`list`](Self::list) is in the order of names, as that of a bucket is.
    pub(crate) fn lists_in_order(&self) -> bool {
        self.folder.is_none()
    }

    /// The next of a [`list`](Self::list): its path and size.
    pub(crate) async fn next(
        &self,
        listed: &mut BoxStream<'static, Result<ObjectMeta, StoreError>>,
    ) -> Result<Option<(Path, u64)>> {
        let what = "listing objects";
        match self.timed(self.patience(OBJECT_ATTEMPTS_MAX, 0), listed.try_next()).await {
            Ok(Ok(found)) => Ok(found.map(|found| (found.location, found.size))),
            Ok(Err(error)) => match self.judge::<()>(&error) {
                Attempt::Failed(error) => Err(error),
                _ => Err(Error::Unavailable { what, cause: error.to_string() }),
            },
            Err(cause) => Err(Error::Unavailable { what, cause }),
        }
    }

    /// What killed puts left half-written below a first part of names, with their sizes. Only a folder shows any.
    pub(crate) async fn halves(&self, kind: &str) -> Result<Vec<(Half, u64)>> {
        match &self.folder {
            Some(folder) => folder.halves(kind).await,
            None => Ok(Vec::new()),
        }
    }

    /// Deletes objects and halves; what is not there is deleted. In a folder, those that held `closed` go with them where
    /// they are empty: nobody puts into them any more. For sweep alone, which has proved that nothing names what it deletes,
    /// or ever will (L5).
    ///
    /// # Errors
    /// `CannotOpen`: no right to delete. `Unavailable`. Some may be deleted then.
    pub(crate) async fn delete(
        &self,
        names: &[ObjectName],
        halves: &[Half],
        closed: &[ObjectName],
    ) -> Result<()> {
        if !names.is_empty() {
            self.repeat("deleting objects", |tries| self.try_delete(names, tries).boxed()).await?;
        }
        match &self.folder {
            Some(folder) => folder.tidy(halves, closed).await,
            None => Ok(()),
        }
    }

    async fn try_delete(&self, names: &[ObjectName], tries: u32) -> Attempt<()> {
        let paths: Vec<_> = names.iter().map(|name| Ok(name.path())).collect();
        let mut deleted = self.store.delete_stream(futures::stream::iter(paths).boxed());
        loop {
            match self.timed(self.patience(tries, 0), deleted.next()).await {
                Ok(None) => return Attempt::Done(()),
                Ok(Some(Ok(_) | Err(StoreError::NotFound { .. }))) => {}
                Ok(Some(Err(error))) => return self.judge(&error),
                Err(timeout) => return Attempt::Again(timeout),
            }
        }
    }

    /// Its metadata alone.
    async fn try_head(&self, name: &ObjectName, tries: u32) -> Attempt<Option<GetResult>> {
        let path = name.path();
        let head = GetOptions { head: true, ..GetOptions::default() };
        match self.timed(self.patience(tries, 0), self.store.get_opts(&path, head)).await {
            Ok(Ok(found)) => Attempt::Done(Some(found)),
            Ok(Err(StoreError::NotFound { .. })) => Attempt::Done(None),
            Ok(Err(error)) => self.judge(&error),
            Err(timeout) => Attempt::Again(timeout),
        }
    }

    async fn try_get(
        &self,
        name: &ObjectName,
        range: Option<Range<u64>>,
        tries: u32,
    ) -> Attempt<Option<Bytes>> {
        let path = name.path();
        let options = GetOptions { range: range.clone().map(Into::into), ..GetOptions::default() };
        let found = match self.timed(self.patience(tries, 0), self.first_answer(&path, options)).await {
            Ok(Ok(found)) => found,
            Ok(Err(StoreError::NotFound { .. })) => return Attempt::Done(None),
            Ok(Err(error)) => {
                let verdict = Answer::of(&error).map(Answer::verdict);
                return match (verdict, range) {
                    (Some(Verdict::PastTheEnd), Some(range)) => {
                        let detail = format!("it ends before the range {range:?} that was asked for");
                        Attempt::Failed(Error::damaged(name.to_string(), detail))
                    }
                    _ => self.judge(&error),
                };
            }
            Err(timeout) => return Attempt::Again(timeout),
        };
        let asked = range.unwrap_or(0..found.meta.size);
        if found.meta.size < asked.end {
            return Attempt::Failed(short(name, found.meta.size, &asked));
        }
        let wanted = asked.end.saturating_sub(asked.start);
        if let Err(error) = check_size(name, wanted) {
            return Attempt::Failed(error);
        }
        if found.range != asked {
            return Attempt::Again(format!("asked for bytes {asked:?}, answered with {:?}", found.range));
        }
        match self.timed(self.patience(tries, wanted), collect(found, wanted)).await {
            Ok(Ok(bytes)) if bytes.len() as u64 == wanted => Attempt::Done(Some(bytes)),
            Ok(Ok(bytes)) if plant::on(Bug::RangeOfOtherLengthAccepted) => Attempt::Done(Some(bytes)),
            Ok(Ok(bytes)) if plant::on(Bug::TruncatedBodyAccepted) => Attempt::Done(Some(bytes)),
            Ok(Ok(bytes)) => Attempt::Again(format!("asked for {wanted} bytes, got {}", bytes.len())),
            Ok(Err(error)) => self.judge(&error),
            Err(timeout) => Attempt::Again(timeout),
        }
    }

    /// The first answer to a GET, or to a second one where the first is slower than most.
    async fn first_answer(&self, path: &Path, options: GetOptions) -> Result<GetResult, StoreError> {
        let first = self.store.get_opts(path, options.clone());
        let Some(hedge) = &self.hedge else { return first.await };
        let began = self.env.monotonic();
        let after = hedge.begin();
        pin_mut!(first);
        let answer = match after {
            None => first.await,
            Some(after) => match select(first, self.env.sleep(after)).await {
                Either::Left((answer, _)) => answer,
                Either::Right(((), first)) if hedge.spend() => {
                    either(first, self.store.get_opts(path, options)).await
                }
                Either::Right(((), first)) => first.await,
            },
        };
        if answer.is_ok() {
            hedge.note(self.env.monotonic().saturating_sub(began));
        }
        answer
    }
}

/// The first that succeeds; else the error of the last.
async fn either<T>(
    first: impl Future<Output = Result<T, StoreError>> + Unpin,
    second: impl Future<Output = Result<T, StoreError>> + Unpin,
) -> Result<T, StoreError> {
    match select(first, second).await {
        Either::Left((Err(_), second)) => second.await,
        Either::Right((Err(_), first)) => first.await,
        Either::Left((answer, _)) | Either::Right((answer, _)) => answer,
    }
}

fn is_same(there: &[u8], bytes: &PutPayload) -> bool {
    let mut rest = Some(there);
    for part in bytes.iter() {
        rest = rest.and_then(|rest| rest.strip_prefix(&part[..]));
    }
    rest.is_some_and(<[u8]>::is_empty)
}

fn short(name: &ObjectName, size: u64, range: &Range<u64>) -> Error {
    Error::damaged(name.to_string(), format!("it has {size} bytes, asked for were {range:?}"))
}

fn check_size(name: &ObjectName, size: u64) -> Result<()> {
    let limit = name.bytes_max();
    if size > limit {
        return Err(Error::TooLarge { field: "object", size, limit });
    }
    Ok(())
}

/// The body, cut off one byte past `wanted`: more is an error of the store's, and no reason to fill the memory.
async fn collect(found: GetResult, wanted: u64) -> Result<Bytes, StoreError> {
    let mut parts = match found.payload {
        GetResultPayload::Stream(parts) => parts,
        GetResultPayload::File(file, _) => return read_file(file, found.range.start, wanted).await,
    };
    let first = parts.try_next().await?.unwrap_or_default();
    if first.len() as u64 >= wanted {
        return Ok(first);
    }
    let mut all = BytesMut::from(first);
    loop {
        let part = match parts.try_next().await {
            Ok(Some(part)) => part,
            Ok(None) => break,
            Err(_) if plant::on(Bug::TruncatedBodyAccepted) => break,
            Err(error) => return Err(error),
        };
        all.extend_from_slice(&part);
        if all.len() as u64 > wanted {
            break;
        }
    }
    Ok(all.freeze())
}

/// Like [`GetResult::bytes`] of a file, which fills the memory with zeros before it reads into it.
async fn read_file(mut file: File, from: u64, wanted: u64) -> Result<Bytes, StoreError> {
    // Not from the heaps of the threads that wait for disks: those are many, and each keeps much of what is freed.
    let mut bytes = Vec::with_capacity(wanted as usize);
    let read = move || {
        file.seek(SeekFrom::Start(from))?;
        file.take(wanted).read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(Bytes::from(bytes))
    };
    let read = tokio::task::spawn_blocking(read).await?;
    read.map_err(|error| StoreError::Generic { store: "LocalFileSystem", source: error.into() })
}

/// The operating system's error at the root of a store's.
fn io_kind(error: &StoreError) -> Option<std::io::ErrorKind> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = error.source();
    }
    None
}
