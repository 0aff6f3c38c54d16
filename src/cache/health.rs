//! How the disk is doing: when it was last complained of, and whether writing is given a rest.
//!
//! Owns two moments in time. A disk that fails costs one line a minute, and one try in ten seconds.

use std::io;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::Clock;

/// Between two lines in the log.
const QUIET: Duration = Duration::from_secs(60);
/// Between a write that failed and the next try.
const REST: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Health {
    clock: Clock,
    moments: Mutex<Moments>,
}

#[derive(Debug, Default)]
struct Moments {
    said: Option<Instant>,
    failed: Option<Instant>,
}

impl Health {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, moments: Mutex::default() }
    }

    /// Says what failed, unless something was said within the last minute.
    pub(super) fn failed(&self, what: &str, error: &io::Error) {
        let now = self.clock.now();
        let mut moments = self.moments.lock();
        if moments.said.is_none_or(|said| now - said >= QUIET) {
            moments.said = Some(now);
            tracing::warn!(%error, "{what}; S3 is asked instead");
        }
    }

    /// Nothing is written for a while.
    pub(super) fn pause(&self) {
        self.moments.lock().failed = Some(self.clock.now());
    }

    /// Whether writing rests.
    pub(super) fn is_paused(&self) -> bool {
        self.moments.lock().failed.is_some_and(|failed| self.clock.now() - failed < REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_rests_after_a_failure_and_is_tried_again() {
        let clock = Clock::manual(std::time::SystemTime::UNIX_EPOCH);
        let health = Health::new(clock.clone());
        assert!(!health.is_paused());
        health.pause();
        assert!(health.is_paused());
        clock.advance(REST);
        assert!(!health.is_paused());
    }
}
