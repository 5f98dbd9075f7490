//! Objects that are made piece by piece and may be too large to be held.
//!
//! Up to one part an object is put like any other. A larger one is sent in parts while it is made (S3: a multipart upload),
//! and is there, whole, once the upload is completed.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::FutureExt;
use object_store::{
    Attribute, Attributes, Error as StoreError, MultipartUpload, PutMultipartOptions, PutPayload,
};

use super::attempts::Attempt;
use super::{ObjectName, Objects, check_size};
use crate::env::random_u128;
use crate::limits::OBJECT_ATTEMPTS_MAX;
#[cfg(feature = "aws")]
use crate::limits::{OBJECT_BACKOFF_MS, OBJECT_BACKOFF_MS_MAX};
use crate::{Error, Result};

/// The metadata of an object (`x-amz-meta-…`) that was sent in parts: 32 hex digits that nobody else has drawn. A HEAD
/// tells whose it is; its sum is not known when it is begun.
const MARK: &str = "tidelog-upload";

const SENDING: &str = "sending an object in parts";

/// An object on its way.
///
/// A part that S3 refuses, or does not answer, is sent again; any other error ends the upload, and whoever wants the object
/// begins again, under another name. What was sent is let go by [`abort`](Self::abort). What a killed process sent is
/// removed by the bucket's rule for uploads that were not completed; in a folder by sweep.
#[derive(Debug)]
pub(crate) struct Upload {
    objects: Objects,
    name: ObjectName,
    part_bytes: usize,
    held: VecDeque<Bytes>,
    held_bytes: usize,
    begun: Option<Begun>,
}

/// Size and mark of an object.
type Found = (u64, Option<String>);

#[derive(Debug)]
struct Begun {
    parts: Box<dyn MultipartUpload>,
    mark: String,
    bytes: u64,
}

impl Objects {
    /// An object that comes piece by piece, and is sent in parts of so many bytes if it is larger than one.
    pub(crate) fn upload(&self, name: ObjectName, part_bytes: usize) -> Upload {
        let objects = self.clone();
        Upload {
            objects,
            name,
            part_bytes: part_bytes.max(1),
            held: VecDeque::new(),
            held_bytes: 0,
            begun: None,
        }
    }

    async fn begin(&self, name: &ObjectName) -> Result<Begun> {
        if let Some(folder) = &self.folder {
            folder.prepare(name).await?;
        }
        let mark = format!("{:032x}", random_u128(&*self.env));
        let mut options = PutMultipartOptions::default();
        if self.hedge.is_some() {
            options.attributes = Attributes::from_iter([(Attribute::Metadata(MARK.into()), mark.clone())]);
            #[cfg(feature = "aws")]
            {
                options = options.with_retry_policy(std::sync::Arc::new(Again(self.env.clone())));
            }
        }
        let path = name.path();
        let attempt = |tries| {
            let begun = self.store.put_multipart_opts(&path, options.clone());
            async move {
                match self.timed(self.patience(tries, 0), begun).await {
                    Ok(Ok(parts)) => Attempt::Done(parts),
                    Ok(Err(error)) => self.judge(&error),
                    Err(timeout) => Attempt::Again(timeout),
                }
            }
            .boxed()
        };
        let parts = self.repeat(SENDING, attempt).await?;
        Ok(Begun { parts, mark, bytes: 0 })
    }

    /// What is under a name.
    async fn look(&self, name: &ObjectName) -> Result<Option<Found>> {
        let head = |tries| self.try_head(name, tries).boxed();
        let found = self.repeat("looking at an object", head).await?;
        Ok(found.map(|found| {
            let mark = found.attributes.get(&Attribute::Metadata(MARK.into()));
            (found.meta.size, mark.map(|mark| mark.to_string()))
        }))
    }

    fn failed(&self, error: &StoreError) -> Error {
        match self.judge::<()>(error) {
            Attempt::Failed(error) => error,
            _ => Error::Unavailable { what: SENDING, cause: error.to_string() },
        }
    }
}

impl Upload {
    /// The next bytes of the object.
    ///
    /// # Errors
    /// `TooLarge`. `CannotOpen`: no right to write. `Unavailable`.
    pub async fn push(&mut self, bytes: Bytes) -> Result<()> {
        self.held_bytes += bytes.len();
        self.held.push_back(bytes);
        while self.held_bytes > self.part_bytes {
            self.send(self.part_bytes).await?;
        }
        Ok(())
    }

