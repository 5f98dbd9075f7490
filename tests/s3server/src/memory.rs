//! Buckets and objects in memory. Every write checks its condition and takes effect under one lock: of several writers
//! on one condition exactly one wins.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use s3s::dto::{Checksum, ETag, ETagCondition, Metadata};
use s3s::{S3Result, s3_error};

/// S3's own limit on all parts of an upload but the last.
const PART_BYTES_MIN: usize = 5 << 20;
/// S3's own limit on a page of names.
const PAGE_NAMES: usize = 1_000;

/// An object. Never changes; a put makes another.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stored {
    pub data: Bytes,
    pub etag: String,
    pub modified: Option<SystemTime>,
    pub sums: Checksum,
    pub metadata: Option<Metadata>,
    pub content_type: Option<String>,
}

/// What a write asks of what is there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Condition {
    pub if_none_match: Option<ETagCondition>,
    pub if_match: Option<ETagCondition>,
}

/// A part of an upload, as the request to complete it names it.
#[derive(Debug, Clone)]
pub(crate) struct NamedPart {
    pub number: i32,
    pub etag: Option<String>,
}

#[derive(Debug)]
struct Upload {
    key: String,
    of: Stored,
    parts: BTreeMap<i32, Stored>,
}

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<String, Arc<Stored>>,
    uploads: BTreeMap<String, Upload>,
}

/// A page of names.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub objects: Vec<(String, Arc<Stored>)>,
    pub prefixes: BTreeSet<String>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

#[derive(Debug, Default)]
struct Inner {
    buckets: BTreeMap<String, Bucket>,
    writes: u64,
}

/// All buckets.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    inner: Mutex<Inner>,
    /// Broken on purpose: conditions of writes are not looked at.
    pub ignore_conditions: AtomicBool,
}

