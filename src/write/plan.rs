//! From what is clean and what is written to the parts of an object. Pure.
//!
//! The parts of a plan tile `[0, size)` exactly, with ascending numbers. A part that is wholly clean is copied from the
//! base by the server, and neighbours are copied together up to 5 GiB; what is written is sent; what was uploaded and not
//! touched since is named again.

use super::parts::Layout;
use super::ranges::RangeSet;
use crate::store::{PART_BYTES_MIN, PUT_BYTES_MAX};
use crate::types::ByteRange;

/// Where the bytes of a planned part come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The server has the part already.
    Uploaded,
    /// The server copies it from the base object.
    Copied,
    /// We send it.
    Sent,
}

/// One part of the object to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    /// Part number.
    pub(super) number: u32,
    /// Its bytes.
    pub(super) range: ByteRange,
    /// Where they come from.
    pub(super) origin: Origin,
}

/// Plans an object of `size` bytes. `base` is how far the base object's bytes show through where nothing is `written`;
/// `uploaded` says whether the server has a part, whole and untouched since.
pub(super) fn plan(
    layout: Layout,
    size: u64,
    base: u64,
    written: &RangeSet,
    uploaded: impl Fn(u32) -> bool,
) -> Vec<Planned> {
    let mut parts: Vec<Planned> = Vec::new();
    for number in layout.numbers(ByteRange::new(0, size)) {
        let range = layout.range(number).intersect(&ByteRange::new(0, size));
        let clean = range.end <= base && !written.touches(range);
        let origin = if uploaded(number) {
            Origin::Uploaded
        } else if clean {
            Origin::Copied
        } else {
            Origin::Sent
        };
        if let Some(last) = parts.last_mut()
            && last.origin == Origin::Copied
            && origin == Origin::Copied
            && last.range.len() + range.len() <= PUT_BYTES_MAX
        {
            last.range.end = range.end;
            continue;
        }
        parts.push(Planned { number, range, origin });
    }
    // A copy that is too small for a part can only be the last one, where any size is allowed; the layout sees to the
    // rest, since no part of it is smaller than S3 allows.
    debug_assert!(parts.iter().rev().skip(1).all(|part| part.range.len() >= PART_BYTES_MIN.min(layout.part_bytes())));
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn one_byte_in_ten_gib_is_sent_as_one_part_between_a_few_copies() {
        let mut written = RangeSet::default();
        written.insert(ByteRange::of_len(5 * GIB, 1));
        let parts = plan(Layout::new(8 * MIB), 10 * GIB, 10 * GIB, &written, |_| false);
        let sent: Vec<_> = parts.iter().filter(|part| part.origin == Origin::Sent).collect();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].range.len(), 8 * MIB);
        assert!(parts.len() <= 5, "{parts:?}");
    }

    #[test]
    fn an_appended_file_copies_what_it_was_and_sends_its_end() {
        let mut written = RangeSet::default();
        written.insert(ByteRange::of_len(100 * MIB, 5));
        let parts = plan(Layout::new(8 * MIB), 100 * MIB + 5, 100 * MIB, &written, |_| false);
        assert_eq!(parts[0].origin, Origin::Copied);
        assert_eq!(parts[0].range, ByteRange::new(0, 96 * MIB));
        assert_eq!(parts[1].origin, Origin::Sent);
        assert_eq!(parts.len(), 2);
    }

    proptest! {
        #[test]
        fn parts_tile_the_object_and_carry_what_they_must(
            size in 1..300_u64, base in 0..300_u64, ranges in prop::collection::vec((0..300_u64, 1..60_u64), 0..5),
            have in prop::collection::hash_set(1..40_u32, 0..6),
        ) {
            let layout = Layout::new(8);
            let base = base.min(size);
            let mut written = RangeSet::default();
            for (start, len) in ranges {
                written.insert(ByteRange::of_len(start, len));
            }
            let parts = plan(layout, size, base, &written, |number| have.contains(&number));
            let mut at = 0;
            let mut number = 0;
            for part in &parts {
                prop_assert_eq!(part.range.start, at);
                prop_assert!(!part.range.is_empty() && part.number > number && part.range.len() <= PUT_BYTES_MAX);
                at = part.range.end;
                number = part.number;
                match part.origin {
                    Origin::Copied => prop_assert!(part.range.end <= base && !written.touches(part.range)),
                    Origin::Uploaded => prop_assert!(have.contains(&part.number)),
                    Origin::Sent => prop_assert!(part.range.end > base || written.touches(part.range)),
                }
            }
            prop_assert_eq!(at, size);
        }
    }
}
