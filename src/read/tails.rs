//! Which kinds of files are read from their end: learned by extension from where handles read first.
//!
//! Parquet, ZIP and their like keep their index at the end. Where that was seen often enough, an open asks for the tail in
//! the same moment as for the head, and a round trip is saved. Owns a small table of counts, and nothing else.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::types::{ByteRange, ObjectInfo, ObjectKey};

/// How much of the end is asked for: PyArrow reads the last 64 KiB first, DuckDB the footer that the last 8 bytes announce,
/// which seldom is larger (a thousand columns take about this).
pub(super) const TAIL_BYTES: u64 = 128 << 10;
/// First reads that must have gone to the end, in excess of those that did not, before it is believed.
const TRUST: i8 = 2;
/// Bounds of the count, so that a habit is unlearned about as fast as it was learned.
const COUNT_MAX: i8 = 4;
/// Kinds of files that are kept count of; one of more than this is forgotten.
const KINDS_MAX: usize = 64;
/// A longer extension is no kind of file but part of a name.
const EXTENSION_BYTES_MAX: usize = 16;

/// What was learned so far.
#[derive(Debug, Default)]
pub(super) struct Tails {
    counts: Mutex<HashMap<Box<str>, i8>>,
}

impl Tails {
    /// Takes note of the first read of a handle.
    pub(super) fn learn(&self, info: &ObjectInfo, first_read: ByteRange) {
        let Some(extension) = extension(info.key()) else { return };
        // Of a file whose head and tail overlap, nothing is to be learned.
        if info.size_bytes < 4 * TAIL_BYTES {
            return;
        }
        let at_end = first_read.start >= info.size_bytes - TAIL_BYTES;
        let mut counts = self.counts.lock();
        match counts.get_mut(extension) {
            Some(count) if at_end => *count = (*count + 1).min(COUNT_MAX),
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => drop(counts.remove(extension)),
            None if !at_end => {}
            None => {
                if counts.len() == KINDS_MAX
                    && let Some(least) = counts.iter().min_by_key(|(_, count)| **count).map(|(kind, _)| kind.clone())
                {
                    counts.remove(&least);
                }
                counts.insert(extension.into(), 1);
            }
        }
    }

    /// The tail that is worth asking for when an object of `size_bytes` is opened, of which the first `head_bytes` come
    /// anyway.
    pub(super) fn tail(&self, key: &ObjectKey, size_bytes: u64, head_bytes: u64) -> Option<ByteRange> {
        let start = size_bytes.saturating_sub(TAIL_BYTES).max(head_bytes);
        if start >= size_bytes {
            return None;
        }
        let believed = self.counts.lock().get(extension(key)?).is_some_and(|count| *count >= TRUST);
        believed.then(|| ByteRange::new(start, size_bytes))
    }
}

fn extension(key: &ObjectKey) -> Option<&str> {
    let name = key.as_str().rsplit('/').next()?;
    let (stem, extension) = name.rsplit_once('.')?;
    (!stem.is_empty() && !extension.is_empty() && extension.len() <= EXTENSION_BYTES_MAX).then_some(extension)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ObjectVersion;

    const SIZE: u64 = 64 << 20;

    fn info(key: &str) -> ObjectInfo {
        ObjectInfo {
            version: ObjectVersion::new(key.into(), "\"e\"".into(), None),
            size_bytes: SIZE,
            last_modified: std::time::SystemTime::UNIX_EPOCH,
            metadata: None,
            content_type: None,
            storage_class: None,
            headers: None,
        }
    }

    #[test]
    fn a_kind_of_file_that_is_read_from_its_end_is_learned_and_unlearned() {
        let tails = Tails::default();
        let key: ObjectKey = "d/c.parquet".into();
        tails.learn(&info("d/a.parquet"), ByteRange::new(SIZE - 8, SIZE));
        assert_eq!(tails.tail(&key, SIZE, 1 << 20), None);
        tails.learn(&info("d/b.parquet"), ByteRange::new(SIZE - 8, SIZE));
        assert_eq!(tails.tail(&key, SIZE, 1 << 20), Some(ByteRange::new(SIZE - TAIL_BYTES, SIZE)));
        assert_eq!(tails.tail(&"d/c.csv".into(), SIZE, 1 << 20), None);
        tails.learn(&info("d/b.parquet"), ByteRange::new(0, 8));
        assert_eq!(tails.tail(&key, SIZE, 1 << 20), None);
    }

    #[test]
    fn a_file_that_the_head_brings_whole_has_no_tail() {
        let tails = Tails::default();
        for _ in 0..3 {
            tails.learn(&info("a.zip"), ByteRange::new(SIZE - 8, SIZE));
        }
        assert_eq!(tails.tail(&"b.zip".into(), 1 << 20, 1 << 20), None);
        let just_over = (1 << 20) + 10;
        assert_eq!(tails.tail(&"b.zip".into(), just_over, 1 << 20), Some(ByteRange::new(1 << 20, just_over)));
    }

    #[test]
    fn names_without_an_extension_teach_nothing() {
        let tails = Tails::default();
        for _ in 0..3 {
            tails.learn(&info("dir.d/Makefile"), ByteRange::new(SIZE - 8, SIZE));
            tails.learn(&info("dir/.hidden"), ByteRange::new(SIZE - 8, SIZE));
        }
        assert!(tails.counts.lock().is_empty());
    }

    #[test]
    fn the_table_stays_small_whatever_is_opened() {
        let tails = Tails::default();
        for n in 0..1000 {
            tails.learn(&info(&format!("a.{n}")), ByteRange::new(SIZE - 8, SIZE));
        }
        assert!(tails.counts.lock().len() <= KINDS_MAX);
    }
}
