//! A flight's stop at the disk cache: what is there is read in place, and only the rest is asked of S3.
//!
//! Owns the way between a request and the disk tier, both directions; blocks are read on threads that may block, a bounded
//! number at a time. Bytes go from the disk into the memory that readers wait for, without a copy between. Invariant: a claim
//! that was taken to the disk comes back, or is failed.

use std::collections::VecDeque;
use std::sync::Arc;

use super::fetch::{Fetcher, block_range};
use super::filling::{Outcome, SegmentWriter};
use super::flight::Flight;
use crate::cache::{DiskCache, WriteBehind};
use crate::metrics::Counter;
use crate::types::{ByteRange, ObjectInfo};

/// Reads of the disk at a time. Each asks the disk for up to a request's 8 MiB at once, so that this many keep an NVMe device
/// busy (its queue is deeper than that), and more would only take threads.
const READS_MAX: usize = 8;

/// The disk tier of a read engine.
#[derive(Debug)]
pub(super) struct DiskTier {
    pub(super) behind: WriteBehind,
    reads: tokio::sync::Semaphore,
}

impl DiskTier {
    pub(super) fn new(behind: WriteBehind) -> Self {
        Self { behind, reads: tokio::sync::Semaphore::new(READS_MAX) }
    }

    pub(super) fn cache(&self) -> &DiskCache {
        self.behind.disk()
    }
}

impl Fetcher {
    /// Whether the disk cache has a block with all its bytes.
    pub(super) fn disk_holds_block(&self, info: &ObjectInfo, index: u64) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.cache().holds_block(info, index))
    }
}

impl Flight {
    /// Fills from the disk cache what it has; what is left, if anything, is one contiguous request of this flight, and others of
    /// their own.
    pub(super) async fn take_from_disk(&mut self) -> Result<(), Outcome> {
        let Some(disk) = self.fetcher.disk.clone().filter(|_| !self.past_disk) else { return Ok(()) };
        self.past_disk = true;
        let asked = self.writers.len() as u64;
        if !disk.cache().may_hold(&self.of.info, self.rest) {
            self.fetcher.metrics.add(Counter::DiskCacheMisses, asked);
            return Ok(());
        }
        let _permit = disk.reads.acquire().await.expect("the semaphore of disk reads is never closed");
        let (info, range, cache) = (Arc::clone(&self.of.info), self.rest, disk.cache().clone());
        let fillings: Vec<_> = self.writers.iter().map(|writer| Arc::clone(writer.filling())).collect();
        let mut writers = std::mem::take(&mut self.writers);
        let read = tokio::task::spawn_blocking(move || {
            if let Some(reader) = cache.reader(&info, range) {
                for writer in &mut writers {
                    writer.fill_with(|start, into| reader.fill(start, into));
                }
            }
            writers
        });
        let Ok(writers) = read.await else {
            // The thread panicked, and the claims with it.
            for filling in fillings {
                self.fetcher.in_flight.remove(&self.block_of(filling.range()), &filling);
                filling.fail(Outcome::Abandoned);
            }
            return Err(Outcome::Abandoned);
        };
        let mut left = VecDeque::new();
        for writer in writers {
            if writer.is_full() { self.hand_over(writer) } else { left.push_back(writer) }
        }
        self.fetcher.metrics.add(Counter::DiskCacheHits, asked - left.len() as u64);
        self.fetcher.metrics.add(Counter::DiskCacheMisses, left.len() as u64);
        // These came from the disk: they need not go back.
        self.arrived.clear();
        self.take_up(left);
        Ok(())
    }

    /// Goes on with the first of the claims that are left and what follows it without a gap; each further run becomes a flight.
    fn take_up(&mut self, mut left: VecDeque<SegmentWriter>) {
        let run_of = |left: &mut VecDeque<SegmentWriter>| {
            let mut run: VecDeque<SegmentWriter> = left.pop_front().into_iter().collect();
            while let (Some(last), Some(next)) = (run.back(), left.front())
                && last.missing().end == next.missing().start
            {
                run.extend(left.pop_front());
            }
            run
        };
        self.writers = run_of(&mut left);
        if let (Some(first), Some(last)) = (self.writers.front(), self.writers.back()) {
            self.rest = ByteRange::new(first.missing().start, last.missing().end);
        }
        while !left.is_empty() {
            let run = run_of(&mut left);
            let bytes = run.iter().map(|writer| writer.range().len()).sum();
            let lease = self.lease.as_mut().and_then(|lease| lease.split(bytes));
            let mut flight = Flight::new(Arc::clone(&self.fetcher), self.of.clone(), run, lease);
            flight.past_disk = true;
            flight.depart(None);
        }
    }

    /// Has the disk cache keep what this flight brought, but what it had itself.
    pub(super) fn keep_on_disk(&mut self) {
        let arrived = std::mem::take(&mut self.arrived);
        if let Some(disk) = &self.fetcher.disk {
            arrived.into_iter().for_each(|range| disk.behind.offer(&self.of.info, range));
        }
    }
}

impl Fetcher {
    /// Has the disk cache keep a block of a version that this mount has written.
    pub(super) fn keep_block(&self, info: &Arc<ObjectInfo>, index: u64) {
        if let Some(disk) = &self.disk {
            disk.cache().keep_from_kernel(info);
            disk.behind.offer(info, block_range(index, info.size_bytes));
        }
    }
}
