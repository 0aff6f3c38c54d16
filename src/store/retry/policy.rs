//! When to ask again, and when to give up. Pure: the time and the dice are handed in.
//!
//! Invariants: a wait never reaches past the deadline; a wait is never longer than the doubling ceiling unless the
//! server asked for more (Retry-After); after a long outage the repeats of all callers together come at a bounded rate.

use std::time::Duration;

use crate::metrics::RequestKind;
use crate::store::StoreError;

/// How failures are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// A request without a body has failed for good so long after it was begun. What it moves is granted in addition, and the time in
    /// which the bytes of an upload go out does not count.
    pub deadline: Duration,
    /// One try of a request without a body may take so long: far over S3's slowest answers, well under the deadline. An upload
    /// may stand still for as long.
    pub attempt: Duration,
    /// Tries of one request that the server answered, the first included.
    pub attempts_max: u32,
    /// The same while no answer came at all: in a mount the deadline alone decides, so that a server or a network that is away
    /// for half a minute is no I/O error.
    pub attempts_without_answer_max: u32,
    /// Ceiling of the first wait after a broken connection or a 500; doubles with each failure.
    pub backoff_first: Duration,
    /// The same after SlowDown: a partition that is hot stays so for seconds.
    pub throttled_first: Duration,
    /// Highest ceiling.
    pub backoff_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(60),
            attempt: Duration::from_secs(20),
            attempts_max: 12,
            attempts_without_answer_max: u32::MAX,
            backoff_first: Duration::from_millis(50),
            throttled_first: Duration::from_millis(400),
            backoff_max: Duration::from_secs(10),
        }
    }
}

/// A body is granted a second for so many bytes: a connection to S3 brings 90 MB/s, a congested one still this.
const SLOWEST_BYTES_PER_SECOND: u64 = 1 << 20;

/// S3 copies within itself at some hundred MB/s; this is a tenth.
const SLOWEST_COPIED_BYTES_PER_SECOND: u64 = 20 << 20;

/// S3 takes minutes to put thousands of parts together, and keeps the connection warm meanwhile (API reference,
/// CompleteMultipartUpload); a CopyObject does not say how much it moves, and may move 5 GB.
const SLOW_OPERATION: Duration = Duration::from_secs(240);

/// What is left for the last try of a call.
pub(super) const LAST_TRY: Duration = Duration::from_secs(1);

/// The time that one call has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// For all tries and waits.
    pub(super) deadline: Duration,
    /// For one try.
    pub(super) attempt: Duration,
}

/// How far a try has come with its body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// Bytes that the connection has taken.
    pub(super) taken_bytes: u64,
    /// All that it is to take.
    pub(super) body_bytes: u64,
    /// From the try's begin until it took the last of them.
    pub(super) took: Duration,
}

impl Progress {
    /// What to say of a try that has stood still for too long.
    pub(super) fn standstill(self, patience: Duration) -> String {
        if self.taken_bytes == 0 || self.taken_bytes >= self.body_bytes {
            return format!("no answer within {patience:?}");
        }
        format!("an upload stood still for {patience:?} after {} of {} bytes", self.taken_bytes, self.body_bytes)
    }
}

/// What follows a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    GiveUp,
    AskAgainAfter(Duration),
}

/// What a call has been through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    pub(super) limits: Limits,
    pub(super) elapsed: Duration,
    /// Tries that failed, at least one.
    pub(super) failures: u32,
}

impl RetryPolicy {
    pub(super) fn limits(&self, kind: RequestKind, moved_bytes: u64) -> Limits {
        let allowance = match kind {
            RequestKind::CompleteUpload | RequestKind::Copy => SLOW_OPERATION,
            RequestKind::CopyPart => Duration::from_secs(moved_bytes / SLOWEST_COPIED_BYTES_PER_SECOND),
            _ => Duration::from_secs(moved_bytes / SLOWEST_BYTES_PER_SECOND),
        };
        Limits { deadline: self.deadline + allowance, attempt: self.attempt.min(self.deadline) + allowance }
    }

