//! What the requests cost: an estimate in US dollars, from what was counted and a price table.
//!
//! Every request that was sent counts at its full price, those that were answered with an error too: S3 forgives some of
//! them, so the estimate is never below the bill's line for requests. Storage and transfer out of the region are not in
//! it, nor what a server-side copy retrieves from a class that bills retrieval.

mod budget;
mod cloudwatch;
mod prices;

pub use self::budget::{BudgetChange, CostMeter, Spending};
pub use self::cloudwatch::{CloudWatchMonth, CloudWatchPrices};
pub use self::prices::{ClassPrice, PriceError, PriceTable};
use super::names::RequestKind;
use super::registry::Snapshot;

/// Bytes of the gigabyte that S3 bills.
const BILLED_GIGABYTE_BYTES: f64 = (1_u64 << 30) as f64;

/// The price of one request on S3 Standard.
fn request_usd(kind: RequestKind, prices: &PriceTable) -> f64 {
    match kind {
        RequestKind::Get | RequestKind::Head | RequestKind::HeadBucket => prices.read_usd,
        RequestKind::Delete | RequestKind::DeleteMany | RequestKind::AbortUpload => prices.delete_usd,
        RequestKind::List
        | RequestKind::Put
        | RequestKind::Copy
        | RequestKind::CreateUpload
        | RequestKind::UploadPart
        | RequestKind::CopyPart
        | RequestKind::CompleteUpload
        | RequestKind::ListUploads => prices.write_usd,
    }
}

/// What a snapshot cost in US dollars: its requests, and what was retrieved from classes that bill it.
pub fn estimate_usd(snapshot: &Snapshot, prices: &PriceTable) -> f64 {
    let requests: f64 = snapshot.requests.iter().map(|&(kind, count)| count as f64 * request_usd(kind, prices)).sum();
    let retrieved: f64 = snapshot
        .retrieved
        .iter()
        .map(|&(class, read)| {
            let price = prices.class(class);
            let dearer_usd = (price.read_usd - prices.read_usd).max(0.0);
            read.requests as f64 * dearer_usd + read.bytes as f64 / BILLED_GIGABYTE_BYTES * price.gigabyte_usd
        })
        .sum();
    requests + retrieved
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Metrics, StorageClass};

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-9, "{found} is not {wanted}");
    }

    #[test]
    fn a_thousand_lists_cost_half_a_cent_and_deletes_nothing() {
        let metrics = Metrics::default();
        for _ in 0..1000 {
            metrics.request(RequestKind::List);
            metrics.request(RequestKind::Delete);
        }
        near(estimate_usd(&metrics.snapshot(), &PriceTable::default()), 0.005);
    }

    #[test]
    fn a_gigabyte_of_glacier_instant_retrieval_costs_three_cents_and_its_dearer_gets() {
        let metrics = Metrics::default();
        for _ in 0..1000 {
            metrics.request(RequestKind::Get);
            metrics.retrieval(StorageClass::GlacierInstantRetrieval);
        }
        metrics.retrieved(StorageClass::GlacierInstantRetrieval, 1 << 30);
        near(estimate_usd(&metrics.snapshot(), &PriceTable::default()), 0.03 + 0.01);
    }

    #[test]
    fn intelligent_tiering_is_read_at_the_price_of_standard() {
        let metrics = Metrics::default();
        metrics.request(RequestKind::Get);
        metrics.retrieval(StorageClass::IntelligentTiering);
        metrics.retrieved(StorageClass::IntelligentTiering, 5 << 30);
        near(estimate_usd(&metrics.snapshot(), &PriceTable::default()), 0.0004 / 1000.0);
    }
}
