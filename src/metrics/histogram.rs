//! Durations in buckets, recorded by many threads and read out exactly.
//!
//! There are two banks. Recordings go to the hot one; a reader makes the other one hot, waits for the few recordings that
//! had begun, and empties the bank that nobody writes any more. So count, sum, least and greatest of a read-out are of the
//! very same recordings. A recording is a handful of atomic adds: it never waits, not even for a reader.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Buckets of a latency histogram: base 1.1 from 1 us (a read that memory answers takes a few) to 100 s is 194 (error
/// about 5 %); what lies outside is counted in the first or the last.
pub(super) const BUCKETS: usize = 194;
const BUCKET_BASE: f64 = 1.1;
const BUCKET_FIRST_SECONDS: f64 = 1e-6;

/// Which bank is hot.
const HOT: u64 = 1 << 63;

#[derive(Debug)]
pub(super) struct Histogram {
    /// How many recordings ever began, and in bit 63 which bank they go to.
    begun: AtomicU64,
    banks: [Bank; 2],
    read: Mutex<ReadOut>,
}

#[derive(Debug)]
struct Bank {
    /// How many recordings ended: those of this bank, and all earlier ones once it is hot.
    ended: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
    sum_nanoseconds: AtomicU64,
    min_nanoseconds: AtomicU64,
    max_nanoseconds: AtomicU64,
}

/// What readers have taken out of the banks.
#[derive(Debug, Default)]
struct ReadOut {
    total: HistogramSnapshot,
    interval: HistogramSnapshot,
}

impl Default for Bank {
    fn default() -> Self {
        Self {
            ended: AtomicU64::new(0),
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_nanoseconds: AtomicU64::new(0),
            min_nanoseconds: AtomicU64::new(u64::MAX),
            max_nanoseconds: AtomicU64::new(0),
        }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { begun: AtomicU64::new(0), banks: std::array::from_fn(|_| Bank::default()), read: Mutex::default() }
    }
}

impl Histogram {
    pub(super) fn observe(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let hot = self.begun.fetch_add(1, Ordering::AcqRel) >> 63;
        let bank = &self.banks[usize::from(hot == 1)];
        bank.buckets[bucket_of(took)].fetch_add(1, Ordering::Relaxed);
        bank.sum_nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        bank.min_nanoseconds.fetch_min(nanoseconds, Ordering::Relaxed);
        bank.max_nanoseconds.fetch_max(nanoseconds, Ordering::Relaxed);
        bank.ended.fetch_add(1, Ordering::Release);
    }

    /// Everything since the beginning.
    pub(super) fn total(&self) -> HistogramSnapshot {
        let mut read = self.read.lock();
        self.read_out(&mut read);
        read.total.clone()
    }

    /// Everything since this was last asked.
    pub(super) fn take_interval(&self) -> HistogramSnapshot {
        let mut read = self.read.lock();
        self.read_out(&mut read);
        std::mem::take(&mut read.interval)
    }

    fn read_out(&self, read: &mut ReadOut) {
        let before = self.begun.fetch_xor(HOT, Ordering::AcqRel);
        let (count, was_hot) = (before & !HOT, usize::from(before & HOT != 0));
        let (cold, hot) = (&self.banks[was_hot], &self.banks[1 - was_hot]);
        // Those that have begun need a few nanoseconds more, or a turn on the processor.
        while cold.ended.load(Ordering::Acquire) != count {
            std::thread::yield_now();
        }
        let taken = cold.take();
        hot.ended.fetch_add(count, Ordering::AcqRel);
        read.total.merge(&taken);
        read.interval.merge(&taken);
    }
}

impl Bank {
    /// Empties a bank that nobody writes.
    fn take(&self) -> HistogramSnapshot {
        self.ended.store(0, Ordering::Relaxed);
        let buckets: Vec<u64> = self.buckets.iter().map(|bucket| bucket.swap(0, Ordering::Relaxed)).collect();
        let min = self.min_nanoseconds.swap(u64::MAX, Ordering::Relaxed);
        HistogramSnapshot {
            count: buckets.iter().sum(),
            buckets,
            sum: Duration::from_nanos(self.sum_nanoseconds.swap(0, Ordering::Relaxed)),
            min: Duration::from_nanos(if min == u64::MAX { 0 } else { min }),
            max: Duration::from_nanos(self.max_nanoseconds.swap(0, Ordering::Relaxed)),
        }
    }
}

fn bucket_of(took: Duration) -> usize {
    let ratio = took.as_secs_f64() / BUCKET_FIRST_SECONDS;
    if ratio <= 1.0 {
        return 0;
    }
    let bucket = ratio.ln() / BUCKET_BASE.ln();
    // Casting a float saturates, so that an absurd duration lands in the last bucket.
    (bucket.round() as usize).min(BUCKETS - 1)
}

/// One latency at one moment, or of one interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// How many were recorded.
    pub count: u64,
    /// How many fell into each bucket; see [`HistogramSnapshot::bucket_middle`].
    pub buckets: Vec<u64>,
    /// Their sum.
    pub sum: Duration,
    /// The shortest; zero if there was none.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        let zero = Duration::ZERO;
        Self { count: 0, buckets: vec![0; BUCKETS], sum: zero, min: zero, max: zero }
    }
}

