//! Store URLs.
//!
//! ```text
//! memory:                                     nothing is kept; each opening is a store of its own
//! ./tidelog-data   file:./tidelog-data        a folder: table.sqlite beside l0/ and ckpt/
//! s3://bucket[/prefix]?table=NAME             objects in S3, commits in the DynamoDB table NAME
//!     &region=…                               else AWS_REGION or the profile's
//!     &profile=…                              of ~/.aws/config, else AWS_PROFILE, else the usual chain
//!     &endpoint=URL                           instead of AWS, for both; else AWS_ENDPOINT_URL and its kin
//!     &endpoint_s3=URL  &endpoint_dynamodb=URL
//! each with ?era=N                            another chain of the place (R10); default 0
//! ```
//!
//! Values are taken as they are: there is no percent-encoding. A parameter that is unknown, empty or there twice is
//! refused, since a store that is nearly the one that was meant is worse than none.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::limits::S3_PREFIX_BYTES_MAX;
use crate::{Error, Result};

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreUrl {
    /// The place.
    pub place: Place,
    /// Which chain of that place (R10).
    pub era: u16,
}

/// A kind of store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// In this process, and gone with it.
    Memory,
    /// A local folder.
    Folder(PathBuf),
    /// A bucket and a table.
    S3(S3Url),
}

/// A bucket and a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct S3Url {
    /// The bucket.
    pub bucket: String,
    /// What the names of objects begin with: empty, or segments joined by `/`, without one at either end.
    pub prefix: String,
    /// The DynamoDB table.
    pub table: String,
    /// Region of both; `None`: the usual chain knows.
    pub region: Option<String>,
    /// Profile of the credentials; `None`: the usual chain.
    pub profile: Option<String>,
    /// Where both are, instead of AWS.
    pub endpoint: Option<String>,
    /// Where the bucket is, instead of `endpoint`.
    pub endpoint_s3: Option<String>,
    /// Where the table is, instead of `endpoint`.
    pub endpoint_dynamodb: Option<String>,
}

impl StoreUrl {
    /// Whether opening may make it: a folder or memory. A bucket and a table cost money and rights, and a slip of the
    /// pen in their names would make others, so only `init` does.
    pub fn made_on_first_use(&self) -> bool {
        !matches!(self.place, Place::S3(_))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut query: Vec<(&str, String)> = Vec::new();
        match &self.place {
            Place::Memory => write!(f, "memory:")?,
            Place::Folder(path) => write!(f, "{}", path.display())?,
            Place::S3(s3) => {
                let slash = if s3.prefix.is_empty() { "" } else { "/" };
                write!(f, "s3://{}{slash}{}", s3.bucket, s3.prefix)?;
                query.push(("table", s3.table.clone()));
                let rest = [
                    ("region", &s3.region),
                    ("profile", &s3.profile),
                    ("endpoint", &s3.endpoint),
                    ("endpoint_s3", &s3.endpoint_s3),
                    ("endpoint_dynamodb", &s3.endpoint_dynamodb),
                ];
                query.extend(rest.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
            }
        }
        if self.era != 0 {
            query.push(("era", self.era.to_string()));
        }
        let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if query.is_empty() { Ok(()) } else { write!(f, "?{}", query.join("&")) }
    }
}

impl FromStr for StoreUrl {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        parse(url).map_err(|reason| Error::CannotOpen { url: url.to_owned(), reason })
    }
}

fn parse(url: &str) -> Result<StoreUrl, String> {
    let (place, query) = url.split_once('?').map_or((url, None), |(place, query)| (place, Some(query)));
    let mut query = Query::read(query)?;
    let era = match query.take("era") {
        None => 0,
        Some(era) if era.bytes().all(|byte| byte.is_ascii_digit()) => {
            era.parse().map_err(|_| "era is a number from 0 to 65535")?
        }
        Some(_) => return Err("era is a number from 0 to 65535".to_owned()),
    };
    let (place, known) = match scheme(place) {
        Some(("memory", "")) => (Place::Memory, "only `era=N`"),
        Some(("memory", _)) => return Err("`memory:` has no name".to_owned()),
        Some(("file", path)) => (folder(path).ok_or("`file:` needs a local path")?, "only `era=N`"),
        Some(("s3", place)) => (Place::S3(s3(place, &mut query)?), S3_PARAMETERS),
        Some(("s3a" | "dynamodb", _)) => return Err(format!("stores on AWS are written {S3_FORM}")),
        Some(("gs" | "az" | "http" | "https", _)) => {
            return Err(format!("such stores are not there yet; use a folder, `memory:` or {S3_FORM}"));
        }
        Some(_) => {
            return Err(format!(
                "unknown scheme; use a folder (`./a:b` if it has a colon), `memory:` or {S3_FORM}"
            ));
        }
        None => (folder(place).ok_or("it is empty; use a folder or `memory:`")?, "only `era=N`"),
    };
    match query.left() {
        Some(name) => Err(format!("parameter {name:?} is unknown here: after `?` {known} is known")),
        None => Ok(StoreUrl { place, era }),
    }
}

