//! Blocks of object versions that were read before, so that S3 is not asked again.
//!
//! Owns the tiers and what a cached block is; knows nothing of S3, of readers or of requests. What is asked of it is
//! a [`BlockId`](crate::types::BlockId), which names immutable content: an entry is never updated, only added to or
//! dropped, so a hit cannot be out of date. Losing every entry loses speed alone.
//!
//! The memory tier answers at once ([`MemoryCache::get`]). The disk tier ([`DiskCache`]) is asked by the task that would
//! otherwise ask S3, between the miss here and the request, on a thread that may block; its blocks then go into the memory tier
//! like S3's. What S3 gave is written behind ([`WriteBehind`]).
//!
//! - `block`, `memory`: the memory tier
//! - `disk`: the disk tier as others see it
//! - `format`: its bytes; `evict`: what it holds and what goes first; both pure
//! - `files`: its directory; `recover`: what an earlier process left there; `health`: how it is doing
//! - `write_behind`: the queue to it

mod block;
mod disk;
mod evict;
mod files;
mod format;
mod health;
mod memory;
mod own;
mod recover;
mod write_behind;

pub use self::block::CachedBlock;
pub use self::disk::{DISK_CACHE_BYTES_MIN, DiskCache, DiskReader, WholeFile};
pub use self::memory::{BlockHasher, MemoryCache};
pub use self::write_behind::WriteBehind;
