//! Written bytes: pages of 1 MiB by their place in the file, in memory or, over its budget, on local disk, with which of their bytes
//! were written.
//!
//! Pages are shared with uploads without a copy. Writing to a page that an upload still reads copies it first, so that
//! an upload sends what was there when it began. A file smaller than a page holds little more than its bytes.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::ranges::RangeSet;
use crate::memory::{Budget, Lease, PAGE_BYTES, Page, PagePool, Spill, SpilledBytes, SpilledPage};
use crate::types::ByteRange;

const PAGE: u64 = PAGE_BYTES as u64;
/// Up to here a page is a growing vector; from here on it is a whole recycled page.
const SMALL_BYTES_MAX: usize = 256 << 10;

/// Where one page is.
#[derive(Debug)]
enum Memory {
    Small(Vec<u8>),
    Whole(Page),
    Spilled(SpilledPage),
}

impl Memory {
    /// Its bytes, those of a page on disk mapped for as long as they are held.
    fn read(self: &Arc<Self>) -> MemoryBytes {
        let spilled = match &**self {
            Self::Spilled(page) => {
                Some(page.bytes().expect("a page that was written to local disk can be read from it"))
            }
            Self::Small(_) | Self::Whole(_) => None,
        };
        MemoryBytes { spilled, memory: Arc::clone(self) }
    }
}

/// The bytes of a page that somebody reads; as long as they are there it is not written to.
struct MemoryBytes {
    /// Unmapped before the page is given back.
    spilled: Option<SpilledBytes>,
    memory: Arc<Memory>,
}

impl AsRef<[u8]> for MemoryBytes {
    fn as_ref(&self) -> &[u8] {
        match (&self.spilled, &*self.memory) {
            (Some(bytes), _) => bytes.as_ref(),
            (None, Memory::Small(bytes)) => bytes,
            (None, Memory::Whole(page)) => page,
            (None, Memory::Spilled(_)) => &[],
        }
    }
}

#[derive(Debug)]
struct StagedPage {
    memory: Arc<Memory>,
    /// Count of the last write to it.
    written_at: u64,
    _lease: Option<Lease>,
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
    /// Local disk for what goes over the budget; without it memory is overdrawn.
    pub(super) spill: Option<Spill>,
}

impl Room {
    /// A page on disk, if there is a disk.
    fn spilled(&self) -> Option<io::Result<SpilledPage>> {
        self.spill.as_ref().map(Spill::take)
    }
}

/// Staging is over its budget.
#[derive(Debug)]
pub(super) struct Full;

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

    /// Whether pages for `range` can be had within the budget; takes them if so. With `over` those that cannot are on local
    /// disk, or in memory all the same if there is none: then only a disk that is full refuses.
    pub(super) fn reserve(&mut self, range: ByteRange, over: bool) -> Result<(), Full> {
        if range.is_empty() {
            return Ok(());
        }
        for index in range.start / PAGE..=(range.end - 1) / PAGE {
            if self.pages.contains_key(&index) {
                continue;
            }
            let lease = self.room.budget.try_take(PAGE);
            let memory = match (&lease, over) {
                (Some(_), _) => Memory::Small(Vec::new()),
                (None, false) => return Err(Full),
                (None, true) => match self.room.spilled() {
                    None => Memory::Small(Vec::new()),
                    Some(Ok(page)) => Memory::Spilled(page),
                    Some(Err(error)) => {
                        tracing::warn!(%error, "no room on local disk for unpublished bytes that memory has none for");
                        return Err(Full);
                    }
                },
            };
            self.pages.insert(index, StagedPage { memory: Arc::new(memory), written_at: 0, _lease: lease });
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
            fill(&mut page.memory, &self.room, within, now)?;
            self.written.insert(ByteRange::of_len(offset, now.len() as u64));
            offset += now.len() as u64;
            data = later;
        }
        Ok(())
    }

    /// The staged bytes of a range that is wholly staged, page by page, shared.
    pub(super) fn share(&self, range: ByteRange) -> Vec<Bytes> {
        let mut chunks = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let index = at / PAGE;
            let end = range.end.min((index + 1) * PAGE);
            let page = &self.pages[&index];
            let within = (at % PAGE) as usize..(end - index * PAGE) as usize;
            chunks.push(Bytes::from_owner(page.memory.read()).slice(within));
            at = end;
        }
        chunks
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
            // What is on disk is no use to a cache in memory.
            let is_in_memory = !matches!(*self.pages[&index].memory, Memory::Spilled(_));
            if is_in_memory && !range.is_empty() && self.written.contains(range) {
                let mut shared = self.share(range);
                blocks.extend(shared.pop().map(|block| (index, block)));
            }
            self.forget(ByteRange::of_len(index * PAGE, PAGE));
        }
        blocks
    }
}

