//! From the numbers of one interval to data for CloudWatch. Pure.
//!
//! A latency is sent as Values and Counts, from which CloudWatch reckons percentiles, with the exact statistics beside
//! them. What did not happen in an interval is not sent, except where a line at zero says that the mount lives.

use std::time::{Duration, SystemTime};

use crate::metrics::{
    ByKind, Counter, Derived, HistogramSnapshot, Latency, PriceTable, RequestKind, Snapshot, estimate_usd,
};

/// Distinct values that a datum may have (API reference, MetricDatum).
pub(super) const VALUES_MAX: usize = 150;

/// One number, or one distribution, of one interval.
#[derive(Clone, Debug, PartialEq)]
pub struct Datum {
    /// Name in the catalogue.
    pub name: &'static str,
    /// The operation of S3, for numbers that are kept by operation.
    pub operation: Option<&'static str>,
    /// Unit, as CloudWatch spells it.
    pub unit: &'static str,
    /// When the interval began.
    pub at: SystemTime,
    /// What it is.
    pub value: Value,
}

/// The value of a datum.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A single number.
    Single(f64),
    /// Many, with their exact statistics.
    Distribution(Distribution),
}

/// Values and how often each was there.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Distinct values, rising.
    pub values: Vec<f64>,
    /// How often each was there.
    pub counts: Vec<f64>,
    /// How many there were.
    pub sample_count: f64,
    /// Their exact sum.
    pub sum: f64,
    /// The exact least.
    pub minimum: f64,
    /// The exact greatest.
    pub maximum: f64,
}

/// The data of an interval that began at `at`; `age` is how old the oldest unpublished bytes are.
pub(super) fn data_of(interval: &Snapshot, at: SystemTime, age: Duration, prices: &PriceTable) -> Vec<Datum> {
    let mut data = Vec::new();
    let mut put = |name, operation, unit, value| data.push(Datum { name, operation, unit, at, value });
    for &(counter, count) in interval.counters.iter().filter(|(counter, _)| counter.is_sent_to_cloudwatch()) {
        put(Counter::name(counter), None, counter.unit(), Value::Single(count as f64));
    }
    for &(gauge, value) in interval.gauges.iter().filter(|(gauge, _)| gauge.is_sent_to_cloudwatch()) {
        put(gauge.name(), None, gauge.unit(), Value::Single(value.max(0) as f64));
    }
    for (latency, histogram) in interval.latencies.iter().filter(|(_, histogram)| histogram.count > 0) {
        put(Latency::name(*latency), None, latency.unit(), Value::Distribution(distribution(histogram)));
    }
    for (what, by_kind) in [(ByKind::Requests, &interval.requests), (ByKind::Errors, &interval.errors)] {
        let all: u64 = by_kind.iter().map(|(_, count)| count).sum();
        put(what.name(), None, what.unit(), Value::Single(all as f64));
        for &(kind, count) in by_kind.iter().filter(|(_, count)| *count > 0) {
            put(what.name(), Some(RequestKind::name(kind)), what.unit(), Value::Single(count as f64));
        }
    }
    if let Some(percent) = interval.cache_hit_percent() {
        put(Derived::CacheHitRatio.name(), None, Derived::CacheHitRatio.unit(), Value::Single(percent));
    }
    let age = Value::Single(age.as_secs_f64());
    put(Derived::OldestDirtySeconds.name(), None, Derived::OldestDirtySeconds.unit(), age);
    let cost = Value::Single(estimate_usd(interval, prices));
    put(Derived::EstimatedCost.name(), None, Derived::EstimatedCost.unit(), cost);
    data
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e6
}

fn distribution(histogram: &HistogramSnapshot) -> Distribution {
    let buckets = || histogram.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
    // The middle of the first and of the last bucket may lie outside of what there was.
    let middle = |bucket| HistogramSnapshot::bucket_middle(bucket).clamp(histogram.min, histogram.max);
    Distribution {
        values: buckets().map(|(bucket, _)| milliseconds(middle(bucket))).collect(),
        counts: buckets().map(|(_, count)| *count as f64).collect(),
        sample_count: histogram.count as f64,
        sum: milliseconds(histogram.sum),
        minimum: milliseconds(histogram.min),
        maximum: milliseconds(histogram.max),
    }
}

