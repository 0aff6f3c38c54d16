//! Recycled pages of memory.
//!
//! Owns mappings that never go away while the pool lives, and which of their pages are free. Fresh memory is dear: the kernel
//! clears it and maps it, for each 4 KiB a page fault (measured: 0.40 s a GiB, 0.20 in huge pages, 0.06 for memory that is
//! there). Hence pages are used again, those that were dropped last first, for they are warm; and where the kernel has huge
//! pages (madvise(2), MADV_HUGEPAGE) two pages share one. Invariants: a page has one owner, and the kernel takes back no page
//! that is owned; no more than a bound is resident and unused.
//!
//! - `slots`: which pages are free, and whose turn it is; pure

mod slots;

use std::alloc::{Layout, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Advice, MmapMut, MmapRaw};
use nix::unistd::{SysconfVar, sysconf};
use parking_lot::Mutex;

use self::slots::{Cooling, Slots};

/// Bytes of one page, which is also one cached block: 1 MiB, the largest FUSE request, so that an aligned read
/// meets one block.
pub const PAGE_BYTES: usize = 1 << 20;

/// Bytes of a huge page where base pages have [`BASE_BYTES`] (Linux, admin-guide/mm/transhuge): two pages.
const HUGE_BYTES: usize = 2 * PAGE_BYTES;
/// Where base pages are larger, so are huge ones: one page of ours would bring 32 MiB.
const BASE_BYTES: i64 = 4096;
/// Pages of one mapping, which is nothing until they are used: enough that a large cache has few mappings.
const SLAB_PAGES: usize = 64;

/// Keeps dropped pages for the next taker.
#[derive(Debug)]
pub struct PagePool {
    memory: Mutex<Memory>,
    retained_pages_max: usize,
}

#[derive(Debug, Default)]
struct Memory {
    slots: Slots,
    slabs: Vec<Slab>,
    /// Of each slot, the slab and the place in it.
    places: Vec<(usize, usize)>,
}

#[derive(Debug)]
struct Slab {
    mapping: MmapRaw,
    /// Slots whose memory the kernel does not have.
    resident: usize,
    /// The kernel is to make no huge pages here: it would fill up what was given back of them (khugepaged).
    is_small: bool,
}

impl Slab {
    fn map(pages: usize) -> std::io::Result<(Self, usize)> {
        // Before kernel 6.7 a mapping begins anywhere.
        let mapping = MmapRaw::from(MmapMut::map_anon(pages * PAGE_BYTES + HUGE_BYTES)?);
        let offset = mapping.as_ptr().align_offset(HUGE_BYTES);
        let slab = Self { mapping, resident: 0, is_small: false };
        slab.advise_huge();
        Ok((slab, offset))
    }

    /// A kernel without huge pages refuses, and its small ones do.
    fn advise_huge(&self) {
        if matches!(sysconf(SysconfVar::PAGE_SIZE), Ok(Some(BASE_BYTES))) {
            let _ = self.mapping.advise(Advice::HugePage);
        }
    }
}

impl Memory {
    fn grow(&mut self) {
        // Where addresses are scarce (vm.overcommit_memory, RLIMIT_AS) the least may still be had.
        let mapped = [SLAB_PAGES, 2].into_iter().find_map(|pages| Some((pages, Slab::map(pages).ok()?)));
        let Some((pages, (slab, offset))) = mapped else {
            handle_alloc_error(Layout::from_size_align(2 * HUGE_BYTES, HUGE_BYTES).expect("a size and a power of two"));
        };
        self.places.extend((0..pages).map(|page| (self.slabs.len(), offset + page * PAGE_BYTES)));
        self.slabs.push(slab);
        self.slots.grow(pages);
    }

    /// Takes a page; its number and where it is.
    fn take(&mut self) -> (usize, NonNull<u8>) {
        let taken = self.slots.take().unwrap_or_else(|| {
            self.grow();
            self.slots.take().expect("there are some now")
        });
        let (slab, start) = self.places[taken.slot];
        let slab = &mut self.slabs[slab];
        slab.resident += taken.woken;
        // SAFETY: the page lies in the mapping, which is longer than its pages by what `offset` is at most.
        (taken.slot, unsafe { NonNull::new_unchecked(slab.mapping.as_mut_ptr().add(start)) })
    }

    /// Where the memory is that is about to go back to the kernel.
    fn begin_to_cool(&mut self, cooling: &Cooling) -> *mut u8 {
        let (slab, start) = self.places[cooling.first];
        let slab = &mut self.slabs[slab];
        if cooling.count == 1 && !slab.is_small {
            slab.is_small = true;
            let _ = slab.mapping.advise(Advice::NoHugePage);
        }
        slab.mapping.as_mut_ptr().wrapping_add(start)
    }

    /// The kernel has the memory of these slots.
    fn cooled(&mut self, cooling: &Cooling) {
        let slab = &mut self.slabs[self.places[cooling.first].0];
        slab.resident -= cooling.count;
        if slab.resident == 0 && slab.is_small {
            slab.is_small = false;
            slab.advise_huge();
        }
        self.slots.cooled(cooling);
    }
}

