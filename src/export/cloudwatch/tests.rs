//! The export under a clock that is moved by hand, against a CloudWatch that can be away.

mod wire;

use std::collections::BTreeMap;
use std::time::SystemTime;

use async_trait::async_trait;

use super::*;
use crate::metrics::{Counter, Latency};

const MINUTE: Duration = Duration::from_secs(60);

/// A CloudWatch that does what it is told and keeps what it took.
#[derive(Clone, Default)]
struct Stub {
    fails: Arc<Mutex<Option<PutError>>>,
    /// Requests of so few data do not fail.
    takes_at_most: Arc<Mutex<usize>>,
    hangs: Arc<Mutex<bool>>,
    taken: Arc<Mutex<Vec<Datum>>>,
    calls: Arc<Mutex<usize>>,
}

#[async_trait]
impl Sink for Stub {
    async fn put(&self, data: Vec<Datum>) -> Result<(), PutError> {
        *self.calls.lock() += 1;
        if *self.hangs.lock() {
            std::future::pending::<()>().await;
        }
        if let Some(error) = self.fails.lock().clone().filter(|_| data.len() > *self.takes_at_most.lock()) {
            return Err(error);
        }
        self.taken.lock().extend(data);
        Ok(())
    }
}

impl Stub {
    /// The single values of a metric by the second of its timestamp.
    fn singles(&self, name: &str) -> BTreeMap<u64, f64> {
        let taken = self.taken.lock();
        let mut found = BTreeMap::new();
        for datum in taken.iter().filter(|it| it.name == name && it.operation.is_none()) {
            let second = datum.at.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
            let Value::Single(value) = datum.value else { panic!("{name} is a single number") };
            *found.entry(second).or_default() += value;
        }
        found
    }
}

struct Bench {
    metrics: Arc<Metrics>,
    clock: Clock,
    collector: Collector,
    pending: Arc<Mutex<Pending>>,
    sender: Sender,
    stub: Stub,
}

fn bench() -> Bench {
    let stub = Stub::default();
    let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_012);
    Bench { stub: stub.clone(), ..Bench::new(Box::new(stub), 0, began) }
}

impl Bench {
    /// Sends to a sink, under a clock that stands at `began`; the stub is nobody's.
    fn new(sink: Box<dyn Sink>, dimension_bytes: usize, began: SystemTime) -> Self {
        let (metrics, clock) = (Arc::new(Metrics::default()), Clock::manual(began));
        let pending = Arc::new(Mutex::new(Pending::new(dimension_bytes)));
        let sender = Sender::new(sink, Arc::clone(&pending), Arc::new(Notify::new()), Duration::ZERO);
        let collector = Collector::new((Arc::clone(&metrics), Arc::default()), clock.clone(), MINUTE);
        Self { metrics, clock, collector, pending, sender, stub: Stub::default() }
    }

    /// Lets the present minute end.
    fn minute(&mut self) {
        self.clock.advance(self.collector.until_end());
        self.pending.lock().push(self.collector.close());
    }
}

