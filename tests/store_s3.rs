//! The S3 client holds the contract of the stores, fact by fact: against s3sim as S3 behaves, as a server that ignores
//! conditions, and over a network that fails; and against the server of an endpoint that the environment names.
//!
//! `S3MOUNT_CONTRACT_ENDPOINT` is its URL, `S3MOUNT_CONTRACT_BUCKET` a bucket there (default `contract`), and
//! `S3MOUNT_CONTRACT_QUIRKS` lists, with commas, what it does otherwise than S3, by the names of the fields of `Quirks`:
//! versitygw (posix) `is_a_file_system,refuses_odd_keys`, moto 5.2 `refuses_odd_keys,loses_track_of_uploads`. Without an
//! endpoint these facts are reported as ignored.

use std::env;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use libtest_mimic::{Arguments, Trial};
use s3mount::metrics::{Counter, Metrics, RequestKind};
use s3mount::store::contract::{Fact, Quirks, facts};
use s3mount::store::s3::{ConnectError, S3Settings, connect};
use s3mount::store::{
    CompleteRequest, GetRange, GetRequest, ListRequest, ObjectAttributes, ObjectStore, PutRequest, StoreCapabilities,
    StoreError, WriteCondition,
};
use s3sim::shaping::{Config, Faults, Script};
use s3sim::{Options, S3Sim};
use tokio::runtime::{Handle, Runtime};

const BUCKET: &str = "contract";

type Store = Arc<dyn ObjectStore>;

fn settings(endpoint: &str) -> S3Settings {
    // The simulator asks for no credentials, and a test takes none from whoever runs it.
    S3Settings { endpoint_url: Some(endpoint.to_owned()), no_sign_request: true, ..S3Settings::new(BUCKET) }
}

/// An endpoint of our own with its store.
struct Bed {
    sim: S3Sim,
    metrics: Arc<Metrics>,
    store: Store,
}

/// It has a runtime of its own, which cannot be begun inside another.
async fn start() -> S3Sim {
    let begin = || S3Sim::start(Options { buckets: vec![BUCKET.into()], ..Options::default() });
    tokio::task::spawn_blocking(begin).await.expect("no panic").expect("s3sim starts")
}

impl Bed {
    async fn new(faults: Faults) -> Self {
        let sim = start().await;
        sim.set(Config { faults, ..Config::default() });
        let metrics = Arc::new(Metrics::default());
        let store = connect(&settings(sim.url()), Arc::clone(&metrics)).await.expect("a bucket that answers");
        sim.reset();
        Self { sim, metrics, store }
    }

    /// The next reply to this operation is lost, after its effect.
    fn lose_reply(&self, operation: &str) {
        let (operation, kind) = (operation.to_owned(), "reset".to_owned());
        self.sim.script(Script { operation, kind, times: 1, after_effect: true });
    }

    fn count(&self, operation: &str) -> u64 {
        self.sim.counters().requests.get(operation).copied().unwrap_or(0)
    }

    async fn put(&self, bytes: &'static [u8], condition: WriteCondition) -> Result<(), StoreError> {
        let (key, payload) = ("k".into(), Bytes::from_static(bytes).into());
        let request = PutRequest { key, payload, attributes: ObjectAttributes::default(), condition };
        self.store.put(request).await.map(drop)
    }

    async fn get(&self) -> Result<BytesMut, StoreError> {
        let request = GetRequest { key: "k".into(), range: GetRange::Whole, if_match: None, if_none_match: None };
        self.store.get(request).await?.body.try_collect().await
    }
}

async fn a_lost_reply_to_an_exclusive_put_is_settled_by_looking() {
    let bed = Bed::new(Faults::default()).await;
    bed.lose_reply("PutObject");
    bed.put(b"mine", WriteCondition::Absent).await.expect("settled");
    assert_eq!((bed.count("PutObject"), bed.count("HeadObject")), (1, 1));
    assert_eq!(bed.get().await.expect("a GET"), &b"mine"[..]);
}

