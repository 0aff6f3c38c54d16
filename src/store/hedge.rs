//! A second GET for a first byte that is late: whichever answers first is taken, the other is given up.
//!
//! Owns what is known of first-byte times and the allowance of second requests; sits in the retry layer, over each single
//! try. Never asks twice where most requests are slow, for then it is the network or the server that is busy (Dean and
//! Barroso, "The Tail at Scale", CACM 56(2), 2013). Invariant: at most one GET in [`GETS_A_HEDGE`] is made twice.
//! A late request that lost is in the latencies with the time for which it was waited for, lest they look better than S3 is.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::{StoreError, StoreResult};
use crate::clock::Clock;
use crate::metrics::{Counter, Latency, Metrics};

/// GETs that earn a second one.
const GETS_A_HEDGE: u32 = 20;
/// Second requests that may be saved up: slow answers come together.
const HEDGES_SAVED_MAX: u32 = 16;
/// First-byte times that are remembered.
const REMEMBERED: usize = 128;
/// As many must be known before one counts as late.
const KNOWN_MIN: usize = 32;
/// No answer is late before: less is the noise of a busy client.
const LATE_MIN: Duration = Duration::from_millis(40);

/// When a request is late, and whether it may be made again. Pure.
#[derive(Debug, Default)]
struct Policy {
    /// The latest first-byte times, in the order in which they came, around the ring.
    recent: Vec<Duration>,
    next: usize,
    late_after: Option<Duration>,
    /// Second requests earned, in parts of [`GETS_A_HEDGE`].
    earned: u32,
}

impl Policy {
    /// A first byte came after so long.
    fn note(&mut self, first_byte: Duration) {
        if self.recent.len() < REMEMBERED {
            self.recent.push(first_byte);
        } else {
            self.recent[self.next] = first_byte;
        }
        self.next = (self.next + 1) % REMEMBERED;
        if self.next.is_multiple_of(16) && self.recent.len() >= KNOWN_MIN {
            let mut sorted = self.recent.clone();
            sorted.sort_unstable();
            let (median, p95) = (sorted[sorted.len() / 2], sorted[sorted.len() * 95 / 100]);
            self.late_after = Some(p95.max(2 * median).max(LATE_MIN));
        }
    }

    /// A request begins: when it will be late, if that is known.
    fn begin(&mut self) -> Option<Duration> {
        self.earned = (self.earned + 1).min(HEDGES_SAVED_MAX * GETS_A_HEDGE);
        self.late_after
    }

    /// Takes one of the second requests that were earned.
    fn spend(&mut self) -> bool {
        let left = self.earned.checked_sub(GETS_A_HEDGE);
        self.earned = left.unwrap_or(self.earned);
        left.is_some()
    }
}