#[tokio::test]
async fn ten_minutes_of_outage_lose_no_minute() {
    let mut bench = bench();
    *bench.stub.fails.lock() = Some(PutError::Away("connection refused".into()));
    for minute in 1..=10 {
        bench.metrics.add(Counter::BytesRead, minute);
        bench.metrics.observe(Latency::Read, Duration::from_millis(minute));
        bench.minute();
        assert!(bench.sender.send_all().await.is_err());
    }
    *bench.stub.fails.lock() = None;
    bench.sender.send_all().await.expect("it is back");
    // The first minute had begun 12 s before, at 1,800,000,000.
    let expected: BTreeMap<u64, f64> =
        (0..10_u32).map(|n| (1_800_000_000 + u64::from(n) * 60, f64::from(n + 1))).collect();
    assert_eq!(bench.stub.singles("BytesRead"), expected, "each minute under its own timestamp");
    let taken = bench.stub.taken.lock();
    let latencies = taken.iter().filter(|it| it.name == "ReadLatency").map(|it| match &it.value {
        Value::Distribution(it) => (it.sample_count, it.sum, it.minimum, it.maximum),
        Value::Single(_) => panic!("a latency is a distribution"),
    });
    let expected: Vec<_> = (1..=10_u32).map(|ms| (1.0, f64::from(ms), f64::from(ms), f64::from(ms))).collect();
    assert_eq!(latencies.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn data_that_cloudwatch_refuses_do_not_block_what_follows() {
    let mut bench = bench();
    bench.minute();
    *bench.stub.fails.lock() = Some(PutError::Refused("InvalidParameterValue".into()));
    bench.sender.send_all().await.expect("nothing is left");
    *bench.stub.fails.lock() = None;
    bench.metrics.add(Counter::BytesWritten, 5);
    bench.minute();
    bench.sender.send_all().await.expect("it takes these");
    assert_eq!(bench.stub.singles("BytesWritten").into_values().collect::<Vec<_>>(), [5.0]);
}

#[tokio::test]
async fn the_age_of_dirty_bytes_is_sent() {
    let mut bench = bench();
    let token = bench.metrics.dirty(bench.clock.now());
    bench.clock.advance(Duration::from_secs(8));
    bench.pending.lock().push(bench.collector.close());
    bench.metrics.clean(token);
    bench.minute();
    bench.sender.send_all().await.expect("it takes them");
    let ages = bench
        .stub
        .taken
        .lock()
        .iter()
        .filter(|it| it.name == "OldestDirtySeconds")
        .map(|it| it.value.clone())
        .collect::<Vec<_>>();
    assert_eq!(ages, [Value::Single(8.0), Value::Single(0.0)]);
}

/// A running export, by the timers' clock.
fn export(metrics: &Arc<Metrics>, stub: &Stub) -> CloudWatchExport {
    let numbers = (Arc::clone(metrics), Arc::default());
    CloudWatchExport::start(numbers, Clock::timers(), MINUTE, 0, Box::new(stub.clone()))
}

#[tokio::test(start_paused = true)]
async fn the_end_sends_the_last_interval() {
    let (metrics, stub) = (Arc::new(Metrics::default()), Stub::default());
    let export = export(&metrics, &stub);
    metrics.add(Counter::BytesRead, 3);
    export.finish().await;
    assert_eq!(stub.singles("BytesRead").into_values().sum::<f64>(), 3.0);
}

#[test]
fn mounts_of_a_fleet_send_at_moments_of_their_own() {
    for (interval, longest) in [(Duration::from_secs(1), 250), (MINUTE, 15_000), (5 * MINUTE, 15_000)] {
        let moments: Vec<u128> = (0..100).map(|_| jitter(interval).as_millis()).collect();
        assert!(moments.iter().all(|&moment| moment <= longest), "{moments:?}");
        let parts: std::collections::BTreeSet<u128> = moments.iter().map(|moment| moment * 10 / longest).collect();
        assert!(parts.len() > 5, "a hundred mounts do not send together: {moments:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_interval_is_sent_when_the_jitter_has_passed_and_not_before() {
    let (stub, pending, wake) = (Stub::default(), Arc::new(Mutex::new(Pending::new(0))), Arc::new(Notify::new()));
    let jitter = Duration::from_secs(9);
    let sender = Sender::new(Box::new(stub.clone()), Arc::clone(&pending), Arc::clone(&wake), jitter);
    let (_phase, seen) = watch::channel(Phase::Running);
    let sending = tokio::spawn(sender.run(seen));
    let value = Value::Single(1.0);
    let datum = Datum { name: "BytesRead", operation: None, unit: "Bytes", at: SystemTime::UNIX_EPOCH, value };
    pending.lock().push(vec![datum]);
    wake.notify_one();
    tokio::time::sleep(jitter - Duration::from_millis(1)).await;
    assert_eq!(*stub.calls.lock(), 0);
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(*stub.calls.lock(), 1);
    sending.abort();
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_three_seconds_and_no_longer() {
    let stub = Stub::default();
    *stub.hangs.lock() = true;
    let clock = Clock::timers();
    let export = export(&Arc::default(), &stub);
    let began = clock.now();
    export.finish().await;
    assert_eq!((clock.now() - began).as_secs(), 3);
    assert_eq!(*stub.calls.lock(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_send_is_not_waited_for_at_the_end() {
    let stub = Stub::default();
    *stub.fails.lock() = Some(PutError::Denied("AccessDenied".into()));
    let clock = Clock::timers();
    let export = export(&Arc::default(), &stub);
    let began = clock.now();
    export.finish().await;
    assert_eq!(clock.now(), began);
}

#[tokio::test(start_paused = true)]
async fn a_cloudwatch_that_comes_back_before_the_end_gets_everything() {
    let stub = Stub::default();
    *stub.fails.lock() = Some(PutError::Away("reset".into()));
    let metrics = Arc::new(Metrics::default());
    metrics.add(Counter::BytesRead, 9);
    let export = export(&metrics, &stub);
    let fails = Arc::clone(&stub.fails);
    let later = async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        *fails.lock() = None;
    };
    tokio::join!(export.finish(), later);
    assert_eq!(stub.singles("BytesRead").into_values().sum::<f64>(), 9.0);
    assert!(*stub.calls.lock() > 2);
}
