//! Blocks of object versions that were read before, so that S3 is not asked again.
//!
//! Owns the tiers and what a cached block is; knows nothing of S3, of readers or of requests. What is asked of it is
//! a [`BlockId`](crate::types::BlockId), which names immutable content: an entry is never updated, only added to or
//! dropped, so a hit cannot be out of date. Losing every entry loses speed alone.
//!
//! The memory tier answers at once ([`MemoryCache::get`]); a slower tier is asked by the task that would otherwise ask
//! S3, between the miss here and the request, and gives its blocks through [`MemoryCache::insert`] like S3's.

mod block;
mod memory;

pub use self::block::CachedBlock;
pub use self::memory::{BlockHasher, MemoryCache};
