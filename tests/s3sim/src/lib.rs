//! s3sim: an S3 endpoint for tests, with latency, bandwidth, faults and counters on demand.
//!
//! In memory, or written through to a folder. It listens on the loopback interface alone. Plain hyper answers, and not an S3
//! framework: what the tests are about, broken connections, bodies that end early, the pace of a connection, lies below
//! what a framework shows.

pub mod answer;
pub mod call;
pub mod content;
mod control;
pub mod endpoint;
mod listing;
mod multipart;
mod objects;
pub mod shaping;
pub mod storage;

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use self::endpoint::Endpoint;
pub use self::objects::SyntheticTree;
use self::shaping::{Config, Counters, Logged, Script};
use self::storage::Storage;

/// How an endpoint begins.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Port of the endpoint; 0 takes a free one.
    pub port: u16,
    /// Buckets that are there from the start.
    pub buckets: Vec<String>,
    /// Folder to write through to.
    pub folder: Option<PathBuf>,
    /// Tags of a CRC instead of MD5: MD5 passes 0.6 GB/s, which would be what a benchmark measures.
    pub fast_etags: bool,
    /// Keep only the lengths of what is written.
    pub discard: bool,
    /// Region; `us-east-1` if empty.
    pub region: String,
}

/// An endpoint that runs until it is dropped, in threads of its own.
#[derive(Debug)]
pub struct S3Sim {
    endpoint: Arc<Endpoint>,
    runtime: Option<Runtime>,
    url: String,
    control_url: String,
}

impl S3Sim {
    /// Begins.
    ///
    /// # Errors
    /// The port is taken, or the folder cannot be read.
    pub fn start(options: Options) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let region = if options.region.is_empty() { "us-east-1".to_owned() } else { options.region };
        let endpoint = Arc::new(Endpoint {
            storage: Storage::open(options.folder, &options.buckets)?,
            shaping: shaping::Shaping::default(),
            region,
            fast_etags: options.fast_etags,
            discard: options.discard,
            began: std::time::Instant::now(),
        });
        let (listener, control) = runtime.block_on(async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
            let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            io::Result::Ok((listener, control))
        })?;
        let url = format!("http://{}", listener.local_addr()?);
        let control_url = format!("http://{}", control.local_addr()?);
        let (serving, controlled) = (Arc::clone(&endpoint), Arc::clone(&endpoint));
        runtime.spawn(async move { endpoint::serve(listener, serving).await });
        runtime.spawn(async move { control::serve(control, controlled).await });
        Ok(Self { endpoint, runtime: Some(runtime), url, control_url })
    }

    /// `http://127.0.0.1:PORT` of the endpoint.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `http://127.0.0.1:PORT` of the control port.
    pub fn control_url(&self) -> &str {
        &self.control_url
    }

    /// Makes a bucket.
    pub fn create_bucket(&self, bucket: &str) {
        self.endpoint.storage.create_bucket(bucket);
    }

    /// Shapes requests from now on.
    pub fn set(&self, config: Config) {
        self.endpoint.shaping.set(config);
    }

    /// Adds a scripted fault.
    pub fn script(&self, script: Script) {
        self.endpoint.shaping.script(script);
    }

    /// Forgets counters, log and scripts.
    pub fn reset(&self) {
        self.endpoint.shaping.reset();
    }

    /// What came so far.
    pub fn counters(&self) -> Counters {
        self.endpoint.shaping.counters()
    }

    /// The latest requests, oldest first.
    pub fn log(&self) -> Vec<Logged> {
        self.endpoint.shaping.log()
    }

    /// Puts an object whose bytes are made on demand; see [`content::block`].
    pub fn put_synthetic(&self, bucket: &str, key: &str, size: u64, seed: u64) {
        objects::put_synthetic(&self.endpoint, bucket, key, size, seed);
    }

    /// Puts many such objects at once.
    pub fn put_synthetic_tree(&self, tree: &SyntheticTree) {
        objects::put_synthetic_tree(&self.endpoint, tree);
    }
}

impl Drop for S3Sim {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
