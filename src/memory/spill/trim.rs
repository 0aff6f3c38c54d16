//! Which slots are taken, and giving back the room of those that are not.
//!
//! Pages are dropped under locks, so that a drop only notes its slot; a few slots keep their room for the next taker, and a
//! thread that ends when it is done gives back that of the rest. Invariant: a slot that is being given back is nobody's.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use nix::fcntl::{FallocateFlags, fallocate};

use super::{PAGE_BYTES, Slots, offset_of};

/// Slots that keep their room for the next taker, as long as any is taken.
const READY_MAX: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Slots from here on were never taken.
    end: u64,
    /// Not taken, with room on the disk.
    ready: Vec<u64>,
    /// Not taken, without.
    bare: Vec<u64>,
    pages: u64,
}

impl Taken {
    /// How many are taken.
    pub(super) fn pages(&self) -> u64 {
        self.pages
    }

    pub(super) fn take(&mut self) -> u64 {
        self.pages += 1;
        self.ready.pop().or_else(|| self.bare.pop()).unwrap_or_else(|| {
            self.end += 1;
            self.end - 1
        })
    }

    pub(super) fn give_back(&mut self, slot: u64) {
        self.pages -= 1;
        self.ready.push(slot);
    }

    /// Whether slots have room that nobody will want soon.
    fn has_surplus(&self) -> bool {
        self.ready.len() > if self.pages == 0 { 0 } else { READY_MAX }
    }
}

impl Slots {
    /// Gives surplus room back, in a thread of its own.
    pub(super) fn trim_aside(slots: &Arc<Self>) {
        if slots.trimming.swap(true, Relaxed) {
            return;
        }
        let trimmed = Arc::clone(slots);
        let trim = move || {
            let is_done = trimmed.trim();
            trimmed.trimming.store(false, Relaxed);
            // What came back since the last look.
            if is_done && trimmed.can_trim() {
                Self::trim_aside(&trimmed);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("s3mount-spill".to_owned()).spawn(trim) {
            tracing::debug!(%error, "the disk keeps room that is not needed any more");
            slots.trimming.store(false, Relaxed);
        }
    }

    /// Whether there is room to give back. Where holes cannot be punched, the file is only cut when nobody has a page.
    pub(super) fn can_trim(&self) -> bool {
        let taken = self.taken.lock();
        taken.has_surplus() && (self.reserves || taken.pages == 0)
    }

    /// Whether it all went well.
    fn trim(&self) -> bool {
        if !self.reserves {
            let mut taken = self.taken.lock();
            // Under the lock, lest somebody takes a slot that is about to be cut off. Nobody has one who could be waiting.
            let is_cut = taken.pages == 0 && self.file.set_len(0).is_ok();
            if is_cut {
                *taken = Taken::default();
            }
            return is_cut;
        }
        loop {
            let slot = {
                let mut taken = self.taken.lock();
                if taken.has_surplus() { taken.ready.pop() } else { None }
            };
            let Some(slot) = slot else { return true };
            let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            if let Err(error) = fallocate(&self.file, hole, offset_of(slot) as i64, PAGE_BYTES as i64) {
                tracing::debug!(%error, "the disk keeps room that is not needed any more");
            }
            self.taken.lock().bare.push(slot);
        }
    }

    #[cfg(test)]
    pub(super) fn settle(&self) {
        while self.trimming.load(Relaxed) || self.can_trim() {
            std::thread::yield_now();
        }
    }
}
