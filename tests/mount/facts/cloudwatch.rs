//! What a mount tells CloudWatch and Prometheus, against what was read and written and what the server counted; and that a
//! CloudWatch that misbehaves disturbs nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use cwsim::series::Series;
use cwsim::{CwSim, Manner};
use serde_json::Value;

use crate::harness::imds::{self, ImdsStub};
use crate::harness::mount::{Mount, Mounting, text};
use crate::harness::place::checked;
use crate::harness::prelude::*;
use crate::harness::s3::Bucket;

const MIB: usize = 1 << 20;
/// What the mounts here are called.
const NAME: &str = "a mount";
/// Everything that the mount of the exact numbers asks of S3, its look at what the server honours included.
const OPERATIONS: [&str; 11] = [
    "GetObject",
    "HeadObject",
    "ListObjectsV2",
    "PutObject",
    "DeleteObject",
    "CopyObject",
    "CreateMultipartUpload",
    "UploadPart",
    "UploadPartCopy",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
];
/// Long enough for an interval of a second to be sent, on the slowest machine.
const LONG: Duration = Duration::from_secs(60);

pub fn facts() -> Vec<Fact> {
    let facts = vec![
        own!(what_is_sent_equals_what_was_read_written_and_counted),
        own!(percentiles_are_those_that_the_mount_has_itself),
        own!(the_last_interval_is_sent_at_the_end),
        own!(a_missing_permission_is_said_once_and_the_mount_goes_on),
        own!(a_cloudwatch_that_hangs_disturbs_neither_work_nor_unmount),
        own!(an_outage_loses_nothing_and_each_interval_keeps_its_timestamp).seconds(180),
        own!(credentials_that_cloudwatch_refuses_as_expired_are_loaded_anew),
        own!(the_instance_is_a_dimension_on_request),
        own!(a_region_that_nobody_names_is_an_error_and_no_guess),
        own!(prometheus_is_answered_what_was_counted),
    ];
    facts.into_iter().map(|fact| fact.on(SIM)).collect()
}

/// A mount of a new bucket on a server that has counted nothing before, and its CloudWatch.
fn exporting(c: &Context, manner: Manner, interval: &str) -> Outcome<(Place, CwSim)> {
    exporting_as(c, Mounting::default(), manner, interval)
}

/// The same, mounted in this way.
fn exporting_as(c: &Context, mut how: Mounting, manner: Manner, interval: &str) -> Outcome<(Place, CwSim)> {
    let (cloudwatch, server) = (CwSim::start()?, c.server()?);
    cloudwatch.set(manner);
    let bucket = server.new_bucket()?;
    server.sim.as_ref().expect("the simulator").reset_counts();
    let url = cloudwatch.url().to_owned();
    let words =
        ["--cloudwatch", "--cloudwatch-endpoint-url", &url, "--mount-name", NAME, "--cloudwatch-interval", interval];
    how.options.extend(words.map(str::to_owned));
    Ok((Place::top(Mount::start(&server, &bucket, &how)?), cloudwatch))
}

fn bucket_of(p: &Place) -> &str {
    let Bucket::S3 { name, .. } = &p.mount.bucket else { panic!("a bucket") };
    name
}

fn series(cloudwatch: &CwSim, p: &Place, name: &str) -> Series {
    cloudwatch.series(name, &[("Bucket", bucket_of(p)), ("MountName", NAME)])
}

fn series_of_operation(cloudwatch: &CwSim, p: &Place, name: &str, operation: &str) -> Series {
    cloudwatch.series(name, &[("Bucket", bucket_of(p)), ("MountName", NAME), ("Operation", operation)])
}

/// The answer of `s3mount status --json`.
fn status(p: &Place) -> Outcome<Value> {
    let output = p.mount.run(&["status", "--json", &p.mount.dir.to_string_lossy()])?;
    Ok(serde_json::from_str(&checked(&output)?)?)
}

/// No request broke a rule of CloudWatch.
fn nothing_refused(cloudwatch: &CwSim) {
    assert!(cloudwatch.refusals().is_empty(), "{:?}", cloudwatch.refusals());
}

