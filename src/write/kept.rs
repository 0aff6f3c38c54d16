//! From a writer to the journal: what is written to disk when a publication fails.
//!
//! Owns what the journal has of a file. Invariant: that never is a copy of bytes which S3 has as well: one that is written while a
//! publication of the same bytes is under way goes, whichever of the two ends first, and whoever stopped waiting for either.
//! What was written since then stays, over the object that the publication made. One that is older than a part of what was published
//! stays over what it was written over: nobody pushes it over newer bytes unasked.

use std::cmp::Ordering;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::task::JoinHandle;

use super::journal::{Keeping, KeptBase, KeptPart};
use super::state::State;
use super::writer::{Inner, Writer};
use super::{KeptId, Piece};
use crate::store::WriteCondition;
use crate::types::{ByteRange, ETag, ObjectKey};

/// What the journal has of a file.
#[derive(Debug)]
pub(super) struct Record {
    id: KeptId,
    /// Everything up to this count of changes is in it.
    at: u64,
    key: ObjectKey,
    /// The object that it lies over.
    base: Option<ETag>,
    look: Look,
}

/// What a record must know of the file as it was then, to lie over an object that was made of it since.
#[derive(Debug)]
struct Look {
    committed_at: u64,
    base_len: u64,
    size: u64,
    low_water: u64,
}

impl Look {
    fn at(state: &State) -> Self {
        let State { committed_at, base_len, size, low_water, .. } = *state;
        Self { committed_at, base_len, size, low_water }
    }

    /// How far an object that has the file as of `committed_at` shows through below a record as of `at`. `None` where it has changes that
    /// the record does not have: the record's bytes would replace newer ones.
    fn shown_bytes(&self, at: u64, committed_at: u64) -> Option<u64> {
        if committed_at == self.committed_at {
            // The same bytes, under another key.
            return Some(self.base_len);
        }
        match committed_at.cmp(&at) {
            Ordering::Greater => None,
            Ordering::Equal => Some(self.size),
            // Its publication was under way: what was cut off since it began, as far as the record knows, is not the object's any more.
            Ordering::Less => Some(self.size.min(self.low_water)),
        }
    }
}

/// What became of bytes that were to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The journal has them, under this name; under none where there is no journal, as was wished.
    Kept(Option<KeptId>),
    /// S3 has them by now.
    Published,
}

/// What is to be kept of a file.
struct Wanted {
    record: Record,
    keeping: Keeping,
    bytes: Vec<(ByteRange, Vec<Piece>)>,
}

impl Writer {
    /// The bytes are not published and nobody will do it: they go into the journal. Blocks.
    ///
    /// # Errors
    /// It could not take them: they are lost with this writer.
    pub fn keep(&self, reason: &str) -> io::Result<Keep> {
        // Parts on their way are not waited for: their bytes leave memory only when the server has them.
        self.0.keep(reason)
    }
}

impl Inner {
    /// Puts everything that S3 does not have into the journal, in place of what was kept of this file before. Blocks.
    pub(super) fn keep(&self, reason: &str) -> io::Result<Keep> {
        let journal = &self.shared.journal;
        if journal.is_disabled() {
            tracing::error!(key = %self.state.lock().key, reason, "unpublished bytes are lost: there is no journal, as was wished");
            return Ok(Keep::Kept(None));
        }
        if self.state.lock().recovered {
            return Ok(Keep::Kept(None));
        }
        // One after another, also where nobody waits for an earlier one any more.
        let mut record = self.kept.lock();
        // Said before anything is looked at: a publication that does not hear of it has ended before.
        self.has_kept.store(true, Relaxed);
        let Some(mut wanted) = self.wanted(reason) else {
            self.settle(&mut record);
            return Ok(Keep::Published);
        };
        let is_there = |it: &Record| it.is_the_same_as(&wanted.record) && journal.holds(&it.id);
        if let Some(record) = record.as_ref().filter(|it| is_there(it)) {
            return Ok(Keep::Kept(Some(record.id.clone())));
        }
        let upload = wanted.keeping.upload.as_ref().map(|(upload, _)| upload.clone());
        let at = wanted.record.at;
        let is_wanted = || self.state.lock().published < at;
        let Some(id) = journal.keep(wanted.keeping, &wanted.bytes, self.shared.clock.wall(), is_wanted)? else {
            return Ok(Keep::Published);
        };
        tracing::error!(key = %wanted.record.key, %id, reason, "unpublished bytes are kept; `s3mount recover` has them");
        if let Some(upload) = upload {
            // Its parts are needed now; nobody aborts it but recover.
            journal.ended(&upload);
        }
        wanted.record.id = id;
        if let Some(before) = record.replace(wanted.record) {
            // Not there any more if somebody recovered it meanwhile.
            let _ = journal.discard(&before.id);
        }
        self.settle(&mut record);
        Ok(record.as_ref().map_or(Keep::Published, |record| Keep::Kept(Some(record.id.clone()))))
    }

