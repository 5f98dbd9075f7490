//! The suite: what the log, its tools and its tests rest on.

use std::sync::Arc;

use futures::TryStreamExt;
use futures::future::join_all;
use object_store::aws::Checksum;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    UpdateVersion,
};
use reqwest::Method;

use crate::client::{Client, elements, header};

/// What a server is known not to do; each is asserted, so that a newer one is noticed.
pub struct Known {
    /// It checks signatures.
    pub signatures: bool,
    /// It refuses small parts in the middle of an upload.
    pub part_bytes_min: bool,
    /// Rounds of 16 writers that race for one name.
    pub race_rounds: usize,
    /// Of several that replace one version at once, one wins.
    pub replaces_atomically: bool,
}

impl Default for Known {
    fn default() -> Self {
        Self { signatures: true, part_bytes_min: true, race_rounds: 20, replaces_atomically: true }
    }
}

/// All of it, in a fresh bucket.
pub async fn run(client: &Client, known: Known) {
    bucket(client).await;
    creates(client).await;
    replaces(client).await;
    races(client, &known).await;
    ranges(client).await;
    conditional_reads(client).await;
    metadata(client).await;
    checksums(client).await;
    listing(client).await;
    deletes(client).await;
    multipart(client, &known).await;
    signatures(client, &known).await;
}

async fn bucket(client: &Client) {
    // Ours begins with the bucket, others do not; 200 twice is what us-east-1 answers.
    let status = client.ask(Method::PUT, "", &[]).await.send().await.unwrap().status().as_u16();
    assert!(matches!(status, 200 | 409), "create bucket: {status}");
    let status = client.ask(Method::HEAD, "", &[]).await.send().await.unwrap().status();
    assert_eq!(status, 200, "head bucket");
    let absent = client.get("absent", &[]).await;
    assert_eq!(absent.status(), 404);
    assert_eq!(elements(&absent.text().await.unwrap(), "Code"), ["NoSuchKey"]);
}

async fn creates(client: &Client) {
    let store = client.store();
    let path = Path::from("create/one");
    let create = || PutOptions::from(PutMode::Create);
    store.put_opts(&path, "one".into(), create()).await.unwrap();
    let again = store.put_opts(&path, "two".into(), create()).await;
    assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "one");
    let raw = client.put("create/one", &[("if-none-match", "*")], b"two").await;
    assert_eq!(raw.status(), 412, "If-None-Match: *");
    assert_eq!(elements(&raw.text().await.unwrap(), "Code"), ["PreconditionFailed"]);
    store.delete(&path).await.unwrap();
    store.put_opts(&path, "three".into(), create()).await.unwrap();
}

async fn replaces(client: &Client) {
    let store = client.store();
    let path = Path::from("replace/one");
    let first = store.put(&path, "one".into()).await.unwrap();
    let on = |etag: &Option<String>| {
        let version = UpdateVersion { e_tag: etag.clone(), version: None };
        PutOptions::from(PutMode::Update(version))
    };
    let second = store.put_opts(&path, "two".into(), on(&first.e_tag)).await.unwrap();
    assert_ne!(first.e_tag, second.e_tag);
    let stale = store.put_opts(&path, "three".into(), on(&first.e_tag)).await;
    assert!(matches!(stale, Err(Error::Precondition { .. })), "{stale:?}");
    let absent = store.put_opts(&Path::from("replace/absent"), "x".into(), on(&first.e_tag)).await;
    assert!(matches!(absent, Err(Error::Precondition { .. })), "{absent:?}");
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "two");
}

