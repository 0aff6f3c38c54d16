//! CRC-64/NVME in S3's spelling: base64 of eight big-endian bytes (header `x-amz-checksum-crc64nvme`).
//!
//! Owns no bytes. The checksum of an object in parts is the combination of the parts' checksums, so that what is sent
//! with Complete covers every byte without reading one twice.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest, checksum_combine};

/// A finished CRC-64/NVME.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crc64(u64);

impl Crc64 {
    /// The checksum of no bytes at all.
    pub const EMPTY: Self = Self(0);

    /// The checksum of `chunks` one after another.
    pub fn of_chunks(chunks: &[Bytes]) -> Self {
        let mut running = RunningCrc64::default();
        for chunk in chunks {
            running.update(chunk);
        }
        running.finish()
    }

    /// Reads S3's spelling; `None` if it is not one. A composite checksum (`…-N`) is none of this kind.
    pub fn from_base64(spelled: &str) -> Option<Self> {
        let bytes: [u8; 8] = BASE64.decode(spelled).ok()?.try_into().ok()?;
        Some(Self(u64::from_be_bytes(bytes)))
    }

    /// S3's spelling.
    pub fn to_base64(self) -> String {
        BASE64.encode(self.0.to_be_bytes())
    }

    /// The checksum of these bytes followed by `next_len_bytes` bytes whose checksum is `next`.
    #[must_use]
    pub fn followed_by(self, next: Self, next_len_bytes: u64) -> Self {
        if next_len_bytes == 0 {
            return self;
        }
        Self(checksum_combine(CrcAlgorithm::Crc64Nvme, self.0, next.0, next_len_bytes))
    }
}

/// A CRC-64/NVME under way.
pub struct RunningCrc64(Digest);

impl Default for RunningCrc64 {
    fn default() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc64Nvme))
    }
}

impl RunningCrc64 {
    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes so far.
    pub fn finish(&self) -> Crc64 {
        Crc64(self.0.finalize())
    }
}

impl std::fmt::Debug for RunningCrc64 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RunningCrc64({:?})", self.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_catalogue_is_met() {
        // CRC catalogue (reveng), CRC-64/NVME: check = 0xae8b14860a799888 for "123456789".
        let chunks = [Bytes::from_static(b"1234"), Bytes::new(), Bytes::from_static(b"56789")];
        assert_eq!(Crc64::of_chunks(&chunks), Crc64(0xae8b_1486_0a79_9888));
        assert_eq!(Crc64::of_chunks(&chunks).to_base64(), "rosUhgp5mIg=");
        assert_eq!(Crc64::from_base64("rosUhgp5mIg="), Some(Crc64(0xae8b_1486_0a79_9888)));
    }

    #[test]
    fn parts_combine_into_the_checksum_of_the_whole() {
        let whole = Bytes::from(vec![7; 100_000]);
        let (a, b) = (whole.slice(..60_000), whole.slice(60_000..));
        let combined = Crc64::EMPTY
            .followed_by(Crc64::of_chunks(std::slice::from_ref(&a)), a.len() as u64)
            .followed_by(Crc64::of_chunks(&[]), 0)
            .followed_by(Crc64::of_chunks(std::slice::from_ref(&b)), b.len() as u64);
        assert_eq!(combined, Crc64::of_chunks(&[whole]));
        assert_eq!(Crc64::of_chunks(&[]), Crc64::EMPTY);
    }

    #[test]
    fn a_composite_checksum_is_not_taken_for_one_of_the_bytes() {
        assert_eq!(Crc64::from_base64("rosUhgp5mIg=-3"), None);
    }
}
