//! ListObjectsV2 and what is asked of buckets.

use std::borrow::Cow;
use std::fmt::Write;
use std::ops::Bound;

use crate::answer::{Answer, NO_SUCH_BUCKET, Refusal, escaped};
use crate::call::Call;
use crate::endpoint::Endpoint;
use crate::objects::iso_date;

/// A key in an answer: percent-encoded if the request asks for it.
pub(crate) fn spelled<'a>(call: &Call, key: &'a str) -> Cow<'a, str> {
    if call.query.get("encoding-type").is_none_or(|kind| kind != "url") {
        return escaped(key).into();
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/*".contains(&byte);
    // Most keys are spelled as they are, and a page has a thousand of them.
    if key.bytes().all(plain) {
        return key.into();
    }
    let mut out = String::with_capacity(key.len() * 3);
    for byte in key.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out.into()
}

/// The element that says so.
pub(crate) fn encoding(call: &Call) -> &'static str {
    if call.query.contains_key("encoding-type") { "<EncodingType>url</EncodingType>" } else { "" }
}

/// ListObjectsV2.
pub(crate) fn list(endpoint: &Endpoint, call: &Call) -> Result<Answer, Refusal> {
    let text = |name: &str| call.query.get(name).cloned().unwrap_or_default();
    let (prefix, delimiter) = (text("prefix"), text("delimiter"));
    let limit = call.number("max-keys").unwrap_or(1000).min(1000) as usize;
    // A continuation is the last name told; it may be a rolled-up prefix.
    let after = call.query.get("continuation-token").or(call.query.get("start-after")).cloned().unwrap_or_default();
    let held = endpoint.storage.held.lock();
    let objects = held.buckets.get(&call.bucket).ok_or(NO_SUCH_BUCKET)?;
    // About 250 bytes an object.
    let (mut rows, mut rolled, mut count, mut next) =
        (String::with_capacity(limit * 256), Vec::<String>::new(), 0, None);
    let mut last = after.clone();
    let mut from = if after < prefix { Bound::Included(prefix.clone()) } else { Bound::Excluded(after.clone()) };
    'pages: loop {
        let mut skip_to = None;
        for (key, object) in objects.range::<String, _>((from.clone(), Bound::Unbounded)) {
            let Some(rest) = key.strip_prefix(prefix.as_str()) else { break 'pages };
            let roll = if delimiter.is_empty() { None } else { rest.find(&delimiter) };
            let name = roll.map_or(key.as_str(), |at| &key[..prefix.len() + at + delimiter.len()]);
            let told = roll.is_some() && name <= after.as_str();
            if !told {
                if count == limit {
                    next = Some(last.clone());
                    break 'pages;
                }
                count += 1;
                last.clear();
                last.push_str(name);
            }
            if roll.is_some() {
                if !told {
                    rolled.push(name.to_owned());
                }
                // Everything below is passed over at once: the next key behind all that begin with it.
                skip_to = Some(format!("{name}\u{10ffff}"));
                break;
            }
            let _ = write!(
                rows,
                "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size><StorageClass>{}</StorageClass></Contents>",
                spelled(call, key),
                iso_date(object.modified),
                escaped(&object.etag),
                object.content.len(),
                object.carried.storage_class.as_deref().unwrap_or("STANDARD")
            );
        }
        match skip_to {
            Some(name) => from = Bound::Excluded(name),
            None => break,
        }
    }
    let prefixes: String = rolled
        .iter()
        .map(|name| format!("<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", spelled(call, name)))
        .collect();
    let continuation = next
        .as_ref()
        .map_or(String::new(), |token| format!("<NextContinuationToken>{}</NextContinuationToken>", escaped(token)));
    Ok(Answer::xml(&format!(
        "<ListBucketResult><Name>{}</Name><Prefix>{}</Prefix><KeyCount>{count}</KeyCount><MaxKeys>{limit}</MaxKeys>{}<IsTruncated>{}</IsTruncated>{continuation}{rows}{prefixes}</ListBucketResult>",
        escaped(&call.bucket),
        spelled(call, &prefix),
        encoding(call),
        next.is_some()
    )))
}

/// HeadBucket.
pub(crate) fn head_bucket(endpoint: &Endpoint, call: &Call) -> Result<Answer, Refusal> {
    if endpoint.storage.held.lock().buckets.contains_key(&call.bucket) {
        Ok(Answer::of(200).with("x-amz-bucket-region", endpoint.region.clone()))
    } else {
        Err(NO_SUCH_BUCKET)
    }
}

/// ListBuckets.
pub(crate) fn list_buckets(endpoint: &Endpoint) -> Answer {
    let held = endpoint.storage.held.lock();
    let rows: String =
        held.buckets.keys().map(|name| format!("<Bucket><Name>{}</Name></Bucket>", escaped(name))).collect();
    Answer::xml(&format!("<ListAllMyBucketsResult><Buckets>{rows}</Buckets></ListAllMyBucketsResult>"))
}
