//! Where the numbers live: arrays of atomics indexed by the catalogue, read out as one [`Snapshot`].

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::names::{Counter, Gauge, Latency, RequestKind};
use super::retrieval::{Retrieved, StorageClass};

/// Buckets of a latency histogram: base 1.1 from 100 us to 100 s is 145 (error about 5 %); what lies outside is counted
/// in the first or the last. CloudWatch takes 150 distinct values a metric (API reference, MetricDatum).
const BUCKETS: usize = 145;
const BUCKET_BASE: f64 = 1.1;
const BUCKET_FIRST_SECONDS: f64 = 100e-6;

/// All numbers of one mount.
#[derive(Debug)]
pub struct Metrics {
    counters: [AtomicU64; Counter::ALL.len()],
    gauges: [AtomicI64; Gauge::ALL.len()],
    requests: [AtomicU64; RequestKind::ALL.len()],
    errors: [AtomicU64; RequestKind::ALL.len()],
    retrieved: [(AtomicU64, AtomicU64); StorageClass::ALL.len()],
    latencies: [Histogram; Latency::ALL.len()],
}

#[derive(Debug)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_nanoseconds: AtomicU64,
    min_nanoseconds: AtomicU64,
    max_nanoseconds: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            counters: std::array::from_fn(|_| AtomicU64::new(0)),
            gauges: std::array::from_fn(|_| AtomicI64::new(0)),
            requests: std::array::from_fn(|_| AtomicU64::new(0)),
            errors: std::array::from_fn(|_| AtomicU64::new(0)),
            retrieved: std::array::from_fn(|_| (AtomicU64::new(0), AtomicU64::new(0))),
            latencies: std::array::from_fn(|_| Histogram {
                buckets: std::array::from_fn(|_| AtomicU64::new(0)),
                sum_nanoseconds: AtomicU64::new(0),
                min_nanoseconds: AtomicU64::new(u64::MAX),
                max_nanoseconds: AtomicU64::new(0),
            }),
        }
    }
}

impl Metrics {
    /// Adds to a counter.
    pub fn add(&self, counter: Counter, amount: u64) {
        self.counters[counter as usize].fetch_add(amount, Relaxed);
    }

    /// Moves a gauge up or down.
    pub fn shift(&self, gauge: Gauge, by: i64) {
        self.gauges[gauge as usize].fetch_add(by, Relaxed);
    }

    /// Counts one request that was put on the wire, a repeated one included.
    pub fn request(&self, kind: RequestKind) {
        self.requests[kind as usize].fetch_add(1, Relaxed);
    }

    /// Counts one request that ended in an error.
    pub fn error(&self, kind: RequestKind) {
        self.errors[kind as usize].fetch_add(1, Relaxed);
    }

    /// Counts one GET whose answer comes from a class that bills what is read of it.
    pub fn retrieval(&self, class: StorageClass) {
        self.retrieved[class as usize].0.fetch_add(1, Relaxed);
    }

    /// Counts body bytes of such an answer.
    pub fn retrieved(&self, class: StorageClass, bytes: u64) {
        self.retrieved[class as usize].1.fetch_add(bytes, Relaxed);
    }

    /// Records how long something took.
    pub fn observe(&self, latency: Latency, took: Duration) {
        let histogram = &self.latencies[latency as usize];
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        histogram.buckets[bucket_of(took)].fetch_add(1, Relaxed);
        histogram.sum_nanoseconds.fetch_add(nanoseconds, Relaxed);
        histogram.min_nanoseconds.fetch_min(nanoseconds, Relaxed);
        histogram.max_nanoseconds.fetch_max(nanoseconds, Relaxed);
    }

    /// The present value of one counter.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Relaxed)
    }

    /// The present value of one gauge.
    pub fn gauge(&self, gauge: Gauge) -> i64 {
        self.gauges[gauge as usize].load(Relaxed)
    }

    /// How many requests of a kind were sent.
    pub fn requests(&self, kind: RequestKind) -> u64 {
        self.requests[kind as usize].load(Relaxed)
    }

    fn retrieved_of(&self, class: StorageClass) -> (StorageClass, Retrieved) {
        let (requests, bytes) = &self.retrieved[class as usize];
        (class, Retrieved { requests: requests.load(Relaxed), bytes: bytes.load(Relaxed) })
    }

    /// All numbers as they are now. Numbers that change meanwhile may be of slightly different moments.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            counters: Counter::ALL.iter().map(|&c| (c, self.counter(c))).collect(),
            gauges: Gauge::ALL.iter().map(|&g| (g, self.gauge(g))).collect(),
            requests: RequestKind::ALL.iter().map(|&k| (k, self.requests(k))).collect(),
            errors: RequestKind::ALL.iter().map(|&k| (k, self.errors[k as usize].load(Relaxed))).collect(),
            retrieved: StorageClass::ALL.iter().map(|&class| self.retrieved_of(class)).collect(),
            latencies: Latency::ALL.iter().map(|&l| (l, self.latencies[l as usize].snapshot())).collect(),
        }
    }
}

impl Histogram {
    fn snapshot(&self) -> HistogramSnapshot {
        let buckets: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let count = buckets.iter().sum();
        let min = self.min_nanoseconds.load(Relaxed);
        HistogramSnapshot {
            count,
            buckets,
            sum: Duration::from_nanos(self.sum_nanoseconds.load(Relaxed)),
            min: Duration::from_nanos(if min == u64::MAX { 0 } else { min }),
            max: Duration::from_nanos(self.max_nanoseconds.load(Relaxed)),
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

/// All numbers at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counters since the mount began.
    pub counters: Vec<(Counter, u64)>,
    /// Gauges.
    pub gauges: Vec<(Gauge, i64)>,
    /// Requests sent by kind, since the mount began.
    pub requests: Vec<(RequestKind, u64)>,
    /// Requests that ended in an error by kind, since the mount began.
    pub errors: Vec<(RequestKind, u64)>,
    /// What was read from classes that bill it, since the mount began.
    pub retrieved: Vec<(StorageClass, Retrieved)>,
    /// Latencies since the mount began.
    pub latencies: Vec<(Latency, HistogramSnapshot)>,
}

/// One latency at one moment.
#[derive(Clone, Debug)]
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

impl HistogramSnapshot {
    /// The duration that stands for a bucket; the true ones lie within 5 % of it.
    pub fn bucket_middle(bucket: usize) -> Duration {
        let exponent = i32::try_from(bucket).unwrap_or(i32::MAX);
        Duration::from_secs_f64(BUCKET_FIRST_SECONDS * BUCKET_BASE.powi(exponent))
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
    use super::*;

    #[test]
    fn quantiles_lie_within_five_and_a_half_percent() {
        let metrics = Metrics::default();
        for milliseconds in 1..=1000 {
            metrics.observe(Latency::Read, Duration::from_millis(milliseconds));
        }
        let snapshot = metrics.latencies[Latency::Read as usize].snapshot();
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
}
