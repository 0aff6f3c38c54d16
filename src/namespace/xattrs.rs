//! Extended attributes as s3fs keeps them: metadata `xattr`, percent-encoded JSON of names to values in base64.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::types::ObjectMetadata;

/// Name of the metadata.
const NAME: &str = "xattr";

/// Extended attributes by name, `user.` included.
pub type Xattrs = BTreeMap<String, Vec<u8>>;

/// Reads them; what is malformed is passed over.
pub(super) fn read(metadata: &ObjectMetadata) -> Xattrs {
    let Some(value) = metadata.get(NAME) else { return Xattrs::new() };
    let text = percent_decode_str(value.trim()).decode_utf8_lossy();
    let stored: BTreeMap<String, String> = serde_json::from_str(&text).unwrap_or_default();
    stored.into_iter().filter_map(|(name, value)| Some((name, STANDARD.decode(value).ok()?))).collect()
}

/// Writes them; none leave nothing.
pub(super) fn write(xattrs: &Xattrs, metadata: &mut ObjectMetadata) {
    if xattrs.is_empty() {
        metadata.remove(NAME);
        return;
    }
    let stored: BTreeMap<&str, String> =
        xattrs.iter().map(|(name, value)| (name.as_str(), STANDARD.encode(value))).collect();
    let text = serde_json::to_string(&stored).expect("a map of strings has a spelling in JSON");
    metadata.insert(NAME.to_owned(), utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_s3fs_wrote_is_read() {
        let value = "%7B%22user.colour%22%3A%22cmVk%22%2C%22user.empty%22%3A%22%22%7D";
        let metadata = ObjectMetadata::from([(NAME.to_owned(), value.to_owned())]);
        let found = read(&metadata);
        assert_eq!(found.get("user.colour").map(Vec::as_slice), Some(&b"red"[..]));
        assert_eq!(found.get("user.empty").map(Vec::as_slice), Some(&b""[..]));
    }

    #[test]
    fn what_is_malformed_is_none() {
        for value in ["%7B", "no json", "%7B%22user.a%22%3A%22*%22%7D"] {
            assert!(read(&ObjectMetadata::from([(NAME.to_owned(), value.to_owned())])).is_empty(), "{value}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(xattrs in proptest::collection::btree_map("user\\.[^\u{0}]{1,20}", any::<Vec<u8>>(), 0..6)) {
            let mut metadata = ObjectMetadata::from([(NAME.to_owned(), "old".to_owned())]);
            write(&xattrs, &mut metadata);
            prop_assert!(metadata.values().all(|value| value.bytes().all(|byte| byte.is_ascii_graphic())));
            prop_assert_eq!(read(&metadata), xattrs);
        }
    }
}
