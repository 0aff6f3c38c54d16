//! What CloudWatch would answer about the data that it took: statistics and percentiles of a metric. Pure.

use std::collections::BTreeSet;

use crate::data::{Dimensions, Point};

/// Points of one metric with exactly these dimensions.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// In the order in which they came.
    pub points: Vec<Point>,
}

impl Series {
    /// Those of `points` that are of the metric.
    pub fn of(points: &[Point], name: &str, dimensions: &Dimensions) -> Self {
        let is_of = |it: &&Point| it.name == name && it.dimensions == *dimensions;
        Self { points: points.iter().filter(is_of).cloned().collect() }
    }

    /// The statistic Sum over all time.
    pub fn sum(&self) -> f64 {
        self.points.iter().map(|it| it.sum).sum()
    }

    /// The statistic SampleCount over all time.
    pub fn sample_count(&self) -> f64 {
        self.points.iter().map(|it| it.sample_count).sum()
    }

    /// A percentile over all time (0 to 100), by Values and Counts; `None` if there are no values.
    pub fn percentile(&self, percent: f64) -> Option<f64> {
        let mut values: Vec<(f64, f64)> = self.points.iter().flat_map(|it| it.values.iter().copied()).collect();
        values.sort_by(|a, b| a.0.total_cmp(&b.0));
        let all: f64 = values.iter().map(|(_, count)| count).sum();
        let wanted = (all * percent / 100.0).ceil().max(1.0);
        let mut seen = 0.0;
        values.into_iter().find_map(|(value, count)| {
            seen += count;
            (seen >= wanted).then_some(value)
        })
    }

    /// The timestamps in seconds, each once, rising.
    pub fn seconds(&self) -> Vec<u64> {
        self.points.iter().map(|it| it.timestamp as u64).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_found_by_counts() {
        let point = Point {
            namespace: "n".into(),
            name: "m".into(),
            dimensions: Dimensions::new(),
            timestamp: 0.0,
            unit: "None".into(),
            resolution: 60,
            values: vec![(1.0, 98.0), (5.0, 1.0), (9.0, 1.0)],
            sample_count: 100.0,
            sum: 112.0,
            minimum: 1.0,
            maximum: 9.0,
        };
        let series = Series::of(&[point], "m", &Dimensions::new());
        assert_eq!([50.0, 98.0, 99.0, 100.0].map(|it| series.percentile(it)), [1.0, 1.0, 5.0, 9.0].map(Some));
        assert_eq!(Series { points: Vec::new() }.percentile(50.0), None);
    }
}
