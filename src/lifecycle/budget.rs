//! Watches what a mount spends, says when that is over the budget, and slows the prefetcher then. Refuses nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Failure;
use crate::clock::Clock;
use crate::config::MountConfig;
use crate::fs::FileSystem;
use crate::metrics::{BudgetChange, CostMeter, Metrics, PriceTable, Spending, estimate_usd};

/// How often what was spent is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The price table of `--price-table`, or the one that is built in.
pub(super) fn prices(path: Option<&Path>) -> Result<PriceTable, Failure> {
    let Some(path) = path else { return Ok(PriceTable::default()) };
    let bad = |error: &dyn std::fmt::Display| Failure::usage(format!("--price-table {}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| bad(&error))?;
    PriceTable::parse(&text).map_err(|error| bad(&error))
}

/// What a mount spends.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    meter: Arc<Mutex<CostMeter>>,
}

impl Watch {
    pub(super) fn new(config: &MountConfig, clock: &Clock) -> Self {
        Self { meter: Arc::new(Mutex::new(CostMeter::new(config.budget_usd_per_hour(), clock.now()))) }
    }

    /// As of the last look.
    pub(super) fn spending(&self) -> Spending {
        self.meter.lock().spending()
    }

    /// Looks every second until the file system is gone.
    pub(super) fn begin(&self, metrics: &Arc<Metrics>, prices: &Arc<PriceTable>, fs: &Arc<FileSystem>, clock: Clock) {
        let (metrics, prices, fs, watch) = (Arc::clone(metrics), Arc::clone(prices), Arc::downgrade(fs), self.clone());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let Some(fs) = fs.upgrade() else { return };
                let usd = estimate_usd(&metrics.snapshot(), &prices);
                let (change, spending) = {
                    let mut meter = watch.meter.lock();
                    let change = meter.record(clock.now(), usd);
                    (change, meter.spending())
                };
                fs.slow_read_ahead(spending.read_ahead_divisor);
                say(change, spending);
            }
        });
    }
}

fn say(change: Option<BudgetChange>, spending: Spending) {
    let budget = spending.budget_usd_per_hour.unwrap_or_default();
    match change {
        Some(BudgetChange::Exceeded) => tracing::warn!(
            "over budget: requests and retrieval cost ${:.4} an hour, and --budget-usd-per-hour is {budget}; less is \
             read ahead until that is over, and nothing is refused",
            spending.usd_per_hour
        ),
        Some(BudgetChange::Recovered) => {
            tracing::info!("within the budget of ${budget} an hour again: ${:.4}", spending.usd_per_hour);
        }
        None => {}
    }
}