/// What one store knows of its first-byte times.
#[derive(Debug)]
pub(super) struct Hedge {
    policy: Mutex<Policy>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl Hedge {
    pub(super) fn new(metrics: Arc<Metrics>, clock: Clock) -> Self {
        Self { policy: Mutex::default(), metrics, clock }
    }

    /// The answer of `call`, which is made a second time if the first is late. It must be one that changes nothing.
    pub(super) async fn run<T, F>(&self, call: impl Fn() -> F) -> StoreResult<T>
    where
        F: Future<Output = StoreResult<T>>,
    {
        let began = self.clock.now();
        let waited = || self.clock.now().saturating_duration_since(began);
        let noted = |result: StoreResult<T>| {
            if result.is_ok() {
                self.policy.lock().note(waited());
            }
            result
        };
        let late_after = self.policy.lock().begin();
        let mut first = pin!(call());
        let Some(late_after) = late_after else { return noted(first.await) };
        if let Ok(result) = timeout(late_after, first.as_mut()).await {
            return noted(result);
        }
        if !self.policy.lock().spend() {
            return noted(first.await);
        }
        tracing::debug!("no first byte after {late_after:?}: asking a second time");
        self.metrics.add(Counter::Hedges, 1);
        let second = pin!(call());
        let (result, other) = match select(first, second).await {
            Either::Left((result, second)) => (result, Either::Right(second)),
            Either::Right((result, first)) => (result, Either::Left(first)),
        };
        let is_settled = !result.as_ref().is_err_and(StoreError::is_retryable);
        if is_settled && matches!(other, Either::Left(_)) {
            self.metrics.observe(Latency::S3FirstByte, waited());
        }
        // A failure of one says nothing of the other, which is still waited for; what S3 says of the object is an answer.
        match result {
            Err(error) if error.is_retryable() => match other.await {
                Err(StoreError::Unsent(_)) => Err(error),
                result => noted(result),
            },
            result => noted(result),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use proptest::prelude::*;
    use tokio::time::{Instant, sleep};

    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn experienced(first_byte: Duration) -> Hedge {
        let hedge = Hedge::new(Arc::default(), Clock::timers());
        for _ in 0..REMEMBERED {
            let mut policy = hedge.policy.lock();
            policy.begin();
            policy.note(first_byte);
        }
        hedge
    }

    /// Answers its how manyth call it was, each after its time; says how often it was called and how long it took.
    async fn ask(hedge: &Hedge, times: &[Duration]) -> (StoreResult<u32>, u32, Duration) {
        let (calls, began) = (Arc::new(AtomicU32::new(0)), Instant::now());
        let answer = hedge.run(|| {
            let nth = calls.fetch_add(1, SeqCst);
            let time = times[nth as usize];
            async move {
                sleep(time).await;
                if time.subsec_millis() % 2 == 1 { Err(StoreError::Transient("odd".into())) } else { Ok(nth) }
            }
        });
        (answer.await, calls.load(SeqCst), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_first_byte_is_asked_for_a_second_time() {
        let hedge = experienced(ms(26));
        let (answer, calls, took) = ask(&hedge, &[ms(400), ms(26)]).await;
        assert_eq!((answer.expect("an answer"), calls), (1, 2));
        assert!(took < ms(90), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_request_still_counts_when_it_answers_before_the_second() {
        let hedge = experienced(ms(26));
        let (answer, calls, _) = ask(&hedge, &[ms(60), ms(400)]).await;
        assert_eq!((answer.expect("an answer"), calls), (0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn second_requests_are_counted_and_a_late_one_that_lost_is_in_the_latencies() {
        let hedge = experienced(ms(26));
        let counted = |hedge: &Hedge| {
            let snapshot = hedge.metrics.snapshot();
            let first_byte = snapshot.latencies.iter().find(|(it, _)| *it == Latency::S3FirstByte).expect("catalogued");
            (hedge.metrics.counter(Counter::Hedges), first_byte.1.count, first_byte.1.max)
        };
        ask(&hedge, &[ms(26)]).await.0.expect("an answer in time");
        assert_eq!(counted(&hedge), (0, 0, Duration::ZERO));
        // What answers is measured where it is sent; here stands what was waited for the one that does not.
        let (_, _, took) = ask(&hedge, &[ms(400), ms(26)]).await;
        assert_eq!(counted(&hedge), (1, 1, took));
        // The second of two is not known to be late.
        ask(&hedge, &[ms(60), ms(400)]).await.0.expect("an answer");
        assert_eq!(counted(&hedge), (2, 1, took));
        // A failure is no answer: the other one is waited for, and measured.
        ask(&hedge, &[ms(200), ms(101)]).await.0.expect("an answer");
        assert_eq!(counted(&hedge), (3, 1, took));
    }

    #[tokio::test(start_paused = true)]
    async fn the_failure_of_one_request_waits_for_the_other() {
        let hedge = experienced(ms(26));
        let (answer, ..) = ask(&hedge, &[ms(101), ms(100)]).await;
        assert_eq!(answer.expect("an answer"), 1);
        let (answer, ..) = ask(&hedge, &[ms(101), ms(103)]).await;
        assert!(answer.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_late_while_little_is_known_or_everything_is_slow() {
        let hedge = Hedge::new(Arc::default(), Clock::timers());
        assert_eq!(ask(&hedge, &[ms(2000)]).await.1, 1);
        let hedge = experienced(ms(2000));
        assert_eq!(ask(&hedge, &[ms(3000)]).await.1, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_always_late_is_not_asked_twice_as_often() {
        let hedge = experienced(ms(26));
        let mut calls = 0;
        for _ in 0..400 {
            calls += ask(&hedge, &[ms(5000), ms(5000)]).await.1;
        }
        assert!(calls <= 400 + HEDGES_SAVED_MAX + 400 / GETS_A_HEDGE, "{calls}");
    }

    proptest! {
        #[test]
        fn no_more_than_was_earned_is_spent(begins in proptest::collection::vec(any::<bool>(), 1..2000)) {
            let mut policy = Policy::default();
            let (mut begun, mut spent) = (0_u32, 0_u32);
            for begin in begins {
                if begin {
                    policy.begin();
                    begun += 1;
                } else {
                    spent += u32::from(policy.spend());
                }
                prop_assert!(spent * GETS_A_HEDGE <= begun);
            }
        }
    }
}
