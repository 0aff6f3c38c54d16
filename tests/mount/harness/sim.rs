//! The simulator's controls, in the words of the facts. Each simulator runs in this process.

use std::collections::BTreeMap;

use s3sim::shaping::{Config, FirstByte, Script};
use s3sim::{Options, S3Sim};

use super::outcome::Outcome;

/// How the simulator misbehaves. Shares are of requests, 0 to 1.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Share that is answered 503 SlowDown.
    pub slow_down: f64,
    /// Share whose connection is reset.
    pub reset: f64,
    /// Share of bodies that end early.
    pub truncate: f64,
    /// Share of bodies that stop.
    pub stall: f64,
    /// Conditions of writes are ignored.
    pub ignore_conditions: bool,
    /// Buckets keep versions.
    pub versioned: bool,
    /// Operations that are answered 403.
    pub denied: &'static [&'static str],
    /// Access keys that are answered 400 ExpiredToken.
    pub expired_keys: Vec<String>,
    /// Access keys that are answered 403 InvalidAccessKeyId.
    pub unknown_keys: Vec<String>,
    /// Keys of objects that are encrypted with SSE-C.
    pub customer_encrypted: Vec<String>,
    /// How far its clock is ahead of the machine's.
    pub clock_ahead_seconds: i64,
    /// Time to the first byte.
    pub first_byte_milliseconds: u32,
    /// Bandwidth of a connection; 0 is unbounded.
    pub bytes_per_second: u64,
}

/// Requests by operation.
#[derive(Clone, Debug, Default)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// Requests of one operation.
    pub fn of(&self, operation: &str) -> u64 {
        self.0.get(operation).copied().unwrap_or(0)
    }

    /// All requests.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

impl<const N: usize> PartialEq<[(&str, u64); N]> for Counts {
    fn eq(&self, other: &[(&str, u64); N]) -> bool {
        self.total() == other.iter().map(|(_, n)| n).sum::<u64>() && other.iter().all(|(name, n)| self.of(name) == *n)
    }
}

/// A simulator.
#[derive(Debug)]
pub struct Sim(S3Sim);

impl Sim {
    /// Starts one.
    pub fn start() -> Outcome<Self> {
        Ok(Self(S3Sim::start(Options::default())?))
    }

    /// Its address.
    pub fn endpoint(&self) -> &str {
        self.0.url()
    }

    /// Misbehaves so from now on.
    pub fn set(&self, faults: &Faults) {
        let milliseconds = f64::from(faults.first_byte_milliseconds);
        let first_byte_ms = FirstByte {
            get: milliseconds,
            head: milliseconds,
            put: milliseconds,
            list: milliseconds,
            default: milliseconds,
        };
        self.0.set(Config {
            first_byte_ms,
            jitter: 0.0,
            bytes_per_second_per_connection: faults.bytes_per_second,
            versioned: faults.versioned,
            faults: s3sim::shaping::Faults {
                slow_down: faults.slow_down,
                reset: faults.reset,
                truncate: faults.truncate,
                stall: faults.stall,
                wrong_checksum: 0.0,
                ignore_conditions: faults.ignore_conditions,
                expired_keys: faults.expired_keys.clone(),
                unknown_keys: faults.unknown_keys.clone(),
                customer_encrypted: faults.customer_encrypted.clone(),
                clock_ahead_seconds: faults.clock_ahead_seconds,
                denied: faults.denied.iter().map(|&operation| operation.to_owned()).collect(),
                listed_prefix: String::new(),
            },
        });
    }

    /// The next request of an operation is done, and answered 503 SlowDown all the same.
    pub fn throttle_after_effect(&self, operation: &str) {
        let (operation, kind) = (operation.to_owned(), "slow_down".to_owned());
        self.0.script(Script { operation, kind, times: 1, after_effect: true });
    }

    /// Begins to count anew.
    pub fn reset_counts(&self) {
        self.0.reset();
    }

    /// Requests since the counts were reset.
    pub fn counts(&self) -> Counts {
        Counts(self.0.counters().requests)
    }

    /// The access keys of the requests since, each once.
    pub fn access_keys(&self) -> std::collections::BTreeSet<String> {
        self.0.log().into_iter().filter_map(|logged| logged.access_key).collect()
    }

    /// Bytes of bodies that it sent since.
    pub fn bytes_sent(&self) -> u64 {
        self.0.counters().bytes_out
    }

    /// Bytes of bodies that it received since.
    pub fn bytes_received(&self) -> u64 {
        self.0.counters().bytes_in
    }

    /// The operations of the latest requests, oldest first.
    pub fn log(&self) -> Vec<String> {
        self.0.log().into_iter().map(|logged| logged.operation).collect()
    }

    /// Bytes of the bodies of an operation, as the server logged them.
    pub fn bytes_of(&self, operation: &str) -> u64 {
        self.0.log().iter().filter(|logged| logged.operation == operation).map(|logged| logged.bytes).sum()
    }

    /// Puts an object of any size that costs no memory.
    pub fn synthetic(&self, bucket: &str, key: &str, size_bytes: u64) {
        self.0.put_synthetic(bucket, key, size_bytes, 1);
    }
}
