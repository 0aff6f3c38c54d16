//! The catalogue as a document: docs/METRICS.md is made from it and held to it.

use super::{ByKind, Counter, Derived, Gauge, Latency, RequestKind, snake_case};

fn document() -> String {
    let mut text = String::from(
        "# Metrics\n\nMade from the catalogue in `src/metrics/names.rs`. After a change there:\n\
         `S3MOUNT_TEST_UPDATE=1 cargo test --lib metrics::tests`.\n\n\
         CloudWatch names them as in the first column, with the dimensions `Bucket` and `MountName` (see\n\
         [OPERATIONS.md](OPERATIONS.md)); a number without a name for CloudWatch is not sent there, for each series costs\n\
         money. Prometheus has the labels `bucket` and `mount`, counts since the mount began, and durations in seconds.\n\n\
         | CloudWatch | unit | Prometheus | meaning |\n|---|---|---|---|\n",
    );
    let mut row = |name: &str, sent: bool, unit: &str, prometheus: String, meaning: &str| {
        let shown = if sent { format!("`{name}`") } else { "-".to_owned() };
        text += &format!("| {shown} | {unit} | `s3mount_{prometheus}` | {meaning} |\n");
    };
    for it in Counter::ALL {
        let prometheus = format!("{}_total", snake_case(it.name()));
        row(it.name(), it.is_sent_to_cloudwatch(), it.unit(), prometheus, it.meaning());
    }
    for it in Gauge::ALL {
        row(it.name(), it.is_sent_to_cloudwatch(), it.unit(), snake_case(it.name()), it.meaning());
    }
    for it in Latency::ALL {
        row(it.name(), true, it.unit(), format!("{}_seconds", snake_case(it.name())), it.meaning());
    }
    for it in ByKind::ALL {
        let prometheus = format!("{}_total{{operation}}", snake_case(it.name()));
        let meaning = format!("{} By `Operation`, and once for all.", it.meaning());
        row(it.name(), true, it.unit(), prometheus, &meaning);
    }
    for it in Derived::ALL {
        let prometheus = match it {
            Derived::CacheHitRatio => {
                "cache_hits_total / (s3mount_cache_hits_total + s3mount_cache_misses_total)".into()
            }
            Derived::OldestDirtySeconds => snake_case(it.name()),
            Derived::EstimatedCost => "estimated_cost_usd_total".into(),
        };
        row(it.name(), true, it.unit(), prometheus, it.meaning());
    }
    text += "\nLatencies are histograms with buckets of base 1.1 (within 5 %) from 1 us to 100 s; to CloudWatch they go as\n\
             Values and Counts with exact SampleCount, Sum, Minimum and Maximum, so that p50 and p99 work there.\n\n\
             Operations:";
    for (number, kind) in RequestKind::ALL.iter().enumerate() {
        text += if number == 0 { " " } else { ", " };
        if number % 7 == 6 {
            text.truncate(text.trim_end().len());
            text += "\n";
        }
        text += &format!("`{}`", kind.name());
    }
    text + ".\n"
}

#[test]
fn the_document_is_made_from_the_catalogue() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METRICS.md");
    if std::env::var_os("S3MOUNT_TEST_UPDATE").is_some() {
        std::fs::write(path, document()).expect("the document can be written");
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == document(), "docs/METRICS.md is stale: S3MOUNT_TEST_UPDATE=1 cargo test --lib metrics::tests");
}

#[test]
fn names_are_spelled_for_prometheus() {
    for (name, snake) in
        [("BytesRead", "bytes_read"), ("S3BytesSent", "s3_bytes_sent"), ("S3FirstByteLatency", "s3_first_byte_latency")]
    {
        assert_eq!(snake_case(name), snake);
    }
}
