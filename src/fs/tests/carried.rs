//! What an object carries beside its bytes stays with it, whatever this mount does to them.

use super::*;
use crate::store::ObjectAttributes;
use crate::types::{ContentHeaders, ObjectMetadata};

fn carried() -> ObjectAttributes {
    let headers = ContentHeaders {
        cache_control: Some("max-age=60".into()),
        content_encoding: Some("gzip".into()),
        content_disposition: Some("attachment".into()),
        website_redirect_location: Some("/elsewhere".into()),
        ..ContentHeaders::default()
    };
    ObjectAttributes {
        content_type: Some("text/html".into()),
        metadata: Arc::new(ObjectMetadata::from([("project".to_owned(), "x".to_owned())])),
        storage_class: Some("STANDARD_IA".into()),
        headers: headers.if_any(),
    }
}

#[tokio::test]
async fn what_an_object_carries_stays_with_it_when_it_is_edited_and_renamed() {
    let mount = Mount::new();
    mount.bucket.put_directly_with("f", "bytes", carried());
    let opened = mount.open("f", libc::O_WRONLY).await.expect("it is there");
    mount.write(opened.handle, 5, b" and more").await.expect("staging has room");
    mount.close(opened.handle).await.expect("the store does not fail");
    assert_eq!(mount.bucket.attributes("f"), Some(carried()));
    let (from, to) = (OsStr::new("f"), OsStr::new("g"));
    mount.fs.rename((Ino::ROOT, from), (Ino::ROOT, to), false).await.expect("renamed");
    assert_eq!(mount.bucket.attributes("g"), Some(carried()));
    let opened = mount.open("g", libc::O_WRONLY).await.expect("it is there");
    mount.write(opened.handle, 0, b"BYTES").await.expect("staging has room");
    mount.close(opened.handle).await.expect("the store does not fail");
    assert_eq!(mount.bucket.attributes("g"), Some(carried()));
    assert_eq!(mount.bucket.content("g").as_deref(), Some(&b"BYTES and more"[..]));
}
