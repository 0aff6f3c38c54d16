//! Bytes that were kept, on their way out of the journal: to a local file, or to S3 after all.

mod finish;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;

use super::journal::{Intent, KeptBase};
use super::publish::{fetch, joined};
use super::ranges::RangeSet;
use super::{Base, Kept, WriteEngine, WriteError, WriteTarget};
use crate::store::{ObjectAttributes, ObjectStore, StoreError, UploadId, WriteCondition};
use crate::types::{ByteRange, ETag, ObjectInfo, ObjectVersion};

/// How far S3's clock and that of a client may be apart: it refuses requests of one that is further away.
const CLOCK_ERROR_MAX: Duration = Duration::from_mins(15);
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
    /// The upload that holds part of the bytes is not there any more.
    #[error("the upload that held part of these bytes is gone; what is not in it lies in the record's data file")]
    UploadGone,
    /// The record contradicts itself.
    #[error("the parts of the upload do not fit together; look at the record's data file by hand")]
    Parts,
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
        headers: None,
    }
}

/// The ranges of the file that the record holds itself.
fn written(intent: &Intent) -> RangeSet {
    let mut written = RangeSet::default();
    for &(start, end) in &intent.ranges {
        written.insert(ByteRange::new(start, end));
    }
    written
}

/// The ranges of the file that come from the base object, unless an upload holds more of it.
fn from_base(intent: &Intent) -> Vec<ByteRange> {
    let Some(base) = &intent.base else { return Vec::new() };
    written(intent).gaps(ByteRange::new(0, base.shown_bytes.min(intent.size_bytes)))
}

/// Whether an export has to read from the object that the bytes were written over.
pub fn needs_base(kept: &Kept) -> bool {
    kept.intent.as_ref().is_some_and(|intent| intent.upload.is_none() && !from_base(intent).is_empty())
}

/// Writes the whole file as it would have become to `path`, which must not exist. `store` may be left out where nothing
/// [`needs_base`]. With `holes` the bytes of a base object that is gone are left as zeros.
///
/// # Errors
/// See [`RecoverError`]; the kept bytes stay.
pub async fn export(
    store: Option<&dyn ObjectStore>,
    kept: &Kept,
    path: &Path,
    holes: bool,
) -> Result<(), RecoverError> {
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
    store: Option<&dyn ObjectStore>,
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
            let store = store.ok_or(RecoverError::BaseGone)?;
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
    let goes_over = over(&**store, intent, force).await?;
    let Some((upload, parts)) = &intent.upload else { return write_anew(engine, intent, kept, goes_over).await };
    let info = finish::complete(&**store, intent, kept, upload, parts, goes_over.condition()).await?;
    if !finish::is_overlaid(intent, parts) {
        return Ok(info);
    }
    // What was written over parts of the upload goes on top of the object that they have become. The upload is used up: the
    // record must say so before anything else can fail.
    let size_bytes = intent.size_bytes;
    let kept = kept.rest_on(KeptBase { size_bytes, ..KeptBase::of(&info, size_bytes) })?;
    let intent = kept.intent.as_ref().ok_or(RecoverError::Torn)?;
    let goes_over = over(&**store, intent, force).await?;
    write_anew(engine, intent, &kept, goes_over).await
}

/// What a push replaces.
enum Over {
    /// Whatever is there.
    Anything,
    /// Nothing.
    Nothing,
    /// The object that the bytes were written over.
    Base(ETag),
    /// This object, which was emptied for the bytes, or is older than they are.
    Emptied(ObjectInfo),
}

impl Over {
    fn condition(&self) -> WriteCondition {
        match self {
            Self::Anything => WriteCondition::None,
            Self::Nothing => WriteCondition::Absent,
            Self::Base(etag) => WriteCondition::Matches(etag.clone()),
            Self::Emptied(object) => WriteCondition::Matches(object.etag().clone()),
        }
    }
}

