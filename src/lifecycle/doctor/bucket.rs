//! The way to the bucket, and each permission on it by a probe that does no harm.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::Check;
use crate::store::s3::Examination;
use crate::store::{
    GetRange, GetRequest, ListRequest, ObjectAttributes, ObjectStore, Payload, PutRequest, StoreCapabilities,
    StoreError, StoreResult, WriteCondition, probe,
};
use crate::types::{ByteRange, ObjectKey};

/// S3 refuses requests that are dated further off.
const SKEW_REFUSED: Duration = Duration::from_secs(900);
/// Worth a word: it grows.
const SKEW_NOTED: Duration = Duration::from_secs(60);
/// Credentials that end so soon, and that nobody renews.
const EXPIRES_SOON: Duration = Duration::from_secs(900);

const LIST: &str = "s3:ListBucket";
const GET: &str = "s3:GetObject";
const PUT: &str = "s3:PutObject";
const ABORT: &str = "s3:AbortMultipartUpload";
const LIST_UPLOADS: &str = "s3:ListBucketMultipartUploads";
const DELETE: &str = "s3:DeleteObject";
const CONDITIONS: &str = "conditional writes";

/// Credentials, region and clock.
pub(super) fn way(it: &Examination, bucket: &str) -> Vec<Check> {
    vec![credentials(it), region(it, bucket), clock(it.clocks)]
}

fn credentials(it: &Examination) -> Check {
    let name = "credentials";
    match &it.credentials {
        None => Check::ok(name, "requests are not signed"),
        Some(Err(error)) => Check::failed(
            name,
            error.lines().next().unwrap_or_default(),
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a --profile, give the instance a role, or use \
             --no-sign-request for a public bucket",
        ),
        Some(Ok(told)) => {
            let who = format!("{} from {}", told.access_key_id, told.source);
            let Some(expires) = told.expires else { return Check::ok(name, format!("{who}, without expiry")) };
            let left = expires.duration_since(crate::clock::Clock::system().wall()).unwrap_or_default();
            let left = Duration::from_secs(left.as_secs());
            let detail = format!("{who}, for {} more", humantime::format_duration(left));
            let is_renewed = told.source.contains("role") || told.source.contains("token");
            if left.is_zero() {
                Check::failed(name, format!("{who}, expired"), "log in again, for instance with aws sso login")
            } else if left < EXPIRES_SOON && !is_renewed {
                Check::note(name, detail, "log in again, for instance with aws sso login")
            } else {
                Check::ok(name, detail)
            }
        }
    }
}

fn region(it: &Examination, bucket: &str) -> Check {
    let name = "region";
    match (&it.region_named, &it.region_told) {
        (Some(named), Some(told)) if named != told => Check::note(
            name,
            format!("{bucket} is in {told}, not in {named}: every mount asks twice, and bytes between regions cost"),
            format!("name it with --region {told}, or use a machine there"),
        ),
        (_, Some(told)) => Check::ok(name, told.clone()),
        (Some(named), None) => Check::ok(name, format!("{named}; the server does not tell another")),
        (None, None) if matches!(it.credentials, Some(Err(_))) => {
            Check::skipped(name, "there are no credentials to ask with, and nobody names one")
        }
        (None, None) => Check::note(name, "nobody names one, and the server does not tell", "name it with --region"),
    }
}

fn clock(clocks: Option<(SystemTime, SystemTime)>) -> Check {
    let name = "clock";
    let Some((server, ours)) = clocks else { return Check::skipped(name, "the server did not tell its time") };
    let (off, word) = match server.duration_since(ours) {
        Ok(behind) => (behind, "behind"),
        Err(ahead) => (ahead.duration(), "ahead of"),
    };
    // Dates are told in whole seconds.
    let detail = match off.as_secs() {
        0 | 1 => "agrees with the server's".to_owned(),
        seconds => format!("{seconds} s {word} the server's"),
    };
    let remedy = "set it, with chrony and the time server 169.254.169.123 on EC2, then chronyc makestep";
    if off > SKEW_REFUSED {
        Check::failed(name, detail, remedy)
    } else if off > SKEW_NOTED {
        Check::note(name, detail, remedy)
    } else {
        Check::ok(name, detail)
    }
}

/// What a refusal means, for an action.
fn judged<T>(action: &'static str, outcome: &StoreResult<T>) -> Check {
    match outcome {
        Ok(_) | Err(StoreError::NotFound | StoreError::NoSuchUpload) => Check::ok(action, "allowed"),
        Err(StoreError::AccessDenied { detail, .. }) => Check::failed(
            action,
            format!("not allowed ({detail})"),
            format!("add {action} to the IAM policy; see the bucket policy and the key policy of KMS, too"),
        ),
        Err(StoreError::NoSuchBucket(bucket)) => Check::failed(
            action,
            format!("bucket {bucket} does not exist"),
            "see its name, --endpoint-url and --profile",
        ),
        Err(StoreError::Transient(detail) | StoreError::Deadline(detail)) => Check::failed(
            action,
            format!("no answer: {detail}"),
            "see --endpoint-url, the network, its security groups and the VPC endpoint",
        ),
        Err(error) => Check::failed(action, error.to_string(), "see the credentials and the bucket"),
    }
}

