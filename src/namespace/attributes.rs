//! Object metadata <-> attributes, in the spelling that s3fs, geesefs and rclone share.
//!
//! `mode` is the full st_mode in decimal, `uid` and `gid` are decimal, `mtime` and its kin are seconds since 1970 with
//! exactly nine digits behind the point when there is a fraction (s3fs reads the fraction as raw nanoseconds; geesefs reads
//! whole seconds only); a shorter fraction, as rclone writes it, is padded on the right when it is read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::NodeKind;
use crate::types::ObjectMetadata;

/// Content-Type of a directory marker as this mount writes it.
pub(super) const DIRECTORY_CONTENT_TYPE: &str = "application/x-directory";

/// Name of the metadata in which geesefs keeps the target of a link (its option --symlink-attr), percent-encoded.
const GEESEFS_TARGET: &str = "--symlink-target";

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
    /// Device number of a device, as makedev(3) makes it.
    pub(super) rdev: Option<u32>,
    /// geesefs keeps a link's target here, and nothing in the object.
    pub(super) has_target: bool,
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
            rdev: number("rdev"),
            has_target: metadata.contains_key(GEESEFS_TARGET),
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
        set("rdev", self.rdev.map(|rdev| rdev.to_string()));
    }

    /// What an object that says this is, unless it is a directory.
    pub(super) fn kind(&self) -> NodeKind {
        match self.mode.and_then(NodeKind::of_mode) {
            Some(NodeKind::File | NodeKind::Directory) | None if self.has_target => NodeKind::Symlink,
            Some(NodeKind::Directory) | None => NodeKind::File,
            Some(kind) => kind,
        }
    }

    /// Permission bits.
    pub(super) fn permissions(&self) -> Option<u32> {
        self.mode.map(|mode| mode & 0o7777)
    }
}

/// The target of a link as geesefs keeps it.
pub(super) fn target_of(metadata: &ObjectMetadata) -> Option<String> {
    let escaped = metadata.get(GEESEFS_TARGET)?;
    percent_encoding::percent_decode_str(escaped).decode_utf8().ok().map(Into::into)
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
        assert_eq!(Stored::read(&metadata).kind(), NodeKind::Symlink);
    }

    #[test]
    fn a_link_of_geesefs_is_recognised_and_its_target_unescaped() {
        let metadata = ObjectMetadata::from([("--symlink-target".to_owned(), "../a%20b".to_owned())]);
        assert_eq!(Stored::read(&metadata).kind(), NodeKind::Symlink);
        assert_eq!(target_of(&metadata).as_deref(), Some("../a b"));
    }

    #[test]
    fn a_mode_without_a_file_type_is_that_of_a_file() {
        let metadata = ObjectMetadata::from([("mode".to_owned(), "420".to_owned())]);
        assert_eq!(Stored::read(&metadata).kind(), NodeKind::File);
        assert_eq!(Stored::read(&metadata).permissions(), Some(0o644));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(mode: Option<u32>, uid: Option<u32>, gid: Option<u32>,
                                         seconds in 0..4_000_000_000_u64, nanoseconds in 0..1_000_000_000_u32) {
            let mtime = Some(UNIX_EPOCH + Duration::new(seconds, nanoseconds));
            let stored = Stored { mode, uid, gid, mtime, ..Stored::default() };
            let mut metadata = ObjectMetadata::new();
            stored.write(&mut metadata);
            prop_assert_eq!(Stored::read(&metadata), stored);
        }
    }
}
