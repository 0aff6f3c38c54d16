//! Facts about the prefetch policy.

use proptest::prelude::*;

use super::*;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const CAP: Share = Share { window_bytes_max: u64::MAX, streams: 1 };

const LIMITS: WindowLimits = WindowLimits {
    window_bytes_max: 128 * MIB,
    request_bytes_max: 8 * MIB,
    gap_bytes_max: 512 * KIB,
    kept_bytes_max: 256 * MIB,
};

fn total(plan: &Plan) -> u64 {
    plan.ranges.iter().map(ByteRange::len).sum()
}

fn read_on(streams: &mut Streams, start: u64, len: u64, count: u64, waited: bool) -> Vec<ByteRange> {
    let reads = (0..count).map(|n| ByteRange::of_len(start + n * len, len));
    reads.flat_map(|read| streams.observe(read, waited, CAP, &LIMITS).ranges).collect()
}

#[test]
fn the_first_read_elsewhere_asks_for_nothing_ahead() {
    let mut streams = Streams::new(GIB, MIB);
    assert_eq!(total(&streams.observe(ByteRange::of_len(500 * MIB, MIB), true, CAP, &LIMITS)), 0);
    // Seven times 128 KiB came with the open.
    assert_eq!(total(&streams.observe(ByteRange::of_len(0, 128 * KIB), false, CAP, &LIMITS)), 0);
}

#[test]
fn a_large_first_read_of_the_start_asks_for_seven_times_as_much() {
    let mut streams = Streams::new(GIB, MIB);
    let ranges = streams.observe(ByteRange::of_len(0, MIB), true, CAP, &LIMITS).ranges;
    assert_eq!(ranges, (1..8).map(|n| ByteRange::of_len(n * MIB, MIB)).collect::<Vec<_>>());
}

#[test]
fn a_start_that_comes_after_what_follows_it_counts_as_the_start() {
    let mut streams = Streams::new(GIB, MIB);
    streams.observe(ByteRange::of_len(MIB, MIB), true, CAP, &LIMITS);
    let plan = streams.observe(ByteRange::of_len(0, MIB), true, CAP, &LIMITS);
    assert!(plan.sequential);
    assert!(total(&plan) > 8 * MIB, "{plan:?}");
}

#[test]
fn a_stream_from_the_start_goes_on_where_the_open_ended_at_its_second_read() {
    let mut streams = Streams::new(GIB, MIB);
    assert_eq!(read_on(&mut streams, 0, 128 * KIB, 2, false), [ByteRange::new(MIB, 2 * MIB)]);
}

#[test]
fn a_stream_is_asked_for_in_aligned_requests_that_tile_it() {
    let mut streams = Streams::new(GIB, MIB);
    let ranges = read_on(&mut streams, 0, 128 * KIB, 8 * 1024, false);
    assert_eq!(ranges.first().map(|range| range.start), Some(MIB));
    assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start), "no gap, no overlap");
    assert_eq!(ranges.last().map(|range| range.end), Some(GIB));
    assert!(ranges.len() <= 128 + 16, "{} requests for 1 GiB", ranges.len());
    assert!(ranges.iter().skip(16).all(|range| range.len() == 8 * MIB && range.start % (8 * MIB) == 0));
}

#[test]
fn a_reader_that_waits_has_its_window_cut_finer() {
    let mut streams = Streams::new(GIB, MIB);
    let ranges = read_on(&mut streams, 0, 128 * KIB, 8 * 1024, true);
    assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start), "no gap, no overlap");
    assert_eq!(ranges.last().map(|range| range.end), Some(GIB));
    assert!(ranges.iter().all(|range| range.len() <= 4 * MIB), "32 in a window of 128 MiB");
    assert!(ranges.len() <= 256 + 80, "{} requests for 1 GiB", ranges.len());
}

#[test]
fn many_streams_that_wait_have_no_more_requests_in_flight_than_one() {
    let largest = |streams| {
        let share = Share { window_bytes_max: 16 * MIB, streams };
        let mut detectors = Streams::new(GIB, MIB);
        let reads = (0..512).map(|n| ByteRange::of_len(n * MIB, MIB));
        let ranges: Vec<_> = reads.flat_map(|read| detectors.observe(read, true, share, &LIMITS).ranges).collect();
        ranges.last().expect("some").len()
    };
    assert_eq!([1, 8, 100].map(largest), [MIB, 4 * MIB, 4 * MIB]);
}

#[test]
fn the_window_grows_while_reads_wait_and_stands_still_while_they_do_not() {
    let ahead = |waited| {
        let mut streams = Streams::new(64 * GIB, MIB);
        let ranges = read_on(&mut streams, 0, MIB, 512, waited);
        ranges.last().map_or(0, |range| range.end) - 512 * MIB
    };
    assert!(ahead(true) > 120 * MIB);
    assert!((16 * MIB..=32 * MIB).contains(&ahead(false)));
}

