//! Bounds on bytes that are held at once, and the leases that hold them. Knows nothing of what the bytes are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Granularity of a [`Budget`]: 1 KiB, so that 4 TiB fit a semaphore of `u32` permits.
const BUDGET_UNIT_BYTES: u64 = 1024;

/// A bound on bytes that are held at once. Waiters are served in the order in which they came.
#[derive(Clone, Debug)]
pub struct Budget {
    permits: Arc<Semaphore>,
    limit_units: u32,
}

/// Bytes taken from a [`Budget`], given back on drop.
#[derive(Debug)]
pub struct Lease {
    permit: OwnedSemaphorePermit,
}

impl Budget {
    /// A budget of `limit_bytes`, at least one unit of 1 KiB.
    pub fn new(limit_bytes: u64) -> Self {
        let limit_units = u32::try_from(limit_bytes.div_ceil(BUDGET_UNIT_BYTES)).unwrap_or(u32::MAX).max(1);
        Self { permits: Arc::new(Semaphore::new(limit_units as usize)), limit_units }
    }

    /// The whole budget in bytes.
    pub fn limit_bytes(&self) -> u64 {
        u64::from(self.limit_units) * BUDGET_UNIT_BYTES
    }

    /// Bytes now held.
    pub fn used_bytes(&self) -> u64 {
        let free = self.permits.available_permits() as u64;
        (u64::from(self.limit_units) - free) * BUDGET_UNIT_BYTES
    }

    /// Takes `bytes` if they are free at once. A request over the whole budget counts as the whole budget, so that it
    /// can be served at all.
    pub fn try_take(&self, bytes: u64) -> Option<Lease> {
        let permit = Arc::clone(&self.permits).try_acquire_many_owned(self.units(bytes)).ok()?;
        Some(Lease { permit })
    }

    /// Takes `bytes`, waiting in line until they are free.
    pub async fn take(&self, bytes: u64) -> Lease {
        let permit = Arc::clone(&self.permits)
            .acquire_many_owned(self.units(bytes))
            .await
            .expect("the semaphore of a budget is never closed");
        Lease { permit }
    }

    fn units(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(BUDGET_UNIT_BYTES)).unwrap_or(u32::MAX).clamp(1, self.limit_units)
    }
}

impl Lease {
    /// Bytes that this lease holds.
    pub fn bytes(&self) -> u64 {
        self.permit.num_permits() as u64 * BUDGET_UNIT_BYTES
    }

    /// Joins another lease of the same budget to this one.
    pub fn merge(&mut self, other: Self) {
        self.permit.merge(other.permit);
    }

    /// Splits off `bytes` (rounded up to 1 KiB); `None` if this lease holds less.
    pub fn split(&mut self, bytes: u64) -> Option<Self> {
        let units = usize::try_from(bytes.div_ceil(BUDGET_UNIT_BYTES)).ok()?;
        self.permit.split(units).map(|permit| Self { permit })
    }
}

/// Counts bytes that are held beyond a [`Budget`], where there is no other way. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Overdraft(Arc<AtomicU64>);

/// Bytes taken from an [`Overdraft`], given back on drop.
#[derive(Debug)]
pub struct Overdrawn {
    bytes: u64,
    of: Overdraft,
}

impl Overdraft {
    /// Bytes now held.
    pub fn used_bytes(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Takes `bytes`, unless more than `limit_bytes` would then be held.
    pub fn try_take(&self, bytes: u64, limit_bytes: u64) -> Option<Overdrawn> {
        let within = |used: u64| used.checked_add(bytes).filter(|&now| now <= limit_bytes);
        self.0.fetch_update(Relaxed, Relaxed, within).ok()?;
        Some(Overdrawn { bytes, of: self.clone() })
    }
}

impl Drop for Overdrawn {
    fn drop(&mut self) {
        self.of.0.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overdraft_ends_at_its_limit() {
        let overdraft = Overdraft::default();
        let first = overdraft.try_take(6, 10).expect("within the limit");
        assert!(overdraft.try_take(5, 10).is_none());
        let second = overdraft.try_take(5, 11).expect("who may go further");
        drop(first);
        assert_eq!(overdraft.used_bytes(), 5);
        drop(second);
        assert_eq!(overdraft.used_bytes(), 0);
    }

    #[tokio::test]
    async fn a_request_over_the_whole_budget_is_served_alone() {
        let budget = Budget::new(4096);
        let lease = budget.take(1 << 40).await;
        assert_eq!(lease.bytes(), 4096);
        assert!(budget.try_take(1).is_none());
        drop(lease);
        assert_eq!(budget.used_bytes(), 0);
    }
}
