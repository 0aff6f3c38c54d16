//! What the status socket tells, gathered from the engines.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::budget::Watch;
use crate::clock::Clock;
use crate::config::MountConfig;
use crate::export::status::{Cost, DirtyFile, Live, MemoryInUse, Status, StatusSource, UnkeptFile};
use crate::fs::{FileSystem, Progress, Unkept};
use crate::metrics::{Metrics, PriceTable};
use crate::store::StoreCapabilities;

/// What a mount tells of itself that does not change.
pub(super) fn fixed(config: &MountConfig, dir: &Path, source: &str, capabilities: StoreCapabilities) -> Status {
    Status {
        source: source.to_owned(),
        dir: dir.display().to_string(),
        pid: std::process::id(),
        warnings: shortcomings(capabilities),
        capabilities: named(capabilities),
        options: config.in_force(),
        ..Status::default()
    }
}

/// A source of answers about a mount that begins now.
pub(super) fn source(
    fixed: Status,
    config: &MountConfig,
    fs: &Arc<FileSystem>,
    metrics: &Arc<Metrics>,
    prices: &Arc<PriceTable>,
    watch: &Watch,
    clock: &Clock,
) -> StatusSource {
    let (fs, watch, prefix) = (Arc::downgrade(fs), watch.clone(), config.prefix.clone());
    let (cache_bytes, in_flight_bytes_max, staged_bytes_max) =
        (config.read.cache_bytes, config.read.in_flight_bytes, config.write.staging_bytes);
    let live = move || {
        let spending = watch.spending();
        let cost = Cost {
            usd_per_hour: spending.usd_per_hour,
            budget_usd_per_hour: spending.budget_usd_per_hour,
            over_budget: spending.is_over,
            read_ahead_divisor: spending.read_ahead_divisor,
            ..Cost::default()
        };
        let Some(fs) = fs.upgrade() else { return Live { cost, ..Live::default() } };
        let memory = fs.memory();
        Live {
            files: fs.unpublished().iter().map(|file| told(&prefix, file)).collect(),
            unkept: fs.unkept().iter().map(unkept).collect(),
            cached_bytes: (memory.cached_bytes, cache_bytes),
            memory: MemoryInUse {
                in_flight_bytes: memory.in_flight_bytes,
                in_flight_bytes_max,
                staged_bytes: memory.staged_bytes,
                staged_bytes_max,
                spilled_bytes: memory.spilled_bytes,
            },
            cost,
        }
    };
    StatusSource {
        metrics: Arc::clone(metrics),
        prices: Arc::clone(prices),
        fixed: Arc::new(fixed),
        live: Arc::new(live),
        clock: clock.clone(),
        began: clock.now(),
    }
}

/// A file that neither S3 nor the journal took, as it is told.
pub(super) fn unkept(file: &Unkept) -> UnkeptFile {
    UnkeptFile { key: file.key.as_str().to_owned(), upload: file.upload.clone(), journal: file.journal.clone() }
}

fn told(prefix: &str, file: &Progress) -> DirtyFile {
    let key = file.key.as_str();
    DirtyFile {
        path: key.strip_prefix(prefix).unwrap_or(key).to_owned(),
        key: key.to_owned(),
        size_bytes: file.size_bytes,
        dirty_bytes: file.dirty_bytes,
        in_s3_bytes: file.in_s3_bytes,
        oldest_seconds: file.oldest.as_secs_f64(),
    }
}

fn named(capabilities: StoreCapabilities) -> BTreeMap<String, bool> {
    let StoreCapabilities {
        conditional_writes,
        conditional_completes,
        conditional_deletes,
        conditional_copies,
        pinned_copies,
        copied_checksums,
    } = capabilities;
    [
        ("conditional_writes", conditional_writes),
        ("conditional_completes", conditional_completes),
        ("conditional_deletes", conditional_deletes),
        ("conditional_copies", conditional_copies),
        ("pinned_copies", pinned_copies),
        ("copied_checksums", copied_checksums),
    ]
    .into_iter()
    .map(|(name, honoured)| (name.to_owned(), honoured))
    .collect()
}

/// What the server does not honour, for the log and for `status`.
fn shortcomings(capabilities: StoreCapabilities) -> Vec<String> {
    let mut lines = Vec::new();
    if !capabilities.conditional_writes {
        lines.push(
            "this server ignores conditions on writes: conflicting writers are noticed by a HEAD before each write, \
             which leaves a moment in which the last one wins"
                .to_owned(),
        );
    }
    lines
}