#[test]
fn a_stream_in_a_file_over_the_cache_says_what_it_passed() {
    let mut streams = Streams::new(GIB, MIB);
    let mut passed_end = 0;
    for n in 0..512 {
        let read = ByteRange::of_len(n * 128 * KIB, 128 * KIB);
        if let Some(passed) = streams.observe(read, true, CAP, &LIMITS).passed {
            assert_eq!(passed.start, passed_end);
            assert!(passed.end + 8 * MIB <= read.end, "a read that comes late still finds its bytes");
            passed_end = passed.end;
        }
    }
    assert!(passed_end + 10 * MIB > 64 * MIB);
}

#[test]
fn what_a_stream_passed_in_a_file_that_fits_the_cache_stays() {
    let mut streams = Streams::new(256 * MIB, MIB);
    for n in 0..256 {
        assert_eq!(streams.observe(ByteRange::of_len(n * MIB, MIB), true, CAP, &LIMITS).passed, None);
    }
}

#[test]
fn a_stream_that_begins_at_a_seek_asks_for_no_more_than_was_read_of_it() {
    let mut streams = Streams::new(GIB, MIB);
    let mut ahead = 0;
    for n in 0..64 {
        let plan = streams.observe(ByteRange::of_len(300 * MIB + n * 128 * KIB, 128 * KIB), true, CAP, &LIMITS);
        ahead += total(&plan);
        assert!(ahead <= (n + 1) * 128 * KIB + (n + 1) * 128 * KIB);
    }
    assert!(ahead > 8 * MIB, "and comes up to it");
}

#[test]
fn eight_interleaved_streams_each_get_a_window() {
    let mut streams = Streams::new(GIB, 0);
    let mut ahead = [0; 8];
    for n in 0..32 {
        for (column, ahead) in ahead.iter_mut().enumerate() {
            let start = column as u64 * 100 * MIB + 7 * MIB + n * 128 * KIB;
            *ahead += total(&streams.observe(ByteRange::of_len(start, 128 * KIB), true, CAP, &LIMITS));
        }
    }
    assert!(ahead.iter().all(|ahead| *ahead >= 2 * MIB), "{ahead:?}");
    assert_eq!(streams.streaming(), 8);
}

#[test]
fn the_window_closes_at_the_second_seek() {
    let mut streams = Streams::new(GIB, 0);
    read_on(&mut streams, 0, MIB, 16, true);
    assert_eq!(streams.streaming(), 1);
    streams.observe(ByteRange::of_len(700 * MIB, KIB), true, CAP, &LIMITS);
    assert_eq!(streams.streaming(), 1);
    streams.observe(ByteRange::of_len(400 * MIB, KIB), true, CAP, &LIMITS);
    assert_eq!(streams.streaming(), 0);
}

#[test]
fn a_gap_up_to_half_a_mib_is_read_through_and_a_wider_one_is_a_seek() {
    let mut streams = Streams::new(GIB, 0);
    read_on(&mut streams, 100 * MIB, MIB, 4, true);
    assert!(streams.observe(ByteRange::of_len(104 * MIB + 512 * KIB, MIB), true, CAP, &LIMITS).sequential);
    // Beyond everything that was asked for ahead.
    assert!(!streams.observe(ByteRange::of_len(112 * MIB, MIB), true, CAP, &LIMITS).sequential);
}

#[test]
fn reads_that_come_out_of_order_are_one_stream() {
    let mut streams = Streams::new(GIB, 0);
    let mut ahead = 0;
    for pair in 0..32 {
        for n in [2 * pair + 1, 2 * pair] {
            let read = ByteRange::of_len(50 * MIB + n * 128 * KIB, 128 * KIB);
            ahead += total(&streams.observe(read, true, CAP, &LIMITS));
        }
    }
    assert!(ahead >= 4 * MIB);
    assert_eq!(streams.streams.len(), 1);
}

#[test]
fn a_backward_reader_is_led_backward() {
    let mut streams = Streams::new(GIB, 0);
    let mut ahead = Vec::new();
    for n in 1..=64 {
        let read = ByteRange::of_len(200 * MIB - n * 64 * KIB, 64 * KIB);
        let plan = streams.observe(read, true, CAP, &LIMITS);
        if n > 4 {
            assert!(plan.ranges.iter().all(|range| range.end <= read.start));
            ahead.extend(plan.ranges);
        }
    }
    assert!(ahead.iter().map(ByteRange::len).sum::<u64>() >= 3 * MIB);
    assert!(ahead.iter().any(|range| range.len() >= 512 * KIB), "pieces that touch are one request");
}

#[test]
fn a_wide_stride_is_followed_piece_by_piece() {
    let mut streams = Streams::new(64 * GIB, MIB);
    let mut pieces = Vec::new();
    for n in 0..20 {
        pieces.extend(streams.observe(ByteRange::of_len(n * 10 * MIB, 64 * KIB), true, CAP, &LIMITS).ranges);
    }
    assert!(pieces.len() >= 20, "{}", pieces.len());
    assert!(pieces.iter().all(|piece| piece.start % (10 * MIB) == 0 && piece.len() == 64 * KIB));
    assert!(pieces.is_sorted_by(|a, b| a.start < b.start), "none is asked for twice");
}

