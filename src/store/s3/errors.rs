//! Every way in which a call of the SDK can fail, told as a [`StoreError`].
//!
//! Pure: no requests, no retries. What a server says by its code is believed before its HTTP status, for a 200 may carry
//! an error (Complete, CopyObject) and a HEAD carries no code.

use std::error::Error;
use std::time::{Duration, SystemTime};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::answers;
use super::credentials::cause_of;
use crate::metrics::RequestKind;
use crate::store::StoreError;

/// How the error begins when those who give credentials do not answer: worth a repeat in a mount that has worked, and
/// told as missing credentials to one that begins.
pub(super) const CREDENTIALS_AWAY: &str = "credentials: ";

/// The code by which S3 says that a request is dated more than fifteen minutes off.
const SKEWED: &str = "RequestTimeTooSkewed";

/// S3 refuses what is dated further off.
const SKEW_MAX: Duration = Duration::from_secs(900);

/// The refusal, if it is one of our clock. A HEAD is refused without a code: then the Date of the answer tells.
pub(super) fn skew<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>, now: SystemTime) -> Option<StoreError> {
    let SdkError::ServiceError(service) = error else { return None };
    let code = service.err().meta().code();
    let is_bare = code.is_none_or(|code| code == "Forbidden") && service.raw().status().as_u16() == 403;
    let date = service.raw().headers().get("date");
    let date = answers::time(&DateTime::from_str(date?, DateTimeFormat::HttpDate).ok()?);
    let off = date.duration_since(now).unwrap_or_else(|early| early.duration());
    let is_skew = code == Some(SKEWED) || (is_bare && off > SKEW_MAX);
    is_skew.then(|| skewed(&format!("by {} s", off.as_secs())))
}

/// Whether this is how a HEAD is refused for its credentials, expired or unknown, and for other reasons as well: it has no body to
/// say why.
pub(super) fn is_unexplained<E: ProvideErrorMetadata>(kind: RequestKind, error: &SdkError<E, HttpResponse>) -> bool {
    let SdkError::ServiceError(service) = error else { return false };
    let is_bare = service.err().meta().code().is_none_or(|code| code == "Forbidden");
    kind == RequestKind::Head && is_bare && matches!(service.raw().status().as_u16(), 400 | 403)
}

fn skewed(detail: &str) -> StoreError {
    StoreError::Transient(format!(
        "the clock of this machine is wrong ({detail}): set it, with chrony and the time server 169.254.169.123 on EC2"
    ))
}

/// What was asked of which bucket: an error names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) kind: RequestKind,
    pub(super) bucket: &'a str,
}

/// What a server's refusal consists of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Refusal<'a> {
    pub(super) status: u16,
    pub(super) code: Option<&'a str>,
    pub(super) message: Option<&'a str>,
    /// `retry-after` in seconds.
    pub(super) retry_after: Option<&'a str>,
    /// `x-amz-bucket-region`, or the element `Region` of AuthorizationHeaderMalformed's body.
    pub(super) bucket_region: Option<&'a str>,
    /// `content-range` of a 416: `bytes */SIZE`.
    pub(super) content_range: Option<&'a str>,
}

/// The IAM action that an operation needs (service authorization reference, "Actions defined by Amazon S3").
pub(super) fn iam_action(kind: RequestKind) -> &'static str {
    match kind {
        RequestKind::Get | RequestKind::Head => "s3:GetObject",
        RequestKind::List | RequestKind::HeadBucket => "s3:ListBucket",
        RequestKind::Put
        | RequestKind::Copy
        | RequestKind::CreateUpload
        | RequestKind::UploadPart
        | RequestKind::CopyPart
        | RequestKind::CompleteUpload => "s3:PutObject",
        RequestKind::Delete | RequestKind::DeleteMany => "s3:DeleteObject",
        RequestKind::AbortUpload => "s3:AbortMultipartUpload",
        RequestKind::ListUploads => "s3:ListBucketMultipartUploads",
    }
}

