//! Reading a version's files: sums first, then bytes, then whether the one are of the other.
//!
//! Never answers a byte whose granule was not checked in the memory where the caller finds it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::super::files::Pair;
use super::super::format::{BLOCK_BYTES, GRANULE_BYTES, HEADER_BYTES, Identity, SUM_BYTES, sums};
use super::DiskCache;
use crate::metrics::Counter;
use crate::types::ByteRange;

/// A version's files, open for reading.
#[derive(Debug)]
pub struct DiskReader {
    cache: DiskCache,
    identity: Identity,
    size_bytes: u64,
    pair: Pair,
}

impl DiskReader {
    pub(super) fn new(cache: DiskCache, identity: Identity, size_bytes: u64, pair: Pair) -> Self {
        Self { cache, identity, size_bytes, pair }
    }

    /// Has the disk begin to read a range, all of it at once.
    pub(super) fn expect(&self, range: ByteRange) {
        let (Ok(start), Ok(bytes)) = (i64::try_from(range.start), i64::try_from(range.len())) else { return };
        // A file system that takes no advice reads as well without.
        let _ = posix_fadvise(&self.pair.data, start, bytes, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
    }

    /// Fills `into` with the bytes of the object from `start` on, which end within the block in which they begin. Answers how
    /// many, from the front, are there and right; what stands behind them is of no meaning.
    pub fn fill(&self, start: u64, into: &mut [u8]) -> usize {
        let end = (start + into.len() as u64).min(self.size_bytes);
        if start >= end {
            return 0;
        }
        match self.try_fill(ByteRange::new(start, end), into) {
            Ok(count) => {
                self.cache.0.metrics.add(Counter::DiskCacheBytesRead, count as u64);
                count
            }
            Err(error) => {
                self.cache.0.lose(&self.identity, "the cache cannot be read", &error);
                0
            }
        }
    }

    fn try_fill(&self, range: ByteRange, into: &mut [u8]) -> io::Result<usize> {
        let first = range.start / GRANULE_BYTES;
        let count = range.end.div_ceil(GRANULE_BYTES) - first;
        let mut row = vec![0; (count * SUM_BYTES) as usize];
        read_up_to(&self.pair.map, &mut row, HEADER_BYTES + first * SUM_BYTES)?;
        let present: Vec<u32> = sums(&row).take_while(|sum| *sum != 0).collect();
        if present.is_empty() {
            return Ok(0);
        }
        let summed = ByteRange::of_len(first * GRANULE_BYTES, present.len() as u64 * GRANULE_BYTES)
            .intersect(&ByteRange::new(0, self.size_bytes));
        let wanted = range.intersect(&summed);
        let right = if wanted == summed {
            let into = &mut into[..wanted.len() as usize];
            self.pair.data.read_exact_at(into, summed.start)?;
            self.check(first, &present, into)
        } else {
            let mut around = vec![0; summed.len() as usize];
            self.pair.data.read_exact_at(&mut around, summed.start)?;
            let right = self.check(first, &present, &around);
            let ahead = (wanted.start - summed.start) as usize;
            let right = right.saturating_sub(ahead).min(wanted.len() as usize);
            into[..right].copy_from_slice(&around[ahead..ahead + right]);
            right
        };
        let block = range.start / BLOCK_BYTES;
        let whole = summed.len()
            == ByteRange::of_len(block * BLOCK_BYTES, BLOCK_BYTES).intersect(&ByteRange::new(0, self.size_bytes)).len();
        if whole && right == wanted.len() as usize && wanted == summed {
            self.cache.0.index.lock().verify(&self.identity, block);
        } else {
            self.cache.0.index.lock().touch(&self.identity, block);
        }
        Ok(right)
    }

    /// How many bytes from the front have the right sums.
    fn check(&self, first: u64, expected: &[u32], bytes: &[u8]) -> usize {
        let mut right = 0;
        for ((granule, bytes), sum) in (first..).zip(bytes.chunks(GRANULE_BYTES as usize)).zip(expected) {
            if self.identity.sum(granule, bytes) != *sum {
                self.cache.0.distrust(&self.identity, granule * GRANULE_BYTES / BLOCK_BYTES);
                break;
            }
            right += bytes.len();
        }
        right
    }
}

/// Fills a buffer as far as the file reaches; the rest stays as it is.
pub(super) fn read_up_to(file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], at + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