    /// What S3 does not have; `None` if it has everything.
    fn wanted(&self, reason: &str) -> Option<Wanted> {
        let state = self.state.lock();
        if !state.is_dirty() {
            return None;
        }
        let mut bytes: Vec<_> =
            state.staging.written().iter().map(|range| (range, state.staging.share(range))).collect();
        // After a conflict the base is gone from S3; where it is at hand it is kept along.
        if let Some(primed) = &state.primed {
            // Where a part was dropped the upload has what was written, and the base shows no more.
            let mut newer = state.dropped();
            state.staging.written().iter().for_each(|range| newer.insert(range));
            for gap in newer.gaps(ByteRange::new(0, state.base_len)) {
                bytes.push((gap, vec![Piece::Staged(primed.slice(gap.start as usize..gap.end as usize))]));
            }
            bytes.sort_by_key(|(range, _)| range.start);
        }
        let parts: Vec<KeptPart> = state.kept_parts();
        let upload = state.upload.as_ref().filter(|_| !parts.is_empty());
        let keeping = Keeping {
            key: state.key.as_str().to_owned(),
            size_bytes: state.size,
            base: state.base.as_ref().map(|base| KeptBase::of(base, state.base_len)),
            upload: upload.map(|upload| (upload.0.to_string(), parts)),
            truncated: state.truncated.as_ref().map(|etag| etag.as_str().to_owned()),
            exclusive: state.condition == WriteCondition::Absent,
            content_type: state.attributes.content_type.as_deref().map(str::to_owned),
            storage_class: state.attributes.storage_class.as_deref().map(str::to_owned),
            headers: state.attributes.headers.as_deref().cloned().unwrap_or_default(),
            metadata: state.attributes.metadata.as_ref().clone(),
            reason: reason.to_owned(),
        };
        let base = state.base.as_ref().map(|base| base.etag().clone());
        let (at, key, look) = (state.count, state.key.clone(), Look::at(&state));
        let record = Record { id: KeptId(String::new()), at, key, base, look };
        Some(Wanted { record, keeping, bytes })
    }

    /// Has the journal follow what was published. Blocks.
    fn settle(&self, record: &mut Option<Record>) {
        let Some(kept) = record else { return };
        let (published, committed_at, base) = {
            let state = self.state.lock();
            (state.published, state.committed_at, state.base.clone())
        };
        if kept.at <= published {
            match self.shared.journal.discard(&kept.id) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    tracing::debug!(id = %kept.id, "what was kept and then published is not in the journal any more");
                }
                Err(error) => tracing::warn!(
                    key = %kept.key, id = %kept.id, %error,
                    "what was kept is in S3 by now and stays in the journal: `s3mount recover discard` it"
                ),
            }
            *record = None;
            return;
        }
        if let Some(base) = base
            && kept.base.as_ref() != Some(base.etag())
            && let Some(shown_bytes) = kept.look.shown_bytes(kept.at, committed_at)
        {
            let look = Look { committed_at, base_len: shown_bytes, ..kept.look };
            match self.shared.journal.rest_on(&kept.id, KeptBase::of(&base, shown_bytes.min(base.size_bytes))) {
                Ok(()) => (kept.base, kept.look) = (Some(base.etag().clone()), look),
                Err(error) => tracing::warn!(
                    key = %kept.key, id = %kept.id, %error,
                    "what was kept does not follow what was published since: `s3mount recover push` will want --force"
                ),
            }
        }
    }

    /// Has the journal follow a publication that has just succeeded, whether or not the answer is waited for.
    pub(super) fn settle_kept(self: &Arc<Self>) -> Option<JoinHandle<()>> {
        if !self.has_kept.load(Relaxed) {
            return None;
        }
        let inner = Arc::clone(self);
        // Somebody may be keeping the file just now, and the disk takes its time.
        Some(tokio::task::spawn_blocking(move || inner.settle(&mut inner.kept.lock())))
    }
}

impl Record {
    fn is_the_same_as(&self, other: &Self) -> bool {
        (self.at, &self.key, &self.base) == (other.at, &other.key, &other.base)
    }
}