/// Every permission that a mount uses. One that is missing does not keep the others from being looked at.
pub(super) async fn permissions(it: &Examination, prefix: &str, read_only: bool) -> Vec<Check> {
    if matches!(it.credentials, Some(Err(_))) {
        let skipped = |name| Check::skipped(name, "there are no credentials");
        return [LIST, GET, PUT, LIST_UPLOADS, ABORT, CONDITIONS, DELETE].map(skipped).into();
    }
    let store = &*it.store;
    let listed =
        store.list(ListRequest { prefix: prefix.to_owned(), keys_max: Some(1), ..ListRequest::default() }).await;
    let mut checks = vec![judged(LIST, &listed)];
    if !matches!(listed, Ok(_) | Err(StoreError::AccessDenied { .. })) {
        let skipped = |name| Check::skipped(name, "the bucket does not answer");
        checks.extend([GET, PUT, LIST_UPLOADS, ABORT, CONDITIONS, DELETE].map(skipped));
        return checks;
    }
    let probe = ObjectKey::from(format!("{prefix}.s3mount-doctor-{:016x}", fastrand::u64(..)));
    if read_only {
        let there = listed.ok().and_then(|page| page.objects.into_iter().find(|object| object.size_bytes > 0));
        let key = there.map_or(probe, |object| object.version.key().clone());
        checks.push(judged(GET, &get(store, &key).await));
        checks.extend([PUT, LIST_UPLOADS, ABORT, CONDITIONS, DELETE].map(|name| Check::skipped(name, "--read-only")));
        return checks;
    }
    let put = put(store, &probe).await;
    checks.push(judged(GET, &get(store, &probe).await));
    checks.push(judged(PUT, &put));
    checks.push(judged(LIST_UPLOADS, &store.list_uploads(prefix).await));
    checks.push(aborted(store, &probe).await);
    checks.push(conditions(it, prefix, put.is_ok()).await);
    let mut deleted = judged(DELETE, &store.delete(&probe, None).await);
    if put.is_ok() && deleted.verdict == super::Verdict::Failed {
        deleted.detail.push_str(&format!("; the tiny object {} is left over", probe.as_str()));
    }
    checks.push(deleted);
    checks
}

async fn put(store: &dyn ObjectStore, key: &ObjectKey) -> StoreResult<()> {
    let (payload, attributes) = (Payload::from(Bytes::from_static(b"x")), ObjectAttributes::default());
    let request = PutRequest { key: key.clone(), payload, attributes, condition: WriteCondition::None };
    store.put(request).await.map(drop)
}

/// The first byte; a key that is not there shows the permission as well, to who may list.
async fn get(store: &dyn ObjectStore, key: &ObjectKey) -> StoreResult<()> {
    let range = GetRange::Bytes(ByteRange::new(0, 1));
    let request = GetRequest { key: key.clone(), range, if_match: None, if_none_match: None };
    match store.get(request).await {
        Ok(answer) => answer.body.try_collect::<Vec<_>>().await.map(drop),
        // It may be read, were it not in an archive.
        Err(StoreError::Archived) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn aborted(store: &dyn ObjectStore, key: &ObjectKey) -> Check {
    let upload = match store.create_upload(key, ObjectAttributes::default()).await {
        Ok(upload) => upload,
        Err(error) => return Check::skipped(ABORT, format!("no upload can be begun: {error}")),
    };
    let mut check = judged(ABORT, &store.abort_upload(key, &upload).await);
    if check.verdict == super::Verdict::Failed {
        check.detail.push_str(&format!("; an upload of {} without parts is left over", key.as_str()));
    }
    check
}

async fn conditions(it: &Examination, prefix: &str, can_write: bool) -> Check {
    if it.is_aws {
        return Check::ok(CONDITIONS, "S3 honours all of them");
    }
    if !can_write {
        return Check::skipped(CONDITIONS, "nothing can be written");
    }
    let honoured = probe::capabilities(&*it.store, prefix).await;
    let lacking: Vec<&str> = [
        (honoured.conditional_writes, "PutObject"),
        (honoured.conditional_completes, "CompleteMultipartUpload"),
        (honoured.conditional_deletes, "DeleteObject"),
        (honoured.conditional_copies, "CopyObject"),
        (honoured.pinned_copies, "the source of copies"),
    ]
    .into_iter()
    .filter_map(|(is_honoured, what)| (!is_honoured).then_some(what))
    .collect();
    if honoured == StoreCapabilities::ALL || lacking.is_empty() {
        return Check::ok(CONDITIONS, "all honoured");
    }
    let detail = format!("ignored on {}", lacking.join(", "));
    let remedy =
        "none is needed: a HEAD before each write makes up for it, but for a moment in which the last writer wins";
    Check::note(CONDITIONS, detail, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::doctor::Verdict;

    #[test]
    fn a_clock_is_judged_by_what_s3_refuses() {
        let ours = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (off, verdict) in [(2, Verdict::Ok), (90, Verdict::Note), (1200, Verdict::Failed)] {
            let off = Duration::from_secs(off);
            assert_eq!(clock(Some((ours + off, ours))).verdict, verdict);
            assert_eq!(clock(Some((ours - off, ours))).verdict, verdict);
        }
        assert_eq!(clock(Some((ours + Duration::from_secs(1200), ours))).detail, "1200 s behind the server's");
    }

    #[test]
    fn a_missing_permission_names_its_action() {
        let denied: StoreResult<()> =
            Err(StoreError::AccessDenied { action: "s3:PutObject", detail: "AccessDenied".into() });
        let check = judged(ABORT, &denied);
        assert_eq!(check.verdict, Verdict::Failed);
        assert!(check.remedy.is_some_and(|remedy| remedy.contains("s3:AbortMultipartUpload")));
    }
}
