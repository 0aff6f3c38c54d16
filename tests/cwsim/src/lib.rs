//! cwsim: a strict CloudWatch for tests. It decodes what the AWS SDK sends (Smithy RPC v2 in CBOR, gzip), refuses what the
//! documented limits forbid, and can hang, refuse, throttle and deny.
//!
//! It listens on the loopback interface alone. The rules are pure and tested beside themselves.

pub mod alarms;
pub mod cbor;
pub mod dashboards;
pub mod data;
#[cfg(test)]
mod data_tests;
pub mod fields;
pub mod series;
mod serve;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use self::alarms::Alarms;
use self::dashboards::Dashboards;
use self::data::{Dimensions, Point};
use self::series::Series;

/// How it behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    #[default]
    Answers,
    /// Takes requests and never answers.
    Hangs,
    /// Closes connections.
    Resets,
    /// Answers 400 Throttling.
    Throttles,
    /// Answers 403 AccessDenied.
    Denies,
    /// Answers 503.
    IsDown,
    /// Answers 403 ExpiredToken to the access keys that have signed requests until then, and as it should to others.
    Expires,
}

/// One request that came.
#[derive(Clone, Debug)]
pub struct Received {
    /// As in `PutMetricData`.
    pub operation: String,
    /// The body was compressed.
    pub is_gzipped: bool,
    /// Bytes of the body on the wire.
    pub wire_bytes: usize,
    /// Bytes of the body, decompressed.
    pub bytes: usize,
    /// The status that was answered; 0 for none.
    pub status: u16,
}

/// Everything that it holds.
#[derive(Debug, Default)]
struct State {
    manner: Manner,
    /// Access keys that have signed requests that were taken.
    keys: BTreeSet<String>,
    /// Those that had done so when the manner was set.
    expired: BTreeSet<String>,
    received: Vec<Received>,
    refusals: Vec<String>,
    points: Vec<Point>,
    alarms: Alarms,
    dashboards: Dashboards,
}

/// A CloudWatch that runs until it is dropped, in a thread of its own.
#[derive(Debug)]
pub struct CwSim {
    state: Arc<Mutex<State>>,
    runtime: Option<Runtime>,
    url: String,
}

impl CwSim {
    /// Begins, on a free port.
    ///
    /// # Errors
    /// There is none.
    pub fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        // Bound here and not in the runtime: a test may start it inside of a runtime of its own.
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(Mutex::new(State::default()));
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        runtime.spawn(serve::serve(listener, Arc::clone(&state)));
        Ok(Self { state, runtime: Some(runtime), url })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Behaves so from now on.
    pub fn set(&self, manner: Manner) {
        let mut state = self.state.lock();
        state.manner = manner;
        state.expired = state.keys.clone();
    }

    /// The requests that came, oldest first.
    pub fn received(&self) -> Vec<Received> {
        self.state.lock().received.clone()
    }

    /// Why requests were refused, as far as they broke a rule.
    pub fn refusals(&self) -> Vec<String> {
        self.state.lock().refusals.clone()
    }

    /// All data that were taken.
    pub fn points(&self) -> Vec<Point> {
        self.state.lock().points.clone()
    }

    /// The data of a metric with exactly these dimensions.
    pub fn series(&self, name: &str, dimensions: &[(&str, &str)]) -> Series {
        let dimensions: Dimensions =
            dimensions.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Series::of(&self.state.lock().points, name, &dimensions)
    }

    /// The names of the alarms.
    pub fn alarms(&self) -> Vec<String> {
        self.state.lock().alarms.keys().cloned().collect()
    }

    /// The access keys that have signed requests that were taken.
    pub fn keys(&self) -> BTreeSet<String> {
        self.state.lock().keys.clone()
    }

    /// Bodies of dashboards by name.
    pub fn dashboards(&self) -> BTreeMap<String, String> {
        self.state.lock().dashboards.clone()
    }
}

impl Drop for CwSim {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
