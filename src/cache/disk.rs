//! The disk tier: blocks of object versions in files of a local directory, kept over restarts.
//!
//! Owns the directory. Every call may block on the disk; callers run it on threads that may. Promises: what is answered was
//! checked against its sum, or is a miss; the files never take more than the limit, what is being written included; no failure
//! of the disk is more than a miss and, at most once a minute, a line in the log. Nothing is synced: what a power loss tears is
//! found by its sum. One lock, `writing`, is held by whoever changes files; reading takes none.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::evict::{BLOCKS_PER_SEGMENT, Index, SegmentId, VERSION_BYTES, Victim, blocks_of_segment};
use super::files::Files;
use super::format::{
    BLOCK_BYTES, GRANULE_BYTES, HEADER_BYTES, Header, Identity, ROW_BYTES, SUM_BYTES, granules_of_block, sums,
};
use super::health::Health;
use super::own::Own;
use super::recover;
use crate::clock::Clock;
use crate::metrics::{Counter, Gauge, Metrics};
use crate::types::{ByteRange, ObjectInfo};

mod reading;
#[cfg(test)]
mod tests;

pub use self::reading::DiskReader;
use self::reading::read_up_to;

/// Least size of a cache: a few segments, below which nothing but overhead would fit.
pub const DISK_CACHE_BYTES_MIN: u64 = 64 << 20;

/// How much is made free when the disk turns out to be full before the limit is reached, as a divisor of the limit.
const GIVE_WAY_DIVISOR: u64 = 16;

/// Cached blocks on disk. Cheap to clone; all clones are one cache.
#[derive(Clone, Debug)]
pub struct DiskCache(Arc<Disk>);

#[derive(Debug)]
struct Disk {
    files: Files,
    path: PathBuf,
    source: String,
    index: Mutex<Index>,
    /// Versions that this mount has written.
    own: Mutex<Own>,
    writing: Mutex<()>,
    /// The largest object of which the file system is not known to hold no file.
    size_bytes_max: AtomicU64,
    health: Health,
    metrics: Arc<Metrics>,
}

/// The content of a version, whole and checked, which stays as it is for as long as this lives.
#[derive(Debug)]
pub struct WholeFile {
    cache: DiskCache,
    identity: Identity,
    file: File,
}

impl DiskCache {
    /// Locks a directory, made if it is not there, for the objects of `source`. Nothing is found in it until
    /// [`DiskCache::recover`] has looked.
    ///
    /// # Errors
    /// `WouldBlock` if another process uses the directory; `PermissionDenied` if it is not safe from others.
    pub fn open(path: &Path, source: &str, limit_bytes: u64, metrics: Arc<Metrics>, clock: Clock) -> io::Result<Self> {
        Ok(Self(Arc::new(Disk {
            files: Files::open(path)?,
            path: path.to_owned(),
            source: source.to_owned(),
            index: Mutex::new(Index::new(limit_bytes)),
            own: Mutex::default(),
            writing: Mutex::new(()),
            size_bytes_max: AtomicU64::new(u64::MAX),
            health: Health::new(clock),
            metrics,
        })))
    }

    /// Takes over what an earlier process left, as far as it fits. Answers how many versions that are.
    pub fn recover(&self) -> usize {
        let disk = &*self.0;
        let _writing = disk.writing.lock();
        let found = match recover::scan(&disk.path, &disk.files, &disk.source) {
            Ok(found) => found,
            Err(error) => {
                disk.health.failed("the cache directory cannot be read", &error);
                return 0;
            }
        };
        let mut versions = found.len();
        for version in found.iter().rev() {
            // The most recently used first, so that what does not fit is what was used least.
            let mut index = disk.index.lock();
            let bytes: u64 =
                VERSION_BYTES + version.blocks.iter().map(|(_, granules)| 4096 + granules * GRANULE_BYTES).sum::<u64>();
            if index.fits(bytes) && !version.blocks.is_empty() {
                index.add_version(version.identity, version.size_bytes);
                version.blocks.iter().for_each(|(block, n)| index.set_block(&version.identity, *block, *n, false));
            } else {
                drop(index);
                versions -= 1;
                if let Err(error) = disk.files.remove(&version.identity) {
                    disk.health.failed("a file of the cache cannot be deleted", &error);
                }
            }
        }
        // The order of use is that of the files again.
        for version in &found {
            let mut index = disk.index.lock();
            version.blocks.iter().for_each(|(block, _)| index.touch(&version.identity, *block));
        }
        disk.tell();
        versions
    }

