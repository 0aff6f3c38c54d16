//! What the requests cost: a dated price table and the sum.

use super::names::RequestKind;
use super::registry::Snapshot;

/// Prices of S3 Standard in US dollars a request. The default is us-east-1 as of 2026-11 (aws.amazon.com/s3/pricing).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PriceTable {
    /// PUT, COPY, POST, LIST: $0.005 for 1000.
    pub write_usd: f64,
    /// GET, HEAD and all other requests: $0.0004 for 1000.
    pub read_usd: f64,
}

impl Default for PriceTable {
    fn default() -> Self {
        Self { write_usd: 0.005 / 1000.0, read_usd: 0.0004 / 1000.0 }
    }
}

/// The price of one request. DELETE and AbortMultipartUpload are free.
fn request_usd(kind: RequestKind, prices: PriceTable) -> f64 {
    match kind {
        RequestKind::Get | RequestKind::Head | RequestKind::HeadBucket => prices.read_usd,
        RequestKind::Delete | RequestKind::DeleteMany | RequestKind::AbortUpload => 0.0,
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

/// What the requests of a snapshot cost in US dollars, transfer and storage aside.
pub fn estimate_usd(snapshot: &Snapshot, prices: PriceTable) -> f64 {
    snapshot.requests.iter().map(|&(kind, count)| count as f64 * request_usd(kind, prices)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_thousand_lists_cost_half_a_cent_and_deletes_nothing() {
        let metrics = Metrics::default();
        for _ in 0..1000 {
            metrics.request(RequestKind::List);
            metrics.request(RequestKind::Delete);
        }
        let usd = estimate_usd(&metrics.snapshot(), PriceTable::default());
        assert!((usd - 0.005).abs() < 1e-9, "{usd}");
    }
}
