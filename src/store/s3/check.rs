//! Whether the bucket answers: asked once at mount, so that a user reads one clear line instead of an I/O error later.
//!
//! LIST of one key is asked, not HeadBucket: it needs the same permission, and its refusal says why.

use std::sync::Arc;
use std::time::Duration;

use super::client::{Access, Endpoint};
use super::connect::{ConnectError, S3Settings};
use super::{S3Store, errors};
use crate::clock::Clock;
use crate::metrics::{Metrics, RequestKind};
use crate::store::measured::MeasuredStore;
use crate::store::retry::{RetryPolicy, RetryStore};
use crate::store::{ListRequest, ObjectStore as _, StoreError};

/// Somebody sits in front of the terminal: three tries tell a hiccup from an endpoint that is not there.
const CHECK_ATTEMPTS_MAX: u32 = 3;
const CHECK_DEADLINE: Duration = Duration::from_secs(15);

/// `None` if the bucket answers as it should; `Some` is the region in which it is.
pub(super) async fn check_bucket(
    access: &Access,
    settings: &S3Settings,
    endpoint: &Endpoint,
    metrics: &Arc<Metrics>,
) -> Result<Option<String>, ConnectError> {
    let store = S3Store::new(access.clone(), &settings.bucket, Clock::system());
    let store = MeasuredStore::new(Arc::new(store), Arc::clone(metrics), Clock::system());
    let policy = RetryPolicy {
        attempts_max: CHECK_ATTEMPTS_MAX,
        attempts_without_answer_max: CHECK_ATTEMPTS_MAX,
        deadline: CHECK_DEADLINE,
        ..settings.retry
    };
    let store = RetryStore::new(Arc::new(store), policy, Arc::clone(metrics));
    let request = ListRequest { prefix: settings.prefix.clone(), keys_max: Some(1), ..ListRequest::default() };
    let Err(error) = store.list(request).await else { return Ok(None) };
    if let StoreError::WrongRegion(told) = error {
        let region = match told {
            Some(region) => Some(region),
            None => region_of_bucket(&access.client, settings, metrics).await,
        };
        let region = region.ok_or_else(|| ConnectError::WrongRegion {
            bucket: settings.bucket.clone(),
            region: access.client.config().region().map(ToString::to_string).unwrap_or_default(),
        })?;
        return Ok(Some(region));
    }
    Err(explain(error, settings, endpoint))
}

/// HeadBucket tells the region even where it refuses all else.
pub(super) async fn region_of_bucket(
    client: &aws_sdk_s3::Client,
    settings: &S3Settings,
    metrics: &Metrics,
) -> Option<String> {
    metrics.request(RequestKind::HeadBucket);
    match client.head_bucket().bucket(&settings.bucket).send().await {
        Ok(output) => output.bucket_region().map(str::to_owned),
        Err(error) => {
            metrics.error(RequestKind::HeadBucket);
            tracing::debug!("HeadBucket: {}", errors::chain_of(&error));
            error.raw_response()?.headers().get("x-amz-bucket-region").map(str::to_owned)
        }
    }
}

fn explain(error: StoreError, settings: &S3Settings, endpoint: &Endpoint) -> ConnectError {
    let bucket = settings.bucket.clone();
    match error {
        StoreError::NoSuchBucket(_) | StoreError::NotFound => {
            ConnectError::NoSuchBucket { bucket, place: endpoint.place() }
        }
        StoreError::AccessDenied { action, detail } => {
            let remedy = if settings.no_sign_request {
                "the bucket is not public: leave out --no-sign-request"
            } else {
                "add the action to the IAM policy, or name another --profile"
            };
            ConnectError::AccessDenied { bucket, action, detail, remedy }
        }
        StoreError::Credentials(detail) | StoreError::ExpiredCredentials(detail) => {
            ConnectError::Credentials(first_line(&detail))
        }
        StoreError::Transient(detail) | StoreError::Deadline(detail)
            if detail.starts_with(errors::CREDENTIALS_AWAY) =>
        {
            ConnectError::Credentials(first_line(&detail[errors::CREDENTIALS_AWAY.len()..]))
        }
        StoreError::Transient(detail)
        | StoreError::Unsent(detail)
        | StoreError::Deadline(detail)
        | StoreError::Throttled { detail, .. } => {
            ConnectError::Unreachable { endpoint: endpoint.name().to_owned(), detail }
        }
        other => ConnectError::Refused { bucket, detail: other.to_string() },
    }
}

/// The SDK lists on further lines whom it asked for credentials.
fn first_line(detail: &str) -> String {
    detail
        .lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches("Attempted:")
        .trim_end_matches([' ', '.', ':'])
        .to_owned()
}
