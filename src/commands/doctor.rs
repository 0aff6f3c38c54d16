//! `s3mount doctor`: a table of what was looked at, with remedies.

use super::say::say;
use crate::config::S3Config;
use crate::config::cli::DoctorArgs;
use crate::lifecycle::Failure;
use crate::lifecycle::doctor::{self, Check, Examined, Verdict};

/// Looks, prints, and succeeds only if nothing failed.
pub(super) fn run(arguments: DoctorArgs) -> Result<(), Failure> {
    let DoctorArgs { source, json, read_only, state_dir, cache_dir, s3 } = arguments;
    let s3 = S3Config::new(s3).map_err(|error| Failure::usage(error.to_string()))?;
    let checks = doctor::examine_all(&Examined { source, s3, state_dir, cache_dir, read_only })?;
    let failed: Vec<&str> =
        checks.iter().filter(|check| check.verdict == Verdict::Failed).map(|check| check.name).collect();
    if json {
        let whole = serde_json::json!({ "ok": failed.is_empty(), "checks": checks });
        say!("{whole}");
    } else {
        checks.iter().for_each(show);
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Failure::system(format!("{} of {} checks failed: {}", failed.len(), checks.len(), failed.join(", "))))
}

fn show(check: &Check) {
    let mark = match check.verdict {
        Verdict::Ok => "ok",
        Verdict::Note => "note",
        Verdict::Failed => "FAILED",
        Verdict::Skipped => "-",
    };
    say!("{mark:7} {:30} {}", check.name, check.detail);
    if let Some(remedy) = &check.remedy {
        say!("{:7} {:30} -> {remedy}", "", "");
    }
}
