//! What an object's bytes are: kept, made on demand, or not kept at all.
//!
//! Kept bytes cost memory only where they are not zero; synthetic ones cost one block for each seed, whatever their size.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use parking_lot::Mutex;

/// Bytes of one chunk of a kept object, and of the block that a synthetic object repeats.
pub const BLOCK_BYTES: usize = 1 << 20;

static ZEROS: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![0; BLOCK_BYTES]));
static BLOCKS: LazyLock<Mutex<HashMap<u64, Bytes>>> = LazyLock::new(Mutex::default);

/// The bytes of one object. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Content {
    /// Chunks one after another, each of any length.
    Kept(Arc<[Bytes]>, u64),
    /// The block of a seed, repeated.
    Synthetic {
        /// Seed of the block.
        seed: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Only the length is known; the bytes read as zeros.
    Discarded(u64),
}

/// The block of a seed: 8-byte little-endian words, word `i` being
/// `(seed + 1) * 0x9E3779B97F4A7C15 + i * 0xBF58476D1CE4E5B9` modulo 2^64, with its upper half folded into its lower.
/// Byte `n` of a synthetic object is byte `n % 1 MiB` of the block.
pub fn block(seed: u64) -> Bytes {
    let mut blocks = BLOCKS.lock();
    let made = blocks.entry(seed).or_insert_with(|| {
        let mut bytes = Vec::with_capacity(BLOCK_BYTES);
        for index in 0..(BLOCK_BYTES as u64 / 8) {
            let word = seed
                .wrapping_add(1)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .wrapping_add(index.wrapping_mul(0xBF58_476D_1CE4_E5B9));
            bytes.extend_from_slice(&(word ^ (word >> 32)).to_le_bytes());
        }
        Bytes::from(bytes)
    });
    made.clone()
}

impl Content {
    /// Keeps a body; chunks of zeros share one.
    pub fn keep(chunks: Vec<Bytes>) -> Self {
        let len = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let kept = chunks.into_iter().flat_map(|chunk| {
            let starts = (0..chunk.len()).step_by(BLOCK_BYTES);
            let pieces: Vec<Bytes> = starts
                .map(|start| {
                    let piece = chunk.slice(start..(start + BLOCK_BYTES).min(chunk.len()));
                    if is_zero(&piece) { ZEROS.slice(..piece.len()) } else { piece }
                })
                .collect();
            pieces
        });
        Self::Kept(kept.collect(), len)
    }

    /// Several contents one after another.
    pub fn join(parts: &[Self]) -> Self {
        if parts.iter().any(|part| matches!(part, Self::Discarded(_))) {
            return Self::Discarded(parts.iter().map(Self::len).sum());
        }
        let chunks: Vec<Bytes> = parts.iter().flat_map(|part| part.slice(0, part.len())).collect();
        let len = parts.iter().map(Self::len).sum();
        Self::Kept(chunks.into(), len)
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Kept(_, len) | Self::Synthetic { len, .. } | Self::Discarded(len) => *len,
        }
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes `[start, end)` as chunks that share memory.
    pub fn slice(&self, start: u64, end: u64) -> Vec<Bytes> {
        match self {
            Self::Kept(chunks, _) => {
                let mut at = 0;
                let mut out = Vec::new();
                for chunk in chunks.iter() {
                    let (from, to) = (at, at + chunk.len() as u64);
                    at = to;
                    if to <= start || from >= end {
                        continue;
                    }
                    let inner = (start.max(from) - from) as usize..(end.min(to) - from) as usize;
                    out.push(chunk.slice(inner));
                }
                out
            }
            Self::Synthetic { seed, .. } => repeated(&block(*seed), start, end),
            Self::Discarded(_) => repeated(&ZEROS, start, end),
        }
    }

    /// The part `[start, end)` as a content of its own.
    pub fn part(&self, start: u64, end: u64) -> Self {
        match self {
            Self::Discarded(_) => Self::Discarded(end - start),
            _ => Self::Kept(self.slice(start, end).into(), end - start),
        }
    }
}

fn repeated(block: &Bytes, start: u64, end: u64) -> Vec<Bytes> {
    let mut out = Vec::new();
    let mut at = start;
    while at < end {
        let within = (at % BLOCK_BYTES as u64) as usize;
        let len = ((end - at) as usize).min(BLOCK_BYTES - within);
        out.push(block.slice(within..within + len));
        at += len as u64;
    }
    out
}

fn is_zero(bytes: &[u8]) -> bool {
    // Comparing a slice with itself shifted by one is a memcmp, which the compiler vectorises.
    bytes.first() == Some(&0) && bytes[..bytes.len() - 1] == bytes[1..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_of_zeros_share_one_block() {
        let content = Content::keep(vec![Bytes::from(vec![0; 3 * BLOCK_BYTES]), Bytes::from_static(b"end")]);
        let Content::Kept(chunks, len) = &content else { panic!("kept") };
        assert_eq!(*len, 3 * BLOCK_BYTES as u64 + 3);
        assert!(chunks[..3].iter().all(|chunk| chunk.as_ptr() == ZEROS.as_ptr()));
    }

    #[test]
    fn a_slice_of_a_synthetic_object_repeats_its_block() {
        let content = Content::Synthetic { seed: 7, len: 5 << 40 };
        let start = (3 << 40) - 5;
        let bytes: Vec<u8> = content.slice(start, start + 10).concat();
        let block = block(7);
        assert_eq!(bytes[..5], block[BLOCK_BYTES - 5..]);
        assert_eq!(bytes[5..], block[..5]);
    }
}