/// Waits for so many requests.
fn asked(cloudwatch: &CwSim, count: usize) -> Outcome {
    if poll(LONG, || cloudwatch.received().len() >= count) {
        return Ok(());
    }
    Err(Failure(format!("{} requests and not {count}", cloudwatch.received().len())))
}

/// Exact integers in floating point.
fn whole(number: u64) -> f64 {
    number as f64
}

fn what_is_sent_equals_what_was_read_written_and_counted(c: &Context) -> Outcome {
    let (p, cloudwatch) = exporting(c, Manner::Answers, "1s")?;
    // At its start the mount looks whether the server honours conditions.
    let probed = status(&p)?["s3_bytes_sent"].as_f64().unwrap_or(0.0);
    let foreign = pattern(1, 3 * MIB + 77);
    let before = p.sim().counts();
    p.foreign_put_unseen("foreign", &foreign)?;
    let puts_of_others = p.sim().counts().of("PutObject") - before.of("PutObject");
    let mut written = 0;
    for n in 0..20_usize {
        let bytes = pattern(n as u64, 1000 * n + 1);
        written += bytes.len();
        p.write(&format!("f{n}"), &bytes)?;
    }
    same_bytes(&p.read("foreign")?, &foreign);
    std::fs::rename(p.path("f0"), p.path("g"))?;
    refused(std::fs::metadata(p.path("missing")), &[libc::ENOENT]);
    asked(&cloudwatch, 2)?;
    p.mount.unmount()?;
    nothing_refused(&cloudwatch);

    let sum = |name: &str| series(&cloudwatch, &p, name).sum();
    assert_eq!(sum("BytesWritten"), whole(written as u64));
    assert_eq!(sum("BytesRead"), whole(foreign.len() as u64));
    assert_eq!(sum("S3BytesSent"), whole(written as u64) + probed);
    assert_eq!(sum("S3BytesReceived"), whole(p.sim().bytes_of("GetObject")));
    let counts = p.sim().counts();
    let mut all = 0;
    for operation in OPERATIONS {
        let theirs = counts.of(operation) - if operation == "PutObject" { puts_of_others } else { 0 };
        let ours = series_of_operation(&cloudwatch, &p, "S3Requests", operation).sum();
        assert_eq!(ours, whole(theirs), "{operation}: {counts:?}");
        all += theirs;
    }
    assert_eq!(all, counts.total() - puts_of_others, "another operation was used: {counts:?}");
    assert_eq!(sum("S3Requests"), whole(all));
    assert_eq!((sum("S3Errors"), sum("Retries")), (0.0, 0.0));
    let dollars = sum("EstimatedCost");
    let reads = counts.of("GetObject") + counts.of("HeadObject") + counts.of("HeadBucket");
    let writes = all - reads - counts.of("DeleteObject") - counts.of("AbortMultipartUpload");
    let wanted = whole(reads) * 0.0004 / 1000.0 + whole(writes) * 0.005 / 1000.0;
    assert!((dollars - wanted).abs() < 1e-12, "{dollars} and not {wanted}");
    let dirty = series(&cloudwatch, &p, "DirtyBytes");
    assert_eq!(dirty.points.last().map(|it| it.sum), Some(0.0), "everything is in S3 at the end");
    assert!(cloudwatch.points().iter().all(|it| it.namespace == "S3Mount" && it.resolution == 1));
    // The documented policy allows what was called, and no more.
    let called: std::collections::BTreeSet<_> = cloudwatch.received().into_iter().map(|it| it.operation).collect();
    let policy: Value = serde_json::from_str(include_str!("../../../docs/iam/metrics.json"))?;
    let actions: Vec<_> = called.iter().map(|it| Value::from(format!("cloudwatch:{it}"))).collect();
    assert_eq!(policy["Statement"][0]["Action"], Value::Array(actions));
    Ok(())
}