impl PagePool {
    /// A pool that keeps at most `retained_bytes_max` of unused pages, and one; the memory of what is dropped beyond that goes back
    /// to the kernel.
    pub fn new(retained_bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { memory: Mutex::default(), retained_pages_max: retained_bytes_max / PAGE_BYTES })
    }

    /// A page of [`PAGE_BYTES`]. Its contents are unspecified: bytes of an earlier file may stand in it, so the
    /// taker must never show a byte that it did not write. Ends the process where the kernel has no memory, as any allocation does.
    pub fn take(self: &Arc<Self>) -> Page {
        let (slot, start) = self.memory.lock().take();
        Page { start, slot, pool: Arc::clone(self) }
    }

    fn give_back(&self, slot: usize) {
        let mut memory = self.memory.lock();
        let Some(cooling) = memory.slots.give_back(slot, self.retained_pages_max) else { return };
        let start = memory.begin_to_cool(&cooling);
        // The kernel may take a tenth of a millisecond.
        drop(memory);
        // SAFETY: the range lies in a mapping, which lives as long as this, and nobody owns its slots or is given them before
        // they are said to be cold. Zeros are as good as what stood there. A failure leaves the memory where it is.
        let _ = unsafe { libc::madvise(start.cast(), cooling.count * PAGE_BYTES, libc::MADV_DONTNEED) };
        self.memory.lock().cooled(&cooling);
    }
}

/// One page of memory, owned by whoever took it; goes back to its pool when dropped.
#[derive(Debug)]
pub struct Page {
    start: NonNull<u8>,
    slot: usize,
    pool: Arc<PagePool>,
}

// SAFETY: the page is memory of its owner alone, like a boxed slice, in a mapping that the pool keeps.
unsafe impl Send for Page {}
// SAFETY: as above: what is shared is only read.
unsafe impl Sync for Page {}

impl Page {
    /// Makes the first `len_bytes` of the page shareable without a copy; the page returns to its pool when the last
    /// clone is gone. Panics if `len_bytes` is over [`PAGE_BYTES`].
    pub fn freeze(self, len_bytes: usize) -> Bytes {
        Bytes::from_owner(self).slice(..len_bytes)
    }
}

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Deref for Page {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the pool, which outlives the page, maps these bytes for reading and writing, and the page owns them alone.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), PAGE_BYTES) }
    }
}

impl DerefMut for Page {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the page is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), PAGE_BYTES) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.pool.give_back(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident_bytes(pool: &PagePool) -> usize {
        let memory = pool.memory.lock();
        let base_bytes = sysconf(SysconfVar::PAGE_SIZE).expect("known").expect("set") as usize;
        let mut resident = 0;
        for slab in &memory.slabs {
            let mut base_pages = vec![0_u8; slab.mapping.len().div_ceil(base_bytes)];
            let (start, len) = (slab.mapping.as_mut_ptr().cast(), slab.mapping.len());
            // SAFETY: mincore(2) reads nothing of the mapping and writes a byte for each base page of it.
            assert_eq!(unsafe { libc::mincore(start, len, base_pages.as_mut_ptr()) }, 0);
            resident += base_pages.iter().filter(|&&page| page & 1 == 1).count() * base_bytes;
        }
        resident
    }

    #[test]
    fn a_dropped_page_is_recycled_after_its_last_reader() {
        let pool = PagePool::new(4 * PAGE_BYTES);
        let mut page = pool.take();
        let slot = page.slot;
        page[..5].copy_from_slice(b"hello");
        let shared = page.freeze(5);
        let reader = shared.clone();
        drop(shared);
        assert_ne!(pool.take().slot, slot);
        assert_eq!(&reader[..], b"hello");
        drop(reader);
        assert_eq!(&pool.take()[..5], b"hello");
    }

    #[test]
    fn memory_beyond_what_is_retained_goes_back_to_the_kernel() {
        let pool = PagePool::new(4 * PAGE_BYTES);
        let mut pages: Vec<Page> = (0..100).map(|_| pool.take()).collect();
        pages.iter_mut().for_each(|page| page.fill(1));
        assert!(resident_bytes(&pool) >= 100 * PAGE_BYTES);
        // Every second one first, so that no two neighbours are free together.
        let (kept, dropped): (Vec<_>, Vec<_>) = pages.into_iter().partition(|page| page.slot % 2 == 0);
        drop(dropped);
        assert!(resident_bytes(&pool) <= 55 * PAGE_BYTES);
        assert!(kept.iter().all(|page| page.iter().all(|&byte| byte == 1)));
        drop(kept);
        assert!(resident_bytes(&pool) <= 5 * PAGE_BYTES);
        assert!(pool.memory.lock().slabs.iter().all(|slab| slab.resident <= 5));
        let mut again: Vec<Page> = (0..100).map(|_| pool.take()).collect();
        again.iter_mut().for_each(|page| page.fill(2));
        assert!(again.iter().all(|page| page.iter().all(|&byte| byte == 2)));
    }
}
