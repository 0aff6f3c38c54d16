//! Names and attributes: which keys are which files, and what is known of them.
//!
//! What is known lives in one table under one lock (`table.rs`), never held across an await. Answers of S3 enter it through
//! `learn`, which lets no answer undo a change that was made here after it was asked for. Knowledge may be as old as
//! `metadata_ttl`; a directory that was listed within that time answers ENOENT without asking.
//!
//! What is absent: contents (`read`, `write`), and any memory beyond the process.

mod attributes;
mod change;
mod children;
mod confirm;
mod copy;
mod directory;
mod following;
mod forget;
mod keys;
mod kind;
mod learn;
mod listing;
mod lookup;
mod node;
mod plan;
mod questions;
mod remove;
mod rename;
mod rename_directory;
mod rename_journal;
mod rename_resume;
mod renew;
mod roll;
mod scan;
mod split;
mod stored;
mod symlink;
mod table;
#[cfg(test)]
mod tests;
mod xattrs;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

pub use self::change::{AttributeChanges, NewNode};
pub use self::confirm::Moment;
pub use self::directory::{DirectoryEntry, DirectoryHandle};
pub use self::following::FollowingFile;
use self::keys::NameError;
pub use self::kind::NodeKind;
use self::lookup::Asking;
pub use self::node::{Attributes, Node};
pub use self::remove::Unlink;
pub use self::rename::{Copied, RenameFlags, Renamed};
pub use self::rename_directory::RenamedTree;
pub use self::stored::Overlay;
use self::table::{Row, Table};
pub use self::xattrs::Xattrs;
use crate::clock::Clock;
use crate::config::{AttributeDefaults, NamespaceLimits};
use crate::store::{ObjectStore, StoreError};
use crate::types::{Ino, ObjectKey};

/// Result of a namespace operation.
pub type NamespaceResult<T> = Result<T, NamespaceError>;

/// Why a namespace operation failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NamespaceError {
    /// No such name or inode.
    #[error("no such name")]
    NotFound,
    /// A directory was needed.
    #[error("not a directory")]
    NotADirectory,
    /// Anything but a directory was needed.
    #[error("is a directory")]
    IsADirectory,
    /// The directory holds names, or keys that have no path.
    #[error("directory not empty")]
    NotEmpty,
    /// The name is taken.
    #[error("name exists")]
    Exists,
    /// A directory would move into itself.
    #[error("a directory cannot move into itself")]
    IntoItself,
    /// No key can spell the name.
    #[error("invalid name")]
    InvalidName,
    /// The name or its key is too long.
    #[error("name too long")]
    NameTooLong,
    /// The inode has lost its name, or its object changed under the operation.
    #[error("stale")]
    Stale,
    /// The file is larger than an S3 object can be.
    #[error("too large")]
    TooLarge,
    /// S3 said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A defect of this program ended the operation; the log has the place.
    #[error("a defect of s3mount ended the operation")]
    Panicked,
    /// The journal of directory renames could not be written.
    #[error("journal: {0}")]
    Journal(Arc<std::io::Error>),
}

impl From<NameError> for NamespaceError {
    fn from(error: NameError) -> Self {
        match error {
            NameError::Invalid => Self::InvalidName,
            NameError::TooLong => Self::NameTooLong,
        }
    }
}

/// Something that was told to the kernel has changed in S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceEvent {
    /// A name leads elsewhere now, or nowhere.
    EntryChanged {
        /// Directory that holds the name.
        parent: Ino,
        /// The name.
        name: Arc<str>,
    },
}

/// The names of one mount. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<Shared>);

