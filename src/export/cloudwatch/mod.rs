//! The export to CloudWatch: what happened in each interval, sent with PutMetricData.
//!
//! One task closes intervals, at whole multiples of their length on the wall clock; another one sends them. So an interval
//! is closed on time, however CloudWatch behaves, and has a timestamp of its own, however the clock behaves. While it is away intervals wait in a bounded ring and are sent later under
//! their own timestamps. Never touches I/O: it only reads numbers.

mod client;
mod collector;
mod datum;
mod pending;
mod schedule;
mod sender;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

pub use self::client::{CloudWatchSink, put_error};
use self::collector::Collector;
pub use self::datum::{Datum, Distribution, Value};
use self::pending::Pending;
use self::sender::{Phase, Sender};
pub use self::sender::{PutError, Sink};
use crate::clock::Clock;
use crate::metrics::{Metrics, PriceTable};

/// The longest that the end of a mount waits for the last data.
const LAST_FLUSH_MAX: Duration = Duration::from_secs(3);
/// Intervals of a fleet end at the same moment; each mount sends its own within the first quarter of the next, and not
/// later than this.
const JITTER_MAX: Duration = Duration::from_secs(15);

/// A running export.
#[derive(Debug)]
pub struct CloudWatchExport {
    phase: watch::Sender<Phase>,
    collector: JoinHandle<()>,
    sender: JoinHandle<()>,
}

impl CloudWatchExport {
    /// Begins to export. Call inside a tokio runtime. `dimension_bytes` is what the dimensions of a datum take.
    pub fn start(
        numbers: (Arc<Metrics>, Arc<PriceTable>),
        clock: Clock,
        interval: Duration,
        dimension_bytes: usize,
        sink: Box<dyn Sink>,
    ) -> Self {
        let pending = Arc::new(Mutex::new(Pending::new(dimension_bytes)));
        let wake = Arc::new(Notify::new());
        let (phase, seen) = watch::channel(Phase::Running);
        let sender = Sender::new(sink, Arc::clone(&pending), Arc::clone(&wake), jitter(interval));
        let collector = Collector::new(numbers, clock, interval);
        Self {
            collector: tokio::spawn(collect(collector, pending, wake, seen.clone())),
            sender: tokio::spawn(sender.run(seen)),
            phase,
        }
    }

    /// Closes the last interval and sends what waits, within three seconds.
    pub async fn finish(self) {
        let (stop_collector, stop_sender) = (self.collector.abort_handle(), self.sender.abort_handle());
        let flush = async {
            self.phase.send_replace(Phase::Closing);
            // A panic there ends the export, not the mount.
            let _ = self.collector.await;
            self.phase.send_replace(Phase::Closed);
            let _ = self.sender.await;
        };
        if tokio::time::timeout(LAST_FLUSH_MAX, flush).await.is_err() {
            stop_collector.abort();
            stop_sender.abort();
            tracing::warn!("the last metrics could not be sent to CloudWatch within {LAST_FLUSH_MAX:?}");
        }
    }
}

/// How long after the end of an interval this mount sends it.
fn jitter(interval: Duration) -> Duration {
    (interval / 4).min(JITTER_MAX).mul_f64(fastrand::f64())
}

async fn collect(
    mut collector: Collector,
    pending: Arc<Mutex<Pending>>,
    wake: Arc<Notify>,
    mut phase: watch::Receiver<Phase>,
) {
    let mut is_full = false;
    loop {
        let is_last = tokio::select! {
            () = tokio::time::sleep(collector.until_end()) => false,
            _ = phase.wait_for(|phase| *phase != Phase::Running) => true,
        };
        if !is_last && !collector.until_end().is_zero() {
            // Timers and the wall clock need not agree.
            continue;
        }
        let dropped = pending.lock().push(collector.close());
        if dropped && !is_full {
            tracing::warn!("CloudWatch has been away so long that the oldest metrics are given up");
        }
        is_full = dropped;
        wake.notify_one();
        if is_last {
            return;
        }
    }
}