/// Tells what the SDK's error means.
pub(super) fn store_error<E>(asked: Asked<'_>, error: &SdkError<E, HttpResponse>) -> StoreError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    if never_connected(error) {
        return StoreError::Unsent(format!("no connection: {}", chain_of(error)));
    }
    match error {
        SdkError::ServiceError(service) => {
            let meta = service.err().meta();
            classify(asked, refusal_of(service.raw(), meta.code(), meta.message()))
        }
        // The head came, and what followed could not be read: a proxy's page, or a body that broke off.
        SdkError::ResponseError(response) if response.raw().status().as_u16() >= 400 => {
            classify(asked, refusal_of(response.raw(), None, None))
        }
        SdkError::ResponseError(_) => StoreError::Transient(format!("unreadable answer: {}", chain_of(error))),
        SdkError::TimeoutError(_) => StoreError::Transient(format!("no answer in time: {}", chain_of(error))),
        SdkError::DispatchFailure(failure) => credentials_error(error).unwrap_or_else(|| {
            if failure.is_user() {
                StoreError::Fatal(chain_of(error))
            } else {
                let cause = failure.as_connector_error().and_then(Error::source);
                StoreError::Transient(format!("no answer: {}", cause.map_or_else(|| chain_of(error), chain_of)))
            }
        }),
        SdkError::ConstructionFailure(_) => {
            credentials_error(error).unwrap_or_else(|| StoreError::Fatal(format!("bad request: {}", chain_of(error))))
        }
        _ => StoreError::Transient(chain_of(error)),
    }
}

/// Whether the request never left, because no connection came about. One that broke may have carried it.
fn never_connected(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| {
        cause
            .downcast_ref::<hyper_util::client::legacy::Error>()
            .is_some_and(hyper_util::client::legacy::Error::is_connect)
    })
}

/// An error and what caused it, outermost first.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |cause: &&'a (dyn Error + 'static)| (*cause).source())
}

/// `<Region>eu-west-1</Region>` in an error's body.
fn region_element(body: &[u8]) -> Option<&str> {
    let (_, rest) = std::str::from_utf8(body).ok()?.split_once("<Region>")?;
    rest.split_once("</Region>").map(|(region, _)| region.trim()).filter(|region| !region.is_empty())
}

fn refusal_of<'a>(raw: &'a HttpResponse, code: Option<&'a str>, message: Option<&'a str>) -> Refusal<'a> {
    Refusal {
        status: raw.status().as_u16(),
        code,
        message,
        retry_after: raw.headers().get("retry-after"),
        bucket_region: raw.headers().get("x-amz-bucket-region").or_else(|| region_element(raw.body().bytes()?)),
        content_range: raw.headers().get("content-range"),
    }
}

/// Credentials that are missing or cannot be made are told apart from a provider that is slow or away for a moment.
fn credentials_error<E>(error: &SdkError<E, HttpResponse>) -> Option<StoreError>
where
    E: Error + 'static,
{
    for cause in causes(error) {
        if let Some(found) = cause.downcast_ref::<CredentialsError>() {
            let detail = cause_of(found);
            return Some(match found {
                CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_) => {
                    StoreError::Unsent(format!("{CREDENTIALS_AWAY}{detail}"))
                }
                _ => StoreError::Credentials(detail),
            });
        }
    }
    None
}

/// An error with its causes in one line, each told once.
pub(super) fn chain_of(error: &(dyn Error + 'static)) -> String {
    let mut told = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !told.contains(&text) {
            told.push_str(": ");
            told.push_str(&text);
        }
        next = cause.source();
    }
    told
}

