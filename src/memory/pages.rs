//! Recycled pages of memory.
//!
//! Owns mappings that never go away while the pool lives, and which of their pages are free. Fresh memory is dear: the kernel
//! clears it and maps it, for each 4 KiB a page fault (measured: 0.40 s a GiB, 0.20 in huge pages, 0.06 for memory that is
//! there). Hence pages are used again, those that were dropped last first, for they are warm; and where the kernel has huge
//! pages (madvise(2), MADV_HUGEPAGE) two pages share one. Invariant: a page has one owner, and the kernel takes back no page
//! that is owned.

use std::alloc::{Layout, handle_alloc_error};
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Advice, MmapMut, UncheckedAdvice};
use parking_lot::Mutex;

/// Bytes of one page, which is also one cached block: 1 MiB, the largest FUSE request, so that an aligned read
/// meets one block.
pub const PAGE_BYTES: usize = 1 << 20;

/// Bytes of a huge page where base pages have 4 KiB, as on x86-64 and most of arm64 (Linux, admin-guide/mm/transhuge).
const HUGE_BYTES: usize = 2 << 20;
/// Pages of one mapping: enough that a large cache has few of them, and nothing until they are used.
const SLAB_PAGES: usize = 64;
const SLAB_BYTES: usize = SLAB_PAGES * PAGE_BYTES;

/// Keeps dropped pages for the next taker.
#[derive(Debug)]
pub struct PagePool {
    slots: Mutex<Slots>,
    retained_pages_max: usize,
}

/// The pages of all mappings, each a slot with a number; slots `2n` and `2n + 1` share a huge page.
#[derive(Debug, Default)]
struct Slots {
    slabs: Vec<Slab>,
    states: Vec<State>,
    /// Slots that became free, the latest last. One that is not [`State::Warm`] any more is passed over.
    dropped: VecDeque<usize>,
    /// How many are [`State::Warm`].
    warm: usize,
    /// Those that are [`State::Cold`].
    cold: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Owned,
    /// Free, its memory is there.
    Warm,
    /// Free, the kernel has its memory.
    Cold,
}

#[derive(Debug)]
struct Slab {
    mapping: MmapMut,
    /// Where the first huge page begins in the mapping.
    offset: usize,
}

impl Slab {
    fn map() -> std::io::Result<Self> {
        // Before kernel 6.7 a mapping begins anywhere.
        let mapping = MmapMut::map_anon(SLAB_BYTES + HUGE_BYTES)?;
        // A kernel without huge pages refuses, and its small ones do.
        let _ = mapping.advise(Advice::HugePage);
        let offset = mapping.as_ptr().align_offset(HUGE_BYTES);
        Ok(Self { mapping, offset })
    }
}

impl Slots {
    fn grow(&mut self) {
        let Ok(slab) = Slab::map() else {
            handle_alloc_error(Layout::from_size_align(SLAB_BYTES, HUGE_BYTES).expect("a size and a power of two"));
        };
        let first = self.states.len();
        self.slabs.push(slab);
        self.states.resize(first + SLAB_PAGES, State::Cold);
        self.cold.extend((first..first + SLAB_PAGES).rev());
    }

    fn take(&mut self) -> usize {
        while let Some(slot) = self.dropped.pop_back() {
            if self.states[slot] == State::Warm {
                self.warm -= 1;
                self.states[slot] = State::Owned;
                return slot;
            }
        }
        if self.cold.is_empty() {
            self.grow();
        }
        let slot = self.cold.pop().expect("there are some now");
        self.states[slot] = State::Owned;
        slot
    }

    fn give_back(&mut self, slot: usize, retained_pages_max: usize) {
        self.states[slot] = State::Warm;
        self.dropped.push_back(slot);
        self.warm += 1;
        while self.warm > retained_pages_max {
            let oldest = self.dropped.pop_front().expect("each warm slot is among them");
            if self.states[oldest] == State::Warm {
                self.cool(oldest);
            }
        }
    }