async fn races(client: &Client, known: &Known) {
    let store = Arc::new(client.store());
    for round in 0..known.race_rounds {
        let path = Path::from(format!("race/{round}"));
        let puts = (0..16u8).map(|writer| {
            let (store, path) = (store.clone(), path.clone());
            tokio::spawn(async move {
                let body = vec![writer; 4_000];
                store.put_opts(&path, body.into(), PutOptions::from(PutMode::Create)).await.is_ok()
            })
        });
        let won: Vec<bool> = join_all(puts).await.into_iter().map(Result::unwrap).collect();
        let winners: Vec<usize> = (0..won.len()).filter(|at| won[*at]).collect();
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        let there = store.get(&path).await.unwrap().bytes().await.unwrap();
        assert_eq!(there, vec![winners[0] as u8; 4_000], "round {round}");
    }
    // Of writers that replace the same version, too.
    let path = Path::from("race/replace");
    let etag = store.put(&path, "0".into()).await.unwrap().e_tag;
    let puts = (0..16).map(|writer| {
        let version = UpdateVersion { e_tag: etag.clone(), version: None };
        let (store, path) = (store.clone(), path.clone());
        tokio::spawn(async move {
            let mode = PutOptions::from(PutMode::Update(version));
            store.put_opts(&path, format!("{writer}").into(), mode).await.is_ok()
        })
    });
    let won = join_all(puts).await.into_iter().filter(|won| *won.as_ref().unwrap()).count();
    assert!(won == 1 || !known.replaces_atomically, "{won} replaced one version");
}

async fn ranges(client: &Client) {
    let store = client.store();
    let path = Path::from("range/one");
    let body: Vec<u8> = (0..100_000u32).map(|at| (at / 7) as u8).collect();
    store.put(&path, body.clone().into()).await.unwrap();
    for (range, expected) in [
        (GetRange::Bounded(100..200), &body[100..200]),
        (GetRange::Bounded(0..1), &body[..1]),
        (GetRange::Bounded(99_990..200_000), &body[99_990..]),
        (GetRange::Offset(99_000), &body[99_000..]),
        (GetRange::Suffix(10), &body[99_990..]),
    ] {
        let options = GetOptions { range: Some(range.clone()), ..GetOptions::default() };
        let found = store.get_opts(&path, options).await.unwrap();
        assert_eq!(found.meta.size, 100_000);
        assert_eq!(found.bytes().await.unwrap(), expected, "{range:?}");
    }
    let part = client.get("range/one", &[("range", "bytes=100-199")]).await;
    assert_eq!(
        (part.status().as_u16(), header(&part, "content-range")),
        (206, "bytes 100-199/100000".to_owned())
    );
    let past = client.get("range/one", &[("range", "bytes=100000-100010")]).await;
    assert_eq!(past.status(), 416);
}

async fn conditional_reads(client: &Client) {
    let put = client.put("read/one", &[], b"one").await;
    let etag = header(&put, "etag");
    assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    for (method, name, value, status) in [
        (Method::GET, "if-none-match", etag.as_str(), 304),
        (Method::GET, "if-match", "\"00000000000000000000000000000000\"", 412),
        (Method::GET, "if-match", etag.as_str(), 200),
        (Method::HEAD, "if-none-match", etag.as_str(), 304),
        (Method::HEAD, "if-match", "\"00000000000000000000000000000000\"", 412),
    ] {
        let answer = client.read(method.clone(), "read/one", &[(name, value)]).await;
        assert_eq!(answer.status(), status, "{method} {name}: {value}");
    }
    let answer = client.read(Method::HEAD, "read/absent", &[]).await;
    assert_eq!(answer.status(), 404);
}

async fn metadata(client: &Client) {
    let store = client.store();
    let path = Path::from("meta/one");
    let key = Attribute::Metadata("tidelog-xxh3".into());
    let attributes = Attributes::from_iter([(key.clone(), "0123456789abcdef")]);
    let options = PutOptions { mode: PutMode::Create, attributes, ..PutOptions::default() };
    store.put_opts(&path, "hello".into(), options).await.unwrap();
    let head = GetOptions { head: true, ..GetOptions::default() };
    let found = store.get_opts(&path, head).await.unwrap();
    assert_eq!(found.meta.size, 5);
    assert_eq!(found.attributes.get(&key).map(|value| value.as_ref()), Some("0123456789abcdef"));
    assert!(store.head(&path).await.unwrap().last_modified.timestamp() > 1_700_000_000);
}

