//! The limits that the engines work within, each with its unit and where its number comes from.

use std::path::PathBuf;
use std::time::Duration;

/// Who owns a file that says nothing of it, and which modes it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttributeDefaults {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits of files (0o7777 at most).
    pub file_mode: u32,
    /// Permission bits of directories.
    pub dir_mode: u32,
    /// What objects say of themselves in their metadata goes before all this, and what is set here is kept there.
    pub posix: bool,
}

/// Limits of the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceLimits {
    /// How old names and attributes may be.
    pub metadata_ttl: Duration,
    /// Copies in flight while a directory is renamed.
    pub rename_copies_max: usize,
    /// Objects over this are copied by parts, in bytes.
    pub rename_single_copy_bytes_max: u64,
}

impl Default for NamespaceLimits {
    fn default() -> Self {
        Self { metadata_ttl: Duration::from_secs(1), rename_copies_max: 128, rename_single_copy_bytes_max: 128 << 20 }
    }
}

/// Limits of the read engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    /// Memory for cached blocks in bytes.
    pub cache_bytes: u64,
    /// Bytes that may be asked for and not yet be handed over, all files together.
    pub in_flight_bytes: u64,
    /// Largest GET of the prefetcher in bytes: 8 MiB is where a connection's 90 MB/s outweighs its first-byte time. Less where
    /// memory bounds the window: the window is filled by at least [`ReadLimits::WINDOW_REQUESTS`] of them.
    pub request_bytes_max: u64,
    /// Largest read-ahead window of one stream in bytes.
    pub window_bytes_max: u64,
    /// Ranged GETs in flight, all files together: each holds a connection, which is a descriptor.
    pub requests_max: usize,
    /// Gaps up to this many bytes are read through rather than asked around: half a MiB is a first-byte time at 20 MB/s.
    pub gap_bytes_max: u64,
}

impl ReadLimits {
    /// Requests that a full window is cut into: what a window brings in a second is its bytes by the time that one request
    /// takes, so that small requests make up for a small window.
    pub const WINDOW_REQUESTS: u64 = 32;
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self {
            cache_bytes: 512 << 20,
            in_flight_bytes: 256 << 20,
            request_bytes_max: 8 << 20,
            window_bytes_max: 256 << 20,
            requests_max: 512,
            gap_bytes_max: 512 << 10,
        }
    }
}

/// Where the disk cache is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheDir {
    /// In this directory.
    At(PathBuf),
    /// On the disk of the instance itself.
    InstanceStore {
        /// If it is not mounted it is mounted, and a file system is made on it if it is blank.
        format: bool,
    },
}

/// The disk cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskCacheConfig {
    /// Where.
    pub dir: CacheDir,
    /// The most that it may take in bytes; 80 % of what is free if it was not said.
    pub size_bytes: Option<u64>,
}

/// Limits of the write engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteLimits {
    /// Staged bytes of all files together.
    pub staging_bytes: u64,
    /// Size of the first thousand parts in bytes; 8 MiB makes the layout of DESIGN section 4 reach over 5 TiB.
    pub part_bytes: u64,
    /// Objects up to this many bytes are written by one PUT.
    pub single_put_bytes_max: u64,
    /// Uploads in flight, all files together.
    pub uploads_max: usize,
}

impl Default for WriteLimits {
    fn default() -> Self {
        Self { staging_bytes: 256 << 20, part_bytes: 8 << 20, single_put_bytes_max: 8 << 20, uploads_max: 16 }
    }
}