    /// The most that the files may take, in bytes.
    pub fn limit_bytes(&self) -> u64 {
        self.0.index.lock().limit_bytes()
    }

    /// What the files take, in bytes; never less than that.
    pub fn used_bytes(&self) -> u64 {
        self.0.index.lock().used_bytes()
    }

    /// Whether some of a range may be there. Asks memory alone.
    pub fn may_hold(&self, info: &ObjectInfo, range: ByteRange) -> bool {
        let identity = self.0.identity(info);
        let index = self.0.index.lock();
        blocks_of(range).any(|block| index.granules(&identity, block) > 0)
    }

    /// Whether a block is there with all its bytes. Asks memory alone.
    pub fn holds_block(&self, info: &ObjectInfo, block: u64) -> bool {
        let granules = granules_of_block(block, info.size_bytes);
        granules > 0 && self.0.index.lock().granules(&self.0.identity(info), block) == granules
    }

    /// Whether all bytes of a version are there. Asks memory alone.
    pub fn is_whole(&self, info: &ObjectInfo) -> bool {
        self.0.index.lock().is_whole(&self.0.identity(info))
    }

    /// Whether all of them were written or checked by this process. Asks memory alone.
    pub fn is_verified(&self, info: &ObjectInfo) -> bool {
        self.0.index.lock().is_right(&self.0.identity(info))
    }

    /// What this mount writes is written again as a rule, and the kernel would go on showing the old: [`DiskCache::whole`] never
    /// answers this version.
    pub fn keep_from_kernel(&self, info: &ObjectInfo) {
        self.0.own.lock().note(self.0.identity(info));
    }

    /// Whether a version is kept from the kernel.
    pub fn is_kept_from_kernel(&self, info: &ObjectInfo) -> bool {
        self.0.own.lock().contains(&self.0.identity(info))
    }

    /// Opens what is there of a version, and has the disk begin with `range`; `None` if nothing of the range is there.
    pub fn reader(&self, info: &ObjectInfo, range: ByteRange) -> Option<DiskReader> {
        if !self.may_hold(info, range) {
            return None;
        }
        let identity = self.0.identity(info);
        let pair = match self.0.files.reading(&identity) {
            Ok(pair) => pair,
            Err(error) => {
                self.0.lose(&identity, "a file of the cache cannot be opened", &error);
                return None;
            }
        };
        let reader = DiskReader::new(self.clone(), identity, info.size_bytes, pair);
        reader.expect(range);
        Some(reader)
    }

    /// Keeps bytes of a version, from `start` on, as far as they fill granules. False if nothing was kept.
    pub fn write(&self, info: &ObjectInfo, start: u64, bytes: &[u8]) -> bool {
        let disk = &*self.0;
        let end = start + bytes.len() as u64;
        let aligned_end = if end >= info.size_bytes { info.size_bytes } else { end / GRANULE_BYTES * GRANULE_BYTES };
        let range = ByteRange::new(start.next_multiple_of(GRANULE_BYTES), aligned_end);
        if range.is_empty()
            || end > info.size_bytes
            || info.size_bytes > disk.size_bytes_max.load(Relaxed)
            || disk.health.is_paused()
        {
            return false;
        }
        let bytes = &bytes[(range.start - start) as usize..(range.end - start) as usize];
        let identity = disk.identity(info);
        let _writing = disk.writing.lock();
        let mut kept = false;
        for block in blocks_of(range) {
            let part = range.intersect(&ByteRange::of_len(block * BLOCK_BYTES, BLOCK_BYTES));
            let part_bytes = &bytes[(part.start - range.start) as usize..(part.end - range.start) as usize];
            match disk.write_in_block(&identity, info, block, part, part_bytes) {
                Ok(true) => kept = true,
                Ok(false) => break,
                Err(error) => {
                    disk.give_up(&identity, info.size_bytes, &error);
                    break;
                }
            }
        }
        disk.tell();
        kept
    }

