//! Objects: immutable bytes under names that are used once (L5), over any [`ObjectStore`].
//!
//! ```text
//! l0/<era>/<ledger>/<drawn>/<ulid>.parquet     a segment as a flush wrote it
//! ckpt/<era>/<ledger>/<at>/<ulid>              a checkpoint
//! probe/<ulid>                                 left by `init`, which tried whether the store holds its promises
//! ```
//!
//! Era and ledger are 4 hex digits, `drawn` and `at` (commit numbers) 16. [`Objects`] answers a put only when the object
//! is durable, and a get only with as many bytes as were asked for; it never overwrites, deletes or lists.

mod folder;
mod name;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::{Either, select};
use futures::{TryStreamExt, pin_mut};
use object_store::{
    Error as StoreError, GetOptions, GetResult, GetResultPayload, ObjectStore, PutMode, PutOptions,
    memory::InMemory,
};

use crate::env::SharedEnv;
use crate::limits::{OBJECT_ATTEMPTS_MAX, OBJECT_BACKOFF_MS, OBJECT_TIMEOUT_MS};
use crate::plant::{self, Bug};
use crate::{Error, Result};
use folder::Folder;
pub use name::{ObjectName, Ulid};

/// A store of objects.
#[derive(Debug, Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    env: SharedEnv,
    folder: Option<Arc<Folder>>,
}

/// What one attempt came to.
enum Attempt<T> {
    Done(T),
    /// Asking again cannot help.
    Failed(Error),
    /// No answer, or one that may differ next time.
    Again(String),
}

impl Objects {
    /// Objects in any store, which answers a put only when the object is durable.
    pub fn new(store: Arc<dyn ObjectStore>, env: SharedEnv) -> Self {
        Self { store, env, folder: None }
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
        Ok(Self { store: Arc::new(store), env, folder: Some(Arc::new(folder)) })
    }

    /// The same objects, each request passing through `wrap`: a counter, or a fault.
    pub fn wrapped(mut self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        self.store = wrap(self.store);
        self
    }

    /// The store itself, for what this type does not do (listing, deleting). The read path does neither (L6).
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Puts a new object. When it answers, the object is durable and complete; if it does not, the object may be
    /// there, may appear later, or never: an orphan, whose name is not used again.
    ///
    /// # Errors
    /// `Damaged`: other bytes are under this name. `CannotOpen`: no right to write. `Unavailable`: all else.
    pub async fn put_new(&self, name: &ObjectName, bytes: Bytes) -> Result<()> {
        if let Some(folder) = &self.folder {
            folder.prepare(name).await?;
        }
        self.repeat("putting an object", || self.try_put(name, &bytes)).await
    }

    async fn try_put(&self, name: &ObjectName, bytes: &Bytes) -> Attempt<()> {
        let path = name.path();
        let mode = if plant::on(Bug::NameReused) { PutMode::Overwrite } else { PutMode::Create };
        let put = self.store.put_opts(&path, bytes.clone().into(), PutOptions::from(mode));
        match self.timed(put).await {
            Ok(Ok(_)) => Attempt::Done(()),
            // Of an earlier attempt without an answer, here or in the store's own client.
            Ok(Err(StoreError::AlreadyExists { .. })) => self.own(name, bytes).await,
            Ok(Err(error)) => self.judge(error),
            Err(timeout) => Attempt::Again(timeout),
        }
    }

    /// The name is taken: ours if it holds our bytes, which nobody else can have put under a random name.
    async fn own(&self, name: &ObjectName, bytes: &Bytes) -> Attempt<()> {
        let mut read = self.try_get(name, None).await;
        if matches!(&read, Attempt::Done(Some(there)) if there != bytes) {
            // Perhaps only this answer is damaged, and not the object.
            read = self.try_get(name, None).await;
        }
        match read {
            Attempt::Done(Some(there)) if there == *bytes => {}
            Attempt::Done(Some(there)) => {
                let detail =
                    format!("{} other bytes are under this name, ours are {}", there.len(), bytes.len());
                return Attempt::Failed(Error::damaged(name.to_string(), detail));
            }
            Attempt::Done(None) => {
                return Attempt::Again("the name is taken, yet nothing is there".to_owned());
            }
            Attempt::Failed(error) => return Attempt::Failed(error),
            Attempt::Again(cause) => return Attempt::Again(cause),
        }
        // The attempt that wrote it was not answered, so nothing says that it is on disk.
        match &self.folder {
            Some(folder) => folder.sync(name).await.map_or_else(Attempt::Failed, Attempt::Done),
            None => Attempt::Done(()),
        }
    }

