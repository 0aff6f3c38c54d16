//! Local disk for written bytes that memory has no room for: slots of one page each in one file that nobody else can open.
//!
//! Owns the file and which of its slots are taken. Everything goes through pread(2) and pwrite(2), in whole blocks whose checksums
//! are in memory: what the disk lost, or has of an earlier page, is an error and never bytes. Invariant: a slot belongs to one
//! [`SpilledPage`] and goes back when that is dropped, which asks nothing of the disk: a thread of its own gives room back
//! (`trim`).

mod trim;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::fstatvfs;
use parking_lot::Mutex;

use self::trim::Taken;
use super::PAGE_BYTES;

/// One part in this many of the file system stays free: it is mostly the machine's root.
const LEFT_FREE_DIVISOR: u64 = 20;
/// What is read, written and checked as one.
const BLOCK_BYTES: usize = 4096;

/// A file of slots. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Spill(Arc<Slots>);

#[derive(Debug)]
struct Slots {
    file: File,
    /// Where there must be room for a second copy of all of it.
    kept_in: Option<File>,
    /// Whether the file system reserves room. Otherwise only a write says that it is full.
    reserves: bool,
    /// Room that a test leaves.
    #[cfg(test)]
    pages_max: u64,
    taken: Mutex<Taken>,
    /// Whether the last page was refused: it is told when that changes.
    refuses: AtomicBool,
    trimming: AtomicBool,
}

/// One page on disk. What was not written of a block that was written to is zero; blocks that nothing was written to have no bytes.
#[derive(Debug)]
pub struct SpilledPage {
    slot: u64,
    /// Of each block that was written, its checksum.
    checksums: Box<[Option<u32>]>,
    slots: Arc<Slots>,
}

impl Spill {
    /// An empty file without a name in `dir`; the kernel frees it when the process ends, however it ends.
    ///
    /// # Errors
    /// `dir` cannot be written to.
    pub fn in_dir(dir: &Path) -> io::Result<Self> {
        let file = tempfile::tempfile_in(dir)?;
        let reserves = match fallocate(&file, FallocateFlags::empty(), 0, PAGE_BYTES as i64) {
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => false,
            // One that is full says so each time.
            Ok(()) | Err(_) => true,
        };
        file.set_len(0)?;
        Ok(Self(Arc::new(Slots {
            file,
            kept_in: None,
            reserves,
            #[cfg(test)]
            pages_max: u64::MAX,
            taken: Mutex::default(),
            refuses: AtomicBool::new(false),
            trimming: AtomicBool::new(false),
        })))
    }

    /// The same, taking only what there is room for a second copy of in the file system of `dir`, where what cannot be published is
    /// kept. For one that has no pages yet.
    ///
    /// # Errors
    /// `dir` cannot be opened.
    pub fn kept_in(mut self, dir: &Path) -> io::Result<Self> {
        let dir = File::open(dir)?;
        if let Some(slots) = Arc::get_mut(&mut self.0) {
            slots.kept_in = Some(dir);
        }
        Ok(self)
    }

    /// The same on a disk with room for so many pages.
    #[cfg(test)]
    pub(crate) fn of_pages(mut self, pages_max: u64) -> Self {
        if let Some(slots) = Arc::get_mut(&mut self.0) {
            slots.pages_max = pages_max;
        }
        self
    }

    /// A page, with its room on the disk reserved where the file system does that. `beside_bytes` are in memory, and are kept along with
    /// all pages where they cannot be published.
    ///
    /// # Errors
    /// `StorageFull`, also where less than a twentieth of the file system would stay free, or a second copy of all that is unpublished
    /// would find no room; what the disk says otherwise.
    pub fn take(&self, beside_bytes: u64) -> io::Result<SpilledPage> {
        let outcome = self.0.check_room(beside_bytes).and_then(|()| Slots::take(&self.0));
        let refuses = outcome.is_err();
        if self.0.refuses.swap(refuses, Relaxed) != refuses {
            match &outcome {
                Err(error) => tracing::warn!(%error, "no room on local disk for more unpublished bytes"),
                Ok(_) => tracing::info!("local disk has room for unpublished bytes again"),
            }
        }
        outcome
    }

    /// Bytes of disk that pages take.
    pub fn used_bytes(&self) -> u64 {
        self.0.taken.lock().pages() * PAGE_BYTES as u64
    }

    /// Whether the last page that was asked for was refused.
    #[cfg(test)]
    pub(crate) fn has_refused(&self) -> bool {
        self.0.refuses.load(Relaxed)
    }

    /// What a disk does that loses its writes: everything is zeros from now on.
    #[cfg(test)]
    pub(crate) fn lose_everything(&self) {
        let len = self.0.file.metadata().expect("a file").len();
        self.0.file.set_len(0).and_then(|()| self.0.file.set_len(len)).expect("it is cut");
    }
}

