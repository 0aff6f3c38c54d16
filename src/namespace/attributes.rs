//! Object metadata <-> attributes, in the spelling that s3fs, geesefs and rclone share.
//!
//! `mode` is the full st_mode in decimal, `uid` and `gid` are decimal, `mtime` and its kin are seconds since 1970 with
//! exactly nine digits behind the point when there is a fraction (s3fs reads the fraction as raw nanoseconds; geesefs reads
//! whole seconds only); a shorter fraction, as rclone writes it, is padded on the right when it is read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::types::ObjectMetadata;

/// Content-Type of a directory marker as this mount writes it.
pub(super) const DIRECTORY_CONTENT_TYPE: &str = "application/x-directory";

/// What a set of metadata says; `None` where it says nothing, or nothing that can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    /// Full st_mode, file type included.
    pub(super) mode: Option<u32>,
    /// Owner.
    pub(super) uid: Option<u32>,
    /// Group.
    pub(super) gid: Option<u32>,
    /// Modification time.
    pub(super) mtime: Option<SystemTime>,
    /// Access time.
    pub(super) atime: Option<SystemTime>,
}

impl Stored {
    /// Reads metadata; what is malformed is passed over.
    pub(super) fn read(metadata: &ObjectMetadata) -> Self {
        let number = |name: &str| metadata.get(name).and_then(|value| value.trim().parse().ok());
        let time = |name: &str| metadata.get(name).and_then(|value| read_time(value));
        Self {
            mode: number("mode"),
            uid: number("uid"),
            gid: number("gid"),
            mtime: time("mtime"),
            atime: time("atime"),
        }
    }

    /// Writes what is set into metadata.
    pub(super) fn write(&self, metadata: &mut ObjectMetadata) {
        let mut set = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                metadata.insert(name.to_owned(), value);
            }
        };
        set("mode", self.mode.map(|mode| mode.to_string()));
        set("uid", self.uid.map(|uid| uid.to_string()));
        set("gid", self.gid.map(|gid| gid.to_string()));
        set("mtime", self.mtime.map(write_time));
        set("atime", self.atime.map(write_time));
    }

    /// Whether the object is a symbolic link.
    pub(super) fn is_symlink(&self) -> bool {
        self.mode.is_some_and(|mode| mode & libc::S_IFMT == libc::S_IFLNK)
    }
}

fn read_time(value: &str) -> Option<SystemTime> {
    let (negative, value) = match value.trim().strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, value.trim()),
    };
    let (seconds, fraction) = value.split_once('.').unwrap_or((value, ""));
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9}")[..9].parse().ok()?;
    let since = Duration::new(seconds.parse().ok()?, nanoseconds);
    if negative { UNIX_EPOCH.checked_sub(since) } else { UNIX_EPOCH.checked_add(since) }
}

fn write_time(time: SystemTime) -> String {
    let (sign, since) = match time.duration_since(UNIX_EPOCH) {
        Ok(since) => ("", since),
        Err(before) => ("-", before.duration()),
    };
    match since.subsec_nanos() {
        0 => format!("{sign}{}", since.as_secs()),
        nanoseconds => format!("{sign}{}.{nanoseconds:09}", since.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_fraction_is_padded_on_the_right() {
        assert_eq!(read_time("1700000000.5"), Some(UNIX_EPOCH + Duration::from_millis(1_700_000_000_500)));
        assert_eq!(read_time("1700000000"), Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000)));
        assert_eq!(read_time("soon"), None);
        assert_eq!(read_time("1.2e3"), None);
    }

    #[test]
    fn whole_seconds_are_written_without_a_fraction() {
        assert_eq!(write_time(UNIX_EPOCH + Duration::from_secs(12)), "12");
        assert_eq!(write_time(UNIX_EPOCH + Duration::new(12, 34)), "12.000000034");
    }

    #[test]
    fn a_link_of_s3fs_is_recognised() {
        let metadata = ObjectMetadata::from([("mode".to_owned(), (libc::S_IFLNK | 0o777).to_string())]);
        assert!(Stored::read(&metadata).is_symlink());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(mode: Option<u32>, uid: Option<u32>, gid: Option<u32>,
                                         seconds in 0..4_000_000_000_u64, nanoseconds in 0..1_000_000_000_u32) {
            let mtime = Some(UNIX_EPOCH + Duration::new(seconds, nanoseconds));
            let stored = Stored { mode, uid, gid, mtime, atime: None };
            let mut metadata = ObjectMetadata::new();
            stored.write(&mut metadata);
            prop_assert_eq!(Stored::read(&metadata), stored);
        }
    }
}