/// Writes into a page, which grows, becomes whole, or is copied first, as it must.
fn fill(memory: &mut Arc<Memory>, room: &Room, within: usize, data: &[u8]) -> io::Result<()> {
    let end = within + data.len();
    if let Some(own) = Arc::get_mut(memory) {
        match own {
            Memory::Whole(page) => {
                page[within..end].copy_from_slice(data);
                return Ok(());
            }
            Memory::Small(bytes) if end <= SMALL_BYTES_MAX => {
                grow(bytes, within, data);
                return Ok(());
            }
            Memory::Spilled(page) => return page.write(within, data),
            Memory::Small(_) => {}
        }
    }
    let old = memory.read();
    let old = old.as_ref();
    let new = match (&**memory, room.spilled()) {
        (Memory::Spilled(_), Some(page)) => {
            let mut page = page?;
            page.write(0, old)?;
            page.write(within, data)?;
            Memory::Spilled(page)
        }
        _ if end <= SMALL_BYTES_MAX && old.len() <= SMALL_BYTES_MAX => {
            let mut bytes = old.to_vec();
            grow(&mut bytes, within, data);
            Memory::Small(bytes)
        }
        _ => {
            let mut page = room.pool.take();
            page[..old.len()].copy_from_slice(old);
            page[within..end].copy_from_slice(data);
            Memory::Whole(page)
        }
    };
    *memory = Arc::new(new);
    Ok(())
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
mod tests {
    use super::*;

    fn staging(budget_bytes: u64) -> Staging {
        Staging::new(Room { pool: PagePool::new(4 * PAGE_BYTES), budget: Budget::new(budget_bytes), spill: None })
    }

    #[test]
    fn an_upload_keeps_the_bytes_that_it_began_with() {
        let mut staging = staging(8 << 20);
        for data in [vec![1; 1000], vec![1; PAGE_BYTES]] {
            let range = ByteRange::of_len(0, data.len() as u64);
            staging.reserve(range, false).expect("within the budget");
            staging.write(0, &data, 1).expect("memory");
            let shared = staging.share(range);
            staging.write(10, &[2; 5], 2).expect("memory");
            assert!(shared[0].iter().all(|&byte| byte == 1));
            assert_eq!(&staging.share(range)[0][9..16], &[1, 2, 2, 2, 2, 2, 1]);
        }
    }

    #[test]
    fn pages_over_the_budget_are_refused_or_overdrawn() {
        let mut staging = staging(2 * PAGE);
        assert!(staging.reserve(ByteRange::new(0, 2 * PAGE), false).is_ok());
        assert!(staging.reserve(ByteRange::of_len(2 * PAGE, 1), false).is_err());
        assert!(staging.reserve(ByteRange::of_len(2 * PAGE, 1), true).is_ok());
    }

    #[test]
    fn what_goes_over_the_budget_is_on_local_disk() {
        let spill = Spill::in_dir(&std::env::temp_dir()).expect("a file");
        let room = Room { pool: PagePool::new(0), budget: Budget::new(PAGE), spill: Some(spill.clone()) };
        let mut staging = Staging::new(room);
        let all = ByteRange::new(0, 3 * PAGE);
        staging.reserve(all, true).expect("room on the disk");
        assert_eq!(spill.used_bytes(), 2 * PAGE);
        staging.write(0, &vec![1; 3 * PAGE_BYTES], 1).expect("writes");
        let shared = staging.share(all);
        staging.write(PAGE + 10, &[2; 5], 2).expect("writes");
        assert!(shared.concat().iter().all(|&byte| byte == 1), "an upload keeps the bytes that it began with");
        assert_eq!(&staging.share(all)[1][9..16], &[1, 2, 2, 2, 2, 2, 1]);
        assert_eq!(spill.used_bytes(), 3 * PAGE, "the copy, as long as the upload goes on");
        drop(shared);
        assert_eq!(spill.used_bytes(), 2 * PAGE);
        let blocks = staging.release(2, 3 * PAGE, &RangeSet::default());
        assert_eq!(blocks.into_iter().map(|(index, _)| index).collect::<Vec<_>>(), [0], "for a cache in memory");
        assert_eq!(spill.used_bytes(), 0);
    }

    #[test]
    fn a_small_file_takes_little_more_than_its_bytes() {
        let mut staging = staging(8 << 20);
        staging.reserve(ByteRange::new(0, 100), false).expect("within the budget");
        staging.write(0, &[7; 100], 1).expect("memory");
        assert!(matches!(&*staging.pages[&0].memory, Memory::Small(bytes) if bytes.capacity() < 4096));
    }
}
