//! What happened between two snapshots. Pure.

use std::time::{Duration, Instant};

use super::histogram::HistogramSnapshot;
use super::names::{Counter, Latency};
use super::registry::Snapshot;
use super::retrieval::{Retrieved, StorageClass};

impl Snapshot {
    /// What was counted after `earlier`: counters and requests as differences, gauges as they are now, and the latencies
    /// that [`super::Metrics::take_latencies`] gave for the same stretch (least and greatest are no differences).
    pub fn since(&self, earlier: &Self, latencies: Vec<(Latency, HistogramSnapshot)>) -> Self {
        Self {
            counters: differences(&self.counters, &earlier.counters),
            gauges: self.gauges.clone(),
            requests: differences(&self.requests, &earlier.requests),
            errors: differences(&self.errors, &earlier.errors),
            retrieved: retrieved_since(&self.retrieved, &earlier.retrieved),
            latencies,
            oldest_dirty: self.oldest_dirty,
        }
    }

    /// How old the oldest unpublished bytes are at `now`; zero if there are none.
    pub fn dirty_age(&self, now: Instant) -> Duration {
        self.oldest_dirty.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// The share of blocks that were found in a cache, in percent; `None` if none was asked for.
    pub fn cache_hit_percent(&self) -> Option<f64> {
        let count = |wanted| self.counters.iter().find(|(counter, _)| *counter == wanted).map_or(0, |(_, n)| *n);
        let (hits, misses) = (count(Counter::CacheHits), count(Counter::CacheMisses));
        (hits + misses > 0).then(|| hits as f64 * 100.0 / (hits + misses) as f64)
    }
}

fn retrieved_since(
    later: &[(StorageClass, Retrieved)],
    earlier: &[(StorageClass, Retrieved)],
) -> Vec<(StorageClass, Retrieved)> {
    let before =
        |class| earlier.iter().find(|(other, _)| *other == class).map_or((0, 0), |(_, it)| (it.requests, it.bytes));
    let difference = |&(class, now): &(StorageClass, Retrieved)| {
        let (requests, bytes) = before(class);
        let requests = now.requests.saturating_sub(requests);
        (class, Retrieved { requests, bytes: now.bytes.saturating_sub(bytes) })
    };
    later.iter().map(difference).collect()
}

fn differences<K: Copy + PartialEq>(later: &[(K, u64)], earlier: &[(K, u64)]) -> Vec<(K, u64)> {
    let before = |key: K| earlier.iter().find(|(other, _)| *other == key).map_or(0, |(_, n)| *n);
    later.iter().map(|&(key, n)| (key, n.saturating_sub(before(key)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Gauge, Metrics, RequestKind};

    #[test]
    fn an_interval_holds_what_was_counted_in_it() {
        let metrics = Metrics::default();
        metrics.add(Counter::BytesRead, 10);
        metrics.request(RequestKind::Get);
        metrics.shift(Gauge::DirtyFiles, 3);
        metrics.observe(Latency::Read, Duration::from_millis(9));
        let (first, _) = (metrics.snapshot(), metrics.take_latencies());
        metrics.add(Counter::BytesRead, 5);
        metrics.request(RequestKind::Get);
        metrics.error(RequestKind::List);
        metrics.shift(Gauge::DirtyFiles, -1);
        metrics.observe(Latency::Read, Duration::from_millis(2));
        let interval = metrics.snapshot().since(&first, metrics.take_latencies());
        assert!(interval.counters.contains(&(Counter::BytesRead, 5)));
        assert!(interval.gauges.contains(&(Gauge::DirtyFiles, 2)), "a gauge is what it is now");
        assert!(interval.requests.contains(&(RequestKind::Get, 1)));
        assert!(interval.errors.contains(&(RequestKind::List, 1)));
        let (_, read) = interval.latencies.iter().find(|(l, _)| *l == Latency::Read).expect("every latency is there");
        assert_eq!((read.count, read.min, read.max), (1, Duration::from_millis(2), Duration::from_millis(2)));
    }

    #[test]
    fn the_hit_ratio_is_of_the_interval_and_missing_without_a_question() {
        let metrics = Metrics::default();
        metrics.add(Counter::CacheMisses, 4);
        let first = metrics.snapshot();
        assert_eq!(first.cache_hit_percent(), Some(0.0));
        metrics.add(Counter::CacheHits, 3);
        metrics.add(Counter::CacheMisses, 1);
        let later = metrics.snapshot();
        assert_eq!(later.since(&first, Vec::new()).cache_hit_percent(), Some(75.0));
        assert_eq!(later.since(&later, Vec::new()).cache_hit_percent(), None);
    }
}
