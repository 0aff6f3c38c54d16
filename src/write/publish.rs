//! Publishing: what is written becomes the object.
//!
//! A publication takes a snapshot under the lock, of everything written before it, and works on that: writing goes on
//! meanwhile and is left for the next one. Up to the size of one PUT the whole object is sent; above, parts are sent,
//! copied from the base by the server, or already there; Complete commits them all at once, or not at all.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Bytes, BytesMut};
use futures_util::future::OptionFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt, TryStreamExt};

use super::plan::{Origin, Planned, plan};
use super::progress::uploaded_bytes;
use super::ranges::RangeSet;
use super::spilled::{load, load_bytes};
use super::writer::{Inner, Writer};
use super::{Piece, Published, WriteError};
use crate::memory::Lease;
use crate::metrics::Counter;
use crate::store::{
    CompleteRequest, CopyRequest, GetRange, GetRequest, ObjectAttributes, PUT_BYTES_MAX, Payload, PutRequest,
    StoreError, UploadId, UploadedPart, WriteCondition,
};
use crate::types::{ByteRange, ObjectInfo, ObjectKey};

/// How often a publication begins anew when S3 says that its upload is gone or raced with another request.
const FRESH_STARTS_MAX: usize = 3;

/// What a publication works on.
#[derive(Debug)]
struct Snapshot {
    at: u64,
    size: u64,
    key: ObjectKey,
    base: Option<ObjectInfo>,
    primed: Option<Bytes>,
    condition: WriteCondition,
    attributes: ObjectAttributes,
    /// Attributes were set after the upload had begun, which fixed its own: a copy with the new ones must follow.
    attributes_late: bool,
    /// Parts of the file that stay staged, because they lie over parts that must be committed first.
    kept: RangeSet,
    work: Work,
}

/// What a look for something to publish came to.
enum Look {
    Taken(Box<Snapshot>),
    /// A part is being uploaded in the background.
    Uploading,
    /// Nothing is dirty; this is what was published last.
    Clean(Option<ObjectInfo>),
}

#[derive(Debug)]
enum Work {
    /// Only the attributes changed: the object is copied onto itself.
    Attributes,
    /// The whole content.
    Whole(Vec<Piece>),
    /// Parts, with the pieces of those that are sent, and the receipts of those that are there.
    Parts(Vec<(Planned, Vec<Piece>)>, Vec<UploadedPart>),
}

/// What S3 has committed, while the writer does not know it yet.
#[derive(Debug)]
pub struct Commit<'a> {
    inner: &'a Inner,
    snapshot: &'a Snapshot,
    info: ObjectInfo,
}

/// What S3 has committed and the writer rests on.
#[derive(Debug)]
pub struct Committed {
    /// The object now.
    pub info: ObjectInfo,
    /// Blocks of it that memory still holds, by block number; not necessarily all.
    pub blocks: Vec<(u64, Bytes)>,
    /// Everything written before the publication is in it; if not, another commit follows.
    pub is_whole: bool,
    /// An upload that was begun while the file was long, and then not needed.
    unused: Option<UploadId>,
}

/// Says a commit to whoever looks at the file.
type Seen<'a> = dyn Fn(Commit<'_>) -> Committed + Send + Sync + 'a;

impl Commit<'_> {
    /// The writer rests on the object from now on, and is clean, but for what was written since.
    pub fn settle(self) -> Committed {
        let Self { inner, snapshot, info } = self;
        let mut state = inner.state.lock();
        let unused = state.upload.take();
        let blocks = state.published(&info, snapshot.at, &snapshot.kept);
        if snapshot.attributes_late {
            state.change_attributes();
        }
        let is_whole = snapshot.kept.is_empty() && !snapshot.attributes_late;
        Committed { info, blocks, is_whole, unused }
    }
}

impl Writer {
    /// Commits everything written before the call. Does nothing where nothing is dirty; publications of one file that are
    /// asked for at once share the work.
    ///
    /// # Errors
    /// `Conflict` or `Stale` where another writer was first, `Store` where S3 said no: the bytes stay here and are in the
    /// journal.
    pub async fn publish(&self) -> Result<Published, WriteError> {
        self.publish_seen(&|commit| commit.settle()).await
    }

