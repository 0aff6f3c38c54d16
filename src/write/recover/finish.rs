//! An upload that holds part of kept bytes, completed after all.
//!
//! Every part has the number and the place that it had when the file was written. What the upload lacks is made as a
//! publication makes it: from the record, then from the base object (which must be the one that was written over), then
//! zeros. Where the record has newer bytes over a part of the upload, the part goes in as it is: the caller writes them
//! over the result.

use bytes::Bytes;

use super::super::journal::{Intent, Kept, KeptPart};
use super::super::parts::Layout;
use super::super::plan::{Origin, Planned, plan};
use super::super::publish::{fetch, push_zeros};
use super::super::ranges::RangeSet;
use super::{RecoverError, info_of, steps, written};
use crate::store::{CompleteRequest, ObjectStore, Payload, StoreError, UploadId, UploadedPart, WriteCondition};
use crate::types::{ByteRange, ETag, ObjectInfo, ObjectKey};

/// Whether the record has bytes that were written over parts of the upload.
pub(super) fn is_overlaid(intent: &Intent, there: &[KeptPart]) -> bool {
    let written = written(intent);
    there.iter().any(|part| written.touches(ByteRange::new(part.start, part.end)))
}

/// Finishes the upload.
pub(super) async fn complete(
    store: &dyn ObjectStore,
    intent: &Intent,
    kept: &Kept,
    upload: &str,
    there: &[KeptPart],
    condition: WriteCondition,
) -> Result<ObjectInfo, RecoverError> {
    let written = written(intent);
    let shown_bytes = intent.base.as_ref().map_or(0, |base| base.shown_bytes.min(intent.size_bytes));
    let layout = layout_of(intent, there)?;
    let planned =
        plan(layout, intent.size_bytes, shown_bytes, &written, |number| there.iter().any(|part| part.number == number));
    let finishing = Finishing {
        store,
        key: intent.key.as_str().into(),
        upload: UploadId(upload.into()),
        base: intent.base.as_ref().map(info_of),
        kept,
        written,
        shown_bytes,
    };
    let mut parts = Vec::with_capacity(planned.len());
    for part in planned {
        parts.push(match there.iter().find(|kept| kept.number == part.number) {
            Some(kept) => UploadedPart {
                number: kept.number,
                size_bytes: kept.end - kept.start,
                etag: ETag::new(kept.etag.as_str()),
                crc64nvme: None,
            },
            None => finishing.make(part).await?,
        });
    }
    let Finishing { key, upload, .. } = finishing;
    let request = CompleteRequest { key, upload, parts, size_bytes: intent.size_bytes, condition };
    match store.complete_upload(request).await {
        Ok(info) => Ok(info),
        Err(error) if error.is_changed() => Err(RecoverError::Conflict),
        Err(error) => Err(gone(error)),
    }
}

/// Where the parts of the upload lie: the record does not say it, but each of its parts does.
fn layout_of(intent: &Intent, there: &[KeptPart]) -> Result<Layout, RecoverError> {
    let mut layout = None;
    for part in there {
        let range = ByteRange::new(part.start, part.end.max(part.start));
        let its = Layout::of_part(part.number, range).ok_or(RecoverError::Parts)?;
        if range.end > intent.size_bytes || layout.is_some_and(|layout| layout != its) {
            return Err(RecoverError::Parts);
        }
        layout = Some(its);
    }
    layout.ok_or(RecoverError::Parts)
}

fn gone(error: StoreError) -> RecoverError {
    if matches!(error, StoreError::NoSuchUpload) { RecoverError::UploadGone } else { error.into() }
}

/// What the missing parts are made of.
struct Finishing<'a> {
    store: &'a dyn ObjectStore,
    key: ObjectKey,
    upload: UploadId,
    base: Option<ObjectInfo>,
    kept: &'a Kept,
    written: RangeSet,
    shown_bytes: u64,
}

impl Finishing<'_> {
    async fn make(&self, part: Planned) -> Result<UploadedPart, RecoverError> {
        let (store, key, upload) = (self.store, &self.key, &self.upload);
        if part.origin == Origin::Copied {
            let base = self.base.as_ref().ok_or(RecoverError::BaseGone)?;
            return match store.copy_part(key, upload, part.number, &base.version, part.range).await {
                Ok(receipt) => Ok(receipt),
                Err(error) if error.is_changed() => Err(RecoverError::BaseGone),
                Err(error) => Err(gone(error)),
            };
        }
        let mut chunks = Vec::new();
        let mut at = part.range.start;
        for next in self.written.within(part.range).into_iter().map(Some).chain([None]) {
            let end = next.map_or(part.range.end, |next| next.start);
            self.fill(ByteRange::new(at, end), &mut chunks).await?;
            if let Some(next) = next {
                for range in steps(next) {
                    chunks.push(Bytes::from(self.kept.read(range)?));
                }
                at = next.end;
            }
        }
        store.upload_part(key, upload, part.number, Payload::new(chunks)).await.map_err(gone)
    }

    /// What shows where nothing was written: the base as far as it does, then zeros.
    async fn fill(&self, range: ByteRange, chunks: &mut Vec<Bytes>) -> Result<(), RecoverError> {
        let border = self.shown_bytes.clamp(range.start, range.end);
        if border > range.start {
            let base = self.base.as_ref().ok_or(RecoverError::BaseGone)?;
            chunks.extend(fetch(self.store, base, ByteRange::new(range.start, border)).await?);
        }
        push_zeros(chunks, range.end - border);
        Ok(())
    }
}
