//! How many large bodies go out at once: few at first, more while they are quick, fewer where the line does not carry them.
//!
//! Many uploads that share a slow line are each so slow that none seems to move, and each that is given up leaves megabytes
//! in buffers that go out all the same. Owns the turns, no request. Invariant: one upload always has its turn, and a turn
//! ends with its holder, however that ends.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Smaller bodies need no turn.
pub(super) const LARGE_BYTES: u64 = 1 << 20;

/// At first: a line of 100 Mbit/s carries four parts of 8 MiB in three seconds. A fast one is in full use a few round trips
/// later, for the number doubles with each.
const AT_FIRST: usize = 4;

/// What is carried at this pace is quick: the line has room for one more.
const QUICK_BYTES_PER_SECOND: u64 = 4 << 20;
/// What is carried at less is slow: one fewer.
const SLOW_BYTES_PER_SECOND: u64 = 1 << 19;
/// S3 takes its time for an answer, whatever the line is like.
const ANSWER: Duration = Duration::from_secs(1);

/// The line to the server, as uploads find it.
#[derive(Debug)]
pub(super) struct Line {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Clone, Copy, Debug)]
struct State {
    running: usize,
    limit: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { state: Mutex::new(State { running: 0, limit: AT_FIRST }), freed: Notify::new() }
    }
}

/// A turn on the line, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Line);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state.lock().running -= 1;
        self.0.freed.notify_one();
    }
}

impl Line {
    /// Waits until one more may go out.
    pub(super) async fn turn(&self) -> Turn<'_> {
        loop {
            let freed = self.freed.notified();
            if let Some(turn) = self.try_turn() {
                return turn;
            }
            freed.await;
        }
    }

    fn try_turn(&self) -> Option<Turn<'_>> {
        let mut state = self.state.lock();
        if state.running >= state.limit {
            return None;
        }
        state.running += 1;
        if state.running < state.limit {
            // There may be room for the next that waits: one word was said for both.
            self.freed.notify_one();
        }
        Some(Turn(self))
    }

    /// A body went out, and its answer came after `took`.
    pub(super) fn carried(&self, bytes: u64, took: Duration) {
        let at = |bytes_per_second: u64| ANSWER + Duration::from_secs_f64(bytes as f64 / bytes_per_second as f64);
        let mut state = self.state.lock();
        if took <= at(QUICK_BYTES_PER_SECOND) {
            // Only a line that is in use shows that it has room.
            state.limit += usize::from(2 * state.running >= state.limit);
        } else if took > at(SLOW_BYTES_PER_SECOND) {
            state.limit = (state.limit - 1).max(1);
        }
    }

    /// A body stood still until it was given up.
    pub(super) fn stood_still(&self) {
        let mut state = self.state.lock();
        state.limit = (state.limit.min(state.running) / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const PART: u64 = 8 << 20;

    fn limit(line: &Line) -> usize {
        line.state.lock().limit
    }

    async fn turns(line: &Line, count: usize) -> Vec<Turn<'_>> {
        let mut turns = Vec::new();
        for _ in 0..count {
            turns.push(line.turn().await);
        }
        turns
    }

    #[tokio::test]
    async fn a_fast_line_is_in_full_use_within_a_few_round_trips() {
        let line = Line::default();
        for round in 1..=5 {
            let held = turns(&line, limit(&line)).await;
            held.iter().for_each(|_| line.carried(PART, Duration::from_millis(130)));
            assert_eq!(limit(&line), AT_FIRST << round);
            drop(held);
        }
    }

    #[tokio::test]
    async fn what_is_not_in_use_does_not_grow() {
        let line = Line::default();
        for _ in 0..100 {
            let _turn = line.turn().await;
            line.carried(PART, Duration::from_millis(130));
        }
        assert_eq!(limit(&line), AT_FIRST);
    }

    #[tokio::test]
    async fn a_line_that_does_not_carry_them_has_fewer_and_always_one() {
        let line = Line::default();
        let held = turns(&line, AT_FIRST).await;
        line.carried(PART, Duration::from_secs(10));
        assert_eq!(limit(&line), AT_FIRST, "neither quick nor slow");
        line.carried(PART, Duration::from_secs(30));
        assert_eq!(limit(&line), AT_FIRST - 1);
        for _ in 0..3 {
            line.stood_still();
            line.carried(PART, Duration::from_secs(30));
        }
        assert_eq!(limit(&line), 1);
        drop(held);
        let _turn = line.turn().await;
    }

    #[tokio::test]
    async fn nobody_waits_while_there_is_room() {
        let line = Arc::new(Line::default());
        let held = turns(&line, AT_FIRST).await;
        let waiting: Vec<_> = (0..20)
            .map(|_| {
                let line = Arc::clone(&line);
                tokio::spawn(async move {
                    let _turn = line.turn().await;
                    tokio::task::yield_now().await;
                })
            })
            .collect();
        tokio::task::yield_now().await;
        // Some stop waiting.
        waiting.iter().take(5).for_each(tokio::task::JoinHandle::abort);
        drop(held);
        for task in waiting.into_iter().skip(5) {
            task.await.expect("it has its turn");
        }
        assert_eq!(line.state.lock().running, 0);
    }
}
