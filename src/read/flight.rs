//! One GET and what becomes of its bytes: each block is handed over as it fills, a broken body is taken up where it broke.
//!
//! Owns a request from its place in the line for the budget to its last byte, in a task of its own, so that a body is never
//! left unpolled and nobody who stops waiting stops it. Never asks for another version than the one it was made for.
//! Invariant: every claim that a flight took over is filled or failed, even if its task is dropped.
//! Where S3 sends a checksum of a small object, none of its bytes is read before that was found right.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use futures_util::StreamExt;
use tokio::sync::Notify;

use super::ReadError;
use super::fetch::{BLOCK_BYTES, Fetcher, block_range};
use super::filling::{Outcome, SegmentWriter};
use crate::memory::Lease;
use crate::metrics::Counter;
use crate::store::{BodyStream, GetRange, GetRequest, GetResponse, StoreError};
use crate::types::{BlockId, ByteRange, ObjectInfo};

/// Bodies in a row that may break without bringing a byte.
const FRUITLESS_BODIES_MAX: u32 = 4;
/// Bodies of one request that may break at all.
const BROKEN_BODIES_MAX: u32 = 32;

/// A body that nobody wants any more is read to its end if no more than this is missing: that takes 11 ms at 90 MB/s, and
/// giving up costs the connection, whose successor needs two or three round trips.
const ABANDON_BYTES_MIN: u64 = 1 << 20;

/// The handle for which requests are made, for as long as it is open.
#[derive(Debug, Default)]
pub(super) struct Owner {
    gone: AtomicBool,
    left: Notify,
}

impl Owner {
    /// The handle is closed: requests that nobody waits for may be given up.
    pub(super) fn leave(&self) {
        self.gone.store(true, SeqCst);
        self.left.notify_waiters();
    }
}

/// For whom, and of what, a request is made.
#[derive(Clone, Debug)]
pub(super) struct FlightOf {
    pub(super) owner: Arc<Owner>,
    pub(super) info: Arc<ObjectInfo>,
}

/// A request and the claims that it is to fill.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) of: FlightOf,
    /// Ascending; between two of them may lie bytes that others have.
    pub(super) writers: VecDeque<SegmentWriter>,
    pub(super) lease: Option<Lease>,
    /// The bytes that the body brings, from the next one on.
    pub(super) rest: ByteRange,
    /// First byte of the first claim.
    start: u64,
    /// What was handed over, for the disk cache to keep once the body has ended well.
    pub(super) arrived: Vec<ByteRange>,
    /// The disk cache was asked already.
    pub(super) past_disk: bool,
    /// Nothing is handed over before the body has ended well, as it says by a checksum: it is of a whole small object.
    holds: bool,
    /// What was filled while that is so.
    held: Vec<SegmentWriter>,
}

/// What S3 answered to a GET.
pub(super) struct Answer {
    /// The bytes that the body holds.
    pub(super) range: ByteRange,
    /// Its end says whether they are right.
    pub(super) is_summed: bool,
    pub(super) body: BodyStream,
}

/// Why a body ended before its time.
enum Break {
    Abandoned,
    Broken(StoreError),
}

impl Flight {
    /// A request for what `writers` (not empty, ascending) want. Without a lease it waits for one.
    pub(super) fn new(
        fetcher: Arc<Fetcher>,
        of: FlightOf,
        writers: VecDeque<SegmentWriter>,
        lease: Option<Lease>,
    ) -> Self {
        let start = writers.front().map_or(0, |writer| writer.missing().start);
        let end = writers.back().map_or(start, |writer| writer.range().end);
        Self {
            fetcher,
            of,
            writers,
            lease,
            rest: ByteRange::new(start, end),
            start,
            arrived: Vec::new(),
            past_disk: false,
            holds: false,
            held: Vec::new(),
        }
    }

    /// Goes off in a task of its own, with the answer to a request that was made before, or to make one.
    pub(super) fn depart(mut self, answer: Option<Answer>) {
        let runtime = self.fetcher.runtime.clone();
        runtime.spawn(async move {
            if let Err(outcome) = self.fill(answer).await {
                self.fail(&outcome);
            }
        });
    }

