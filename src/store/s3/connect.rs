//! From what the user typed to a bucket that answers: the one way to a store over S3.
//!
//! Invariant: a store that is handed out has answered a LIST of its prefix with the credentials, the region and the
//! endpoint that it will go on to use.

use std::sync::Arc;

use super::S3Store;
use super::check::check_bucket;
use super::client::{Endpoint, build_client, named_region};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::store::conditional::ConditionalStore;
use crate::store::measured::MeasuredStore;
use crate::store::retry::{RetryPolicy, RetryStore};
use crate::store::{ObjectStore, StoreCapabilities, probe};

/// Where the guess begins when nobody names a region; also what S3-compatible servers expect by default.
pub(super) const REGION_DEFAULT: &str = "us-east-1";

/// Which bucket to use, and how to get at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Settings {
    /// Name of the bucket.
    pub bucket: String,
    /// Keys of the mount begin with this: "" or "a/b/".
    pub prefix: String,
    /// `http://…` or `https://…`; else AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the profile, AWS.
    pub endpoint_url: Option<String>,
    /// Region; else AWS_REGION, AWS_DEFAULT_REGION, the profile, the instance's, the bucket's own.
    pub region: Option<String>,
    /// The region of the instance that we run on, if it is one.
    pub instance_region: Option<String>,
    /// Why the instance metadata service is not asked for credentials; `None` asks it after all other sources.
    pub imds_absent: Option<String>,
    /// Profile in the AWS configuration files; else AWS_PROFILE, `default`.
    pub profile: Option<String>,
    /// Requests are not signed: public buckets only.
    pub no_sign_request: bool,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`; always so for an IP address or localhost.
    pub force_path_style: bool,
    /// Nothing will be written, so nothing is probed by writing.
    pub read_only: bool,
    /// Requests that may be in flight at once: so many idle connections are kept.
    pub max_concurrency: usize,
    /// How failures are met.
    pub retry: RetryPolicy,
}

impl S3Settings {
    /// A bucket with everything else left to the environment.
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: String::new(),
            endpoint_url: None,
            region: None,
            instance_region: None,
            imds_absent: None,
            profile: None,
            no_sign_request: false,
            force_path_style: false,
            read_only: false,
            max_concurrency: 128,
            retry: RetryPolicy::default(),
        }
    }
}

/// Why there is no store: one line of cause and remedy.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// What was typed cannot be meant.
    #[error("{0}")]
    Usage(String),
    /// No such bucket.
    #[error("bucket {bucket} does not exist{place}: check its name, --endpoint-url and --profile")]
    NoSuchBucket {
        /// The bucket.
        bucket: String,
        /// " at ENDPOINT", or nothing for AWS.
        place: String,
    },
    /// The bucket is there, and we may not use it.
    #[error("no permission for bucket {bucket}: {action} is not allowed ({detail}); {remedy}")]
    AccessDenied {
        /// The bucket.
        bucket: String,
        /// IAM action that is missing.
        action: &'static str,
        /// What the server said.
        detail: String,
        /// What to do.
        remedy: &'static str,
    },
    /// No credentials, or such as the server does not take.
    #[error(
        "no usable credentials: {0}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a --profile, give the \
         instance a role, or use --no-sign-request for a public bucket"
    )]
    Credentials(String),
    /// The bucket is in a region that could not be learned.
    #[error("bucket {bucket} is not in region {region}, and the server does not tell where it is: name its --region")]
    WrongRegion {
        /// The bucket.
        bucket: String,
        /// The region that was tried.
        region: String,
    },
    /// Nobody answers, or only with failures of the moment.
    #[error("{endpoint} cannot be reached: {detail}; check --endpoint-url, the network and its security groups")]
    Unreachable {
        /// Where we asked.
        endpoint: String,
        /// What happened.
        detail: String,
    },
    /// Any other answer.
    #[error("bucket {bucket} refuses to be listed: {detail}")]
    Refused {
        /// The bucket.
        bucket: String,
        /// What the server said.
        detail: String,
    },
}

impl ConnectError {
    /// Whether the command line is to blame (exit bit 1 of mount(8)) and not the world (32).
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Usage(_))
    }
}

/// Finds credentials, region and endpoint, makes sure that the bucket answers, and finds out what its server honours.
/// The store repeats what failed for the moment, settles lost replies and counts its requests in `metrics`. Call inside
/// a tokio runtime.
pub async fn connect(settings: &S3Settings, metrics: Arc<Metrics>) -> Result<Arc<dyn ObjectStore>, ConnectError> {
    let clock = Clock::system();
    let endpoint = Endpoint::of(settings).await?;
    let named = named_region(settings, &endpoint).await;
    let region = named.clone().unwrap_or_else(|| REGION_DEFAULT.to_owned());
    let access = build_client(settings, &endpoint, &region).await?;
    let access = match check_bucket(&access, settings, &endpoint, &metrics).await? {
        None => access,
        Some(right) if right == region => {
            return Err(ConnectError::WrongRegion { bucket: settings.bucket.clone(), region });
        }
        Some(right) => {
            if named.is_some() {
                tracing::warn!("bucket {} is in region {right}, not in {region}: using {right}", settings.bucket);
            }
            let access = build_client(settings, &endpoint, &right).await?;
            if check_bucket(&access, settings, &endpoint, &metrics).await?.is_some() {
                return Err(ConnectError::WrongRegion { bucket: settings.bucket.clone(), region: right });
            }
            access
        }
    };
    let plain = S3Store::new(access, &settings.bucket, clock.clone());
    let measured = |store: S3Store| -> Arc<dyn ObjectStore> {
        Arc::new(MeasuredStore::new(Arc::new(store), Arc::clone(&metrics), clock.clone()))
    };
    let retrying = RetryStore::new(measured(plain.clone()), settings.retry, Arc::clone(&metrics));
    let honoured = if settings.read_only || endpoint.is_aws() {
        StoreCapabilities::ALL
    } else {
        probe::capabilities(&retrying, &settings.prefix).await
    };
    if honoured == StoreCapabilities::ALL {
        return Ok(Arc::new(retrying));
    }
    tracing::warn!("{} does not do all that S3 does; what it lacks is made up for: {honoured:?}", endpoint.name());
    let store = if honoured.copied_checksums { plain } else { plain.without_sums_of_uploads() };
    let conditional: Arc<dyn ObjectStore> = Arc::new(ConditionalStore::new(measured(store), honoured));
    Ok(Arc::new(RetryStore::new(conditional, settings.retry, metrics)))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::metrics::RequestKind;

    #[tokio::test]
    async fn a_refused_connection_is_an_error_and_no_request() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = S3Settings {
            endpoint_url: Some(format!("http://127.0.0.1:{port}")),
            region: Some("us-east-1".into()),
            no_sign_request: true,
            ..S3Settings::new("bucket")
        };
        let metrics = Arc::new(Metrics::default());
        let error = connect(&settings, Arc::clone(&metrics)).await.err();
        assert!(matches!(error, Some(ConnectError::Unreachable { .. })), "{error:?}");
        let snapshot = metrics.snapshot();
        let errors = snapshot.errors.iter().find(|(kind, _)| *kind == RequestKind::List).map(|(_, errors)| *errors);
        assert_eq!((metrics.requests(RequestKind::List), errors), (0, Some(3)));
    }
}
