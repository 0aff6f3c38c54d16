//! A set of byte offsets as disjoint ranges. Pure.

use std::collections::BTreeMap;

use crate::types::ByteRange;

/// Disjoint, never touching ranges of byte offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RangeSet {
    /// End by start.
    ranges: BTreeMap<u64, u64>,
    /// How many offsets there are.
    bytes: u64,
}

impl RangeSet {
    /// Adds a range.
    pub(super) fn insert(&mut self, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // The common case of a stream: the new range begins where the last one ends.
        if let Some((&before, before_end)) = self.ranges.range_mut(..=start).next_back()
            && *before_end >= start
        {
            if *before_end >= end {
                return;
            }
            start = before;
        }
        let merged: Vec<u64> = self.ranges.range(start..=end).map(|(&start, _)| start).collect();
        for at in merged {
            if let Some(its_end) = self.ranges.remove(&at) {
                self.bytes -= its_end - at;
                end = end.max(its_end);
            }
        }
        self.bytes += end - start;
        self.ranges.insert(start, end);
    }

    /// Takes a range out.
    pub(super) fn remove(&mut self, range: ByteRange) {
        if range.is_empty() {
            return;
        }
        let touched: Vec<(u64, u64)> = self
            .ranges
            .range(..range.end)
            .rev()
            .map(|(&start, &end)| (start, end))
            .take_while(|&(_, end)| end > range.start)
            .collect();
        for (start, end) in touched {
            self.ranges.remove(&start);
            self.bytes -= end.min(range.end) - start.max(range.start);
            if start < range.start {
                self.ranges.insert(start, range.start);
            }
            if end > range.end {
                self.ranges.insert(range.end, end);
            }
        }
    }

    /// Whether every byte of the range is in the set.
    pub(super) fn contains(&self, range: ByteRange) -> bool {
        range.is_empty() || self.ranges.range(..=range.start).next_back().is_some_and(|(_, &end)| end >= range.end)
    }

    /// Whether any byte of the range is in the set.
    pub(super) fn touches(&self, range: ByteRange) -> bool {
        !range.is_empty() && self.ranges.range(..range.end).next_back().is_some_and(|(_, &end)| end > range.start)
    }

    /// The parts of `range` that are in the set, in order.
    pub(super) fn within(&self, range: ByteRange) -> Vec<ByteRange> {
        let first = self.ranges.range(..=range.start).next_back().map_or(range.start, |(&start, _)| start);
        self.ranges
            .range(first..range.end.max(first))
            .map(|(&start, &end)| ByteRange { start, end }.intersect(&range))
            .filter(|range| !range.is_empty())
            .collect()
    }

    /// The parts of `range` that are not in the set, in order.
    pub(super) fn gaps(&self, range: ByteRange) -> Vec<ByteRange> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        for covered in self.within(range) {
            if covered.start > at {
                gaps.push(ByteRange::new(at, covered.start));
            }
            at = covered.end;
        }
        if at < range.end {
            gaps.push(ByteRange::new(at, range.end));
        }
        gaps
    }

    /// All ranges in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = ByteRange> + '_ {
        self.ranges.iter().map(|(&start, &end)| ByteRange { start, end })
    }

    /// How many offsets are in the set.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the set is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_range_set_is_a_set_of_offsets(steps in prop::collection::vec((any::<bool>(), 0..64_u64, 0..20_u64), 1..40),
                                           asked in (0..64_u64, 0..20_u64)) {
            let mut set = RangeSet::default();
            let mut model = [false; 100];
            for (insert, start, len) in steps {
                let range = ByteRange::of_len(start, len);
                if insert { set.insert(range) } else { set.remove(range) }
                model[range.start as usize..range.end as usize].fill(insert);
            }
            let asked = ByteRange::of_len(asked.0, asked.1);
            let slice = &model[asked.start as usize..asked.end as usize];
            prop_assert_eq!(set.contains(asked), slice.iter().all(|&it| it));
            prop_assert_eq!(set.touches(asked), slice.iter().any(|&it| it));
            let mut rebuilt = [false; 100];
            for range in set.within(asked) {
                rebuilt[range.start as usize..range.end as usize].fill(true);
            }
            for range in set.gaps(asked) {
                prop_assert!(!rebuilt[range.start as usize..range.end as usize].iter().any(|&it| it));
                prop_assert!(!model[range.start as usize..range.end as usize].iter().any(|&it| it));
            }
            prop_assert_eq!(&rebuilt[asked.start as usize..asked.end as usize], slice);
            let ranges: Vec<ByteRange> = set.iter().collect();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert_eq!(set.bytes(), ranges.iter().map(ByteRange::len).sum::<u64>());
        }
    }
}
