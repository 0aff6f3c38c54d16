//! The one retry layer: repeats what failed for the moment, within a deadline and a shared budget, and settles writes
//! whose reply was lost by looking at what stands in the bucket.
//!
//! Owns no connection. A body that breaks off midway is not resumed here: the read engine, which knows what is still
//! wanted, asks again. An upload is judged by its progress: while its bytes go out no time runs. Beginning an upload twice
//! leaves an upload that nobody completes; a lifecycle rule or `list_uploads` finds it. Invariant: a conditional write or a
//! Complete answers success only if the server said so or the object was seen to be ours, and a definite refusal only if no
//! earlier try may have been the cause.

mod deletes;
mod line;
mod policy;
mod settle;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use self::line::{LARGE_BYTES, Line};
pub use self::policy::RetryPolicy;
use self::policy::{Course, Decision, LAST_TRY, Limits, Progress, TokenBudget};
use super::hedge::Hedge;
use super::{
    CompleteRequest, CopyRequest, Fingerprint, GetRequest, GetResponse, ListPage, ListRequest, ObjectAttributes,
    ObjectStore, Payload, PendingUpload, PutRequest, StoreCapabilities, StoreError, StoreResult, UploadId,
    UploadedPart, WriteCondition,
};
use crate::clock::Clock;
use crate::metrics::{Counter, Metrics, RequestKind};
use crate::types::{ByteRange, ETag, ObjectInfo, ObjectKey, ObjectVersion};

/// A look at the object may take so long, also when the deadline has passed: the doubt is worth it.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// How often an upload is looked at while it has no answer.
const LOOK_AT_PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// A store that repeats.
pub struct RetryStore {
    inner: Arc<dyn ObjectStore>,
    policy: RetryPolicy,
    metrics: Arc<Metrics>,
    clock: Clock,
    began: Instant,
    budget: Mutex<TokenBudget>,
    hedge: Hedge,
    line: Line,
}

impl std::fmt::Debug for RetryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RetryStore").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// One call on its way through its tries.
struct Attempts<'a> {
    store: &'a RetryStore,
    kind: RequestKind,
    name: &'a str,
    limits: Limits,
    /// What it sends, if that is more than a few words.
    body: Option<Payload>,
    began: Instant,
    /// Time in which bytes went out, or waited for their turn to: it does not count.
    uncounted: Duration,
    failures: u32,
    /// Some try may have happened all the same.
    is_in_doubt: bool,
    /// It was repeated with new credentials.
    is_renewed: bool,
}

/// What a look at the object told.
enum Seen {
    Ours(ObjectInfo),
    NotOurs,
    Unknown,
}

impl RetryStore {
    /// Repeats what fails in `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>, policy: RetryPolicy, metrics: Arc<Metrics>) -> Self {
        let clock = Clock::timers();
        let hedge = Hedge::new(Arc::clone(&metrics), clock.clone());
        Self {
            inner,
            policy,
            metrics,
            began: clock.now(),
            clock,
            budget: Mutex::default(),
            hedge,
            line: Line::default(),
        }
    }

    fn attempts<'a>(&'a self, kind: RequestKind, name: &'a str, moved_bytes: u64) -> Attempts<'a> {
        let limits = self.policy.limits(kind, moved_bytes);
        Attempts {
            store: self,
            kind,
            name,
            limits,
            body: None,
            began: self.clock.now(),
            uncounted: Duration::ZERO,
            failures: 0,
            is_in_doubt: false,
            is_renewed: false,
        }
    }

    /// Calls until it succeeds or there is no more use or time: for what may be done twice without harm.
    async fn repeat<T, F>(
        &self,
        kind: RequestKind,
        name: &str,
        moved_bytes: u64,
        mut call: impl FnMut() -> F + Send,
    ) -> StoreResult<T>
    where
        F: Future<Output = StoreResult<T>> + Send,
        T: Send,
    {
        self.attempts(kind, name, moved_bytes).repeat(&mut call).await
    }

    async fn look(&self, key: &ObjectKey, is_ours: impl FnOnce(&Fingerprint) -> bool) -> Seen {
        match timeout(LOOK_TIMEOUT, self.inner.fingerprint(key)).await {
            Ok(Ok(found)) if is_ours(&found) => Seen::Ours(found.info),
            Ok(Ok(_) | Err(StoreError::NotFound)) => Seen::NotOurs,
            Ok(Err(_)) | Err(_) => Seen::Unknown,
        }
    }
}

