//! Parts that are uploaded while the writer goes on.
//!
//! A failure here is nobody's error yet: the bytes are still staged, and publishing sends the part again.

use std::sync::Arc;

use tokio::sync::SemaphorePermit;

use super::spilled::{load, load_bytes};
use super::state::{Part, State};
use super::writer::Inner;
use super::{Drain, Piece, WriteError};
use crate::metrics::{Gauge, Metrics};
use crate::store::{Payload, StoreResult, UploadId, UploadedPart};

/// A part to be uploaded, with the bytes as they were when it was made.
#[derive(Debug)]
pub(super) struct UploadJob {
    number: u32,
    pieces: Vec<Piece>,
}

impl UploadJob {
    /// Marks a wholly staged part as being uploaded.
    pub(super) fn begin(state: &mut State, number: u32) -> Self {
        let at = state.count;
        state.parts.insert(number, Part::Uploading { at });
        Self { number, pieces: state.staging.share(state.layout.range(number)) }
    }
}

/// Counts bytes as being uploaded, until it is dropped: the caller may stop waiting at any time.
struct OnTheWay<'a> {
    metrics: &'a Metrics,
    bytes: i64,
}

impl<'a> OnTheWay<'a> {
    fn of(payload: &Payload, metrics: &'a Metrics) -> Self {
        let bytes = i64::try_from(payload.len_bytes()).unwrap_or(0);
        metrics.shift(Gauge::UploadingBytes, bytes);
        Self { metrics, bytes }
    }
}

impl Drop for OnTheWay<'_> {
    fn drop(&mut self) {
        self.metrics.shift(Gauge::UploadingBytes, -self.bytes);
    }
}

impl Inner {
    pub(super) async fn upload_in_background(self: Arc<Self>, job: UploadJob, drain: Drain) {
        let number = job.number;
        let outcome = self.send_staged(number, job.pieces).await;
        if let Err(error) = &outcome {
            tracing::debug!(number, %error, "a part was not uploaded in the background; publishing sends it again");
        }
        let is_there = outcome.is_ok();
        {
            let mut state = self.state.lock();
            state.part_ended(number, outcome.ok());
            // Others need room as well: what the server has leaves memory once half of the budget is in use.
            let budget = &self.shared.room.budget;
            if budget.used_bytes() > budget.limit_bytes() / 2 {
                state.drop_uploaded();
            }
        }
        self.part_ended.notify_waiters();
        self.count();
        if is_there {
            drain.freed();
        }
    }

    /// Sends one part that is wholly staged, beginning the upload if there is none.
    async fn send_staged(&self, number: u32, pieces: Vec<Piece>) -> Result<UploadedPart, WriteError> {
        let _turn = self.upload_turn().await;
        let _lease = match load_bytes(&pieces) {
            0 => None,
            bytes => Some(self.shared.fetched.take(bytes).await),
        };
        let staged = load(pieces).await?.into_iter().filter_map(|piece| match piece {
            Piece::Staged(bytes) => Some(bytes),
            _ => None,
        });
        Ok(self.send_part_in_turn(number, Payload::new(staged.collect())).await?)
    }

    /// Waits until one more part may be in flight; it may as long as the answer is held.
    pub(super) async fn upload_turn(&self) -> SemaphorePermit<'_> {
        self.shared.uploads.acquire().await.expect("the semaphore of uploads is never closed")
    }

    /// Sends one part whose turn it is.
    pub(super) async fn send_part_in_turn(&self, number: u32, payload: Payload) -> StoreResult<UploadedPart> {
        let upload = self.ensure_upload().await?;
        let key = self.state.lock().key.clone();
        let _counted = OnTheWay::of(&payload, &self.shared.metrics);
        self.shared.store.upload_part(&key, &upload, number, payload).await
    }

    /// The multipart upload of this file, begun if there is none.
    pub(super) async fn ensure_upload(&self) -> StoreResult<UploadId> {
        let _creation = self.creation.lock().await;
        let (key, attributes) = {
            let state = self.state.lock();
            if let Some(upload) = &state.upload {
                return Ok(upload.clone());
            }
            (state.key.clone(), state.attributes.clone())
        };
        let upload = self.shared.store.create_upload(&key, attributes.clone()).await?;
        self.shared.journal.began(&key, &upload);
        let mut state = self.state.lock();
        state.upload = Some(upload.clone());
        state.upload_attributes = attributes;
        Ok(upload)
    }

    /// Gives an upload up.
    pub(super) async fn abort(&self, upload: &UploadId) {
        let key = self.state.lock().key.clone();
        match self.shared.store.abort_upload(&key, upload).await {
            Ok(()) => self.shared.journal.ended(&upload.0),
            Err(error) => {
                tracing::warn!(%key, %error, "an upload could not be aborted; the next mount tries again");
            }
        }
    }
}
