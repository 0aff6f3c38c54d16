//! Directory streams: opendir, readdir, readdirplus, releasedir.
//!
//! A handle shows one sorted view of its directory; offsets are positions in that view, so that they survive names that
//! come and go.

use super::FileSystem;
use super::error::FsResult;
use crate::namespace::{DirectoryEntry, Node};
use crate::types::{FileHandle, Ino};

impl FileSystem {
    /// Opens a directory stream.
    pub fn opendir(&self, ino: Ino) -> FsResult<FileHandle> {
        let directory = self.namespace.open_directory(ino)?;
        Ok(self.handles.insert_directory(directory))
    }

    /// At most `count` entries from `offset` (0, or the `next_offset` of an entry); none at the end. No lookup count is
    /// raised: see [`FileSystem::remember`].
    pub async fn readdir(&self, handle: FileHandle, offset: u64, count: usize) -> FsResult<Vec<DirectoryEntry>> {
        let directory = self.handles.directory(handle)?;
        let mut entries = directory.read(offset, count).await?;
        for entry in &mut entries {
            entry.node = self.as_opened(entry.node.clone());
        }
        Ok(entries)
    }

    /// An entry was handed to the kernel with its attributes (readdirplus): that is a lookup.
    pub fn remember(&self, node: &Node) {
        self.namespace.remember(node);
    }

    /// Closes a directory stream.
    pub fn releasedir(&self, handle: FileHandle) {
        self.handles.remove_directory(handle);
    }
}
