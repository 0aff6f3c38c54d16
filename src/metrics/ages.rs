//! Since when files are dirty: what tells how old the oldest bytes are that S3 does not have.
//!
//! A file is noted when it becomes dirty and struck out when it is published: twice for each publication, not for each
//! write, so a lock that is held for an insertion into a small tree is fine here.

use std::collections::BTreeSet;
use std::time::Instant;

use parking_lot::Mutex;

/// Stands for one file that is dirty.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirtyToken {
    since: Instant,
    number: u64,
}

impl DirtyToken {
    /// When the file became dirty.
    pub fn since(&self) -> Instant {
        self.since
    }
}

#[derive(Debug, Default)]
pub(super) struct DirtyAges {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    dirty: BTreeSet<(Instant, u64)>,
}

impl DirtyAges {
    pub(super) fn begin(&self, since: Instant) -> DirtyToken {
        let mut table = self.table.lock();
        let number = table.next;
        table.next += 1;
        table.dirty.insert((since, number));
        DirtyToken { since, number }
    }

    #[expect(clippy::needless_pass_by_value, reason = "a token is good for one end")]
    pub(super) fn end(&self, token: DirtyToken) {
        self.table.lock().dirty.remove(&(token.since, token.number));
    }

    pub(super) fn oldest(&self) -> Option<Instant> {
        self.table.lock().dirty.first().map(|(since, _)| *since)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    #[test]
    fn the_oldest_is_the_oldest_of_those_that_are_left() {
        let start = Clock::system().now();
        let ages = DirtyAges::default();
        let second = ages.begin(start + Duration::from_secs(2));
        let first = ages.begin(start + Duration::from_secs(1));
        let twin = ages.begin(start + Duration::from_secs(1));
        ages.end(first);
        assert_eq!(ages.oldest(), Some(start + Duration::from_secs(1)), "another one is as old");
        ages.end(twin);
        assert_eq!(ages.oldest(), Some(start + Duration::from_secs(2)));
        ages.end(second);
        assert_eq!(ages.oldest(), None);
    }
}
