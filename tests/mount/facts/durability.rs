//! Durability: what close and fsync promise, what a killed daemon leaves behind, and where the bytes of a failed upload
//! are.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::disk_cache::Tmpfs;
use crate::harness::mount::text;
use crate::harness::prelude::*;
use crate::harness::sim::Faults;

const MIB: usize = 1 << 20;

pub fn facts() -> Vec<Fact> {
    vec![
        shared!(a_close_that_succeeds_means_that_the_object_is_there).seconds(120),
        shared!(no_upload_is_left_pending).on(S3),
        own!(killed_while_a_new_file_is_uploaded).on(SIM).seconds(180),
        own!(killed_while_an_object_is_replaced).on(SIM).seconds(180),
        own!(killed_while_an_object_is_edited).on(SIM).seconds(180),
        own!(killed_with_files_open_leaves_no_empty_objects),
        own!(a_killed_mount_can_be_mounted_again),
        own!(a_server_that_always_fails_makes_close_fail_and_the_bytes_are_kept).on(SIM).seconds(180),
        own!(a_denied_upload_makes_close_fail_and_the_bytes_are_kept).on(SIM),
        own!(a_failed_fsync_can_be_repeated).on(SIM).seconds(180),
        own!(a_server_that_went_away_makes_close_fail).on(SIM).seconds(180),
        own!(kept_bytes_survive_a_remount).on(SIM).seconds(180),
        own!(where_s3_refuses_and_the_local_disk_is_full_nothing_is_lost_that_was_taken).on(SIM).seconds(180),
    ]
}

/// Fails unless `s3mount recover` lists kept bytes for a name, and exports exactly these.
pub fn is_kept(p: &Place, name: &str, bytes: &[u8]) -> Outcome {
    same_bytes(&kept(p, name, &[])?, bytes);
    Ok(())
}

/// What `s3mount recover` has for a name, exported with these arguments. The last close tries once more and keeps anew, so
/// that what was listed may have got another id meanwhile.
pub fn kept(p: &Place, name: &str, arguments: &[&str]) -> Outcome<Vec<u8>> {
    let state = p.mount.state_dir();
    let recover = |arguments: &[&str]| {
        let mut command = p.mount.program();
        command.arg("recover").args(arguments).arg("--state-dir").arg(&state);
        run(command.args(["--endpoint-url", &p.mount.server.endpoint, "--region", "us-east-1"]))
    };
    // `ID  s3://BUCKET/KEY  SIZE  REASON`
    let ending = format!("/{}", p.key(name));
    let exported = p.mount.home.join("exported");
    let path = exported.to_string_lossy().into_owned();
    let mut said = String::new();
    let found = poll(Duration::from_secs(10), || {
        let Ok(listed) = recover(&["list"]).map(|output| text(&output)) else { return false };
        let mut lines = listed.lines().map(|line| line.split("  ").collect::<Vec<_>>());
        let Some(line) = lines.find(|words| words.len() > 2 && words[1].ends_with(&ending)) else {
            said = format!("{ending} is not listed:\n{listed}");
            return false;
        };
        let _ = std::fs::remove_file(&exported);
        let export = recover(&[&["export", line[0], &path], arguments].concat());
        said = export.as_ref().map(text).unwrap_or_default();
        export.is_ok_and(|output| output.status.success())
    });
    if !found {
        return Err(Failure(format!("`s3mount recover` does not bring it back: {said}")));
    }
    let bytes = std::fs::read(&exported)?;
    std::fs::remove_file(exported)?;
    Ok(bytes)
}

fn a_close_that_succeeds_means_that_the_object_is_there(p: &Place) -> Outcome {
    for (n, len) in [0, 1, 100, 65_536, MIB, 5 * MIB + 3, 8 * MIB, 9 * MIB, 17 * MIB].into_iter().enumerate() {
        for round in 0..3_u64 {
            let bytes = pattern(round * 50 + n as u64, len);
            let mut file = p.create(&format!("{n}"))?;
            for piece in bytes.chunks(300_000) {
                file.write_all(piece)?;
            }
            sys::close(file)?;
            same_bytes(&p.object(&format!("{n}"))?, &bytes);
        }
    }
    Ok(())
}

fn no_upload_is_left_pending(p: &Place) -> Outcome {
    p.write("f", pattern(1, 20 * MIB))?;
    p.write("f", pattern(2, 20 * MIB))?;
    let pending = p.mount.bucket.pending_uploads()?;
    assert!(!pending.contains(&p.key("f")), "{pending:?}");
    Ok(())
}