impl Datum {
    /// Data of at most [`VALUES_MAX`] values each that say the same together: counts and sums add up.
    pub(super) fn split(self) -> Vec<Self> {
        let Value::Distribution(whole) = &self.value else { return vec![self] };
        if whole.values.len() <= VALUES_MAX {
            return vec![self];
        }
        let pieces = whole.values.chunks(VALUES_MAX).zip(whole.counts.chunks(VALUES_MAX));
        let mut parts: Vec<Distribution> = pieces
            .map(|(values, counts)| Distribution {
                values: values.to_vec(),
                counts: counts.to_vec(),
                sample_count: counts.iter().sum(),
                sum: values.iter().zip(counts).map(|(value, count)| value * count).sum(),
                minimum: values[0],
                maximum: values[values.len() - 1],
            })
            .collect();
        // Only the whole is known exactly: each part gets its share of the sum, and the ends their true extremes.
        let reckoned: f64 = parts.iter().map(|part| part.sum).sum();
        let factor = if reckoned > 0.0 { whole.sum / reckoned } else { 1.0 };
        parts.iter_mut().for_each(|part| part.sum *= factor);
        if let Some(first) = parts.first_mut() {
            first.minimum = whole.minimum;
        }
        if let Some(last) = parts.last_mut() {
            last.maximum = whole.maximum;
        }
        for part in &mut parts {
            // Of few values the share may lie beside them; a mean beyond the extremes would be no statistics.
            let mean = part.sum / part.sample_count;
            (part.minimum, part.maximum) = (part.minimum.min(mean), part.maximum.max(mean));
        }
        parts.into_iter().map(|part| Self { value: Value::Distribution(part), ..self.clone() }).collect()
    }

