//! Directory streams: opendir, readdir, readdirplus, releasedir.
//!
//! A handle shows one sorted view of its directory; offsets are positions in that view, so that they survive names that
//! come and go.

use super::FileSystem;
use super::error::FsResult;
use crate::namespace::{DirectoryEntry, Node, NodeKind};
use crate::types::{FileHandle, Ino};

impl FileSystem {
    /// Opens a directory stream.
    pub fn opendir(&self, ino: Ino) -> FsResult<FileHandle> {
        let directory = self.namespace.open_directory(ino)?;
        Ok(self.handles.insert_directory(directory))
    }

    /// At most `count` entries from `offset` (0, or the `next_offset` of an entry) if they are in memory, none at the end;
    /// `None` where S3 must be asked. No lookup count is raised: see [`FileSystem::remember`].
    pub fn try_readdir(&self, handle: FileHandle, offset: u64, count: usize) -> Option<FsResult<Vec<DirectoryEntry>>> {
        let directory = match self.handles.directory(handle) {
            Ok(directory) => directory,
            Err(error) => return Some(Err(error)),
        };
        let entries = directory.try_read(offset, count)?;
        Some(entries.map(|entries| self.as_opened_entries(entries)).map_err(Into::into))
    }

    /// The same, asking S3 if need be.
    pub async fn readdir(&self, handle: FileHandle, offset: u64, count: usize) -> FsResult<Vec<DirectoryEntry>> {
        let directory = self.handles.directory(handle)?;
        let entries = directory.read(offset, count).await?;
        Ok(self.as_opened_entries(entries))
    }

    fn as_opened_entries(&self, mut entries: Vec<DirectoryEntry>) -> Vec<DirectoryEntry> {
        for entry in entries.iter_mut().filter(|entry| entry.kind == NodeKind::File) {
            if let Some(size_bytes) = self.opened_size(entry.ino) {
                entry.attributes.size_bytes = size_bytes;
            }
        }
        entries
    }

    /// An entry is handed to the kernel with its attributes (readdirplus): that is a lookup. Answers what the name leads to
    /// now; `None` if nothing has it any more.
    pub fn remember(&self, handle: FileHandle, entry: &DirectoryEntry) -> Option<Node> {
        let directory = self.handles.directory(handle).ok()?;
        self.namespace.remember(directory.ino(), entry).map(|node| self.as_found(node))
    }

    /// Closes a directory stream.
    pub fn releasedir(&self, handle: FileHandle) {
        self.handles.remove_directory(handle);
    }
}
