//! LIST: UTF-8 order, pages, rolled-up prefixes.

use super::{Bed, name_facts};
use crate::store::ListRequest;

name_facts!(
    a_listing_is_in_utf8_order_and_carries_sizes_and_tags,
    pages_give_every_name_once,
    names_are_rolled_up_behind_the_prefix,
    a_rolled_up_prefix_comes_once_over_all_pages,
    a_listing_begins_behind_start_after,
    a_prefix_that_nothing_has_is_an_empty_page,
);

async fn fill(bed: &Bed, names: &[&str]) {
    for name in names {
        bed.put(name, name.as_bytes()).await;
    }
}

async fn a_listing_is_in_utf8_order_and_carries_sizes_and_tags(bed: Bed) {
    fill(&bed, &["b", "a/1", "a-b", "a0", "Z", "가", "é"]).await;
    let page = bed.list(ListRequest::default()).await;
    assert_eq!(bed.names(&page).0, ["Z", "a-b", "a/1", "a0", "b", "é", "가"]);
    assert_eq!(page.continuation, None);
    for object in &page.objects {
        let head = bed.store.head(object.key()).await.expect("a HEAD");
        assert_eq!((object.etag(), object.size_bytes), (head.etag(), head.size_bytes));
        assert_eq!(object.metadata, None);
    }
}

async fn pages_give_every_name_once(bed: Bed) {
    let names: Vec<String> = (0..25).map(|n| format!("d/{n:03}")).collect();
    fill(&bed, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let (mut seen, mut pages, mut continuation) = (Vec::new(), 0, None);
    loop {
        let request = ListRequest { prefix: "d/".into(), keys_max: Some(7), continuation, ..ListRequest::default() };
        let page = bed.list(request).await;
        assert!(page.objects.len() <= 7);
        seen.extend(bed.names(&page).0);
        pages += 1;
        continuation = page.continuation;
        if continuation.is_none() {
            break;
        }
    }
    assert_eq!((seen, pages), (names, 4));
}

async fn names_are_rolled_up_behind_the_prefix(bed: Bed) {
    fill(&bed, &["d/a-b", "d/a/1", "d/a/2/3", "d/b", "d/c/4", "e"]).await;
    let page = bed.list(ListRequest { prefix: "d/".into(), delimited: true, ..ListRequest::default() }).await;
    let (objects, prefixes) = bed.names(&page);
    assert_eq!(objects, ["d/a-b", "d/b"]);
    assert_eq!(prefixes, ["d/a/", "d/c/"]);
}

async fn a_rolled_up_prefix_comes_once_over_all_pages(bed: Bed) {
    fill(&bed, &["a/1", "a/2", "a/3", "b", "c/1", "c/2", "d"]).await;
    let (mut objects, mut prefixes, mut continuation) = (Vec::new(), Vec::new(), None);
    loop {
        let request = ListRequest { delimited: true, keys_max: Some(1), continuation, ..ListRequest::default() };
        let page = bed.list(request).await;
        assert!(page.objects.len() + page.common_prefixes.len() <= 1);
        let names = bed.names(&page);
        objects.extend(names.0);
        prefixes.extend(names.1);
        continuation = page.continuation;
        if continuation.is_none() {
            break;
        }
    }
    assert_eq!((objects, prefixes), (vec!["b".into(), "d".into()], vec!["a/".into(), "c/".to_owned()]));
}

async fn a_listing_begins_behind_start_after(bed: Bed) {
    fill(&bed, &["a-b", "a/1", "b"]).await;
    let after = |name: &str| ListRequest { start_after: Some(name.into()), ..ListRequest::default() };
    assert_eq!(bed.names(&bed.list(after("a-")).await).0, ["a-b", "a/1", "b"]);
    assert_eq!(bed.names(&bed.list(after("a-b")).await).0, ["a/1", "b"]);
    let rolled = bed.list(ListRequest { delimited: true, ..after("a/") }).await;
    assert_eq!(bed.names(&rolled), (vec!["b".to_owned()], vec![]));
}

async fn a_prefix_that_nothing_has_is_an_empty_page(bed: Bed) {
    fill(&bed, &["a"]).await;
    let page = bed.list(ListRequest { prefix: "b".into(), delimited: true, ..ListRequest::default() }).await;
    assert!(page.objects.is_empty() && page.common_prefixes.is_empty() && page.continuation.is_none());
}