    /// The whole object, or `None` if there is none.
    ///
    /// # Errors
    /// `TooLarge` above the limit of its kind, before it is read. `CannotOpen`: no right to read. `Unavailable`.
    pub async fn get(&self, name: &ObjectName) -> Result<Option<Bytes>> {
        self.repeat("reading an object", || self.try_get(name, None)).await
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
        let read = self.repeat("reading an object", || self.try_get(name, Some(range.clone()))).await;
        let Err(Error::Unavailable { .. }) = &read else { return read };
        // Perhaps it is the object that is short, and not the answers.
        let head = GetOptions { head: true, ..GetOptions::default() };
        match self.timed(self.store.get_opts(&name.path(), head)).await {
            Ok(Ok(found)) if found.meta.size < range.end => {
                let detail = format!("it has {} bytes, asked for were {range:?}", found.meta.size);
                Err(Error::damaged(name.to_string(), detail))
            }
            _ => read,
        }
    }

    async fn try_get(&self, name: &ObjectName, range: Option<Range<u64>>) -> Attempt<Option<Bytes>> {
        let options = GetOptions { range: range.clone().map(Into::into), ..GetOptions::default() };
        let path = name.path();
        let read = async {
            let found = self.store.get_opts(&path, options).await?;
            let asked = range.unwrap_or(0..found.meta.size);
            let wanted = asked.end.saturating_sub(asked.start);
            if let Err(error) = check_size(name, wanted) {
                return Ok(Attempt::Failed(error));
            }
            if found.range != asked {
                return Ok(Attempt::Again(format!(
                    "asked for bytes {asked:?}, answered with {:?}",
                    found.range
                )));
            }
            let bytes = collect(found, wanted).await?;
            if bytes.len() as u64 != wanted {
                return Ok(Attempt::Again(format!("asked for {wanted} bytes, got {}", bytes.len())));
            }
            Ok(Attempt::Done(Some(bytes)))
        };
        match self.timed(read).await {
            Ok(Ok(attempt)) => attempt,
            Ok(Err(StoreError::NotFound { .. })) => Attempt::Done(None),
            Ok(Err(error)) => self.judge(error),
            Err(timeout) => Attempt::Again(timeout),
        }
    }

    /// Attempts with a pause in between, at most [`OBJECT_ATTEMPTS_MAX`].
    async fn repeat<T, F: Future<Output = Attempt<T>>>(
        &self,
        what: &'static str,
        attempt: impl Fn() -> F,
    ) -> Result<T> {
        let mut tries = 1;
        loop {
            match attempt().await {
                Attempt::Done(value) => return Ok(value),
                Attempt::Failed(error) => return Err(error),
                Attempt::Again(cause) if tries == OBJECT_ATTEMPTS_MAX => {
                    return Err(Error::Unavailable {
                        what,
                        cause: format!("{cause} (after {tries} attempts)"),
                    });
                }
                Attempt::Again(cause) => tracing::debug!(what, tries, cause, "trying again"),
            }
            // Half of the pause is drawn, so that writers that failed together do not come back together.
            let longest = OBJECT_BACKOFF_MS << (tries - 1);
            let drawn = longest / 2 + self.env.random_u64() % (longest / 2 + 1);
            self.env.sleep(Duration::from_millis(drawn)).await;
            tries += 1;
        }
    }

    async fn timed<T>(&self, request: impl Future<Output = T>) -> Result<T, String> {
        let timeout = self.env.sleep(Duration::from_millis(OBJECT_TIMEOUT_MS));
        pin_mut!(request);
        match select(request, timeout).await {
            Either::Left((answer, _)) => Ok(answer),
            Either::Right(_) => Err(format!("no answer within {OBJECT_TIMEOUT_MS} ms")),
        }
    }

    fn judge<T>(&self, error: StoreError) -> Attempt<T> {
        use std::io::ErrorKind::*;
        let words = error.to_string();
        let place =
            || self.folder.as_ref().map_or_else(|| self.store.to_string(), |folder| folder.to_string());
        let denied = |words| Attempt::Failed(Error::CannotOpen { url: place(), reason: words });
        match (&error, io_kind(&error)) {
            (StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. }, _) => denied(words),
            (_, Some(PermissionDenied | ReadOnlyFilesystem)) => denied(format!(
                "it cannot be used by this user: change its owner or mode, or mount it writable: {words}"
            )),
            (_, Some(StorageFull | QuotaExceeded)) => {
                let cause = format!("the disk of {} is full: free some space: {words}", place());
                Attempt::Failed(Error::Unavailable { what: "putting an object", cause })
            }
            (StoreError::NotSupported { .. } | StoreError::NotImplemented { .. }, _) => {
                Attempt::Failed(Error::StoreRefused { what: words })
            }
            _ => Attempt::Again(words),
        }
    }
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
    let GetResultPayload::Stream(mut parts) = found.payload else {
        // A file: its reader stops at the end of the range.
        return found.bytes().await;
    };
    let first = parts.try_next().await?.unwrap_or_default();
    if first.len() as u64 >= wanted {
        return Ok(first);
    }
    let mut all = BytesMut::from(first);
    while let Some(part) = parts.try_next().await? {
        all.extend_from_slice(&part);
        if all.len() as u64 > wanted {
            break;
        }
    }
    Ok(all.freeze())
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