    async fn fill(&mut self, answer: Option<Answer>) -> Result<(), Outcome> {
        if self.lease.is_none() {
            let budget = self.fetcher.budget.clone();
            self.lease = Some(self.unless_abandoned(budget.take(self.rest.len())).await?);
        }
        // Held until the last byte is in.
        let mut _connection = None;
        let mut body = match answer {
            Some(answer) => {
                self.rest.start = answer.range.start;
                self.begin(answer)
            }
            None => {
                self.take_from_disk().await?;
                if self.writers.is_empty() {
                    return Ok(());
                }
                let requests = Arc::clone(&self.fetcher.requests);
                _connection = Some(self.unless_abandoned(requests.acquire_owned()).await?);
                self.request().await?
            }
        };
        let (mut broken, mut fruitless) = (0, 0);
        loop {
            let before = self.rest.start;
            let error = match self.drain(&mut body).await {
                Ok(()) => {
                    self.keep_on_disk();
                    return Ok(());
                }
                Err(Break::Abandoned) => return Err(Outcome::Abandoned),
                Err(Break::Broken(error)) => error,
            };
            broken += 1;
            // Bytes that came and are wrong are no more than none.
            let is_wrong = self.holds && self.rest.is_empty();
            fruitless = if self.rest.start > before && !is_wrong { 0 } else { fruitless + 1 };
            self.take_back();
            let resumes = error.is_retryable() && !self.rest.is_empty();
            if !resumes || broken > BROKEN_BODIES_MAX || fruitless > FRUITLESS_BODIES_MAX {
                return Err(Outcome::Failed(ReadError::from(error)));
            }
            tracing::debug!(version = ?self.of.info.version, at = self.rest.start, %error, "taking up a broken body");
            self.fetcher.metrics.add(Counter::Retries, 1);
            body = self.request().await?;
        }
    }

    /// Takes up an answer. One that is a whole small object is not handed over before its checksum is known to be right.
    fn begin(&mut self, answer: Answer) -> BodyStream {
        let whole = ByteRange::new(0, self.of.info.size_bytes);
        if answer.is_summed && answer.range == whole && whole.end <= BLOCK_BYTES {
            self.holds = true;
            self.writers.iter_mut().for_each(SegmentWriter::hold);
        }
        answer.body
    }

    /// What was held back comes anew, from the beginning: only the whole has a checksum.
    fn take_back(&mut self) {
        if !self.holds {
            return;
        }
        self.held.extend(self.writers.drain(..));
        self.writers = std::mem::take(&mut self.held).into();
        self.writers.iter_mut().for_each(SegmentWriter::take_back);
        self.rest = ByteRange::new(0, self.writers.back().map_or(0, |writer| writer.range().end));
    }

    /// Asks for the rest.
    async fn request(&mut self) -> Result<BodyStream, Outcome> {
        let version = &self.of.info.version;
        let whole = ByteRange::new(0, self.of.info.size_bytes);
        let request = GetRequest {
            key: version.key().clone(),
            range: if self.holds || self.rest == whole { GetRange::Whole } else { GetRange::Bytes(self.rest) },
            if_match: Some(version.etag().clone()),
            if_none_match: None,
        };
        let answer = self.unless_abandoned(self.fetcher.store.get(request)).await?;
        match answer {
            Ok(response) if self.is_of_the_version(&response) => {
                Ok(self.begin(Answer { range: response.range, is_summed: response.is_summed, body: response.body }))
            }
            // A server that ignores If-Match (DESIGN: several do) answers with whatever the key holds now.
            Ok(_) => Err(Outcome::Failed(ReadError::Stale)),
            Err(error) => Err(Outcome::Failed(ReadError::from(error))),
        }
    }

    fn is_of_the_version(&self, response: &GetResponse) -> bool {
        response.info.version.etag() == self.of.info.version.etag()
            && response.info.size_bytes == self.of.info.size_bytes
            && response.range.start == self.rest.start
    }

