//! How many requests, and of what size, reads cost.

use std::sync::atomic::Ordering::SeqCst;

use proptest::prelude::*;

use super::*;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
}

#[tokio::test]
async fn a_sequential_read_costs_less_than_a_request_for_two_blocks() {
    let bench = Bench::new(128 * MIB);
    let reader = bench.open().await;
    for start in (0..128 * MIB).step_by(128 << 10) {
        bench.check(&reader, range(start, 128 * KIB)).await;
    }
    let requests = bench.store.ranges();
    // Sixteen of 8 MiB if it never waited; while it waits its window of up to 64 MiB is asked for in 32.
    assert!(requests.len() <= 64, "{requests:?}");
    assert_eq!(bench.store.asked_bytes(), 128 * MIB, "no byte is asked for twice");
    assert!(bench.store.gets.lock()[1..].iter().all(|get| get.if_match.is_some()));
}

#[tokio::test]
async fn two_readers_of_one_block_share_one_get() {
    let bench = Bench::held(64 * MIB);
    let (one, two) = (bench.reader().await, bench.reader().await);
    let wanted = range(40 * MIB, 100 * KIB);
    let (a, b, ()) = tokio::join!(one.read(wanted), two.read(wanted), async {
        tokio::task::yield_now().await;
        bench.store.released.add_permits(MIB as usize);
    });
    assert_eq!(a.expect("bytes"), bench.expect(wanted));
    assert_eq!(b.expect("bytes"), bench.expect(wanted));
    assert_eq!(bench.store.ranges(), [wanted]);
}

#[tokio::test]
async fn a_dropped_waiter_does_not_cancel_the_others() {
    let bench = Bench::held(64 * MIB);
    let (one, two) = (bench.reader().await, bench.reader().await);
    let wanted = range(40 * MIB, 8 * CHUNK as u64);
    {
        let mut first = std::pin::pin!(one.read(wanted));
        assert!(futures_util::poll!(&mut first).is_pending());
        assert_eq!(bench.store.ranges().len(), 0, "the task has not run yet");
    }
    drop(one);
    let (bytes, ()) = tokio::join!(two.read(wanted), async {
        bench.store.released.add_permits(64 << 20);
    });
    assert_eq!(bytes.expect("bytes"), bench.expect(wanted));
}

#[tokio::test]
async fn a_large_random_read_is_split_over_connections() {
    let bench = Bench::new(64 * MIB);
    let reader = bench.reader().await;
    bench.check(&reader, range(33 * MIB, MIB)).await;
    assert_eq!(bench.store.ranges().len(), 4);
    bench.check(&reader, range(50 * MIB + 300 * KIB, 128 * KIB)).await;
    assert_eq!(bench.store.ranges().len(), 5, "a small one is not");
    bench.check(&reader, range(20 * MIB - 50 * KIB, 128 * KIB)).await;
    assert_eq!(bench.store.ranges().len(), 6, "not even over the border of two blocks");
    bench.check(&reader, range(41 * MIB - 360 * KIB, MIB)).await;
    let requests = bench.store.ranges().split_off(6);
    assert!(requests.len() == 4 && requests.iter().all(|part| part.len() == 256 * KIB), "{requests:?}");
    let others = [bench.reader().await, bench.reader().await];
    bench.check(&others[0], range(60 * MIB, 252 * KIB)).await;
    bench.check(&others[0], range(60 * MIB + 260 * KIB, 764 * KIB)).await;
    let before = bench.store.ranges().len();
    bench.check(&others[1], range(60 * MIB, MIB)).await;
    assert_eq!(bench.store.ranges().split_off(before), [range(60 * MIB + 252 * KIB, 8 * KIB)]);
}

#[tokio::test]
async fn what_is_partly_at_hand_is_asked_for_in_part() {
    let bench = Bench::new(64 * MIB);
    let readers = [bench.reader().await, bench.reader().await, bench.reader().await];
    bench.check(&readers[0], range(33 * MIB + 100 * KIB, 50 * KIB)).await;
    bench.check(&readers[1], range(33 * MIB + 10 * KIB, 120 * KIB)).await;
    assert_eq!(bench.store.asked_bytes(), 140 * KIB);
    bench.check(&readers[2], range(33 * MIB + 10 * KIB, 140 * KIB)).await;
    assert_eq!(bench.store.ranges().len(), 2);
}

#[tokio::test]
async fn eight_interleaved_streams_are_each_read_ahead() {
    let bench = Bench::new(64 * MIB);
    let reader = bench.reader().await;
    for n in 0..64 {
        for column in 0..8 {
            bench.check(&reader, range(column * 8 * MIB + n * 128 * KIB, 128 * KIB)).await;
        }
    }
    let requests = bench.store.ranges();
    assert!(requests.len() <= 8 * 24, "{} requests for 512 reads", requests.len());
    let asked = bench.store.asked_bytes();
    assert!(asked <= 64 * MIB, "each byte at most once: {asked}");
}

#[tokio::test]
async fn prefetch_of_a_dropped_reader_stops() {
    let bench = Bench::held(512 * MIB);
    let reader = bench.open().await;
    // Until requests are large enough to be worth giving up.
    for start in (0..128 * MIB).step_by(128 << 10) {
        let mut read = std::pin::pin!(bench.check(&reader, range(start, 128 * KIB)));
        // All requests share what is released.
        while futures_util::poll!(&mut read).is_pending() {
            bench.store.released.add_permits(CHUNK);
            tokio::task::yield_now().await;
        }
    }
    assert!(bench.engine.in_flight_bytes() > 4 * MIB);
    let would_be = bench.engine.cached_bytes() + bench.engine.in_flight_bytes();
    drop(reader);
    // A chunk lets each request look round; without it they would stand where they are.
    bench.store.released.add_permits(64 * CHUNK);
    bench.settle().await;
    assert!(bench.engine.cached_bytes() + 4 * MIB < would_be);
}

