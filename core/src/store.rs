//! A store: a metadata table and objects, opened together from one URL.
//!
//! What URLs there are is in `store/url.rs`.

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "aws")]
mod bucket;
mod probe;
#[cfg(feature = "aws")]
mod s3;
#[cfg(test)]
mod tests;
mod url;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::env::{SharedEnv, blocking};
use crate::objects::Objects;
use crate::table::{MemoryTable, SharedTable, SqliteTable, sqlite};
use crate::{Error, Result};

pub use probe::probe;
pub use url::{Place, S3Url, StoreUrl};

/// An open store. Whether its ledger has a beginning is the ledger's business.
#[derive(Debug, Clone)]
pub struct Store {
    /// The metadata table.
    pub table: SharedTable,
    /// The objects.
    pub objects: Objects,
    /// Where it is.
    pub url: StoreUrl,
}

impl Store {
    /// Opens the store at `url`; makes it if it is absent and `create`.
    ///
    /// # Errors
    /// `CannotOpen`: absent, not to be read, read-only though `create`, something else than a Tidelog store, or no way to
    /// it. `Unavailable`: nobody answers. Else as [`SqliteTable::open`].
    pub async fn open(url: &StoreUrl, env: SharedEnv, create: bool) -> Result<Self> {
        match &url.place {
            Place::Memory => Ok(Self { url: url.clone(), ..Self::memory(env) }),
            Place::Folder(path) => {
                let path = path.clone();
                let open = move || {
                    check_folder(&path, create)?;
                    let table = SqliteTable::open(&path, create)?;
                    Ok::<_, Error>((table, Objects::folder(&path, env)?))
                };
                let (table, objects) = blocking(open).await?;
                Ok(Self { table: Arc::new(table), objects, url: url.clone() })
            }
            #[cfg(feature = "aws")]
            // Boxed: the SDK's futures nest deep, and a caller's would nest deeper than the compiler follows.
            Place::S3(place) => Box::pin(aws::open(url, place, env, create)).await,
            #[cfg(not(feature = "aws"))]
            Place::S3(_) => {
                let reason = "this binary was built without S3 and DynamoDB (cargo feature `aws`)".to_owned();
                Err(Error::CannotOpen { url: url.to_string(), reason })
            }
        }
    }

    /// A fresh store in memory.
    pub fn memory(env: SharedEnv) -> Self {
        let table = Arc::new(MemoryTable::new().with_env(env.clone()));
        Self { table, objects: Objects::memory(env), url: StoreUrl { place: Place::Memory, era: 0 } }
    }

    /// Which chain of the place this is (R10).
    pub fn era(&self) -> u16 {
        self.url.era
    }
}

/// Refuses a folder that is not a store's, before anything is written to it; makes an absent one if `create`.
fn check_folder(path: &Path, create: bool) -> Result<()> {
    let cannot = |reason: String| Error::CannotOpen { url: path.display().to_string(), reason };
    let about = |error: std::io::Error| cannot(error.to_string());
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => return Err(cannot("it is not a folder".to_owned())),
        // Whoever made it may have been killed before its name was on disk, and what is acked below it would go with it.
        Ok(_) if create => sync_name(path).map_err(about)?,
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if !create {
                return Err(cannot("there is no such folder: make the store with `tidelog init`".to_owned()));
            }
            make_folder(path).map_err(|error| cannot(format!("it cannot be made: {error}")))?;
        }
        Err(error) => return Err(about(error)),
    }
    // Read before the table is looked for: it is the first file of a store, so what another process is just making is
    // either still empty here, or has its table below.
    let mut strange = None;
    for entry in fs::read_dir(path).map_err(about)? {
        let name = entry.map_err(about)?.file_name();
        // The root of a fresh disk has this one.
        if name != "lost+found" {
            strange = Some(name);
        }
    }
    match strange {
        Some(name) if !path.join(sqlite::FILE).exists() => Err(cannot(format!(
            "it is not a tidelog store: it holds {name:?}, but no {}; name an empty or absent folder",
            sqlite::FILE
        ))),
        _ => Ok(()),
    }
}

/// Makes the name of an existing folder durable, as far as this user may.
fn sync_name(path: &Path) -> std::io::Result<()> {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    let path = path.canonicalize()?;
    let Some(above) = path.parent() else { return Ok(()) };
    match fs::File::open(above).and_then(|above| above.sync_all()) {
        Err(error) if !matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem) => Err(error),
        _ => Ok(()),
    }
}

/// Makes a folder and those above it, each one's name durable.
fn make_folder(path: &Path) -> std::io::Result<()> {
    let above = match path.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => return Ok(()),
    };
    if !above.exists() {
        make_folder(above)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::File::open(above)?.sync_all(),
    }
}
