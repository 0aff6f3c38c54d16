//! How the endpoint misbehaves: delays, bandwidth, faults by rate and by script, and what it counts meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::answer::{ACCESS_DENIED, CUSTOMER_ENCRYPTED, EXPIRED_TOKEN, Refusal, TIME_TOO_SKEWED, UNKNOWN_KEY};
use crate::call::Call;

/// Requests that the log keeps.
const LOG_REQUESTS_MAX: usize = 20_000;

/// S3 refuses what is dated further off.
const SKEW_MAX: Duration = Duration::from_secs(900);

/// Time to the first byte by kind of request, in milliseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FirstByte {
    /// GetObject.
    pub get: f64,
    /// HeadObject.
    pub head: f64,
    /// PutObject and UploadPart.
    pub put: f64,
    /// ListObjectsV2.
    pub list: f64,
    /// Everything else.
    pub default: f64,
}

/// Shares of requests that fail, 0 to 1.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// 503 SlowDown.
    pub slow_down: f64,
    /// The connection is reset before an answer.
    pub reset: f64,
    /// The body of a GET ends early.
    pub truncate: f64,
    /// The body of a GET stops and never goes on.
    pub stall: f64,
    /// A byte of the body of a GET is wrong.
    pub wrong_checksum: f64,
    /// If-Match and If-None-Match of writes are ignored.
    pub ignore_conditions: bool,
    /// Operations that are answered 403 AccessDenied.
    pub denied: Vec<String>,
    /// What is listed must begin with this, as a policy with a condition on `s3:prefix` has it; else 403 AccessDenied.
    pub listed_prefix: String,
    /// Access keys that are answered 400 ExpiredToken.
    pub expired_keys: Vec<String>,
    /// Access keys that are answered 403 InvalidAccessKeyId.
    pub unknown_keys: Vec<String>,
    /// Keys of objects that are encrypted with SSE-C: GET and HEAD that do not bring the customer's key are answered 400.
    pub customer_encrypted: Vec<String>,
    /// The clock of the endpoint is so many seconds ahead of the machine's; requests dated over 15 minutes off are refused.
    pub clock_ahead_seconds: i64,
}

/// How requests are shaped.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Time to the first byte.
    pub first_byte_ms: FirstByte,
    /// Share by which it varies, up and down.
    pub jitter: f64,
    /// Bandwidth of one connection in bytes a second; 0 is unbounded.
    pub bytes_per_second_per_connection: u64,
    /// Buckets keep versions: answers name the version that they are about.
    pub versioned: bool,
    /// What fails.
    pub faults: Faults,
}

/// A scripted fault: the next so many requests of an operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// Operation, such as `UploadPart`.
    pub operation: String,
    /// `slow_down`, `internal_error` or `reset`.
    pub kind: String,
    /// How many requests.
    pub times: u64,
    /// The effect takes place and only the reply is lost.
    #[serde(default)]
    pub after_effect: bool,
}

/// One request that came.
#[derive(Clone, Debug, Serialize)]
pub struct Logged {
    /// When it came, in milliseconds since the endpoint began.
    pub at_ms: f64,
    /// HTTP method.
    pub method: String,
    /// Operation.
    pub operation: String,
    /// Key; of a listing, its prefix.
    pub key: String,
    /// Range header.
    pub range: Option<String>,
    /// Access key that signed it; none if nobody did.
    pub access_key: Option<String>,
    /// Status that was answered; 0 where there was no answer.
    pub status: u16,
    /// Bytes of the answer's body, or of the request's.
    pub bytes: u64,
}

/// What came so far.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counters {
    /// Requests by operation.
    pub requests: BTreeMap<String, u64>,
    /// Body bytes received.
    pub bytes_in: u64,
    /// Body bytes sent.
    pub bytes_out: u64,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// 503.
    pub slow_down: bool,
    /// 500.
    pub internal_error: bool,
    /// No answer at all.
    pub reset: bool,
    /// The above comes after the effect.
    pub after_effect: bool,
    /// The body ends early.
    pub truncate: bool,
    /// The body stops.
    pub stall: bool,
    /// The body is damaged.
    pub damage: bool,
    /// 403.
    pub denied: bool,
}

/// The present shaping and counting.
#[derive(Debug, Default)]
pub struct Shaping(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    config: Config,
    scripts: Vec<Script>,
    counters: Counters,
    log: VecDeque<Logged>,
}

impl Shaping {
    /// Replaces the configuration.
    pub fn set(&self, config: Config) {
        self.0.lock().config = config;
    }

    /// Adds a script.
    pub fn script(&self, script: Script) {
        self.0.lock().scripts.push(script);
    }