async fn a_lost_reply_to_complete_is_settled_by_looking() {
    let bed = Bed::new(Faults::default()).await;
    let key = "k".into();
    let upload = bed.store.create_upload(&key, ObjectAttributes::default()).await.expect("an upload");
    let part = bed.store.upload_part(&key, &upload, 2, Bytes::from_static(b"mine").into()).await.expect("a part");
    bed.lose_reply("CompleteMultipartUpload");
    let (parts, condition) = (vec![part], WriteCondition::Absent);
    let request = CompleteRequest { key, upload, parts, size_bytes: 4, condition };
    let info = bed.store.complete_upload(request).await.expect("settled");
    assert_eq!(info.size_bytes, 4);
    assert_eq!((bed.count("CompleteMultipartUpload"), bed.count("HeadObject")), (1, 1));
}

async fn a_body_that_ends_early_is_an_error_that_a_repeat_may_mend() {
    let bed = Bed::new(Faults::default()).await;
    // Long enough that the head of the answer is on its way before the end.
    bed.put(&[7; 1 << 20], WriteCondition::None).await.expect("a PUT");
    bed.sim.set(Config { faults: Faults { truncate: 1.0, ..Faults::default() }, ..Config::default() });
    let error = bed.get().await.expect_err("the body is cut");
    assert!(error.is_retryable(), "{error}");
}

async fn a_damaged_whole_object_is_found_by_its_checksum() {
    let bed = Bed::new(Faults::default()).await;
    bed.put(b"0123456789", WriteCondition::None).await.expect("a PUT");
    bed.sim.set(Config { faults: Faults { wrong_checksum: 1.0, ..Faults::default() }, ..Config::default() });
    let error = bed.get().await.expect_err("a byte is wrong");
    assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
}

async fn a_probe_leaves_nothing_and_a_read_only_mount_sends_none() {
    let bed = Bed::new(Faults::default()).await;
    assert_eq!(bed.store.capabilities(), StoreCapabilities::ALL);
    assert!(bed.store.list(ListRequest::default()).await.expect("a LIST").objects.is_empty());
    assert!(bed.store.list_uploads("").await.expect("a list").is_empty());
    bed.sim.reset();
    let read_only = S3Settings { read_only: true, ..settings(bed.sim.url()) };
    connect(&read_only, Arc::new(Metrics::default())).await.expect("a bucket that answers");
    assert_eq!(bed.sim.counters().requests.into_iter().collect::<Vec<_>>(), [("ListObjectsV2".to_owned(), 1)]);
}

async fn a_server_that_ignores_conditions_is_found_out() {
    let bed = Bed::new(Faults { ignore_conditions: true, ..Faults::default() }).await;
    assert!(!bed.store.capabilities().conditional_writes);
    bed.put(b"first", WriteCondition::Absent).await.expect("the key holds nothing");
    let second = bed.put(b"second", WriteCondition::Absent).await;
    assert!(matches!(second, Err(StoreError::PreconditionFailed)), "{second:?}");
}

async fn requests_are_counted_as_the_server_counts_them() {
    let bed = Bed::new(Faults::default()).await;
    let before = bed.metrics.requests(RequestKind::Put);
    bed.sim.script(Script { operation: "PutObject".into(), kind: "slow_down".into(), times: 3, after_effect: false });
    bed.put(b"bytes", WriteCondition::None).await.expect("a PUT");
    assert_eq!((bed.count("PutObject"), bed.metrics.requests(RequestKind::Put) - before), (4, 4));
    assert_eq!(bed.metrics.counter(Counter::Retries), 3);
}

