//! Reads out at the end of each interval what happened in it.

use std::sync::Arc;
use std::time::Duration;

use super::datum::{Datum, data_of};
use super::schedule::Schedule;
use crate::clock::Clock;
use crate::metrics::{Metrics, PriceTable, Snapshot};

pub(super) struct Collector {
    metrics: Arc<Metrics>,
    prices: Arc<PriceTable>,
    clock: Clock,
    schedule: Schedule,
    /// The numbers when the present interval began.
    earlier: Snapshot,
}

impl Collector {
    /// The first interval has everything that was counted before, too.
    pub(super) fn new((metrics, prices): (Arc<Metrics>, Arc<PriceTable>), clock: Clock, interval: Duration) -> Self {
        let schedule = Schedule::new(interval, clock.wall(), clock.now());
        Self { metrics, prices, clock, schedule, earlier: Metrics::default().snapshot() }
    }

    /// How long the present interval lasts yet.
    pub(super) fn until_end(&self) -> Duration {
        self.schedule.until_end(self.clock.wall(), self.clock.now())
    }

    /// Ends the present interval and begins the next.
    pub(super) fn close(&mut self) -> Vec<Datum> {
        let latencies = self.metrics.take_latencies();
        let now = self.metrics.snapshot();
        let age = now.dirty_age(self.clock.now());
        let stamp = self.schedule.end(self.clock.wall(), self.clock.now());
        let data = data_of(&now.since(&self.earlier, latencies), stamp, age, &self.prices);
        self.earlier = now;
        data
    }
}
