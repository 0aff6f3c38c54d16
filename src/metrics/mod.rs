//! What the program counts about itself. Recording is a relaxed atomic add: it never blocks, allocates or fails.
//!
//! `names` is the whole catalogue, `registry` holds the numbers, `cost` turns requests into dollars. Nothing here knows
//! who exports the numbers.

mod cost;
mod names;
mod registry;
mod retrieval;

pub use self::cost::{BudgetChange, ClassPrice, CostMeter, PriceError, PriceTable, Spending, estimate_usd};
pub use self::names::{Counter, Gauge, Latency, RequestKind};
pub use self::registry::{HistogramSnapshot, Metrics, Snapshot};
pub use self::retrieval::{Retrieved, StorageClass};