    /// Puts the object. When it answers, the object is durable and complete; else as for
    /// [`put_new`](Objects::put_new).
    ///
    /// # Errors
    /// Those of `put_new`.
    pub async fn finish(mut self) -> Result<()> {
        if self.begun.is_some()
            && self.held_bytes > 0
            && let Err(error) = self.send(self.held_bytes).await
        {
            self.abort().await;
            return Err(error);
        }
        let Some(begun) = &mut self.begun else {
            return self.objects.put_new(&self.name, PutPayload::from_iter(self.held)).await;
        };
        let done = begun.complete(&self.objects, &self.name).await;
        if done.is_err() {
            self.abort().await;
        }
        done
    }

    /// Lets go of what was sent, as far as the store can be asked to.
    pub async fn abort(&mut self) {
        let Some(Begun { mut parts, .. }) = self.begun.take() else { return };
        let patience = self.objects.patience(0, 0);
        let cause = match self.objects.timed(patience, parts.abort()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(timeout) => timeout,
        };
        tracing::debug!(cause, name = %self.name, "an upload was not aborted");
    }

    /// Sends so many of the bytes that are held.
    async fn send(&mut self, length: usize) -> Result<()> {
        let mut part = Vec::new();
        let mut left = length;
        while let Some(mut first) = self.held.pop_front() {
            if first.len() > left {
                part.push(first.split_to(left));
                self.held.push_front(first);
                break;
            }
            left -= first.len();
            part.push(first);
        }
        self.held_bytes -= length;
        let begun = match &mut self.begun {
            Some(begun) => begun,
            none => none.insert(self.objects.begin(&self.name).await?),
        };
        begun.bytes += length as u64;
        check_size(&self.name, begun.bytes)?;
        let sent = begun.parts.put_part(PutPayload::from_iter(part));
        let patience = self.objects.patience(OBJECT_ATTEMPTS_MAX, length as u64);
        match self.objects.timed(patience, sent).await {
            Ok(answer) => answer.map_err(|error| self.objects.failed(&error)),
            Err(cause) => Err(Error::Unavailable { what: SENDING, cause }),
        }
    }
}

impl Begun {
    async fn complete(&mut self, objects: &Objects, name: &ObjectName) -> Result<()> {
        let ours = self.bytes;
        let reused = |found: u64| Error::NameReused { name: name.to_string(), ours, found };
        // S3 refuses to overwrite (see `store::s3`). The others would not: nobody else knows the name, and this tells if one does.
        if let Some((size, _)) = objects.look(name).await? {
            return Err(reused(size));
        }
        let patience = objects.patience(OBJECT_ATTEMPTS_MAX, ours);
        let error = match objects.timed(patience, self.parts.complete()).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => objects.failed(&error),
            Err(cause) => Error::Unavailable { what: SENDING, cause },
        };
        // It may have landed. Only a store behind a network keeps the mark; nobody else knows the name.
        match objects.look(name).await {
            Ok(Some((size, mark)))
                if size == ours && (objects.hedge.is_none() || mark.as_ref() == Some(&self.mark)) =>
            {
                match &objects.folder {
                    Some(folder) => folder.sync(name).await,
                    None => Ok(()),
                }
            }
            Ok(Some((size, _))) => Err(reused(size)),
            Ok(None) | Err(_) => Err(error),
        }
    }
}

/// Parts are numbered: it does not matter whether one had arrived that is sent again.
#[cfg(feature = "aws")]
#[derive(Debug)]
struct Again(crate::env::SharedEnv);

#[cfg(feature = "aws")]
#[async_trait::async_trait]
impl object_store::retry::RetryPolicy for Again {
    async fn retry(&self, context: object_store::retry::RetryContext) -> bool {
        let tries = context.attempt as u32;
        if tries < OBJECT_ATTEMPTS_MAX {
            let pause_ms = (OBJECT_BACKOFF_MS << tries.min(8)).min(OBJECT_BACKOFF_MS_MAX);
            self.0.sleep(std::time::Duration::from_millis(pause_ms)).await;
        }
        tries < OBJECT_ATTEMPTS_MAX
    }
}