    /// The same for a caller whom others ask what the file is: each time that S3 has committed, `seen` says so to them and has the
    /// writer know it by [`Commit::settle`], under whatever lock makes the two one step. Nothing is waited for between S3's answer
    /// and this. Where two commits are needed it is called twice.
    ///
    /// # Errors
    /// As [`Writer::publish`]; a first commit of two may have been seen.
    pub async fn publish_seen(&self, seen: &Seen<'_>) -> Result<Published, WriteError> {
        let drain = self.0.shared.draining.begin();
        let _publication = self.0.publication.lock().await;
        let mut blocks = Vec::new();
        let outcome = loop {
            match self.0.round(&mut blocks, seen).await {
                Ok(Some(info)) => break Ok(Published { info, blocks }),
                Ok(None) => {}
                Err(error) => break Err(error),
            }
        };
        self.0.state.lock().publishing = false;
        if let Err(error) = &outcome {
            self.0.keep_after(error).await;
        }
        self.0.count();
        if outcome.is_ok() {
            drain.freed();
        }
        outcome
    }
}

impl Inner {
    /// One publication; `None` if another must follow, because bytes lay over parts that had to be committed first.
    async fn round(
        self: &Arc<Self>,
        blocks: &mut Vec<(u64, Bytes)>,
        seen: &Seen<'_>,
    ) -> Result<Option<ObjectInfo>, WriteError> {
        for start in 0..FRESH_STARTS_MAX {
            let snapshot = loop {
                self.wait_for_parts().await;
                match self.snapshot() {
                    Look::Taken(snapshot) => break snapshot,
                    Look::Uploading => {}
                    Look::Clean(last) => return last.map(Some).ok_or(WriteError::Stale),
                }
            };
            let began = self.shared.clock.now();
            let outcome = self.commit(&snapshot).await;
            match outcome {
                Ok(info) => {
                    // Nothing is waited for between S3's answer and this: whoever asked for the publication may be gone.
                    let committed = seen(Commit { inner: self, snapshot: &snapshot, info });
                    *blocks = committed.blocks;
                    let settled = self.settle_kept();
                    // What is still dirty came in since.
                    self.counted.lock().is_dirty_since(&self.shared, began);
                    if let Some(upload) = committed.unused {
                        self.abort(&upload).await;
                    }
                    if let Some(Err(ended)) = OptionFuture::from(settled).await {
                        tracing::warn!(%ended, "the journal does not know what is published");
                    }
                    return Ok(committed.is_whole.then_some(committed.info));
                }
                Err(WriteError::Store(StoreError::NoSuchUpload | StoreError::Conflict))
                    if start + 1 < FRESH_STARTS_MAX && self.start_anew().await => {}
                Err(WriteError::Store(error)) if error.is_changed() => return Err(WriteError::Conflict),
                Err(error) => return Err(error),
            }
        }
        Err(WriteError::Conflict)
    }

    /// Gives up the upload, whose parts are all still staged. False if some are not.
    async fn start_anew(&self) -> bool {
        let upload = {
            let mut state = self.state.lock();
            state.publishing = false;
            if !state.dropped().is_empty() {
                return false;
            }
            state.parts.clear();
            state.upload.take()
        };
        if let Some(upload) = upload {
            self.abort(&upload).await;
        }
        true
    }

    fn snapshot(&self) -> Look {
        let mut state = self.state.lock();
        if !state.is_dirty() || state.orphan {
            return Look::Clean(state.last.clone());
        }
        // Begun since the caller waited: two requests for one part would leave it to chance which of them counts.
        if state.is_uploading() {
            return Look::Uploading;
        }
        let (size, whole) = (state.size, ByteRange::new(0, state.size));
        let kept = if state.has_overlaid_drops() { state.dropped() } else { RangeSet::default() };
        let fits = size <= self.shared.limits.single_put_bytes_max && state.parts.is_empty();
        let work = if !state.has_new_content() && state.base.is_some() && size > 0 {
            Work::Attributes
        } else if fits {
            Work::Whole(state.pieces(whole))
        } else {
            let uploaded = |number| state.is_uploaded(number) || kept.touches(state.layout.range(number));
            let planned = plan(state.layout, size, state.base_len, state.staging.written(), uploaded);
            let receipts = state.receipts(&planned);
            let parts = planned.into_iter().map(|part| {
                let pieces = if part.origin == Origin::Sent { state.pieces(part.range) } else { Vec::new() };
                (part, pieces)
            });
            Work::Parts(parts.collect(), receipts)
        };
        let by_upload = matches!(&work, Work::Parts(parts, _) if !is_one_copy(parts, size, state.base.as_ref()));
        let attributes_late = by_upload && state.upload.is_some() && state.upload_attributes != state.attributes;
        let attributes = if attributes_late { &state.upload_attributes } else { &state.attributes }.clone();
        state.publishing = true;
        self.committed_bytes.store(uploaded_bytes(&state), Relaxed);
        state.low_water = size;
        Look::Taken(Box::new(Snapshot {
            at: state.count,
            size,
            key: state.key.clone(),
            base: state.base.clone(),
            primed: state.primed.clone(),
            condition: state.condition.clone(),
            attributes,
            attributes_late,
            kept,
            work,
        }))
    }

