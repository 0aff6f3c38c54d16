//! Files of the disk cache for the kernel to read itself: whole, checked, and of the version that was opened.
//!
//! A file that this process has not seen whole is checked while S3 is asked for the version; what the check does not reach in its
//! time is left for the next open, or for reads to check.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::ReadEngine;
use crate::cache::{DiskCache, WholeFile};
use crate::types::ObjectInfo;

/// How long an open waits for a check beyond the answer of S3: NVMe reads 100 MiB in it, and the same time again is what the open
/// takes anyway.
const PATIENCE: Duration = Duration::from_millis(40);
/// Larger files are not checked at open, but by being read: most of what is read of such a file is a part of it.
const CHECKED_BYTES_MAX: u64 = 1 << 30;

/// A check of a version under way.
#[derive(Debug)]
pub struct Check {
    disk: DiskCache,
    info: ObjectInfo,
    stop: Arc<AtomicBool>,
    work: Option<JoinHandle<bool>>,
}

impl ReadEngine {
    /// Begins to check what the disk cache has of a version, if it has all of it.
    pub fn begin_check(&self, info: &ObjectInfo) -> Option<Check> {
        let disk = self.0.fetcher.disk.as_ref()?.cache();
        if !disk.is_whole(info) {
            return None;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let work = (!disk.is_verified(info) && info.size_bytes <= CHECKED_BYTES_MAX).then(|| {
            let (disk, info, stop) = (disk.clone(), info.clone(), Arc::clone(&stop));
            tokio::task::spawn_blocking(move || disk.verify(&info, &stop))
        });
        Some(Check { disk: disk.clone(), info: info.clone(), stop, work })
    }
}

impl ReadEngine {
    /// Whether what this mount wrote is kept from the kernel at all: without a disk cache nothing is shown.
    pub fn has_disk(&self) -> bool {
        self.0.fetcher.disk.is_some()
    }

    /// This mount has written a version.
    pub fn wrote(&self, info: &ObjectInfo) {
        if let Some(disk) = &self.0.fetcher.disk {
            disk.cache().keep_from_kernel(info);
        }
    }

    /// This mount has copied a version under another name or tag: if it wrote the one, it wrote the other.
    pub fn copied(&self, from: &ObjectInfo, to: &ObjectInfo) {
        if let Some(disk) = &self.0.fetcher.disk
            && disk.cache().is_kept_from_kernel(from)
        {
            disk.cache().keep_from_kernel(to);
        }
    }
}

impl Check {
    /// The file, if it is known to be right by now or soon, and is of the version of `opened`.
    pub async fn whole(mut self, opened: &ObjectInfo) -> Option<WholeFile> {
        if opened.etag() != self.info.etag() || opened.key() != self.info.key() {
            return None;
        }
        if let Some(work) = self.work.take() {
            // Dropping the handle at the end of its time leaves the thread to see `stop`.
            let done = tokio::time::timeout(PATIENCE, work).await;
            if !matches!(done, Ok(Ok(true))) {
                return None;
            }
        }
        self.disk.whole(opened)
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}
