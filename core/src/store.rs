//! A store: a metadata table and objects, opened together from one URL.
//!
//! ```text
//! memory:                     nothing is kept; each opening is a store of its own
//! ./tidelog-data              a folder: table.sqlite beside l0/ and ckpt/
//! file:./tidelog-data         the same
//! ./tidelog-data?era=1        the same in another era (default 0)
//! ```

mod probe;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use crate::env::{SharedEnv, offload};
use crate::objects::Objects;
use crate::table::{MemoryTable, SharedTable, SqliteTable, sqlite};
use crate::{Error, Result};

pub use probe::probe;

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
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Memory => write!(f, "memory:")?,
            Place::Folder(path) => write!(f, "{}", path.display())?,
        }
        if self.era == 0 { Ok(()) } else { write!(f, "?era={}", self.era) }
    }
}

impl FromStr for StoreUrl {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        let refused = |reason: &str| Error::CannotOpen { url: url.to_owned(), reason: reason.to_owned() };
        let (place, query) = url.split_once('?').map_or((url, None), |(place, query)| (place, Some(query)));
        let era = match query.map(|query| query.strip_prefix("era=")) {
            None => 0,
            Some(Some(era)) if era.bytes().all(|byte| byte.is_ascii_digit()) => {
                era.parse().map_err(|_| refused("era is a number from 0 to 65535"))?
            }
            Some(_) => return Err(refused("after `?` only `era=N` is known")),
        };
        let place = match scheme(place) {
            Some(("memory", "")) => Place::Memory,
            Some(("memory", _)) => return Err(refused("`memory:` has no name")),
            Some(("file", path)) => folder(path).ok_or_else(|| refused("`file:` needs a local path"))?,
            Some(("s3" | "s3a" | "dynamodb" | "gs" | "az" | "http" | "https", _)) => {
                return Err(refused("stores on a network are not there yet; use a folder or `memory:`"));
            }
            Some(_) => {
                return Err(refused("unknown scheme; use a folder (`./a:b` if it has a colon) or `memory:`"));
            }
            None => folder(place).ok_or_else(|| refused("it is empty; use a folder or `memory:`"))?,
        };
        Ok(Self { place, era })
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
    /// `CannotOpen`: absent, not to be read, read-only though `create`, or something else than a Tidelog store. Else as [`SqliteTable::open`].
    pub async fn open(url: &StoreUrl, env: SharedEnv, create: bool) -> Result<Self> {
        let url = url.clone();
        let Place::Folder(path) = &url.place else {
            let table = Arc::new(MemoryTable::new().with_env(env.clone()));
            return Ok(Self { table, objects: Objects::memory(env), url });
        };
        let path = path.clone();
        let open = move || {
            check_folder(&path, create)?;
            let table = SqliteTable::open(&path, create)?;
            Ok::<_, Error>((table, Objects::folder(&path, env)?))
        };
        let (table, objects) = offload(open).await?;
        Ok(Self { table: Arc::new(table), objects, url })
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
