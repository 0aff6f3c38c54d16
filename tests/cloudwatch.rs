//! Data through the real SDK to a strict CloudWatch: percentiles, exact statistics, limits, compression.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use cwsim::series::Series;
use cwsim::{CwSim, Manner};
use s3mount::clock::Clock;
use s3mount::config::{CloudWatchConfig, DimensionName};
use s3mount::export::cloudwatch::{CloudWatchExport, CloudWatchSink, Datum, Distribution, PutError, Sink, Value};
use s3mount::metrics::{Latency, Metrics};

const DIMENSIONS: [(&str, &str); 2] = [("Bucket", "b"), ("MountName", "/mnt/data")];

async fn sink(cloudwatch: &CwSim) -> CloudWatchSink {
    // What AWS_CA_BUNDLE says is nothing to a connection without TLS.
    let http = aws_smithy_http_client::Builder::new().build_http();
    let shared = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::from_static("eu-west-1"))
        .credentials_provider(Credentials::new("AKIA", "secret", None, None, "tests"))
        .http_client(http)
        .endpoint_url(cloudwatch.url())
        .retry_config(aws_config::retry::RetryConfig::disabled())
        .load()
        .await;
    let config = CloudWatchConfig {
        namespace: "S3Mount".into(),
        interval: Duration::from_secs(60),
        endpoint_url: None,
        dimensions: vec![DimensionName::Bucket, DimensionName::MountName],
    };
    let dimensions = DIMENSIONS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    CloudWatchSink::new(&shared, &config, dimensions)
}

/// Sends these durations as latencies of reads; they are then what CloudWatch has.
async fn sent(cloudwatch: &CwSim, durations: &[Duration]) -> Series {
    let metrics = Arc::new(Metrics::default());
    durations.iter().for_each(|&took| metrics.observe(Latency::Read, took));
    let sink = Box::new(sink(cloudwatch).await);
    let numbers = (metrics, Arc::default());
    CloudWatchExport::start(numbers, Clock::system(), Duration::from_secs(60), 100, sink).finish().await;
    assert!(cloudwatch.refusals().is_empty(), "{:?}", cloudwatch.refusals());
    cloudwatch.series("ReadLatency", &DIMENSIONS)
}

/// The duration below which a share of them lies, exactly.
fn exact_ms(durations: &[Duration], percent: f64) -> f64 {
    let mut sorted = durations.to_vec();
    sorted.sort();
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted[rank.max(1) - 1].as_secs_f64() * 1000.0
}

fn check(series: &Series, durations: &[Duration]) {
    assert_eq!(series.sample_count(), durations.len() as f64);
    let exact = durations.iter().sum::<Duration>().as_secs_f64() * 1000.0;
    assert!((series.sum() / exact - 1.0).abs() < 1e-12, "{} and {exact}", series.sum());
    for percent in [1.0, 50.0, 90.0, 99.0, 99.9] {
        let (found, exact) = (series.percentile(percent).expect("there are values"), exact_ms(durations, percent));
        assert!((found / exact - 1.0).abs() < 0.055, "p{percent}: {found} and {exact}");
    }
    let least = series.points.iter().map(|it| it.minimum).fold(f64::INFINITY, f64::min);
    let greatest = series.points.iter().map(|it| it.maximum).fold(0.0, f64::max);
    assert!((least / exact_ms(durations, 0.0) - 1.0).abs() < 1e-12);
    assert!((greatest / exact_ms(durations, 100.0) - 1.0).abs() < 1e-12);
}

#[tokio::test]
async fn percentiles_lie_within_five_and_a_half_percent_of_the_exact_ones() {
    // Reads that memory answers, and some that S3 does: two humps and a long tail.
    let mut random = fastrand::Rng::with_seed(7);
    let mut hump = |count: usize, middle_us: f64, spread: f64| -> Vec<Duration> {
        let one = |_| Duration::from_secs_f64(middle_us * 1e-6 * ((random.f64() - 0.5) * spread).exp());
        (0..count).map(one).collect()
    };
    let humps = [hump(9000, 12.0, 1.0), hump(900, 25_000.0, 2.0), hump(100, 900_000.0, 4.0)].concat();
    let cloudwatch = CwSim::start().expect("a port");
    check(&sent(&cloudwatch, &humps).await, &humps);
}

#[tokio::test]
async fn more_values_than_a_datum_has_are_sent_as_several() {
    let durations: Vec<Duration> = (0..4000).map(|n| Duration::from_secs_f64(2e-6 * 1.0044_f64.powi(n))).collect();
    let cloudwatch = CwSim::start().expect("a port");
    let series = sent(&cloudwatch, &durations).await;
    assert_eq!(series.points.len(), 2);
    check(&series, &durations);
}

#[tokio::test]
async fn a_thousand_data_are_one_request_and_compressed() {
    let cloudwatch = CwSim::start().expect("a port");
    let datum = Datum {
        name: "BytesRead",
        operation: None,
        unit: "Bytes",
        at: SystemTime::UNIX_EPOCH
            + Duration::from_secs(
                Clock::system().wall().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs(),
            ),
        value: Value::Single(1.0),
    };
    let sink = sink(&cloudwatch).await;
    sink.put(vec![datum.clone(); 1000]).await.expect("it is taken");
    let received = cloudwatch.received();
    assert!(
        received.len() == 1 && received[0].is_gzipped && received[0].wire_bytes < received[0].bytes,
        "{received:?}"
    );
    let refused = sink.put(vec![datum; 1001]).await;
    assert!(matches!(refused, Err(PutError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_and_not_away() {
    let cloudwatch = CwSim::start().expect("a port");
    let values: Vec<f64> = (0..150).map(f64::from).collect();
    let sum = values.iter().sum();
    let counts = vec![1.0; 150];
    let wide = Distribution { values, counts, sample_count: 150.0, sum, minimum: 0.0, maximum: 149.0 };
    let at = Clock::system().wall();
    let datum =
        Datum { name: "ReadLatency", operation: None, unit: "Milliseconds", at, value: Value::Distribution(wide) };
    let sink = sink(&cloudwatch).await;
    let refused = sink.put(vec![datum.clone(); 900]).await;
    assert!(matches!(&refused, Err(PutError::Refused(said)) if said.contains("TooLarge")), "{refused:?}");
    assert!(cloudwatch.received().iter().any(|it| it.status == 413));
    sink.put(vec![datum; 300]).await.expect("a part of it is taken");
}

#[tokio::test]
async fn failures_are_told_apart() {
    let cloudwatch = CwSim::start().expect("a port");
    let sink = sink(&cloudwatch).await;
    let old =
        Datum { name: "m", operation: None, unit: "Count", at: SystemTime::UNIX_EPOCH, value: Value::Single(1.0) };
    for manner in [Manner::Throttles, Manner::IsDown, Manner::Resets] {
        cloudwatch.set(manner);
        let outcome = sink.put(vec![old.clone()]).await;
        assert!(matches!(outcome, Err(PutError::Away(_))), "{manner:?}: {outcome:?}");
    }
    cloudwatch.set(Manner::Denies);
    let outcome = sink.put(vec![old.clone()]).await;
    assert!(matches!(&outcome, Err(PutError::Denied(said)) if said.contains("not authorized")), "{outcome:?}");
    cloudwatch.set(Manner::Answers);
    let outcome = sink.put(vec![old]).await;
    assert!(matches!(outcome, Err(PutError::Refused(_))), "data of 1970 are never taken: {outcome:?}");
}
