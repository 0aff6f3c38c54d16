//! The S3 client holds the contract of the stores, against the server of an endpoint that the environment names.
//!
//! `S3MOUNT_CONTRACT_ENDPOINT` is its URL and `S3MOUNT_CONTRACT_BUCKET` a bucket there (default `contract`);
//! `S3MOUNT_CONTRACT_QUIRKS` lists what it does otherwise than S3, by the names of `Quirks`.

use std::sync::Arc;

use s3mount::metrics::Metrics;
use s3mount::store::contract::{Quirks, facts};
use s3mount::store::s3::{S3Settings, connect};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_of_the_environment_holds_the_contract() {
    let Ok(endpoint) = std::env::var("S3MOUNT_CONTRACT_ENDPOINT") else { return };
    let bucket = std::env::var("S3MOUNT_CONTRACT_BUCKET").unwrap_or_else(|_| "contract".into());
    let quirks = std::env::var("S3MOUNT_CONTRACT_QUIRKS").unwrap_or_default();
    let has = |name| quirks.split(',').any(|quirk| quirk == name);
    let quirks = Quirks {
        refuses_odd_keys: has("refuses_odd_keys"),
        is_a_file_system: has("is_a_file_system"),
        loses_track_of_uploads: has("loses_track_of_uploads"),
        takes_small_parts: has("takes_small_parts"),
        is_lax_about_parts: has("is_lax_about_parts"),
    };
    let settings = S3Settings { endpoint_url: Some(endpoint), ..S3Settings::new(bucket) };
    let store = connect(&settings, Arc::new(Metrics::default())).await.expect("a bucket that answers");
    println!("{:?}", store.capabilities());
    let mut failed = Vec::new();
    for fact in facts() {
        let name = fact.name;
        let store = Arc::clone(&store);
        if tokio::spawn(async move { fact.check(&store, quirks).await }).await.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