    /// Gives a page's memory back to the kernel: that of its neighbour as well if that is free, for the kernel keeps a huge page until
    /// all of it is unused.
    fn cool(&mut self, slot: usize) {
        let pair = slot & !1;
        let range = if self.states[pair] == State::Warm && self.states[pair + 1] == State::Warm {
            pair..pair + 2
        } else {
            slot..slot + 1
        };
        self.warm -= range.len();
        self.cold.extend(range.clone().rev());
        self.states[range.clone()].fill(State::Cold);
        let slab = &self.slabs[slot / SLAB_PAGES];
        let start = slab.offset + range.start % SLAB_PAGES * PAGE_BYTES;
        // SAFETY: the pages are free (their states say so, under the lock), so nobody has a reference into them; what stands in a page
        // is unspecified for its next owner, and zeros are as good. A failure leaves the memory where it is.
        let _ =
            unsafe { slab.mapping.unchecked_advise_range(UncheckedAdvice::DontNeed, start, range.len() * PAGE_BYTES) };
    }

    fn start(&mut self, slot: usize) -> NonNull<u8> {
        let slab = &mut self.slabs[slot / SLAB_PAGES];
        let at = slab.offset + slot % SLAB_PAGES * PAGE_BYTES;
        // SAFETY: the page lies in the mapping: `offset` is at most HUGE_BYTES, by which the mapping is longer than its pages.
        unsafe { NonNull::new_unchecked(slab.mapping.as_mut_ptr().add(at)) }
    }
}

impl PagePool {
    /// A pool that keeps at most `retained_bytes_max` of unused pages; the memory of what is dropped beyond that goes back to the
    /// kernel.
    pub fn new(retained_bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { slots: Mutex::default(), retained_pages_max: retained_bytes_max / PAGE_BYTES })
    }

    /// A page of [`PAGE_BYTES`]. Its contents are unspecified: bytes of an earlier file may stand in it, so the
    /// taker must never show a byte that it did not write. Ends the process where the kernel has no memory, as any allocation does.
    pub fn take(self: &Arc<Self>) -> Page {
        let mut slots = self.slots.lock();
        let slot = slots.take();
        Page { start: slots.start(slot), slot, pool: Arc::clone(self) }
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
        self.pool.slots.lock().give_back(self.slot, self.pool.retained_pages_max);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resident_bytes(pool: &PagePool) -> usize {
        let slots = pool.slots.lock();
        let mut resident = 0;
        for slab in &slots.slabs {
            let mut base_pages = vec![0_u8; SLAB_BYTES / 4096];
            let start = slab.mapping.as_ptr().wrapping_add(slab.offset).cast_mut().cast();
            // SAFETY: mincore(2) reads nothing of the mapping and writes a byte for each base page of it.
            assert_eq!(unsafe { libc::mincore(start, SLAB_BYTES, base_pages.as_mut_ptr()) }, 0);
            resident += base_pages.iter().filter(|&&page| page & 1 == 1).count() * 4096;
        }
        resident
    }

    #[test]
    fn a_dropped_page_is_recycled_after_its_last_reader() {
        let pool = PagePool::new(4 * PAGE_BYTES);
        let mut page = pool.take();
        page[..5].copy_from_slice(b"hello");
        let shared = page.freeze(5);
        let reader = shared.clone();
        drop(shared);
        assert_eq!(pool.slots.lock().warm, 0);
        assert_eq!(&reader[..], b"hello");
        drop(reader);
        assert_eq!(pool.slots.lock().warm, 1);
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
        assert!(resident_bytes(&pool) <= 54 * PAGE_BYTES);
        assert!(kept.iter().all(|page| page.iter().all(|&byte| byte == 1)));
        drop(kept);
        assert!(resident_bytes(&pool) <= 4 * PAGE_BYTES);
    }

    proptest! {
        #[test]
        fn no_two_owners_share_a_page_and_what_is_kept_is_bounded(
            steps in proptest::collection::vec((any::<bool>(), any::<usize>()), 1..300),
            retained in 0_usize..6,
        ) {
            let mut slots = Slots::default();
            let mut owned: Vec<usize> = Vec::new();
            for (takes, which) in steps {
                if takes || owned.is_empty() {
                    let slot = slots.take();
                    prop_assert!(!owned.contains(&slot));
                    owned.push(slot);
                } else {
                    let slot = owned.swap_remove(which % owned.len());
                    slots.give_back(slot, retained);
                }
                let count = |state| slots.states.iter().filter(|&&it| it == state).count();
                prop_assert_eq!(count(State::Owned), owned.len());
                prop_assert_eq!(count(State::Warm), slots.warm);
                prop_assert_eq!(count(State::Cold), slots.cold.len());
                prop_assert!(slots.warm <= retained);
            }
        }
    }
}