impl Condition {
    fn holds(&self, there: Option<&Stored>) -> S3Result<()> {
        if let (Some(condition), Some(there)) = (&self.if_none_match, there)
            && matches(condition, there)
        {
            return Err(s3_error!(PreconditionFailed, "At least one of the pre-conditions did not hold"));
        }
        match (&self.if_match, there) {
            (Some(_), None) => Err(s3_error!(NoSuchKey)),
            (Some(condition), Some(there)) if !matches(condition, there) => {
                Err(s3_error!(PreconditionFailed, "At least one of the pre-conditions did not hold"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether an ETag condition names this object.
pub(crate) fn matches(condition: &ETagCondition, there: &Stored) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(ETag::Strong(etag) | ETag::Weak(etag)) => *etag == there.etag,
    }
}

impl Inner {
    fn bucket(&mut self, name: &str) -> S3Result<&mut Bucket> {
        self.buckets.get_mut(name).ok_or_else(|| s3_error!(NoSuchBucket, "The bucket does not exist"))
    }

    fn etag(&mut self) -> String {
        self.writes += 1;
        format!("{:032x}", self.writes)
    }
}

impl Memory {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, condition: &Condition, there: Option<&Stored>) -> S3Result<()> {
        if self.ignore_conditions.load(Ordering::Relaxed) {
            return Ok(());
        }
        condition.holds(there)
    }

    /// Whether it was not there.
    pub fn create_bucket(&self, name: &str) -> bool {
        let mut inner = self.inner();
        let fresh = !inner.buckets.contains_key(name);
        inner.buckets.entry(name.to_owned()).or_default();
        fresh
    }

    pub fn has_bucket(&self, name: &str) -> bool {
        self.inner().buckets.contains_key(name)
    }

    pub fn put(&self, bucket: &str, key: &str, mut object: Stored, on: &Condition) -> S3Result<String> {
        let mut inner = self.inner();
        let etag = inner.etag();
        let objects = &mut inner.bucket(bucket)?.objects;
        self.check(on, objects.get(key).map(|there| &**there))?;
        object.etag.clone_from(&etag);
        objects.insert(key.to_owned(), Arc::new(object));
        Ok(etag)
    }

    pub fn get(&self, bucket: &str, key: &str) -> S3Result<Arc<Stored>> {
        let mut inner = self.inner();
        let found = inner.bucket(bucket)?.objects.get(key).cloned();
        found.ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))
    }

    pub fn delete(&self, bucket: &str, key: &str, on: &Condition) -> S3Result<()> {
        let mut inner = self.inner();
        let objects = &mut inner.bucket(bucket)?.objects;
        // Without a condition, an absent object is as good as deleted.
        self.check(on, objects.get(key).map(|there| &**there))?;
        objects.remove(key);
        Ok(())
    }

    /// Names of `bucket` that begin with `prefix` and come after `after`, at most `limit` of objects and prefixes.
    pub fn list(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: &str,
        after: &str,
        limit: usize,
    ) -> S3Result<Page> {
        let limit = limit.min(PAGE_NAMES);
        let mut inner = self.inner();
        let objects = &inner.bucket(bucket)?.objects;
        let mut page = Page::default();
        if limit == 0 {
            return Ok(page);
        }
        let mut last = after.to_owned();
        let from = match after < prefix {
            true => Bound::Included(prefix.to_owned()),
            false => Bound::Excluded(after.to_owned()),
        };
        for (key, object) in objects.range((from, Bound::Unbounded)) {
            let Some(rest) = key.strip_prefix(prefix) else { break };
            let group = match delimiter.is_empty() {
                true => None,
                false => rest.find(delimiter).map(|at| &key[..prefix.len() + at + delimiter.len()]),
            };
            // Of a group that an earlier page, or this one, has told already.
            if group.is_some_and(|group| page.prefixes.contains(group) || after == group) {
                continue;
            }
            if page.objects.len() + page.prefixes.len() == limit {
                page.next = Some(last);
                break;
            }
            match group {
                Some(group) => _ = page.prefixes.insert(group.to_owned()),
                None => page.objects.push((key.clone(), object.clone())),
            }
            last = group.unwrap_or(key).to_owned();
        }
        Ok(page)
    }

    pub fn begin_upload(&self, bucket: &str, key: &str, of: Stored) -> S3Result<String> {
        let mut inner = self.inner();
        let id = format!("upload-{}", inner.etag());
        let upload = Upload { key: key.to_owned(), of, parts: BTreeMap::new() };
        inner.bucket(bucket)?.uploads.insert(id.clone(), upload);
        Ok(id)
    }

    pub fn put_part(
        &self,
        bucket: &str,
        key: &str,
        id: &str,
        number: i32,
        mut part: Stored,
    ) -> S3Result<String> {
        if !(1..=10_000).contains(&number) {
            return Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000"));
        }
        let mut inner = self.inner();
        part.etag = inner.etag();
        let etag = part.etag.clone();
        let upload = inner.bucket(bucket)?.uploads.get_mut(id);
        let upload = upload.filter(|upload| upload.key == key).ok_or_else(|| s3_error!(NoSuchUpload))?;
        upload.parts.insert(number, part);
        Ok(etag)
    }

    pub fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        id: &str,
        named: &[NamedPart],
        on: &Condition,
    ) -> S3Result<Arc<Stored>> {
        let mut inner = self.inner();
        let etag = inner.etag();
        let bucket = inner.bucket(bucket)?;
        let upload = bucket.uploads.get(id).filter(|upload| upload.key == key);
        let upload = upload.ok_or_else(|| s3_error!(NoSuchUpload))?;
        let data = join(&upload.parts, named)?;
        let mut object = Stored { etag: format!("{etag}-{}", named.len()), ..upload.of.clone() };
        object.sums = crate::s3::default_sum(&data);
        object.data = data;
        self.check(on, bucket.objects.get(key).map(|there| &**there))?;
        let object = Arc::new(object);
        bucket.objects.insert(key.to_owned(), object.clone());
        bucket.uploads.remove(id);
        Ok(object)
    }

    pub fn abort_upload(&self, bucket: &str, key: &str, id: &str) -> S3Result<()> {
        let mut inner = self.inner();
        let uploads = &mut inner.bucket(bucket)?.uploads;
        if uploads.get(id).is_none_or(|upload| upload.key != key) {
            return Err(s3_error!(NoSuchUpload));
        }
        uploads.remove(id);
        Ok(())
    }
}

/// The parts that the request names, in its order, which must be ascending.
fn join(parts: &BTreeMap<i32, Stored>, named: &[NamedPart]) -> S3Result<Bytes> {
    if named.is_empty() {
        return Err(s3_error!(MalformedXML, "an upload has at least one part"));
    }
    if named.windows(2).any(|pair| pair[0].number >= pair[1].number) {
        return Err(s3_error!(InvalidPartOrder));
    }
    let mut data = BytesMut::new();
    for (at, wanted) in named.iter().enumerate() {
        let part = parts.get(&wanted.number).ok_or_else(|| s3_error!(InvalidPart))?;
        if wanted.etag.as_ref().is_some_and(|etag| *etag != part.etag) {
            return Err(s3_error!(InvalidPart));
        }
        if at + 1 < named.len() && part.data.len() < PART_BYTES_MIN {
            return Err(s3_error!(EntityTooSmall));
        }
        data.extend_from_slice(&part.data);
    }
    Ok(data.freeze())
}
