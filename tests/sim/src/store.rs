//! The object store as a process sees it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};
use tokio::sync::oneshot;

use crate::clock::{Gate, sleep_ms};
use crate::world::{Fault, World};

/// The world's objects, through one process's network.
#[derive(Debug)]
pub struct SimStore {
    world: Arc<World>,
    gate: Arc<Gate>,
}

impl SimStore {
    /// For the process behind `gate`.
    pub fn new(world: Arc<World>, gate: Arc<Gate>) -> Arc<Self> {
        Arc::new(Self { world, gate })
    }

    fn answered(&self, step: &'static str, path: &Path, fault: Fault, answer: &'static str) {
        self.world.answered(&self.gate, step, path.as_ref(), fault, answer);
    }

    /// A request that changes nothing that is named: it may fail, or never be answered.
    async fn request(&self, step: &'static str, path: &Path) -> Result<()> {
        self.gate.pass().await;
        let (there, back, fault) =
            (self.world.latency(), self.world.latency(), self.world.write_fault(&self.gate));
        sleep_ms(there + back).await;
        self.gate.pass().await;
        let answer = match fault {
            Fault::None | Fault::Twice(_) => Ok(()),
            Fault::Hangs | Fault::HangsApplied => {
                self.answered(step, path, fault, "nothing");
                return std::future::pending().await;
            }
            _ => Err(error(fault.name())),
        };
        self.answered(step, path, fault, answer_name(&answer));
        answer
    }

    /// Changes the bytes on their way.
    async fn corrupt(&self, path: &Path, found: GetResult, fault: Fault) -> Result<GetResult> {
        let (meta, range, attributes) = (found.meta.clone(), found.range.clone(), found.attributes.clone());
        let mut bytes = found.bytes().await?.to_vec();
        let at = self.world.draw(|rng| rng.below(bytes.len().max(1) as u64)) as usize;
        match fault {
            Fault::Truncated => bytes.truncate(at),
            // In every row group and in the footer.
            Fault::Rotten => bytes.iter_mut().skip(4).step_by(16).for_each(|byte| *byte ^= 4),
            _ if bytes.is_empty() => {}
            _ => bytes[at] ^= 1 << self.world.draw(|rng| rng.below(8)),
        }
        self.answered("object get", path, fault, "other bytes");
        let body = futures::stream::once(async move { Ok(Bytes::from(bytes)) }).boxed();
        let payload = GetResultPayload::Stream(body);
        Ok(GetResult { payload, meta, range, attributes, extensions: Default::default() })
    }
}

/// One of them; it may land late, or land without an answer.
async fn delete(world: Arc<World>, gate: Arc<Gate>, path: Result<Path>) -> Result<Path> {
    let path = path?;
    gate.pass().await;
    let (there, back, fault) = (world.latency(), world.latency(), world.write_fault(&gate));
    sleep_ms(there).await;
    let gone = |path: &Path| {
        // Memory does not wait.
        let _ = world.objects.delete(path).now_or_never();
    };
    let answer = match fault {
        Fault::None | Fault::Twice(_) => {
            gone(&path);
            Ok(path.clone())
        }
        Fault::Late(later) => {
            let (world, path) = (world.clone(), path.clone());
            tokio::spawn(async move {
                sleep_ms(later).await;
                let _ = world.objects.delete(&path).await;
            });
            Err(error(fault.name()))
        }
        Fault::Applied | Fault::HangsApplied => {
            gone(&path);
            Err(error("connection reset"))
        }
        _ => Err(error(fault.name())),
    };
    if matches!(fault, Fault::Hangs | Fault::HangsApplied) {
        world.answered(&gate, "object delete", path.as_ref(), fault, "nothing");
        return std::future::pending().await;
    }
    sleep_ms(back).await;
    gate.pass().await;
    world.answered(&gate, "object delete", path.as_ref(), fault, answer_name(&answer));
    answer
}

