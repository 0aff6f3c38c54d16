//! Bytes that tell where they belong: a stream of pseudo-random words that can be made from any offset.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

/// `len` bytes of the stream `seed`.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    pattern_at(seed, 0, len)
}

/// `len` bytes of the stream `seed` from byte `offset` on.
pub fn pattern_at(seed: u64, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 16);
    let mut word = offset / 8;
    while bytes.len() < len + 8 {
        bytes.extend_from_slice(&mixed(seed, word).to_le_bytes());
        word += 1;
    }
    let skip = usize::try_from(offset % 8).expect("below eight");
    bytes.drain(..skip);
    bytes.truncate(len);
    bytes
}

// splitmix64 (public domain, Sebastiano Vigna): every word depends on seed and position alone.
fn mixed(seed: u64, word: u64) -> u64 {
    let mut z = (seed << 40).wrapping_add(word.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A hash of a file's bytes, read piece by piece (FNV-1a over words; only ever compared with itself).
pub fn fingerprint(path: &Path) -> io::Result<(u64, u64)> {
    let mut file = fs::File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    let (mut hash, mut len) = (0xcbf2_9ce4_8422_2325_u64, 0_u64);
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        if filled == 0 {
            return Ok((hash, len));
        }
        buffer[filled..].fill(0);
        for word in buffer[..filled.next_multiple_of(8)].chunks_exact(8) {
            hash = (hash ^ u64::from_le_bytes(word.try_into().expect("eight bytes"))).wrapping_mul(0x0100_0000_01b3);
        }
        len += filled as u64;
    }
}
