//! Writes: one [`Writer`] for each inode with unpublished bytes.
//!
//! Written bytes are copied once, into staging (`staging.rs`). Parts that a stream has filled are uploaded while it goes
//! on (`upload.rs`); publishing sends what is left, lets the server copy what is clean, and completes (`publish.rs`). What
//! cannot be published is kept in the journal (`journal.rs`), where `recover.rs` finds it.
//!
//! Promise: when [`Writer::publish`] answered success, the object is committed in S3; when it failed, the bytes are still
//! in memory and, if S3 was the reason, in the journal as well.

mod counted;
mod draining;
mod journal;
mod kept;
mod parts;
mod plan;
mod progress;
mod publish;
mod ranges;
pub mod recover;
mod spilled;
mod staging;
mod state;
#[cfg(test)]
mod tests;
mod upload;
mod writer;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

pub use self::draining::Drain;
use self::draining::Draining;
pub use self::journal::{Intent, Journal, Kept, KeptBase, KeptId, KeptPart};
pub use self::kept::Keep;
use self::parts::Layout;
pub use self::progress::Progress;
pub use self::publish::{Commit, Committed};
pub use self::spilled::{SpilledRange, load};
use self::staging::{Room, Staging};
use self::state::State;
pub use self::writer::{Retargeted, Writer};
use crate::clock::Clock;
use crate::config::WriteLimits;
use crate::memory::{Budget, Overdraft, PagePool, Spill};
use crate::metrics::Metrics;
use crate::store::{ObjectAttributes, ObjectStore, StoreError};
use crate::types::{ByteRange, ETag, ObjectInfo, ObjectKey};

/// What a writer begins with.
#[derive(Clone, Debug)]
pub struct WriteTarget {
    /// Key to write.
    pub key: ObjectKey,
    /// What the key holds now.
    pub base: Base,
    /// What the object carries beside its bytes.
    pub attributes: ObjectAttributes,
}

/// What a writer builds on.
#[derive(Clone, Debug)]
pub enum Base {
    /// Nothing: the file is new. `exclusive`: publishing fails if somebody else made it first (If-None-Match: *).
    Absent {
        /// O_EXCL.
        exclusive: bool,
    },
    /// Something that is not wanted (O_TRUNC): the last writer wins. Its tag, where that is known, tells a recovery what it may replace.
    Truncated(Option<ETag>),
    /// This object: its bytes show through, and publishing fails if it is no longer there (If-Match).
    Object(ObjectInfo),
}

/// A part of a range, in order.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Bytes in memory.
    Staged(Bytes),
    /// Bytes on local disk: [`load`] reads them.
    Spilled(SpilledRange),
    /// So many zeros.
    Zeros(u64),
    /// Bytes of the base object.
    Base(ByteRange),
    /// Bytes that were uploaded and dropped from memory: readable once published.
    Dropped(ByteRange),
}

/// A publication.
#[derive(Clone, Debug)]
pub struct Published {
    /// The object now.
    pub info: ObjectInfo,
    /// Blocks of it that memory still holds, by block number; not necessarily all.
    pub blocks: Vec<(u64, Bytes)>,
}

/// Why a write or a publication failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Another writer was first. The bytes are kept.
    #[error("another writer changed the object first")]
    Conflict,
    /// The base object is gone while its bytes were needed. What was written is kept.
    #[error("the object under the changes is gone")]
    Stale,
    /// Neither memory nor local disk for more unpublished bytes.
    #[error("no room for unpublished bytes")]
    NoSpace,
    /// Over 10,000 parts.
    #[error("larger than an S3 object can be")]
    TooLarge,
    /// S3 said no. The bytes are kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Local disk, which has the unpublished bytes that memory has no room for, fails.
    #[error("local disk: {0}")]
    Spill(io::Error),
    /// The journal could not be written; the bytes are in memory only.
    #[error("journal: {0}")]
    Journal(#[from] io::Error),
}