    /// Forgets counters, log and scripts; the configuration stays.
    pub fn reset(&self) {
        let mut state = self.0.lock();
        state.counters = Counters::default();
        state.log.clear();
        state.scripts.clear();
    }

    /// What came so far.
    pub fn counters(&self) -> Counters {
        self.0.lock().counters.clone()
    }

    /// The latest requests, oldest first.
    pub fn log(&self) -> Vec<Logged> {
        self.0.lock().log.iter().cloned().collect()
    }

    /// Whether buckets keep versions.
    pub fn is_versioned(&self) -> bool {
        self.0.lock().config.versioned
    }

    /// Whether conditions of writes are ignored.
    pub fn ignores_conditions(&self) -> bool {
        self.0.lock().config.faults.ignore_conditions
    }

    /// What is wrong with who signed a request, or when, or with what they ask for.
    pub fn doubt(&self, call: &Call) -> Option<Refusal> {
        let state = self.0.lock();
        let faults = &state.config.faults;
        let prefix = call.query.get("prefix").map_or("", String::as_str);
        if call.operation == "ListObjectsV2" && !prefix.starts_with(&faults.listed_prefix) {
            return Some(ACCESS_DENIED);
        }
        if call.access_key().is_some_and(|key| faults.expired_keys.iter().any(|expired| expired == key)) {
            return Some(EXPIRED_TOKEN);
        }
        if call.access_key().is_some_and(|key| faults.unknown_keys.iter().any(|unknown| unknown == key)) {
            return Some(UNKNOWN_KEY);
        }
        if matches!(call.operation, "GetObject" | "HeadObject") && faults.customer_encrypted.contains(&call.key) {
            return Some(CUSTOMER_ENCRYPTED);
        }
        let signed = call.signed_at()?;
        let off = match self.now_of(faults).duration_since(signed) {
            Ok(late) => late,
            Err(early) => early.duration(),
        };
        (off > SKEW_MAX).then_some(TIME_TOO_SKEWED)
    }

    /// What the endpoint takes for the time.
    pub fn now(&self) -> SystemTime {
        self.now_of(&self.0.lock().config.faults)
    }

    fn now_of(&self, faults: &Faults) -> SystemTime {
        let by = Duration::from_secs(faults.clock_ahead_seconds.unsigned_abs());
        if faults.clock_ahead_seconds < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
    }

    /// Bandwidth of a connection in bytes a second; 0 is unbounded.
    pub fn bandwidth(&self) -> u64 {
        self.0.lock().config.bytes_per_second_per_connection
    }

    /// Counts a request.
    pub fn count(&self, logged: Logged) {
        let mut state = self.0.lock();
        *state.counters.requests.entry(logged.operation.clone()).or_default() += 1;
        if state.log.len() == LOG_REQUESTS_MAX {
            state.log.pop_front();
        }
        state.log.push_back(logged);
    }

    /// Counts bytes.
    pub fn count_bytes(&self, received: u64, sent: u64) {
        let mut state = self.0.lock();
        state.counters.bytes_in += received;
        state.counters.bytes_out += sent;
    }

    /// How long a request waits for its answer to begin.
    pub fn first_byte(&self, operation: &str) -> Duration {
        let config = self.0.lock().config.clone();
        let milliseconds = match operation {
            "GetObject" => config.first_byte_ms.get,
            "HeadObject" => config.first_byte_ms.head,
            "PutObject" | "UploadPart" => config.first_byte_ms.put,
            "ListObjectsV2" => config.first_byte_ms.list,
            _ => config.first_byte_ms.default,
        };
        let jitter = 1.0 + config.jitter * (fastrand::f64() * 2.0 - 1.0);
        Duration::from_secs_f64((milliseconds * jitter / 1000.0).max(0.0))
    }

    /// Throws the dice for one request.
    pub fn fate(&self, operation: &str) -> Fate {
        let mut state = self.0.lock();
        let mut fate = Fate::default();
        if let Some(script) = state.scripts.iter_mut().find(|it| it.times > 0 && it.operation == operation) {
            script.times -= 1;
            fate.after_effect = script.after_effect;
            match script.kind.as_str() {
                "reset" => fate.reset = true,
                "slow_down" => fate.slow_down = true,
                _ => fate.internal_error = true,
            }
            return fate;
        }
        let faults = &state.config.faults;
        let hit = |share: f64| share > 0.0 && fastrand::f64() < share;
        fate.denied = faults.denied.iter().any(|it| it == operation);
        fate.slow_down = hit(faults.slow_down);
        fate.reset = hit(faults.reset);
        if operation == "GetObject" {
            fate.truncate = hit(faults.truncate);
            fate.stall = hit(faults.stall);
            fate.damage = hit(faults.wrong_checksum);
        }
        fate
    }
}
