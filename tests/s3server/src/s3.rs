//! The operations, between `s3s` (protocol, signatures) and [`Memory`](crate::memory::Memory).

use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::*;
use s3s::{Body, S3, S3Request, S3Response, S3Result, TrailingHeaders, s3_error};

use crate::memory::{Condition, Memory, NamedPart, Stored, matches};

/// Largest body of one request.
const BODY_BYTES_MAX: usize = 256 << 20;

/// The service.
#[derive(Debug)]
pub(crate) struct Service(pub Arc<Memory>);

/// The checksums that a request carries, and the one that S3 adds itself.
#[derive(Debug, Default)]
struct Claimed {
    crc32: Option<String>,
    crc32c: Option<String>,
    crc64nvme: Option<String>,
    sha1: Option<String>,
    sha256: Option<String>,
    md5: Option<String>,
}

macro_rules! claimed {
    ($input:expr) => {
        Claimed {
            crc32: $input.checksum_crc32.take(),
            crc32c: $input.checksum_crc32c.take(),
            crc64nvme: $input.checksum_crc64nvme.take(),
            sha1: $input.checksum_sha1.take(),
            sha256: $input.checksum_sha256.take(),
            md5: $input.content_md5.take(),
        }
    };
}

/// Sets the checksum fields of an output.
macro_rules! sums {
    ($output:expr, $sums:expr) => {{
        let sums = $sums.clone();
        $output.checksum_crc32 = sums.checksum_crc32;
        $output.checksum_crc32c = sums.checksum_crc32c;
        $output.checksum_crc64nvme = sums.checksum_crc64nvme;
        $output.checksum_sha1 = sums.checksum_sha1;
        $output.checksum_sha256 = sums.checksum_sha256;
    }};
}

/// CRC64NVME, which S3 computes of every object by itself.
pub(crate) fn default_sum(data: &[u8]) -> Checksum {
    let mut hasher = ChecksumHasher { crc64nvme: Some(Crc64Nvme::new()), ..ChecksumHasher::default() };
    hasher.update(data);
    hasher.finalize()
}

impl Claimed {
    /// Those of an aws-chunked body stand behind it.
    fn take_trailers(&mut self, trailers: Option<&TrailingHeaders>) {
        let Some(trailers) = trailers.and_then(TrailingHeaders::take) else { return };
        let find = |name: &str| Some(trailers.get(name)?.to_str().ok()?.to_owned());
        for (name, claim) in [
            ("x-amz-checksum-crc32", &mut self.crc32),
            ("x-amz-checksum-crc32c", &mut self.crc32c),
            ("x-amz-checksum-crc64nvme", &mut self.crc64nvme),
            ("x-amz-checksum-sha1", &mut self.sha1),
            ("x-amz-checksum-sha256", &mut self.sha256),
        ] {
            if let Some(value) = find(name) {
                *claim = Some(value);
            }
        }
    }