impl Attempts<'_> {
    /// Time in which nothing moved, waits included.
    fn elapsed(&self) -> Duration {
        self.store.clock.now().saturating_duration_since(self.began).saturating_sub(self.uncounted)
    }

    fn taken_bytes(&self) -> u64 {
        self.body.as_ref().map_or(0, Payload::taken_bytes)
    }

    /// Waits for the answer for as long as the call moves on; `Err` is a standstill.
    async fn answer<T>(
        &mut self,
        call: impl Future<Output = StoreResult<T>> + Send,
    ) -> Result<StoreResult<T>, StoreError> {
        let clock = self.store.clock.clone();
        let (began, before) = (clock.now(), self.taken_bytes());
        let (mut moved_at, mut taken, mut left) = (began, before, self.limits.deadline.saturating_sub(self.elapsed()));
        tokio::pin!(call);
        loop {
            let progress = Progress {
                taken_bytes: taken - before,
                body_bytes: self.body.as_ref().map_or(0, Payload::len_bytes),
                took: moved_at.saturating_duration_since(began),
            };
            let patience = RetryPolicy::patience(self.limits, left, progress);
            let still = clock.now().saturating_duration_since(moved_at);
            let wait = patience.saturating_sub(still);
            if let Ok(answer) = timeout(wait.min(LOOK_AT_PROGRESS_EVERY), &mut call).await {
                return Ok(answer);
            }
            if self.taken_bytes() > taken {
                let now = clock.now();
                self.uncounted += now.saturating_duration_since(moved_at);
                (moved_at, taken) = (now, self.taken_bytes());
                left = self.limits.deadline.saturating_sub(self.elapsed());
            } else if wait <= LOOK_AT_PROGRESS_EVERY {
                return Err(StoreError::Transient(progress.standstill(patience)));
            }
        }
    }

    async fn repeat<T, F>(mut self, call: &mut (impl FnMut() -> F + Send)) -> StoreResult<T>
    where
        F: Future<Output = StoreResult<T>> + Send,
        T: Send,
    {
        loop {
            match self.run(call()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.pause(error).await?,
            }
        }
    }

    async fn run<T>(&mut self, call: impl Future<Output = StoreResult<T>> + Send) -> StoreResult<T> {
        let store = self.store;
        let bytes = self.body.as_ref().map_or(0, Payload::len_bytes);
        let asked = store.clock.now();
        let turn = if bytes < LARGE_BYTES { None } else { Some(store.line.turn().await) };
        let began = store.clock.now();
        self.uncounted += began.saturating_duration_since(asked);
        let answer = self.answer(call).await;
        if turn.is_some() {
            match &answer {
                Ok(Ok(_)) => store.line.carried(bytes, store.clock.now().saturating_duration_since(began)),
                Ok(Err(_)) => {}
                Err(_) => store.line.stood_still(),
            }
        }
        drop(turn);
        let result = answer.unwrap_or_else(Err);
        match &result {
            Ok(_) => self.store.budget.lock().give_back(),
            Err(error) => {
                self.failures += 1;
                self.is_in_doubt |= error.is_ambiguous();
            }
        }
        result
    }

    /// Waits for the next try, or gives the error with which the call ends.
    async fn pause(&mut self, error: StoreError) -> StoreResult<()> {
        let may_be_expired = matches!(error, StoreError::ExpiredCredentials(_) | StoreError::Unexplained(_));
        if may_be_expired && !self.is_renewed {
            self.is_renewed = true;
            tracing::info!("{} {}: {error}; it is repeated with new credentials", self.kind.name(), self.name);
            self.store.metrics.add(Counter::Retries, 1);
            return Ok(());
        }
        let error = match error {
            StoreError::Unexplained(refusal) => *refusal,
            explained => explained,
        };
        let elapsed = self.elapsed();
        let course = Course { limits: self.limits, elapsed, failures: self.failures };
        let Decision::AskAgainAfter(backoff) = self.store.policy.decide(&error, course, fastrand::f64()) else {
            return Err(self.last(error));
        };
        let patience = self.limits.deadline - elapsed;
        let turn =
            self.store.budget.lock().take(self.store.clock.now().saturating_duration_since(self.store.began), patience);
        // Whose turn does not come before its deadline tries once more at its end.
        let turn = turn.unwrap_or_else(|| patience.saturating_sub(LAST_TRY));
        tracing::debug!("{} {}: {error}; try {} follows", self.kind.name(), self.name, self.failures + 1);
        sleep(backoff.max(turn)).await;
        self.store.metrics.add(Counter::Retries, 1);
        Ok(())
    }

    /// The same error to a caller who asks whether the write may have happened: in doubt once is in doubt for good.
    fn last(&self, error: StoreError) -> StoreError {
        if !error.is_retryable() {
            return error;
        }
        let (tries, took) = (self.failures, self.elapsed());
        let told = format!("{error} (after {tries} tries in {:.1} s)", took.as_secs_f64());
        match error {
            StoreError::Throttled { retry_after, .. } => StoreError::Throttled { detail: told, retry_after },
            StoreError::Corrupt(_) => StoreError::Corrupt(told),
            StoreError::Unsent(_) => StoreError::Deadline(told),
            _ if took + Duration::from_millis(1) >= self.limits.deadline => StoreError::Deadline(told),
            _ => StoreError::Transient(told),
        }
    }
}

