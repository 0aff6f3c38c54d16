//! `s3mount doctor`: every condition of a mount looked at by itself, with the remedy where it does not hold.
//!
//! Leaves nothing behind: what it writes is one tiny object of a random name below the prefix, deleted again, and an upload
//! that is aborted. Asks nothing that a mount does not need.

mod bucket;
mod machine;

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::Failure;
use super::instance::Surroundings;
use super::place;
use super::run::{connect_failure, s3_settings};
use crate::config::{S3Config, parse_source};
use crate::metrics::Metrics;
use crate::store::s3::examine;

/// What became of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It holds.
    Ok,
    /// It works, and could be better.
    Note,
    /// A mount will fail, or some of its operations will.
    Failed,
    /// It was not looked at.
    Skipped,
}

/// One condition of a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, such as `s3:PutObject`.
    pub name: &'static str,
    /// What became of it.
    pub verdict: Verdict,
    /// What was found, in a line.
    pub detail: String,
    /// What to do, in a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, detail: detail.into(), remedy: None }
    }

    fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skipped, ..Self::ok(name, why) }
    }

    fn note(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Note, remedy: Some(remedy.into()), ..Self::ok(name, detail) }
    }

    fn failed(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failed, ..Self::note(name, detail, remedy) }
    }
}

/// What to look at.
#[derive(Clone, Debug)]
pub struct Examined {
    /// `BUCKET[/PREFIX]`.
    pub source: String,
    /// How to reach S3.
    pub s3: S3Config,
    /// Where state is kept, if it was said.
    pub state_dir: Option<PathBuf>,
    /// Where blocks are to be cached on disk, if they are.
    pub cache_dir: Option<PathBuf>,
    /// Nothing is written into the bucket.
    pub read_only: bool,
}

/// Looks at everything.
///
/// # Errors
/// What was typed cannot be meant; no threads can be made.
pub fn examine_all(wanted: &Examined) -> Result<Vec<Check>, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::system(format!("no threads can be made: {error}")))?;
    let checks = runtime.block_on(examine_here(wanted));
    runtime.shutdown_background();
    checks
}

async fn examine_here(wanted: &Examined) -> Result<Vec<Check>, Failure> {
    let (bucket, prefix) = parse_source(&wanted.source).map_err(|error| Failure::usage(error.to_string()))?;
    let here = Surroundings::look().await;
    let settings = s3_settings(&wanted.s3, &bucket, &prefix, wanted.read_only, &here);
    let metrics = Arc::new(Metrics::default());
    let examination = examine(&settings, metrics).await.map_err(|error| connect_failure(&error))?;
    let mut checks = vec![
        machine::fuse_device(),
        machine::fusermount(),
        machine::kernel(),
        machine::memory(&here),
        machine::disk("state disk", &place::state_root(wanted.state_dir.as_deref()), "--state-dir"),
        machine::instance(&here),
        machine::mtu(&here),
        machine::dns(&examination.host).await,
    ];
    if let Some(dir) = &wanted.cache_dir {
        checks.insert(5, machine::disk("cache disk", dir, "--cache-dir"));
    }
    checks.extend(bucket::way(&examination, &bucket));
    checks.extend(bucket::permissions(&examination, &prefix, wanted.read_only).await);
    Ok(checks)
}