/// Tells what a server's refusal means.
pub(super) fn classify(asked: Asked<'_>, refusal: Refusal<'_>) -> StoreError {
    let detail = detail_of(refusal);
    match refusal.code.unwrap_or_default() {
        "NoSuchBucket" => StoreError::NoSuchBucket(asked.bucket.to_owned()),
        "NoSuchUpload" => StoreError::NoSuchUpload,
        "NoSuchKey" | "NoSuchVersion" => StoreError::NotFound,
        "InvalidObjectState" => StoreError::Archived,
        // A key that was replaced in its file is soon deleted, and then unknown.
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidAccessKeyId" => {
            StoreError::ExpiredCredentials(detail)
        }
        "InvalidToken"
        | "InvalidSecurity"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException"
        | "NotSignedUp" => StoreError::Credentials(detail),
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "Forbidden" => denied(asked, detail),
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "Redirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => {
            StoreError::WrongRegion(refusal.bucket_region.map(str::to_owned).or_else(|| region_in(refusal.message)))
        }
        "PreconditionFailed" => StoreError::PreconditionFailed,
        "ConditionalRequestConflict" => StoreError::Conflict,
        "InvalidRange" => range_error(refusal),
        // Nothing but keys is in its XML.
        "MalformedXML" if asked.kind == RequestKind::DeleteMany => StoreError::BadKey(detail),
        "KeyTooLongError"
        | "InvalidURI"
        | "InvalidObjectName"
        | "XMinioInvalidObjectName"
        | "XMinioInvalidResourceName"
        | "ObjectParentIsFile"
        | "ExistingObjectIsDirectory"
        | "DirectoryObjectContainsData" => StoreError::BadKey(detail),
        "EntityTooLarge" | "MaxMessageLengthExceeded" | "MetadataTooLarge" => StoreError::TooLarge(detail),
        "NotImplemented" | "MethodNotAllowed" | "UnsupportedOperation" => StoreError::Unsupported(detail),
        "BadDigest"
        | "InvalidDigest"
        | "IncompleteBody"
        | "XAmzContentChecksumMismatch"
        | "XAmzContentSHA256Mismatch" => StoreError::Corrupt(detail),
        "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "ServiceUnavailable"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "RequestLimitExceeded"
        | "TooManyRequests"
        | "TooManyRequestsException"
        | "BandwidthLimitExceeded" => throttled(refusal, detail),
        SKEWED => skewed(&detail),
        "InternalError"
        | "InternalFailure"
        | "RequestTimeout"
        | "RequestTimeoutException"
        | "OperationAborted"
        | "XMinioServerNotInitialized" => StoreError::Transient(detail),
        _ => by_status(asked, refusal, detail),
    }
}

/// A HEAD has no body and so no code; some servers have codes of their own.
fn by_status(asked: Asked<'_>, refusal: Refusal<'_>, detail: String) -> StoreError {
    match refusal.status {
        // A success that cannot be read: what happened is to be found out by looking.
        200..=299 => StoreError::Transient(format!("unreadable answer: {detail}")),
        304 => StoreError::NotModified,
        301 | 302 | 307 | 308 => StoreError::WrongRegion(refusal.bucket_region.map(str::to_owned)),
        // S3's answer to a HEAD with an expired token, and to one of an object that is encrypted with SSE-C.
        400 if asked.kind == RequestKind::Head && refusal.code.is_none() => StoreError::Fatal(format!(
            "{detail} without a reason: is the object encrypted with SSE-C, or have the credentials expired?"
        )),
        401 => StoreError::Credentials(detail),
        403 => denied(asked, detail),
        404 => match asked.kind {
            RequestKind::HeadBucket | RequestKind::List | RequestKind::ListUploads => {
                StoreError::NoSuchBucket(asked.bucket.to_owned())
            }
            RequestKind::UploadPart | RequestKind::CompleteUpload | RequestKind::AbortUpload
                if refusal.code.is_none() =>
            {
                StoreError::NoSuchUpload
            }
            _ => StoreError::NotFound,
        },
        405 | 501 => StoreError::Unsupported(detail),
        408 | 500 | 502 | 504 => StoreError::Transient(detail),
        409 => StoreError::Conflict,
        412 => StoreError::PreconditionFailed,
        413 => StoreError::TooLarge(detail),
        414 => StoreError::BadKey(detail),
        416 => range_error(refusal),
        429 | 503 => throttled(refusal, detail),
        500..=599 => StoreError::Transient(detail),
        _ => StoreError::Fatal(detail),
    }
}

