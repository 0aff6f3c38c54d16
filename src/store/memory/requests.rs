//! What a memory store was asked, so that a test can say how many requests something costs.

use super::MemoryStore;
use crate::metrics::RequestKind;
use crate::types::ByteRange;

/// One request that a memory store answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedRequest {
    /// The operation.
    pub kind: RequestKind,
    /// The key, or the prefix of a LIST, or the first key of a DeleteObjects.
    pub key: String,
    /// The bytes that a GET asked for (`None`: whole or suffix) or an UploadPartCopy copied.
    pub range: Option<ByteRange>,
}

impl MemoryStore {
    /// How many requests of one kind came since the beginning or the last [`MemoryStore::reset_requests`].
    pub fn requests(&self, kind: RequestKind) -> u64 {
        self.0.state.lock().log.iter().filter(|request| request.kind == kind).count() as u64
    }

    /// How many requests came since then in all.
    pub fn all_requests(&self) -> u64 {
        self.0.state.lock().log.len() as u64
    }

    /// The requests since then, in order.
    pub fn log(&self) -> Vec<LoggedRequest> {
        self.0.state.lock().log.clone()
    }

    /// Bytes of the bodies that GETs since then were answered with, read to their end or not.
    pub fn bytes_sent(&self) -> u64 {
        self.0.state.lock().bytes_sent
    }

    /// Counts from nothing again.
    pub fn reset_requests(&self) {
        let mut state = self.0.state.lock();
        state.log.clear();
        state.bytes_sent = 0;
    }
}