fn error(words: &'static str) -> Error {
    Error::Generic { store: "sim", source: words.into() }
}

fn answer_name<T>(answer: &Result<T>) -> &'static str {
    match answer {
        Ok(_) => "done",
        Err(Error::AlreadyExists { .. }) => "one is there",
        Err(Error::NotFound { .. }) => "absent",
        Err(_) => "error",
    }
}

impl fmt::Display for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sim")
    }
}

/// Parts on their way: completed, they become an object like a put, with all that can go wrong with one.
#[derive(Debug)]
struct SimUpload {
    store: Arc<SimStore>,
    path: Path,
    parts: Vec<Bytes>,
}

#[async_trait]
impl MultipartUpload for SimUpload {
    fn put_part(&mut self, part: PutPayload) -> UploadPart {
        self.parts.extend(part.iter().cloned());
        let (store, path) = (self.store.clone(), self.path.clone());
        async move { store.request("object part", &path).await }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let parts = PutPayload::from_iter(std::mem::take(&mut self.parts));
        self.store.put_opts(&self.path, parts, PutMode::Create.into()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.store.request("object abort", &self.path).await
    }
}

#[async_trait]
impl ObjectStore for SimStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.gate.pass().await;
        let (there, back, fault) =
            (self.world.latency(), self.world.latency(), self.world.write_fault(&self.gate));
        let (sender, applied) = oneshot::channel();
        let arrives = match fault {
            Fault::Refused | Fault::Throttled | Fault::Lost | Fault::Hangs => None,
            Fault::Late(later) => Some(there + later),
            _ => Some(there),
        };
        if let Some(arrives) = arrives {
            let (world, path) = (self.world.clone(), path.clone());
            tokio::spawn(async move {
                sleep_ms(arrives).await;
                let put = |payload, options| world.objects.put_opts(&path, payload, options).now_or_never();
                let _ = sender.send(put(payload.clone(), options.clone()).expect("memory does not wait"));
                if let Fault::Twice(later) = fault {
                    sleep_ms(later).await;
                    let _ = put(payload, options);
                }
            });
        }
        let answer = match fault {
            Fault::None | Fault::Twice(_) => applied.await.expect("it is applied"),
            Fault::Applied => applied.await.expect("it is applied").and(Err(error("connection reset"))),
            Fault::Hangs | Fault::HangsApplied => {
                self.answered("object put", path, fault, "nothing");
                return std::future::pending().await;
            }
            _ => {
                sleep_ms(there).await;
                Err(error(fault.name()))
            }
        };
        sleep_ms(back).await;
        self.gate.pass().await;
        self.answered("object put", path, fault, answer_name(&answer));
        answer
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.request("object upload", path).await?;
        let store = Self { world: self.world.clone(), gate: self.gate.clone() };
        Ok(Box::new(SimUpload { store: Arc::new(store), path: path.clone(), parts: Vec::new() }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.gate.pass().await;
        let (there, back, fault) =
            (self.world.latency(), self.world.latency(), self.world.read_fault(&self.gate));
        sleep_ms(there).await;
        let answer = match fault {
            Fault::Hangs => {
                self.answered("object get", path, fault, "nothing");
                return std::future::pending().await;
            }
            Fault::None => self.world.objects.get_opts(path, options).await,
            _ => Err(error(fault.name())),
        };
        sleep_ms(back).await;
        self.gate.pass().await;
        if let (Ok(_), Some(fault)) = (&answer, self.world.corruption(&self.gate, path.as_ref())) {
            return self.corrupt(path, answer?, fault).await;
        }
        self.answered("object get", path, fault, answer_name(&answer));
        answer
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (world, gate) = (self.world.clone(), self.gate.clone());
        let delete = move |path: Result<Path>| delete(world.clone(), gate.clone(), path);
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.world.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.world.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(error("the log copies nothing"))
    }
}
