//! Bytes that were kept, on their way out of the journal: to a local file, or to S3 after all.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;

use super::journal::{Intent, KeptBase};
use super::publish::{fetch, joined};
use super::{Base, Kept, WriteEngine, WriteError, WriteTarget};
use crate::store::{
    CompleteRequest, ObjectAttributes, ObjectStore, StoreError, UploadId, UploadedPart, WriteCondition,
};
use crate::types::{ByteRange, ETag, ObjectInfo, ObjectVersion};

/// Bytes moved at a time.
const STEP_BYTES: u64 = 1 << 20;

/// Why kept bytes could not be recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The record is torn; its data file may still hold the bytes.
    #[error("the record is torn; look at its data file by hand")]
    Torn,
    /// The object that the bytes were written over is gone, and they are no whole file without it.
    #[error("the object that these bytes were written over is gone; --holes exports them with zeros in its place")]
    BaseGone,
    /// Part of the bytes is in an unfinished upload, which only a push can use.
    #[error("part of these bytes is in an unfinished upload to their key; only `push` can bring them back")]
    InUpload,
    /// Another object stands at the key.
    #[error("another object stands at the key now; --force replaces it")]
    Conflict,
    /// The local disk.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// S3, or the upload.
    #[error(transparent)]
    Write(WriteError),
}

impl From<WriteError> for RecoverError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stale => Self::BaseGone,
            WriteError::Conflict => Self::Conflict,
            other => Self::Write(other),
        }
    }
}

impl From<StoreError> for RecoverError {
    fn from(error: StoreError) -> Self {
        Self::Write(error.into())
    }
}

fn info_of(base: &KeptBase) -> ObjectInfo {
    ObjectInfo {
        version: ObjectVersion::new(base.key.as_str().into(), ETag::new(base.etag.as_str()), None),
        size_bytes: base.size_bytes,
        last_modified: UNIX_EPOCH,
        metadata: None,
        content_type: None,
        storage_class: None,
    }
}

/// The ranges of the file that come from the base object.
fn from_base(intent: &Intent) -> Vec<ByteRange> {
    let Some(base) = &intent.base else { return Vec::new() };
    let mut written = super::ranges::RangeSet::default();
    for &(start, end) in &intent.ranges {
        written.insert(ByteRange::new(start, end));
    }
    written.gaps(ByteRange::new(0, base.shown_bytes.min(intent.size_bytes)))
}

/// Writes the whole file as it would have become to `path`, which must not exist. With `holes` the bytes of a base object
/// that is gone are left as zeros.
///
/// # Errors
/// See [`RecoverError`]; the kept bytes stay.
pub async fn export(store: &dyn ObjectStore, kept: &Kept, path: &Path, holes: bool) -> Result<(), RecoverError> {
    let intent = kept.intent.as_ref().ok_or(RecoverError::Torn)?;
    kept.verify()?;
    if intent.upload.is_some() {
        return Err(RecoverError::InUpload);
    }
    let file = File::create_new(path)?;
    let written = write_out(store, intent, kept, &file, holes).await;
    if written.is_err() {
        // Half a file must not be taken for the whole, nor stand in the way of another try.
        let _ = std::fs::remove_file(path);
    }
    written
}