struct Shared {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    defaults: AttributeDefaults,
    limits: NamespaceLimits,
    clock: Clock,
    journal_dir: Option<PathBuf>,
    table: Mutex<Table>,
    asking: Mutex<Asking>,
    /// First pages that lookups brought, the latest first.
    begun: Mutex<VecDeque<Arc<listing::Listing>>>,
    brought: Mutex<renew::Brought>,
    /// Told when keys have been moved.
    moved: Notify,
    /// The server was found to list out of order.
    serial_listings: AtomicBool,
    events: Mutex<Option<mpsc::UnboundedSender<NamespaceEvent>>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Namespace").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Namespace {
    /// The names below `prefix` (empty, or ending in `/`). Intents of directory renames are kept in `journal_dir`, so
    /// that a crash leaves no half of one; without it they are not resumed.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        prefix: &str,
        defaults: AttributeDefaults,
        limits: NamespaceLimits,
        clock: Clock,
        journal_dir: Option<PathBuf>,
    ) -> Self {
        let table = Mutex::new(Table::new(clock.now(), clock.wall(), defaults.posix));
        Self(Arc::new(Shared {
            store,
            prefix: prefix.to_owned(),
            defaults,
            limits,
            clock,
            journal_dir,
            table,
            asking: Mutex::default(),
            begun: Mutex::default(),
            brought: Mutex::default(),
            moved: Notify::new(),
            serial_listings: AtomicBool::new(false),
            events: Mutex::new(None),
        }))
    }

    /// What changes in S3 behind the kernel's back, from now on.
    pub fn events(&self) -> mpsc::UnboundedReceiver<NamespaceEvent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.0.events.lock() = Some(sender);
        receiver
    }

    fn tell(&self, parent: Ino, name: &str) {
        if let Some(events) = &*self.0.events.lock() {
            // Nobody listens any more when the mount is ending.
            let _ = events.send(NamespaceEvent::EntryChanged { parent, name: name.into() });
        }
    }

    fn is_fresh(&self, seen: Instant, now: Instant) -> bool {
        now.saturating_duration_since(seen) < self.0.limits.metadata_ttl
    }

    /// How long what was seen then is still fresh.
    fn fresh_for(&self, seen: Instant) -> Duration {
        self.0.limits.metadata_ttl.saturating_sub(self.0.clock.now().saturating_duration_since(seen))
    }

    /// What all keys in a directory begin with: empty, or ending in `/`.
    fn directory_prefix(&self, table: &Table, ino: Ino) -> NamespaceResult<String> {
        let names = table.chain(ino).ok_or(NamespaceError::Stale)?;
        let mut prefix = self.0.prefix.clone();
        for name in names {
            prefix.push_str(&name);
            prefix.push('/');
        }
        Ok(prefix)
    }

    /// The present key of a file; `Stale` once it has lost its name.
    pub fn key(&self, ino: Ino) -> NamespaceResult<ObjectKey> {
        let table = self.0.table.lock();
        let row = table.rows.get(&ino).filter(|row| row.linked).ok_or(NamespaceError::Stale)?;
        self.key_of(&table, row)
    }

    /// The key that a row's name spells.
    fn key_of(&self, table: &Table, row: &Row) -> NamespaceResult<ObjectKey> {
        let prefix = self.directory_prefix(table, row.parent)?;
        Ok(keys::file_key(&prefix, &row.name)?.into())
    }

    /// Whether a name leads to this inode, as far as is known.
    pub fn leads_to(&self, (parent, name): (Ino, &str), ino: Ino) -> bool {
        self.0.table.lock().child(parent, name) == Some(ino)
    }

    /// The key that a file of this name has or would have.
    pub fn key_in(&self, parent: Ino, name: &str) -> NamespaceResult<ObjectKey> {
        let table = self.0.table.lock();
        let prefix = self.directory_prefix(&table, parent)?;
        Ok(keys::file_key(&prefix, name)?.into())
    }

    /// A directory that still has its name.
    fn check_directory(table: &Table, ino: Ino) -> NamespaceResult<()> {
        match table.rows.get(&ino) {
            Some(row) if row.kind != NodeKind::Directory => Err(NamespaceError::NotADirectory),
            Some(row) if row.linked => Ok(()),
            _ => Err(NamespaceError::NotFound),
        }
    }

    /// The kernel dropped `lookups` references.
    pub fn forget(&self, ino: Ino, lookups: u64) {
        let mut table = self.0.table.lock();
        let Some(row) = table.rows.get_mut(&ino) else { return };
        row.lookups = row.lookups.saturating_sub(lookups);
        if row.lookups == 0 && row.pins == 0 {
            table.shed(ino);
            table.drop_if_unused(ino);
        }
    }

    /// An entry of a directory stream is handed to the kernel: one reference more. Answers what the name leads to now; `None`
    /// if nothing has it any more.
    pub fn remember(&self, parent: Ino, entry: &DirectoryEntry) -> Option<Node> {
        let mut table = self.0.table.lock();
        let ino = table.child(parent, &entry.name)?;
        table.row_mut(ino).lookups += 1;
        Some(self.node_of(&table, ino))
    }

    /// An open handle keeps the inode.
    pub fn pin(&self, ino: Ino) {
        if let Some(row) = self.0.table.lock().rows.get_mut(&ino) {
            row.pins += 1;
        }
    }

    /// The handle is gone.
    pub fn unpin(&self, ino: Ino) {
        let mut table = self.0.table.lock();
        let Some(row) = table.rows.get_mut(&ino) else { return };
        row.pins = row.pins.saturating_sub(1);
        table.drop_if_unused(ino);
    }

    /// The files that are known below a directory.
    pub fn files_under(&self, ino: Ino) -> Vec<Ino> {
        self.0.table.lock().files_under(ino)
    }
}