async fn checksums(client: &Client) {
    for algorithm in [Checksum::SHA256, Checksum::CRC64NVME] {
        let store = client.with_checksum(algorithm);
        store.put(&Path::from("sum/one"), "hello".into()).await.unwrap();
    }
    let head = client.read(Method::HEAD, "sum/one", &[("x-amz-checksum-mode", "ENABLED")]).await;
    assert_eq!(header(&head, "x-amz-checksum-crc64nvme"), "M3eFcAZSQlc=");
    // CRC-32C and SHA-256 of "hello".
    for (name, right, wrong) in [
        ("x-amz-checksum-crc32c", "mnG7TA==", "AAAAAA=="),
        (
            "x-amz-checksum-sha256",
            "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=",
            "AAAAul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=",
        ),
        ("x-amz-checksum-crc64nvme", "M3eFcAZSQlc=", "AAAFcAZSQlc="),
    ] {
        let put = client.put("sum/two", &[(name, right)], b"hello").await;
        assert_eq!(put.status(), 200, "{name}");
        let head = client.read(Method::HEAD, "sum/two", &[("x-amz-checksum-mode", "ENABLED")]).await;
        assert_eq!(header(&head, name), right, "{name}");
        let put = client.put("sum/two", &[(name, wrong)], b"hello").await;
        assert_eq!(put.status(), 400, "{name}: a body that is not what its checksum says");
    }
}

async fn listing(client: &Client) {
    let store = client.store();
    for at in 0..25 {
        store.put(&Path::from(format!("list/{at:02}")), "x".into()).await.unwrap();
    }
    for at in 0..3 {
        store.put(&Path::from(format!("list/sub{at}/x")), "x".into()).await.unwrap();
    }
    let prefix = Path::from("list");
    let all: Vec<_> = store.list(Some(&prefix)).try_collect().await.unwrap();
    let names: Vec<String> = all.iter().map(|meta| meta.location.to_string()).collect();
    assert_eq!((names.len(), names[0].as_str(), names[27].as_str()), (28, "list/00", "list/sub2/x"));
    let after: Vec<_> =
        store.list_with_offset(Some(&prefix), &Path::from("list/20")).try_collect().await.unwrap();
    assert_eq!((after.len(), after[0].location.as_ref()), (7, "list/21"));
    let split = store.list_with_delimiter(Some(&prefix)).await.unwrap();
    assert_eq!((split.objects.len(), split.common_prefixes.len()), (25, 3));

    let (mut token, mut seen, mut pages) = (String::new(), Vec::new(), 0);
    loop {
        let mut query = vec![("list-type", "2"), ("prefix", "list/"), ("delimiter", "/"), ("max-keys", "10")];
        if !token.is_empty() {
            query.push(("continuation-token", &token));
        }
        let page = client.ask(Method::GET, "", &query).await.send().await.unwrap();
        assert_eq!(page.status(), 200);
        let xml = page.text().await.unwrap();
        seen.extend(elements(&xml, "Key"));
        for group in elements(&xml, "CommonPrefixes") {
            seen.extend(elements(&group, "Prefix"));
        }
        pages += 1;
        let next = elements(&xml, "NextContinuationToken");
        assert_eq!(elements(&xml, "IsTruncated"), [(!next.is_empty()).to_string()]);
        match next.into_iter().next() {
            Some(next) => token = next,
            None => break,
        }
    }
    let told = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((told, seen.len(), pages), (28, 28, 3), "{seen:?}");
}

