//! POSIX operations, composed of namespace (names), read (published bytes) and write (unpublished bytes).
//!
//! One file per family of operations; all of them are methods of [`FileSystem`]. An operation exists in two forms where
//! it can often be answered from memory: `try_…` never waits and gives `None` when it would have to, the other one may
//! ask S3. No kernel type appears here; `fuse` translates.
//!
//! Lock order: `tree` -> `OpenInode::order` -> `OpenInode::view` / `OpenInodes` / `Handles`. The first two are
//! asynchronous and may be held while S3 is asked; the others are never held across an await.
//!
//! What is absent: hard links (S3 has none), and locks (the kernel keeps flock and fcntl locks, host-local).

mod attributes;
mod copy;
mod create;
mod data;
mod directory;
mod drain;
mod error;
mod handles;
mod lookup;
mod neighbours;
mod open;
mod open_lookup;
mod opened;
mod passthrough;
mod remove;
mod rename;
mod stored;
mod sync;
#[cfg(test)]
mod tests;
mod unkept;
mod usage;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

pub use self::attributes::{SetAttributes, SetTime, Statistics};
pub use self::create::NewFile;
pub use self::drain::{Drained, Drains};
pub use self::error::{FsError, FsResult};
use self::handles::Handles;
pub use self::handles::Opener;
use self::neighbours::Walks;
pub use self::open::Opened;
pub use self::open_lookup::LookedUp;
use self::open_lookup::OpenLookups;
use self::opened::OpenInodes;
pub use self::stored::SetXattr;
pub use self::unkept::Unkept;
pub use self::usage::MemoryUse;
use crate::clock::Clock;
use crate::config::AttributeDefaults;
use crate::metrics::Metrics;
use crate::namespace::{Namespace, NamespaceEvent};
// What the answers are made of, for the room above.
pub use crate::namespace::{Attributes, DirectoryEntry, Node, NodeKind, Xattrs};
use crate::read::ReadEngine;
pub use crate::read::WholeFile;
use crate::types::Ino;
pub use crate::write::Progress;
use crate::write::WriteEngine;

/// How a mount behaves as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystemOptions {
    /// Refuse everything that would change the bucket (EROFS).
    pub read_only: bool,
    /// Owners and modes of what says nothing of them.
    pub defaults: AttributeDefaults,
    /// How long the kernel may keep names and attributes.
    pub metadata_ttl: Duration,
    /// A small file that is opened right after its neighbour in listing order may be answered by a GET that was made at most
    /// so long before its open; zero: every open asks (docs/decisions/0022).
    pub open_ahead: Duration,
    /// All handles pass the kernel's page cache by (FOPEN_DIRECT_IO), and none reads the disk cache's files itself.
    pub direct_io: bool,
    /// The kernel leaves pages of other descriptors cached when a handle writes around the page cache (before Linux
    /// 6.6): tell it to drop them.
    pub invalidate_direct_writes: bool,
}

impl FileSystemOptions {
    /// A mount that may be written to, every open of which asks S3.
    pub fn new(defaults: AttributeDefaults, metadata_ttl: Duration) -> Self {
        Self {
            read_only: false,
            defaults,
            metadata_ttl,
            open_ahead: Duration::ZERO,
            direct_io: false,
            invalidate_direct_writes: false,
        }
    }
}

/// What the kernel should forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelEvent {
    /// Cached attributes and the pages of `[offset, offset + len)` (`len` 0: to the end).
    Inode {
        /// The inode.
        ino: Ino,
        /// First byte.
        offset: i64,
        /// Bytes; 0 is to the end.
        len: i64,
    },
    /// A cached name.
    Entry {
        /// Directory that holds the name.
        parent: Ino,
        /// The name.
        name: String,
    },
}

/// A mounted bucket.
#[derive(Debug)]
pub struct FileSystem {
    namespace: Namespace,
    read: ReadEngine,
    write: WriteEngine,
    options: FileSystemOptions,
    metrics: Arc<Metrics>,
    clock: Clock,
    /// Shared by whoever writes under a key, exclusive for a directory rename, which changes many keys at once.
    tree: tokio::sync::RwLock<()>,
    open: Arc<OpenInodes>,
    handles: Handles,
    /// The kernel may be handed files of the disk cache.
    passthrough: AtomicBool,
    walks: Mutex<Walks>,
    lookups: OpenLookups,
    events: mpsc::UnboundedSender<KernelEvent>,
}

impl FileSystem {
    /// Composes a file system; call it in a tokio runtime. What the kernel should forget comes out of the receiver, never from inside a handler.
    pub fn new(
        namespace: Namespace,
        read: ReadEngine,
        write: WriteEngine,
        options: FileSystemOptions,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<KernelEvent>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let (mut changed, forward) = (namespace.events(), events.clone());
        tokio::spawn(async move {
            while let Some(NamespaceEvent::EntryChanged { parent, name }) = changed.recv().await {
                // Nobody listens where there is no kernel, as in a test.
                let _ = forward.send(KernelEvent::Entry { parent, name: name.to_string() });
            }
        });
        let open = OpenInodes::new(namespace.clone());
        let fs = Self {
            namespace,
            read,
            write,
            options,
            metrics,
            clock,
            tree: tokio::sync::RwLock::new(()),
            open,
            handles: Handles::default(),
            passthrough: AtomicBool::new(false),
            walks: Mutex::default(),
            lookups: OpenLookups::default(),
            events,
        };
        (Arc::new(fs), receiver)
    }

    /// The options of the mount.
    pub fn options(&self) -> &FileSystemOptions {
        &self.options
    }

    fn refuse_if_read_only(&self) -> FsResult<()> {
        if self.options.read_only { Err(FsError::ReadOnly) } else { Ok(()) }
    }

    fn tell_kernel(&self, event: KernelEvent) {
        // Nobody listens where there is no kernel, as in a test.
        let _ = self.events.send(event);
    }
}
