//! What is refused and how: read-only mounts, archived objects, absurd sizes, prefixes, and mounts that cannot be.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Output;

use crate::harness::mount::{Mounting, program, text};
use crate::harness::prelude::*;
use crate::harness::s3::{Bucket, block_on};

pub fn facts() -> Vec<Fact> {
    vec![
        own!(a_read_only_mount_refuses_every_change),
        own!(with_direct_io_nothing_stays_in_the_page_cache).on(SIM),
        own!(an_archived_object_is_a_permission_error).on(&[Kind::S3sim, Kind::Moto]),
        own!(a_moved_object_keeps_its_storage_class).on(&[Kind::S3sim, Kind::Moto]),
        shared!(sizes_over_the_largest_object_are_refused).on(S3),
        own!(a_prefix_is_a_world_of_its_own),
        own!(a_prefix_that_holds_nothing_is_an_empty_mount),
        own!(a_bucket_that_is_not_there_is_told),
        own!(a_folder_that_is_not_there_is_told),
        own!(a_file_is_no_place_to_mount).on(SIM),
        own!(an_unknown_option_is_told_with_the_nearest).on(SIM),
        own!(an_endpoint_that_does_not_answer_is_told).on(SIM),
        own!(a_place_that_is_mounted_is_refused).on(SIM),
    ]
}

fn a_read_only_mount_refuses_every_change(c: &Context) -> Outcome {
    let p = c.mount(&["--read-only"])?;
    p.foreign_put("f", "x")?;
    p.foreign_put("d/g", "x")?;
    same_bytes(&p.read("f")?, b"x");
    assert_eq!(p.names("d")?, ["g"]);
    let erofs = &[libc::EROFS];
    refused(p.write("new", "x"), erofs);
    refused(File::options().write(true).open(p.path("f")), erofs);
    refused(sys::truncate(&p.path("f"), 0), erofs);
    refused(fs::create_dir(p.path("e")), erofs);
    refused(fs::remove_file(p.path("f")), erofs);
    refused(fs::remove_dir(p.path("d")), erofs);
    refused(fs::rename(p.path("f"), p.path("h")), erofs);
    refused(sys::set_times(&p.path("f"), (0, 0), (0, 0)), erofs);
    assert_eq!(p.keys()?, ["d/g", "f"]);
    Ok(())
}

fn with_direct_io_nothing_stays_in_the_page_cache(c: &Context) -> Outcome {
    let bytes = pattern(3, 1 << 20);
    {
        let p = c.mount(&["-o", "direct_io"])?;
        p.foreign_put("f", bytes.clone())?;
        same_bytes(&p.read("f")?, &bytes);
        assert_eq!(sys::cached_pages(&File::open(p.path("f"))?, bytes.len())?, 0);
        let file = File::options().read(true).write(true).open(p.path("f"))?;
        file.write_all_at(b"changed", 70_000)?;
        let mut seen = [0; 7];
        file.read_exact_at(&mut seen, 70_000)?;
        assert_eq!(&seen, b"changed");
        drop(file);
        same_bytes(&p.object("f")?[70_000..70_007], b"changed");
    }
    let p = c.mount(&[])?;
    p.foreign_put("g", bytes.clone())?;
    same_bytes(&p.read("g")?, &bytes);
    assert!(sys::cached_pages(&File::open(p.path("g"))?, bytes.len())? > 0);
    Ok(())
}

fn an_archived_object_is_a_permission_error(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    let Bucket::S3 { client, name } = &p.mount.bucket else { return skip("needs a bucket") };
    let class = aws_sdk_s3::types::StorageClass::Glacier;
    let body = aws_sdk_s3::primitives::ByteStream::from_static(b"frozen");
    block_on(client.put_object().bucket(name).key("cold").storage_class(class).body(body).send())?;
    assert_eq!(fs::metadata(p.path("cold"))?.len(), 6);
    refused(p.read("cold"), &[libc::EACCES]);
    assert!(p.mount.log_from(0).to_lowercase().contains("archived"), "the log does not say why");
    Ok(())
}

fn a_moved_object_keeps_its_storage_class(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    let Bucket::S3 { client, name } = &p.mount.bucket else { return skip("needs a bucket") };
    let class_of = |key: &str| -> Outcome<Option<String>> {
        let head = block_on(client.head_object().bucket(name).key(key).send())?;
        Ok(head.storage_class().map(|class| class.as_str().to_owned()))
    };
    for key in ["f", "d/g", "large"] {
        let class = aws_sdk_s3::types::StorageClass::StandardIa;
        let body = aws_sdk_s3::primitives::ByteStream::from_static(b"seldom read");
        block_on(client.put_object().bucket(name).key(key).storage_class(class).body(body).send())?;
    }
    // Over one PUT: what its own publishing in parts has told is what is moved then.
    p.write("large", pattern(1, 9 << 20))?;
    // The second move goes by what the first has told.
    for (from, to) in [("f", "f2"), ("f2", "f3"), ("d", "d2"), ("large", "large2")] {
        fs::rename(p.path(from), p.path(to))?;
    }
    for key in ["f3", "d2/g", "large2"] {
        assert_eq!(class_of(key)?.as_deref(), Some("STANDARD_IA"), "{key}");
    }
    Ok(())
}