async fn deletes(client: &Client) {
    let store = client.store();
    let paths: Vec<_> = (0..25).map(|at| Ok(Path::from(format!("list/{at:02}")))).collect();
    let deleted = store.delete_stream(Box::pin(futures::stream::iter(paths)));
    assert_eq!(deleted.try_collect::<Vec<_>>().await.unwrap().len(), 25);
    let left: Vec<_> = store.list(Some(&Path::from("list"))).try_collect().await.unwrap();
    assert_eq!(left.len(), 3);
    // Of nothing: as good as done.
    let gone = client.ask(Method::DELETE, "list/00", &[]).await.send().await.unwrap();
    assert_eq!(gone.status(), 204);
}

async fn begin(client: &Client, key: &str) -> String {
    let answer = client.ask(Method::POST, key, &[("uploads", "")]).await.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    elements(&answer.text().await.unwrap(), "UploadId").remove(0)
}

async fn part(client: &Client, key: &str, id: &str, number: usize, body: Vec<u8>) -> String {
    let query = [("partNumber", number.to_string()), ("uploadId", id.to_owned())];
    let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = client.ask(Method::PUT, key, &query).await.body(body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    header(&answer, "etag")
}

async fn complete(client: &Client, key: &str, id: &str, etags: &[String], condition: bool) -> u16 {
    let parts = etags
        .iter()
        .enumerate()
        .map(|(at, etag)| format!("<Part><PartNumber>{}</PartNumber><ETag>{etag}</ETag></Part>", at + 1));
    let body = format!(
        "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{}</CompleteMultipartUpload>",
        parts.collect::<String>()
    );
    let mut request = client.ask(Method::POST, key, &[("uploadId", id)]).await.body(body);
    if condition {
        request = request.header("if-none-match", "*");
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    // An answer may begin with 200 and tell its error in the body.
    match elements(&answer.text().await.unwrap(), "Code").first().map(String::as_str) {
        Some("PreconditionFailed") => 412,
        Some(_) if status == 200 => 400,
        _ => status,
    }
}

async fn multipart(client: &Client, known: &Known) {
    const PART: usize = 5 << 20;
    let id = begin(client, "parts/one").await;
    let mut etags = Vec::new();
    for (at, length) in [PART, PART, 1_000].into_iter().enumerate() {
        etags.push(part(client, "parts/one", &id, at + 1, vec![at as u8; length]).await);
    }
    assert_eq!(client.get("parts/one", &[]).await.status(), 404, "nothing is there before it is complete");
    assert_eq!(complete(client, "parts/one", &id, &etags, true).await, 200);
    let whole = client.store().get(&Path::from("parts/one")).await.unwrap().bytes().await.unwrap();
    assert_eq!(whole.len(), 2 * PART + 1_000);
    assert!(whole[..PART].iter().all(|byte| *byte == 0) && whole[2 * PART..].iter().all(|byte| *byte == 2));

    let id = begin(client, "parts/one").await;
    let etag = part(client, "parts/one", &id, 1, b"other".to_vec()).await;
    assert_eq!(complete(client, "parts/one", &id, &[etag], true).await, 412, "there is one already");

    let id = begin(client, "parts/two").await;
    let etags = [
        part(client, "parts/two", &id, 1, b"small".to_vec()).await,
        part(client, "parts/two", &id, 2, b"small".to_vec()).await,
    ];
    let refused = complete(client, "parts/two", &id, &etags, false).await != 200;
    assert_eq!(refused, known.part_bytes_min, "a small part in the middle");

    let id = begin(client, "parts/three").await;
    part(client, "parts/three", &id, 1, b"x".to_vec()).await;
    let gone = client.ask(Method::DELETE, "parts/three", &[("uploadId", &id)]).await.send().await.unwrap();
    assert_eq!(gone.status(), 204);
    let status = complete(client, "parts/three", &id, &["\"x\"".to_owned()], false).await;
    assert!(status >= 400, "an upload that was given up: {status}");
}

async fn signatures(client: &Client, known: &Known) {
    let wrong = client.with_wrong_secret().put(&Path::from("secret"), "x".into()).await;
    let refused = matches!(wrong, Err(Error::PermissionDenied { .. }));
    assert_eq!(refused, known.signatures, "{wrong:?}");
}