    /// An upper bound of what it takes in a request, its dimensions aside.
    pub(super) fn bytes_max(&self) -> usize {
        // Names of fields, timestamp and unit; a float is nine bytes in CBOR.
        const FIXED: usize = 240;
        let values = match &self.value {
            Value::Single(_) => 1,
            Value::Distribution(it) => it.values.len() + it.counts.len() + 4,
        };
        FIXED + self.name.len() + self.operation.map_or(0, |it| it.len() + 40) + 9 * values
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::Metrics;

    fn data(metrics: &Metrics) -> Vec<Datum> {
        data_of(&metrics.snapshot(), SystemTime::UNIX_EPOCH, Duration::from_secs(7), &PriceTable::default())
    }

    fn find<'a>(data: &'a [Datum], name: &str, operation: Option<&str>) -> Option<&'a Value> {
        data.iter().find(|it| it.name == name && it.operation == operation).map(|it| &it.value)
    }

    #[test]
    fn an_idle_mount_sends_zeros_and_no_latency() {
        let data = data(&Metrics::default());
        assert_eq!(find(&data, "BytesRead", None), Some(&Value::Single(0.0)));
        assert_eq!(find(&data, "S3Errors", None), Some(&Value::Single(0.0)), "an alarm wants to see it");
        assert_eq!(find(&data, "OldestDirtySeconds", None), Some(&Value::Single(7.0)));
        assert_eq!(find(&data, "ReadLatency", None), None);
        assert_eq!(find(&data, "CacheHitRatio", None), None);
        assert!(data.iter().all(|it| it.operation.is_none()));
    }

    #[test]
    fn requests_are_sent_by_operation_and_in_all() {
        let metrics = Metrics::default();
        [RequestKind::Get, RequestKind::Get, RequestKind::List].into_iter().for_each(|kind| metrics.request(kind));
        let data = data(&metrics);
        assert_eq!(find(&data, "S3Requests", Some("GetObject")), Some(&Value::Single(2.0)));
        assert_eq!(find(&data, "S3Requests", Some("ListObjectsV2")), Some(&Value::Single(1.0)));
        assert_eq!(find(&data, "S3Requests", None), Some(&Value::Single(3.0)));
    }

    #[test]
    fn a_latency_has_its_exact_statistics() {
        let metrics = Metrics::default();
        (1..=100).for_each(|ms| metrics.observe(Latency::Read, Duration::from_micros(ms * 1003)));
        let Some(Value::Distribution(it)) = find(&data(&metrics), "ReadLatency", None).cloned() else { panic!() };
        assert_eq!((it.sample_count, it.minimum, it.maximum), (100.0, 1.003, 100.3));
        assert!((it.sum - 5050.0 * 1.003).abs() < 1e-9, "{}", it.sum);
        assert_eq!(it.counts.iter().sum::<f64>(), 100.0);
        assert!(it.values.windows(2).all(|pair| pair[0] < pair[1]), "distinct and rising");
        assert!(it.values.iter().all(|value| (it.minimum..=it.maximum).contains(value)));
    }

    #[test]
    fn many_values_are_parted_and_add_up() {
        let values: Vec<f64> = (1..=401).map(f64::from).collect();
        let sum = values.iter().sum::<f64>() * 2.0 + 5.0;
        let counts = vec![2.0; 401];
        let it = Distribution { values, counts, sample_count: 802.0, sum, minimum: 0.9, maximum: 401.4 };
        let value = Value::Distribution(it);
        let datum = Datum { name: "x", operation: None, unit: "Count", at: SystemTime::UNIX_EPOCH, value };
        let parts = datum.split();
        let parts: Vec<_> = parts
            .iter()
            .map(|part| match &part.value {
                Value::Distribution(it) => it,
                Value::Single(_) => panic!("a distribution stays one"),
            })
            .collect();
        assert_eq!(parts.iter().map(|it| it.values.len()).collect::<Vec<_>>(), [150, 150, 101]);
        assert_eq!(parts.iter().map(|it| it.sample_count).sum::<f64>(), 802.0);
        assert!((parts.iter().map(|it| it.sum).sum::<f64>() - sum).abs() < 1e-6);
        assert_eq!((parts[0].minimum, parts[2].maximum), (0.9, 401.4));
    }

    proptest! {
        #[test]
        fn data_of_any_latencies_are_such_as_cloudwatch_takes(exponents in prop::collection::vec(-1.0_f64..12.0, 1..2000)) {
            let metrics = Metrics::default();
            let durations: Vec<_> = exponents.iter().map(|it| Duration::from_nanos(10_f64.powf(*it) as u64)).collect();
            durations.iter().for_each(|&took| metrics.observe(Latency::Read, took));
            let whole = data(&metrics).into_iter().find(|it| it.name == "ReadLatency").expect("there are some");
            let (mut count, mut sum) = (0.0, 0.0);
            for part in whole.split() {
                let Value::Distribution(it) = part.value else { panic!("a distribution stays one") };
                prop_assert!(it.values.len() <= VALUES_MAX && it.values.len() == it.counts.len());
                prop_assert!(it.values.windows(2).all(|pair| pair[0] < pair[1]), "distinct and rising");
                prop_assert!(it.minimum <= it.values[0] && it.values[it.values.len() - 1] <= it.maximum);
                let mean = it.sum / it.sample_count;
                prop_assert!(it.minimum <= mean * 1.000_001 && mean <= it.maximum * 1.000_001);
                prop_assert_eq!(it.counts.iter().sum::<f64>(), it.sample_count);
                (count, sum) = (count + it.sample_count, sum + it.sum);
            }
            prop_assert_eq!(count, durations.len() as f64);
            let exact = milliseconds(durations.iter().sum());
            prop_assert!((sum - exact).abs() <= exact * 1e-9, "{} and {}", sum, exact);
        }
    }
}