const S3_FORM: &str = "`s3://bucket/prefix?table=NAME`";
const S3_PARAMETERS: &str =
    "any of table, region, profile, endpoint, endpoint_s3, endpoint_dynamodb and era, each `name=value`,";

/// The parameters of a URL, taken out one by one.
struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    fn read(query: Option<&'a str>) -> Result<Self, String> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for pair in query.into_iter().flat_map(|query| query.split('&')) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if pairs.iter().any(|(there, _)| *there == name) {
                return Err(format!("parameter {name:?} is there twice"));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    fn take(&mut self, name: &str) -> Option<&'a str> {
        let place = self.0.iter().position(|(there, _)| *there == name)?;
        Some(self.0.remove(place).1)
    }

    /// A parameter whose value `is` fine.
    fn checked(
        &mut self,
        name: &str,
        what: &str,
        is: impl Fn(&str) -> bool,
    ) -> Result<Option<String>, String> {
        match self.take(name) {
            None => Ok(None),
            Some(value) if is(value) => Ok(Some(value.to_owned())),
            Some(value) => Err(format!("{name} is {value:?}; it is {what}")),
        }
    }

    fn left(&self) -> Option<&'a str> {
        self.0.first().map(|(name, _)| *name)
    }
}

/// The scheme of a URL, and what follows the colon.
fn scheme(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once(':')?;
    let plain = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    (plain && scheme.starts_with(|first: char| first.is_ascii_alphabetic())).then_some((scheme, rest))
}

fn folder(path: &str) -> Option<Place> {
    let path = match path.strip_prefix("//") {
        Some(rest) if rest.starts_with('/') => rest,
        // `file://host/…`
        Some(_) => return None,
        None => path,
    };
    (!path.is_empty()).then(|| Place::Folder(PathBuf::from(path)))
}

fn s3(place: &str, query: &mut Query<'_>) -> Result<S3Url, String> {
    let place = place.strip_prefix("//").ok_or_else(|| format!("it is not {S3_FORM}"))?;
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    if !is_bucket(bucket) {
        return Err(format!(
            "bucket is {bucket:?}; it has 3 to 63 of a-z 0-9 . -, begins and ends with a letter or digit, has no \
             two dots in a row, and is no IP address"
        ));
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    if !prefix.is_empty() && !is_prefix(prefix) {
        return Err(format!(
            "prefix is {prefix:?}; it has at most {S3_PREFIX_BYTES_MAX} of a-z A-Z 0-9 ! - _ . ' ( ) and single \
             slashes, and no segment `.` or `..`"
        ));
    }
    let table = query.checked("table", "3 to 255 of a-z A-Z 0-9 _ . -", is_table)?;
    let endpoint = "http:// or https://, a host, and a port if need be, without a path";
    Ok(S3Url {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        table: table.ok_or("it does not say which table: add `?table=NAME`")?,
        region: query.checked("region", "a region's name such as eu-central-1", is_region)?,
        profile: query.checked("profile", "a profile's name", |name| !name.is_empty() && name.len() < 256)?,
        endpoint: query.checked("endpoint", endpoint, is_endpoint)?,
        endpoint_s3: query.checked("endpoint_s3", endpoint, is_endpoint)?,
        endpoint_dynamodb: query.checked("endpoint_dynamodb", endpoint, is_endpoint)?,
    })
}

/// S3's rules for names of buckets.
fn is_bucket(name: &str) -> bool {
    let edge =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(byte))
        && edge(bytes.first())
        && edge(bytes.last())
        && !name.contains("..")
        && name.parse::<std::net::Ipv4Addr>().is_err()
}

/// The characters that S3 calls safe, so that no client writes a name in another way. `*` is left out: policies take it
/// for a wildcard.
fn is_prefix(prefix: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"!-_.'()".contains(&byte);
    prefix.len() <= S3_PREFIX_BYTES_MAX
        && prefix.split('/').all(|part| !matches!(part, "" | "." | "..") && part.bytes().all(safe))
}

fn is_table(name: &str) -> bool {
    (3..=255).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// Whether it looks like a region: it becomes a part of a host name.
pub(super) fn is_region(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn is_endpoint(url: &str) -> bool {
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    host.is_some_and(|host| {
        (1..=255).contains(&host.len())
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte))
    })
}