    /// Checks blocks of a version that this process has not seen yet, until all are known to be right or `stop` is set.
    /// Answers whether all are.
    pub fn verify(&self, info: &ObjectInfo, stop: &AtomicBool) -> bool {
        let identity = self.0.identity(info);
        if !self.0.index.lock().is_whole(&identity) {
            return false;
        }
        let Some(reader) = self.reader(info, ByteRange::new(0, info.size_bytes.min(READ_AHEAD_BYTES))) else {
            return false;
        };
        let mut page = vec![0; BLOCK_BYTES as usize];
        for block in blocks_of(ByteRange::new(0, info.size_bytes)) {
            if self.0.index.lock().is_verified(&identity, block) {
                continue;
            }
            let range =
                ByteRange::of_len(block * BLOCK_BYTES, BLOCK_BYTES).intersect(&ByteRange::new(0, info.size_bytes));
            let ahead = ByteRange::of_len(range.end, READ_AHEAD_BYTES).intersect(&ByteRange::new(0, info.size_bytes));
            reader.expect(ahead);
            let into = &mut page[..range.len() as usize];
            if stop.load(Relaxed) || reader.fill(range.start, into) < into.len() {
                return false;
            }
        }
        true
    }

    /// The content of a version for the kernel to show, if it is whole and every byte of it was written or checked by this
    /// process. It is not evicted before the answer is dropped.
    pub fn whole(&self, info: &ObjectInfo) -> Option<WholeFile> {
        let identity = self.0.identity(info);
        if self.is_kept_from_kernel(info) || !self.0.index.lock().pin(&identity) {
            return None;
        }
        match self.0.files.data(&identity) {
            Ok(file) if file.metadata().is_ok_and(|meta| meta.len() == info.size_bytes) => {
                Some(WholeFile { cache: self.clone(), identity, file })
            }
            outcome => {
                self.0.index.lock().unpin(&identity);
                let error = outcome.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                self.0.lose(&identity, "a file of the cache cannot be opened", &error);
                None
            }
        }
    }
}

/// How far ahead of a check the disk is asked: enough requests in flight for NVMe to be at its best.
const READ_AHEAD_BYTES: u64 = 8 << 20;

fn blocks_of(range: ByteRange) -> std::ops::Range<u64> {
    range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES)
}

impl Disk {
    fn identity(&self, info: &ObjectInfo) -> Identity {
        Identity::of(&self.source, info.key().as_str(), info.etag().as_str(), info.size_bytes)
    }

    fn tell(&self) {
        let used = i64::try_from(self.index.lock().used_bytes()).unwrap_or(i64::MAX);
        let told = self.metrics.gauge(Gauge::DiskCacheBytes);
        self.metrics.shift(Gauge::DiskCacheBytes, used - told);
    }

    /// Room for `bytes` more, made by taking away what was used least, but nothing of `kept`. False if there is none. The
    /// caller holds `writing`.
    fn make_room(&self, bytes: u64, kept: &SegmentId) -> io::Result<bool> {
        loop {
            let victim = {
                let mut index = self.index.lock();
                if index.fits(bytes) {
                    return Ok(true);
                }
                if let Some(stranded) = index.stranded() {
                    drop(index);
                    self.free_stranded(&stranded)?;
                    continue;
                }
                index.victim(kept)
            };
            let Some(victim) = victim else { return Ok(false) };
            self.take_away(&victim)?;
        }
    }

    fn take_away(&self, victim: &Victim) -> io::Result<()> {
        let identity = victim.identity();
        if let Victim::Segment((_, segment), _) = victim
            && self.files.wipe(identity, blocks_of_segment(*segment)).is_ok()
        {
            self.index.lock().freed(victim);
            return Ok(());
        }
        // Also of a segment, on a file system without holes.
        let removed = self.files.remove(identity);
        let mut index = self.index.lock();
        match removed {
            Ok(()) => {
                index.freed(victim);
                index.remove(identity);
            }
            Err(_) => index.strand_victim(victim),
        }
        removed
    }

    /// Deletes files that could not be deleted before. The caller holds `writing`.
    fn free_stranded(&self, identity: &Identity) -> io::Result<()> {
        self.files.remove(identity)?;
        self.index.lock().freed_stranded(identity);
        Ok(())
    }

