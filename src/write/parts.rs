//! Which part number an offset belongs to. Pure.
//!
//! Part `n` lies at a fixed offset, so that a stream can upload parts before it knows how long the file will be: a
//! thousand parts of the part size, a thousand of eight times that, eight thousand of 82 times. With 8 MiB these are
//! 8 MiB, 64 MiB and 656 MiB, and reach over 5 TiB.

use crate::store::PART_NUMBER_MAX;
use crate::types::ByteRange;

/// Parts of a tier and their size as a multiple of the part size.
const TIERS: [(u32, u64); 3] = [(1000, 1), (1000, 8), (8000, 82)];

/// Where parts lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    part_bytes: u64,
}

impl Layout {
    /// Parts of `part_bytes`, and multiples of it further on.
    pub(super) fn new(part_bytes: u64) -> Self {
        Self { part_bytes }
    }

    /// The layout in which part `number` has `range`; `None` if there is none.
    pub(super) fn of_part(number: u32, range: ByteRange) -> Option<Self> {
        if !(1..=PART_NUMBER_MAX).contains(&number) || range.is_empty() {
            return None;
        }
        // One of the tiers holds the number, and only there it comes out right.
        TIERS.iter().map(|(_, times)| Self::new(range.len() / times)).find(|layout| layout.range(number) == range)
    }

    /// Size of the first parts in bytes.
    pub(super) fn part_bytes(self) -> u64 {
        self.part_bytes
    }

    /// The longest file that 10,000 parts hold, in bytes.
    pub(super) fn size_bytes_max(self) -> u64 {
        self.range(PART_NUMBER_MAX).end
    }

    /// The part that holds the byte at `offset`; `None` behind the last.
    pub(super) fn number(self, offset: u64) -> Option<u32> {
        let (mut first, mut start) = (1_u32, 0_u64);
        for (count, times) in TIERS {
            let bytes = self.part_bytes * times;
            let end = start + u64::from(count) * bytes;
            if offset < end {
                let within = u32::try_from((offset - start) / bytes).expect("a tier has at most 8000 parts");
                return Some(first + within);
            }
            first += count;
            start = end;
        }
        None
    }

    /// The bytes of part `number` (1 to 10,000) of a file that is long enough.
    pub(super) fn range(self, number: u32) -> ByteRange {
        let (mut left, mut start) = (number - 1, 0_u64);
        for (count, times) in TIERS {
            let bytes = self.part_bytes * times;
            if left < count {
                return ByteRange::of_len(start + u64::from(left) * bytes, bytes);
            }
            left -= count;
            start += u64::from(count) * bytes;
        }
        ByteRange::new(start, start)
    }

    /// The numbers of all parts that hold a byte of `range`.
    pub(super) fn numbers(self, range: ByteRange) -> std::ops::RangeInclusive<u32> {
        match (self.number(range.start), range.end.checked_sub(1).and_then(|last| self.number(last))) {
            (Some(first), Some(last)) if !range.is_empty() => first..=last,
            #[expect(clippy::reversed_empty_ranges, reason = "no part holds a byte of an empty range")]
            _ => 1..=0,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn parts_of_eight_mib_reach_over_five_tib() {
        let layout = Layout::new(8 * MIB);
        assert_eq!(layout.range(1), ByteRange::new(0, 8 * MIB));
        assert_eq!(layout.range(1001).len(), 64 * MIB);
        assert_eq!(layout.range(2001).len(), 656 * MIB);
        assert!(layout.size_bytes_max() > 5 << 40);
        assert_eq!(layout.number(layout.size_bytes_max()), None);
    }

    proptest! {
        #[test]
        fn parts_tile_the_file(number in 1..PART_NUMBER_MAX, within in 0.0..1.0_f64) {
            let layout = Layout::new(8 * MIB);
            let range = layout.range(number);
            prop_assert_eq!(range.end, layout.range(number + 1).start);
            prop_assert_eq!(Layout::of_part(number, range), Some(layout));
            prop_assert_eq!(Layout::of_part(number, ByteRange::new(range.start + 1, range.end)), None);
            let offset = range.start + (range.len() as f64 * within) as u64;
            prop_assert_eq!(layout.number(offset.min(range.end - 1)), Some(number));
        }
    }
}
