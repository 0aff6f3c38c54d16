//! From a range of an object version to its bytes: cache, then what is on its way, then one GET for what is neither.
//!
//! Owns the claiming of missing bytes (single flight over all handles) and the grouping of claims into requests. Never
//! decides what to read ahead (`window` does) and never waits with a lock held. Invariant: a byte of a version is on its
//! way at most once, and every claim is either filled or failed, whatever becomes of those who wait.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::ReadError;
use super::disk::DiskTier;
use super::filling::{Filling, Outcome, SegmentWriter};
use super::flight::{Flight, FlightOf};
use super::in_flight::InFlight;
use crate::cache::MemoryCache;
use crate::config::ReadLimits;
use crate::memory::{Budget, Lease, PAGE_BYTES, PagePool};
use crate::metrics::{Counter, Metrics};
use crate::store::{ObjectStore, StoreError};
use crate::types::{BlockId, ByteRange, ObjectInfo, ObjectVersion};

/// Bytes of a block.
pub(super) const BLOCK_BYTES: u64 = PAGE_BYTES as u64;

/// A read that continues no stream is asked for in equal parts of about this many bytes, each on its own connection: at 90 MB/s a
/// connection 256 KiB take 3 ms beside the 25 ms to the first byte, where 1 MiB would take 12.
const RANDOM_REQUEST_BYTES: u64 = 256 << 10;

/// How often a read asks anew for bytes whose request was given up between its look and its wait. Each time is a race lost
/// against a handle that was closed at that moment.
const CLAIMS_MAX: usize = 16;

/// What the engine of one mount shares among its readers.
pub(super) struct Fetcher {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) cache: MemoryCache,
    pub(super) disk: Option<Arc<DiskTier>>,
    pub(super) in_flight: InFlight,
    pub(super) budget: Budget,
    /// One for each ranged GET in flight; taken after the bytes, so that whoever holds one can go on.
    pub(super) requests: Arc<Semaphore>,
    pub(super) pages: Arc<PagePool>,
    pub(super) limits: ReadLimits,
    pub(super) metrics: Arc<Metrics>,
    pub(super) runtime: Handle,
}

/// How missing bytes are to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// As few requests as there are limits for.
    Streaming,
    /// Side by side, over several connections.
    Random(Parts),
}

/// What is claimed where bytes are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// These.
    Exactly,
    /// Where a block is in many pieces, all up to the next known bytes on both sides.
    WithItsGap,
}

/// The equal parts of a read that continues no stream, wherever in its blocks they end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    start: u64,
    bytes: u64,
}

impl Parts {
    /// Those of a read of `range`.
    pub(super) fn of(range: ByteRange) -> Self {
        let count = ((range.len() + RANDOM_REQUEST_BYTES / 2) / RANDOM_REQUEST_BYTES).max(1);
        Self { start: range.start, bytes: range.len().div_ceil(count).max(1) }
    }

    /// Where the part ends that has the byte at `offset`, which lies in the read.
    fn end(self, offset: u64) -> u64 {
        // A gap of a block in many pieces may begin before the read.
        self.start + (offset.saturating_sub(self.start) / self.bytes + 1) * self.bytes
    }
}

impl Shape {
    /// Cuts missing bytes of a block, if they are more than one request's.
    fn cut(self, mut missing: ByteRange) -> Vec<ByteRange> {
        let mut cut = Vec::with_capacity(1);
        if let Self::Random(parts) = self
            && missing.len() > RANDOM_REQUEST_BYTES
        {
            while parts.end(missing.start) < missing.end {
                let end = parts.end(missing.start);
                cut.push(ByteRange::new(missing.start, end));
                missing.start = end;
            }
        }
        cut.push(missing);
        cut
    }
}

/// Bytes of a range, in order: there, or on their way.
#[derive(Debug)]
enum Source {
    Ready(Bytes),
    Coming(Arc<Filling>, ByteRange),
}

