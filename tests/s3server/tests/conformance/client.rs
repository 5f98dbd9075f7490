//! Two clients of one server: `object_store`, and plain HTTP by presigned URLs for what `object_store` hides.

use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use reqwest::{Method, RequestBuilder, Response};

/// The suite's bucket.
pub const BUCKET: &str = "conformance";

/// Both clients.
pub struct Client {
    pub endpoint: String,
    pub http: reqwest::Client,
}

impl Client {
    pub fn new(endpoint: &str) -> Self {
        // Whoever set one before may keep it.
        _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
        Self { endpoint: endpoint.to_owned(), http }
    }

    fn builder(&self, secret: &str) -> AmazonS3Builder {
        AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_bucket_name(BUCKET)
            .with_access_key_id("test")
            .with_secret_access_key(secret)
            .with_retry(object_store::RetryConfig { max_retries: 0, ..Default::default() })
    }

    pub fn store(&self) -> AmazonS3 {
        self.builder("test").build().unwrap()
    }

    pub fn with_checksum(&self, checksum: Checksum) -> AmazonS3 {
        self.builder("test").with_checksum_algorithm(checksum).build().unwrap()
    }

    pub fn with_wrong_secret(&self) -> AmazonS3 {
        self.builder("wrong").build().unwrap()
    }

    /// A request to `key` (empty: the bucket) with these query parameters.
    pub async fn ask(&self, method: Method, key: &str, query: &[(&str, &str)]) -> RequestBuilder {
        self.sign(method, key, query, &[]).await
    }

    /// S3 wants all headers that begin with `x-amz-` signed.
    async fn sign(
        &self,
        method: Method,
        key: &str,
        query: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> RequestBuilder {
        let mut options = SignedUrlOptions::default()
            .with_query(query.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        for (name, value) in headers.iter().filter(|(name, _)| name.starts_with("x-amz-")) {
            options = options.with_signed_header(name.parse().unwrap(), value.parse().unwrap());
        }
        let (store, path) = (self.store(), Path::from(key));
        let url = store.signed_url_opts(method.clone(), &path, Duration::from_secs(300), &options);
        let mut request = self.http.request(method, url.await.unwrap());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request
    }

    pub async fn put(&self, key: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.sign(Method::PUT, key, &[], headers).await.body(body.to_vec()).send().await.unwrap()
    }

    pub async fn get(&self, key: &str, headers: &[(&str, &str)]) -> Response {
        self.read(Method::GET, key, headers).await
    }

    pub async fn read(&self, method: Method, key: &str, headers: &[(&str, &str)]) -> Response {
        self.sign(method, key, &[], headers).await.send().await.unwrap()
    }
}

/// A header as text, or nothing.
pub fn header(response: &Response, name: &str) -> String {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// What stands between `<name>` and `</name>`, each time.
pub fn elements(xml: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(&open).skip(1).filter_map(|rest| Some(rest.split_once(&close)?.0.to_owned())).collect()
}
