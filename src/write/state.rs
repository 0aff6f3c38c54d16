//! One file that is being written, as far as memory knows: sizes, staged bytes, parts under way. No I/O.
//!
//! Every byte of `[0, size)` comes from exactly one place, in this order: staging; a part that was uploaded and dropped
//! from memory; the base object as far as it still shows through; zeros. Every write, truncation and change of attributes
//! advances a count; what is published is everything up to a count.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::journal::KeptPart;
use super::parts::Layout;
use super::plan::{Origin, Planned};
use super::ranges::RangeSet;
use super::staging::{Full, Over, Staging};
use super::{Base, Piece, WriteError, WriteTarget};
use crate::memory::{Lease, PAGE_BYTES};
use crate::store::{ObjectAttributes, UploadId, UploadedPart, WriteCondition};
use crate::types::{ByteRange, ETag, ObjectInfo, ObjectKey};

/// A part on its way, or there.
#[derive(Debug)]
pub(super) enum Part {
    /// An upload of the bytes as of this count is running.
    Uploading { at: u64 },
    /// The server has the bytes as of this count.
    Uploaded { part: UploadedPart, at: u64, dropped: bool },
}

/// What is to be known of a file under its lock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) key: ObjectKey,
    pub(super) layout: Layout,
    pub(super) size: u64,
    /// The object whose bytes show through.
    pub(super) base: Option<ObjectInfo>,
    /// How far they do.
    pub(super) base_len: u64,
    /// Tag of the object that was emptied when the file was opened, where it is known.
    pub(super) truncated: Option<ETag>,
    /// What the key must hold for a publication to replace it.
    pub(super) condition: WriteCondition,
    pub(super) staging: Staging,
    pub(super) parts: BTreeMap<u32, Part>,
    /// Count of the last write to a part.
    touched: BTreeMap<u32, u64>,
    pub(super) upload: Option<UploadId>,
    /// What the upload was begun with.
    pub(super) upload_attributes: ObjectAttributes,
    pub(super) attributes: ObjectAttributes,
    /// The whole base, where it is small and was at hand: what is kept after a conflict is then a whole file.
    pub(super) primed: Option<Bytes>,
    /// Counts changes.
    pub(super) count: u64,
    /// Everything up to this count is published.
    pub(super) published: u64,
    /// The base is what this mount made of the file as of this count; 0 if it made none.
    pub(super) committed_at: u64,
    /// Count of the last change of bytes or size; attributes alone need no bytes.
    pub(super) content_count: u64,
    /// Smallest size since the snapshot of the publication under way.
    pub(super) low_water: u64,
    /// The last publication.
    pub(super) last: Option<ObjectInfo>,
    /// Unlinked: never publishes.
    pub(super) orphan: bool,
    /// A publication has its snapshot; no part is uploaded beside it.
    pub(super) publishing: bool,
    /// The journal has the bytes already, as what they are recovered from.
    pub(super) recovered: bool,
    /// The file is being renamed; no upload is begun under the key that it will lose.
    pub(super) frozen: bool,
}

impl State {
    pub(super) fn new(target: WriteTarget, layout: Layout, staging: Staging) -> Self {
        let mut truncated = None;
        let (base, dirty, condition) = match target.base {
            Base::Absent { exclusive: true } => (None, true, WriteCondition::Absent),
            Base::Absent { exclusive: false } => (None, true, WriteCondition::None),
            Base::Truncated(etag) => {
                truncated = etag;
                (None, true, WriteCondition::None)
            }
            Base::Object(info) => {
                let condition = WriteCondition::Matches(info.etag().clone());
                (Some(info), false, condition)
            }
        };
        let size = base.as_ref().map_or(0, |info| info.size_bytes);
        Self {
            key: target.key,
            layout,
            size,
            base_len: size,
            truncated,
            last: base.clone(),
            base,
            condition,
            staging,
            parts: BTreeMap::new(),
            touched: BTreeMap::new(),
            upload: None,
            upload_attributes: ObjectAttributes::default(),
            attributes: target.attributes,
            primed: None,
            count: u64::from(dirty),
            published: 0,
            committed_at: 0,
            content_count: u64::from(dirty),
            low_water: u64::MAX,
            orphan: false,
            publishing: false,
            recovered: false,
            frozen: false,
        }
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.count > self.published
    }

    /// Whether bytes or the size differ from what is published.
    pub(super) fn has_new_content(&self) -> bool {
        self.content_count > self.published
    }

    /// Counts a change of bytes or size.
    pub(super) fn change_content(&mut self) -> u64 {
        self.count += 1;
        self.content_count = self.count;
        self.count
    }

