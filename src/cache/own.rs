//! The versions that a mount has written, the last so many of them.
//!
//! No I/O. Invariant: what is forgotten is what was noted longest ago.

use std::collections::{HashSet, VecDeque};

use super::format::Identity;

/// How many are remembered: some 100 bytes each.
const OWN_MAX: usize = 1 << 16;

#[derive(Debug, Default)]
pub(super) struct Own {
    known: HashSet<Identity>,
    oldest_first: VecDeque<Identity>,
}

impl Own {
    pub(super) fn note(&mut self, identity: Identity) {
        if !self.known.insert(identity) {
            return;
        }
        self.oldest_first.push_back(identity);
        if self.known.len() > OWN_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    pub(super) fn contains(&self, identity: &Identity) -> bool {
        self.known.contains(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nth(n: usize) -> Identity {
        Identity::of("source", &n.to_string(), "tag", 1)
    }

    #[test]
    fn of_too_many_versions_the_oldest_is_forgotten_and_no_other() {
        let mut own = Own::default();
        (0..=OWN_MAX).for_each(|n| own.note(nth(n)));
        own.note(nth(OWN_MAX));
        assert!(!own.contains(&nth(0)));
        assert!((1..=OWN_MAX).all(|n| own.contains(&nth(n))));
    }
}