    /// How long a try may stand still: nothing else tells a slow line, on which many uploads share little, from a dead one.
    /// `left` is the time until the deadline.
    pub(super) fn patience(limits: Limits, left: Duration, progress: Progress) -> Duration {
        let patience = limits.attempt.min(left);
        if progress.taken_bytes < progress.body_bytes {
            return patience;
        }
        // What was taken may be in buffers, which empty at the pace of the line.
        patience.max(progress.took)
    }

    /// `dice` is even in [0, 1): full jitter (AWS architecture blog, "Exponential backoff and jitter").
    pub(super) fn decide(&self, error: &StoreError, course: Course, dice: f64) -> Decision {
        let attempts_max = match error {
            StoreError::Unsent(_) => self.attempts_without_answer_max,
            _ => self.attempts_max,
        };
        if !error.is_retryable() || course.failures >= attempts_max {
            return Decision::GiveUp;
        }
        let (first, asked) = match error {
            StoreError::Throttled { retry_after, .. } => (self.throttled_first, retry_after.unwrap_or_default()),
            _ => (self.backoff_first, Duration::ZERO),
        };
        let doublings = (course.failures - 1).min(16);
        let ceiling = first.saturating_mul(1 << doublings).min(self.backoff_max);
        let wait = ceiling.mul_f64(dice).max(asked);
        // A wait that reaches past the deadline is cut so that a last try can begin, unless the server asked for it.
        let left = course.limits.deadline.saturating_sub(course.elapsed);
        if asked >= left || left <= LAST_TRY {
            return Decision::GiveUp;
        }
        Decision::AskAgainAfter(wait.min(left - LAST_TRY).max(asked))
    }
}

/// Repeats that may be made at once after a calm time: a burst of failures of a busy mount.
const TOKENS_MAX: f64 = 200.0;
/// Repeats a second while nothing succeeds.
const TOKENS_PER_SECOND: f64 = 10.0;
/// What a success gives back: with it, up to a fifth of all requests may be repeats for ever.
const TOKENS_PER_SUCCESS: f64 = 0.25;

/// The budget of repeats that all callers share: a server that is down is not stormed. It never fails a call; it makes
/// the call wait its turn, and the deadline decides.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenBudget {
    /// Below zero: so many repeats are waiting for their turn.
    tokens: f64,
    /// When `tokens` was right, since the beginning.
    at: Duration,
}

impl Default for TokenBudget {
    fn default() -> Self {
        Self { tokens: TOKENS_MAX, at: Duration::ZERO }
    }
}

impl TokenBudget {
    /// Takes one repeat at `now` (since the beginning) and tells how long to wait for its turn; takes nothing and gives
    /// `None` if that were longer than `patience`.
    pub(super) fn take(&mut self, now: Duration, patience: Duration) -> Option<Duration> {
        let gained = now.saturating_sub(self.at).as_secs_f64() * TOKENS_PER_SECOND;
        self.tokens = (self.tokens + gained).min(TOKENS_MAX);
        self.at = self.at.max(now);
        let left = self.tokens - 1.0;
        let wait = Duration::from_secs_f64((-left / TOKENS_PER_SECOND).max(0.0));
        if wait >= patience {
            return None;
        }
        self.tokens = left;
        Some(wait)
    }

