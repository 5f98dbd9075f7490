//! What a local folder needs beyond `LocalFileSystem` for an answered put to survive a power cut.
//!
//! `with_fsync(true)` syncs the file and its folder, and the folders above only where it made them itself. Two cases are
//! left: another process made the folder a moment ago and has not synced it yet ([`Folder::prepare`]), and an attempt was
//! not answered, so nothing says how far it came ([`Folder::sync`]). And what a killed put leaves, which no listing shows
//! ([`Folder::halves`]).

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use object_store::local::LocalFileSystem;

use super::ObjectName;
use crate::env::blocking;
use crate::limits::SYNCED_FOLDERS_MAX;
use crate::{Error, Result};

/// What a killed put left of an object in a folder: `name#1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Half {
    /// The object that it was to become.
    pub name: ObjectName,
    /// Tells several apart.
    pub number: u32,
}

impl Half {
    fn parse(name: &str) -> Option<Self> {
        let (name, number) = name.rsplit_once('#')?;
        Some(Self { name: name.parse().ok()?, number: number.parse().ok()? })
    }
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.name, self.number)
    }
}

/// A store's folder.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    /// Folders whose names are on disk.
    durable: Mutex<HashSet<PathBuf>>,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<(Self, LocalFileSystem)> {
        let cannot = |reason: String| Error::CannotOpen { url: path.display().to_string(), reason };
        let root = path.canonicalize().map_err(|error| cannot(error.to_string()))?;
        let store = LocalFileSystem::new_with_prefix(&root).map_err(|error| cannot(error.to_string()))?;
        Ok((Self { root, durable: Mutex::default() }, store.with_fsync(true)))
    }

    /// Makes the folders that `name` lies in, and their names durable.
    pub(super) async fn prepare(self: &Arc<Self>, name: &ObjectName) -> Result<()> {
        let (folder, file) = (self.clone(), self.file(name));
        blocking(move || folder.make_parents(&file)).await.map_err(|error| self.explain(&error))
    }

    /// Makes durable the object `name`, which is there, and the folders that it lies in.
    pub(super) async fn sync(self: &Arc<Self>, name: &ObjectName) -> Result<()> {
        let (folder, file) = (self.clone(), self.file(name));
        let sync = move || {
            File::open(&file)?.sync_all()?;
            let parents = file.ancestors().skip(1).take_while(|parent| parent.starts_with(&folder.root));
            parents.into_iter().try_for_each(|parent| File::open(parent)?.sync_all())
        };
        blocking(sync).await.map_err(|error| self.explain(&error))
    }

    /// What killed puts left half-written below `kind`, with their sizes: `LocalFileSystem` writes `name#1` before it links
    /// `name`, and lists no such file.
    pub(super) async fn halves(self: &Arc<Self>, kind: &str) -> Result<Vec<(Half, u64)>> {
        let (root, top) = (self.root.clone(), self.root.join(kind));
        let found = blocking(move || {
            let (mut folders, mut found) = (vec![top], Vec::new());
            while let Some(folder) = folders.pop() {
                // It may be gone by now, or never have been there.
                let Ok(entries) = fs::read_dir(&folder) else { continue };
                for entry in entries {
                    let entry = entry?;
                    let path = entry.path();
                    if entry.file_type()?.is_dir() {
                        folders.push(path);
                        continue;
                    }
                    let name = path.strip_prefix(&root).ok().and_then(Path::to_str);
                    let half = name.and_then(Half::parse);
                    found.extend(half.zip(entry.metadata().ok().map(|found| found.len())));
                }
            }
            Ok(found)
        });
        found.await.map_err(|error| self.explain(&error))
    }

    /// Removes these halves, then the folders that held `closed`, where they are empty. Of a segment or checkpoint only the
    /// innermost, which is named after a commit below the floor, so that no put that counts comes into it; of a merged
    /// segment, whose topic is gone, all of the topic's own. The others are in use.
    pub(super) async fn tidy(self: &Arc<Self>, halves: &[Half], closed: &[ObjectName]) -> Result<()> {
        let halves: Vec<PathBuf> = halves.iter().map(|half| self.root.join(half.to_string())).collect();
        let mut parents = BTreeSet::new();
        for name in closed {
            let own = if matches!(name, ObjectName::L1 { .. }) { 3 } else { 1 };
            parents.extend(self.file(name).ancestors().skip(1).take(own).map(Path::to_owned));
        }
        let tidied = blocking(move || {
            for half in halves {
                match fs::remove_file(half) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            // Those within come first. One that is not empty, or gone, stays as it is.
            parents.iter().rev().for_each(|parent| drop(fs::remove_dir(parent)));
            Ok(())
        });
        tidied.await.map_err(|error| self.explain(&error))
    }

    fn file(&self, name: &ObjectName) -> PathBuf {
        self.root.join(name.to_string())
    }

    fn make_parents(&self, file: &Path) -> io::Result<()> {
        let parents: Vec<&Path> =
            file.ancestors().skip(1).take_while(|parent| **parent != *self.root).collect();
        for parent in parents.into_iter().rev() {
            if self.durable().contains(parent) {
                continue;
            }
            match fs::create_dir(parent) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            // Whoever made it: its name is on disk once the folder above it is.
            if let Some(above) = parent.parent() {
                File::open(above)?.sync_all()?;
            }
            let mut durable = self.durable();
            if durable.len() >= SYNCED_FOLDERS_MAX {
                durable.clear();
            }
            durable.insert(parent.to_owned());
        }
        Ok(())
    }

    fn durable(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        // A set of facts: each is true by itself.
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn explain(&self, error: &io::Error) -> Error {
        use io::ErrorKind::*;
        let cause = match error.kind() {
            PermissionDenied | ReadOnlyFilesystem => {
                let reason =
                    format!("it cannot be written: change its owner or mode, or mount it writable ({error})");
                return Error::CannotOpen { url: self.to_string(), reason };
            }
            StorageFull | QuotaExceeded => format!("the disk of {self} is full: free some space ({error})"),
            NotFound => format!("{self} is gone ({error})"),
            _ => format!("{self}: {error}"),
        };
        Error::Unavailable { what: "putting an object", cause }
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.root.display())
    }
}
