//! The bucket as an [`ObjectStore`].

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::aws::{AmazonS3Builder, AwsCredentialProvider};
use object_store::prefix::PrefixStore;

use super::S3Url;
use crate::{Error, Result};

/// The objects of `url`. `endpoint` replaces the one that follows from the region.
pub(crate) fn open(
    url: &S3Url,
    region: &str,
    endpoint: Option<&str>,
    credentials: AwsCredentialProvider,
) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&url.bucket)
        .with_region(region)
        .with_credentials(credentials);
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http:"));
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