/// Kills the daemon while `write` is under way, a little later in each round, and looks at what S3 has then.
fn killed_during(c: &Context, write: fn(&Place) -> std::io::Result<()>, look: fn(&Place) -> Outcome) -> Outcome {
    let p = c.mount(&[])?;
    for round in 0..6_u32 {
        p.sim().set(&Faults::default());
        p.foreign_put("f", pattern(1, 24 * MIB))?;
        // Slow enough that the upload is under way when the kill comes: 24 MiB at 20 MB/s a connection.
        p.sim().set(&Faults { bytes_per_second: 20_000_000, first_byte_milliseconds: 5, ..Faults::default() });
        let began = AtomicBool::new(false);
        // A child that is being started would close a copy of the writer's descriptor, and so publish half of the file.
        let quiet = quiet();
        thread::scope(|scope| -> Outcome {
            scope.spawn(|| {
                began.store(true, Ordering::SeqCst);
                // Whether it succeeds is not the question.
                let _ = write(&p);
            });
            assert!(poll(Duration::from_secs(5), || began.load(Ordering::SeqCst)));
            // Not a wait for something: the moments of the kill are spread over the upload.
            thread::sleep(Duration::from_millis(40) * round * round);
            p.mount.end_by(libc::SIGKILL).map(drop)
        })?;
        drop(quiet);
        p.mount.take_away();
        p.sim().set(&Faults::default());
        look(&p)?;
        p.mount.start_again()?;
        look(&p)?;
    }
    Ok(())
}

fn killed_while_a_new_file_is_uploaded(c: &Context) -> Outcome {
    killed_during(
        c,
        |p| {
            let _ = std::fs::remove_file(p.path("new"));
            p.write("new", pattern(2, 24 * MIB)).map(drop)
        },
        |p| {
            if let Some(found) = p.mount.bucket.get("new")? {
                same_bytes(&found, &pattern(2, 24 * MIB));
            }
            Ok(())
        },
    )
}

fn killed_while_an_object_is_replaced(c: &Context) -> Outcome {
    killed_during(
        c,
        |p| p.write("f", pattern(2, 30 * MIB)).map(drop),
        |p| {
            let found = p.object("f")?;
            let wanted = if found.len() == 24 * MIB { pattern(1, 24 * MIB) } else { pattern(2, 30 * MIB) };
            same_bytes(&found, &wanted);
            Ok(())
        },
    )
}

fn killed_while_an_object_is_edited(c: &Context) -> Outcome {
    killed_during(
        c,
        |p| {
            let file = File::options().write(true).open(p.path("f"))?;
            file.write_all_at(&pattern(3, 9 * MIB), MIB as u64)?;
            file.write_all_at(b"end", 24 * MIB as u64)?;
            sys::close(file)
        },
        |p| {
            let mut old = pattern(1, 24 * MIB);
            let found = p.object("f")?;
            if found.len() > old.len() {
                old[MIB..10 * MIB].copy_from_slice(&pattern(3, 9 * MIB));
                old.extend(b"end");
            }
            same_bytes(&found, &old);
            Ok(())
        },
    )
}

fn killed_with_files_open_leaves_no_empty_objects(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.foreign_put("old", "stays as it was")?;
    let quiet = quiet();
    let mut files = Vec::new();
    for n in 0..5 {
        let mut file = p.create(&format!("new {n}"))?;
        file.write_all(&pattern(n, 10_000))?;
        files.push(file);
    }
    let mut old = File::options().write(true).truncate(true).open(p.path("old"))?;
    old.write_all(b"half")?;
    p.mount.end_by(libc::SIGKILL)?;
    drop((files, old, quiet));
    assert_eq!(p.keys()?, ["old"]);
    same_bytes(&p.object("old")?, b"stays as it was");
    Ok(())
}

fn a_killed_mount_can_be_mounted_again(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.write("f", "content")?;
    p.mount.kill()?;
    p.mount.start_again()?;
    same_bytes(&p.read("f")?, b"content");
    p.write("g", "more")?;
    same_bytes(&p.object("g")?, b"more");
    Ok(())
}

fn a_server_that_always_fails_makes_close_fail_and_the_bytes_are_kept(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.write("f", "old")?;
    p.sim().set(&Faults { slow_down: 1.0, ..Faults::default() });
    let mut file = File::options().write(true).truncate(true).open(p.path("f"))?;
    file.write_all(b"new bytes")?;
    refused(sys::close(file), &[libc::EIO]);
    p.mount.settled()?;
    p.sim().set(&Faults::default());
    same_bytes(&p.object("f")?, b"old");
    is_kept(&p, "f", b"new bytes")
}

