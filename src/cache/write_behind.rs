//! The queue from the memory tier to the disk tier.
//!
//! Holds names, not bytes: what is queued stays in the memory cache, which weighs it, and is dropped here if it has left that
//! before the disk came to it. So a slow disk holds no memory and nobody up.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use super::{DiskCache, MemoryCache};
use crate::metrics::{Counter, Metrics};
use crate::types::{BlockId, ByteRange, ObjectInfo};

/// Names in the queue: blocks of 64 GiB, more than any memory cache holds at a time that a disk would catch up with.
const QUEUE_MAX: usize = 1 << 16;

enum Item {
    /// Bytes of one block, as the object has them.
    Keep(Arc<ObjectInfo>, ByteRange),
    /// Answered when everything before it is done.
    Barrier(SyncSender<()>),
}

/// Takes note of what is to be kept. Cheap to clone; the thread behind it ends with the last clone.
#[derive(Clone, Debug)]
pub struct WriteBehind {
    queue: SyncSender<Item>,
    disk: DiskCache,
    metrics: Arc<Metrics>,
}

impl WriteBehind {
    /// Starts the thread that carries blocks from `memory` to `disk`.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start(memory: MemoryCache, disk: DiskCache, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let (queue, items) = sync_channel(QUEUE_MAX);
        let (to, counted) = (disk.clone(), Arc::clone(&metrics));
        thread::Builder::new().name("disk cache".into()).spawn(move || carry(&items, &memory, &to, &counted))?;
        Ok(Self { queue, disk, metrics })
    }

    /// The tier that is written to.
    pub fn disk(&self) -> &DiskCache {
        &self.disk
    }

    /// Has bytes of one block, which the memory cache holds, kept. Never waits.
    pub fn offer(&self, info: &Arc<ObjectInfo>, range: ByteRange) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Item::Keep(Arc::clone(info), range)) {
            self.metrics.add(Counter::DiskCacheDropped, 1);
        }
    }

    /// Waits until what was offered before is on disk, for `limit` at most. Blocks.
    pub fn settle(&self, limit: Duration) {
        let (done, wait) = sync_channel(1);
        if self.queue.try_send(Item::Barrier(done)).is_ok() {
            // Whatever is left after that is asked of S3 another time.
            let _ = wait.recv_timeout(limit);
        }
    }
}

fn carry(items: &Receiver<Item>, memory: &MemoryCache, disk: &DiskCache, metrics: &Metrics) {
    while let Ok(item) = items.recv() {
        let (info, range) = match item {
            Item::Keep(info, range) => (info, range),
            Item::Barrier(done) => {
                // Who waited may have given up.
                let _ = done.try_send(());
                continue;
            }
        };
        let id = BlockId { version: info.version.clone(), index: range.start / crate::memory::PAGE_BYTES as u64 };
        match memory.get(&id).and_then(|block| block.slice(range)) {
            Some(bytes) if disk.write(&info, range.start, &bytes) => {}
            _ => metrics.add(Counter::DiskCacheDropped, 1),
        }
    }
}
