//! Facts about the read engine, against a store that can be held back and broken.

mod disk;
mod faults;
mod opening;
mod requests;
mod scripted;
mod sums;

use std::sync::Arc;

use bytes::Bytes;

use self::scripted::{Break, Scripted, Shared};
use super::*;
use crate::store::GetRange;
use crate::types::ObjectKey;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const CHUNK: usize = 64 << 10;

/// A byte pattern that no shift by a block or a granule maps onto itself.
fn content(len: u64, seed: u64) -> Bytes {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; len as usize];
    random.fill(&mut bytes);
    bytes.into()
}

struct Bench {
    store: Arc<Scripted>,
    engine: ReadEngine,
    bytes: Bytes,
}

fn key() -> ObjectKey {
    "key".into()
}

fn range(start: u64, len: u64) -> ByteRange {
    ByteRange::of_len(start, len)
}

impl Bench {
    fn with(store: Scripted, size: u64, limits: ReadLimits) -> Self {
        let bytes = content(size, 1);
        store.memory.put_directly("key", bytes.clone());
        let store = Arc::new(store);
        let shared = Arc::new(Shared(Arc::clone(&store)));
        let engine = ReadEngine::new(shared, PagePool::new(64 << 20), limits, Arc::default());
        Self { store, engine, bytes }
    }

    fn new(size: u64) -> Self {
        Self::with(Scripted::new(CHUNK), size, ReadLimits::default())
    }

    fn held(size: u64) -> Self {
        Self::with(Scripted::held(CHUNK), size, ReadLimits::default())
    }

    async fn open(&self) -> Reader {
        self.engine.open(&key(), None).await.expect("the object is there")
    }

    /// Pinned to what the key holds now, no request made.
    async fn reader(&self) -> Reader {
        use crate::store::ObjectStore;
        self.engine.reader(&self.store.memory.head(&key()).await.expect("the object is there"))
    }

    fn expect(&self, range: ByteRange) -> &[u8] {
        let size = self.bytes.len() as u64;
        &self.bytes[range.start.min(size) as usize..range.end.min(size) as usize]
    }

    async fn check(&self, reader: &Reader, range: ByteRange) {
        let found = match reader.try_read(range) {
            Some(bytes) => bytes,
            None => reader.read(range).await.expect("a read of bytes that are there"),
        };
        assert!(found == self.expect(range), "wrong bytes at {range}");
    }

    /// Until every request has ended and its task is gone.
    async fn settle(&self) {
        // Each request's task holds the fetcher, and after its last block still offers what came to the disk cache.
        let fetcher = &self.engine.0.fetcher;
        while Arc::strong_count(fetcher) > 1 || self.engine.in_flight_bytes() > 0 || fetcher.in_flight.blocks() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
