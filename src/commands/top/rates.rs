//! Rates out of successive answers of a mount: what happened between two of them, by the second. Pure.

use crate::export::status::{LatencyTold, Status};

/// What happened between two answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rates {
    /// Bytes a second answered to applications.
    pub(super) read: f64,
    /// Bytes a second taken from applications.
    pub(super) written: f64,
    /// Bytes a second received from S3.
    pub(super) received: f64,
    /// Bytes a second sent to S3.
    pub(super) sent: f64,
    /// Requests a second, all kinds.
    pub(super) requests: f64,
    /// Errors a second, all kinds.
    pub(super) errors: f64,
    /// Requests a second by kind, the busiest first; every kind that was ever sent.
    pub(super) by_kind: Vec<Kind>,
    /// Share of blocks found in the cache, of those that were looked for; `None` if none were.
    pub(super) hit_share: Option<f64>,
    /// Median and 99th percentile in milliseconds; `None` where nothing was measured.
    pub(super) read_ms: Option<(f64, f64)>,
    /// The same of writes.
    pub(super) write_ms: Option<(f64, f64)>,
    /// The same of S3's first bytes.
    pub(super) first_byte_ms: Option<(f64, f64)>,
    /// US dollars an hour.
    pub(super) usd_per_hour: f64,
}

/// Requests of one kind.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Kind {
    pub(super) name: String,
    pub(super) per_second: f64,
    pub(super) total: u64,
    pub(super) errors: u64,
}

/// What happened from `before` to `now`. A daemon that was started anew counts from nothing: then `before` is ignored.
pub(super) fn between(before: &Status, now: &Status) -> Rates {
    let nothing = Status::default();
    let is_same = before.pid == now.pid && before.uptime_seconds <= now.uptime_seconds;
    let before = if is_same { before } else { &nothing };
    let seconds = (now.uptime_seconds - before.uptime_seconds).max(1e-3);
    let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
    let sum = |table: &std::collections::BTreeMap<String, u64>| table.values().sum::<u64>();
    let mut by_kind: Vec<Kind> = now
        .requests
        .iter()
        .map(|(name, total)| Kind {
            name: name.clone(),
            per_second: rate(before.requests.get(name).copied().unwrap_or(0), *total),
            total: *total,
            errors: now.errors.get(name).copied().unwrap_or(0),
        })
        .collect();
    by_kind.sort_by(|a, b| b.per_second.total_cmp(&a.per_second).then(b.total.cmp(&a.total)));
    let (hits, misses) =
        (now.cache.hits.saturating_sub(before.cache.hits), now.cache.misses.saturating_sub(before.cache.misses));
    let latency = |name: &str| quantiles(before.latencies.get(name), now.latencies.get(name)?);
    Rates {
        read: rate(before.bytes_read, now.bytes_read),
        written: rate(before.bytes_written, now.bytes_written),
        received: rate(before.s3_bytes_received, now.s3_bytes_received),
        sent: rate(before.s3_bytes_sent, now.s3_bytes_sent),
        requests: rate(sum(&before.requests), sum(&now.requests)),
        errors: rate(sum(&before.errors), sum(&now.errors)),
        by_kind,
        hit_share: (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64),
        read_ms: latency("ReadLatency"),
        write_ms: latency("WriteLatency"),
        first_byte_ms: latency("S3FirstByteLatency"),
        usd_per_hour: (now.cost.usd - before.cost.usd).max(0.0) / seconds * 3600.0,
    }
}

/// Median and 99th percentile of what was measured between two answers.
fn quantiles(before: Option<&LatencyTold>, now: &LatencyTold) -> Option<(f64, f64)> {
    let earlier = |middle: f64| {
        let found = before.and_then(|it| it.buckets.iter().find(|(at, _)| (at - middle).abs() < middle * 1e-6));
        found.map_or(0, |(_, count)| *count)
    };
    let fresh: Vec<(f64, u64)> =
        now.buckets.iter().map(|&(middle, count)| (middle, count.saturating_sub(earlier(middle)))).collect();
    let total: u64 = fresh.iter().map(|(_, count)| count).sum();
    if total == 0 {
        return None;
    }
    let at = |share: f64| {
        let wanted = (total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for &(middle, count) in &fresh {
            seen += count;
            if seen >= wanted {
                return middle;
            }
        }
        0.0
    };
    Some((at(0.5), at(0.99)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(uptime_seconds: f64) -> Status {
        Status { pid: 7, uptime_seconds, ..Status::default() }
    }

    #[test]
    fn rates_are_differences_by_the_time_between() {
        let mut before = Status { bytes_read: 1000, ..at(10.0) };
        before.requests.insert("GetObject".into(), 10);
        before.cost.usd = 1.0;
        let mut now = Status { bytes_read: 5000, ..at(12.0) };
        now.requests.insert("GetObject".into(), 14);
        now.requests.insert("PutObject".into(), 10);
        now.errors.insert("PutObject".into(), 3);
        now.cost.usd = 1.5;
        now.cache.hits = 3;
        now.cache.misses = 1;
        let rates = between(&before, &now);
        assert_eq!((rates.read, rates.requests, rates.errors), (2000.0, 7.0, 1.5));
        assert_eq!(rates.hit_share, Some(0.75));
        assert_eq!(rates.usd_per_hour, 900.0);
        let kinds: Vec<_> = rates.by_kind.iter().map(|kind| (kind.name.as_str(), kind.per_second)).collect();
        assert_eq!(kinds, [("PutObject", 5.0), ("GetObject", 2.0)]);
    }

    #[test]
    fn a_daemon_that_was_started_anew_gives_no_negative_rates() {
        let before = Status { bytes_read: 1000, ..at(100.0) };
        let now = Status { pid: 8, bytes_read: 300, ..at(3.0) };
        assert_eq!(between(&before, &now).read, 100.0);
        let again = Status { bytes_read: 30, ..at(3.0) };
        assert_eq!(between(&before, &again).read, 10.0, "the same number, and younger");
    }

    #[test]
    fn latencies_are_those_of_the_time_between() {
        let mut before = at(1.0);
        let slow = LatencyTold { count: 100, buckets: vec![(1.0, 0), (500.0, 100)], ..LatencyTold::default() };
        before.latencies.insert("ReadLatency".into(), slow);
        let mut now = at(2.0);
        let both = LatencyTold { count: 200, buckets: vec![(1.0, 98), (500.0, 102)], ..LatencyTold::default() };
        now.latencies.insert("ReadLatency".into(), both);
        assert_eq!(between(&before, &now).read_ms, Some((1.0, 500.0)));
        assert_eq!(between(&now, &now).read_ms, None, "nothing happened");
        assert_eq!(between(&before, &now).write_ms, None);
    }
}
