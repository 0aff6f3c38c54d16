//! Written bytes: pages of 1 MiB by their place in the file, in memory or, over its budget, on local disk, with which of their bytes
//! were written.
//!
//! Pages are shared with uploads without a copy. Writing to a page that an upload still reads copies it first, so that
//! an upload sends what was there when it began. A file smaller than a page holds little more than its bytes.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::Piece;
use super::ranges::RangeSet;
use super::spilled::SpilledRange;
use crate::memory::{Budget, Lease, Overdraft, Overdrawn, PAGE_BYTES, Page, PagePool, Spill, SpilledPage};
use crate::types::ByteRange;

const PAGE: u64 = PAGE_BYTES as u64;
/// Up to here a page is a growing vector; from here on it is a whole recycled page.
const SMALL_BYTES_MAX: usize = 256 << 10;

/// Where one page is. Whoever reads it holds it, and then it is not written to.
#[derive(Debug)]
enum Place {
    Memory(Arc<Buffer>, Held),
    Disk(Arc<SpilledPage>),
}

/// What a page in memory is counted by.
#[derive(Debug)]
struct Held {
    _lease: Option<Lease>,
    _overdrawn: Option<Overdrawn>,
}

/// A page in memory.
#[derive(Debug)]
enum Buffer {
    Small(Vec<u8>),
    Whole(Page),
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Whole(page) => page,
        }
    }
}

/// A buffer that somebody reads.
struct Shared(Arc<Buffer>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

#[derive(Debug)]
struct StagedPage {
    place: Place,
    /// Count of the last write to it.
    written_at: u64,
}

/// The written bytes of one file.
#[derive(Debug)]
pub(super) struct Staging {
    pages: BTreeMap<u64, StagedPage>,
    written: RangeSet,
    room: Room,
}

/// Where pages come from.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub(super) pool: Arc<PagePool>,
    pub(super) budget: Budget,
    /// Local disk for what goes over the budget.
    pub(super) spill: Option<Spill>,
    /// Memory beyond the budget, for what has no room on local disk either.
    pub(super) overdraft: Overdraft,
    /// The most that this may be.
    pub(super) overdraft_bytes_max: u64,
}

impl Room {
    /// Bytes of memory in use.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.budget.used_bytes() + self.overdraft.used_bytes()
    }

    /// An empty page.
    fn page(&self, over: Over, spare: &mut Option<Lease>) -> Option<Place> {
        if let Some(lease) = spare.take().or_else(|| self.budget.try_take(PAGE)) {
            return Some(Place::empty(Held { _lease: Some(lease), _overdrawn: None }));
        }
        let overdrawn_max = match over {
            Over::Nothing => return None,
            Over::Disk => 0,
            Over::DiskOrMemory(bytes) => bytes.max(self.overdraft_bytes_max),
        };
        // Why it is refused it says itself.
        if let Some(Ok(page)) = self.spill.as_ref().map(|spill| spill.take(self.memory_bytes())) {
            return Some(Place::Disk(Arc::new(page)));
        }
        let overdrawn = self.overdraft.try_take(PAGE, overdrawn_max)?;
        Some(Place::empty(Held { _lease: None, _overdrawn: Some(overdrawn) }))
    }
}

/// Staging is over its budget.
#[derive(Debug)]
pub(super) struct Full;

/// Where pages come from that the budget has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// From nowhere.
    Nothing,
    /// Local disk, as long as it has room.
    Disk,
    /// Local disk, or memory all the same: so many bytes over the budget in all, or as many as everybody may.
    DiskOrMemory(u64),
}

impl Staging {
    pub(super) fn new(room: Room) -> Self {
        Self { pages: BTreeMap::new(), written: RangeSet::default(), room }
    }

    /// Which bytes are staged.
    pub(super) fn written(&self) -> &RangeSet {
        &self.written
    }

    /// Bytes of memory in use.
    pub(super) fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Whether any page of `range` is on local disk, so that a write to it may wait for that.
    pub(super) fn is_on_disk(&self, range: ByteRange) -> bool {
        let mut pages = self.pages.range(range.start / PAGE..range.end.div_ceil(PAGE));
        pages.any(|(_, page)| matches!(page.place, Place::Disk(_)))
    }

    /// Whether pages for `range` can be had within the budget, or where `over` says; takes them if so, and otherwise as many as there
    /// are. `spare` is one of the budget that was waited for.
    pub(super) fn reserve(&mut self, range: ByteRange, over: Over, spare: &mut Option<Lease>) -> Result<(), Full> {
        if range.is_empty() {
            return Ok(());
        }
        for index in range.start / PAGE..=(range.end - 1) / PAGE {
            if self.pages.contains_key(&index) {
                continue;
            }
            let place = self.room.page(over, spare).ok_or(Full)?;
            self.pages.insert(index, StagedPage { place, written_at: 0 });
        }
        Ok(())
    }

    /// Copies `data` to `offset`; its pages were reserved. `at` counts writes.
    ///
    /// # Errors
    /// Local disk took a part of it, or nothing.
    pub(super) fn write(&mut self, offset: u64, data: &[u8], at: u64) -> io::Result<()> {
        let mut offset = offset;
        let mut data = data;
        while !data.is_empty() {
            let within = usize::try_from(offset % PAGE).expect("less than a page");
            let (now, later) = data.split_at(data.len().min(PAGE_BYTES - within));
            let page = self.pages.get_mut(&(offset / PAGE)).expect("the pages of a write are reserved before it");
            page.written_at = at;
            page.place.fill(&self.room, within, now)?;
            self.written.insert(ByteRange::of_len(offset, now.len() as u64));
            offset += now.len() as u64;
            data = later;
        }
        Ok(())
    }

