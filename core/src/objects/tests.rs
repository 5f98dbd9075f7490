#![allow(clippy::disallowed_methods, reason = "virtual time: tokio's clock, paused")]

use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, ListResult, MultipartUpload, ObjectMeta, ObjectStoreExt, PutMultipartOptions, PutPayload,
    PutResult, Result as StoreResult, UploadPart,
};
use proptest::prelude::*;

use super::*;
use crate::env::{Env, SystemEnv};
use crate::limits;
use crate::record::TopicId;

fn name(at: u64) -> ObjectName {
    ObjectName::L0 { era: 0xa, ledger: 1, drawn: at, ulid: Ulid(7) }
}

fn body(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// What happens to the next request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    None,
    Fails,
    /// Applied, and then an error.
    AppliedButFails,
    /// Applied, and never answered.
    AppliedButHangs,
    Hangs,
    /// A get is answered a byte short.
    Short,
    /// A get is answered with a bit flipped, in its last byte; a part of an upload is stored so.
    Flipped,
    DiskFull,
    ReadOnly,
    /// Not applied, and this answer.
    Answers(u16, &'static str),
    /// Applied after so many ms.
    Late(u64),
    /// An error after so many ms.
    LateFails(u64),
}

#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    faults: Arc<Mutex<VecDeque<Fault>>>,
    overwrites: bool,
}

fn faulty(faults: &[Fault]) -> Objects {
    Objects::memory(virtual_env()).wrapped(|inner| Arc::new(Faulty::new(inner, faults)))
}

fn remote(faults: &[Fault]) -> Objects {
    let store = Faulty::new(Arc::new(InMemory::new()), faults);
    Objects::remote(Arc::new(store), virtual_env())
}

/// Tokio's clock, which a test may pause.
#[derive(Debug)]
struct Virtual(tokio::time::Instant);

#[allow(clippy::disallowed_methods, reason = "a door of its own")]
impl Env for Virtual {
    fn now_ms(&self) -> i64 {
        0
    }
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
    fn random_u64(&self) -> u64 {
        u64::MAX / 2
    }
    fn sleep(&self, time: Duration) -> futures::future::BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}

/// Of this test's own: each test's clock is stopped by itself.
#[allow(clippy::disallowed_methods, reason = "a door of its own")]
fn virtual_env() -> Arc<Virtual> {
    Arc::new(Virtual(tokio::time::Instant::now()))
}

fn generic(kind: std::io::ErrorKind) -> StoreError {
    StoreError::Generic { store: "faulty", source: Box::new(std::io::Error::from(kind)) }
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, faults: &[Fault]) -> Self {
        Self { inner, faults: Arc::new(Mutex::new(faults.iter().copied().collect())), overwrites: false }
    }

    fn next(&self) -> Fault {
        next(&self.faults)
    }

    async fn before(&self, fault: Fault) -> StoreResult<()> {
        before(fault).await
    }
}

fn next(faults: &Mutex<VecDeque<Fault>>) -> Fault {
    faults.lock().unwrap().pop_front().unwrap_or(Fault::None)
}