/// Where the bytes of a range come from, and what nobody had asked for before.
#[derive(Debug, Default)]
pub(super) struct Claim {
    sources: Vec<Source>,
    /// One for each segment that must now be fetched, ascending. Dropping one without filling it leaves waiters waiting.
    pub(super) writers: Vec<SegmentWriter>,
}

impl Claim {
    /// Waits for every byte.
    async fn collect(self, range: ByteRange) -> Result<Bytes, Outcome> {
        let mut sources = self.sources.into_iter();
        if sources.len() == 1
            && let Some(source) = sources.next()
        {
            return source.bytes().await;
        }
        let mut all = BytesMut::with_capacity(usize::try_from(range.len()).unwrap_or(0));
        for source in sources {
            all.extend_from_slice(&source.bytes().await?);
        }
        Ok(all.freeze())
    }
}

impl Source {
    async fn bytes(self) -> Result<Bytes, Outcome> {
        match self {
            Self::Ready(bytes) => Ok(bytes),
            Self::Coming(filling, range) => filling.wait(range).await,
        }
    }
}

/// The range of the block `index`, cut at the end of the object.
pub(super) fn block_range(index: u64, size_bytes: u64) -> ByteRange {
    ByteRange::of_len(index.saturating_mul(BLOCK_BYTES), BLOCK_BYTES).intersect(&ByteRange::new(0, size_bytes))
}

fn blocks_of(range: ByteRange) -> std::ops::Range<u64> {
    range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES)
}

impl Fetcher {
    /// The bytes of a range that is not empty and ends within the object, if memory has them all.
    pub(super) fn ready(&self, version: &ObjectVersion, range: ByteRange) -> Option<Bytes> {
        let mut blocks = blocks_of(range);
        let first = self.ready_in_block(version, blocks.next()?, range)?;
        if blocks.is_empty() {
            return Some(first);
        }
        let mut parts = vec![first];
        for index in blocks {
            parts.push(self.ready_in_block(version, index, range)?);
        }
        let mut all = BytesMut::with_capacity(usize::try_from(range.len()).ok()?);
        for part in parts {
            all.extend_from_slice(&part);
        }
        Some(all.freeze())
    }

    fn ready_in_block(&self, version: &ObjectVersion, index: u64, range: ByteRange) -> Option<Bytes> {
        let range = range.intersect(&ByteRange::of_len(index * BLOCK_BYTES, BLOCK_BYTES));
        let id = BlockId { version: version.clone(), index };
        if let Some(bytes) = self.cache.get(&id).and_then(|block| block.slice(range)) {
            self.metrics.add(Counter::CacheHits, 1);
            return Some(bytes);
        }
        let shard = self.in_flight.lock(&id);
        let coming = shard.get(&id)?.iter().find(|filling| filling.range().contains_range(&range))?;
        coming.bytes(range)
    }

    /// Whether the bytes of a block, as many as the object has, are there or on their way.
    pub(super) fn knows_block(&self, info: &ObjectInfo, index: u64) -> bool {
        let block = block_range(index, info.size_bytes);
        let id = BlockId { version: info.version.clone(), index };
        let shard = self.in_flight.lock(&id);
        let coming = shard.get(&id).is_some_and(|all| all.iter().any(|one| one.range().contains_range(&block)));
        coming || self.cache.get(&id).is_some_and(|known| known.slice(block).is_some())
    }

    /// Drops the blocks that end in `passed` from memory: their pages are filled anew while they are warm.
    pub(super) fn let_go(&self, version: &ObjectVersion, passed: ByteRange) {
        for index in passed.start / BLOCK_BYTES..passed.end / BLOCK_BYTES {
            self.cache.remove(&BlockId { version: version.clone(), index });
        }
    }

