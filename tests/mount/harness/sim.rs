//! The simulator's controls, in the words of the facts.

use s3sim::shaping::{self, Config, FirstByte};

use super::outcome::Outcome;

/// How the simulator misbehaves. Shares are of requests, 0 to 1.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Share answered 503 SlowDown.
    pub slow_down: f64,
    /// Share whose connection is reset.
    pub reset: f64,
    /// Share of bodies that end early.
    pub truncate: f64,
    /// Share of bodies that stop.
    pub stall: f64,
    /// Share of bodies with a wrong byte.
    pub wrong_checksum: f64,
    /// Conditions are ignored.
    pub ignore_conditions: bool,
    /// Operations answered 403.
    pub denied: &'static [&'static str],
    /// Time to the first byte.
    pub first_byte_milliseconds: u64,
    /// Bandwidth of a connection; 0 is unbounded.
    pub bytes_per_second: u64,
}

/// Requests by operation.
#[derive(Clone, Debug, Default)]
pub struct Counts(pub std::collections::BTreeMap<String, u64>);

impl Counts {
    pub fn of(&self, operation: &str) -> u64 {
        self.0.get(operation).copied().unwrap_or(0)
    }
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

impl<const N: usize> PartialEq<[(&str, u64); N]> for Counts {
    fn eq(&self, other: &[(&str, u64); N]) -> bool {
        self.total() == other.iter().map(|(_, n)| n).sum::<u64>() && other.iter().all(|(name, n)| self.of(name) == *n)
    }
}

/// A simulator in this process.
pub struct Sim {
    pub endpoint: String,
    sim: s3sim::S3Sim,
}

impl Sim {
    pub fn start() -> Outcome<Self> {
        let sim = s3sim::S3Sim::start(s3sim::Options::default())?;
        Ok(Self { endpoint: sim.url().to_owned(), sim })
    }

    /// Misbehaves so from now on.
    pub fn set(&self, faults: &Faults) -> Outcome {
        let first_byte = faults.first_byte_milliseconds as f64;
        self.sim.set(Config {
            first_byte_ms: FirstByte {
                get: first_byte,
                head: first_byte,
                put: first_byte,
                list: first_byte,
                default: first_byte,
            },
            jitter: 0.0,
            bytes_per_second_per_connection: faults.bytes_per_second,
            faults: shaping::Faults {
                slow_down: faults.slow_down,
                reset: faults.reset,
                truncate: faults.truncate,
                stall: faults.stall,
                wrong_checksum: faults.wrong_checksum,
                ignore_conditions: faults.ignore_conditions,
                denied: faults.denied.iter().map(|operation| (*operation).to_owned()).collect(),
            },
        });
        Ok(())
    }

    pub fn reset_counts(&self) -> Outcome {
        self.sim.reset();
        Ok(())
    }

    pub fn counts(&self) -> Outcome<Counts> {
        Ok(Counts(self.sim.counters().requests))
    }

    /// Body bytes that left the server.
    pub fn bytes_sent(&self) -> Outcome<u64> {
        Ok(self.sim.counters().bytes_out)
    }

    /// Body bytes that reached the server.
    pub fn bytes_received(&self) -> Outcome<u64> {
        Ok(self.sim.counters().bytes_in)
    }

    /// An object that costs no memory.
    pub fn put_synthetic(&self, bucket: &str, key: &str, size: u64) {
        self.sim.put_synthetic(bucket, key, size, 1);
    }
}
