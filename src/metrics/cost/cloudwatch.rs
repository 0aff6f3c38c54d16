//! What CloudWatch costs in a month: metrics, alarms, dashboard, requests.

use std::time::Duration;

use crate::metrics::{ByKind, Counter, Derived, Gauge, Latency, RequestKind};

/// Hours of the month that AWS's price pages reckon with.
const MONTH: Duration = Duration::from_secs(730 * 3600);

/// Prices in US dollars.
#[derive(Clone, Debug, PartialEq)]
pub struct CloudWatchPrices {
    /// When they held.
    pub dated: &'static str,
    /// Where.
    pub region: &'static str,
    /// A metric for a month; one that is sent for part of a month costs that part.
    pub metric_usd: f64,
    /// An alarm on a metric for a month.
    pub alarm_usd: f64,
    /// A dashboard for a month; an account's first three cost nothing.
    pub dashboard_usd: f64,
    /// One request.
    pub request_usd: f64,
}

impl Default for CloudWatchPrices {
    /// us-east-1 as of 2026-11 (aws.amazon.com/cloudwatch/pricing: the first 10,000 metrics, standard-resolution alarms).
    fn default() -> Self {
        Self {
            dated: "2026-11",
            region: "us-east-1",
            metric_usd: 0.30,
            alarm_usd: 0.10,
            dashboard_usd: 3.00,
            request_usd: 0.01 / 1000.0,
        }
    }
}

/// What a mount that exports costs in a month, in US dollars.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct CloudWatchMonth {
    /// Metrics that every mount sends.
    pub metrics: usize,
    /// Metrics by operation of S3 at most: of those that are used, twice as many (requests, and errors if there are any).
    pub operation_metrics_max: usize,
    /// What the former cost.
    pub metrics_usd: f64,
    /// What one of the latter costs.
    pub operation_metric_usd: f64,
    /// What the alarms cost.
    pub alarms_usd: f64,
    /// What the requests cost at one each minute.
    pub requests_usd: f64,
    /// What the dashboard costs if it is not one of the first three.
    pub dashboard_usd: f64,
}

impl CloudWatchPrices {
    /// The month of one mount with so many alarms, sending once in `interval`.
    pub fn month(&self, alarms: usize, interval: Duration) -> CloudWatchMonth {
        let counters = Counter::ALL.iter().filter(|it| it.is_sent_to_cloudwatch()).count();
        let gauges = Gauge::ALL.iter().filter(|it| it.is_sent_to_cloudwatch()).count();
        let metrics = counters + gauges + Latency::ALL.len() + ByKind::ALL.len() + Derived::ALL.len();
        CloudWatchMonth {
            metrics,
            operation_metrics_max: ByKind::ALL.len() * RequestKind::ALL.len(),
            metrics_usd: rounded(metrics as f64 * self.metric_usd),
            operation_metric_usd: self.metric_usd,
            alarms_usd: rounded(alarms as f64 * self.alarm_usd),
            requests_usd: rounded(MONTH.as_secs_f64() / interval.as_secs_f64() * self.request_usd),
            dashboard_usd: self.dashboard_usd,
        }
    }
}

/// To a hundredth of a cent.
fn rounded(usd: f64) -> f64 {
    (usd * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_of_a_mount_is_under_six_dollars() {
        let month = CloudWatchPrices::default().month(3, Duration::from_secs(60));
        assert_eq!((month.metrics, month.operation_metrics_max), (17, 28));
        assert_eq!((month.metrics_usd, month.alarms_usd, month.requests_usd), (5.1, 0.3, 0.438));
    }
}