#[tokio::test]
async fn in_flight_bytes_stay_within_budget() {
    let limits = ReadLimits { in_flight_bytes: 12 << 20, ..ReadLimits::default() };
    let bench = Bench::with(Scripted::new(CHUNK), 96 * MIB, limits);
    let reader = bench.open().await;
    for start in (0..96 * MIB).step_by(1 << 20) {
        bench.check(&reader, range(start, MIB)).await;
        tokio::task::yield_now().await;
    }
    assert!(bench.store.open_bytes_max.load(SeqCst) <= 12 * MIB);
    assert!(bench.store.open_bytes_max.load(SeqCst) > 4 * MIB, "and make use of it");
}

#[tokio::test]
async fn a_read_that_waits_for_the_budget_goes_before_read_ahead() {
    let limits = ReadLimits { in_flight_bytes: 2 << 20, ..ReadLimits::default() };
    let bench = Bench::with(Scripted::held(CHUNK), 64 * MIB, limits);
    let (streaming, other) = (bench.reader().await, bench.reader().await);
    let first = range(10 * MIB, 2 * MIB);
    let second = range(12 * MIB, MIB);
    let elsewhere = range(40 * MIB, 100 * KIB);
    tokio::join!(
        bench.check(&streaming, first),
        async {
            tokio::task::yield_now().await;
            bench.check(&other, elsewhere).await;
            bench.check(&streaming, second).await;
        },
        async {
            while bench.store.ranges().is_empty() {
                tokio::task::yield_now().await;
            }
            assert!(bench.store.ranges().iter().all(|get| first.contains_range(get)), "the budget is full");
            bench.store.released.add_permits(64 << 20);
        },
    );
    let ranges = bench.store.ranges();
    let position = ranges.iter().position(|get| *get == elsewhere).expect("it was asked for");
    assert!(ranges[..position].iter().all(|get| first.contains_range(get)));
}

#[tokio::test]
async fn a_budget_smaller_than_a_request_still_finishes() {
    let limits = ReadLimits { in_flight_bytes: 64 << 10, ..ReadLimits::default() };
    let bench = Bench::with(Scripted::new(CHUNK), 6 * MIB, limits);
    let (one, two) = (bench.open().await, bench.open().await);
    for start in (0..6 * MIB).step_by(1 << 20) {
        tokio::join!(bench.check(&one, range(start, MIB)), bench.check(&two, range(5 * MIB - start, MIB)));
    }
}

#[tokio::test]
async fn a_cache_smaller_than_the_window_does_not_read_twice() {
    let limits = ReadLimits { cache_bytes: 16 << 20, ..ReadLimits::default() };
    let bench = Bench::with(Scripted::new(CHUNK), 128 * MIB, limits);
    let reader = bench.open().await;
    for start in (0..128 * MIB).step_by(128 << 10) {
        bench.check(&reader, range(start, 128 * KIB)).await;
        assert!(bench.engine.cached_bytes() <= 16 * MIB);
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.store.asked_bytes(), 128 * MIB);
}

#[tokio::test]
async fn a_block_in_many_pieces_is_filled_by_its_gaps() {
    let bench = Bench::new(64 * MIB);
    let reader = bench.reader().await;
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..3000 {
        bench.check(&reader, range(40 * MIB + random.u64(..MIB - 16), 16)).await;
    }
    let asked = bench.store.ranges().len();
    assert!(asked < 1200, "{asked} requests for a block of 1 MiB");
    bench.settle().await;
    let cached = bench.engine.cached_bytes();
    assert!(bench.store.asked_bytes() <= MIB && cached < MIB + 64 * KIB, "{cached}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_reads_fetch_at_most_twice_what_is_asked(
        size in 2 * MIB..24 * MIB,
        reads in prop::collection::vec((any::<prop::sample::Index>(), 1_u64..300 * KIB), 1..80),
    ) {
        block_on(async {
            let bench = Bench::new(size);
            let reader = bench.reader().await;
            let mut asked = 0;
            for (start, len) in reads {
                // Not at offset 0: there a stream may bet higher.
                let wanted = range(1 + start.index(size as usize - 1) as u64, len).intersect(&range(0, size));
                bench.check(&reader, wanted).await;
                asked += wanted.len();
            }
            let fetched = bench.store.asked_bytes();
            assert!(fetched <= 2 * asked, "{fetched} for {asked}");
        });
    }

    #[test]
    fn whatever_is_read_in_whatever_order_the_bytes_are_right(
        size in 1..9 * MIB,
        cache in 1_u64..12,
        reads in prop::collection::vec((any::<prop::sample::Index>(), 1_u64..2 * MIB, any::<bool>()), 1..60),
    ) {
        block_on(async {
            let limits = ReadLimits { cache_bytes: cache * MIB, in_flight_bytes: 3 * MIB, ..ReadLimits::default() };
            let bench = Bench::with(Scripted::new(CHUNK / 2 + 13), size, limits);
            let reader = bench.open().await;
            let mut at = 0;
            for (start, len, goes_on) in reads {
                let start = if goes_on { at } else { start.index(size as usize) as u64 };
                at = start + len;
                tokio::join!(
                    bench.check(&reader, range(start, len)),
                    bench.check(&reader, range(start + len / 2, len)),
                );
            }
        });
    }
}
