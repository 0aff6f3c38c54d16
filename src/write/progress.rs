//! How far the bytes of a file are on their way to S3: for people who watch, never for a decision.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Writer;
use super::state::{Part, State};
use crate::types::{ByteRange, ObjectKey};

/// A file that is not in S3 as it is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Key that it will have.
    pub key: ObjectKey,
    /// Length of the file in bytes.
    pub size_bytes: u64,
    /// Written bytes that S3 has not got yet.
    pub dirty_bytes: u64,
    /// Bytes of the new object that S3 has got: parts that were uploaded, or copied from the old object.
    pub in_s3_bytes: u64,
    /// How long the oldest change has been waiting; no longer than this where it came in during an upload.
    pub oldest: Duration,
}

/// Bytes of the parts that the server has.
pub(super) fn uploaded_bytes(state: &State) -> u64 {
    let uploaded = state.parts.values().filter_map(|part| match part {
        Part::Uploaded { part, .. } => Some(part.size_bytes),
        Part::Uploading { .. } => None,
    });
    uploaded.sum()
}

/// Written bytes of which the server has no part.
fn dirty_bytes(state: &State) -> u64 {
    let staged: u64 = state.staging.written().iter().map(|range| range.len()).sum();
    let uploaded = state.parts.iter().filter_map(|(&number, part)| match part {
        Part::Uploaded { dropped: false, .. } => {
            let within = state.staging.written().within(state.layout.range(number));
            Some(within.iter().map(ByteRange::len).sum::<u64>())
        }
        Part::Uploaded { .. } | Part::Uploading { .. } => None,
    });
    staged.saturating_sub(uploaded.sum())
}

impl Writer {
    /// How far the file is; `None` where nothing waits to be published.
    pub fn progress(&self) -> Option<Progress> {
        let since = self.0.counted.lock().since();
        let state = self.0.state.lock();
        if !state.is_dirty() || state.orphan {
            return None;
        }
        let sent = if state.publishing { self.0.committed_bytes.load(Relaxed) } else { uploaded_bytes(&state) };
        let now = self.0.shared.clock.now();
        Some(Progress {
            key: state.key.clone(),
            size_bytes: state.size,
            dirty_bytes: dirty_bytes(&state).saturating_sub(sent.saturating_sub(uploaded_bytes(&state))),
            in_s3_bytes: sent.min(state.size),
            oldest: since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
        })
    }
}