    fn write_in_block(
        &self,
        identity: &Identity,
        info: &ObjectInfo,
        block: u64,
        part: ByteRange,
        bytes: &[u8],
    ) -> io::Result<bool> {
        let kept = (*identity, block / BLOCKS_PER_SEGMENT);
        let added = part.len().div_ceil(GRANULE_BYTES);
        let growth = {
            let mut index = self.index.lock();
            if index.is_gone(identity) {
                return Ok(false);
            }
            if index.is_stranded(identity) {
                drop(index);
                self.free_stranded(identity)?;
                index = self.index.lock();
            }
            index.growth_bytes(identity, info.size_bytes, block, added)
        };
        if !self.make_room(growth, &kept)? {
            return Ok(false);
        }
        let is_new = !self.index.lock().has_version(identity);
        let pair = if is_new {
            let pair = self.files.create(identity, &Header::of(&self.source, info))?;
            self.index.lock().add_version(*identity, info.size_bytes);
            pair
        } else {
            self.files.writing(identity)?
        };
        // Charged before it is written, by what it can come to at most; `set_block` then says what it came to.
        let (before, verified) = {
            let index = self.index.lock();
            (index.granules(identity, block), index.is_verified(identity, block))
        };
        self.index.lock().set_block(identity, block, before + added, verified);
        pair.data.write_all_at(bytes, part.start)?;
        let mut row = vec![0; ROW_BYTES as usize];
        read_up_to(&pair.map, &mut row, HEADER_BYTES + block * ROW_BYTES)?;
        let first = part.start / GRANULE_BYTES;
        let at = ((first * SUM_BYTES) % ROW_BYTES) as usize;
        for ((granule, granule_bytes), place) in
            (first..).zip(bytes.chunks(GRANULE_BYTES as usize)).zip(row[at..].chunks_exact_mut(SUM_BYTES as usize))
        {
            place.copy_from_slice(&identity.sum(granule, granule_bytes).to_le_bytes());
        }
        let summed_bytes = (added * SUM_BYTES) as usize;
        pair.map.write_all_at(&row[at..at + summed_bytes], HEADER_BYTES + block * ROW_BYTES + at as u64)?;
        let granules = sums(&row).filter(|sum| *sum != 0).count() as u64;
        let all = granules_of_block(block, info.size_bytes);
        self.index.lock().set_block(identity, block, granules, verified || added == all);
        self.metrics.add(Counter::DiskCacheBytesWritten, bytes.len() as u64);
        Ok(true)
    }

    /// A write failed: what it was part of goes, and nothing is written for a while. The caller holds `writing`.
    fn give_up(&self, identity: &Identity, size_bytes: u64, error: &io::Error) {
        self.discard(identity);
        if error.kind() == io::ErrorKind::FileTooLarge {
            // That the file system holds no file of this size says nothing of others.
            self.size_bytes_max.fetch_min(size_bytes.saturating_sub(1), Relaxed);
            return;
        }
        self.health.failed("the cache cannot be written", error);
        self.health.pause();
        let mut index = self.index.lock();
        if error.kind() != io::ErrorKind::StorageFull && error.kind() != io::ErrorKind::QuotaExceeded {
            return;
        }
        let target = index.used_bytes().saturating_sub(index.limit_bytes() / GIVE_WAY_DIVISOR);
        while index.used_bytes() > target
            && let Some(victim) = index.victim(&(*identity, u64::MAX))
        {
            drop(index);
            if self.take_away(&victim).is_err() {
                return;
            }
            index = self.index.lock();
        }
    }

    /// Files that cannot be read are no longer part of the cache.
    fn lose(&self, identity: &Identity, what: &str, error: &io::Error) {
        self.health.failed(what, error);
        let _writing = self.writing.lock();
        self.discard(identity);
        self.tell();
    }

    /// A block whose bytes are not what they were: it is written over with nothing, or all of the version goes. What the kernel
    /// shows keeps its bytes for those who read it so: they would find zeros instead.
    fn distrust(&self, identity: &Identity, block: u64) {
        let _writing = self.writing.lock();
        let may_be_wiped = {
            let mut index = self.index.lock();
            if index.granules(identity, block) == 0 {
                // It was evicted while it was read.
                return;
            }
            // Not whole any more, so that the kernel is not shown it from here on.
            !index.is_pinned(identity) && {
                index.set_block(identity, block, 0, false);
                true
            }
        };
        self.health.failed("bytes of the cache are not what they were", &io::ErrorKind::InvalidData.into());
        if !may_be_wiped || self.files.wipe(identity, block..block + 1).is_err() {
            self.discard(identity);
        }
    }

    /// All of a version goes. Files that cannot be deleted are no longer found, and count until they can. The caller holds `writing`.
    fn discard(&self, identity: &Identity) {
        let removed = self.files.remove(identity);
        let mut index = self.index.lock();
        match removed {
            Ok(()) => index.remove(identity),
            Err(_) => index.strand(identity),
        }
    }
}

impl AsFd for WholeFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        self.cache.0.index.lock().unpin(&self.identity);
    }
}