/// Whether a refusal may be the echo of our own earlier success.
fn may_be_echo(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::PreconditionFailed | StoreError::Conflict | StoreError::NotFound | StoreError::NoSuchUpload
    )
}

/// Whether to look now. A server that is busy is not asked more than it must be: what it did all the same shows in the refusal of
/// the next try.
fn is_worth_a_look(error: &StoreError) -> bool {
    may_be_echo(error) || (error.is_ambiguous() && !matches!(error, StoreError::Throttled { .. }))
}

/// A refusal that cannot be told from an echo, since nobody could look.
fn undecided(error: &StoreError) -> StoreError {
    StoreError::Transient(format!("a reply was lost, and whether the write happened is not known: {error}"))
}

#[async_trait]
impl ObjectStore for RetryStore {
    async fn head(&self, key: &ObjectKey) -> StoreResult<ObjectInfo> {
        self.repeat(RequestKind::Head, key.as_str(), 0, || self.inner.head(key)).await
    }

    async fn fingerprint(&self, key: &ObjectKey) -> StoreResult<Fingerprint> {
        self.repeat(RequestKind::Head, key.as_str(), 0, || self.inner.fingerprint(key)).await
    }

    /// Until the head of the answer; the body is the caller's.
    async fn get(&self, request: GetRequest) -> StoreResult<GetResponse> {
        let ask = || self.hedge.run(|| self.inner.get(request.clone()));
        self.repeat(RequestKind::Get, request.key.as_str(), 0, ask).await
    }

    async fn list(&self, request: ListRequest) -> StoreResult<ListPage> {
        self.repeat(RequestKind::List, &request.prefix, 0, || self.inner.list(request.clone())).await
    }

    async fn put(&self, request: PutRequest) -> StoreResult<ObjectInfo> {
        let bytes = request.payload.len_bytes();
        let mut attempts = self.attempts(RequestKind::Put, request.key.as_str(), bytes);
        attempts.body = Some(request.payload.clone());
        loop {
            let mut error = match attempts.run(self.inner.put(request.clone())).await {
                Ok(info) => return Ok(info),
                Err(error) => error,
            };
            // Without a condition the same bytes may be put twice.
            let is_conditional = request.condition != WriteCondition::None;
            if is_conditional && attempts.is_in_doubt && is_worth_a_look(&error) {
                match self.look(&request.key, |found| settle::is_put(&request, found)).await {
                    Seen::Ours(info) => return Ok(info),
                    Seen::NotOurs => {}
                    Seen::Unknown if may_be_echo(&error) => error = undecided(&error),
                    Seen::Unknown => {}
                }
            }
            attempts.pause(error).await?;
        }
    }

