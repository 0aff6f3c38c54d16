//! What is known of one block: all of it, or the pieces that random reads left behind.
//!
//! Never holds a byte outside the block, and never two pieces of which one lies within the other.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::types::ByteRange;

/// Bytes of one block, in offsets of the object. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CachedBlock(Content);

#[derive(Clone, Debug)]
enum Content {
    Whole(Piece),
    Pieces(Arc<[Piece]>),
}

/// Bytes of the object from `start` on.
#[derive(Clone, Debug)]
struct Piece {
    start: u64,
    bytes: Bytes,
}

impl Piece {
    fn range(&self) -> ByteRange {
        ByteRange::of_len(self.start, self.bytes.len() as u64)
    }

    /// The bytes of `range`, which lies within the piece.
    fn slice(&self, range: ByteRange) -> Bytes {
        let start = usize::try_from(range.start - self.start).expect("a piece fits in memory");
        let end = usize::try_from(range.end - self.start).expect("a piece fits in memory");
        self.bytes.slice(start..end)
    }
}

impl CachedBlock {
    /// A whole block: `bytes` are all that the object has from the block's first byte, `start`, to the block's end.
    pub fn whole(start: u64, bytes: Bytes) -> Self {
        Self(Content::Whole(Piece { start, bytes }))
    }

    /// A block of which only the bytes from `start` on are known. `block` is the range of the whole block, cut at the
    /// end of the object.
    pub fn piece(block: ByteRange, start: u64, bytes: Bytes) -> Self {
        let piece = Piece { start, bytes };
        if piece.range().contains_range(&block) {
            return Self(Content::Whole(piece));
        }
        Self(Content::Pieces(Arc::new([piece])))
    }

    /// Bytes of memory that the block holds.
    pub fn len_bytes(&self) -> u64 {
        self.pieces().iter().map(|piece| piece.bytes.len() as u64).sum()
    }

    /// Whether every byte of the block is here.
    pub fn is_whole(&self) -> bool {
        matches!(self.0, Content::Whole(_))
    }

    /// The bytes of `range`, if one piece holds them all.
    pub fn slice(&self, range: ByteRange) -> Option<Bytes> {
        self.pieces().iter().find(|piece| piece.range().contains_range(&range)).map(|piece| piece.slice(range))
    }

    /// The longest run of known bytes that begins at `from` and ends at `until` at the latest.
    pub fn run(&self, from: u64, until: u64) -> Option<Bytes> {
        let holds = |piece: &&Piece| piece.start <= from && from < piece.range().end;
        let piece = self.pieces().iter().filter(holds).max_by_key(|piece| piece.range().end)?;
        Some(piece.slice(ByteRange::new(from, until.min(piece.range().end))))
    }

    /// Where, in `[from, until)`, the next known byte lies behind an unknown one at `from`; `until` if none does.
    pub fn next_known(&self, from: u64, until: u64) -> u64 {
        let behind = self.pieces().iter().map(|piece| piece.start).filter(|start| *start > from);
        behind.min().map_or(until, |start| start.min(until))
    }

    /// This block with what `other` knows of it added. Pieces that tile the `block` become one, at the price of a copy.
    pub fn merged(&self, other: &Self, block: ByteRange) -> Self {
        if self.is_whole() {
            return self.clone();
        }
        if other.is_whole() {
            return other.clone();
        }
        let mut all: Vec<Piece> = self.pieces().iter().chain(other.pieces()).cloned().collect();
        all.sort_by_key(|piece| (piece.start, std::cmp::Reverse(piece.bytes.len())));
        let mut kept: Vec<Piece> = Vec::with_capacity(all.len());
        for piece in all {
            if !kept.iter().any(|other| other.range().contains_range(&piece.range())) {
                kept.push(piece);
            }
        }
        Self::joined(&kept, block).unwrap_or_else(|| Self(Content::Pieces(kept.into())))
    }

    fn joined(pieces: &[Piece], block: ByteRange) -> Option<Self> {
        let mut known_until = block.start;
        for piece in pieces {
            if piece.start > known_until {
                return None;
            }
            known_until = known_until.max(piece.range().end);
        }
        if known_until < block.end {
            return None;
        }
        let mut bytes = BytesMut::with_capacity(usize::try_from(block.len()).ok()?);
        let mut cursor = block.start;
        for piece in pieces {
            if piece.range().end > cursor {
                bytes.extend_from_slice(&piece.slice(ByteRange::new(cursor, piece.range().end)));
                cursor = piece.range().end;
            }
        }
        Some(Self::whole(block.start, bytes.freeze()))
    }

    fn pieces(&self) -> &[Piece] {
        match &self.0 {
            Content::Whole(piece) => std::slice::from_ref(piece),
            Content::Pieces(pieces) => pieces,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCK: ByteRange = ByteRange { start: 64, end: 128 };

    fn byte_at(offset: u64) -> u8 {
        offset as u8
    }

    fn piece(start: u64, end: u64) -> CachedBlock {
        CachedBlock::piece(BLOCK, start, (start..end).map(byte_at).collect())
    }

    #[test]
    fn pieces_that_tile_a_block_become_the_whole() {
        let block = piece(64, 80).merged(&piece(100, 128), BLOCK);
        assert!(!block.is_whole());
        assert_eq!(block.slice(ByteRange::new(70, 101)), None);
        let block = block.merged(&piece(78, 101), BLOCK);
        assert!(block.is_whole());
        assert_eq!(block.len_bytes(), 64);
    }

    #[test]
    fn a_piece_within_another_is_dropped() {
        let block = piece(70, 80).merged(&piece(66, 90), BLOCK);
        assert_eq!(block.len_bytes(), 24);
    }

    proptest! {
        #[test]
        fn what_is_known_is_exactly_what_was_put_in(cuts in prop::collection::vec((64_u64..128, 1_u64..24), 1..12)) {
            let mut known = [false; 128];
            let mut block: Option<CachedBlock> = None;
            for (start, len) in cuts {
                let end = (start + len).min(BLOCK.end);
                known[start as usize..end as usize].fill(true);
                let new = piece(start, end);
                block = Some(block.map_or(new.clone(), |block| block.merged(&new, BLOCK)));
            }
            let block = block.expect("at least one piece");
            for offset in BLOCK.start..BLOCK.end {
                match block.run(offset, BLOCK.end) {
                    Some(run) => {
                        prop_assert!(known[offset as usize]);
                        prop_assert!(run.iter().zip(offset..).all(|(byte, at)| *byte == byte_at(at)));
                    }
                    None => {
                        prop_assert!(!known[offset as usize]);
                        let next = (offset..BLOCK.end).find(|at| known[*at as usize]).unwrap_or(BLOCK.end);
                        prop_assert_eq!(block.next_known(offset, BLOCK.end), next);
                    }
                }
            }
            prop_assert_eq!(block.is_whole(), known[64..].iter().all(|known| *known));
        }
    }
}
