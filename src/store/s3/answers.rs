//! The SDK's answers in the program's words: object heads, listed keys, copy sources.
//!
//! Pure. Keys come url-encoded from LIST, because XML cannot carry every character that a key may hold.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{EncodingType, StorageClass};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::store::{GetRange, ListPage, ListRequest, StoreError, StoreResult};
use crate::types::{ByteRange, ContentHeaders, ETag, ObjectInfo, ObjectKey, ObjectMetadata, ObjectVersion};

/// What RFC 3986 leaves unreserved, and the `/` between the parts of a key.
const COPY_SOURCE_ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// The value of x-amz-copy-source. The version is pinned by its tag beside it: naming its id would take
/// s3:GetObjectVersion, which a policy for ordinary use does not grant.
pub(super) fn copy_source(bucket: &str, source: &ObjectVersion) -> String {
    format!("{bucket}/{}", utf8_percent_encode(source.key().as_str(), COPY_SOURCE_ESCAPED))
}

/// The version that an answer speaks of. Buckets without versions say none or "null".
pub(super) fn version(key: &ObjectKey, etag: Option<&str>, version_id: Option<&str>) -> StoreResult<ObjectVersion> {
    let etag = etag.filter(|etag| !etag.is_empty()).ok_or_else(|| {
        StoreError::Unsupported(format!("the server gives no ETag for {key:?}, so versions cannot be told apart"))
    })?;
    let version_id = version_id.filter(|id| !id.is_empty() && *id != "null").map(Arc::from);
    Ok(ObjectVersion::new(key.clone(), quoted(etag), version_id))
}

/// Some servers leave out the quotes in XML answers; a tag must compare equal wherever it came from.
pub(super) fn quoted(etag: &str) -> ETag {
    if etag.starts_with('"') || etag.starts_with("W/") { ETag::new(etag) } else { ETag::new(format!("\"{etag}\"")) }
}

/// S3's times; before 1970 counts as 1970.
pub(super) fn time(time: &DateTime) -> SystemTime {
    let seconds = u64::try_from(time.secs()).unwrap_or(0);
    UNIX_EPOCH + Duration::new(seconds, time.subsec_nanos())
}

fn length(bytes: Option<i64>) -> StoreResult<u64> {
    bytes
        .and_then(|bytes| u64::try_from(bytes).ok())
        .ok_or_else(|| StoreError::Unsupported("the server gives no length".into()))
}

fn storage_class(class: Option<&StorageClass>) -> Option<Arc<str>> {
    class.filter(|class| **class != StorageClass::Standard).map(|class| class.as_str().into())
}

fn metadata(found: Option<&std::collections::HashMap<String, String>>) -> Option<Arc<ObjectMetadata>> {
    let pairs = found.into_iter().flatten();
    Some(Arc::new(pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()))
}

/// What the outputs of HEAD and GET, which have no trait in common, say of the content.
macro_rules! headers {
    ($output:ident) => {
        ContentHeaders {
            cache_control: $output.cache_control().map(str::to_owned),
            content_disposition: $output.content_disposition().map(str::to_owned),
            content_encoding: $output.content_encoding().map(str::to_owned),
            content_language: $output.content_language().map(str::to_owned),
            expires: $output.expires_string().map(str::to_owned),
            website_redirect_location: $output.website_redirect_location().map(str::to_owned),
        }
        .if_any()
    };
}

/// What a HEAD says.
pub(super) fn head(key: &ObjectKey, output: &HeadObjectOutput) -> StoreResult<ObjectInfo> {
    Ok(ObjectInfo {
        version: version(key, output.e_tag(), output.version_id())?,
        size_bytes: length(output.content_length())?,
        last_modified: output.last_modified().map_or(UNIX_EPOCH, time),
        metadata: metadata(output.metadata()),
        content_type: output.content_type().map(Arc::from),
        storage_class: storage_class(output.storage_class()),
        headers: headers!(output),
    })
}

/// What the head of a GET's answer says, and which bytes its body holds.
pub(super) fn get(key: &ObjectKey, asked: GetRange, output: &GetObjectOutput) -> StoreResult<(ObjectInfo, ByteRange)> {
    let body_bytes = length(output.content_length())?;
    let (range, size_bytes) = match output.content_range() {
        Some(spelled) => content_range(spelled)
            .ok_or_else(|| StoreError::Unsupported(format!("the server answers Content-Range {spelled:?}")))?,
        None => (ByteRange::new(0, body_bytes), body_bytes),
    };
    let is_answer = match asked {
        GetRange::Whole => range == ByteRange::new(0, size_bytes),
        GetRange::Bytes(wanted) => range == wanted.intersect(&ByteRange::new(0, size_bytes)),
        GetRange::Suffix(len) => range == ByteRange::new(size_bytes.saturating_sub(len), size_bytes),
    };
    if !is_answer || range.len() != body_bytes {
        return Err(StoreError::Unsupported(format!(
            "the server answers {asked:?} with bytes {range} of {size_bytes}"
        )));
    }
    let info = ObjectInfo {
        version: version(key, output.e_tag(), output.version_id())?,
        size_bytes,
        last_modified: output.last_modified().map_or(UNIX_EPOCH, time),
        metadata: metadata(output.metadata()),
        content_type: output.content_type().map(Arc::from),
        storage_class: storage_class(output.storage_class()),
        headers: headers!(output),
    };
    Ok((info, range))
}

/// `bytes 0-4/10` as the range and the whole size.
fn content_range(spelled: &str) -> Option<(ByteRange, u64)> {
    let (range, size) = spelled.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some((ByteRange::new(first, last + 1), size.trim().parse().ok()?))
}

