//! The simulator's controls, in the words of the facts.

use super::outcome::{Failure, Outcome};

/// How the simulator misbehaves. Shares are of requests, 0 to 1.
#[derive(Clone, Debug, Default)]
#[allow(dead_code, reason = "read by the simulator once it is there")]
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
}

impl Sim {
    pub fn start() -> Outcome<Self> {
        Err(Failure("s3sim is not there yet".into()))
    }
    pub fn set(&self, _: &Faults) -> Outcome {
        Ok(())
    }
    pub fn reset_counts(&self) -> Outcome {
        Ok(())
    }
    pub fn counts(&self) -> Outcome<Counts> {
        Ok(Counts::default())
    }
    pub fn bytes_sent(&self) -> Outcome<u64> {
        Ok(0)
    }
    pub fn bytes_received(&self) -> Outcome<u64> {
        Ok(0)
    }
    pub fn synthetic(&self, _: &str, _: u64) -> Outcome {
        Ok(())
    }
}
