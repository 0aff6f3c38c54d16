//! Directory streams: a stable view of a directory's names, with offsets that survive resumption and change.
//!
//! Offset 0 is `.`, 1 is `..`, and the name at position `n` of the view has offset `n + 2`; names that go are passed
//! over and shift nothing. Reading from 0 again (rewinddir) takes a new view.

use std::sync::Arc;

use parking_lot::Mutex;

use super::listing::{Listed, Listing};
use super::table::Table;
use super::{Attributes, Namespace, NamespaceError, NamespaceResult, Node, NodeKind};
use crate::types::Ino;

/// Offset of the first name behind the two dots.
const FIRST_NAME: u64 = 2;

/// Names that are asked for together, where each has to be asked for: a few answers' times, as many as are in flight at once.
const COMPLETED_AT_ONCE: usize = 512;

/// An open directory stream.
#[derive(Debug)]
pub struct DirectoryHandle {
    namespace: Namespace,
    ino: Ino,
    /// Taken when the stream is first read, and again when it is read from its start.
    view: Mutex<Option<Arc<Listing>>>,
}

/// One entry of a directory stream.
#[derive(Clone, Debug)]
pub struct DirectoryEntry {
    /// The name.
    pub name: Arc<str>,
    /// Where the stream goes on behind this entry.
    pub next_offset: u64,
    /// The inode that the name leads to.
    pub ino: Ino,
    /// What it is.
    pub kind: NodeKind,
    /// Its attributes.
    pub attributes: Attributes,
    /// What it is and says of itself has to be asked for.
    is_lacking: bool,
}

impl Namespace {
    /// Opens a directory stream.
    pub fn open_directory(&self, ino: Ino) -> NamespaceResult<DirectoryHandle> {
        Self::check_directory(&self.0.table.lock(), ino)?;
        Ok(DirectoryHandle { namespace: self.clone(), ino, view: Mutex::new(None) })
    }
}

impl DirectoryHandle {
    /// The directory.
    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// At most `count` entries from `offset` if they are in memory, none at the end; `None` where S3 must be asked. Raises no
    /// lookup count.
    pub fn try_read(&self, offset: u64, count: usize) -> Option<NamespaceResult<Vec<DirectoryEntry>>> {
        let listing = match self.view(offset) {
            Ok(listing) => listing,
            Err(error) => return Some(Err(error)),
        };
        let entries = self.read_from(&listing, offset, count).transpose()?;
        // What they are may have to be asked for.
        entries.map(|entries| are_known(&entries).then_some(entries)).transpose()
    }

    /// At most `count` entries from `offset`; none at the end. Raises no lookup count.
    pub async fn read(&self, offset: u64, count: usize) -> NamespaceResult<Vec<DirectoryEntry>> {
        let listing = self.view(offset)?;
        loop {
            if let Some(entries) = self.read_from(&listing, offset, count)? {
                if are_known(&entries) {
                    return Ok(entries);
                }
                let ahead = listing.slice(position_of(offset), COMPLETED_AT_ONCE.max(count)).0;
                let names = ahead.into_iter().map(|listed| match listed {
                    Listed::Entry { name, .. } | Listed::Name(name) => name,
                });
                self.namespace.complete(self.ino, names.collect()).await?;
                // None of them may be there any more, and others yet to come.
                if let Some(entries) = self.read_from(&listing, offset, count)? {
                    return Ok(entries);
                }
            }
            let mut position = position_of(offset);
            // Behind names that are there and have gone since.
            position += listing.reached(position);
            listing.reach(&self.namespace, position).await?;
        }
    }

    /// What the listing has; `None` if it has nothing yet and will have more.
    fn read_from(&self, listing: &Listing, offset: u64, count: usize) -> NamespaceResult<Option<Vec<DirectoryEntry>>> {
        let mut entries = Vec::with_capacity(count);
        if offset < FIRST_NAME {
            entries.extend(self.dots(offset)?.into_iter().take(count));
        }
        let mut position = position_of(offset);
        // Names that have gone meanwhile are passed over; an answer without any entry would end the stream.
        while entries.len() < count {
            let (listed, at_end) = listing.slice(position, count - entries.len());
            if listed.is_empty() {
                return Ok((at_end || !entries.is_empty()).then_some(entries));
            }
            let mut table = self.namespace.0.table.lock();
            for listed in listed {
                position += 1;
                entries.extend(self.entry(&mut table, listing, listed, position as u64 + FIRST_NAME));
            }
        }
        Ok(Some(entries))
    }

    fn entry(&self, table: &mut Table, listing: &Listing, listed: Listed, next_offset: u64) -> Option<DirectoryEntry> {
        match listed {
            Listed::Entry { name, ino, kind, size_bytes, modified } => {
                let mtime = if kind == NodeKind::Directory { listing.made } else { modified };
                let attributes = self.namespace.listed_attributes(kind, size_bytes, mtime);
                Some(DirectoryEntry { name, next_offset, ino, kind, attributes, is_lacking: table.posix })
            }
            Listed::Name(name) => {
                let ino = table.child(self.ino, &name)?;
                let Node { kind, attributes, .. } = self.namespace.node_of(table, ino);
                let is_lacking = self.namespace.is_lacking(table, ino);
                Some(DirectoryEntry { name, next_offset, ino, kind, attributes, is_lacking })
            }
        }
    }

    fn view(&self, offset: u64) -> NamespaceResult<Arc<Listing>> {
        let mut view = self.view.lock();
        match &*view {
            Some(listing) if offset != 0 => Ok(Arc::clone(listing)),
            _ => {
                let listing = self.namespace.listing(self.ino)?;
                *view = Some(Arc::clone(&listing));
                Ok(listing)
            }
        }
    }

    fn dots(&self, offset: u64) -> NamespaceResult<Vec<DirectoryEntry>> {
        let own = self.namespace.peek(self.ino).ok_or(NamespaceError::Stale)?;
        let parent = {
            let table = self.namespace.0.table.lock();
            table.rows.get(&self.ino).map_or(Ino::ROOT, |row| row.parent)
        };
        let above = self.namespace.peek(parent).unwrap_or_else(|| own.clone());
        let dots = [(".", own), ("..", above)];
        let entries = dots.into_iter().zip(1..).map(|((name, node), next_offset)| DirectoryEntry {
            name: name.into(),
            next_offset,
            ino: node.ino,
            kind: node.kind,
            attributes: node.attributes,
            is_lacking: false,
        });
        Ok(entries.skip(usize::try_from(offset).unwrap_or(0)).collect())
    }
}

/// The position in the listing of an offset in the stream.
fn position_of(offset: u64) -> usize {
    usize::try_from(offset.max(FIRST_NAME) - FIRST_NAME).unwrap_or(usize::MAX)
}

/// Whether nothing of what entries are and say of themselves has to be asked for.
fn are_known(entries: &[DirectoryEntry]) -> bool {
    !entries.iter().any(|entry| entry.is_lacking)
}
