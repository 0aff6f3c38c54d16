//! The bytes of the disk cache: how a version is named, what its map says, how its granules are summed.
//!
//! Owns the layout and nothing of files. Two files stand for a version: `NAME.data` is as long as the object and sparse, so
//! that the kernel can be handed it as it is; `NAME.map` holds a header that says which object it is, and then one checksum for
//! each granule of 4 KiB, 0 where there is none. Invariant: a checksum binds its bytes to the object's key, ETag and length, to
//! their place in it, and to the version of this format, so that bytes of anything else never pass for them.

use std::fmt;

use crc_fast::CrcAlgorithm;
use sha2::{Digest, Sha256};

use crate::memory::PAGE_BYTES;
use crate::types::ObjectInfo;

/// Version of the format. A map of another one is dropped when it is found.
const FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"s3mcache";

/// Bytes that have one checksum: the page in which the kernel asks, so that what random reads bring can be kept exactly.
pub(super) const GRANULE_BYTES: u64 = 4096;
/// Bytes of a block, whose checksums make a row of the map.
pub(super) const BLOCK_BYTES: u64 = PAGE_BYTES as u64;
/// Granules of a whole block.
pub(super) const GRANULES_PER_BLOCK: u64 = BLOCK_BYTES / GRANULE_BYTES;
/// Bytes of one checksum.
pub(super) const SUM_BYTES: u64 = 4;
/// Bytes of a row.
pub(super) const ROW_BYTES: u64 = GRANULES_PER_BLOCK * SUM_BYTES;
/// Bytes of the header, behind which the rows begin: a block of the file system, so that rows can be punched out.
pub(super) const HEADER_BYTES: u64 = 4096;

/// Fields before the texts: magic, format, length of the object, three lengths of texts.
const FIXED_BYTES: usize = 8 + 4 + 8 + 3 * 4;

/// Which content of which key of which bucket: the name of its files.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Identity([u8; 16]);

impl Identity {
    /// Of an object of the bucket `source`. SHA-256, so that nobody who chooses keys can make two that are one.
    pub(super) fn of(source: &str, key: &str, etag: &str, size_bytes: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(FORMAT.to_le_bytes());
        hash.update(size_bytes.to_le_bytes());
        for text in [source, key, etag] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        let mut short = [0; 16];
        short.copy_from_slice(&hash.finalize()[..16]);
        Self(short)
    }

    /// The identity that a file's name spells, without its ending.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let well_formed = name.len() == 32 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        u128::from_str_radix(name, 16).ok().filter(|_| well_formed).map(|number| Self(number.to_be_bytes()))
    }

    /// A mask for the checksum of one granule: another identity or another place has another mask.
    fn mask(&self, granule: u64) -> u32 {
        let half = |at: usize| u64::from_le_bytes(std::array::from_fn(|n| self.0[at + n]));
        // The finisher of SplitMix64 (Steele, Lea and Flood 2014) over both halves.
        let mut word = half(0) ^ granule.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ half(8);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) as u32
    }

    /// The checksum of one granule; never 0, which says that there is none.
    pub(super) fn sum(&self, granule: u64, bytes: &[u8]) -> u32 {
        let sum = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32 ^ self.mask(granule);
        if sum == 0 { 1 } else { sum }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the header of a map says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) source: String,
    pub(super) key: String,
    pub(super) etag: String,
    pub(super) size_bytes: u64,
}

impl Header {
    pub(super) fn of(source: &str, info: &ObjectInfo) -> Self {
        Self {
            source: source.to_owned(),
            key: info.key().as_str().to_owned(),
            etag: info.etag().as_str().to_owned(),
            size_bytes: info.size_bytes,
        }
    }

    pub(super) fn identity(&self) -> Identity {
        Identity::of(&self.source, &self.key, &self.etag, self.size_bytes)
    }

