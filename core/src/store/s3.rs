//! The bucket as an [`ObjectStore`], which does each request once.
//!
//! `object_store` gives what was refused only as words, and a 409 as "already exists". So the connection looks at each
//! answer first: what is no success, and is not one of the three statuses that `object_store` tells apart rightly, becomes
//! an error with an [`Answer`] in it, for `objects` to judge.
//!
//! Nor does it complete a multipart upload on condition, so the connection adds that: no request overwrites an object.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use object_store::aws::{AmazonS3Builder, AwsCredentialProvider, Checksum, S3ConditionalPut};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::S3Url;
use crate::limits::{OBJECT_ANSWER_BYTES_MAX, OBJECT_CONNECT_MS, OBJECT_IDLE_MS};
use crate::objects::Answer;
use crate::{Error, Result};

/// The objects of `url`. `endpoint` replaces the one that follows from the region.
pub(crate) fn open(
    url: &S3Url,
    region: &str,
    endpoint: Option<&str>,
    credentials: AwsCredentialProvider,
) -> Result<Arc<dyn ObjectStore>> {
    let options = ClientOptions::new()
        // Time and again are the business of `objects`, which knows how much is moved.
        .with_timeout_disabled()
        .with_connect_timeout(Duration::from_millis(OBJECT_CONNECT_MS))
        .with_pool_idle_timeout(Duration::from_millis(OBJECT_IDLE_MS))
        .with_allow_http(endpoint.is_some_and(|endpoint| endpoint.starts_with("http:")));
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&url.bucket)
        .with_region(region)
        .with_credentials(credentials)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // The store checks the body before it answers, and keeps the sum with the object.
        .with_checksum_algorithm(Checksum::CRC64NVME)
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
        .with_client_options(options)
        .with_http_connector(Connector);
    match endpoint {
        Some(endpoint) => builder = builder.with_endpoint(endpoint),
        // Path style is what endpoints of others know; a bucket with a dot in its name has no certificate as a host.
        None => builder = builder.with_virtual_hosted_style_request(!url.bucket.contains('.')),
    }
    let store = builder.build().map_err(|error| Error::CannotOpen {
        url: format!("s3://{}", url.bucket),
        reason: error.to_string(),
    })?;
    Ok(match url.prefix.as_str() {
        "" => Arc::new(store),
        prefix => Arc::new(PrefixStore::new(store, prefix)),
    })
}

/// Makes connections whose refusals carry an [`Answer`].
#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Telling(ReqwestConnector::default().connect(options)?)))
    }
}

#[derive(Debug)]
struct Telling(HttpClient);

#[async_trait]
impl HttpService for Telling {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if completes(request.method().as_str(), request.uri().query())
            && let Ok(any) = "*".parse()
        {
            request.headers_mut().insert("if-none-match", any);
        }
        let response = self.0.execute(request).await?;
        let status = response.status().as_u16();
        // Not modified, not found, precondition failed: `object_store` has an error of its own for each.
        if response.status().is_success() || matches!(status, 304 | 412) {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let mut words = Vec::new();
        let mut stream = body.bytes_stream();
        while let Some(Ok(part)) = stream.next().await {
            let room = OBJECT_ANSWER_BYTES_MAX.saturating_sub(words.len());
            words.extend_from_slice(&part[..part.len().min(room)]);
            if words.len() >= OBJECT_ANSWER_BYTES_MAX {
                break;
            }
        }
        let text = String::from_utf8_lossy(&words);
        let code = element(&text, "Code");
        if status == 404 && code != "NoSuchBucket" {
            return Ok(HttpResponse::from_parts(parts, Bytes::from(words).into()));
        }
        let answer = Answer { status, code, message: element(&text, "Message") };
        Err(HttpError::new(HttpErrorKind::Unknown, answer))
    }
}

/// `CompleteMultipartUpload`.
fn completes(method: &str, query: Option<&str>) -> bool {
    let mut parts = query.unwrap_or_default().split('&');
    method == "POST" && parts.any(|part| part.starts_with("uploadId="))
}

/// What stands between `<name>` and `</name>`, without what could spoil a line of a log.
fn element(xml: &str, name: &str) -> String {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let inner = xml.split_once(&open).and_then(|(_, rest)| rest.split_once(&close));
    let inner = inner.map_or("", |(inner, _)| inner);
    inner.chars().filter(|char| !char.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_an_upload_gets_the_condition() {
        assert!(completes("POST", Some("uploadId=7")));
        assert!(!completes("POST", Some("uploads")));
        assert!(!completes("POST", Some("delete")));
        assert!(!completes("POST", None));
        assert!(!completes("PUT", Some("partNumber=1&uploadId=7")));
        assert!(!completes("DELETE", Some("uploadId=7")));
    }

    #[test]
    fn elements_of_an_error_are_found() {
        let xml = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>a\nb</Message></Error>";
        assert_eq!(element(xml, "Code"), "SlowDown");
        assert_eq!(element(xml, "Message"), "ab");
        assert_eq!(element("<Code>", "Code"), "");
        assert_eq!(element("", "Code"), "");
    }
}