    /// Finds the bytes of `range`, which ends within the object, and claims those that nobody has or fetches. The caller
    /// must hand every writer of the claim to a flight.
    pub(super) fn claim(&self, info: &ObjectInfo, range: ByteRange, shape: Shape) -> Claim {
        let mut claim = Claim::default();
        for index in blocks_of(range) {
            self.claim_in_block(info, index, range, (shape, Missing::Exactly), &mut claim);
        }
        claim
    }

    /// The same for a read: what it misses of a block in many pieces is claimed with all that is unknown around it.
    fn claim_to_read(&self, info: &ObjectInfo, range: ByteRange, shape: Shape) -> Claim {
        let mut claim = Claim::default();
        for index in blocks_of(range) {
            self.claim_in_block(info, index, range, (shape, Missing::WithItsGap), &mut claim);
        }
        claim
    }

    fn claim_in_block(
        &self,
        info: &ObjectInfo,
        index: u64,
        range: ByteRange,
        (shape, asks): (Shape, Missing),
        claim: &mut Claim,
    ) {
        let block = block_range(index, info.size_bytes);
        let range = range.intersect(&block);
        let id = BlockId { version: info.version.clone(), index };
        let mut shard = self.in_flight.lock(&id);
        let cached = self.cache.get(&id);
        let mut cursor = range.start;
        while cursor < range.end {
            if let Some(bytes) = cached.as_ref().and_then(|cached| cached.run(cursor, range.end)) {
                cursor += bytes.len() as u64;
                claim.sources.push(Source::Ready(bytes));
                continue;
            }
            let fillings = shard.get(&id).map_or(&[][..], Vec::as_slice);
            let until = cached.as_ref().map_or(range.end, |cached| cached.next_known(cursor, range.end));
            let here = fillings.iter().find(|one| one.range().start <= cursor && cursor < one.range().end);
            if let Some(filling) = here {
                let part = ByteRange::new(cursor, until.min(filling.range().end));
                claim.sources.push(Source::Coming(Arc::clone(filling), part));
                cursor = part.end;
                continue;
            }
            let next = fillings.iter().map(|one| one.range().start).filter(|start| *start > cursor).min();
            let missing = ByteRange::new(cursor, next.map_or(until, |next| next.min(until)));
            let asked = match &cached {
                Some(cached) if asks == Missing::WithItsGap && cached.is_in_pieces() => {
                    let before = fillings.iter().map(|one| one.range().end).filter(|end| *end <= cursor).max();
                    let gap = cached.gap(cursor, block);
                    ByteRange::new(gap.start.max(before.unwrap_or(0)), gap.end.min(next.unwrap_or(gap.end)))
                }
                _ => missing,
            };
            let (filling, writers) = Filling::new(&shape.cut(asked), Arc::clone(&self.pages));
            claim.writers.extend(writers);
            claim.sources.push(Source::Coming(Arc::clone(&filling), missing));
            shard.entry(id.clone()).or_default().push(filling);
            self.metrics.add(Counter::CacheMisses, 1);
            cursor = missing.end;
        }
    }

    /// Reads a range that is not empty and ends within the object, and asks for the ranges `ahead`; what is missing of the
    /// read goes out in one request with the first of them where that follows on. `refused` is told from which range ahead on
    /// nothing was asked for, if the budget did not reach.
    pub(super) async fn read(
        self: &Arc<Self>,
        reader: &FlightOf,
        range: ByteRange,
        shape: Shape,
        ahead: &[ByteRange],
        refused: impl FnOnce(usize),
    ) -> Result<Bytes, ReadError> {
        let mut claim = self.claim_to_read(&reader.info, range, shape);
        if let Some(from) = self.launch_with(reader, std::mem::take(&mut claim.writers), shape, ahead) {
            refused(from);
        }
        for _ in 1..CLAIMS_MAX {
            match claim.collect(range).await {
                Ok(bytes) => return Ok(bytes),
                Err(Outcome::Failed(error)) => return Err(error),
                Err(Outcome::Abandoned) => {}
            }
            claim = self.claim_to_read(&reader.info, range, shape);
            self.launch(reader, std::mem::take(&mut claim.writers), shape, None);
        }
        Err(ReadError::Store(StoreError::Transient("the request was given up again and again".into())))
    }

