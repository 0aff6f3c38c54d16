//! What the file system holds right now: for people who watch.

use super::FileSystem;
use crate::write::{Progress, Writer};

/// Memory in use, in bytes, and what is on disk for the lack of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Cached blocks.
    pub cached_bytes: u64,
    /// Asked of S3 and not handed over yet.
    pub in_flight_bytes: u64,
    /// Written and not published.
    pub staged_bytes: u64,
    /// The same on local disk.
    pub spilled_bytes: u64,
}

impl FileSystem {
    /// Memory in use.
    pub fn memory(&self) -> MemoryUse {
        MemoryUse {
            cached_bytes: self.read.cached_bytes(),
            in_flight_bytes: self.read.in_flight_bytes(),
            staged_bytes: self.write.staged_bytes(),
            spilled_bytes: self.write.spilled_bytes(),
        }
    }

    /// Every file that is not in S3 as it is here, the one that has waited longest first.
    pub fn unpublished(&self) -> Vec<Progress> {
        let writers: Vec<Writer> = self.open.writers();
        let mut files: Vec<_> = writers.iter().filter_map(Writer::progress).collect();
        files.sort_by(|a, b| b.oldest.cmp(&a.oldest).then_with(|| a.key.cmp(&b.key)));
        files
    }

    /// Divides the largest read-ahead window from now on; 1 is full speed.
    pub fn slow_read_ahead(&self, divisor: u64) {
        self.read.slow_read_ahead(divisor);
    }
}
