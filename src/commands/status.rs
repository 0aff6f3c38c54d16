//! `s3mount status`: what mounts are doing, asked over their sockets. A mount is never touched, so that a dead one does
//! no harm.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::say::say;
use crate::config::cli::StatusArgs;
use crate::export::status::{Status, connect, socket_paths};
use crate::lifecycle::Failure;
use crate::lifecycle::place::{self, MountEntry, mounts};

/// The directory's path as the table of mounts has it.
pub(super) fn resolved(dir: &Path) -> PathBuf {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    // The directory itself is not asked: a dead mount does not answer.
    let parent = absolute.parent().and_then(|parent| std::fs::canonicalize(parent).ok());
    match (parent, absolute.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => absolute,
    }
}

/// The mount at a directory, if it is one of ours.
pub(super) fn mount_at(dir: &Path) -> Result<MountEntry, Failure> {
    match place::mounted_at(&resolved(dir)) {
        Some(entry) if entry.kind == "fuse.s3mount" => Ok(entry),
        Some(entry) => Err(Failure::mount(format!("{} is a mount of {}, not of s3mount", dir.display(), entry.kind))),
        None => Err(Failure::mount(format!("nothing is mounted on {}", dir.display()))),
    }
}

/// Opens the socket of a mount and says a word.
pub(super) fn speak(entry: &MountEntry, word: &str) -> Result<BufReader<UnixStream>, Failure> {
    let paths = socket_paths(entry.device);
    let said = connect(&paths).and_then(|mut stream| {
        stream.write_all(format!("{word}\n").as_bytes())?;
        Ok(BufReader::new(stream))
    });
    said.map_err(|error| {
        Failure::system(format!(
            "the daemon of {} does not answer on {} ({error}): it is dead, or belongs to another user",
            entry.dir.display(),
            paths[0].display()
        ))
    })
}

/// How long a daemon may think about its status: it asks nobody.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The status of a mount.
pub(super) fn ask(entry: &MountEntry) -> Result<Status, Failure> {
    let mut answers = speak(entry, "status")?;
    // A daemon that was stopped takes the question and never answers.
    let _ = answers.get_ref().set_read_timeout(Some(ANSWER_TIMEOUT));
    hear(&mut answers).ok_or_else(|| Failure::system(format!("the daemon of {} said nothing", entry.dir.display())))
}

/// The next answer; `None` when the daemon has said everything.
pub(super) fn hear(answers: &mut BufReader<UnixStream>) -> Option<Status> {
    let mut line = String::new();
    answers.read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

/// Shows one mount, or all.
pub(super) fn run(arguments: &StatusArgs) -> Result<(), Failure> {
    let entries = match &arguments.dir {
        Some(dir) => vec![mount_at(dir)?],
        None => mounts().into_iter().filter(|entry| entry.kind == "fuse.s3mount").collect(),
    };
    if entries.is_empty() && !arguments.json {
        say!("nothing is mounted");
    }
    let mut failed = None;
    for entry in entries {
        match ask(&entry) {
            Ok(status) if arguments.json => {
                say!("{}", serde_json::to_string(&status).map_err(|error| Failure::system(error.to_string()))?);
            }
            Ok(status) => show(&status),
            Err(failure) => failed = Some(failure),
        }
    }
    failed.map_or(Ok(()), Err)
}

fn show(it: &Status) {
    say!("{} on {} (pid {}, {}, up {:.0} s)", it.source, it.dir, it.pid, it.state, it.uptime_seconds);
    say!(
        "  not in S3 yet  {} in {} files, {} on the way",
        bytes(it.dirty_bytes),
        it.dirty_files,
        bytes(it.uploading_bytes)
    );
    for file in it.files.iter().take(FILES_SHOWN_MAX) {
        say!(
            "    {}  {} of {} in S3, {} to go, waiting for {:.0} s",
            file.path.escape_debug(),
            count(file.in_s3_bytes),
            count(file.size_bytes),
            count(file.dirty_bytes),
            file.oldest_seconds
        );
    }
    if it.files.len() > FILES_SHOWN_MAX {
        say!("    and {} more", it.files.len() - FILES_SHOWN_MAX);
    }
    if it.unkept_files > 0 {
        say!(
            "  here only      {} files, which neither S3 nor the journal took and which end with the mount",
            it.unkept_files
        );
    }
    for file in it.unkept.iter().take(FILES_SHOWN_MAX) {
        say!("    {}  S3: {}; journal: {}", file.key.escape_debug(), file.upload, file.journal);
    }
    say!(
        "  applications   {} read, {} written, {} open handles",
        count(it.bytes_read),
        count(it.bytes_written),
        it.open_handles
    );
    say!(
        "  S3             {} received, {} sent, {} retries, {} late GETs sent twice",
        count(it.s3_bytes_received),
        count(it.s3_bytes_sent),
        it.retries,
        it.hedges
    );
    let (hits, misses) = it.disk_cache_hits_and_misses;
    if it.disk_cache_bytes > 0 || misses > 0 {
        say!(
            "  disk cache     {} on disk, {} read, {} written, {hits} hits, {misses} misses, {} opens by passthrough",
            bytes(it.disk_cache_bytes),
            count(it.disk_cache_bytes_read),
            count(it.disk_cache_bytes_written),
            it.passthrough_opens
        );
    }
    say!(
        "  memory         {} of {} cached, {} in flight, {} staged, {} spilled to disk",
        count(it.cache.memory_bytes),
        count(it.cache.memory_bytes_max),
        count(it.memory.in_flight_bytes),
        count(it.memory.staged_bytes),
        count(it.memory.spilled_bytes)
    );
    let listed = |table: &std::collections::BTreeMap<String, u64>| {
        table.iter().map(|(kind, count)| format!("{kind} {count}")).collect::<Vec<_>>().join(", ")
    };
    say!("  requests       {}", listed(&it.requests));
    if !it.errors.is_empty() {
        say!("  errors         {}", listed(&it.errors));
    }
    let budget = it.cost.budget_usd_per_hour.map(|usd| format!(" of a budget of ${usd}")).unwrap_or_default();
    say!(
        "  cost           about ${:.6}, ${:.4} an hour{budget} (prices of {}, {})",
        it.cost.usd,
        it.cost.usd_per_hour,
        it.cost.prices_region,
        it.cost.prices_dated
    );
    for (name, latency) in &it.latencies {
        say!("  {name:18} p50 {:.2} ms, p99 {:.2} ms", latency.p50_ms, latency.p99_ms);
    }
    if it.cost.over_budget {
        say!("  warning: over budget; windows of read-ahead are divided by {}", it.cost.read_ahead_divisor);
    }
    for warning in &it.warnings {
        say!("  warning: {warning}");
    }
}

/// Dirty files that are listed to people; `--json` has more.
const FILES_SHOWN_MAX: usize = 20;

fn count(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

fn bytes(bytes: i64) -> String {
    count(u64::try_from(bytes).unwrap_or(0))
}
