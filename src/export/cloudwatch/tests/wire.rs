//! The same through the SDK, to a CloudWatch that holds what comes to its limits.

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use cwsim::{CwSim, Manner};

use super::*;
use crate::config::{CloudWatchConfig, DimensionName};

const DIMENSIONS: [(&str, &str); 2] = [("Bucket", "b"), ("MountName", "/mnt")];

/// A bench whose clock stands so many seconds before now, for CloudWatch takes data of the past two weeks.
async fn bench(cloudwatch: &CwSim, seconds_ago: u64) -> Bench {
    let shared = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("AKIA", "secret", None, None, "tests"))
        // What AWS_CA_BUNDLE says is nothing to a connection without TLS.
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(aws_config::retry::RetryConfig::disabled())
        .endpoint_url(cloudwatch.url());
    let config = CloudWatchConfig {
        namespace: "S3Mount".into(),
        interval: MINUTE,
        endpoint_url: None,
        dimensions: vec![DimensionName::Bucket, DimensionName::MountName],
    };
    let dimensions = DIMENSIONS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let sink = CloudWatchSink::new(&shared.load().await, &config, dimensions);
    Bench::new(Box::new(sink), 60, Clock::system().wall() - Duration::from_secs(seconds_ago))
}

#[tokio::test]
async fn ten_minutes_of_outage_are_taken_later_under_their_own_timestamps() {
    let cloudwatch = CwSim::start().expect("a port");
    let mut bench = bench(&cloudwatch, 3600).await;
    let manners = [Manner::IsDown, Manner::Throttles, Manner::Resets, Manner::Denies];
    for minute in 1..=10_u64 {
        cloudwatch.set(manners[minute as usize % manners.len()]);
        bench.metrics.add(Counter::BytesRead, minute);
        bench.metrics.observe(Latency::Read, Duration::from_millis(minute));
        bench.minute();
        assert!(bench.sender.send_all().await.is_err());
    }
    cloudwatch.set(Manner::Answers);
    bench.sender.send_all().await.expect("it is back");
    assert!(cloudwatch.refusals().is_empty(), "{:?}", cloudwatch.refusals());
    let bytes = cloudwatch.series("BytesRead", &DIMENSIONS);
    let values: Vec<f64> = bytes.points.iter().map(|it| it.sum).collect();
    assert_eq!(values, (1..=10).map(f64::from).collect::<Vec<_>>());
    let seconds = bytes.seconds();
    assert!(seconds.len() == 10 && seconds.windows(2).all(|pair| pair[1] == pair[0] + 60), "{seconds:?}");
    let latency = cloudwatch.series("ReadLatency", &DIMENSIONS);
    assert_eq!((latency.sample_count(), latency.sum()), (10.0, 55.0));
}

#[tokio::test]
async fn a_full_ring_goes_out_in_requests_that_are_all_taken() {
    const MINUTES: u64 = 800;
    let cloudwatch = CwSim::start().expect("a port");
    let mut bench = bench(&cloudwatch, MINUTES * 60 + 60).await;
    // Every bucket of every latency, and every operation: no interval is larger.
    let durations: Vec<_> = (0..2000).map(|n| Duration::from_secs_f64(1e-6 * 1.0093_f64.powi(n))).collect();
    for _ in 0..MINUTES {
        for &latency in Latency::ALL {
            durations.iter().for_each(|&took| bench.metrics.observe(latency, took));
        }
        for &kind in crate::metrics::RequestKind::ALL {
            bench.metrics.request(kind);
            bench.metrics.error(kind);
        }
        bench.minute();
    }
    let kept = bench.pending.lock().intervals();
    assert!(kept < MINUTES as usize, "the ring is bounded");
    bench.sender.send_all().await.expect("it takes them");
    assert!(cloudwatch.refusals().is_empty(), "{:?}", cloudwatch.refusals());
    let received = cloudwatch.received();
    assert!(received.len() > 10 && received.iter().all(|it| it.is_gzipped && it.wire_bytes < it.bytes / 2));
    for &latency in Latency::ALL {
        let series = cloudwatch.series(latency.name(), &DIMENSIONS);
        assert_eq!(series.sample_count(), (kept * durations.len()) as f64);
        assert_eq!(series.seconds().len(), kept, "the latest minutes, each under its own timestamp");
    }
}

/// Data of now and, at these places, such as CloudWatch never takes.
fn data(count: usize, bad: &[usize]) -> Vec<Datum> {
    let now = Clock::system().wall();
    let datum = |place: usize| {
        let at = if bad.contains(&place) { SystemTime::UNIX_EPOCH } else { now };
        Datum { name: "BytesRead", operation: None, unit: "Bytes", at, value: Value::Single(place as f64) }
    };
    (0..count).map(datum).collect()
}

/// The places of data that were taken.
fn places(cloudwatch: &CwSim) -> Vec<usize> {
    cloudwatch.points().iter().map(|it| it.sum as usize).collect()
}

#[tokio::test]
async fn a_datum_that_is_never_taken_costs_no_other() {
    let cloudwatch = CwSim::start().expect("a port");
    let mut bench = bench(&cloudwatch, 60).await;
    for bad in [&[613][..], &[0], &[999], &[3, 700]] {
        let before = (places(&cloudwatch).len(), cloudwatch.received().len());
        bench.pending.lock().push(data(1000, bad));
        bench.sender.send_all().await.expect("what is refused is left out");
        let taken = places(&cloudwatch).split_off(before.0);
        let expected: Vec<usize> = (0..1000).filter(|place| !bad.contains(place)).collect();
        assert_eq!(taken, expected, "in order, and none twice");
        let requests = cloudwatch.received().len() - before.1;
        assert!(requests <= 2 * 20 + 1, "{requests} requests for {bad:?}");
    }
}

#[tokio::test]
async fn where_everything_is_refused_not_every_datum_is_tried() {
    let cloudwatch = CwSim::start().expect("a port");
    let mut bench = bench(&cloudwatch, 60).await;
    let all: Vec<usize> = (0..1000).collect();
    let mut requests = Vec::new();
    for _ in 0..3 {
        let before = cloudwatch.received().len();
        bench.pending.lock().push(data(1000, &all));
        bench.sender.send_all().await.expect("it is left out");
        requests.push(cloudwatch.received().len() - before);
    }
    assert_eq!(requests, [41, 3, 3]);
    assert_eq!(bench.pending.lock().intervals(), 0);
    // And where only one is bad again, the others are taken again.
    for _ in 0..2 {
        bench.pending.lock().push(data(1000, &[7]));
        bench.sender.send_all().await.expect("it is left out");
    }
    assert_eq!(places(&cloudwatch).len(), 500 + 999);
}

#[tokio::test]
async fn a_failure_among_the_pieces_of_a_refused_request_loses_nothing() {
    let mut bench = super::bench();
    *bench.stub.fails.lock() = Some(PutError::Away("connection refused".into()));
    bench.pending.lock().push(data(8, &[]));
    assert!(bench.sender.send_all().await.is_err());
    *bench.stub.fails.lock() = Some(PutError::Refused("413".into()));
    *bench.stub.takes_at_most.lock() = 2;
    bench.sender.send_all().await.expect("small ones are taken");
    let taken: Vec<_> = bench.stub.taken.lock().iter().map(|it| it.value.clone()).collect();
    assert_eq!(taken, (0..8_u32).map(|place| Value::Single(place.into())).collect::<Vec<_>>());
}
