//! What `s3mount doctor` wants to know of the way to a bucket, each by itself, so that one fault does not hide the others.
//!
//! Sends one LIST of one key and one HeadBucket, changes nothing, and gives a store that has not been tried.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::S3Store;
use super::check::region_of_bucket;
use super::client::{Endpoint, build_client, named_region};
use super::connect::{ConnectError, REGION_DEFAULT, S3Settings};
use super::credentials::CredentialsTold;
use super::date::AnswerDate;
use crate::clock::Clock;
use crate::metrics::{Metrics, RequestKind};
use crate::store::ObjectStore;
use crate::store::measured::MeasuredStore;
use crate::store::retry::{RetryPolicy, RetryStore};

/// Somebody waits for the answer: three tries tell a hiccup from a fault.
const ATTEMPTS_MAX: u32 = 3;
const DEADLINE: Duration = Duration::from_secs(15);

/// The way to a bucket.
pub struct Examination {
    /// URL of the server, or "S3".
    pub endpoint: String,
    /// Name of the host that requests go to.
    pub host: String,
    /// Whether it is S3 itself.
    pub is_aws: bool,
    /// Who signs requests, or why nobody can; `None` if requests are not signed.
    pub credentials: Option<Result<CredentialsTold, String>>,
    /// The region that settings, environment, profile or instance name.
    pub region_named: Option<String>,
    /// The region that the server tells.
    pub region_told: Option<String>,
    /// The server's clock when it answered, and ours.
    pub clocks: Option<(SystemTime, SystemTime)>,
    /// A store over the bucket, whether it answers or not.
    pub store: Arc<dyn ObjectStore>,
}

impl std::fmt::Debug for Examination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Examination").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Where S3 answers for a bucket; China has a domain of its own.
fn host_of_bucket(bucket: &str, region: &str) -> String {
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    // A certificate for *.s3 covers one label: buckets with dots are named in the path.
    if bucket.contains('.') {
        return format!("s3.{region}.{domain}");
    }
    format!("{bucket}.s3.{region}.{domain}")
}

/// Looks at the way to a bucket. Call inside a tokio runtime.
///
/// # Errors
/// What was typed cannot be meant.
pub async fn examine(settings: &S3Settings, metrics: Arc<Metrics>) -> Result<Examination, ConnectError> {
    let endpoint = Endpoint::of(settings).await?;
    let region_named = named_region(settings, &endpoint).await;
    let mut region = region_named.clone().unwrap_or_else(|| REGION_DEFAULT.to_owned());
    let mut access = build_client(settings, &endpoint, &region).await?;
    let credentials = match &access.credentials {
        None => None,
        Some(credentials) => Some(credentials.told().await),
    };
    let (mut region_told, mut clocks) = (None, None);
    // Without credentials nothing is sent.
    if !matches!(credentials, Some(Err(_))) {
        let date = AnswerDate::default();
        metrics.request(RequestKind::List);
        let list = access.client.list_objects_v2().bucket(&settings.bucket).prefix(&settings.prefix).max_keys(1);
        // A refusal has a date, too.
        if list.customize().interceptor(date.clone()).send().await.is_err() {
            metrics.error(RequestKind::List);
        }
        clocks = date.get().map(|server| (server, Clock::system().wall()));
        region_told = region_of_bucket(&access.client, settings, &metrics).await;
        if let Some(told) = region_told.as_ref().filter(|told| **told != region) {
            region.clone_from(told);
            access = build_client(settings, &endpoint, told).await?;
        }
    }
    let store = Arc::new(S3Store::new(access, &settings.bucket, Clock::system()));
    let measured = Arc::new(MeasuredStore::new(store, Arc::clone(&metrics), Clock::system()));
    let policy = RetryPolicy { attempts_max: ATTEMPTS_MAX, deadline: DEADLINE, ..settings.retry };
    Ok(Examination {
        endpoint: endpoint.name().to_owned(),
        host: endpoint.host_name().unwrap_or_else(|| host_of_bucket(&settings.bucket, &region)),
        is_aws: endpoint.is_aws(),
        credentials,
        region_named,
        region_told,
        clocks,
        store: Arc::new(RetryStore::new(measured, policy, metrics)),
    })
}
