//! What the gauges were told of one writer, so that they can be put right, whatever happens to it.

use std::time::Instant;

use super::Shared;
use crate::metrics::{DirtyToken, Gauge};

/// What was counted of one file.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// There while the file is dirty.
    dirty: Option<DirtyToken>,
    bytes: u64,
}

impl Counted {
    /// When the oldest unpublished change came in.
    pub(super) fn since(&self) -> Option<Instant> {
        self.dirty.as_ref().map(DirtyToken::since)
    }

    /// What is unpublished of a dirty file came in at `since`, for all that was older is in S3.
    pub(super) fn is_dirty_since(&mut self, shared: &Shared, since: Instant) {
        if let Some(token) = self.dirty.take() {
            shared.metrics.clean(token);
            self.dirty = Some(shared.metrics.dirty(since));
        }
    }

    /// Tells the gauges that the file is dirty or clean now, with so many bytes in memory that S3 does not have.
    pub(super) fn move_to(&mut self, shared: &Shared, dirty: bool, bytes: u64) {
        let metrics = &shared.metrics;
        if dirty && self.dirty.is_none() {
            metrics.shift(Gauge::DirtyFiles, 1);
            self.dirty = Some(metrics.dirty(shared.clock.now()));
        } else if !dirty && let Some(token) = self.dirty.take() {
            metrics.shift(Gauge::DirtyFiles, -1);
            metrics.clean(token);
        }
        if bytes != self.bytes {
            let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(0);
            metrics.shift(Gauge::DirtyBytes, signed(bytes) - signed(self.bytes));
            self.bytes = bytes;
        }
    }
}
