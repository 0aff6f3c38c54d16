//! The writer of one inode, as `fs` sees it.
//!
//! Its state is under one lock, held for a copy into memory and never across an await. Publications of one writer run one
//! after another; writing goes on meanwhile.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::counted::Counted;
use super::kept::Record;
use super::staging::{Full, Over};
use super::state::State;
use super::upload::UploadJob;
use super::{Piece, Shared, WriteError};
use crate::memory::{Lease, PAGE_BYTES};
use crate::store::{ObjectAttributes, WriteCondition};
use crate::types::{ByteRange, ETag, ObjectInfo, ObjectKey};

/// Writes to one file. Cheap to clone; all clones are one writer.
#[derive(Clone, Debug)]
pub struct Writer(pub(super) Arc<Inner>);

/// What a file was to be published as before it was renamed in memory.
#[derive(Debug)]
pub struct Retargeted {
    key: ObjectKey,
    truncated: Option<ETag>,
    condition: WriteCondition,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    pub(super) state: Mutex<State>,
    /// Held by the publication under way.
    pub(super) publication: tokio::sync::Mutex<()>,
    /// Held while a multipart upload is begun, so that only one is.
    pub(super) creation: tokio::sync::Mutex<()>,
    /// What the journal keeps of this file. Held while that changes, which asks the disk: by threads that may block alone.
    pub(super) kept: Mutex<Option<Record>>,
    /// The journal has something of this file, or had, or is about to.
    pub(super) has_kept: AtomicBool,
    /// Told when an upload of a part has ended.
    pub(super) part_ended: Notify,
    /// What the gauges were last told, to keep them right.
    pub(super) counted: Mutex<Counted>,
    /// Bytes that the publication under way has put into S3.
    pub(super) committed_bytes: AtomicU64,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, state: State) -> Self {
        let writer = Self(Arc::new(Inner {
            shared,
            state: Mutex::new(state),
            publication: tokio::sync::Mutex::new(()),
            creation: tokio::sync::Mutex::new(()),
            kept: Mutex::new(None),
            has_kept: AtomicBool::new(false),
            part_ended: Notify::new(),
            counted: Mutex::default(),
            committed_bytes: AtomicU64::new(0),
        }));
        writer.0.count();
        writer
    }

    /// Present length in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.0.state.lock().size
    }

    /// Whether bytes, size or attributes differ from what S3 has. A new file is dirty until it was published once.
    pub fn is_dirty(&self) -> bool {
        let state = self.0.state.lock();
        state.is_dirty() && !state.orphan
    }

    /// Whether bytes or the size differ from what S3 has; attributes alone do not count.
    pub fn has_new_content(&self) -> bool {
        let state = self.0.state.lock();
        state.has_new_content() && !state.orphan
    }

    /// The object that [`Piece::Base`] refers to.
    pub fn base(&self) -> Option<ObjectInfo> {
        self.0.state.lock().base.clone()
    }

    /// The key that a publication writes.
    pub fn key(&self) -> ObjectKey {
        self.0.state.lock().key.clone()
    }

    /// Takes bytes at once: one copy. `None` if staging is full, or what is there is on local disk, and [`Writer::write`] must wait.
    pub fn try_write(&self, offset: u64, data: &[u8]) -> Option<Result<(), WriteError>> {
        let range = ByteRange::of_len(offset, data.len() as u64);
        let (outcome, job) = {
            let mut state = self.0.state.lock();
            if state.staging.is_on_disk(range) {
                return None;
            }
            match state.write(offset, data, Over::Nothing, &mut None) {
                Ok(outcome) => (outcome, self.0.next_job(&mut state, range)),
                Err(Full) => return None,
            }
        };
        self.0.start(job);
        self.0.count();
        Some(outcome)
    }

    /// Takes bytes, waiting for uploads to make room where staging is full.
    ///
    /// # Errors
    /// `TooLarge`; `NoSpace` if local disk has no room either, and nothing that is on its way to S3 made any; `Spill` if it fails.
    pub async fn write(&self, offset: u64, data: Bytes) -> Result<(), WriteError> {
        let range = ByteRange::of_len(offset, data.len() as u64);
        let (mut spare, mut turn) = (None, None);
        loop {
            let ended = self.0.part_ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            match self.0.take_or_make_room(offset, &data, range, &mut spare) {
                Taking::Done(outcome, job) => {
                    self.0.start(job);
                    self.0.count();
                    return outcome;
                }
                Taking::Again => {}
                Taking::Wait => ended.await,
                Taking::Disk => {
                    let inner = Arc::clone(&self.0);
                    let (bytes, spare_there) = (data.clone(), spare.take());
                    let taking =
                        tokio::task::spawn_blocking(move || inner.take_over_budget(offset, &bytes, range, spare_there));
                    match taking.await.unwrap_or_else(|ended| Ok(Err(WriteError::Spill(io::Error::other(ended))))) {
                        Ok(outcome) => return outcome,
                        // A spare page is in use by now: whoever has one takes no page from elsewhere first.
                        Err(Full) => spare = self.0.more_room(&mut turn).await.ok_or(WriteError::NoSpace)?,
                    }
                }
            }
        }
    }

    /// Cuts the file, or makes it longer with zeros. `None` where a part was dropped from memory: the caller publishes first,
    /// for only that makes its bytes part of the file again.
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn try_truncate(&self, size_bytes: u64) -> Option<Result<(), WriteError>> {
        let outcome = {
            let mut state = self.0.state.lock();
            if !state.dropped().is_empty() && !state.orphan {
                return None;
            }
            state.truncate(size_bytes)
        };
        self.0.count();
        Some(outcome)
    }

    /// Gives the memory of parts back that the server has; whether there were any.
    pub fn free_uploaded(&self) -> bool {
        let mut state = self.0.state.lock();
        !state.orphan && state.drop_uploaded() > 0
    }

    /// While a rename moves the file to another key, no upload is begun under the old one.
    pub fn freeze(&self, is_moving: bool) {
        self.0.state.lock().frozen = is_moving;
    }

    /// The whole content of the base, where the caller has it at hand: it need not be fetched for publishing, and what is
    /// kept after a conflict is then a whole file.
    pub fn prime(&self, content: Bytes) {
        let mut state = self.0.state.lock();
        if state.base.as_ref().is_some_and(|base| base.size_bytes == content.len() as u64) {
            state.primed = Some(content);
        }
    }

    /// How a range is made up, in order, cut at the size.
    pub fn pieces(&self, range: ByteRange) -> Vec<Piece> {
        self.0.state.lock().pieces(range)
    }

    /// The same with the object that its [`Piece::Base`] are of: a publication gives the writer another one.
    pub fn pieces_over(&self, range: ByteRange) -> (Vec<Piece>, Option<ObjectInfo>) {
        let state = self.0.state.lock();
        (state.pieces(range), state.base.clone())
    }

    /// What the next publication carries beside the bytes.
    pub fn set_attributes(&self, attributes: ObjectAttributes) {
        let mut state = self.0.state.lock();
        if state.attributes != attributes {
            state.attributes = attributes;
            state.change_attributes();
        }
    }

    /// Changes the key, if nothing under the old one is in S3 yet: neither object nor upload. The answer is what the file was to be
    /// published as before; `None` if nothing was changed.
    pub fn retarget(&self, key: ObjectKey) -> Option<Retargeted> {
        let mut state = self.0.state.lock();
        let free = state.last.is_none() && state.upload.is_none() && state.parts.is_empty() && !state.publishing;
        free.then(|| Retargeted {
            key: std::mem::replace(&mut state.key, key),
            truncated: state.truncated.take(),
            // Whether the new key may hold something is for the rename to say, not for the create.
            condition: std::mem::replace(&mut state.condition, WriteCondition::None),
        })
    }

    /// The rename did not happen: the file is published as it was to be before.
    pub fn target_again(&self, before: Retargeted) {
        let mut state = self.0.state.lock();
        (state.key, state.truncated, state.condition) = (before.key, before.truncated, before.condition);
    }

    /// The object was copied to another key by a rename: rest on the copy.
    pub fn rebase(&self, info: &ObjectInfo) {
        self.0.state.lock().rest_on(info);
    }

    /// The object was copied onto itself with other attributes: rest on the copy, and carry these from now on.
    pub fn copied(&self, info: &ObjectInfo, attributes: ObjectAttributes) {
        let mut state = self.0.state.lock();
        state.rest_on(info);
        state.attributes = attributes;
    }

    /// The whole content of another object becomes the content of this still empty file, copied by the server when it is
    /// published. False if the file is not empty.
    pub fn adopt(&self, info: &ObjectInfo) -> bool {
        let mut state = self.0.state.lock();
        if state.size != 0 || state.upload.is_some() || state.publishing || state.orphan {
            return false;
        }
        state.base = Some(info.clone());
        state.base_len = info.size_bytes;
        state.size = info.size_bytes;
        state.change_content();
        drop(state);
        self.0.count();
        true
    }

    /// Unlinked: nothing is published any more; what was uploaded of it is given up. What was written stays readable as
    /// long as memory holds it.
    pub async fn abandon(&self) {
        let _publication = self.0.publication.lock().await;
        let upload = {
            let mut state = self.0.state.lock();
            state.orphan = true;
            // Bytes that only the upload has are still needed by readers; it is aborted with the last of them.
            if state.dropped().is_empty() { state.upload.take() } else { None }
        };
        if let Some(upload) = upload {
            self.0.wait_for_parts().await;
            self.0.abort(&upload).await;
        }
        self.0.count();
    }
}