impl Slots {
    fn check_room(&self, beside_bytes: u64) -> io::Result<()> {
        let pages = self.taken.lock().pages();
        let fs = fstatvfs(&self.file)?;
        let mut is_full = fs.blocks_available() < fs.blocks() / LEFT_FREE_DIVISOR;
        #[cfg(test)]
        {
            is_full |= pages >= self.pages_max;
        }
        if let Some(kept_in) = &self.kept_in {
            let fs = fstatvfs(kept_in)?;
            // The page itself may be on the same file system.
            let wanted = (pages + 2) * PAGE_BYTES as u64 + beside_bytes;
            is_full |= fs.blocks_available().saturating_mul(fs.fragment_size()) < wanted;
        }
        if is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn take(slots: &Arc<Self>) -> io::Result<SpilledPage> {
        let slot = slots.taken.lock().take();
        // From here on the slot goes back by itself.
        let checksums = vec![None; PAGE_BYTES / BLOCK_BYTES].into_boxed_slice();
        let page = SpilledPage { slot, checksums, slots: Arc::clone(slots) };
        if slots.reserves {
            fallocate(&slots.file, FallocateFlags::empty(), offset_of(slot) as i64, PAGE_BYTES as i64)?;
        }
        Ok(page)
    }
}

/// Where a slot begins. Slots are pages of a file system, whose files end below 2^63 bytes.
fn offset_of(slot: u64) -> u64 {
    slot * PAGE_BYTES as u64
}

fn checksum(block: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, block) as u32
}

impl SpilledPage {
    /// Writes at a place of the page; `data` must end within it.
    ///
    /// # Errors
    /// What the disk says. Of a block of the range is then what was there before or what was to be written, or it cannot be read.
    pub fn write(&mut self, within: usize, data: &[u8]) -> io::Result<()> {
        let end = within + data.len();
        assert!(end <= PAGE_BYTES, "a write ends within its page");
        let (start, stop) = (within / BLOCK_BYTES * BLOCK_BYTES, end.next_multiple_of(BLOCK_BYTES));
        if (start, stop) == (within, end) {
            return self.put(start, data);
        }
        let mut blocks = vec![0; stop - start];
        // The first and the last.
        for at in (start..stop).step_by((stop - start - BLOCK_BYTES).max(BLOCK_BYTES)) {
            let is_partly_old = at < within || at + BLOCK_BYTES > end;
            if is_partly_old && self.checksums[at / BLOCK_BYTES].is_some() {
                self.get(at, &mut blocks[at - start..][..BLOCK_BYTES])?;
            }
        }
        blocks[within - start..end - start].copy_from_slice(data);
        self.put(start, &blocks)
    }

    /// The bytes of a range, read at once. Where nothing was written they are whatever is there.
    ///
    /// # Errors
    /// What the disk says; `InvalidData` where it does not have what was written.
    pub fn read(&self, within: Range<usize>) -> io::Result<Vec<u8>> {
        let start = within.start / BLOCK_BYTES * BLOCK_BYTES;
        let mut bytes = vec![0; within.end.next_multiple_of(BLOCK_BYTES) - start];
        self.get(start, &mut bytes)?;
        bytes.truncate(within.end - start);
        bytes.drain(..within.start - start);
        Ok(bytes)
    }

    /// Where the blocks lie that were written to: from the first to the end of the last.
    pub fn written(&self) -> Range<usize> {
        let is_written = |checksum: &Option<u32>| checksum.is_some();
        let first = self.checksums.iter().position(is_written).unwrap_or(0);
        let end = self.checksums.iter().rposition(is_written).map_or(first, |last| last + 1);
        first * BLOCK_BYTES..end * BLOCK_BYTES
    }

    /// Makes this new page the same as another.
    ///
    /// # Errors
    /// What the disk says.
    pub fn copy_from(&mut self, other: &Self) -> io::Result<()> {
        let written = other.written();
        let bytes = other.read(written.clone())?;
        self.put(written.start, &bytes)?;
        self.checksums.clone_from(&other.checksums);
        Ok(())
    }

    /// Writes whole blocks.
    fn put(&mut self, start: usize, blocks: &[u8]) -> io::Result<()> {
        let mut done = 0;
        let outcome = loop {
            if done == blocks.len() {
                break Ok(());
            }
            match self.slots.file.write_at(&blocks[done..], offset_of(self.slot) + (start + done) as u64) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => done += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        let written = &blocks[..done];
        for (checksum_of, block) in
            self.checksums[start / BLOCK_BYTES..].iter_mut().zip(written.chunks_exact(BLOCK_BYTES))
        {
            *checksum_of = Some(checksum(block));
        }
        outcome
    }

    /// Reads whole blocks.
    fn get(&self, start: usize, blocks: &mut [u8]) -> io::Result<()> {
        self.slots.file.read_exact_at(blocks, offset_of(self.slot) + start as u64)?;
        let wanted = self.checksums[start / BLOCK_BYTES..].iter();
        if wanted.zip(blocks.chunks(BLOCK_BYTES)).any(|(wanted, block)| wanted.is_some_and(|it| it != checksum(block)))
        {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not have what was written"));
        }
        Ok(())
    }
}

impl Drop for SpilledPage {
    fn drop(&mut self) {
        self.slots.taken.lock().give_back(self.slot);
        if self.slots.can_trim() {
            Slots::trim_aside(&self.slots);
        }
    }
}

#[cfg(test)]
mod tests;