/// One page of a LIST, in UTF-8 order, with nothing at or before `start_after`, whatever the server does.
pub(super) fn page(request: &ListRequest, output: &ListObjectsV2Output) -> StoreResult<ListPage> {
    let is_encoded = output.encoding_type() == Some(&EncodingType::Url);
    let after = request.start_after.as_deref().filter(|_| request.continuation.is_none());
    let is_wanted = |name: &str| after.is_none_or(|after| name > after);
    let mut page = ListPage::default();
    for object in output.contents() {
        let key = listed_key(object.key().unwrap_or_default(), is_encoded)?;
        if !is_wanted(&key) {
            continue;
        }
        let key = ObjectKey::from(key);
        page.objects.push(ObjectInfo {
            version: version(&key, object.e_tag(), None)?,
            size_bytes: length(object.size())?,
            last_modified: object.last_modified().map_or(UNIX_EPOCH, time),
            metadata: None,
            content_type: None,
            storage_class: object
                .storage_class()
                .map(aws_sdk_s3::types::ObjectStorageClass::as_str)
                .filter(|class| *class != StorageClass::Standard.as_str())
                .map(Arc::from),
            headers: None,
        });
    }
    for prefix in output.common_prefixes() {
        let prefix = listed_key(prefix.prefix().unwrap_or_default(), is_encoded)?;
        if is_wanted(&prefix) {
            page.common_prefixes.push(prefix);
        }
    }
    if !page.objects.is_sorted_by(|a, b| a.key() <= b.key()) {
        page.objects.sort_by(|a, b| a.key().cmp(b.key()));
    }
    if !page.common_prefixes.is_sorted() {
        page.common_prefixes.sort();
    }
    if output.is_truncated() == Some(true) {
        let token = output.next_continuation_token().filter(|token| !token.is_empty());
        let missing = || StoreError::Unsupported("a truncated LIST names no continuation".into());
        page.continuation = Some(token.ok_or_else(missing)?.to_owned());
    }
    Ok(page)
}

/// A name in a listing, decoded if the server says that it encoded.
pub(super) fn listed_key(name: &str, is_encoded: bool) -> StoreResult<String> {
    if is_encoded { decode(name) } else { Ok(name.to_owned()) }
}

/// S3 encodes as forms do: a space is `+`, a plus is `%2B`.
fn decode(name: &str) -> StoreResult<String> {
    let spaced = name.replace('+', " ");
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(key) => Ok(key.into_owned()),
        Err(_) => Err(StoreError::Unsupported(format!("the key {name:?} is no UTF-8"))),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{CommonPrefix, Object};
    use proptest::prelude::*;

    use super::*;

    fn object(key: &str) -> Object {
        Object::builder().key(key).e_tag("\"e\"").size(1).build()
    }

    #[test]
    fn keys_of_a_listing_are_decoded_only_if_the_server_says_that_it_encoded() {
        let encoded = ListObjectsV2Output::builder()
            .encoding_type(EncodingType::Url)
            .contents(object("a+b%2Bc%0A%ED%95%9C"))
            .build();
        let page = super::page(&ListRequest::default(), &encoded).unwrap();
        assert_eq!(page.objects[0].key().as_str(), "a b+c\n한");
        let plain = ListObjectsV2Output::builder().contents(object("a+b%20")).build();
        let page = super::page(&ListRequest::default(), &plain).unwrap();
        assert_eq!(page.objects[0].key().as_str(), "a+b%20");
    }

    #[test]
    fn a_page_is_sorted_and_begins_behind_start_after() {
        let output = ListObjectsV2Output::builder()
            .contents(object("c"))
            .contents(object("b"))
            .contents(object("a"))
            .common_prefixes(CommonPrefix::builder().prefix("a/").build())
            .common_prefixes(CommonPrefix::builder().prefix("b/").build())
            .build();
        let request = ListRequest { start_after: Some("a/".into()), ..ListRequest::default() };
        let page = super::page(&request, &output).unwrap();
        let keys: Vec<_> = page.objects.iter().map(|object| object.key().as_str()).collect();
        assert_eq!(keys, ["b", "c"]);
        assert_eq!(page.common_prefixes, ["b/"]);
    }

    #[test]
    fn content_ranges_are_read() {
        assert_eq!(content_range("bytes 0-4/10"), Some((ByteRange::new(0, 5), 10)));
        assert_eq!(content_range("bytes 5-4/10"), None);
        assert_eq!(content_range("bytes */10"), None);
    }

    #[test]
    fn a_server_that_ignores_the_range_is_found_out() {
        let output = GetObjectOutput::builder().content_length(10).e_tag("\"e\"").build();
        let key = ObjectKey::from("k");
        assert!(get(&key, GetRange::Bytes(ByteRange::new(2, 5)), &output).is_err());
        assert!(get(&key, GetRange::Bytes(ByteRange::new(0, 20)), &output).is_ok());
        assert!(get(&key, GetRange::Whole, &output).is_ok());
    }

    #[test]
    fn a_copy_source_escapes_all_but_slashes_and_names_no_version() {
        let source = ObjectVersion::new("d/a b+%한".into(), "\"e\"".into(), Some("v".into()));
        assert_eq!(copy_source("b", &source), "b/d/a%20b%2B%25%ED%95%9C");
    }

    #[test]
    fn tags_are_equal_with_and_without_quotes() {
        assert_eq!(quoted("abc"), quoted("\"abc\""));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn every_key_survives_form_encoding(key in "\\PC{0,40}") {
            let encoded = utf8_percent_encode(&key, NON_ALPHANUMERIC).to_string().replace("%20", "+");
            prop_assert_eq!(decode(&encoded).unwrap(), key);
        }
    }
}
