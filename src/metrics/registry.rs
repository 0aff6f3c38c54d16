//! Where the numbers live: arrays of atomics indexed by the catalogue, read out as one [`Snapshot`].

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::ages::{DirtyAges, DirtyToken};
use super::histogram::{Histogram, HistogramSnapshot};
use super::names::{Counter, Gauge, Latency, RequestKind};
use super::retrieval::{Retrieved, StorageClass};

/// All numbers of one mount.
#[derive(Debug)]
pub struct Metrics {
    counters: [AtomicU64; Counter::ALL.len()],
    gauges: [AtomicI64; Gauge::ALL.len()],
    requests: [AtomicU64; RequestKind::ALL.len()],
    errors: [AtomicU64; RequestKind::ALL.len()],
    retrieved: [(AtomicU64, AtomicU64); StorageClass::ALL.len()],
    latencies: [Histogram; Latency::ALL.len()],
    dirty: DirtyAges,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            counters: std::array::from_fn(|_| AtomicU64::new(0)),
            gauges: std::array::from_fn(|_| AtomicI64::new(0)),
            requests: std::array::from_fn(|_| AtomicU64::new(0)),
            errors: std::array::from_fn(|_| AtomicU64::new(0)),
            retrieved: std::array::from_fn(|_| (AtomicU64::new(0), AtomicU64::new(0))),
            latencies: std::array::from_fn(|_| Histogram::default()),
            dirty: DirtyAges::default(),
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
        self.latencies[latency as usize].observe(took);
    }

    /// A file has become dirty; the answer is for [`Metrics::clean`].
    pub fn dirty(&self, since: Instant) -> DirtyToken {
        self.dirty.begin(since)
    }

    /// A file that was dirty is so no more.
    pub fn clean(&self, token: DirtyToken) {
        self.dirty.end(token);
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
            latencies: Latency::ALL.iter().map(|&l| (l, self.latencies[l as usize].total())).collect(),
            oldest_dirty: self.dirty.oldest(),
        }
    }

    /// The latencies that were recorded since this was last asked. There is one who may ask: whoever cuts time into
    /// intervals.
    pub fn take_latencies(&self) -> Vec<(Latency, HistogramSnapshot)> {
        Latency::ALL.iter().map(|&l| (l, self.latencies[l as usize].take_interval())).collect()
    }
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
    /// Since when the oldest bytes wait that are not in S3; none if there are none.
    pub oldest_dirty: Option<Instant>,
}