impl HistogramSnapshot {
    /// Takes the recordings of `other` in.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.min = if self.count == 0 { other.min } else { self.min.min(other.min) };
        self.max = self.max.max(other.max);
        self.count += other.count;
        self.sum += other.sum;
        for (mine, others) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += others;
        }
    }

    /// The duration that stands for a bucket; the true ones lie within 5 % of it.
    pub fn bucket_middle(bucket: usize) -> Duration {
        let exponent = i32::try_from(bucket).unwrap_or(i32::MAX);
        Duration::from_secs_f64(BUCKET_FIRST_SECONDS * BUCKET_BASE.powi(exponent))
    }

    /// The duration under which a bucket's recordings lie. The last bucket has none above it: it is open.
    pub fn bucket_end(bucket: usize) -> Duration {
        Self::bucket_middle(bucket).mul_f64(BUCKET_BASE.sqrt())
    }

    /// The duration under which a share of `quantile` (0 to 1) of all lies, within 5 %; zero if there was none.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let wanted = (self.count as f64 * quantile).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Self::bucket_middle(bucket).clamp(self.min, self.max);
            }
        }
        self.max
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_lie_within_five_and_a_half_percent() {
        let histogram = Histogram::default();
        for milliseconds in 1..=1000 {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        let snapshot = histogram.total();
        for (quantile, exact) in [(0.5, 0.5), (0.99, 0.99)] {
            let found = snapshot.quantile(quantile).as_secs_f64();
            assert!((found / exact - 1.0).abs() < 0.055, "{quantile}: {found}");
        }
        assert_eq!(snapshot.count, 1000);
        assert_eq!(snapshot.sum, Duration::from_millis(500_500));
    }

    #[test]
    fn durations_outside_the_buckets_are_counted_at_the_ends() {
        assert_eq!(bucket_of(Duration::ZERO), 0);
        assert_eq!(bucket_of(Duration::from_secs(86_400)), BUCKETS - 1);
        assert_eq!(bucket_of(Duration::from_secs(100)), BUCKETS - 1);
    }

    #[test]
    fn an_interval_has_its_own_least_and_greatest() {
        let histogram = Histogram::default();
        [1, 500].into_iter().for_each(|ms| histogram.observe(Duration::from_millis(ms)));
        let first = histogram.take_interval();
        assert_eq!((first.min, first.max), (Duration::from_millis(1), Duration::from_millis(500)));
        [20, 30].into_iter().for_each(|ms| histogram.observe(Duration::from_millis(ms)));
        assert_eq!(histogram.total().count, 4, "reading the total takes nothing from the interval");
        let second = histogram.take_interval();
        assert_eq!((second.min, second.max), (Duration::from_millis(20), Duration::from_millis(30)));
        assert_eq!((second.count, second.sum), (2, Duration::from_millis(50)));
        assert_eq!(histogram.take_interval(), HistogramSnapshot::default());
        let total = histogram.total();
        assert_eq!((total.min, total.max), (Duration::from_millis(1), Duration::from_millis(500)));
    }

    #[test]
    fn nothing_is_lost_or_torn_while_others_record() {
        const THREADS: u64 = 3;
        const EACH: u64 = 20_000;
        let histogram = Histogram::default();
        let mut sum = HistogramSnapshot::default();
        let mut check = |taken: HistogramSnapshot| {
            // One duration alone is recorded, so a torn read-out shows at once.
            assert_eq!(taken.sum, Duration::from_millis(7) * u32::try_from(taken.count).expect("few"));
            sum.merge(&taken);
        };
        std::thread::scope(|scope| {
            let recorders: Vec<_> = (0..THREADS)
                .map(|_| scope.spawn(|| (0..EACH).for_each(|_| histogram.observe(Duration::from_millis(7)))))
                .collect();
            while recorders.iter().any(|recorder| !recorder.is_finished()) {
                check(histogram.take_interval());
            }
        });
        check(histogram.take_interval());
        assert_eq!(sum.count, THREADS * EACH);
        assert_eq!(histogram.total(), sum);
    }

    proptest! {
        #[test]
        fn a_bucket_stands_for_what_is_within_five_percent(exponent in 3.0_f64..11.0) {
            let took = Duration::from_nanos(10_f64.powf(exponent) as u64);
            let ratio = HistogramSnapshot::bucket_middle(bucket_of(took)).as_secs_f64() / took.as_secs_f64();
            prop_assert!((0.95..1.05).contains(&ratio), "{took:?}: {ratio}");
        }

        #[test]
        fn intervals_add_up_to_the_total(intervals in prop::collection::vec(prop::collection::vec(0_u64..200_000_000_000, 0..20), 0..8)) {
            let histogram = Histogram::default();
            let mut sum = HistogramSnapshot::default();
            for interval in &intervals {
                interval.iter().for_each(|&ns| histogram.observe(Duration::from_nanos(ns)));
                let taken = histogram.take_interval();
                prop_assert_eq!(taken.count, interval.len() as u64);
                prop_assert_eq!(taken.sum, interval.iter().map(|&ns| Duration::from_nanos(ns)).sum::<Duration>());
                prop_assert_eq!(taken.min, Duration::from_nanos(interval.iter().copied().min().unwrap_or(0)));
                prop_assert_eq!(taken.max, Duration::from_nanos(interval.iter().copied().max().unwrap_or(0)));
                sum.merge(&taken);
            }
            prop_assert_eq!(histogram.total(), sum);
        }
    }
}