fn a_denied_upload_makes_close_fail_and_the_bytes_are_kept(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.names("")?;
    p.sim().set(&Faults { denied: &["PutObject", "CreateMultipartUpload"], ..Faults::default() });
    let mut file = p.create("f")?;
    file.write_all(b"not allowed")?;
    refused(sys::close(file), &[libc::EACCES]);
    p.mount.settled()?;
    p.sim().set(&Faults::default());
    assert!(!p.has_object("f")?);
    is_kept(&p, "f", b"not allowed")
}

fn a_failed_fsync_can_be_repeated(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.names("")?;
    let mut file = p.create("f")?;
    file.write_all(b"patience")?;
    p.sim().set(&Faults { denied: &["PutObject"], ..Faults::default() });
    refused(file.sync_all(), &[libc::EACCES, libc::EIO]);
    p.sim().set(&Faults::default());
    file.sync_all()?;
    same_bytes(&p.object("f")?, b"patience");
    sys::close(file)?;
    Ok(())
}

fn a_server_that_went_away_makes_close_fail(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.names("")?;
    let mut file = p.create("f")?;
    file.write_all(b"nobody listens")?;
    p.sim().set(&Faults { reset: 1.0, ..Faults::default() });
    refused(sys::close(file), &[libc::EIO]);
    p.mount.settled()?;
    p.sim().set(&Faults::default());
    is_kept(&p, "f", b"nobody listens")
}

fn kept_bytes_survive_a_remount(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.names("")?;
    p.sim().set(&Faults { denied: &["PutObject"], ..Faults::default() });
    let mut file = p.create("f")?;
    file.write_all(b"to be recovered")?;
    assert!(sys::close(file).is_err());
    p.mount.settled()?;
    p.sim().set(&Faults::default());
    is_kept(&p, "f", b"to be recovered")?;
    p.mount.remount()?;
    is_kept(&p, "f", b"to be recovered")
}

fn where_s3_refuses_and_the_local_disk_is_full_nothing_is_lost_that_was_taken(c: &Context) -> Outcome {
    let p = c.mount(&["--memory-limit", "64MiB"])?;
    p.mount.unmount()?;
    let Some(_full) = Tmpfs::over(&p.mount.state_dir(), "12m")? else { return skip("mounting a tmpfs needs root") };
    p.mount.start_again()?;
    p.names("")?;
    p.sim().set(&Faults { denied: &["PutObject", "CreateMultipartUpload"], ..Faults::default() });
    let mut taken = Vec::new();
    let refusal = loop {
        let (name, bytes) = (format!("f{}", taken.len()), pattern(taken.len() as u64, 700_000));
        let mut file = p.create(&name)?;
        let outcome = file.write_all(&bytes);
        refused(sys::close(file), &[libc::EACCES]);
        match outcome {
            Ok(()) => taken.push((name, bytes)),
            Err(error) => break error,
        }
        assert!(taken.len() < 200, "there is no bound");
    };
    assert_eq!(refusal.raw_os_error(), Some(libc::ENOSPC), "{refusal}");
    // The journal has what fits, and the rest is here.
    let mut status = serde_json::Value::Null;
    let settled = poll(Duration::from_secs(10), || {
        let said = p.mount.run(&["status", "--json", p.dir.to_str().unwrap_or_default()]);
        status = said.ok().and_then(|said| serde_json::from_slice(&said.stdout).ok()).unwrap_or_default();
        status["dirty_files"].is_u64() && status["dirty_files"] == status["unkept_files"]
    });
    assert!(settled, "{status}");
    let unkept = status["unkept"].as_array().cloned().unwrap_or_default();
    let is_here = |name: &str| unkept.iter().any(|file| file["key"].as_str().is_some_and(|key| key.ends_with(name)));
    let here = taken.iter().filter(|(name, _)| is_here(name)).collect::<Vec<_>>();
    assert!(here.len() > 8 && here.len() + 8 < taken.len(), "{} of {} are here", here.len(), taken.len());
    for (name, bytes) in &here {
        same_bytes(&p.read(name)?, bytes);
    }
    p.sim().set(&Faults::default());
    p.mount.unmount()?;
    for (name, bytes) in &taken {
        if p.has_object(name)? {
            same_bytes(&p.object(name)?, bytes);
        } else {
            is_kept(&p, name, bytes)?;
        }
    }
    Ok(())
}