    async fn commit(&self, snapshot: &Snapshot) -> Result<ObjectInfo, WriteError> {
        let mut info = match &snapshot.work {
            Work::Attributes => self.copy_whole(snapshot).await?,
            Work::Whole(pieces) => {
                let (payload, _lease) = self.payload(snapshot, pieces).await?;
                let put = PutRequest {
                    key: snapshot.key.clone(),
                    payload,
                    attributes: snapshot.attributes.clone(),
                    condition: snapshot.condition.clone(),
                };
                self.shared.store.put(put).await?
            }
            Work::Parts(parts, _) if is_one_copy(parts, snapshot.size, snapshot.base.as_ref()) => {
                self.copy_whole(snapshot).await?
            }
            Work::Parts(parts, receipts) => self.commit_parts(snapshot, parts, receipts.clone()).await?,
        };
        info.size_bytes = snapshot.size;
        info.metadata = Some(Arc::clone(&snapshot.attributes.metadata));
        info.content_type = snapshot.attributes.content_type.clone().or(info.content_type);
        info.headers = snapshot.attributes.headers.clone();
        info.storage_class = snapshot.attributes.storage_class.clone();
        Ok(info)
    }

    /// The base object, byte for byte, with the attributes of the snapshot.
    async fn copy_whole(&self, snapshot: &Snapshot) -> Result<ObjectInfo, WriteError> {
        let base = snapshot.base.as_ref().ok_or(WriteError::Stale)?;
        if snapshot.size > PUT_BYTES_MAX {
            let whole = Planned { number: 1, range: ByteRange::new(0, snapshot.size), origin: Origin::Copied };
            let parts = split_copies(whole).into_iter().map(|part| (part, Vec::new())).collect::<Vec<_>>();
            return self.commit_parts(snapshot, &parts, Vec::new()).await;
        }
        let request = CopyRequest {
            source: base.version.clone(),
            key: snapshot.key.clone(),
            attributes: Some(snapshot.attributes.clone()),
            source_class: None,
            condition: snapshot.condition.clone(),
        };
        Ok(self.shared.store.copy(request).await?)
    }

    async fn commit_parts(
        &self,
        snapshot: &Snapshot,
        parts: &[(Planned, Vec<Piece>)],
        mut receipts: Vec<UploadedPart>,
    ) -> Result<ObjectInfo, WriteError> {
        let upload = self.ensure_upload().await?;
        let mut running = FuturesUnordered::new();
        for (part, pieces) in parts.iter().filter(|(part, _)| part.origin != Origin::Uploaded) {
            running.push(self.make_part(snapshot, *part, pieces).boxed());
        }
        while let Some(receipt) = running.try_next().await? {
            self.committed_bytes.fetch_add(receipt.size_bytes, Relaxed);
            receipts.push(receipt);
        }
        receipts.sort_by_key(|part| part.number);
        let request = CompleteRequest {
            key: snapshot.key.clone(),
            upload: upload.clone(),
            parts: receipts,
            size_bytes: snapshot.size,
            condition: snapshot.condition.clone(),
        };
        let info = self.shared.store.complete_upload(request).await?;
        self.state.lock().upload = None;
        self.shared.journal.ended(&upload.0);
        Ok(info)
    }

    async fn make_part(
        &self,
        snapshot: &Snapshot,
        part: Planned,
        pieces: &[Piece],
    ) -> Result<UploadedPart, WriteError> {
        // Before anything is fetched: the parts that wait for their turn hold no bytes of the base.
        let _turn = self.upload_turn().await;
        if part.origin == Origin::Sent {
            let (payload, _lease) = self.payload(snapshot, pieces).await?;
            return Ok(self.send_part_in_turn(part.number, payload).await?);
        }
        let base = snapshot.base.as_ref().ok_or(WriteError::Stale)?;
        let upload = self.ensure_upload().await?;
        Ok(self.shared.store.copy_part(&snapshot.key, &upload, part.number, &base.version, part.range).await?)
    }