    /// Counts a change of attributes alone.
    pub(super) fn change_attributes(&mut self) {
        self.count += 1;
    }

    /// Copies written bytes into staging.
    pub(super) fn write(
        &mut self,
        offset: u64,
        data: &[u8],
        over: Over,
        spare: &mut Option<Lease>,
    ) -> Result<Result<(), WriteError>, Full> {
        let range = ByteRange::of_len(offset, data.len() as u64);
        if range.end > self.layout.size_bytes_max() {
            return Ok(Err(WriteError::TooLarge));
        }
        if data.is_empty() {
            return Ok(Ok(()));
        }
        self.staging.reserve(range, over, spare)?;
        let at = self.change_content();
        let outcome = self.staging.write(offset, data, at);
        self.touch(range, at);
        Ok(match outcome {
            Ok(()) => {
                self.size = self.size.max(range.end);
                Ok(())
            }
            // The disk broke it off: nothing of it lies beyond the end of the file.
            Err(error) => {
                self.staging.truncate(self.size);
                Err(WriteError::Spill(error))
            }
        })
    }

    /// What must be in memory at once for a stream that writes `range` to go on: the part that it is in, and pages across its borders.
    pub(super) fn stream_bytes(&self, range: ByteRange) -> u64 {
        let parts = self.layout.numbers(range).map(|number| self.layout.range(number).len());
        parts.max().unwrap_or(0) + 2 * PAGE_BYTES as u64
    }

    /// The parts of a range are no longer what was uploaded of them.
    fn touch(&mut self, range: ByteRange, at: u64) {
        for number in self.layout.numbers(range) {
            self.touched.insert(number, at);
            // Bytes of a dropped part are still needed for what was not written anew.
            if matches!(self.parts.get(&number), Some(Part::Uploaded { dropped: false, .. })) {
                self.parts.remove(&number);
            }
        }
    }

    /// Whether the server has the part, whole and as it is now.
    pub(super) fn is_uploaded(&self, number: u32) -> bool {
        let touched = self.touched.get(&number).copied().unwrap_or(0);
        matches!(self.parts.get(&number), Some(Part::Uploaded { at, .. }) if *at >= touched)
    }

    /// The parts that were dropped from memory, as ranges of the file.
    pub(super) fn dropped(&self) -> RangeSet {
        let mut ranges = RangeSet::default();
        for (&number, part) in &self.parts {
            if matches!(part, Part::Uploaded { dropped: true, .. }) {
                ranges.insert(self.layout.range(number));
            }
        }
        ranges
    }

    /// Whether bytes were written over a part that was dropped: it must be published before it can be sent anew.
    pub(super) fn has_overlaid_drops(&self) -> bool {
        self.parts
            .iter()
            .any(|(&number, part)| matches!(part, Part::Uploaded { dropped: true, .. }) && !self.is_uploaded(number))
    }

    /// Cuts or grows the file. The caller has settled dropped parts.
    pub(super) fn truncate(&mut self, size: u64) -> Result<(), WriteError> {
        if size > self.layout.size_bytes_max() {
            return Err(WriteError::TooLarge);
        }
        // An empty file that is emptied is written all the same: O_TRUNC makes it new, with a new time.
        if size == self.size && size > 0 {
            return Ok(());
        }
        let changed = ByteRange::new(size.min(self.size), size.max(self.size));
        let at = self.change_content();
        if size < self.size {
            self.staging.truncate(size);
            self.base_len = self.base_len.min(size);
            self.low_water = self.low_water.min(size);
        }
        self.size = size;
        self.touch(changed, at);
        if let Some(first) = self.layout.number(changed.start) {
            // The part that the border lies in is another one now, and what lies behind is gone. Uploads under way stay known
            // until they end: a publication must not send a part beside them.
            self.parts.retain(|&number, part| number < first || matches!(part, Part::Uploading { .. }));
        }
        Ok(())
    }

    /// How a range is made up, in order, cut at the size.
    pub(super) fn pieces(&self, range: ByteRange) -> Vec<Piece> {
        let range = range.intersect(&ByteRange::new(0, self.size));
        let mut pieces = Vec::new();
        let mut at = range.start;
        let staged = self.staging.written().within(range);
        for next in staged.into_iter().map(Some).chain([None]) {
            let end = next.map_or(range.end, |next| next.start);
            self.unstaged(ByteRange::new(at, end), &mut pieces);
            if let Some(next) = next {
                pieces.extend(self.staging.share(next));
                at = next.end;
            }
        }
        pieces
    }