fn percentiles_are_those_that_the_mount_has_itself(c: &Context) -> Outcome {
    let (p, cloudwatch) = exporting(c, Manner::Answers, "1s")?;
    for n in 0..200_u64 {
        p.write(&format!("f{n}"), pattern(n, 5000))?;
    }
    p.mount.settled()?;
    let told = status(&p)?;
    p.mount.unmount()?;
    nothing_refused(&cloudwatch);
    let ours = series(&cloudwatch, &p, "WriteLatency");
    let latency = &told["latencies"]["WriteLatency"];
    assert_eq!(Some(ours.sample_count()), latency["count"].as_f64());
    for (percent, name) in [(50.0, "p50_ms"), (99.0, "p99_ms")] {
        let (ours, theirs) = (ours.percentile(percent).unwrap_or(0.0), latency[name].as_f64().unwrap_or(0.0));
        assert!((ours / theirs - 1.0).abs() < 0.055, "{name}: {ours} and {theirs}");
    }
    let maximum = ours.points.iter().map(|it| it.maximum).fold(0.0, f64::max);
    assert!((maximum - latency["max_ms"].as_f64().unwrap_or(0.0)).abs() < 1e-9, "the longest is exact: {latency}");
    assert!(ours.points.iter().all(|it| it.unit == "Milliseconds"));
    Ok(())
}

fn the_last_interval_is_sent_at_the_end(c: &Context) -> Outcome {
    let (p, cloudwatch) = exporting(c, Manner::Answers, "5m")?;
    p.write("f", pattern(1, 12_345))?;
    p.mount.unmount()?;
    nothing_refused(&cloudwatch);
    assert_eq!(series(&cloudwatch, &p, "BytesWritten").sum(), 12_345.0);
    assert!(cloudwatch.points().iter().all(|it| it.resolution == 60 && (it.timestamp as u64).is_multiple_of(300)));
    Ok(())
}

fn a_missing_permission_is_said_once_and_the_mount_goes_on(c: &Context) -> Outcome {
    let (p, cloudwatch) = exporting(c, Manner::Denies, "1s")?;
    asked(&cloudwatch, 3)?;
    p.write("f", "x")?;
    same_bytes(&p.read("f")?, b"x");
    p.mount.unmount()?;
    let log = p.mount.log_from(0);
    let lines: Vec<_> = log.lines().filter(|line| line.contains("cloudwatch:PutMetricData is not allowed")).collect();
    assert!(lines.len() == 1 && lines[0].contains("IAM policy"), "{log}");
    same_bytes(&p.object("f")?, b"x");
    Ok(())
}

fn a_cloudwatch_that_hangs_disturbs_neither_work_nor_unmount(c: &Context) -> Outcome {
    let (p, cloudwatch) = exporting(c, Manner::Hangs, "1s")?;
    asked(&cloudwatch, 1)?;
    let bytes = pattern(3, 9 * MIB);
    p.write("f", &bytes)?;
    same_bytes(&p.read("f")?, &bytes);
    assert!(p.mount.unmount()?.success(), "metrics are no reason to fail");
    same_bytes(&p.object("f")?, &bytes);
    let log = p.mount.log_from(0);
    assert!(log.contains("the last metrics could not be sent to CloudWatch within 3s"), "{log}");
    Ok(())
}

fn an_outage_loses_nothing_and_each_interval_keeps_its_timestamp(c: &Context) -> Outcome {
    let (p, cloudwatch) = exporting(c, Manner::IsDown, "1s")?;
    let mut written = 0;
    for (round, manner) in [Manner::IsDown, Manner::Throttles, Manner::Resets].into_iter().enumerate() {
        cloudwatch.set(manner);
        let asked_before = cloudwatch.received().len();
        written += 1000;
        p.write(&format!("f{round}"), pattern(1, 1000))?;
        asked(&cloudwatch, asked_before + 1)?;
    }
    assert!(cloudwatch.points().is_empty(), "nothing was taken");
    let back = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH)?.as_secs();
    cloudwatch.set(Manner::Answers);
    p.mount.unmount()?;
    nothing_refused(&cloudwatch);
    let bytes = series(&cloudwatch, &p, "BytesWritten");
    assert_eq!(bytes.sum(), whole(written));
    let seconds = bytes.seconds();
    assert_eq!(seconds.len(), bytes.points.len(), "no interval twice: {seconds:?}");
    assert!(seconds.len() > 2 && seconds[0] < back, "under their own timestamps: {seconds:?}");
    let log = p.mount.log_from(0);
    assert_eq!(log.matches("CloudWatch does not take metrics now").count(), 1, "said once: {log}");
    Ok(())
}

