//! Many keys deleted: in one request where that can name them, and in smaller ones where the server refuses the request whole.
//!
//! Invariant: a key that cannot be in a request keeps no other from being deleted.

use futures_util::{StreamExt as _, stream};

use super::RetryStore;
use crate::metrics::RequestKind;
use crate::store::{ObjectStore as _, StoreError, StoreResult};
use crate::types::ObjectKey;

/// Single DELETEs in flight: few keys need them.
const SINGLES_IN_FLIGHT: usize = 16;

/// Whether a key can stand in XML 1.0 ("Characters", 2.2), not even as a reference: of the controls tabs and newlines alone
/// can. S3 refuses all of a request with another one in it (MalformedXML).
fn fits_in_xml(key: &ObjectKey) -> bool {
    let fits = |letter: char| !matches!(letter, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    key.as_str().chars().all(fits)
}

/// Whether a refusal is about what the request says, so that a part of it may be taken.
fn is_of_the_request(error: &StoreError) -> bool {
    matches!(error, StoreError::BadKey(_) | StoreError::TooLarge(_))
}

impl RetryStore {
    pub(super) async fn delete_all(&self, keys: Vec<ObjectKey>) -> StoreResult<Vec<(ObjectKey, StoreError)>> {
        let (batch, mut singles): (Vec<_>, Vec<_>) = keys.into_iter().partition(fits_in_xml);
        let mut failed = Vec::new();
        let mut batches = vec![batch];
        while let Some(mut batch) = batches.pop() {
            if batch.is_empty() {
                continue;
            }
            match self.delete_batch(&batch).await {
                Ok(refused) => failed.extend(refused),
                Err(error) if is_of_the_request(&error) && batch.len() > 1 => {
                    let half = batch.split_off(batch.len() / 2);
                    batches.extend([half, batch]);
                }
                Err(error) if is_of_the_request(&error) => singles.append(&mut batch),
                Err(error) => return Err(error),
            }
        }
        let deleted = stream::iter(singles).map(async |key| (self.delete(&key, None).await, key));
        let mut deleted = deleted.buffer_unordered(SINGLES_IN_FLIGHT);
        while let Some((outcome, key)) = deleted.next().await {
            failed.extend(outcome.err().map(|error| (key, error)));
        }
        Ok(failed)
    }

    /// One request, repeated for the keys that failed for the moment.
    async fn delete_batch(&self, keys: &[ObjectKey]) -> StoreResult<Vec<(ObjectKey, StoreError)>> {
        let mut attempts = self.attempts(RequestKind::DeleteMany, keys.first().map_or("", ObjectKey::as_str), 0);
        let (mut left, mut failed) = (keys.to_vec(), Vec::new());
        loop {
            match attempts.run(self.inner.delete_many(left.clone())).await {
                Err(error) => attempts.pause(error).await?,
                Ok(refused) => {
                    let (retryable, definite): (Vec<_>, Vec<_>) =
                        refused.into_iter().partition(|(_, error)| error.is_retryable());
                    failed.extend(definite);
                    let Some((_, error)) = retryable.first().cloned() else { return Ok(failed) };
                    // The request went through, and some of its keys did not: those are a try that failed.
                    attempts.failures += 1;
                    if attempts.pause(error).await.is_err() {
                        failed.extend(retryable);
                        return Ok(failed);
                    }
                    left = retryable.into_iter().map(|(key, _)| key).collect();
                }
            }
        }
    }
}