    async fn delete(&self, key: &ObjectKey, if_match: Option<&ETag>) -> StoreResult<()> {
        let mut attempts = self.attempts(RequestKind::Delete, key.as_str(), 0);
        loop {
            let mut error = match attempts.run(self.inner.delete(key, if_match)).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if attempts.is_in_doubt && may_be_echo(&error) {
                match timeout(LOOK_TIMEOUT, self.inner.head(key)).await {
                    Ok(Err(StoreError::NotFound)) => return Ok(()),
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) | Err(_) => error = undecided(&error),
                }
            }
            attempts.pause(error).await?;
        }
    }

    async fn delete_many(&self, keys: Vec<ObjectKey>) -> StoreResult<Vec<(ObjectKey, StoreError)>> {
        self.delete_all(keys).await
    }

    async fn copy(&self, request: CopyRequest) -> StoreResult<ObjectInfo> {
        let mut attempts = self.attempts(RequestKind::Copy, request.key.as_str(), 0);
        loop {
            let mut error = match attempts.run(self.inner.copy(request.clone())).await {
                Ok(info) => return Ok(info),
                Err(error) => error,
            };
            let is_conditional = request.condition != WriteCondition::None;
            if is_conditional && attempts.is_in_doubt && may_be_echo(&error) {
                let source = timeout(LOOK_TIMEOUT, self.inner.fingerprint(request.source.key())).await;
                let seen = match &source {
                    Ok(Ok(source)) => self.look(&request.key, |found| settle::is_copied(source, found)).await,
                    _ => Seen::Unknown,
                };
                match seen {
                    Seen::Ours(info) => return Ok(info),
                    Seen::NotOurs => {}
                    Seen::Unknown => error = undecided(&error),
                }
            }
            attempts.pause(error).await?;
        }
    }

    async fn create_upload(&self, key: &ObjectKey, attributes: ObjectAttributes) -> StoreResult<UploadId> {
        self.repeat(RequestKind::CreateUpload, key.as_str(), 0, || self.inner.create_upload(key, attributes.clone()))
            .await
    }

    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        payload: Payload,
    ) -> StoreResult<UploadedPart> {
        let mut call = || self.inner.upload_part(key, upload, number, payload.clone());
        let mut attempts = self.attempts(RequestKind::UploadPart, key.as_str(), payload.len_bytes());
        attempts.body = Some(payload.clone());
        attempts.repeat(&mut call).await
    }

    async fn copy_part(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: u32,
        source: &ObjectVersion,
        range: ByteRange,
    ) -> StoreResult<UploadedPart> {
        let call = || self.inner.copy_part(key, upload, number, source, range);
        self.repeat(RequestKind::CopyPart, key.as_str(), range.len(), call).await
    }

    async fn complete_upload(&self, request: CompleteRequest) -> StoreResult<ObjectInfo> {
        let mut attempts = self.attempts(RequestKind::CompleteUpload, request.key.as_str(), 0);
        loop {
            let mut error = match attempts.run(self.inner.complete_upload(request.clone())).await {
                Ok(info) => return Ok(info),
                Err(error) => error,
            };
            if attempts.is_in_doubt && is_worth_a_look(&error) {
                let is_consumed = matches!(error, StoreError::NoSuchUpload);
                match self.look(&request.key, |found| settle::is_completed(&request, found, is_consumed)).await {
                    Seen::Ours(info) => return Ok(info),
                    Seen::NotOurs => {}
                    Seen::Unknown if may_be_echo(&error) => error = undecided(&error),
                    Seen::Unknown => {}
                }
            }
            attempts.pause(error).await?;
        }
    }

    async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> StoreResult<()> {
        self.repeat(RequestKind::AbortUpload, key.as_str(), 0, || self.inner.abort_upload(key, upload)).await
    }

    async fn list_uploads(&self, prefix: &str) -> StoreResult<Vec<PendingUpload>> {
        self.repeat(RequestKind::ListUploads, prefix, 0, || self.inner.list_uploads(prefix)).await
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.inner.capabilities()
    }
}