    async fn drain(&mut self, body: &mut BodyStream) -> Result<(), Break> {
        while let Some(chunk) = body.next().await {
            match chunk {
                // Longer than what is wanted of it (an object that was believed empty is asked for whole): that will do.
                Ok(chunk) if self.take_in(&chunk) < chunk.len() && !self.holds => break,
                Ok(_) => {}
                // All bytes came, and the last check of them failed: what was cached of them goes again.
                Err(error) if self.rest.is_empty() => {
                    if !self.holds {
                        self.disown();
                    }
                    return Err(Break::Broken(error));
                }
                Err(error) => return Err(Break::Broken(error)),
            }
            if self.rest.len() > ABANDON_BYTES_MIN && self.is_abandoned() {
                return Err(Break::Abandoned);
            }
        }
        if !self.rest.is_empty() {
            return Err(Break::Broken(StoreError::Corrupt("the body ended early".into())));
        }
        let held = std::mem::take(&mut self.held);
        let left = std::mem::take(&mut self.writers);
        for mut writer in held.into_iter().chain(left) {
            writer.release();
            self.hand_over(writer);
        }
        Ok(())
    }

    /// Copies a chunk to where it belongs; returns how much of it was of use or lay between two claims.
    fn take_in(&mut self, chunk: &[u8]) -> usize {
        let mut used = 0;
        while used < chunk.len() {
            let Some(writer) = self.writers.front_mut().filter(|writer| !writer.is_full()) else { break };
            let foreign = writer.range().start.saturating_sub(self.rest.start);
            let taken = if foreign > 0 {
                (chunk.len() - used).min(usize::try_from(foreign).unwrap_or(usize::MAX))
            } else {
                writer.append(&chunk[used..])
            };
            used += taken;
            self.rest.start += taken as u64;
            // The very last segment stays until the body has ended well.
            if self.writers.len() > 1 && self.writers.front().is_some_and(SegmentWriter::is_full) {
                let full = self.writers.pop_front();
                match full {
                    Some(full) if self.holds => self.held.push(full),
                    full => full.into_iter().for_each(|full| self.hand_over(full)),
                }
            }
        }
        used
    }

    /// A full segment: its share of the budget is free again, and the block is cached if this was the last of it.
    pub(super) fn hand_over(&mut self, writer: SegmentWriter) {
        if let Some(lease) = &mut self.lease {
            drop(lease.split(writer.range().len()));
        }
        if let Some((filling, bytes)) = writer.finish() {
            let id = self.block_of(filling.range());
            let block = block_range(id.index, self.of.info.size_bytes);
            self.fetcher.cache.insert(id.clone(), block, filling.range().start, bytes);
            self.fetcher.in_flight.remove(&id, &filling);
            self.arrived.push(filling.range());
        }
    }

    pub(super) fn block_of(&self, range: ByteRange) -> BlockId {
        BlockId { version: self.of.info.version.clone(), index: range.start / BLOCK_BYTES }
    }

    fn disown(&self) {
        for index in self.start / BLOCK_BYTES..self.rest.end.div_ceil(BLOCK_BYTES) {
            self.fetcher.cache.remove(&BlockId { version: self.of.info.version.clone(), index });
        }
    }

    fn is_abandoned(&self) -> bool {
        self.of.owner.gone.load(SeqCst) && !self.writers.iter().any(|writer| writer.filling().is_wanted())
    }

    pub(super) async fn unless_abandoned<T>(&self, work: impl Future<Output = T>) -> Result<T, Outcome> {
        let mut work = std::pin::pin!(work);
        let left = self.of.owner.left.notified();
        let mut left = std::pin::pin!(left);
        left.as_mut().enable();
        if !self.of.owner.gone.load(SeqCst) {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = left => {}
            }
        }
        if self.is_abandoned() { Err(Outcome::Abandoned) } else { Ok(work.await) }
    }

    fn fail(&mut self, outcome: &Outcome) {
        let held = std::mem::take(&mut self.held);
        for writer in held.into_iter().chain(std::mem::take(&mut self.writers)) {
            let filling = writer.filling();
            self.fetcher.in_flight.remove(&self.block_of(filling.range()), filling);
            filling.fail(outcome.clone());
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.fail(&Outcome::Abandoned);
    }
}