    /// A request succeeded.
    pub(super) fn give_back(&mut self) {
        self.tokens = (self.tokens + TOKENS_PER_SUCCESS).min(TOKENS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn throttled(retry_after: Option<u64>) -> StoreError {
        StoreError::Throttled { detail: "SlowDown".into(), retry_after: retry_after.map(Duration::from_secs) }
    }

    fn course(policy: &RetryPolicy, elapsed: Duration, failures: u32) -> Course {
        Course { limits: policy.limits(RequestKind::Get, 0), elapsed, failures }
    }

    #[test]
    fn an_answer_that_no_repeat_mends_is_final() {
        let policy = RetryPolicy::default();
        for error in [StoreError::NotFound, StoreError::PreconditionFailed, StoreError::Fatal("x".into())] {
            assert_eq!(policy.decide(&error, course(&policy, Duration::ZERO, 1), 0.5), Decision::GiveUp);
        }
    }

    #[test]
    fn retry_after_is_honoured_and_gives_up_if_it_reaches_past_the_deadline() {
        let policy = RetryPolicy::default();
        let begun = course(&policy, Duration::ZERO, 1);
        assert_eq!(policy.decide(&throttled(Some(7)), begun, 0.1), Decision::AskAgainAfter(Duration::from_secs(7)));
        assert_eq!(policy.decide(&throttled(Some(60)), begun, 0.1), Decision::GiveUp);
    }

    #[test]
    fn a_large_body_has_more_time() {
        let policy = RetryPolicy::default();
        let small = policy.limits(RequestKind::UploadPart, 8 << 20);
        let large = policy.limits(RequestKind::UploadPart, 656 << 20);
        assert_eq!(small.attempt, policy.attempt + Duration::from_secs(8));
        assert_eq!(large.deadline, policy.deadline + Duration::from_secs(656));
    }

    #[test]
    fn an_upload_is_judged_by_the_time_in_which_it_stands_still() {
        let limits = RetryPolicy::default().limits(RequestKind::UploadPart, 64 << 20);
        let patience = |taken_bytes, seconds| {
            let progress = Progress { taken_bytes, body_bytes: 64 << 20, took: Duration::from_secs(seconds) };
            RetryPolicy::patience(limits, limits.deadline, progress)
        };
        assert_eq!(patience(0, 0), limits.attempt);
        assert_eq!(patience(1 << 20, 3000), limits.attempt);
        // The answer: what the line has not carried yet takes its time, however slow the line.
        assert_eq!(patience(64 << 20, 5), limits.attempt);
        assert_eq!(patience(64 << 20, 3000), Duration::from_secs(3000));
    }

    #[test]
    fn an_outage_is_met_with_a_bounded_rate_of_repeats() {
        let mut budget = TokenBudget::default();
        let patience = Duration::from_secs(60);
        let granted = (0..10_000).filter(|_| budget.take(Duration::ZERO, patience).is_some()).count();
        assert_eq!(granted, 200 + 599);
        assert!(budget.take(Duration::from_secs(100), patience).is_some());
    }

    #[test]
    fn a_fifth_of_all_requests_may_be_repeats_for_ever() {
        let mut budget = TokenBudget::default();
        for _ in 0..10_000 {
            assert_eq!(budget.take(Duration::ZERO, Duration::from_secs(1)), Some(Duration::ZERO));
            (0..4).for_each(|_| budget.give_back());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn a_wait_is_under_its_ceiling_and_before_the_deadline(
            elapsed_ms in 0_u64..70_000, failures in 1_u32..20, dice in 0.0..1.0_f64, is_throttled: bool,
        ) {
            let policy = RetryPolicy::default();
            let error = if is_throttled { throttled(None) } else { StoreError::Transient("reset".into()) };
            let course = course(&policy, Duration::from_millis(elapsed_ms), failures);
            if let Decision::AskAgainAfter(wait) = policy.decide(&error, course, dice) {
                prop_assert!(wait <= policy.backoff_max);
                prop_assert!(course.elapsed + wait < course.limits.deadline);
                prop_assert!(failures < policy.attempts_max);
            }
        }

        #[test]
        fn the_budget_never_grants_more_than_its_rate(
            steps in prop::collection::vec((0_u64..2000, any::<bool>()), 1..300),
        ) {
            let (mut budget, mut now, mut allowed, mut granted) = (TokenBudget::default(), Duration::ZERO, TOKENS_MAX, 0.0);
            for (milliseconds, succeeds) in steps {
                now += Duration::from_millis(milliseconds);
                allowed += milliseconds as f64 / 1000.0 * TOKENS_PER_SECOND;
                if succeeds {
                    budget.give_back();
                    allowed += TOKENS_PER_SUCCESS;
                }
                if budget.take(now, Duration::from_millis(1)).is_some() {
                    granted += 1.0;
                }
            }
            prop_assert!(granted <= allowed + 0.01);
        }
    }
}
