//! A store on AWS: region and credentials by the SDK's usual chain (environment, profile, SSO, web identity, container,
//! instance), for the table and the bucket alike.
//!
//! What is missing is said at once and by name: no credentials, no region, no bucket, one of another region or account;
//! the table says what it lacks with its first answer.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_async::rt::sleep::{AsyncSleep, Sleep};
use aws_smithy_async::time::TimeSource;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_types::service_config::ServiceConfigKey;
use futures::FutureExt;
use object_store::aws::AwsCredential;
use object_store::client::CredentialProvider;

use super::bucket::Bucket;
use super::{Place, S3Url, Store, StoreUrl, s3, url::is_region};
use crate::env::SharedEnv;
use crate::limits::{CREDENTIALS_EARLY_MS, CREDENTIALS_MS_MAX};
use crate::objects::Objects;
use crate::table::DynamoTable;
use crate::{Error, Result};

/// Opens the store at `url`; makes bucket and table where they are absent, if `create`.
pub(super) async fn open(url: &StoreUrl, place: &S3Url, env: SharedEnv, create: bool) -> Result<Store> {
    let access = Access::load(place, env.clone()).await?;
    if create {
        access.create().await?;
    } else {
        access.bucket()?.check().await?;
    }
    let objects = access.objects()?;
    Ok(Store { table: Arc::new(access.table()), objects, url: url.clone() })
}

/// Region, credentials and endpoints of a store on AWS.
#[derive(Debug, Clone)]
pub struct Access {
    url: S3Url,
    config: SdkConfig,
    region: String,
    env: SharedEnv,
    credentials: Arc<Cached>,
}

impl Access {
    /// By the usual chain, which must have credentials.
    ///
    /// # Errors
    /// `CannotOpen`: no credentials, no region.
    pub async fn load(url: &S3Url, env: SharedEnv) -> Result<Self> {
        let bound = env.sleep(Duration::from_millis(CREDENTIALS_MS_MAX));
        let load = async {
            let access = Self::with_config(url, chain(url, &env).await, env.clone())?;
            access.credentials.fetch().await.map_err(|cause| {
                let wanted = match &url.profile {
                    Some(profile) => format!("profile {profile:?} has none"),
                    None => "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned(),
                };
                cannot(url, format!("no AWS credentials: {wanted} ({cause})"))
            })?;
            Ok(access)
        };
        tokio::select! {
            biased;
            access = load => access,
            () = bound => Err(cannot(url, format!(
                "no AWS credentials or region found within {CREDENTIALS_MS_MAX} ms: set AWS_PROFILE or AWS_ACCESS_KEY_ID, \
                 and AWS_REGION or region="
            ))),
        }
    }

    /// With these keys and no chain: for emulators. The URL must name the region.
    ///
    /// # Errors
    /// `CannotOpen`: no region.
    pub fn with_keys(url: &S3Url, key_id: &str, secret: &str, env: SharedEnv) -> Result<Self> {
        let credentials = Credentials::new(key_id, secret, None, None, "tidelog");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http_client())
            .sleep_impl(EnvSleep(env.clone()))
            .time_source(EnvTime(env.clone()))
            .region(url.region.clone().map(Region::new))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build();
        Self::with_config(url, config, env)
    }

    fn with_config(url: &S3Url, config: SdkConfig, env: SharedEnv) -> Result<Self> {
        // reqwest, below object_store, takes the process's provider; whoever set another one before may keep it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let region = config.region().map(|region| region.as_ref().to_owned());
        let region = region.ok_or_else(|| {
            cannot(url, "no AWS region: add region= to the store's URL, or set AWS_REGION".to_owned())
        })?;
        if !is_region(&region) {
            return Err(cannot(
                url,
                format!("{region:?} is no AWS region's name: set AWS_REGION or region="),
            ));
        }
        let provider = config.credentials_provider();
        let provider = provider.ok_or_else(|| cannot(url, "no AWS credentials".to_owned()))?;
        let credentials = Arc::new(Cached { provider, env: env.clone(), last: Default::default() });
        Ok(Self { url: url.clone(), config, region, env, credentials })
    }

    /// The table. Sends nothing.
    pub fn table(&self) -> DynamoTable {
        let endpoint = self.url.endpoint_dynamodb.as_deref().or(self.url.endpoint.as_deref());
        DynamoTable::new(&self.config, &self.url.table, endpoint, self.env.clone())
    }

    /// The bucket's objects. Sends nothing.
    ///
    /// # Errors
    /// `CannotOpen`: the endpoint cannot be used.
    pub fn objects(&self) -> Result<Objects> {
        let endpoint = self.endpoint_s3();
        let store = s3::open(&self.url, &self.region, endpoint.as_deref(), self.credentials.clone())?;
        Ok(Objects::remote(store, self.env.clone()))
    }

    /// Makes bucket and table where they are absent.
    ///
    /// # Errors
    /// `CannotOpen`: no right, or something else is there under these names. `Unavailable`.
    pub async fn create(&self) -> Result<()> {
        self.bucket()?.create().await?;
        for lacks in self.table().create().await? {
            tracing::warn!(table = self.url.table, "the table has no {lacks}");
        }
        Ok(())
    }

    pub(super) fn bucket(&self) -> Result<Bucket> {
        let endpoint = self.endpoint_s3();
        Bucket::new(&self.url, &self.region, endpoint, self.credentials.clone(), self.env.clone())
    }

    /// The URL's, else the chain's for S3 (`AWS_ENDPOINT_URL_S3`, a profile's services), else the chain's for all.
    fn endpoint_s3(&self) -> Option<String> {
        let url = self.url.endpoint_s3.clone().or_else(|| self.url.endpoint.clone());
        url.or_else(|| {
            let key = ServiceConfigKey::builder().service_id("S3");
            let key = key.env("AWS_ENDPOINT_URL").profile("endpoint_url").build().ok()?;
            self.config.service_config()?.load_config(key)
        })
        .or_else(|| self.config.endpoint_url().map(str::to_owned))
    }
}