    /// The header as it stands in the file; `None` if the texts are longer than it.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let texts = [&self.source, &self.key, &self.etag];
        let mut bytes = Vec::with_capacity(HEADER_BYTES as usize);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.size_bytes.to_le_bytes());
        for text in texts {
            bytes.extend_from_slice(&u32::try_from(text.len()).ok()?.to_le_bytes());
        }
        for text in texts {
            bytes.extend_from_slice(text.as_bytes());
        }
        let sum_at = HEADER_BYTES as usize - 4;
        if bytes.len() > sum_at {
            return None;
        }
        bytes.resize(sum_at, 0);
        let sum = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, &bytes) as u32;
        bytes.extend_from_slice(&sum.to_le_bytes());
        Some(bytes)
    }

    /// Reads a header; `None` if it is torn, of another format, or no header at all.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.get(..HEADER_BYTES as usize)?.split_at(HEADER_BYTES as usize - 4);
        let word = |at: usize| Some(u32::from_le_bytes(body.get(at..at + 4)?.try_into().ok()?));
        let computed = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, body) as u32;
        if &body[..8] != MAGIC || word(8)? != FORMAT || sum != computed.to_le_bytes() {
            return None;
        }
        let size_bytes = u64::from_le_bytes(body.get(12..20)?.try_into().ok()?);
        let mut at = FIXED_BYTES;
        let mut text = |length_at: usize| {
            let length = word(length_at)? as usize;
            let text = String::from_utf8(body.get(at..at.checked_add(length)?)?.to_vec()).ok()?;
            at += length;
            Some(text)
        };
        Some(Self { source: text(20)?, key: text(24)?, etag: text(28)?, size_bytes })
    }
}

/// The sums of a row's bytes.
pub(super) fn sums(row: &[u8]) -> impl Iterator<Item = u32> + '_ {
    row.chunks_exact(SUM_BYTES as usize).map(|sum| u32::from_le_bytes(sum.try_into().expect("chunks of four bytes")))
}

/// How many granules an object of `size_bytes` has in its block `index`.
pub(super) fn granules_of_block(index: u64, size_bytes: u64) -> u64 {
    let start = index.saturating_mul(BLOCK_BYTES);
    size_bytes.saturating_sub(start).min(BLOCK_BYTES).div_ceil(GRANULE_BYTES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header { source: "s".into(), key: "a/b".into(), etag: "\"e\"".into(), size_bytes: 77 }
    }

    #[test]
    fn a_header_with_any_bit_flipped_is_no_header() {
        let good = header().encode().expect("short texts");
        for at in (0..40).chain([4000, 4092, 4095]) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            assert_eq!(Header::decode(&bad), None, "byte {at}");
        }
        assert_eq!(Header::decode(&good[..4095]), None);
    }

    #[test]
    fn a_header_of_a_newer_format_is_no_header() {
        let mut newer = header().encode().expect("short texts");
        newer[8] = 2;
        let sum = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, &newer[..4092]) as u32;
        newer[4092..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(Header::decode(&newer), None);
    }

    #[test]
    fn texts_that_do_not_fit_are_refused() {
        assert_eq!(Header { key: "k".repeat(5000), ..header() }.encode(), None);
    }

    #[test]
    fn a_sum_is_of_its_bytes_at_their_place_in_their_object() {
        let one = Identity::of("s", "k", "e", 8192);
        let bytes = [7; 4096];
        assert_ne!(one.sum(0, &bytes), one.sum(1, &bytes));
        for other in [
            Identity::of("t", "k", "e", 8192),
            Identity::of("s", "l", "e", 8192),
            Identity::of("s", "k", "f", 8192),
            Identity::of("s", "k", "e", 8193),
            Identity::of("sk", "", "e", 8192),
        ] {
            assert_ne!(other, one);
            assert_ne!(other.sum(0, &bytes), one.sum(0, &bytes));
        }
    }

    #[test]
    fn the_last_block_has_the_granules_that_the_object_reaches() {
        assert_eq!(granules_of_block(0, 1), 1);
        assert_eq!(granules_of_block(0, 4096), 1);
        assert_eq!(granules_of_block(0, 4097), 2);
        assert_eq!(granules_of_block(1, BLOCK_BYTES), 0);
        assert_eq!(granules_of_block(1, 9 * BLOCK_BYTES), GRANULES_PER_BLOCK);
    }

    proptest! {
        #[test]
        fn headers_come_back(source in ".{0,60}", key in ".{0,300}", etag in ".{0,60}", size_bytes in any::<u64>()) {
            let header = Header { source, key, etag, size_bytes };
            prop_assert_eq!(header.encode().and_then(|bytes| Header::decode(&bytes)), Some(header.clone()));
            prop_assert_eq!(Identity::parse(&header.identity().to_string()), Some(header.identity()));
        }

        #[test]
        fn noise_is_no_header(bytes in prop::collection::vec(any::<u8>(), 4096)) {
            prop_assert_eq!(Header::decode(&bytes), None);
        }
    }
}
