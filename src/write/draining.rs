//! Who is about to give memory back: parts and publications on their way to S3, and files that are being let go.
//!
//! Owns no memory. Invariant: whoever waits here is told as soon as something has given memory back, or that nothing of what had begun
//! before did: at the latest when S3 has refused or timed out all of that. That bounds one wait. Who then finds no room waits anew, and
//! is bounded by nothing as long as others go on to give memory back and to take it.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// All that is under way in a mount. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Draining(Arc<Drains>);

#[derive(Debug, Default)]
struct Drains {
    runs: Mutex<Runs>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct Runs {
    begun: u64,
    running: BTreeSet<u64>,
    /// How many gave something back.
    freed: u64,
}

/// One thing that is under way, until dropped.
#[derive(Debug)]
pub struct Drain {
    number: u64,
    has_freed: bool,
    of: Draining,
}

impl Drain {
    /// It has ended, and gave memory back.
    pub fn freed(mut self) {
        self.has_freed = true;
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        {
            let mut runs = self.of.0.runs.lock();
            runs.running.remove(&self.number);
            runs.freed += u64::from(self.has_freed);
        }
        self.of.0.ended.notify_waiters();
    }
}

impl Draining {
    pub(super) fn begin(&self) -> Drain {
        let mut runs = self.0.runs.lock();
        let number = runs.begun;
        runs.begun += 1;
        runs.running.insert(number);
        Drain { number, has_freed: false, of: self.clone() }
    }

    /// Waits until something has given memory back; false once nothing that is under way now did.
    pub(super) async fn has_freed(&self) -> bool {
        let (begun, freed) = {
            let runs = self.0.runs.lock();
            (runs.begun, runs.freed)
        };
        loop {
            let ended = self.0.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            {
                let runs = self.0.runs.lock();
                if runs.freed > freed {
                    return true;
                }
                if runs.running.first().is_none_or(|&number| number >= begun) {
                    return false;
                }
            }
            ended.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_waits_hears_of_what_is_freed_and_of_the_end_of_what_had_begun() {
        let draining = Draining::default();
        assert!(!draining.has_freed().await, "nothing is under way");
        let (first, second) = (draining.begin(), draining.begin());
        let mut waiting = Box::pin(draining.has_freed());
        assert_eq!(waiting.as_mut().now_or_never(), None);
        let later = draining.begin();
        drop(first);
        assert_eq!(waiting.as_mut().now_or_never(), None);
        drop(second);
        assert_eq!(waiting.as_mut().now_or_never(), Some(false), "what began later is not waited for");
        let mut waiting = Box::pin(draining.has_freed());
        assert_eq!(waiting.as_mut().now_or_never(), None);
        later.freed();
        assert_eq!(waiting.as_mut().now_or_never(), Some(true));
    }
}