fn denied(asked: Asked<'_>, detail: String) -> StoreError {
    StoreError::AccessDenied { action: iam_action(asked.kind), detail }
}

fn throttled(refusal: Refusal<'_>, detail: String) -> StoreError {
    let retry_after = refusal.retry_after.and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
    StoreError::Throttled { detail, retry_after }
}

fn range_error(refusal: Refusal<'_>) -> StoreError {
    let size = refusal.content_range.and_then(|range| range.trim().strip_prefix("bytes */"));
    StoreError::RangeNotSatisfiable { size_bytes: size.and_then(|size| size.parse().ok()) }
}

fn detail_of(refusal: Refusal<'_>) -> String {
    match (refusal.code, refusal.message) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(only), None) | (None, Some(only)) => format!("{only} (HTTP {})", refusal.status),
        (None, None) => format!("HTTP {}", refusal.status),
    }
}

/// The region in AuthorizationHeaderMalformed's message: "the region 'us-east-1' is wrong; expecting 'eu-west-1'".
fn region_in(message: Option<&str>) -> Option<String> {
    let (_, rest) = message?.split_once("expecting '")?;
    rest.split_once('\'').map(|(region, _)| region.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUT: Asked<'_> = Asked { kind: RequestKind::Put, bucket: "b" };
    const HEAD: Asked<'_> = Asked { kind: RequestKind::Head, bucket: "b" };

    fn coded(status: u16, code: &'static str) -> Refusal<'static> {
        Refusal { status, code: Some(code), ..Refusal::default() }
    }

    fn bare(status: u16) -> Refusal<'static> {
        Refusal { status, ..Refusal::default() }
    }

    /// The actions that a policy of docs/iam allows, sorted.
    fn allowed(policy: &str) -> Vec<String> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/iam").join(policy);
        let text = std::fs::read_to_string(path).expect("the policy is there");
        let policy: serde_json::Value = serde_json::from_str(&text).expect("a policy is JSON");
        let statements = policy["Statement"].as_array().expect("statements").iter();
        let actions = statements.flat_map(|it| it["Action"].as_array().expect("actions").clone());
        let mut actions: Vec<String> = actions.filter_map(|it| it.as_str().map(str::to_owned)).collect();
        actions.sort_unstable();
        actions
    }

    #[test]
    fn the_policies_allow_what_requests_need_and_no_more() {
        let needed = |kinds: &[RequestKind]| {
            let mut actions: Vec<String> = kinds.iter().map(|&kind| iam_action(kind).to_owned()).collect();
            actions.sort_unstable();
            actions.dedup();
            actions
        };
        assert_eq!(allowed("write.json"), needed(RequestKind::ALL));
        // A mount that is read-only asks for nothing else (store::s3::check).
        let reading = [RequestKind::Get, RequestKind::Head, RequestKind::List, RequestKind::HeadBucket];
        assert_eq!(allowed("read.json"), needed(&reading));
        assert_eq!(allowed("metrics.json"), ["cloudwatch:PutMetricData"]);
    }

    #[test]
    fn a_denied_write_names_the_iam_action() {
        let error = classify(PUT, coded(403, "AccessDenied"));
        assert!(error.to_string().contains("s3:PutObject"), "{error}");
    }

    #[test]
    fn an_expired_token_is_no_missing_permission() {
        for (status, code) in [(400, "InvalidToken"), (403, "SignatureDoesNotMatch")] {
            assert!(matches!(classify(PUT, coded(status, code)), StoreError::Credentials(_)), "{code}");
        }
        for refusal in [coded(400, "ExpiredToken"), coded(403, "ExpiredToken"), coded(403, "InvalidAccessKeyId")] {
            assert!(matches!(classify(HEAD, refusal), StoreError::ExpiredCredentials(_)), "{refusal:?}");
        }
        assert!(matches!(classify(HEAD, bare(400)), StoreError::Fatal(told) if told.contains("SSE-C")));
        assert!(matches!(classify(PUT, bare(400)), StoreError::Fatal(told) if !told.contains("SSE-C")));
    }

    #[test]
    fn a_clock_that_is_wrong_is_told_with_its_remedy() {
        let error = classify(PUT, coded(403, "RequestTimeTooSkewed"));
        assert!(error.is_retryable() && error.to_string().contains("169.254.169.123"), "{error}");
    }

    #[test]
    fn a_head_is_told_by_its_status() {
        assert!(matches!(classify(HEAD, bare(404)), StoreError::NotFound));
        assert!(matches!(classify(HEAD, bare(403)), StoreError::AccessDenied { .. }));
        assert!(matches!(classify(HEAD, bare(412)), StoreError::PreconditionFailed));
        assert!(matches!(classify(HEAD, bare(503)), StoreError::Throttled { .. }));
        let listing = Asked { kind: RequestKind::HeadBucket, bucket: "b" };
        assert!(matches!(classify(listing, bare(404)), StoreError::NoSuchBucket(bucket) if bucket == "b"));
    }

    #[test]
    fn a_complete_that_answers_200_with_an_error_is_an_error() {
        assert!(matches!(classify(PUT, coded(200, "InternalError")), StoreError::Transient(_)));
        assert!(matches!(classify(PUT, coded(200, "SlowDown")), StoreError::Throttled { .. }));
    }

    #[test]
    fn conflict_and_precondition_are_told_apart() {
        assert!(matches!(classify(PUT, coded(409, "ConditionalRequestConflict")), StoreError::Conflict));
        assert!(matches!(classify(PUT, coded(412, "PreconditionFailed")), StoreError::PreconditionFailed));
        assert!(matches!(classify(PUT, coded(409, "ObjectParentIsFile")), StoreError::BadKey(_)));
        assert!(matches!(classify(PUT, coded(409, "OperationAborted")), StoreError::Transient(_)));
    }

    #[test]
    fn an_archived_object_is_told() {
        assert!(matches!(classify(HEAD, coded(403, "InvalidObjectState")), StoreError::Archived));
    }

    #[test]
    fn a_416_tells_the_size() {
        let refusal = Refusal { content_range: Some("bytes */42"), ..coded(416, "InvalidRange") };
        assert!(matches!(classify(HEAD, refusal), StoreError::RangeNotSatisfiable { size_bytes: Some(42) }));
    }

    #[test]
    fn the_right_region_is_found_in_header_or_message() {
        let header = Refusal { bucket_region: Some("eu-west-1"), ..bare(301) };
        assert!(matches!(classify(HEAD, header), StoreError::WrongRegion(Some(region)) if region == "eu-west-1"));
        assert_eq!(region_element(b"<Error><Region>eu-west-2</Region></Error>"), Some("eu-west-2"));
        let message = Some("The authorization header is malformed; the region 'a' is wrong; expecting 'eu-central-1'");
        let refusal = Refusal { message, ..coded(400, "AuthorizationHeaderMalformed") };
        assert!(matches!(classify(HEAD, refusal), StoreError::WrongRegion(Some(region)) if region == "eu-central-1"));
    }

    #[test]
    fn retry_after_is_kept() {
        let refusal = Refusal { retry_after: Some("3"), ..coded(503, "SlowDown") };
        let error = classify(PUT, refusal);
        assert!(matches!(error, StoreError::Throttled { retry_after: Some(after), .. } if after.as_secs() == 3));
    }

    #[test]
    fn a_bad_digest_is_sent_again_and_a_bad_key_is_not() {
        assert!(classify(PUT, coded(400, "BadDigest")).is_retryable());
        assert!(!classify(PUT, coded(400, "KeyTooLongError")).is_retryable());
        assert!(!classify(PUT, coded(400, "SomethingNew")).is_retryable());
    }
}
