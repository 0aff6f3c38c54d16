//! What the program counts about itself. Recording is a relaxed atomic add: it never blocks, allocates or fails.
//!
//! `names` is the whole catalogue (docs/METRICS.md is made from it), `registry` holds the numbers, `histogram` the
//! durations, `interval` cuts the numbers into stretches of time, `cost` turns requests into dollars. Nothing here knows who
//! exports the numbers.

mod ages;
mod cost;
mod histogram;
mod interval;
mod names;
mod registry;
mod retrieval;
#[cfg(test)]
mod tests;

pub use self::ages::DirtyToken;
pub use self::cost::{
    BudgetChange, ClassPrice, CloudWatchMonth, CloudWatchPrices, CostMeter, PriceError, PriceTable, Spending,
    estimate_usd,
};
pub use self::histogram::HistogramSnapshot;
pub use self::names::{ByKind, Counter, Derived, Gauge, Latency, RequestKind, snake_case};
pub use self::registry::{Metrics, Snapshot};
pub use self::retrieval::{Retrieved, StorageClass};
