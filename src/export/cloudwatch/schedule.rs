//! Where one interval ends and the next begins, whatever the wall clock does. Pure.
//!
//! Intervals begin at whole multiples of their length since 1970, so that those of a fleet fall together. Invariant: each
//! has a timestamp later than all before it, unless the clock was put back by more than [`AHEAD_MAX`], and none lasts
//! longer than twice its length.

use std::time::{Duration, Instant, SystemTime};

/// How far a timestamp may be ahead of the clock after that was put back. CloudWatch takes two hours (API reference,
/// MetricDatum: Timestamp).
const AHEAD_MAX: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug)]
pub(super) struct Schedule {
    interval: Duration,
    /// Timestamp of the present interval.
    began: SystemTime,
    /// When it was opened, by the clock that never jumps.
    opened: Instant,
}

impl Schedule {
    pub(super) fn new(interval: Duration, wall: SystemTime, now: Instant) -> Self {
        Self { interval, began: begin_of(wall, interval), opened: now }
    }

    /// How long the present interval lasts yet. It waits for a clock that was put back, but not for long: then the
    /// timestamps run ahead, and intervals of twice the length bring both together again.
    pub(super) fn until_end(&self, wall: SystemTime, now: Instant) -> Duration {
        let by_wall = (self.began + self.interval).duration_since(wall).unwrap_or_default();
        let by_age = (self.opened + 2 * self.interval).saturating_duration_since(now);
        by_wall.min(by_age)
    }

    /// Ends the present interval, begins the next, and gives the timestamp of the one that ended.
    pub(super) fn end(&mut self, wall: SystemTime, now: Instant) -> SystemTime {
        let aligned = begin_of(wall, self.interval);
        // The clock was plainly wrong before, and so is a timestamp that it gave.
        let stamp = if self.began > wall + AHEAD_MAX { aligned } else { self.began };
        self.began = aligned.max(stamp + self.interval);
        if self.began > wall + AHEAD_MAX {
            self.began = aligned;
        }
        self.opened = now;
        stamp
    }
}

/// When the interval around `wall` began.
fn begin_of(wall: SystemTime, interval: Duration) -> SystemTime {
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let into = since.as_nanos() % interval.as_nanos().max(1);
    wall - Duration::from_nanos(u64::try_from(into).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    /// A schedule, and clocks that it is asked with.
    struct Bench {
        schedule: Schedule,
        wall: SystemTime,
        now: Instant,
    }

    impl Bench {
        fn new(second: u64) -> Self {
            let now = Clock::system().now();
            Self { schedule: Schedule::new(MINUTE, at(second), now), wall: at(second), now }
        }

        /// Lets the present interval end; gives its timestamp and how long it took.
        fn end(&mut self) -> (SystemTime, Duration) {
            let took = self.schedule.until_end(self.wall, self.now);
            self.wall += took;
            self.now += took;
            (self.schedule.end(self.wall, self.now), took)
        }
    }

    #[test]
    fn intervals_end_at_whole_minutes() {
        let mut bench = Bench::new(6012);
        let seconds = Duration::from_secs;
        assert_eq!(bench.end(), (at(6000), seconds(48)));
        assert_eq!(bench.end(), (at(6060), MINUTE));
    }

    #[test]
    fn a_clock_put_back_a_little_makes_one_interval_longer() {
        let mut bench = Bench::new(6030);
        bench.wall -= Duration::from_secs(40);
        assert_eq!(bench.end(), (at(6000), Duration::from_secs(70)));
        assert_eq!(bench.end(), (at(6060), MINUTE));
    }

    #[test]
    fn a_clock_put_back_ten_minutes_repeats_no_timestamp_and_is_caught_up_with() {
        let mut bench = Bench::new(60_000);
        bench.wall -= Duration::from_secs(600);
        let ends: Vec<_> = (0..12).map(|_| bench.end()).collect();
        let stamps: Vec<_> = (0..12).map(|n| at(60_000 + n * 60)).collect();
        assert_eq!(ends.iter().map(|end| end.0).collect::<Vec<_>>(), stamps);
        assert_eq!(ends[0].1, 2 * MINUTE);
        assert_eq!(ends[11].1, MINUTE, "it is caught up with");
    }

    #[test]
    fn a_clock_that_was_a_day_ahead_is_forgotten_at_once() {
        let mut bench = Bench::new(1_000_000);
        bench.wall -= Duration::from_secs(86_400);
        let stamp = bench.end().0;
        assert!(stamp <= bench.wall && stamp + 3 * MINUTE > bench.wall, "by the new time");
    }

    #[test]
    fn a_clock_put_forward_leaves_a_gap_and_no_interval_twice() {
        let mut bench = Bench::new(6000);
        bench.wall += Duration::from_secs(86_400);
        assert_eq!(bench.end(), (at(6000), Duration::ZERO));
        assert_eq!(bench.end().0, at(6000 + 86_400));
    }

    proptest! {
        #[test]
        fn timestamps_rise_and_intervals_are_bounded(jumps in prop::collection::vec(-300_i64..300, 1..60)) {
            let mut bench = Bench::new(1_800_000_000);
            let mut last = None;
            let mut behind = 0_i64;
            for jump in jumps {
                // Never an hour behind where the clock once was.
                let jump = if behind + jump < -3000 { 0 } else { jump };
                behind = (behind + jump).min(0);
                let by = Duration::from_secs(jump.unsigned_abs());
                bench.wall = if jump < 0 { bench.wall - by } else { bench.wall + by };
                let (stamp, took) = bench.end();
                prop_assert!(last.is_none_or(|last| stamp > last));
                prop_assert!(took <= 2 * MINUTE);
                prop_assert!(stamp <= bench.wall + AHEAD_MAX);
                prop_assert_eq!(stamp.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs() % 60, 0);
                last = Some(stamp);
            }
        }
    }
}