    /// Launches a read's own `writers`, joined by the first of the ranges `ahead` where one request can bring both, then the
    /// others.
    fn launch_with(
        self: &Arc<Self>,
        reader: &FlightOf,
        mut writers: Vec<SegmentWriter>,
        shape: Shape,
        ahead: &[ByteRange],
    ) -> Option<usize> {
        let own_bytes = writers.iter().map(|writer| writer.range().len()).sum();
        let mut lease = if writers.is_empty() { None } else { self.budget.try_take(own_bytes) };
        if lease.is_none() && !writers.is_empty() {
            // The budget is spent: this read waits for its share, and nothing that nobody waits for gets in before it.
            self.launch(reader, writers, shape, None);
            return (!ahead.is_empty()).then_some(0);
        }
        let mut joined = 0;
        if let (Some(own), Some(first), Some(last), Some(next)) =
            (&mut lease, writers.first(), writers.last(), ahead.first())
            && shape == Shape::Streaming
            && last.range().end == next.start
            && next.end - first.range().start <= self.limits.request_bytes_max
            && let Some((more, more_lease)) = self.claim_ahead(&reader.info, *next)
        {
            joined = 1;
            own.merge(more_lease);
            writers.extend(more);
        }
        self.launch(reader, writers, shape, lease);
        self.prefetch(reader, &ahead[joined..]).map(|from| from + joined)
    }

    /// Asks for ranges that nobody waits for yet, as far as the budget reaches at once; says from which range on it did
    /// not.
    pub(super) fn prefetch(self: &Arc<Self>, reader: &FlightOf, ranges: &[ByteRange]) -> Option<usize> {
        for (index, range) in ranges.iter().enumerate() {
            let Some((writers, lease)) = self.claim_ahead(&reader.info, *range) else {
                return Some(index);
            };
            self.launch(reader, writers, Shape::Streaming, Some(lease));
        }
        None
    }

    /// Claims what is missing of a range with the bytes of it leased; `None` if the budget does not reach.
    fn claim_ahead(&self, info: &ObjectInfo, range: ByteRange) -> Option<(Vec<SegmentWriter>, Lease)> {
        let mut lease = self.budget.try_take(range.len())?;
        let writers = self.claim(info, range, Shape::Streaming).writers;
        let claimed: u64 = writers.iter().map(|writer| writer.range().len()).sum();
        // What others had asked for already is given back.
        drop(lease.split(range.len() - claimed));
        Some((writers, lease))
    }

    /// Sends the claims off, neighbours in one request as far as the shape wants it. Without a lease each request waits for
    /// its own.
    fn launch(
        self: &Arc<Self>,
        reader: &FlightOf,
        writers: Vec<SegmentWriter>,
        shape: Shape,
        mut lease: Option<Lease>,
    ) {
        let end_max = |start: u64| match shape {
            Shape::Streaming => start + self.limits.request_bytes_max,
            Shape::Random(parts) => parts.end(start),
        };
        let mut writers = writers.into_iter().peekable();
        while let Some(first) = writers.next() {
            let mut range = first.range();
            let mut group = VecDeque::from([first]);
            let follows = |range: ByteRange, next: &SegmentWriter| {
                next.range().start == range.end && next.range().end <= end_max(range.start)
            };
            while let Some(next) = writers.next_if(|next| follows(range, next)) {
                range.end = next.range().end;
                group.push_back(next);
            }
            let own = match writers.peek() {
                Some(_) => lease.as_mut().and_then(|lease| lease.split(range.len())),
                None => lease.take(),
            };
            Flight::new(Arc::clone(self), reader.clone(), group, own).depart(None);
        }
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher").field("limits", &self.limits).field("budget", &self.budget).finish_non_exhaustive()
    }
}