    /// The checksums of `data`, if they are what the request says.
    fn check(&self, data: &[u8]) -> S3Result<Checksum> {
        let mut hasher = ChecksumHasher {
            crc32: self.crc32.is_some().then(Crc32::new),
            crc32c: self.crc32c.is_some().then(Crc32c::new),
            sha1: self.sha1.is_some().then(Sha1::new),
            sha256: self.sha256.is_some().then(Sha256::new),
            crc64nvme: Some(Crc64Nvme::new()),
        };
        hasher.update(data);
        let sums = hasher.finalize();
        for (claim, truth) in [
            (&self.crc32, &sums.checksum_crc32),
            (&self.crc32c, &sums.checksum_crc32c),
            (&self.sha1, &sums.checksum_sha1),
            (&self.sha256, &sums.checksum_sha256),
            (&self.crc64nvme, &sums.checksum_crc64nvme),
        ] {
            if claim.is_some() && claim != truth {
                return Err(s3_error!(BadDigest, "The checksum you specified did not match the payload."));
            }
        }
        if let Some(claim) = &self.md5
            && base64_of(&Md5::checksum(data)) != *claim
        {
            return Err(s3_error!(BadDigest, "The Content-MD5 you specified did not match the payload."));
        }
        Ok(sums)
    }
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

async fn collect(body: Option<StreamingBlob>, length: Option<i64>) -> S3Result<Bytes> {
    let Some(mut body) = body else { return Ok(Bytes::new()) };
    let length = length.and_then(|length| usize::try_from(length).ok());
    let mut data = BytesMut::with_capacity(length.unwrap_or(0).min(BODY_BYTES_MAX));
    while let Some(part) = body.next().await {
        // A signature of the body that does not match comes as an error of the stream, too.
        let part = part.map_err(|error| s3_error!(IncompleteBody, "the body broke off: {error}"))?;
        if data.len() + part.len() > BODY_BYTES_MAX {
            return Err(s3_error!(EntityTooLarge));
        }
        data.extend_from_slice(&part);
    }
    if length.is_some_and(|length| length != data.len()) {
        return Err(s3_error!(IncompleteBody));
    }
    Ok(data.freeze())
}

fn now() -> Option<SystemTime> {
    Some(SystemTime::now())
}

fn strong(etag: &str) -> Option<ETag> {
    Some(ETag::Strong(etag.to_owned()))
}

/// The conditions of a read: what they refuse, and with what.
fn readable(there: &Stored, yes: Option<&ETagCondition>, no: Option<&ETagCondition>) -> S3Result<()> {
    if yes.is_some_and(|condition| !matches(condition, there)) {
        return Err(s3_error!(PreconditionFailed));
    }
    if no.is_some_and(|condition| matches(condition, there)) {
        return Err(s3_error!(NotModified));
    }
    Ok(())
}

fn cut(there: &Stored, range: Option<Range>) -> S3Result<(Bytes, Option<String>)> {
    let Some(range) = range else { return Ok((there.data.clone(), None)) };
    let size = there.data.len() as u64;
    let range = range.check(size)?;
    let told = format!("bytes {}-{}/{size}", range.start, range.end - 1);
    Ok((there.data.slice(range.start as usize..range.end as usize), Some(told)))
}

/// Keys in a listing that asked for them URL-encoded.
fn encoded(key: &str, wanted: bool) -> String {
    if !wanted {
        return key.to_owned();
    }
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                out.push(byte.into())
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[async_trait::async_trait]
impl S3 for Service {
    async fn create_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let name = request.input.bucket;
        if !self.0.create_bucket(&name) {
            return Err(s3_error!(BucketAlreadyOwnedByYou));
        }
        let location = Some(format!("/{name}"));
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        match self.0.has_bucket(&request.input.bucket) {
            true => Ok(S3Response::new(HeadBucketOutput::default())),
            false => Err(s3_error!(NoSuchBucket)),
        }
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let mut input = request.input;
        let mut claimed = claimed!(input);
        let data = collect(input.body.take(), input.content_length).await?;
        claimed.take_trailers(request.trailing_headers.as_ref());
        let sums = claimed.check(&data)?;
        let object = Stored {
            data,
            etag: String::new(),
            modified: now(),
            sums,
            metadata: input.metadata,
            content_type: input.content_type,
        };
        let mut output = PutObjectOutput::default();
        sums!(output, object.sums);
        let on = Condition { if_none_match: input.if_none_match, if_match: input.if_match };
        output.e_tag = strong(&self.0.put(&input.bucket, &input.key, object, &on)?);
        Ok(S3Response::new(output))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let there = self.0.get(&input.bucket, &input.key)?;
        readable(&there, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let whole = input.range.is_none();
        let (data, content_range) = cut(&there, input.range)?;
        let mut output = GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(data.len() as i64),
            content_range,
            content_type: there.content_type.clone(),
            e_tag: strong(&there.etag),
            last_modified: there.modified.map(Timestamp::from),
            metadata: there.metadata.clone(),
            body: Some(StreamingBlob::from(Body::from(data))),
            ..Default::default()
        };
        if whole && input.checksum_mode.is_some() {
            sums!(output, there.sums);
        }
        Ok(S3Response::new(output))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let there = self.0.get(&input.bucket, &input.key)?;
        readable(&there, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let mut output = HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(there.data.len() as i64),
            content_type: there.content_type.clone(),
            e_tag: strong(&there.etag),
            last_modified: there.modified.map(Timestamp::from),
            metadata: there.metadata.clone(),
            ..Default::default()
        };
        if input.checksum_mode.is_some() {
            sums!(output, there.sums);
        }
        Ok(S3Response::new(output))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        let on = Condition { if_none_match: None, if_match: input.if_match };
        self.0.delete(&input.bucket, &input.key, &on)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let input = request.input;
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        if !self.0.has_bucket(&input.bucket) {
            return Err(s3_error!(NoSuchBucket));
        }
        for object in input.delete.objects {
            let if_match = object.e_tag.map(ETagCondition::ETag);
            match self.0.delete(&input.bucket, &object.key, &Condition { if_none_match: None, if_match }) {
                Ok(()) => deleted.push(DeletedObject { key: Some(object.key), ..Default::default() }),
                Err(error) => errors.push(Error {
                    code: Some(error.code().as_str().to_owned()),
                    key: Some(object.key),
                    message: error.message().map(str::to_owned),
                    version_id: None,
                }),
            }
        }
        let quiet = input.delete.quiet.unwrap_or(false);
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: (!quiet).then_some(deleted),
            errors: (!errors.is_empty()).then_some(errors),
            ..Default::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let after = input.continuation_token.clone().unwrap_or_else(|| text(&input.start_after));
        let limit = usize::try_from(input.max_keys.unwrap_or(1_000))
            .map_err(|_| s3_error!(InvalidArgument, "max-keys must not be negative"))?;
        let (prefix, delimiter) = (text(&input.prefix), text(&input.delimiter));
        let page = self.0.list(&input.bucket, &prefix, &delimiter, &after, limit)?;
        let encode = input.encoding_type.is_some();
        let contents: Vec<Object> = page
            .objects
            .iter()
            .map(|(key, object)| Object {
                key: Some(encoded(key, encode)),
                size: Some(object.data.len() as i64),
                e_tag: strong(&object.etag),
                last_modified: object.modified.map(Timestamp::from),
                ..Default::default()
            })
            .collect();
        let prefixes: Vec<CommonPrefix> =
            page.prefixes.iter().map(|name| CommonPrefix { prefix: Some(encoded(name, encode)) }).collect();
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(encoded(&prefix, encode)),
            delimiter: input.delimiter,
            max_keys: Some(limit.min(1_000) as i32),
            key_count: Some((contents.len() + prefixes.len()) as i32),
            is_truncated: Some(page.next.is_some()),
            continuation_token: input.continuation_token,
            next_continuation_token: page.next,
            start_after: input.start_after,
            encoding_type: input.encoding_type,
            contents: (!contents.is_empty()).then_some(contents),
            common_prefixes: (!prefixes.is_empty()).then_some(prefixes),
            ..Default::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        let of = Stored {
            modified: now(),
            metadata: input.metadata,
            content_type: input.content_type,
            ..Stored::default()
        };
        let id = self.0.begin_upload(&input.bucket, &input.key, of)?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            checksum_algorithm: input.checksum_algorithm,
            ..Default::default()
        }))
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let mut input = request.input;
        let mut claimed = claimed!(input);
        let data = collect(input.body.take(), input.content_length).await?;
        claimed.take_trailers(request.trailing_headers.as_ref());
        let sums = claimed.check(&data)?;
        let mut output = UploadPartOutput::default();
        sums!(output, sums);
        let part = Stored { data, sums, ..Stored::default() };
        let etag = self.0.put_part(&input.bucket, &input.key, &input.upload_id, input.part_number, part)?;
        output.e_tag = strong(&etag);
        Ok(S3Response::new(output))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let parts = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let named: Vec<NamedPart> = parts
            .into_iter()
            .map(|part| NamedPart {
                number: part.part_number.unwrap_or(0),
                etag: part.e_tag.map(ETag::into_value),
            })
            .collect();
        let on = Condition { if_none_match: input.if_none_match, if_match: input.if_match };
        let object = self.0.complete_upload(&input.bucket, &input.key, &input.upload_id, &named, &on)?;
        let mut output = CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: strong(&object.etag),
            checksum_type: Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT)),
            ..Default::default()
        };
        sums!(output, object.sums);
        Ok(S3Response::new(output))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = request.input;
        self.0.abort_upload(&input.bucket, &input.key, &input.upload_id)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}