async fn a_mount_that_cannot_be_is_told_in_one_line() {
    let sim = start().await;
    let metrics = || Arc::new(Metrics::default());
    let missing = S3Settings { bucket: "missing".into(), ..settings(sim.url()) };
    let error = connect(&missing, metrics()).await.map(drop).expect_err("no such bucket");
    assert!(matches!(error, ConnectError::NoSuchBucket { .. }), "{error}");
    sim.set(Config {
        faults: Faults { denied: vec!["ListObjectsV2".into()], ..Faults::default() },
        ..Config::default()
    });
    let error = connect(&settings(sim.url()), metrics()).await.map(drop).expect_err("no permission");
    assert!(error.to_string().contains("s3:ListBucket") && !error.to_string().contains('\n'), "{error}");
    let nobody = S3Settings { endpoint_url: Some("http://127.0.0.1:1".into()), ..settings("") };
    let error = connect(&nobody, metrics()).await.map(drop).expect_err("nobody listens");
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    let no_url = S3Settings { endpoint_url: Some("127.0.0.1:1".into()), ..settings("") };
    let error = connect(&no_url, metrics()).await.map(drop).expect_err("no URL");
    assert!(error.is_usage(), "{error}");
}

/// All facts of the contract at one place; ignored where there is no store.
fn contract(place: &'static str, handle: &Handle, store: Option<&Store>, quirks: Quirks) -> Vec<Trial> {
    let trial = |fact: Fact| {
        let (handle, held) = (handle.clone(), store.cloned());
        let trial = Trial::test(format!("{place}::{}", fact.name), move || {
            let held = held.ok_or("there is no server")?;
            handle.block_on(fact.check(&held, quirks));
            Ok(())
        });
        trial.with_ignored_flag(store.is_none())
    };
    facts().into_iter().map(trial).collect()
}

fn quirks_of_environment() -> Quirks {
    let listed = env::var("S3MOUNT_CONTRACT_QUIRKS").unwrap_or_default();
    let has = |name| listed.split(',').any(|quirk| quirk == name);
    Quirks {
        refuses_odd_keys: has("refuses_odd_keys"),
        is_a_file_system: has("is_a_file_system"),
        loses_track_of_uploads: has("loses_track_of_uploads"),
        takes_small_parts: has("takes_small_parts"),
        is_lax_about_parts: has("is_lax_about_parts"),
    }
}

fn store_of_environment(runtime: &Runtime) -> Option<Store> {
    let endpoint = env::var("S3MOUNT_CONTRACT_ENDPOINT").ok()?;
    let bucket = env::var("S3MOUNT_CONTRACT_BUCKET").unwrap_or_else(|_| BUCKET.into());
    let settings = S3Settings { endpoint_url: Some(endpoint), ..S3Settings::new(bucket) };
    let connected = runtime.block_on(connect(&settings, Arc::new(Metrics::default())));
    Some(connected.expect("the server that the environment names answers"))
}

macro_rules! trials {
    ($handle:expr, $($name:ident),+ $(,)?) => {
        vec![$({
            let handle = $handle.clone();
            Trial::test(stringify!($name), move || { handle.block_on($name()); Ok(()) })
        }),+]
    };
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let runtime = Runtime::new().expect("a runtime can be built");
    let handle = runtime.handle();
    let plain = runtime.block_on(Bed::new(Faults::default()));
    let ignoring = runtime.block_on(Bed::new(Faults { ignore_conditions: true, ..Faults::default() }));
    let failing = runtime.block_on(Bed::new(Faults { slow_down: 0.05, reset: 0.05, ..Faults::default() }));
    let named = store_of_environment(&runtime);
    let trials = [
        trials!(
            handle,
            a_lost_reply_to_an_exclusive_put_is_settled_by_looking,
            a_lost_reply_to_complete_is_settled_by_looking,
            a_body_that_ends_early_is_an_error_that_a_repeat_may_mend,
            a_damaged_whole_object_is_found_by_its_checksum,
            a_probe_leaves_nothing_and_a_read_only_mount_sends_none,
            a_server_that_ignores_conditions_is_found_out,
            requests_are_counted_as_the_server_counts_them,
            a_mount_that_cannot_be_is_told_in_one_line,
        ),
        contract("s3sim", handle, Some(&plain.store), Quirks::default()),
        contract("s3sim_ignoring_conditions", handle, Some(&ignoring.store), Quirks::default()),
        contract("s3sim_failing", handle, Some(&failing.store), Quirks::default()),
        contract("environment", handle, named.as_ref(), quirks_of_environment()),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
