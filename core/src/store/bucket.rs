//! The bucket itself: whether it is there, and making it. `object_store` does neither.

use std::sync::Arc;
use std::time::Duration;

use object_store::ClientOptions;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{
    CredentialProvider, HttpClient, HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector,
};

use super::aws::cannot;
use super::url::S3Url;
use crate::env::SharedEnv;
use crate::limits::{S3_ERROR_BYTES_MAX, TABLE_CONNECT_MS, TABLE_TIMEOUT_MS};
use crate::{Error, Result};

/// A bucket, to look at and to make.
pub(super) struct Bucket {
    url: S3Url,
    region: String,
    host: String,
    http: HttpClient,
    credentials: Arc<dyn CredentialProvider<Credential = AwsCredential>>,
    env: SharedEnv,
}

/// An answer of S3.
struct Told {
    status: u16,
    /// `x-amz-bucket-region`.
    region: Option<String>,
    /// The beginning of the body.
    words: String,
}

impl Bucket {
    pub(super) fn new(
        url: &S3Url,
        region: &str,
        endpoint: Option<String>,
        credentials: Arc<dyn CredentialProvider<Credential = AwsCredential>>,
        env: SharedEnv,
    ) -> Result<Self> {
        let host = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let options = ClientOptions::new()
            .with_allow_http(host.starts_with("http:"))
            .with_connect_timeout(Duration::from_millis(TABLE_CONNECT_MS))
            .with_timeout(Duration::from_millis(TABLE_TIMEOUT_MS));
        let http =
            ReqwestConnector::default().connect(&options).map_err(|error| cannot(url, error.to_string()))?;
        Ok(Self { url: url.clone(), region: region.to_owned(), host, http, credentials, env })
    }

    /// Refuses a bucket that is not there, or not ours, or elsewhere.
    pub(super) async fn check(&self) -> Result<()> {
        match self.look().await? {
            true => Ok(()),
            false => {
                Err(self.cannot("there is no such bucket: make it with `tidelog init`, or correct its name"))
            }
        }
    }

    /// Makes it unless it is there.
    pub(super) async fn create(&self) -> Result<()> {
        if self.look().await? {
            return Ok(());
        }
        let body = match self.region.as_str() {
            "us-east-1" => String::new(),
            region => format!(
                "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                 <LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
            ),
        };
        let told = self.ask("PUT", body).await?;
        match told.status {
            200 => Ok(()),
            409 if told.words.contains("BucketAlreadyOwnedByYou") => Ok(()),
            409 => Err(self.cannot("somebody else has a bucket of this name: choose another")),
            _ => Err(self.unexpected("creating the bucket", &told)),
        }
    }

    async fn look(&self) -> Result<bool> {
        let told = self.ask("HEAD", String::new()).await?;
        match told.status {
            200 => Ok(true),
            404 => Ok(false),
            301 | 400 if told.region.as_ref().is_some_and(|region| *region != self.region) => {
                let region = told.region.unwrap_or_default();
                Err(self.cannot(&format!("the bucket is in {region}, not in {}: say region={region}", self.region)))
            }
            403 => Err(self.cannot(
                "S3 refuses access (403): the bucket is another account's, the credentials are wrong, or they lack \
                 s3:ListBucket, without which a missing object cannot be told from a forbidden one",
            )),
            _ => Err(self.unexpected("looking at the bucket", &told)),
        }
    }

    /// One request, three times if nobody answers: all of them may be repeated.
    async fn ask(&self, method: &str, body: String) -> Result<Told> {
        let mut attempt = 1;
        loop {
            let cause = match self.try_ask(method, body.clone()).await {
                Ok(told) if told.status < 500 => return Ok(told),
                Ok(told) => format!("status {} {}", told.status, told.words),
                Err(cause) => cause,
            };
            if attempt == 3 {
                let cause = format!("bucket {} at {}: {cause}", self.url.bucket, self.host);
                return Err(Error::Unavailable { what: "looking at the bucket", cause });
            }
            self.env.sleep(Duration::from_millis(50 << attempt)).await;
            attempt += 1;
        }
    }

    async fn try_ask(&self, method: &str, body: String) -> Result<Told, String> {
        let uri = format!("{}/{}", self.host, self.url.bucket);
        let mut request = HttpRequest::new(HttpRequestBody::from(body));
        *request.method_mut() = method.parse().map_err(|error| format!("{error}"))?;
        *request.uri_mut() = uri.parse().map_err(|error| format!("{error}"))?;
        let credential = self.credentials.get_credential().await.map_err(|error| error.to_string())?;
        AwsAuthorizer::new(&credential, "s3", &self.region)
            .try_authorize(&mut request, None)
            .map_err(|error| error.to_string())?;
        let response = self.http.execute(request).await.map_err(|error| super::aws::causes(&error))?;
        let status = response.status().as_u16();
        let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let region = header("x-amz-bucket-region");
        let length = header("content-length").and_then(|length| length.parse::<usize>().ok());
        let small = method != "HEAD" && length.is_none_or(|length| length <= S3_ERROR_BYTES_MAX);
        let words = if status >= 300 && small { first_words(response).await? } else { String::new() };
        Ok(Told { status, region, words })
    }

    fn cannot(&self, reason: &str) -> Error {
        cannot(&self.url, format!("bucket {}: {reason}", self.url.bucket))
    }

    fn unexpected(&self, what: &str, told: &Told) -> Error {
        self.cannot(&format!(
            "{what} at {} was answered with status {} {}",
            self.host, told.status, told.words
        ))
    }
}

/// The beginning of the body of an error.
async fn first_words(response: object_store::client::HttpResponse) -> Result<String, String> {
    use futures::StreamExt;
    let mut stream = response.into_body().bytes_stream();
    let mut bytes = Vec::new();
    while let Some(part) = stream.next().await {
        bytes.extend_from_slice(&part.map_err(|error| error.to_string())?);
        if bytes.len() > S3_ERROR_BYTES_MAX {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&bytes).chars().filter(|char| !char.is_control()).take(500).collect())
}