/// What became of a write.
enum Taking {
    Done(Result<(), WriteError>, Option<UploadJob>),
    /// There is more room now.
    Again,
    /// There will be, when an upload of a part has ended.
    Wait,
    /// There will not be: it goes to local disk, which may take its time.
    Disk,
}

impl Inner {
    /// Takes bytes, or makes room for them: what the server has goes first; what is on its way there is waited for. A file of
    /// which neither is true is unlinked, is written here and there, or has less than a part in memory: its bytes go to local disk,
    /// for nobody else can be made to wait for it.
    fn take_or_make_room(&self, offset: u64, data: &[u8], range: ByteRange, spare: &mut Option<Lease>) -> Taking {
        let mut state = self.state.lock();
        if state.staging.is_on_disk(range) {
            return Taking::Disk;
        }
        let outcome = match state.write(offset, data, Over::Nothing, spare) {
            Ok(outcome) => outcome,
            Err(Full) if !state.orphan && state.drop_uploaded() > 0 => return Taking::Again,
            Err(Full) if !state.orphan && state.is_uploading() => return Taking::Wait,
            Err(Full) => return Taking::Disk,
        };
        let job = self.next_job(&mut state, range);
        Taking::Done(outcome, job)
    }

    /// Takes bytes over the budget, to local disk. If that is full they are in memory all the same, up to a limit for all files: of
    /// one that is written from its beginning to its end that is less than one part. Of an unlinked file it would be all of it, which
    /// is refused. What is recovered has no limit. Blocks, and others who want this file with it.
    fn take_over_budget(
        self: &Arc<Self>,
        offset: u64,
        data: &[u8],
        range: ByteRange,
        mut spare: Option<Lease>,
    ) -> Result<Result<(), WriteError>, Full> {
        let (outcome, job) = {
            let mut state = self.state.lock();
            let over = match (state.orphan, state.recovered) {
                (true, _) => Over::Disk,
                // Nobody else is served by this process, and its bytes have no other way into S3.
                (_, true) => Over::DiskOrMemory(u64::MAX),
                _ => Over::DiskOrMemory(state.stream_bytes(range)),
            };
            let outcome = state.write(offset, data, over, &mut spare)?;
            (outcome, self.next_job(&mut state, range))
        };
        self.start(job);
        self.count();
        Ok(outcome)
    }