    /// The staged bytes of a range that is wholly staged, page by page, shared.
    pub(super) fn share(&self, range: ByteRange) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let index = at / PAGE;
            let end = range.end.min((index + 1) * PAGE);
            let within = (at % PAGE) as usize..(end - index * PAGE) as usize;
            pieces.push(match &self.pages[&index].place {
                Place::Memory(buffer, _) => Piece::Staged(Bytes::from_owner(Shared(Arc::clone(buffer))).slice(within)),
                Place::Disk(page) => Piece::Spilled(SpilledRange::new(Arc::clone(page), within)),
            });
            at = end;
        }
        pieces
    }

    /// Forgets everything from `size` on.
    pub(super) fn truncate(&mut self, size: u64) {
        self.written.remove(ByteRange::new(size, u64::MAX));
        self.pages.split_off(&size.div_ceil(PAGE));
    }

    /// Forgets the pages of a range of whole pages.
    pub(super) fn forget(&mut self, range: ByteRange) {
        self.written.remove(range);
        let gone: Vec<u64> =
            self.pages.range(range.start / PAGE..range.end.div_ceil(PAGE)).map(|(&at, _)| at).collect();
        for index in gone {
            self.pages.remove(&index);
        }
    }

    /// Forgets the pages that were not written since count `at`, but those of `kept` parts of the file. Gives whole
    /// blocks of them, with their numbers, as far as the file of `size` bytes fills them.
    pub(super) fn release(&mut self, at: u64, size: u64, kept: &RangeSet) -> Vec<(u64, Bytes)> {
        let old: Vec<u64> = self
            .pages
            .iter()
            .filter(|(index, page)| page.written_at <= at && !kept.touches(ByteRange::of_len(*index * PAGE, PAGE)))
            .map(|(&index, _)| index)
            .collect();
        let mut blocks = Vec::new();
        for index in old {
            let range = ByteRange::of_len(index * PAGE, PAGE).intersect(&ByteRange::new(0, size));
            if !range.is_empty()
                && self.written.contains(range)
                // What is on disk is no use to a cache in memory.
                && let Some(Piece::Staged(block)) = self.share(range).pop()
            {
                blocks.push((index, block));
            }
            self.forget(ByteRange::of_len(index * PAGE, PAGE));
        }
        blocks
    }
}

impl Place {
    fn empty(held: Held) -> Self {
        Self::Memory(Arc::new(Buffer::Small(Vec::new())), held)
    }

    /// Writes into the page, which grows, becomes whole, or is copied first, as it must.
    fn fill(&mut self, room: &Room, within: usize, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Memory(buffer, _) => {
                fill(buffer, &room.pool, within, data);
                Ok(())
            }
            Self::Disk(page) => {
                if let Some(own) = Arc::get_mut(page) {
                    return own.write(within, data);
                }
                *self = copied(page, room)?;
                self.fill(room, within, data)
            }
        }
    }
}

/// A copy of a page on disk that somebody reads.
fn copied(page: &SpilledPage, room: &Room) -> io::Result<Place> {
    match room.page(Over::DiskOrMemory(0), &mut None).ok_or(io::ErrorKind::StorageFull)? {
        Place::Disk(mut copy) => {
            Arc::get_mut(&mut copy).expect("nobody else has a new page").copy_from(page)?;
            Ok(Place::Disk(copy))
        }
        Place::Memory(_, held) => {
            let written = page.written();
            let mut copy = room.pool.take();
            copy[written.clone()].copy_from_slice(&page.read(written)?);
            Ok(Place::Memory(Arc::new(Buffer::Whole(copy)), held))
        }
    }
}

fn fill(buffer: &mut Arc<Buffer>, pool: &Arc<PagePool>, within: usize, data: &[u8]) {
    let end = within + data.len();
    if let Some(own) = Arc::get_mut(buffer) {
        match own {
            Buffer::Whole(page) => return page[within..end].copy_from_slice(data),
            Buffer::Small(bytes) if end <= SMALL_BYTES_MAX => return grow(bytes, within, data),
            Buffer::Small(_) => {}
        }
    }
    let old = (**buffer).as_ref();
    let new = if end <= SMALL_BYTES_MAX && old.len() <= SMALL_BYTES_MAX {
        let mut bytes = old.to_vec();
        grow(&mut bytes, within, data);
        Buffer::Small(bytes)
    } else {
        let mut page = pool.take();
        page[..old.len()].copy_from_slice(old);
        page[within..end].copy_from_slice(data);
        Buffer::Whole(page)
    };
    *buffer = Arc::new(new);
}

fn grow(bytes: &mut Vec<u8>, within: usize, data: &[u8]) {
    if bytes.len() == within {
        bytes.extend_from_slice(data);
        return;
    }
    if bytes.len() < within + data.len() {
        bytes.resize(within + data.len(), 0);
    }
    bytes[within..within + data.len()].copy_from_slice(data);
}

#[cfg(test)]
mod tests;
