//! What is known of one block: all of it, or the pieces that random reads left behind.
//!
//! Never holds a byte outside the block, and never two pieces of which one lies within the other. Pieces are in order. Beyond
//! [`PIECES_MAX`] of them those that touch become one, so that a block whose gaps are then filled whole has never many more.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::types::ByteRange;

/// Pieces from which on those that touch are joined, at the price of a copy, and whoever misses bytes does well to ask for the whole
/// gap.
const PIECES_MAX: usize = 64;

/// What a piece costs beside its bytes: its place in the list, and the heads of what it is held by (counted on 64 bit).
const PIECE_OVERHEAD_BYTES: u64 = 192;

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

    /// The same with what the pieces but the first cost beside their bytes.
    pub fn weight_bytes(&self) -> u64 {
        self.len_bytes() + (self.pieces().len() as u64).saturating_sub(1) * PIECE_OVERHEAD_BYTES
    }

    /// Whether there are so many pieces that gaps had better be filled as a whole.
    pub fn is_in_pieces(&self) -> bool {
        self.pieces().len() >= PIECES_MAX
    }

    /// Bytes from the end of what is known before `at`, which is not known, to the begin of what is known behind it, within `block`.
    pub fn gap(&self, at: u64, block: ByteRange) -> ByteRange {
        let before = self.pieces().iter().map(|piece| piece.range().end).filter(|end| *end <= at).max();
        ByteRange::new(before.map_or(block.start, |end| end.max(block.start)), self.next_known(at, block.end))
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
        // Nearly in order already, which this sort is quick with.
        all.sort_by_key(|piece| (piece.start, std::cmp::Reverse(piece.bytes.len())));
        let mut known_until = 0;
        all.retain(|piece| {
            // Of those that begin no later one reaches as far: this lies within it.
            let is_new = piece.range().end > known_until;
            known_until = known_until.max(piece.range().end);
            is_new
        });
        let tiles = all.windows(2).all(|pair| pair[1].start <= pair[0].range().end);
        if tiles && all.first().is_some_and(|first| first.start <= block.start) && known_until >= block.end {
            return Self::whole(block.start, joined(&all).slice(block));
        }
        if all.len() > PIECES_MAX {
            all = all.chunk_by(|one, next| next.start <= one.range().end).map(joined).collect();
        }
        Self(Content::Pieces(all.into()))
    }

    fn pieces(&self) -> &[Piece] {
        match &self.0 {
            Content::Whole(piece) => std::slice::from_ref(piece),
            Content::Pieces(pieces) => pieces,
        }
    }
}

/// Pieces of which each begins at the end of the one before it or earlier, as one. Not of none.
fn joined(pieces: &[Piece]) -> Piece {
    if let [one] = pieces {
        return one.clone();
    }
    let mut bytes = BytesMut::with_capacity(pieces.iter().map(|piece| piece.bytes.len()).sum());
    let start = pieces[0].start;
    let mut cursor = start;
    for piece in pieces {
        bytes.extend_from_slice(&piece.slice(ByteRange::new(cursor, piece.range().end)));
        cursor = piece.range().end;
    }
    Piece { start, bytes: bytes.freeze() }
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

    #[test]
    fn a_block_in_many_pieces_has_those_that_touch_as_one() {
        let block = ByteRange::new(0, 1 << 20);
        let mut known = CachedBlock::piece(block, 0, Bytes::from_static(&[1; 16]));
        for n in 1..40_000_u64 {
            // Every other piece lies by itself, until the gap before it is filled.
            let at = if n % 2 == 1 { (n + 1) * 16 } else { (n - 1) * 16 };
            known = known.merged(&CachedBlock::piece(block, at, Bytes::from_static(&[1; 16])), block);
            assert!(known.pieces().len() <= PIECES_MAX + 1);
        }
        assert_eq!(known.len_bytes(), 40_000 * 16);
        assert_eq!(known.slice(ByteRange::new(0, 100_000)).map(|bytes| bytes.len()), Some(100_000));
    }

    #[test]
    fn a_gap_reaches_from_one_piece_to_the_next() {
        let known = piece(70, 80).merged(&piece(100, 110), BLOCK);
        assert_eq!(known.gap(85, BLOCK), ByteRange::new(80, 100));
        assert_eq!(known.gap(64, BLOCK), ByteRange::new(64, 70));
        assert_eq!(known.gap(127, BLOCK), ByteRange::new(110, 128));
        assert_eq!(known.weight_bytes(), 20 + PIECE_OVERHEAD_BYTES);
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