pub(super) fn cannot(url: &S3Url, reason: String) -> Error {
    let url = StoreUrl { place: Place::S3(url.clone()), era: 0 };
    Error::CannotOpen { url: url.to_string(), reason }
}

fn http_client() -> aws_types::sdk_config::SharedHttpClient {
    aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}

/// What the usual chain says. A profile that the URL names goes before keys in the environment, as it does in AWS's own
/// tools: the SDK alone would take those.
async fn chain(url: &S3Url, env: &SharedEnv) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client())
        .sleep_impl(EnvSleep(env.clone()))
        .time_source(EnvTime(env.clone()));
    if let Some(region) = url.region.clone() {
        loader = loader.region(Region::new(region));
    }
    let Some(profile) = &url.profile else { return loader.load().await };
    let config = loader.profile_name(profile).load().await;
    let provider = ProviderConfig::without_region()
        .with_region(config.region().cloned())
        .with_behavior_version(Some(BehaviorVersion::latest()))
        .with_http_client(http_client())
        .with_sleep_impl(EnvSleep(env.clone()))
        .with_time_source(EnvTime(env.clone()));
    let provider =
        ProfileFileCredentialsProvider::builder().configure(&provider).profile_name(profile).build();
    config.into_builder().credentials_provider(SharedCredentialsProvider::new(provider)).build()
}

/// Waiting, through the door.
#[derive(Debug)]
struct EnvSleep(SharedEnv);

impl AsyncSleep for EnvSleep {
    fn sleep(&self, duration: Duration) -> Sleep {
        // Shared only because the SDK wants it `Sync`.
        Sleep::new(self.0.sleep(duration).shared())
    }
}

/// Time, through the door: signatures carry it.
#[derive(Debug)]
struct EnvTime(SharedEnv);

impl TimeSource for EnvTime {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(u64::try_from(self.0.now_ms()).unwrap_or(0))
    }
}

/// The chain's credentials for `object_store`, which asks for them before each request.
struct Cached {
    provider: SharedCredentialsProvider,
    env: SharedEnv,
    last: tokio::sync::Mutex<Option<(Arc<AwsCredential>, Option<SystemTime>)>>,
}

impl std::fmt::Debug for Cached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cached").finish_non_exhaustive()
    }
}

impl Cached {
    async fn fetch(&self) -> Result<Arc<AwsCredential>, String> {
        let mut last = self.last.lock().await;
        let now_ms = self.env.now_ms();
        let expired = |until: &SystemTime| {
            let until = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            i64::try_from(until).is_ok_and(|until| until.saturating_sub(CREDENTIALS_EARLY_MS) < now_ms)
        };
        if let Some((credential, until)) = &*last
            && !until.as_ref().is_some_and(expired)
        {
            return Ok(credential.clone());
        }
        let found = self.provider.provide_credentials().await.map_err(|error| causes(&error))?;
        let credential = Arc::new(AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
        });
        *last = Some((credential.clone(), found.expiry()));
        Ok(credential)
    }
}

/// The error and what caused it.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    // The chain of credentials tells its story in lines.
    causes.fold(error.to_string(), |words, cause| format!("{words}: {cause}")).replace('\n', " ")
}

#[async_trait]
impl CredentialProvider for Cached {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.fetch().await.map_err(|cause| object_store::Error::Generic { store: "S3", source: cause.into() })
    }
}