fn sizes_over_the_largest_object_are_refused(p: &Place) -> Outcome {
    p.write("f", "x")?;
    // 50 TB is the largest object of S3.
    refused(sys::truncate(&p.path("f"), 60_000_000_000_000), &[libc::EFBIG]);
    let file = File::options().write(true).open(p.path("f"))?;
    refused(file.write_at(b"y", 60_000_000_000_000), &[libc::EFBIG]);
    sys::close(file)?;
    same_bytes(&p.object("f")?, b"x");
    Ok(())
}

fn a_prefix_is_a_world_of_its_own(c: &Context) -> Outcome {
    let server = c.server()?;
    let bucket = server.new_bucket()?;
    for key in ["a/b/f", "a/bc", "a/x", "top"] {
        bucket.put(key, key.as_bytes())?;
    }
    let how = Mounting { prefix: "a/b".into(), ..Mounting::default() };
    let mut p = Place::top(crate::harness::mount::Mount::start(&server, &bucket, &how)?);
    p.prefix = "a/b/".into();
    assert_eq!(p.names("")?, ["f"]);
    p.write("g", "inside")?;
    fs::create_dir(p.path("d"))?;
    p.write("d/h", "deeper")?;
    fs::rename(p.path("d"), p.path("e"))?;
    same_bytes(&p.object("g")?, b"inside");
    same_bytes(&bucket.get("a/b/e/h")?.unwrap_or_default(), b"deeper");
    fs::remove_dir_all(p.path("e"))?;
    let keys: Vec<_> = bucket.list("")?.into_keys().collect();
    assert_eq!(keys, ["a/b/f", "a/b/g", "a/bc", "a/x", "top"]);
    Ok(())
}

fn a_prefix_that_holds_nothing_is_an_empty_mount(c: &Context) -> Outcome {
    let p = c.mount_as(&Mounting { prefix: "not/yet".into(), ..Mounting::default() })?;
    assert_eq!(p.names("")?, Vec::<String>::new());
    p.write("f", "first")?;
    same_bytes(&p.mount.bucket.get("not/yet/f")?.unwrap_or_default(), b"first");
    Ok(())
}

/// Runs the program in the foreground where it must fail: what it printed is one line with a cause, nothing is mounted.
fn fails(endpoint: &str, bucket: &str, dir: &std::path::Path, more: &[&str]) -> Outcome<Output> {
    let home = tempfile::tempdir()?;
    let mut command = program(home.path());
    command.arg("-f").arg(bucket).arg(dir).args(["--endpoint-url", endpoint, "--region", "us-east-1"]).args(more);
    let output = run(&mut command)?;
    assert!(!output.status.success(), "it succeeded: {}", text(&output));
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!complaint.trim().is_empty(), "it says nothing");
    assert!(!complaint.contains("panicked"), "{complaint}");
    Ok(output)
}

fn a_bucket_that_is_not_there_is_told(c: &Context) -> Outcome {
    let dir = tempfile::tempdir()?;
    let output = fails(&c.server()?.endpoint, "no-such-bucket-here", dir.path(), &[])?;
    assert!(text(&output).contains("no-such-bucket-here"), "{}", text(&output));
    assert_eq!(output.status.code(), Some(32), "{}", text(&output));
    Ok(())
}

fn a_folder_that_is_not_there_is_told(c: &Context) -> Outcome {
    let dir = tempfile::tempdir()?;
    let output = fails(&c.server()?.endpoint, "any-bucket", &dir.path().join("not-there"), &[])?;
    assert!(text(&output).contains("not-there"), "{}", text(&output));
    Ok(())
}

fn a_file_is_no_place_to_mount(c: &Context) -> Outcome {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("file"), "x")?;
    let output = fails(&c.server()?.endpoint, "any-bucket", &dir.path().join("file"), &[])?;
    assert!(text(&output).contains("director"), "{}", text(&output));
    Ok(())
}

fn an_unknown_option_is_told_with_the_nearest(c: &Context) -> Outcome {
    let dir = tempfile::tempdir()?;
    let output = fails(&c.server()?.endpoint, "any-bucket", dir.path(), &["--metadata-tll", "5"])?;
    assert!(text(&output).contains("--metadata-ttl"), "{}", text(&output));
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    Ok(())
}

fn an_endpoint_that_does_not_answer_is_told(_: &Context) -> Outcome {
    let dir = tempfile::tempdir()?;
    // Port 9 of the loopback: nobody listens.
    let output = fails("http://127.0.0.1:9", "any-bucket", dir.path(), &[])?;
    assert!(text(&output).contains("127.0.0.1:9"), "{}", text(&output));
    assert_eq!(output.status.code(), Some(32), "{}", text(&output));
    Ok(())
}

fn a_place_that_is_mounted_is_refused(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.write("f", "x")?;
    fails(&p.mount.server.endpoint, &p.mount.source(), &p.dir, &[])?;
    same_bytes(&p.read("f")?, b"x");
    Ok(())
}