    /// Waits until there may be more room: a page of the budget, in the order in which those who wait have come, or room on local disk.
    /// `None` once nobody is about to make any. `turn` is the place in the line, which whoever comes again still has.
    pub(super) async fn more_room(&self, turn: &mut Option<BoxFuture<'static, Lease>>) -> Option<Option<Lease>> {
        let budget = &self.shared.room.budget;
        let in_line = turn.get_or_insert_with(|| {
            let budget = budget.clone();
            async move { budget.take(PAGE_BYTES as u64).await }.boxed()
        });
        let lease = tokio::select! {
            biased;
            lease = in_line => lease,
            has_freed = self.shared.draining.has_freed() => return has_freed.then_some(None),
        };
        *turn = None;
        Some(Some(lease))
    }

    /// The upload that a write has made possible.
    fn next_job(&self, state: &mut State, written: ByteRange) -> Option<UploadJob> {
        let number = state.whole_part(written, self.shared.limits.single_put_bytes_max)?;
        Some(UploadJob::begin(state, number))
    }

    fn start(self: &Arc<Self>, job: Option<UploadJob>) {
        if let Some(job) = job {
            let (inner, drain) = (Arc::clone(self), self.shared.draining.begin());
            self.shared.runtime.spawn(async move { inner.upload_in_background(job, drain).await });
        }
    }

    /// Tells the gauges how dirty the file is.
    pub(super) fn count(&self) {
        // Locked first, so that of two who tell, the later one has looked later.
        let mut counted = self.counted.lock();
        let (dirty, bytes) = {
            let state = self.state.lock();
            (state.is_dirty() && !state.orphan, state.staging.written().bytes())
        };
        counted.move_to(&self.shared, dirty, if dirty { bytes } else { 0 });
    }

    /// Waits until no part is being uploaded in the background.
    pub(super) async fn wait_for_parts(&self) {
        loop {
            let ended = self.part_ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if !self.state.lock().is_uploading() {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.counted.get_mut().move_to(&self.shared, false, 0);
        // Parts that only the server has belong to what was kept; recover completes them.
        if self.kept.get_mut().is_some() && !self.state.get_mut().dropped().is_empty() {
            return;
        }
        // An upload that nobody completed or kept is aborted, so that nobody pays for its parts.
        if let Some(upload) = self.state.get_mut().upload.take() {
            let (shared, key) = (Arc::clone(&self.shared), self.state.get_mut().key.clone());
            self.shared.runtime.spawn(async move {
                if shared.store.abort_upload(&key, &upload).await.is_ok() {
                    shared.journal.ended(&upload.0);
                }
            });
        }
    }
}
