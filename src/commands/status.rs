//! `s3mount status`: what mounts are doing, asked over their sockets. A mount is never touched, so that a dead one does
//! no harm.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::config::cli::StatusArgs;
use crate::export::status::{Status, socket_path};
use crate::lifecycle::Failure;
use crate::lifecycle::place::{self, MountEntry, mounts};

/// The mount at a directory, if it is one of ours.
pub(super) fn mount_at(dir: &Path) -> Result<MountEntry, Failure> {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    // The directory itself is not asked: a dead mount does not answer.
    let parent = absolute.parent().and_then(|parent| std::fs::canonicalize(parent).ok());
    let resolved = match (parent, absolute.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => absolute,
    };
    match place::mounted_at(&resolved) {
        Some(entry) if entry.kind == "fuse.s3mount" => Ok(entry),
        Some(entry) => Err(Failure::mount(format!("{} is a mount of {}, not of s3mount", dir.display(), entry.kind))),
        None => Err(Failure::mount(format!("nothing is mounted on {}", dir.display()))),
    }
}

/// Opens the socket of a mount and says a word.
pub(super) fn speak(entry: &MountEntry, word: &str) -> Result<BufReader<UnixStream>, Failure> {
    let path = socket_path(entry.device);
    let said = UnixStream::connect(&path).and_then(|mut stream| {
        stream.write_all(format!("{word}\n").as_bytes())?;
        Ok(BufReader::new(stream))
    });
    said.map_err(|error| {
        Failure::system(format!(
            "the daemon of {} does not answer on {} ({error}): it is dead, or belongs to another user",
            entry.dir.display(),
            path.display()
        ))
    })
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
        println!("nothing is mounted");
    }
    let mut failed = None;
    for entry in entries {
        match speak(&entry, "status").map(|mut answers| hear(&mut answers)) {
            Ok(Some(status)) if arguments.json => {
                println!("{}", serde_json::to_string(&status).map_err(|error| Failure::system(error.to_string()))?);
            }
            Ok(Some(status)) => show(&status),
            Ok(None) => failed = Some(Failure::system(format!("the daemon of {} said nothing", entry.dir.display()))),
            Err(failure) => failed = Some(failure),
        }
    }
    failed.map_or(Ok(()), Err)
}

fn show(it: &Status) {
    println!("{} on {} (pid {}, {})", it.source, it.dir, it.pid, it.state);
    println!(
        "  not in S3 yet  {} in {} files, {} on the way",
        bytes(it.dirty_bytes),
        it.dirty_files,
        bytes(it.uploading_bytes)
    );
    println!(
        "  applications   {} read, {} written, {} open handles",
        count(it.bytes_read),
        count(it.bytes_written),
        it.open_handles
    );
    println!(
        "  S3             {} received, {} sent, {} retries",
        count(it.s3_bytes_received),
        count(it.s3_bytes_sent),
        it.retries
    );
    let (hits, misses) = it.disk_cache_hits_and_misses;
    if it.disk_cache_bytes > 0 || misses > 0 {
        println!(
            "  disk cache     {} on disk, {} read, {} written, {hits} hits, {misses} misses, {} opens by passthrough",
            bytes(it.disk_cache_bytes),
            count(it.disk_cache_bytes_read),
            count(it.disk_cache_bytes_written),
            it.passthrough_opens
        );
    }
    let requests: Vec<String> = it.requests.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    println!("  requests       {} (about ${:.6})", requests.join(", "), it.estimated_usd);
    for (latency, (median, high)) in &it.latency_ms {
        println!("  {latency:18} p50 {median:.2} ms, p99 {high:.2} ms");
    }
    for warning in &it.warnings {
        println!("  warning: {warning}");
    }
}

fn count(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

fn bytes(bytes: i64) -> String {
    count(u64::try_from(bytes).unwrap_or(0))
}
