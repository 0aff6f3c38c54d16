//! Written bytes in memory: pages of 1 MiB by their place in the file, with which of their bytes were written.
//!
//! Pages are shared with uploads without a copy. Writing to a page that an upload still reads copies it first, so that
//! an upload sends what was there when it began. A file smaller than a page holds little more than its bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::ranges::RangeSet;
use crate::memory::{Budget, Lease, PAGE_BYTES, Page, PagePool};
use crate::types::ByteRange;

const PAGE: u64 = PAGE_BYTES as u64;
/// Up to here a page is a growing vector; from here on it is a whole recycled page.
const SMALL_BYTES_MAX: usize = 256 << 10;

/// Memory of one page.
#[derive(Debug)]
enum Memory {
    Small(Vec<u8>),
    Whole(Page),
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Whole(page) => page,
        }
    }
}

/// A page that an upload may share.
#[derive(Clone, Debug)]
struct SharedMemory(Arc<Memory>);

impl AsRef<[u8]> for SharedMemory {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

#[derive(Debug)]
struct StagedPage {
    memory: SharedMemory,
    /// Count of the last write to it.
    written_at: u64,
    _lease: Option<Lease>,
}

/// The written bytes of one file.
#[derive(Debug)]
pub(super) struct Staging {
    pages: BTreeMap<u64, StagedPage>,
    written: RangeSet,
    pool: Arc<PagePool>,
    budget: Budget,
}

/// Staging is over its budget.
#[derive(Debug)]
pub(super) struct Full;

impl Staging {
    pub(super) fn new(pool: Arc<PagePool>, budget: Budget) -> Self {
        Self { pages: BTreeMap::new(), written: RangeSet::default(), pool, budget }
    }

    /// Which bytes are staged.
    pub(super) fn written(&self) -> &RangeSet {
        &self.written
    }

    /// Bytes of memory in use.
    pub(super) fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Whether pages for `range` can be had within the budget; takes them if so, or in any case with `overdraw`.
    pub(super) fn reserve(&mut self, range: ByteRange, overdraw: bool) -> Result<(), Full> {
        if range.is_empty() {
            return Ok(());
        }
        for index in range.start / PAGE..=(range.end - 1) / PAGE {
            if self.pages.contains_key(&index) {
                continue;
            }
            let lease = self.budget.try_take(PAGE);
            if lease.is_none() && !overdraw {
                return Err(Full);
            }
            let memory = SharedMemory(Arc::new(Memory::Small(Vec::new())));
            self.pages.insert(index, StagedPage { memory, written_at: 0, _lease: lease });
        }
        Ok(())
    }

    /// Copies `data` to `offset`; its pages were reserved. `at` counts writes.
    pub(super) fn write(&mut self, offset: u64, data: &[u8], at: u64) {
        let mut offset = offset;
        let mut data = data;
        self.written.insert(ByteRange::of_len(offset, data.len() as u64));
        while !data.is_empty() {
            let within = usize::try_from(offset % PAGE).expect("less than a page");
            let (now, later) = data.split_at(data.len().min(PAGE_BYTES - within));
            let page = self.pages.get_mut(&(offset / PAGE)).expect("the pages of a write are reserved before it");
            page.written_at = at;
            fill(&mut page.memory, &self.pool, within, now);
            offset += now.len() as u64;
            data = later;
        }
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
            chunks.push(Bytes::from_owner(page.memory.clone()).slice(within));
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
            if !range.is_empty() && self.written.contains(range) {
                let mut shared = self.share(range);
                blocks.extend(shared.pop().map(|block| (index, block)));
            }
            self.forget(ByteRange::of_len(index * PAGE, PAGE));
        }
        blocks
    }
}

/// Writes into a page, which grows, becomes whole, or is copied first, as it must.
fn fill(memory: &mut SharedMemory, pool: &Arc<PagePool>, within: usize, data: &[u8]) {
    let end = within + data.len();
    if let Some(own) = Arc::get_mut(&mut memory.0) {
        match own {
            Memory::Whole(page) => {
                page[within..end].copy_from_slice(data);
                return;
            }
            Memory::Small(bytes) if end <= SMALL_BYTES_MAX => {
                grow(bytes, within, data);
                return;
            }
            Memory::Small(_) => {}
        }
    }
    let old = memory.as_ref();
    let new = if end <= SMALL_BYTES_MAX && old.len() <= SMALL_BYTES_MAX {
        let mut bytes = old.to_vec();
        grow(&mut bytes, within, data);
        Memory::Small(bytes)
    } else {
        let mut page = pool.take();
        page[..old.len()].copy_from_slice(old);
        page[within..end].copy_from_slice(data);
        Memory::Whole(page)
    };
    memory.0 = Arc::new(new);
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
        Staging::new(PagePool::new(4 * PAGE_BYTES), Budget::new(budget_bytes))
    }

    #[test]
    fn an_upload_keeps_the_bytes_that_it_began_with() {
        let mut staging = staging(8 << 20);
        for data in [vec![1; 1000], vec![1; PAGE_BYTES]] {
            let range = ByteRange::of_len(0, data.len() as u64);
            staging.reserve(range, false).expect("within the budget");
            staging.write(0, &data, 1);
            let shared = staging.share(range);
            staging.write(10, &[2; 5], 2);
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
    fn a_small_file_takes_little_more_than_its_bytes() {
        let mut staging = staging(8 << 20);
        staging.reserve(ByteRange::new(0, 100), false).expect("within the budget");
        staging.write(0, &[7; 100], 1);
        assert!(matches!(&*staging.pages[&0].memory.0, Memory::Small(bytes) if bytes.capacity() < 4096));
    }
}