/// The share of unpublished bytes' memory that holds bytes of base objects, fetched to fill parts up: one part in so many.
const FETCHED_SHARE: u64 = 4;

/// Bytes for what is fetched, of `limits.staging_bytes` in all: a part where half of them is enough for one.
fn fetched_bytes(limits: &WriteLimits) -> u64 {
    (limits.staging_bytes / FETCHED_SHARE).max(limits.part_bytes.min(limits.staging_bytes / 2))
}

/// What all writers of a mount share.
struct Shared {
    store: Arc<dyn ObjectStore>,
    limits: WriteLimits,
    room: Room,
    uploads: Arc<Semaphore>,
    /// What may give memory for unpublished bytes back.
    draining: Draining,
    /// Bytes of base objects that are fetched to fill parts up.
    fetched: Budget,
    metrics: Arc<Metrics>,
    clock: Clock,
    journal: Journal,
    runtime: Handle,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteEngine").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Makes writers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WriteEngine(Arc<Shared>);

impl WriteEngine {
    /// An engine within limits. Must be called in a tokio runtime, which runs the uploads.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        pages: Arc<PagePool>,
        limits: WriteLimits,
        metrics: Arc<Metrics>,
        clock: Clock,
        journal: Journal,
    ) -> Self {
        let budget = Budget::new(limits.staging_bytes - fetched_bytes(&limits));
        Self(Arc::new(Shared {
            store,
            limits,
            room: Room {
                pool: pages,
                budget,
                spill: None,
                overdraft: Overdraft::default(),
                overdraft_bytes_max: limits.staging_bytes,
            },
            draining: Draining::default(),
            uploads: Arc::new(Semaphore::new(limits.uploads_max.max(1))),
            fetched: Budget::new(fetched_bytes(&limits)),
            metrics,
            clock,
            journal,
            runtime: Handle::current(),
        }))
    }

    /// The same, with local disk for unpublished bytes that neither fit the limits nor can be uploaded. For an engine that has made
    /// no writer yet.
    #[must_use]
    pub fn spilling_to(self, spill: Spill) -> Self {
        let mut shared = self.0;
        if let Some(shared) = Arc::get_mut(&mut shared) {
            shared.room.spill = Some(spill);
        }
        Self(shared)
    }

    /// A writer; nothing is asked of S3.
    pub fn writer(&self, target: WriteTarget) -> Writer {
        let staging = Staging::new(self.0.room.clone());
        let state = State::new(target, Layout::new(self.0.limits.part_bytes), staging);
        Writer::new(Arc::clone(&self.0), state)
    }

    /// Bytes of memory that unpublished bytes take.
    pub fn staged_bytes(&self) -> u64 {
        self.0.room.memory_bytes()
    }

    /// Somebody is about to let a writer go, whose memory others may wait for until the answer is dropped.
    pub fn draining(&self) -> Drain {
        self.0.draining.begin()
    }

    /// Whether the journal still has something.
    pub fn is_kept(&self, id: &KeptId) -> bool {
        self.0.journal.holds(id)
    }

    /// Bytes of local disk that unpublished bytes take.
    pub fn spilled_bytes(&self) -> u64 {
        self.0.room.spill.as_ref().map_or(0, Spill::used_bytes)
    }

    /// Aborts the multipart uploads that a process before this one began and did not end, as its `journal` says: no process
    /// may be using it. Answers how many that were.
    ///
    /// # Errors
    /// What S3 said; the journal then still holds the rest.
    pub async fn abort_orphans(&self, journal: &Journal) -> Result<usize, StoreError> {
        let mut aborted = 0;
        for begun in journal.begun() {
            self.0
                .store
                .abort_upload(&begun.key.as_str().into(), &crate::store::UploadId(begun.upload.as_str().into()))
                .await?;
            journal.ended(&begun.upload);
            aborted += 1;
        }
        Ok(aborted)
    }
}
