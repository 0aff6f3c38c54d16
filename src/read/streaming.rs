//! How many streams of a mount fill windows now, so that each has its share.
//!
//! A stream counts while its handle is read: one that is merely open has no share. Pure: time is counted in reads of all handles.
//! Invariant: a handle counts once in a period, with the streams that it had at its latest read.

use parking_lot::Mutex;

/// Reads of all handles that make a period: long enough that each of a thousand streams, read by turns, is seen in it.
const PERIOD_READS: u64 = 1024;

/// Streams of all handles.
#[derive(Debug, Default)]
pub(super) struct Streaming(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    reads: u64,
    /// Streams seen in this period and in the one before it.
    now: usize,
    before: usize,
}

/// What of the count is a handle's.
#[derive(Debug, Default)]
pub(super) struct Counted {
    period: u64,
    streams: usize,
}

impl Streaming {
    /// How many there are, at least one.
    pub(super) fn count(&self) -> u64 {
        let counts = self.0.lock();
        counts.now.max(counts.before).max(1) as u64
    }

    /// A handle was read, and has so many streams now.
    pub(super) fn note(&self, counted: &mut Counted, streams: usize) {
        let mut counts = self.0.lock();
        counts.reads += 1;
        if counts.reads.is_multiple_of(PERIOD_READS) {
            counts.before = std::mem::take(&mut counts.now);
        }
        let period = counts.reads / PERIOD_READS;
        let already = if counted.period == period { counted.streams } else { 0 };
        counts.now = (counts.now + streams).saturating_sub(already);
        *counted = Counted { period, streams };
    }

    /// A handle is closed.
    pub(super) fn leave(&self, counted: &Counted) {
        let mut counts = self.0.lock();
        if counted.period == counts.reads / PERIOD_READS {
            counts.now = counts.now.saturating_sub(counted.streams);
        } else if counted.period + 1 == counts.reads / PERIOD_READS {
            counts.before = counts.before.saturating_sub(counted.streams);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_are_read_count_and_those_that_are_merely_open_do_not() {
        let streaming = Streaming::default();
        let mut handles: Vec<Counted> = (0..12).map(|_| Counted::default()).collect();
        for _ in 0..3 {
            handles.iter_mut().for_each(|handle| streaming.note(handle, 1));
        }
        assert_eq!(streaming.count(), 12);
        for _ in 0..2 * PERIOD_READS {
            streaming.note(&mut handles[0], 1);
        }
        assert_eq!(streaming.count(), 1, "eleven have not been read for long");
        streaming.note(&mut handles[1], 3);
        assert_eq!(streaming.count(), 4);
        handles.iter().for_each(|handle| streaming.leave(handle));
        assert_eq!(streaming.count(), 1);
    }

    #[test]
    fn a_thousand_streams_by_turns_all_count() {
        let streaming = Streaming::default();
        let mut handles: Vec<Counted> = (0..1000).map(|_| Counted::default()).collect();
        for round in 0..5 {
            for handle in &mut handles {
                streaming.note(handle, 1);
                assert!(round < 2 || streaming.count() >= 976, "{}", streaming.count());
            }
        }
    }

    #[test]
    fn a_handle_that_ends_its_stream_gives_its_share_back() {
        let streaming = Streaming::default();
        let (mut one, mut other) = (Counted::default(), Counted::default());
        streaming.note(&mut one, 1);
        streaming.note(&mut other, 2);
        streaming.note(&mut other, 0);
        assert_eq!(streaming.count(), 1);
        streaming.leave(&one);
        streaming.leave(&other);
        assert_eq!(streaming.0.lock().now, 0);
    }
}
