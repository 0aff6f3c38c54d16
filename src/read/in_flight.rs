//! What is on its way: for each block, the fillings that are under way, so that no byte is asked for twice.
//!
//! Owns the table and the order that makes single flight hold: a filling's bytes are put into the cache before it leaves the
//! table, and whoever finds nothing in the table looks into the cache (again) under the table's lock. No lock here is held
//! across a wait.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::filling::Filling;
use crate::cache::BlockHasher;
use crate::types::BlockId;

/// Shards of the table: many more than threads, so that they seldom meet. A power of two.
const SHARDS: usize = 64;

pub(super) type Shard = HashMap<BlockId, Vec<Arc<Filling>>, BuildHasherDefault<BlockHasher>>;

/// Every filling under way, by block.
#[derive(Debug)]
pub(super) struct InFlight {
    shards: Box<[Mutex<Shard>]>,
    hasher: BuildHasherDefault<BlockHasher>,
}

impl InFlight {
    /// An empty table.
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, hasher: BuildHasherDefault::default() }
    }

    /// The part of the table that holds `id`, locked.
    pub(super) fn lock(&self, id: &BlockId) -> MutexGuard<'_, Shard> {
        let hash = usize::try_from(self.hasher.hash_one(id) & (SHARDS as u64 - 1)).unwrap_or(0);
        self.shards[hash].lock()
    }

    /// Takes a filling out; does nothing if it is out already.
    pub(super) fn remove(&self, id: &BlockId, filling: &Arc<Filling>) {
        let mut shard = self.lock(id);
        if let Some(fillings) = shard.get_mut(id) {
            fillings.retain(|other| !Arc::ptr_eq(other, filling));
            if fillings.is_empty() {
                shard.remove(id);
            }
        }
    }

    /// How many blocks have a filling under way.
    #[cfg(test)]
    pub(super) fn blocks(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}
