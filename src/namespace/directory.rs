//! Directory streams: a stable view of a directory's names, with offsets that survive resumption and change.
//!
//! Offset 0 is `.`, 1 is `..`, and the name at position `n` of the view has offset `n + 2`; names that go are passed
//! over and shift nothing. Reading from 0 again (rewinddir) takes a new view.

use std::sync::Arc;

use parking_lot::Mutex;

use super::listing::Listing;
use super::{Namespace, NamespaceError, NamespaceResult, Node};
use crate::types::Ino;

/// Offset of the first name behind the two dots.
const FIRST_NAME: u64 = 2;

/// An open directory stream.
#[derive(Debug)]
pub struct DirectoryHandle {
    namespace: Namespace,
    ino: Ino,
    view: Mutex<View>,
}

#[derive(Debug)]
struct View {
    listing: Arc<Listing>,
    begun: bool,
}

/// One entry of a directory stream.
#[derive(Clone, Debug)]
pub struct DirectoryEntry {
    /// The name.
    pub name: Arc<str>,
    /// Where the stream goes on behind this entry.
    pub next_offset: u64,
    /// What the name leads to.
    pub node: Node,
}

impl Namespace {
    /// Opens a directory stream.
    pub fn open_directory(&self, ino: Ino) -> NamespaceResult<DirectoryHandle> {
        let listing = self.listing(ino)?;
        Ok(DirectoryHandle { namespace: self.clone(), ino, view: Mutex::new(View { listing, begun: false }) })
    }
}

impl DirectoryHandle {
    /// At most `count` entries from `offset`; none at the end. Raises no lookup count.
    pub async fn read(&self, offset: u64, count: usize) -> NamespaceResult<Vec<DirectoryEntry>> {
        let listing = self.view(offset)?;
        let mut entries = Vec::new();
        if offset < FIRST_NAME {
            entries.extend(self.dots(offset)?.into_iter().take(count));
        }
        let mut position = usize::try_from(offset.max(FIRST_NAME) - FIRST_NAME).unwrap_or(usize::MAX);
        // Names that have gone meanwhile are passed over; an answer without any entry would end the stream.
        while entries.len() < count {
            let wanted = count - entries.len();
            let (names, at_end) = listing.slice(position, wanted);
            if names.is_empty() {
                if at_end || !entries.is_empty() {
                    break;
                }
                listing.reach(&self.namespace, position).await?;
                if listing.progress() == (position, true) {
                    break;
                }
                continue;
            }
            let table = self.namespace.0.table.lock();
            for (name, ino) in names {
                position += 1;
                if let Some(row) = table.rows.get(&ino)
                    && row.linked
                    && row.parent == self.ino
                    && row.name == name
                {
                    let node = self.namespace.node_of(ino, row);
                    entries.push(DirectoryEntry { name, next_offset: position as u64 + FIRST_NAME, node });
                }
            }
        }
        Ok(entries)
    }

    fn view(&self, offset: u64) -> NamespaceResult<Arc<Listing>> {
        let mut view = self.view.lock();
        if offset == 0 && std::mem::replace(&mut view.begun, true) {
            view.listing = self.namespace.listing(self.ino)?;
        }
        Ok(Arc::clone(&view.listing))
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
            node,
        });
        Ok(entries.skip(usize::try_from(offset).unwrap_or(0)).collect())
    }
}
