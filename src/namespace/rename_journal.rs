//! Directory renames under way, on disk: `rename-ID.json`, one for each.
//!
//! An entry is whole or not there: it is written aside, synced and moved into place, and the directory is synced after
//! every change. Nothing here asks S3.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{NamespaceError, NamespaceResult};
use crate::types::ObjectInfo;

/// What the journal holds of a rename under way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Intent {
    pub(super) from: String,
    pub(super) to: String,
    /// All copies are there; only deletes are left.
    pub(super) copied: bool,
    /// What was copied. Only with `copied`.
    #[serde(default)]
    pub(super) sources: Vec<MovedKey>,
}

/// An object that a rename copied, so that it can be told from one that another client put under its key since.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct MovedKey {
    /// The key behind `from`, and behind `to`.
    name: String,
    etag: String,
    /// Last-Modified in milliseconds since 1970: empty objects all have one tag.
    modified_ms: i64,
}

impl MovedKey {
    /// The key behind `from`, and behind `to`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether an object under the old key is the one that was copied.
    pub(super) fn is_source(&self, info: &ObjectInfo) -> bool {
        self.etag == info.etag().as_str() && self.modified_ms == milliseconds(info.last_modified)
    }
}

fn milliseconds(time: SystemTime) -> i64 {
    let distance = |distance: Duration| i64::try_from(distance.as_millis()).unwrap_or(i64::MAX);
    time.duration_since(SystemTime::UNIX_EPOCH).map_or_else(|before| -distance(before.duration()), distance)
}

impl Intent {
    /// Copies are being made.
    pub(super) fn copying(from: &str, to: &str) -> Self {
        Self { from: from.to_owned(), to: to.to_owned(), copied: false, sources: Vec::new() }
    }

    /// All of `sources`, whose keys begin with `from`, are copied.
    pub(super) fn deleting(from: &str, to: &str, sources: &[ObjectInfo]) -> Self {
        let moved = |info: &ObjectInfo| MovedKey {
            name: info.key().as_str()[from.len()..].to_owned(),
            etag: info.etag().as_str().to_owned(),
            modified_ms: milliseconds(info.last_modified),
        };
        Self { copied: true, sources: sources.iter().map(moved).collect(), ..Self::copying(from, to) }
    }
}

/// An intent on disk.
#[derive(Debug)]
pub(super) struct Entry {
    path: Option<PathBuf>,
}

impl Entry {
    /// A new one, not written yet; without a directory it never is.
    pub(super) fn new(dir: Option<&Path>) -> Self {
        Self { path: dir.map(|dir| dir.join(format!("rename-{:016x}.json", fastrand::u64(..)))) }
    }

    /// The entries of a directory with their intents. One that cannot be read is told and left.
    pub(super) fn read_all(dir: &Path) -> Vec<(Self, Intent)> {
        let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
        let paths = entries.flatten().map(|entry| entry.path());
        let read = |path: PathBuf| {
            let read = std::fs::read(&path).and_then(|text| serde_json::from_slice(&text).map_err(io::Error::from));
            match read {
                Ok(intent) => Some((Self { path: Some(path) }, intent)),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "this entry of the journal of renames cannot be read");
                    None
                }
            }
        };
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).filter_map(read).collect()
    }

    pub(super) fn write(&self, intent: &Intent) -> NamespaceResult<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let write = || -> io::Result<()> {
            let new = path.with_extension("new");
            let file = File::create(&new)?;
            let mut buffered = io::BufWriter::new(&file);
            serde_json::to_writer(&mut buffered, intent)?;
            io::Write::flush(&mut buffered)?;
            file.sync_all()?;
            std::fs::rename(&new, path)?;
            sync_parent(path)
        };
        write().map_err(|error| NamespaceError::Journal(Arc::new(error)))
    }

    pub(super) fn remove(&self) {
        if let Some(path) = &self.path
            && let Err(error) = std::fs::remove_file(path).and_then(|()| sync_parent(path))
        {
            tracing::warn!(path = %path.display(), %error, "a finished rename may stay in the journal");
        }
    }
}

/// A name, and that it is gone, must survive a power cut, too.
fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
