//! The memory tier: blocks weighed in bytes, the least recently used dropped first.
//!
//! Never over its limit once an insertion has returned. Plain LRU rather than moka's TinyLFU: that one refuses a newcomer
//! that was asked for less often than its victim, which is every block that a prefetcher brings.

use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::CachedBlock;
use crate::types::{BlockId, ByteRange, ObjectVersion};

/// What an entry costs beside its bytes: key, map node, LRU node, read and write log (moka 0.12, counted on 64 bit).
const ENTRY_OVERHEAD_BYTES: u64 = 512;

/// Blocks of a version that [`MemoryCache::forget_version`] looks for before it believes that the rest aged out.
const FORGET_MISSES_MAX: u32 = 4;

/// Mixes the few words of a [`BlockId`], whose version was hashed well when it was made: one multiplication a word
/// instead of SipHash's rounds, for this is computed on every read.
#[derive(Clone, Copy, Debug, Default)]
pub struct BlockHasher(u64);

impl Hasher for BlockHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        // The multiplier is 2^64 divided by the golden ratio (Knuth, TAOCP 3, 6.4).
        self.0 = (self.0.rotate_left(29) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

/// Cached blocks in memory. Cheap to clone; all clones are one cache.
#[derive(Clone, Debug)]
pub struct MemoryCache {
    blocks: Cache<BlockId, CachedBlock, BuildHasherDefault<BlockHasher>>,
}

impl MemoryCache {
    /// An empty cache of at most `limit_bytes`, what entries cost beside their bytes included.
    pub fn new(limit_bytes: u64) -> Self {
        // moka weighs in u32; no block comes near 4 GiB.
        let weigh = |_: &BlockId, block: &CachedBlock| {
            u32::try_from(block.weight_bytes() + ENTRY_OVERHEAD_BYTES).unwrap_or(u32::MAX)
        };
        let blocks = Cache::builder()
            .max_capacity(limit_bytes)
            .weigher(weigh)
            .eviction_policy(EvictionPolicy::lru())
            .build_with_hasher(BuildHasherDefault::default());
        Self { blocks }
    }

    /// What is known of a block. One look-up; counts as a use.
    pub fn get(&self, id: &BlockId) -> Option<CachedBlock> {
        self.blocks.get(id)
    }

    /// Whether anything is known of a block; does not count as a use.
    pub fn contains(&self, id: &BlockId) -> bool {
        self.blocks.contains_key(id)
    }

    /// Adds the bytes of the object from `start` on to a block whose range, cut at the end of the object, is `block`.
    pub fn insert(&self, id: BlockId, block: ByteRange, start: u64, bytes: Bytes) {
        let new = CachedBlock::piece(block, start, bytes);
        if new.is_whole() {
            self.blocks.insert(id, new);
        } else {
            self.blocks.entry(id).and_upsert_with(|old| match old {
                Some(old) => old.into_value().merged(&new, block),
                None => new,
            });
        }
        // moka evicts in batches, of up to 64 insertions: with blocks of 1 MiB that would be far over the limit.
        self.blocks.run_pending_tasks();
    }

    /// Drops a block.
    pub fn remove(&self, id: &BlockId) {
        self.blocks.invalidate(id);
    }

    /// Drops blocks of a version from its first on, until several in a row are not there.
    pub fn forget_version(&self, version: &ObjectVersion) {
        let mut misses = 0;
        for index in 0.. {
            let id = BlockId { version: version.clone(), index };
            misses = if self.blocks.remove(&id).is_some() { 0 } else { misses + 1 };
            if misses == FORGET_MISSES_MAX {
                return;
            }
        }
    }

    /// Bytes held, what entries cost beside their bytes included.
    pub fn used_bytes(&self) -> u64 {
        self.blocks.weighted_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK_BYTES: u64 = 4096;

    fn version() -> ObjectVersion {
        ObjectVersion::new("key".into(), "\"tag\"".into(), None)
    }

    fn insert_whole(cache: &MemoryCache, index: u64) {
        let block = ByteRange::of_len(index * BLOCK_BYTES, BLOCK_BYTES);
        let bytes = Bytes::from(vec![index as u8; 4096]);
        cache.insert(BlockId { version: version(), index }, block, block.start, bytes);
    }

    fn id(index: u64) -> BlockId {
        BlockId { version: version(), index }
    }

    #[test]
    fn the_limit_holds_after_every_insertion() {
        let cache = MemoryCache::new(10 * (BLOCK_BYTES + ENTRY_OVERHEAD_BYTES));
        for index in 0..500 {
            insert_whole(&cache, index);
            assert!(cache.used_bytes() <= 10 * (BLOCK_BYTES + ENTRY_OVERHEAD_BYTES));
        }
        assert!(cache.contains(&id(499)), "the newest block is the last to go");
    }

    #[test]
    fn a_new_block_is_taken_in_however_often_the_old_ones_were_used() {
        let cache = MemoryCache::new(4 * (BLOCK_BYTES + ENTRY_OVERHEAD_BYTES));
        for index in 0..4 {
            insert_whole(&cache, index);
        }
        for _ in 0..1000 {
            assert!(cache.get(&id(3)).is_some());
        }
        insert_whole(&cache, 4);
        assert!(cache.get(&id(4)).is_some());
        assert!(cache.get(&id(0)).is_none(), "the least recently used one went");
    }

    #[test]
    fn pieces_of_a_block_are_gathered_under_one_entry() {
        let cache = MemoryCache::new(1 << 20);
        let block = ByteRange::new(0, BLOCK_BYTES);
        cache.insert(id(0), block, 100, Bytes::from_static(&[1; 10]));
        cache.insert(id(0), block, 200, Bytes::from_static(&[2; 10]));
        let known = cache.get(&id(0)).expect("two pieces");
        assert_eq!(known.slice(ByteRange::new(102, 104)).as_deref(), Some(&[1, 1][..]));
        assert_eq!(known.slice(ByteRange::new(200, 210)).as_deref(), Some(&[2; 10][..]));
        assert_eq!(cache.used_bytes(), known.weight_bytes() + ENTRY_OVERHEAD_BYTES);
        assert!(known.weight_bytes() > 20, "a piece costs more than its bytes");
    }

    #[test]
    fn a_forgotten_version_is_gone_and_others_stay() {
        let cache = MemoryCache::new(1 << 20);
        let other = BlockId { version: ObjectVersion::new("other".into(), "\"t\"".into(), None), index: 0 };
        cache.insert(other.clone(), ByteRange::new(0, 4), 0, Bytes::from_static(b"stay"));
        for index in 0..20 {
            insert_whole(&cache, index);
        }
        cache.forget_version(&version());
        assert!((0..20).all(|index| !cache.contains(&id(index))));
        assert!(cache.contains(&other));
    }
}