/// What a push may replace. A file that was emptied when it was opened replaces whatever was there, for the last writer wins: that may be
/// somebody else by now, unless it is the very object that was emptied, or surely older than the record.
async fn over(store: &dyn ObjectStore, intent: &Intent, force: bool) -> Result<Over, RecoverError> {
    match &intent.base {
        _ if force => Ok(Over::Anything),
        Some(base) => Ok(Over::Base(ETag::new(base.etag.as_str()))),
        None if intent.exclusive => Ok(Over::Nothing),
        None => match store.head(&intent.key.as_str().into()).await {
            Err(StoreError::NotFound) => Ok(Over::Nothing),
            Err(error) => Err(error.into()),
            Ok(object) if was_emptied(intent, &object) => Ok(Over::Emptied(object)),
            Ok(_) => Err(RecoverError::Conflict),
        },
    }
}

/// Whether an object is what the record's file replaced. Where it is not known what that was the time decides, as far as it can: the
/// record's is that of another clock than S3's, and that of an object which was uploaded in parts is when its upload was begun.
fn was_emptied(intent: &Intent, object: &ObjectInfo) -> bool {
    if let Some(etag) = &intent.truncated {
        return object.etag().as_str() == etag;
    }
    let kept_at = UNIX_EPOCH + Duration::from_secs(intent.kept_at_seconds);
    !is_of_parts(object.etag()) && object.last_modified + CLOCK_ERROR_MAX < kept_at
}

/// Whether a tag is that of an object which was uploaded in parts: `"DIGEST-PARTS"`.
fn is_of_parts(etag: &ETag) -> bool {
    etag.as_str().trim_matches('"').contains('-')
}

/// Publishes the kept bytes by a writer of their own.
async fn write_anew(
    engine: &WriteEngine,
    intent: &Intent,
    kept: &Kept,
    over: Over,
) -> Result<ObjectInfo, RecoverError> {
    let attributes = ObjectAttributes {
        content_type: intent.content_type.as_deref().map(Into::into),
        metadata: Arc::new(intent.metadata.clone()),
        storage_class: intent.storage_class.as_deref().map(Into::into),
        headers: intent.headers.clone().if_any(),
    };
    let needed = from_base(intent);
    let shown_bytes = intent.base.as_ref().map_or(0, |base| base.shown_bytes);
    let base = match (over, &intent.base) {
        (Over::Base(_), Some(base)) => Base::Object(info_of(base)),
        (Over::Anything, Some(base)) if !needed.is_empty() => Base::Object(info_of(base)),
        (Over::Emptied(object), _) => Base::Object(object),
        (Over::Nothing, _) => Base::Absent { exclusive: true },
        (Over::Anything | Over::Base(_), _) => Base::Truncated(None),
    };
    let over_base = matches!(base, Base::Object(_));
    let writer = engine.writer(WriteTarget { key: intent.key.as_str().into(), base, attributes });
    // One that fails leaves the record that is there, and no second one.
    writer.0.state.lock().recovered = true;
    if over_base {
        writer.try_truncate(shown_bytes).unwrap_or(Ok(()))?;
    }
    writer.try_truncate(intent.size_bytes).unwrap_or(Ok(()))?;
    for &(start, end) in &intent.ranges {
        for range in steps(ByteRange::new(start, end)) {
            writer.write(range.start, Bytes::from(kept.read(range)?)).await?;
        }
    }
    Ok(writer.publish().await?.info)
}

/// Aborts the upload that holds part of the bytes, so that nobody pays for its parts once the record is gone. False if
/// there is none.
///
/// # Errors
/// What S3 said; the parts then stay until a lifecycle rule takes them.
pub async fn abort(store: &dyn ObjectStore, kept: &Kept) -> Result<bool, StoreError> {
    let Some(intent) = &kept.intent else { return Ok(false) };
    let Some((upload, _)) = &intent.upload else { return Ok(false) };
    store.abort_upload(&intent.key.as_str().into(), &UploadId(upload.as_str().into())).await?;
    Ok(true)
}

fn steps(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    let step = usize::try_from(STEP_BYTES).unwrap_or(usize::MAX);
    (range.start..range.end).step_by(step).map(move |start| ByteRange::new(start, (start + STEP_BYTES).min(range.end)))
}