#[test]
fn a_sparse_stride_within_the_gap_is_not_read_through() {
    let mut streams = Streams::new(GIB, 0);
    let mut pieces = Vec::new();
    for n in 0..32 {
        pieces.extend(streams.observe(ByteRange::of_len((n + 1) * 400 * KIB, 16 * KIB), true, CAP, &LIMITS).ranges);
    }
    let fetched: u64 = pieces.iter().skip(1).map(ByteRange::len).sum();
    assert!(fetched <= 64 * 16 * KIB, "{fetched}");
}

#[test]
fn what_could_not_be_asked_for_is_planned_again() {
    let mut streams = Streams::new(GIB, 0);
    read_on(&mut streams, 0, MIB, 8, true);
    let mut at = 8 * MIB;
    let plan = loop {
        let plan = streams.observe(ByteRange::of_len(at, MIB), true, CAP, &LIMITS);
        at += MIB;
        if plan.ranges.len() >= 2 {
            break plan;
        }
    };
    streams.retract(&plan, 1);
    let mut again = Vec::new();
    while again.is_empty() {
        again = streams.observe(ByteRange::of_len(at, MIB), true, CAP, &LIMITS).ranges;
        at += MIB;
    }
    assert_eq!(again[0].start, plan.ranges[1].start);
}

#[test]
fn a_cap_on_all_windows_bounds_each() {
    let mut streams = Streams::new(GIB, 0);
    for n in 0..256 {
        let read = ByteRange::of_len(n * MIB, MIB);
        let plan = streams.observe(read, true, Share { window_bytes_max: 4 * MIB, ..CAP }, &LIMITS);
        assert!(plan.ranges.iter().all(|range| range.end <= read.end + 4 * MIB));
    }
}

proptest! {
    #[test]
    fn no_workload_fetches_more_than_twice_what_it_reads(
        reads in prop::collection::vec((1_u64..64 * KIB, 1_u64..KIB, 0_u8..5), 1..200),
        waited in any::<bool>(),
    ) {
        // What is at hand, by the KiB.
        let mut at_hand = vec![false; 65 << 10];
        let mut fetch = |range: ByteRange| {
            let part = &mut at_hand[(range.start / KIB) as usize..range.end.div_ceil(KIB) as usize];
            let missing = part.iter().filter(|it| !**it).count() as u64;
            part.fill(true);
            missing * KIB
        };
        let size = 65 * MIB;
        let mut streams = Streams::new(size, 0);
        let (mut asked, mut fetched, mut at) = (0, 0, 1);
        for (start, len, how) in reads {
            // Four of five reads go on from the one before, some of them over a gap, some backward.
            let start = match how { 0 => start * KIB, 1 => at + start % 512 * KIB, 2 => at.saturating_sub(3 * len * KIB), _ => at };
            let read = ByteRange::of_len(start.clamp(KIB, size - KIB), len * KIB).intersect(&ByteRange::new(0, size));
            at = read.end;
            let plan = streams.observe(read, waited, CAP, &LIMITS);
            asked += read.len();
            fetched += fetch(read);
            for range in &plan.ranges {
                prop_assert!(!range.is_empty() && range.end <= size && range.len() <= LIMITS.request_bytes_max);
                prop_assert_eq!(range.start / LIMITS.request_bytes_max, (range.end - 1) / LIMITS.request_bytes_max);
                fetched += fetch(*range);
            }
        }
        prop_assert!(fetched <= 2 * asked, "{fetched} for {asked}");
    }
}

#[test]
fn a_stream_whose_reads_come_out_of_order_stays_one_stream() {
    // The kernel sends 4 MiB of read-ahead as four requests, which four threads take up in any order.
    let mut streams = Streams::new(64 * MIB, MIB);
    let mut requests = 0;
    for four in 0..16 {
        for nth in [0, 3, 1, 2] {
            let read = ByteRange::of_len((4 * four + nth) * MIB, MIB);
            let plan = streams.observe(read, false, Share { window_bytes_max: 128 * MIB, ..CAP }, &LIMITS);
            assert!(plan.sequential || read.start == 0, "{read}");
            requests += plan.ranges.len();
        }
    }
    assert!(requests <= 16, "{requests} requests");
    assert_eq!(streams.streams.len(), 1);
}

#[test]
fn the_rest_of_one_call_is_no_stream() {
    let mut streams = Streams::new(GIB, 0);
    for n in 1..20 {
        let start = n * 37 * MIB + 4 * KIB;
        assert_eq!(total(&streams.observe(ByteRange::of_len(start, MIB), true, CAP, &LIMITS)), 0);
        assert_eq!(total(&streams.observe(ByteRange::of_len(start + MIB, 4 * KIB), true, CAP, &LIMITS)), 0);
    }
    // What goes on from there is one.
    let start = 900 * MIB;
    streams.observe(ByteRange::of_len(start, MIB), true, CAP, &LIMITS);
    assert!(total(&streams.observe(ByteRange::of_len(start + MIB, MIB), true, CAP, &LIMITS)) > 0);
}