async fn write_out(
    store: &dyn ObjectStore,
    intent: &Intent,
    kept: &Kept,
    file: &File,
    holes: bool,
) -> Result<(), RecoverError> {
    file.set_len(intent.size_bytes)?;
    for &(start, end) in &intent.ranges {
        for range in steps(ByteRange::new(start, end)) {
            file.write_all_at(&kept.read(range)?, range.start)?;
        }
    }
    if let Some(base) = &intent.base {
        let base = info_of(base);
        for range in from_base(intent) {
            match fetch(store, &base, range).await {
                Ok(chunks) => file.write_all_at(&joined(chunks), range.start)?,
                Err(WriteError::Stale) if holes => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    file.sync_all()?;
    Ok(())
}

/// Publishes the kept bytes under their key. Without `force` the key must hold what they were written over.
///
/// # Errors
/// See [`RecoverError`]; the kept bytes stay.
pub async fn push(
    store: &Arc<dyn ObjectStore>,
    engine: &WriteEngine,
    kept: &Kept,
    force: bool,
) -> Result<ObjectInfo, RecoverError> {
    let intent = kept.intent.as_ref().ok_or(RecoverError::Torn)?;
    kept.verify()?;
    if let Some((upload, parts)) = &intent.upload {
        return complete(store, intent, kept, &UploadId(upload.as_str().into()), parts, force).await;
    }
    let attributes = ObjectAttributes {
        content_type: intent.content_type.as_deref().map(Into::into),
        metadata: Arc::new(intent.metadata.clone()),
        storage_class: None,
    };
    let needed = from_base(intent);
    let base = match &intent.base {
        Some(base) if !force || !needed.is_empty() => Base::Object(info_of(base)),
        Some(_) => Base::Truncated,
        None if force || !intent.exclusive => Base::Absent { exclusive: false },
        None => Base::Absent { exclusive: true },
    };
    let over_base = matches!(base, Base::Object(_));
    let writer = engine.writer(WriteTarget { key: intent.key.as_str().into(), base, attributes });
    if let (true, Some(base)) = (over_base, &intent.base) {
        writer.try_truncate(base.shown_bytes).unwrap_or(Ok(()))?;
    }
    writer.try_truncate(intent.size_bytes).unwrap_or(Ok(()))?;
    for &(start, end) in &intent.ranges {
        for range in steps(ByteRange::new(start, end)) {
            writer.write(range.start, Bytes::from(kept.read(range)?)).await?;
        }
    }
    Ok(writer.publish().await?.info)
}

/// Finishes the upload that holds part of the bytes.
async fn complete(
    store: &Arc<dyn ObjectStore>,
    intent: &Intent,
    kept: &Kept,
    upload: &UploadId,
    there: &[super::journal::KeptPart],
    force: bool,
) -> Result<ObjectInfo, RecoverError> {
    let key = intent.key.as_str().into();
    let condition = match &intent.base {
        _ if force => WriteCondition::None,
        Some(base) => WriteCondition::Matches(ETag::new(base.etag.as_str())),
        None if intent.exclusive => WriteCondition::Absent,
        None => WriteCondition::None,
    };
    let mut parts: Vec<UploadedPart> = there
        .iter()
        .map(|part| UploadedPart {
            number: part.number,
            size_bytes: part.end - part.start,
            etag: ETag::new(part.etag.as_str()),
            crc64nvme: None,
        })
        .collect();
    let mut have = super::ranges::RangeSet::default();
    for part in there {
        have.insert(ByteRange::new(part.start, part.end));
    }
    // What the upload does not have lies behind its parts: they are dropped only once they are whole, in a stream.
    let last = there.iter().map(|part| part.number).max().unwrap_or(0);
    for (gap, number) in have.gaps(ByteRange::new(0, intent.size_bytes)).into_iter().zip(last + 1..) {
        let mut chunks = Vec::new();
        for range in steps(gap) {
            chunks.push(Bytes::from(kept.read(range)?));
        }
        parts.push(store.upload_part(&key, upload, number, crate::store::Payload::new(chunks)).await?);
    }
    let request = CompleteRequest { key, upload: upload.clone(), parts, size_bytes: intent.size_bytes, condition };
    match store.complete_upload(request).await {
        Ok(info) => Ok(info),
        Err(error) if error.is_changed() => Err(RecoverError::Conflict),
        Err(error) => Err(error.into()),
    }
}

fn steps(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    let step = usize::try_from(STEP_BYTES).unwrap_or(usize::MAX);
    (range.start..range.end).step_by(step).map(move |start| ByteRange::new(start, (start + STEP_BYTES).min(range.end)))
}