    fn unstaged(&self, range: ByteRange, pieces: &mut Vec<Piece>) {
        if range.is_empty() {
            return;
        }
        let dropped = self.dropped();
        let mut at = range.start;
        for gone in dropped.within(range).into_iter().map(Some).chain([None]) {
            let shown = ByteRange::new(at, gone.map_or(range.end, |gone| gone.start));
            let base = shown.intersect(&ByteRange::new(0, self.base_len));
            if !base.is_empty() {
                pieces.push(Piece::Base(base));
            }
            let zeros = ByteRange::new(shown.start.max(self.base_len), shown.end);
            if !zeros.is_empty() {
                pieces.push(Piece::Zeros(zeros.len()));
            }
            if let Some(gone) = gone {
                pieces.push(Piece::Dropped(gone));
                at = gone.end;
            }
        }
    }

    /// The part that a write has just made whole and that is worth uploading now, while the writer goes on.
    pub(super) fn whole_part(&self, written: ByteRange, single_put_bytes_max: u64) -> Option<u32> {
        if self.publishing || self.frozen || self.orphan || self.size <= single_put_bytes_max {
            return None;
        }
        let last = written.end.checked_sub(1)?;
        let number = self.layout.number(last)?;
        // A part is taken once the writer has passed its end, so that it is most likely done with it.
        let candidate = if self.layout.range(number).end == written.end { number } else { number.checked_sub(1)? };
        if candidate == 0 || self.parts.contains_key(&candidate) {
            return None;
        }
        self.staging.written().contains(self.layout.range(candidate)).then_some(candidate)
    }

    /// An upload of a part has ended.
    pub(super) fn part_ended(&mut self, number: u32, part: Option<UploadedPart>) {
        let Some(Part::Uploading { at }) = self.parts.get(&number) else { return };
        let at = *at;
        let touched = self.touched.get(&number).copied().unwrap_or(0);
        match part {
            Some(part) if touched <= at => {
                self.parts.insert(number, Part::Uploaded { part, at, dropped: false });
            }
            _ => {
                self.parts.remove(&number);
            }
        }
    }

    /// The receipts of the planned parts that the server has.
    pub(super) fn receipts(&self, planned: &[Planned]) -> Vec<UploadedPart> {
        let there = planned.iter().filter(|part| part.origin == Origin::Uploaded);
        there
            .filter_map(|part| match self.parts.get(&part.number) {
                Some(Part::Uploaded { part, .. }) => Some(part.clone()),
                _ => None,
            })
            .collect()
    }

    /// The parts that only the server has.
    pub(super) fn kept_parts(&self) -> Vec<KeptPart> {
        self.parts
            .iter()
            .filter_map(|(&number, part)| match part {
                Part::Uploaded { part, dropped: true, .. } => {
                    let range = self.layout.range(number);
                    let etag = part.etag.as_str().to_owned();
                    Some(KeptPart { number, etag, start: range.start, end: range.end })
                }
                _ => None,
            })
            .collect()
    }

    /// Whether any part is being uploaded.
    pub(super) fn is_uploading(&self) -> bool {
        self.parts.values().any(|part| matches!(part, Part::Uploading { .. }))
    }

    /// Drops the memory of parts that the server has; how many pages that freed.
    pub(super) fn drop_uploaded(&mut self) -> usize {
        let before = self.staging.pages();
        for (&number, part) in &mut self.parts {
            if let Part::Uploaded { dropped: dropped @ false, .. } = part {
                *dropped = true;
                self.staging.forget(self.layout.range(number));
            }
        }
        before - self.staging.pages()
    }

    /// A publication of everything up to `at`, but what lies in `kept`, has succeeded. Gives the blocks that memory still
    /// holds of it.
    pub(super) fn published(&mut self, info: &ObjectInfo, at: u64, kept: &RangeSet) -> Vec<(u64, Bytes)> {
        let size = info.size_bytes;
        self.publishing = false;
        self.upload = None;
        self.parts.clear();
        let blocks = self.staging.release(at, size.min(self.low_water), kept);
        self.base_len = size.min(self.low_water).min(self.size);
        self.low_water = u64::MAX;
        self.rest_on(info);
        self.committed_at = at;
        if kept.is_empty() {
            self.published = at;
        }
        blocks
    }

    /// The object is the base from now on.
    pub(super) fn rest_on(&mut self, info: &ObjectInfo) {
        self.condition = WriteCondition::Matches(ETag::clone(info.etag()));
        if self.base.as_ref().is_none_or(|base| base.version != info.version) {
            self.primed = None;
        }
        self.base = Some(info.clone());
        self.last = Some(info.clone());
        self.key = info.key().clone();
    }
}
