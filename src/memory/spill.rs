//! Local disk for written bytes that memory has no room for: slots of one page each in one file that nobody else can open.
//!
//! Owns the file and which of its slots are taken. Writes go through pwrite(2), so that a disk that fails is an error, and take
//! no memory that the kernel cannot have back; reads map the slot. Invariant: a slot belongs to one [`SpilledPage`], and
//! goes back, with its room on the disk, when that is dropped.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::fstatvfs;
use parking_lot::Mutex;

use super::PAGE_BYTES;

/// One part in this many of the file system stays free: it is mostly the machine's root.
const LEFT_FREE_DIVISOR: u64 = 20;

/// A file of slots. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Spill(Arc<Slots>);

#[derive(Debug)]
struct Slots {
    file: File,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// Slots from here on were never taken.
    end: u64,
    /// Given back, below `end`.
    free: Vec<u64>,
}

/// One page on disk. What was not written of it reads as zeros or as what an earlier page left: the taker must know.
#[derive(Debug)]
pub struct SpilledPage {
    slot: u64,
    slots: Arc<Slots>,
}

/// The bytes of a page on disk, as long as somebody reads them.
#[derive(Debug)]
pub struct SpilledBytes(Mmap);

impl AsRef<[u8]> for SpilledBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Spill {
    /// An empty file without a name in `dir`; the kernel frees it when the process ends, however it ends.
    ///
    /// # Errors
    /// `dir` cannot be written to.
    pub fn in_dir(dir: &Path) -> io::Result<Self> {
        Ok(Self(Arc::new(Slots { file: tempfile::tempfile_in(dir)?, taken: Mutex::default() })))
    }

    /// A page, with its room on the disk reserved.
    ///
    /// # Errors
    /// `StorageFull`, also where less than a twentieth of the file system would stay free; what the disk says otherwise.
    pub fn take(&self) -> io::Result<SpilledPage> {
        let slots = &self.0;
        let fs = fstatvfs(&slots.file)?;
        if fs.blocks_available() < fs.blocks() / LEFT_FREE_DIVISOR {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let slot = {
            let mut taken = slots.taken.lock();
            taken.free.pop().unwrap_or_else(|| {
                taken.end += 1;
                taken.end - 1
            })
        };
        // From here on the slot goes back by itself.
        let page = SpilledPage { slot, slots: Arc::clone(slots) };
        fallocate(&slots.file, FallocateFlags::empty(), offset_of(slot), PAGE_BYTES as i64)?;
        Ok(page)
    }

    /// Bytes of disk that pages take.
    pub fn used_bytes(&self) -> u64 {
        let taken = self.0.taken.lock();
        (taken.end - taken.free.len() as u64) * PAGE_BYTES as u64
    }
}

/// Where a slot begins. Slots are pages of a file system, whose files end below 2^63 bytes.
fn offset_of(slot: u64) -> i64 {
    slot as i64 * PAGE_BYTES as i64
}

impl SpilledPage {
    /// Writes at a place of the page; `data` must end within it.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write(&mut self, within: usize, data: &[u8]) -> io::Result<()> {
        assert!(within + data.len() <= PAGE_BYTES, "a write ends within its page");
        self.slots.file.write_all_at(data, offset_of(self.slot) as u64 + within as u64)
    }

    /// Its bytes. Whoever holds them must hold the page, too, and nobody may write to it meanwhile: pages are shared in an `Arc`,
    /// and written to by whoever holds it alone.
    ///
    /// # Errors
    /// The kernel has no room for another mapping, and the disk cannot be read.
    pub fn bytes(&self) -> io::Result<SpilledBytes> {
        let mut options = MmapOptions::new();
        options.offset(offset_of(self.slot) as u64).len(PAGE_BYTES);
        // SAFETY: the file has no name, so no other process writes to it or cuts it; this one never cuts it, and writes to the
        // slot only while nobody reads it (see above).
        match unsafe { options.map(&self.slots.file) } {
            Ok(map) => Ok(SpilledBytes(map)),
            Err(_) => {
                let mut copy = MmapOptions::new().len(PAGE_BYTES).map_anon()?;
                self.slots.file.read_exact_at(&mut copy, offset_of(self.slot) as u64)?;
                Ok(SpilledBytes(copy.make_read_only()?))
            }
        }
    }
}

impl Drop for SpilledPage {
    fn drop(&mut self) {
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if let Err(error) = fallocate(&self.slots.file, hole, offset_of(self.slot), PAGE_BYTES as i64) {
            tracing::debug!(%error, "the disk keeps room that is not needed any more");
        }
        self.slots.taken.lock().free.push(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spill() -> Spill {
        Spill::in_dir(&std::env::temp_dir()).expect("a file")
    }

    #[test]
    fn pages_hold_what_was_written_apart_from_each_other() {
        let spill = spill();
        let mut pages: Vec<_> = (0..4).map(|_| spill.take().expect("room")).collect();
        for (n, page) in pages.iter_mut().enumerate() {
            page.write(0, &[n as u8 + 1; 10]).expect("writes");
            page.write(PAGE_BYTES - 10, &[n as u8 + 1; 10]).expect("writes");
        }
        for (n, page) in pages.iter().enumerate() {
            let bytes = page.bytes().expect("reads");
            assert_eq!(
                (&bytes.as_ref()[..10], &bytes.as_ref()[PAGE_BYTES - 10..]),
                (&[n as u8 + 1; 10][..], &[n as u8 + 1; 10][..])
            );
        }
    }

    #[test]
    fn what_is_dropped_gives_its_room_back() {
        use std::os::unix::fs::MetadataExt;
        let spill = spill();
        let mut pages: Vec<_> = (0..8).map(|_| spill.take().expect("room")).collect();
        pages.iter_mut().for_each(|page| page.write(0, &[7; PAGE_BYTES]).expect("writes"));
        assert_eq!(spill.used_bytes(), 8 << 20);
        let on_disk = || spill.0.file.metadata().expect("a file").blocks() * 512;
        assert!(on_disk() >= 8 << 20);
        pages.truncate(2);
        assert_eq!(spill.used_bytes(), 2 << 20);
        assert!(on_disk() < 4 << 20);
        let again = spill.take().expect("room");
        assert_eq!(spill.0.taken.lock().end, 8, "slots are taken again");
        assert!(again.bytes().expect("reads").as_ref().iter().all(|byte| *byte == 0));
    }
}