async fn before(fault: Fault) -> StoreResult<()> {
    match fault {
        Fault::Fails => Err(generic(std::io::ErrorKind::ConnectionReset)),
        Fault::DiskFull => Err(generic(std::io::ErrorKind::StorageFull)),
        Fault::ReadOnly => Err(generic(std::io::ErrorKind::ReadOnlyFilesystem)),
        Fault::Hangs => std::future::pending().await,
        Fault::Answers(status, code) => {
            let answer = Answer { status, code: code.to_owned(), message: String::new() };
            Err(StoreError::Generic { store: "faulty", source: Box::new(answer) })
        }
        Fault::Late(millis) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Ok(())
        }
        Fault::LateFails(millis) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Err(generic(std::io::ErrorKind::ConnectionReset))
        }
        _ => Ok(()),
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    faults: Arc<Mutex<VecDeque<Fault>>>,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let fault = next(&self.faults);
        let data = match fault {
            Fault::Flipped => {
                let mut bytes = Bytes::from(data).to_vec();
                *bytes.last_mut().unwrap() ^= 1;
                bytes.into()
            }
            _ => data,
        };
        let sent = self.inner.put_part(data);
        Box::pin(async move {
            before(fault).await?;
            sent.await
        })
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        let fault = next(&self.faults);
        before(fault).await?;
        let done = self.inner.complete().await;
        match fault {
            Fault::AppliedButFails => Err(generic(std::io::ErrorKind::ConnectionReset)),
            Fault::AppliedButHangs => std::future::pending().await,
            _ => done,
        }
    }

    async fn abort(&mut self) -> StoreResult<()> {
        before(next(&self.faults)).await?;
        self.inner.abort().await
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> StoreResult<PutResult> {
        let fault = self.next();
        if self.overwrites {
            options.mode = PutMode::Overwrite;
        }
        self.before(fault).await?;
        let done = self.inner.put_opts(path, payload, options).await;
        match fault {
            Fault::AppliedButFails => Err(generic(std::io::ErrorKind::ConnectionReset)),
            Fault::AppliedButHangs => std::future::pending().await,
            _ => done,
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.before(self.next()).await?;
        let inner = self.inner.put_multipart_opts(path, options).await?;
        Ok(Box::new(FaultyUpload { inner, faults: self.faults.clone() }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
        let fault = self.next();
        self.before(fault).await?;
        let mut found = self.inner.get_opts(path, options).await?;
        if let (Fault::Flipped, GetResultPayload::Stream(parts)) = (fault, &mut found.payload) {
            let whole: Vec<Bytes> = parts.try_collect().await?;
            let mut whole = whole.concat();
            *whole.last_mut().unwrap() ^= 1;
            *parts = Box::pin(futures::stream::once(async move { Ok(Bytes::from(whole)) }));
        }
        if let (Fault::Short, GetResultPayload::Stream(parts)) = (fault, &mut found.payload) {
            let whole: Vec<Bytes> = parts.try_collect().await?;
            let whole = whole.concat();
            let short = Bytes::from(whole[..whole.len() - 1].to_vec());
            found.payload = GetResultPayload::Stream(Box::pin(futures::stream::iter([Ok(short)])));
        }
        Ok(found)
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test(start_paused = true)]
async fn memory_keeps_the_contract() {
    let objects = Objects::memory(SystemEnv::shared());
    contract::check(&objects, &objects).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_remote_store_keeps_the_contract() {
    let objects = Objects::remote(Arc::new(InMemory::new()), SystemEnv::shared());
    contract::check(&objects, &objects.clone()).await.unwrap();
}

#[tokio::test]
async fn a_folder_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Objects::folder(folder.path(), SystemEnv::shared()).unwrap();
    contract::check(&open(), &open()).await.unwrap();
    open().put_new(&name(1), body("hello world")).await.unwrap();
    let file = folder.path().join("l0/000a/0001/0000000000000001/00000000000000000000000007.parquet");
    assert_eq!(std::fs::read(file).unwrap(), b"hello world");
    let absent = Objects::folder(&folder.path().join("absent"), SystemEnv::shared());
    assert!(matches!(absent, Err(Error::CannotOpen { .. })));
}

#[tokio::test(start_paused = true)]
async fn the_contract_notices_a_store_that_overwrites() {
    for objects in [Objects::memory(SystemEnv::shared()), remote(&[])] {
        let objects =
            objects.wrapped(|inner| Arc::new(Faulty { overwrites: true, ..Faulty::new(inner, &[]) }));
        let broken = contract::check(&objects, &objects).await.unwrap_err();
        assert!(broken.starts_with("a name is used once"), "{broken}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_store_slows_and_does_not_fail() {
    let env = virtual_env();
    // More often than there are attempts.
    for fault in [Fault::Answers(503, "SlowDown"), Fault::Answers(429, "")] {
        let began = tokio::time::Instant::now();
        let objects = remote(&[fault; 9]);
        objects.put_new(&name(1), body("x1")).await.unwrap();
        let waited = began.elapsed().as_secs();
        assert!((10..60).contains(&waited), "{waited} s");
    }
    // For ever: it is said, within the bound, as something to try again.
    let began = env.monotonic();
    let error =
        remote(&[Fault::Answers(503, "SlowDown"); 200]).put_new(&name(1), body("x1")).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable { cause, .. } if cause.contains("too busy")), "{error}");
    assert!(env.monotonic().saturating_sub(began).as_millis() as u64 <= limits::OBJECT_DEADLINE_MS);
}

#[tokio::test(start_paused = true)]
async fn behind_a_network_an_unanswered_put_is_looked_for_before_it_is_sent_again() {
    use Fault::*;
    // Per script: the requests, and how often the bytes were sent.
    let scripts: [(&[Fault], u64); 7] = [
        (&[AppliedButFails], 1),
        (&[AppliedButHangs], 1),
        (&[Answers(500, "InternalError")], 2),
        (&[Answers(409, "ConditionalRequestConflict"); 3], 4),
        (&[AppliedButFails, Fails, None], 2),
        (&[Hangs, Hangs], 2),
        (&[Answers(400, "BadDigest")], 2),
    ];
    for (faults, puts) in scripts {
        let objects = remote(faults);
        let counted = crate::counting::CountingStore::new(objects.store().clone());
        let objects = objects.wrapped(|_| Arc::new(counted.clone()));
        objects.put_new(&name(1), body("x1")).await.unwrap_or_else(|error| panic!("{faults:?}: {error}"));
        assert_eq!(counted.counts().puts, puts, "{faults:?}");
        assert_eq!(counted.counts().gets, 0, "metadata is enough: {faults:?}");
        assert_eq!(objects.get(&name(1)).await.unwrap(), Some(body("x1")), "{faults:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_says_what_to_do() {
    for (status, code, words) in [
        (403, "AccessDenied", "no right"),
        (403, "RequestTimeTooSkewed", "clock of this machine"),
        (404, "NoSuchBucket", "no such bucket"),
        (301, "PermanentRedirect", "another region"),
        (400, "AuthorizationHeaderMalformed", "another region"),
        (501, "NotImplemented", "store refused"),
    ] {
        let began = tokio::time::Instant::now();
        let error = remote(&[Fault::Answers(status, code)]).put_new(&name(1), body("x")).await.unwrap_err();
        assert!(error.to_string().contains(words), "{code}: {error}");
        assert!(began.elapsed().is_zero(), "{code} is said at once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_get_is_asked_twice() {
    let objects = remote(&[]);
    objects.put_new(&name(1), body("hello")).await.unwrap();
    for _ in 0..100 {
        objects.get(&name(1)).await.unwrap();
    }
    assert_eq!(objects.hedged(), 0);
    let slow = objects.clone().wrapped(|inner| Arc::new(Faulty::new(inner, &[Fault::Hangs])));
    let began = tokio::time::Instant::now();
    assert_eq!(slow.get(&name(1)).await.unwrap(), Some(body("hello")));
    assert_eq!((slow.hedged(), began.elapsed()), (1, Duration::from_millis(limits::HEDGE_MS_MIN)));
    // One of the two fails: the other counts, whichever it is.
    for faults in [[Fault::Late(20), Fault::Fails], [Fault::LateFails(20), Fault::Late(40)]] {
        let objects = objects.clone().wrapped(|inner| Arc::new(Faulty::new(inner, &faults)));
        let began = tokio::time::Instant::now();
        assert_eq!(objects.get(&name(1)).await.unwrap(), Some(body("hello")), "{faults:?}");
        assert!(began.elapsed() < Duration::from_millis(60), "{faults:?}: {:?}", began.elapsed());
    }
    // Of a store that is slow as a whole, a small share.
    let all_slow = [Fault::Late(500); 400];
    let objects = objects.wrapped(|inner| Arc::new(Faulty::new(inner, &all_slow)));
    for _ in 0..200 {
        objects.get(&name(1)).await.unwrap();
    }
    assert!(objects.hedged() <= 3 + u64::from(limits::HEDGE_BURST) + 10, "{}", objects.hedged());
}

#[tokio::test(start_paused = true)]
async fn a_put_without_an_answer_is_settled_by_looking() {
    use Fault::*;
    let scripts: [&[Fault]; 6] = [
        &[Fails, Fails, Fails, Fails],
        &[AppliedButFails],
        &[AppliedButHangs],
        &[Hangs, Hangs],
        &[AppliedButFails, None, Fails],
        &[AppliedButFails, None, Short, None, None],
    ];
    for faults in scripts {
        let objects = faulty(faults);
        objects.put_new(&name(1), body("x1")).await.unwrap_or_else(|error| panic!("{faults:?}: {error}"));
        assert_eq!(objects.get(&name(1)).await.unwrap(), Some(body("x1")), "{faults:?}");
    }
    // A store that is away for some seconds costs a wait, and one that stays away an error.
    let began = tokio::time::Instant::now();
    let objects = faulty(&[Fails; 10]);
    objects.put_new(&name(1), body("x1")).await.unwrap();
    assert!(began.elapsed() > Duration::from_secs(2), "{:?}", began.elapsed());
    let began = tokio::time::Instant::now();
    let objects = faulty(&[Fails; 100]);
    let error = objects.put_new(&name(1), body("x1")).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable { cause, .. } if cause.contains("attempts")), "{error}");
    let (waited, least) = (began.elapsed(), Duration::from_millis(limits::OBJECT_OUTAGE_MS));
    assert!(waited < least && waited > least - Duration::from_millis(1_000), "{waited:?}");
}

/// Bytes that differ, in pieces of so many.
async fn sent(objects: &Objects, pieces: &[usize], part_bytes: usize) -> Result<Bytes> {
    let (mut upload, mut whole) = (objects.upload(name(1), part_bytes), Vec::new());
    for piece in pieces {
        let bytes: Vec<u8> = (whole.len()..whole.len() + piece).map(|at| ((at * 7) >> 2) as u8).collect();
        whole.extend_from_slice(&bytes);
        if let Err(error) = upload.push(bytes.into()).await {
            upload.abort().await;
            return Err(error);
        }
    }
    upload.finish().await?;
    Ok(whole.into())
}

#[tokio::test]
async fn an_upload_is_one_object_whatever_its_pieces_are() {
    let folder = tempfile::tempdir().unwrap();
    for (n, (pieces, puts)) in [
        (&[][..], 1),
        (&[7, 0, 3], 1),
        // Begun, so many parts, and completed.
        (&[7, 0, 4], 1 + 2 + 1),
        (&[1; 20], 1 + 2 + 1),
        (&[35, 1], 1 + 4 + 1),
    ]
    .into_iter()
    .enumerate()
    {
        let path = folder.path().join(n.to_string());
        std::fs::create_dir(&path).unwrap();
        let env = SystemEnv::shared();
        let stores = [
            Objects::memory(env.clone()),
            Objects::remote(Arc::new(InMemory::new()), env.clone()),
            Objects::folder(&path, env).unwrap(),
        ];
        for store in stores {
            let counted = crate::counting::CountingStore::new(store.store().clone());
            let store = store.wrapped(|_| Arc::new(counted.clone()));
            let whole = sent(&store, pieces, 10).await.unwrap();
            assert_eq!(store.get(&name(1)).await.unwrap(), Some(whole), "{pieces:?}");
            assert_eq!(counted.counts().puts, puts, "{pieces:?}");
            assert_eq!(store.halves("l0").await.unwrap(), [], "{pieces:?}");
            // It is never written over, not even by the same bytes in parts.
            if puts > 1 {
                let again = sent(&store, pieces, 10).await;
                assert!(matches!(again, Err(Error::NameReused { .. })), "{again:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_fails_leaves_nothing_and_one_that_landed_is_found() {
    use Fault::*;
    let pieces = &[25][..];
    // Begin, three parts, a look whether the name is free, complete; then a look, and abort.
    let scripts: [(&[Fault], bool); 11] = [
        (&[Fails, None], true),
        (&[Hangs, AppliedButFails], true),
        (&[Answers(503, "SlowDown")], true),
        (&[None, Fails], false),
        (&[None, None, None, Hangs], false),
        (&[None, None, None, Answers(500, "InternalError")], false),
        (&[None, None, None, None, Fails, None, AppliedButFails], true),
        (&[None, None, None, None, None, AppliedButHangs], true),
        (&[None, None, None, None, None, AppliedButFails, Fails], true),
        (&[None, None, None, None, None, Fails], false),
        (&[None, None, None, None, None, Hangs, None, Fails], false),
    ];
    for (faults, lands) in scripts {
        for objects in [faulty(faults), remote(faults)] {
            match sent(&objects, pieces, 10).await {
                Ok(whole) => {
                    assert!(lands, "{faults:?}");
                    assert_eq!(objects.get(&name(1)).await.unwrap(), Some(whole), "{faults:?}");
                }
                Err(error) => {
                    assert!(!lands && matches!(error, Error::Unavailable { .. }), "{faults:?}: {error}");
                    assert_eq!(objects.get(&name(1)).await.unwrap(), Option::None, "{faults:?}");
                }
            }
        }
    }
    let denied = sent(&remote(&[None, Answers(403, "AccessDenied")]), pieces, 10).await.unwrap_err();
    assert!(denied.to_string().contains("no right"), "{denied}");
    let full = sent(&faulty(&[None, None, DiskFull]), pieces, 10).await.unwrap_err();
    assert!(full.to_string().contains("free some space"), "{full}");
}

/// What a killed process leaves in a folder is found by sweep, like the half of a put.
#[tokio::test]
async fn an_upload_that_was_killed_leaves_a_half() {
    let folder = tempfile::tempdir().unwrap();
    let store = Objects::folder(folder.path(), SystemEnv::shared()).unwrap();
    let mut upload = store.upload(name(1), 10);
    upload.push(vec![7; 25].into()).await.unwrap();
    let [(half, bytes)] = &store.halves("l0").await.unwrap()[..] else { panic!("one half") };
    assert_eq!((&half.name, *bytes), (&name(1), 20));
    assert_eq!(store.get(&name(1)).await.unwrap(), None);
    upload.abort().await;
    assert_eq!(store.halves("l0").await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_sent_in_parts_is_no_larger_than_its_kind() {
    let probe = ObjectName::Probe { ulid: Ulid(7) };
    let objects = Objects::memory(virtual_env());
    let mut upload = objects.upload(probe, 40);
    upload.push(vec![7; 80].into()).await.unwrap();
    let error = upload.push(vec![7; 41].into()).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn short_answers_are_asked_again_and_never_passed_on() {
    let objects = faulty(&[Fault::None, Fault::Short, Fault::Short]);
    objects.put_new(&name(1), body("hello")).await.unwrap();
    assert_eq!(objects.get(&name(1)).await.unwrap(), Some(body("hello")));
    let objects = faulty(&[&[Fault::None][..], &[Fault::Short; 5]].concat());
    objects.put_new(&name(1), body("hello")).await.unwrap();
    let error = objects.get_range(&name(1), 1..4).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_only_a_person_can_change_is_said_at_once() {
    let error = faulty(&[Fault::DiskFull]).put_new(&name(1), body("x")).await.unwrap_err();
    assert!(error.to_string().contains("free some space"), "{error}");
    let error = faulty(&[Fault::ReadOnly]).put_new(&name(1), body("x")).await.unwrap_err();
    assert!(matches!(&error, Error::CannotOpen { reason, .. } if reason.contains("writable")), "{error}");
}

#[tokio::test]
async fn an_object_larger_than_its_kind_is_not_read() {
    let objects = Objects::memory(SystemEnv::shared());
    let name = ObjectName::Probe { ulid: Ulid(1) };
    objects.store().put(&name.path(), vec![0; 65].into()).await.unwrap();
    assert!(matches!(objects.get(&name).await, Err(Error::TooLarge { .. })));
}

#[test]
fn names_are_as_the_format_says() {
    let ulid: Ulid = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
    let l0 = ObjectName::L0 { era: 1, ledger: 0xbeef, drawn: 0x1234, ulid };
    assert_eq!(l0.to_string(), "l0/0001/beef/0000000000001234/01ARZ3NDEKTSV4RRFFQ69G5FAV.parquet");
    let checkpoint = ObjectName::Checkpoint { era: 0, ledger: 0, at: u64::MAX, ulid };
    assert_eq!(checkpoint.to_string(), "ckpt/0000/0000/ffffffffffffffff/01ARZ3NDEKTSV4RRFFQ69G5FAV");
    let id = TopicId(0xabc);
    let l1 = ObjectName::L1 { topic: "logs".into(), id, hour: 498_682, era: 1, ledger: 0, drawn: 9, ulid };
    let merged = "topics/logs/00000000000000000000000000000abc/date=2026-11-21/hour=10/0001.0000.0000000000000009.01ARZ3NDEKTSV4RRFFQ69G5FAV.parquet";
    assert_eq!(l1.to_string(), merged);
    for (from, to) in [
        ("date=2026-11-21", "date=2026-02-30"),
        ("date=2026-11-21", "date=2026-11-1"),
        ("date=2026-11-21", "date=1969-12-31"),
        ("hour=10", "hour=24"),
        ("hour=10", "hour=+9"),
        ("logs/", "../"),
        ("0abc/", "0ABC/"),
        ("/0000", "/000é"),
        (".0000.", "."),
    ] {
        let wrong = merged.replace(from, to);
        assert!(wrong.parse::<ObjectName>().is_err(), "{wrong}");
    }
    for wrong in [
        "",
        "l0",
        "l0/0001/beef/0000000000001234/01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "l0/0001/BEEF/0000000000001234/01ARZ3NDEKTSV4RRFFQ69G5FAV.parquet",
        "l0/001/beef/0000000000001234/01ARZ3NDEKTSV4RRFFQ69G5FAV.parquet",
        "l0/+001/beef/0000000000001234/01ARZ3NDEKTSV4RRFFQ69G5FAV.parquet",
        "l0/0001/beef/0000000000001234/01arz3ndektsv4rrffq69g5fav.parquet",
        "l0/0001/beef/0000000000001234/81ARZ3NDEKTSV4RRFFQ69G5FAV.parquet",
        "l0/0001/beef/0000000000001234/01ARZ3NDEKTSV4RRFFQ69G5FAU.parquet",
        "l0/0001/beef/0000000000001234/01ARZ3NDEKTSV4RRFFQ69G5FAV.parquet/x",
        "ckpt/0001/beef/0000000000001234/01ARZ3NDEKTSV4RRFFQ69G5FAV.parquet",
        "topics/a",
    ] {
        assert!(wrong.parse::<ObjectName>().is_err(), "{wrong}");
    }
}

#[test]
fn a_drawn_ulid_begins_with_the_time() {
    #[derive(Debug)]
    struct Fixed;
    impl Env for Fixed {
        fn now_ms(&self) -> i64 {
            1_469_918_176_385
        }
        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
        fn random_u64(&self) -> u64 {
            u64::MAX
        }
        fn sleep(&self, _: Duration) -> futures::future::BoxFuture<'static, ()> {
            Box::pin(async {})
        }
    }
    // The time of the ULID specification's own example.
    assert_eq!(Ulid::draw(&Fixed).to_string(), "01ARYZ6S41ZZZZZZZZZZZZZZZZ");
}

proptest! {
    #[test]
    fn names_are_read_as_they_are_written(era: u16, ledger: u16, number: u64, ulid: u128, hour in 0u32..70_000_000, kind in 0..4) {
        let ulid = Ulid(ulid);
        let name = match kind {
            0 => ObjectName::L0 { era, ledger, drawn: number, ulid },
            1 => ObjectName::L1 {
                topic: "a.b".into(),
                id: TopicId(ulid.0 ^ u128::from(number)),
                hour,
                era,
                ledger,
                drawn: number,
                ulid,
            },
            2 => ObjectName::Checkpoint { era, ledger, at: number, ulid },
            _ => ObjectName::Probe { ulid },
        };
        prop_assert_eq!(&name.to_string().parse::<ObjectName>().unwrap(), &name);
        prop_assert_eq!(name.path().to_string(), name.to_string());
    }

    #[test]
    fn what_parses_prints_as_it_was(text in "(l0|ckpt|probe)/[0-9a-g]{3,5}/[0-9a-f]{4}/[0-9a-f]{16}/[0-9A-Za]{26}(.parquet)?") {
        if let Ok(name) = text.parse::<ObjectName>() {
            prop_assert_eq!(name.to_string(), text);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_damaged_read_back_is_not_damage() {
    let objects = faulty(&[Fault::AppliedButFails, Fault::None, Fault::Flipped, Fault::None]);
    objects.put_new(&name(1), body("mine")).await.unwrap();
    let objects = faulty(&[Fault::AppliedButFails, Fault::None, Fault::Flipped, Fault::Flipped]);
    let error = objects.put_new(&name(1), body("mine")).await.unwrap_err();
    assert!(matches!(error, Error::NameReused { .. }), "told twice, it is: {error}");
}