fn credentials_that_cloudwatch_refuses_as_expired_are_loaded_anew(c: &Context) -> Outcome {
    // They hold for hours, as far as the instance says.
    let imds = ImdsStub::start(imds::Manner::Answers, Duration::from_secs(21_600), usize::MAX)?;
    let (p, cloudwatch) = exporting_as(c, imds.mounting(), Manner::Answers, "1s")?;
    asked(&cloudwatch, 1)?;
    let first = cloudwatch.keys();
    cloudwatch.set(Manner::Expires);
    p.write("f", pattern(1, 1000))?;
    if !poll(LONG, || cloudwatch.keys().len() > first.len()) {
        return Err(Failure(format!("no other key than {first:?}: {}", p.mount.log_from(0))));
    }
    p.mount.unmount()?;
    nothing_refused(&cloudwatch);
    assert_eq!(series(&cloudwatch, &p, "BytesWritten").sum(), 1000.0, "what was refused is sent again");
    assert!(cloudwatch.received().iter().any(|it| it.status == 403), "the first key was refused");
    let log = p.mount.log_from(0);
    assert_eq!(log.matches("CloudWatch does not take metrics now").count(), 1, "said once: {log}");
    Ok(())
}

fn the_instance_is_a_dimension_on_request(c: &Context) -> Outcome {
    let imds = ImdsStub::start(imds::Manner::Answers, Duration::from_secs(21_600), usize::MAX)?;
    let mut how = imds.mounting();
    how.options.extend(["--cloudwatch-dimensions", "Bucket,InstanceId"].map(str::to_owned));
    let (p, cloudwatch) = exporting_as(c, how, Manner::Answers, "5m")?;
    p.write("f", pattern(1, 1234))?;
    p.mount.unmount()?;
    nothing_refused(&cloudwatch);
    let dimensions = [("Bucket", bucket_of(&p)), ("InstanceId", "i-0stub")];
    assert_eq!(cloudwatch.series("BytesWritten", &dimensions).sum(), 1234.0, "{:?}", cloudwatch.points().first());
    Ok(())
}

fn a_region_that_nobody_names_is_an_error_and_no_guess(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    let dir = p.mount.home.join("other");
    std::fs::create_dir_all(&dir)?;
    let mut command = p.mount.program();
    command.arg("-f").arg(p.mount.source()).arg(&dir).args(["--endpoint-url", &p.mount.server.endpoint]);
    let output = run(command.arg("--cloudwatch").arg("--state-dir").arg(p.mount.home.join("other state")))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(said.lines().any(|line| line.contains("no region is known for cloudwatch: name a --region")), "{said}");
    Ok(())
}

fn prometheus_is_answered_what_was_counted(c: &Context) -> Outcome {
    let server = c.server()?;
    let bucket = server.new_bucket()?;
    server.sim.as_ref().expect("the simulator").reset_counts();
    let how = Mounting::with(&["--prometheus", "127.0.0.1:0", "--mount-name", NAME]);
    let p = Place::top(Mount::start(&server, &bucket, &how)?);
    p.write("f", pattern(1, 4321))?;
    p.mount.settled()?;
    let log = p.mount.log_from(0);
    let line = log.lines().find(|line| line.contains("numbers for Prometheus")).unwrap_or_default();
    let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
    let mut stream = TcpStream::connect(address).map_err(|error| Failure(format!("{address:?}: {error}: {log}")))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let labels = format!("{{bucket=\"{}\",mount=\"{NAME}\"", bucket_of(&p));
    let puts = p.sim().counts().of("PutObject");
    for line in [
        format!("s3mount_bytes_written_total{labels}}} 4321\n"),
        format!("s3mount_s3_requests_total{labels},operation=\"PutObject\"}} {puts}\n"),
        format!("s3mount_dirty_files{labels}}} 0\n"),
    ] {
        assert!(answer.contains(&line), "{line}in\n{answer}");
    }
    Ok(())
}