    /// The bytes of pieces, those of the base fetched, those on local disk read. The lease stands for both, and is held as long as they
    /// are: whoever holds one waits for S3 and the disk alone, never for a turn or for another lease.
    async fn payload(&self, snapshot: &Snapshot, pieces: &[Piece]) -> Result<(Payload, Option<Lease>), WriteError> {
        let fetched = |piece: &Piece| match piece {
            Piece::Base(range) if snapshot.primed.is_none() => range.len(),
            _ => 0,
        };
        let lease = match pieces.iter().map(fetched).sum::<u64>() + load_bytes(pieces) {
            0 => None,
            bytes => Some(self.shared.fetched.take(bytes).await),
        };
        let mut chunks = Vec::with_capacity(pieces.len());
        for piece in load(pieces.to_vec()).await? {
            match piece {
                Piece::Staged(bytes) => chunks.push(bytes),
                Piece::Zeros(len) => push_zeros(&mut chunks, len),
                Piece::Base(range) => chunks.extend(self.base_bytes(snapshot, range).await?),
                Piece::Spilled(_) | Piece::Dropped(_) => return Err(WriteError::Stale),
            }
        }
        Ok((Payload::new(chunks), lease))
    }

    async fn base_bytes(&self, snapshot: &Snapshot, range: ByteRange) -> Result<Vec<Bytes>, WriteError> {
        if let Some(primed) = &snapshot.primed {
            let slice = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
            if let Some((start, end)) = slice
                && end <= primed.len()
            {
                return Ok(vec![primed.slice(start..end)]);
            }
        }
        let base = snapshot.base.as_ref().ok_or(WriteError::Stale)?;
        fetch(&*self.shared.store, base, range).await
    }

    async fn keep_after(self: &Arc<Self>, error: &WriteError) {
        if let WriteError::Conflict | WriteError::Stale | WriteError::Store(_) = error {
            let (inner, reason) = (Arc::clone(self), error.to_string());
            let kept = tokio::task::spawn_blocking(move || inner.keep(&reason)).await;
            match kept.unwrap_or_else(|ended| Err(io::Error::other(ended))) {
                Ok(_) => self.shared.metrics.add(Counter::UploadsKept, 1),
                Err(left) => {
                    let key = self.state.lock().key.clone();
                    tracing::error!(%key, %error, journal = %left, "unpublished bytes are here only");
                }
            }
        }
    }
}

/// The bytes of a range of an object as it was, or `Stale`.
pub(super) async fn fetch(
    store: &dyn crate::store::ObjectStore,
    object: &ObjectInfo,
    range: ByteRange,
) -> Result<Vec<Bytes>, WriteError> {
    let mut chunks: Vec<Bytes> = Vec::new();
    let mut at = range.start;
    for _ in 0..FETCH_TRIES_MAX {
        let request = GetRequest {
            key: object.key().clone(),
            range: GetRange::Bytes(ByteRange::new(at, range.end)),
            if_match: Some(object.etag().clone()),
            if_none_match: None,
        };
        let mut body = match store.get(request).await {
            Ok(response) => response.body,
            Err(error) if error.is_changed() => return Err(WriteError::Stale),
            Err(error) => return Err(error.into()),
        };
        // A body that breaks off is asked for again from where it broke.
        while let Some(Ok(chunk)) = body.next().await {
            at += chunk.len() as u64;
            chunks.push(chunk);
        }
        if at >= range.end {
            return Ok(chunks);
        }
    }
    Err(WriteError::Store(StoreError::Corrupt(format!("the body of {} ended early", object.key()))))
}

/// How often a body that broke off is asked for again.
const FETCH_TRIES_MAX: usize = 8;

/// Whether the base as it is becomes the object. One that was cut is longer than the file: only a range of it will do.
fn is_one_copy(parts: &[(Planned, Vec<Piece>)], size: u64, base: Option<&ObjectInfo>) -> bool {
    matches!(parts, [(part, _)] if part.origin == Origin::Copied)
        && size <= PUT_BYTES_MAX
        && base.is_some_and(|base| base.size_bytes == size)
}

fn split_copies(whole: Planned) -> Vec<Planned> {
    let starts = (whole.range.start..whole.range.end).step_by(usize::try_from(PUT_BYTES_MAX).unwrap_or(usize::MAX));
    starts
        .zip(whole.number..)
        .map(|(start, number)| {
            let range = ByteRange::of_len(start, PUT_BYTES_MAX).intersect(&whole.range);
            Planned { number, range, origin: Origin::Copied }
        })
        .collect()
}

/// Zeros for a payload: one static page, again and again.
pub(super) fn push_zeros(chunks: &mut Vec<Bytes>, mut len: u64) {
    static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
    while len > 0 {
        let now = len.min(ZEROS.len() as u64);
        chunks.push(Bytes::from_static(&ZEROS[..now as usize]));
        len -= now;
    }
}

/// Chunks as one buffer.
pub(super) fn joined(chunks: Vec<Bytes>) -> Bytes {
    let mut whole = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
    for chunk in chunks {
        whole.extend_from_slice(&chunk);
    }
    whole.freeze()
}
