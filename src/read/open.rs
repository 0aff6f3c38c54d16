//! Opening for reading: one GET of the first bytes, which learns the version that the key holds now.
//!
//! Owns what an open asks for. Never sends a HEAD, but where the object turns out to be empty and S3 says no more than that
//! (416). Invariant: the reader is pinned to the version that the answer named, never to what was believed before.

use std::collections::VecDeque;
use std::sync::Arc;

use super::fetch::{BLOCK_BYTES, Shape, block_range};
use super::flight::{Answer, Flight, FlightOf, Owner};
use super::{ReadEngine, Reader};
use crate::memory::Lease;
use crate::store::{GetRange, GetRequest, GetResponse, StoreError};
use crate::types::{ByteRange, ObjectInfo, ObjectKey};

/// What an open asks for of a file that may be longer: a block. The transfer (11 ms at 90 MB/s) hides behind the round trip of
/// whatever is read next, and nine of ten files of a data set or a source tree are whole with it.
pub(super) const HEAD_BYTES: u64 = BLOCK_BYTES;

/// What an open asks for at least of a file that was seen a while ago: a small one that has grown comes whole all the same, for an
/// answer ends where the object does.
const GROWN_BYTES: u64 = 64 << 10;

/// How often an object that was empty a moment ago, and then was not, is asked for again.
const EMPTY_RACES_MAX: u32 = 4;

impl ReadEngine {
    /// Opens the object that `key` holds now, with one GET, and returns at the head of its answer; the first bytes drain into
    /// the cache behind that. `known` is what the caller believes of the key: if its first block is at hand, S3 is asked only
    /// whether it is current.
    ///
    /// Fails as the GET fails: with `NotFound`, `AccessDenied`, `Archived` and so on.
    pub async fn open(&self, key: &ObjectKey, known: Option<&ObjectInfo>) -> Result<Reader, StoreError> {
        self.open_at_least(key, known, 1).await
    }

    /// The same where `known` is of a while ago.
    pub async fn open_old(&self, key: &ObjectKey, known: &ObjectInfo) -> Result<Reader, StoreError> {
        self.open_at_least(key, Some(known), GROWN_BYTES).await
    }

    async fn open_at_least(
        &self,
        key: &ObjectKey,
        known: Option<&ObjectInfo>,
        bytes: u64,
    ) -> Result<Reader, StoreError> {
        let owner = Arc::new(Owner::default());
        if let Some(known) = known {
            self.ask_for_tail(known, &owner);
        }
        self.ask(key, known, owner, None, bytes).await
    }

    /// The one request of an open, of `bytes_min` bytes or more where the object has them, under a lease of the first bytes if there is one already.
    pub(super) async fn ask(
        &self,
        key: &ObjectKey,
        known: Option<&ObjectInfo>,
        owner: Arc<Owner>,
        mut lease: Option<Lease>,
        bytes_min: u64,
    ) -> Result<Reader, StoreError> {
        let believed_size = known.map(|info| info.size_bytes);
        let at_hand = known.filter(|info| {
            let fetcher = &self.0.fetcher;
            info.size_bytes > 0 && (fetcher.knows_block(info, 0) || fetcher.disk_holds_block(info, 0))
        });
        let head_bytes = believed_size.map_or(HEAD_BYTES, |size| size.clamp(bytes_min, HEAD_BYTES));
        let mut range = match believed_size {
            // Of an empty object no byte range can be asked, and only the whole of a small one is sure to come with its checksum.
            Some(size) if size <= HEAD_BYTES => GetRange::Whole,
            _ => GetRange::Bytes(ByteRange::new(0, head_bytes)),
        };
        for _ in 0..EMPTY_RACES_MAX {
            let lease = match lease.take() {
                Some(lease) => lease,
                None => self.0.fetcher.budget.take(head_bytes).await,
            };
            let request = GetRequest {
                key: key.clone(),
                range,
                if_match: None,
                if_none_match: at_hand.map(|info| info.etag().clone()),
            };
            match self.0.fetcher.store.get(request).await {
                Ok(response) => return Ok(self.opened(response, owner, lease)),
                Err(StoreError::NotModified) if let Some(known) = at_hand => {
                    let opened_bytes = known.size_bytes.min(HEAD_BYTES);
                    return Ok(self.reader_of(Arc::new(known.clone()), owner, opened_bytes));
                }
                Err(StoreError::RangeNotSatisfiable { .. }) => {
                    drop(lease);
                    let info = self.0.fetcher.store.head(key).await?;
                    if info.size_bytes == 0 {
                        return Ok(self.reader_of(Arc::new(info), owner, 0));
                    }
                    range = GetRange::Bytes(ByteRange::new(0, HEAD_BYTES));
                }
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Transient("the object changed between empty and not at every look".into()))
    }

    fn opened(&self, response: GetResponse, owner: Arc<Owner>, mut lease: Lease) -> Reader {
        let info = Arc::new(response.info);
        let of = FlightOf { owner: Arc::clone(&owner), info: Arc::clone(&info) };
        // An object that was believed small was asked for whole, and may be of any size by now: its first block is enough, and less
        // where the budget does not reach.
        let mut head = response.range.intersect(&block_range(0, info.size_bytes));
        if let Some(more) = head.len().checked_sub(lease.bytes()).filter(|more| *more > 0) {
            match self.0.fetcher.budget.try_take(more) {
                Some(more) => lease.merge(more),
                None => head.end = head.start + lease.bytes(),
            }
        }
        if response.range.start == 0 && !head.is_empty() {
            let writers = self.0.fetcher.claim(&info, head, Shape::Streaming).writers;
            let claimed: u64 = writers.iter().map(|writer| writer.range().len()).sum();
            if claimed > 0 {
                drop(lease.bytes().checked_sub(claimed).and_then(|excess| lease.split(excess)));
                let flight = Flight::new(Arc::clone(&self.0.fetcher), of, VecDeque::from(writers), Some(lease));
                flight.depart(Some(Answer {
                    range: response.range,
                    is_summed: response.is_summed,
                    body: response.body,
                }));
            }
        }
        self.reader_of(info, owner, head.end)
    }

    /// Files of some kinds are read from their end: that comes side by side with the head.
    fn ask_for_tail(&self, known: &ObjectInfo, owner: &Arc<Owner>) {
        if let Some(tail) = self.0.tails.tail(known.key(), known.size_bytes, HEAD_BYTES.min(known.size_bytes)) {
            let of = FlightOf { owner: Arc::clone(owner), info: Arc::new(known.clone()) };
            // Refused by the budget, it is read when it is read.
            let _ = self.0.fetcher.prefetch(&of, &[tail]);
        }
    }
}
