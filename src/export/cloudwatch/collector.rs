//! Cuts time into intervals and reads out what happened in each.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::datum::{Datum, data_of};
use crate::clock::Clock;
use crate::metrics::{Metrics, PriceTable, Snapshot};

pub(super) struct Collector {
    metrics: Arc<Metrics>,
    prices: Arc<PriceTable>,
    clock: Clock,
    interval: Duration,
    /// The numbers when the present interval began.
    earlier: Snapshot,
    began: SystemTime,
}

impl Collector {
    /// The first interval has everything that was counted before, too.
    pub(super) fn new((metrics, prices): (Arc<Metrics>, Arc<PriceTable>), clock: Clock, interval: Duration) -> Self {
        let (earlier, began) = (Metrics::default().snapshot(), begin_of(clock.wall(), interval));
        Self { metrics, prices, clock, interval, earlier, began }
    }

    #[cfg(test)]
    pub(super) fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// How long the present interval lasts yet.
    pub(super) fn until_end(&self) -> Duration {
        let now = self.clock.wall();
        let left = (self.began + self.interval).duration_since(now).unwrap_or_default();
        // The wall clock was put back: no interval is longer than itself for that.
        left.min(self.interval)
    }

    /// Ends the present interval and begins the next.
    pub(super) fn close(&mut self) -> Vec<Datum> {
        let latencies = self.metrics.take_latencies();
        let now = self.metrics.snapshot();
        let age = now.oldest_dirty.map_or(Duration::ZERO, |since| self.clock.now().saturating_duration_since(since));
        let data = data_of(&now.since(&self.earlier, latencies), self.began, age, &self.prices);
        self.earlier = now;
        self.began = begin_of(self.clock.wall(), self.interval);
        data
    }
}

/// When the interval around `now` began: at a multiple of its length since 1970.
fn begin_of(now: SystemTime, interval: Duration) -> SystemTime {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let into = since.as_nanos() % interval.as_nanos().max(1);
    now - Duration::from_nanos(u64::try_from(into).unwrap_or(0))
}
