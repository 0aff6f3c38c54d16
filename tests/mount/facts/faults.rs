//! A server and a network that misbehave: the bytes are right all the same, or the call says that it failed.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};

use crate::harness::prelude::*;
use crate::harness::sim::Faults;

const MIB: usize = 1 << 20;

pub fn facts() -> Vec<Fact> {
    let facts = vec![
        own!(throttled_requests_are_repeated),
        own!(broken_connections_are_repeated),
        own!(truncated_bodies_are_completed),
        own!(stalled_bodies_are_asked_for_again),
        own!(writes_that_happened_behind_a_503_are_no_conflict),
        own!(slow_first_bytes_change_nothing),
        own!(everything_at_once),
        own!(a_denied_read_is_a_permission_error),
        own!(a_denied_listing_is_a_permission_error),
        own!(a_denied_delete_is_told_and_the_file_stays),
        own!(ignored_conditions_do_not_break_writing),
        own!(a_bucket_with_versions_has_the_right_current_objects),
    ];
    facts.into_iter().map(|fact| fact.on(SIM).seconds(180)).collect()
}

/// Writes, reads, lists, renames and removes under faults, and compares all of it.
fn work_under(c: &Context, faults: &Faults) -> Outcome {
    let p = c.mount(&[])?;
    let large = pattern(1, 24 * MIB);
    p.foreign_put("large", &large)?;
    p.sim().set(faults);
    for n in 0..25_u64 {
        p.write(&format!("{n}"), pattern(n, 20_000))?;
    }
    p.write("written", &large)?;
    same_bytes(&p.read("large")?, &large);
    fs::create_dir(p.path("d"))?;
    for n in 0..10_u64 {
        fs::rename(p.path(format!("{n}")), p.path(format!("d/{n}")))?;
        same_bytes(&p.read(&format!("d/{n}"))?, &pattern(n, 20_000));
    }
    fs::rename(p.path("d"), p.path("e"))?;
    for n in 20..25 {
        fs::remove_file(p.path(format!("{n}")))?;
    }
    assert_eq!(p.names("e")?.len(), 10);
    p.sim().set(&Faults::default());
    for n in 0..10_u64 {
        same_bytes(&p.object(&format!("e/{n}"))?, &pattern(n, 20_000));
    }
    for n in 10..20_u64 {
        same_bytes(&p.object(&format!("{n}"))?, &pattern(n, 20_000));
    }
    same_bytes(&p.object("written")?, &large);
    let keys = p.keys()?;
    assert_eq!(keys.iter().filter(|key| !key.ends_with('/')).count(), 22, "{keys:?}");
    Ok(())
}

fn throttled_requests_are_repeated(c: &Context) -> Outcome {
    work_under(c, &Faults { slow_down: 0.05, ..Faults::default() })
}

fn broken_connections_are_repeated(c: &Context) -> Outcome {
    work_under(c, &Faults { reset: 0.05, ..Faults::default() })
}

fn truncated_bodies_are_completed(c: &Context) -> Outcome {
    work_under(c, &Faults { truncate: 0.2, ..Faults::default() })
}

fn stalled_bodies_are_asked_for_again(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    let bytes = pattern(2, 20 * MIB);
    p.foreign_put("f", &bytes)?;
    p.sim().set(&Faults { stall: 0.1, ..Faults::default() });
    same_bytes(&p.read("f")?, &bytes);
    Ok(())
}

fn writes_that_happened_behind_a_503_are_no_conflict(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.sim().throttle_after_effect("PutObject");
    let mut exclusive = File::options().write(true).create_new(true).open(p.path("small"))?;
    exclusive.write_all(b"mine")?;
    exclusive.sync_all()?;
    drop(exclusive);
    same_bytes(&p.object("small")?, b"mine");
    let large = pattern(1, 20 << 20);
    p.sim().throttle_after_effect("CompleteMultipartUpload");
    p.write("large", &large)?;
    same_bytes(&p.object("large")?, &large);
    Ok(())
}

fn slow_first_bytes_change_nothing(c: &Context) -> Outcome {
    work_under(c, &Faults { first_byte_milliseconds: 15, ..Faults::default() })
}

fn everything_at_once(c: &Context) -> Outcome {
    work_under(
        c,
        &Faults { slow_down: 0.03, reset: 0.02, truncate: 0.03, first_byte_milliseconds: 2, ..Faults::default() },
    )
}

fn a_denied_read_is_a_permission_error(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.foreign_put("f", "x")?;
    p.names("")?;
    p.sim().set(&Faults { denied: &["GetObject"], ..Faults::default() });
    refused(p.read("f"), &[libc::EACCES]);
    p.sim().set(&Faults::default());
    same_bytes(&p.read("f")?, b"x");
    Ok(())
}

fn a_denied_listing_is_a_permission_error(c: &Context) -> Outcome {
    let p = c.mount(&["--metadata-ttl", "0"])?;
    p.foreign_put("d/f", "x")?;
    assert!(p.path("d").is_dir());
    p.sim().set(&Faults { denied: &["ListObjectsV2"], ..Faults::default() });
    refused(p.names("d"), &[libc::EACCES]);
    p.sim().set(&Faults::default());
    assert_eq!(p.names("d")?, ["f"]);
    Ok(())
}

fn a_denied_delete_is_told_and_the_file_stays(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.foreign_put("f", "x")?;
    p.names("")?;
    p.sim().set(&Faults { denied: &["DeleteObject", "DeleteObjects"], ..Faults::default() });
    refused(fs::remove_file(p.path("f")), &[libc::EACCES]);
    p.sim().set(&Faults::default());
    same_bytes(&p.read("f")?, b"x");
    assert_eq!(p.names("")?, ["f"]);
    Ok(())
}

fn ignored_conditions_do_not_break_writing(c: &Context) -> Outcome {
    work_under(c, &Faults { ignore_conditions: true, ..Faults::default() })
}

fn a_bucket_with_versions_has_the_right_current_objects(c: &Context) -> Outcome {
    let faults = Faults { versioned: true, ..Faults::default() };
    work_under(c, &faults)?;
    let p = c.mount(&[])?;
    p.sim().set(&faults);
    let mut large = pattern(2, 24 * MIB);
    p.write("f", &large)?;
    // Whole again, in parts with copies of the old ones, and by another client between two opens.
    for round in 0..3_u8 {
        let mut file = fs::File::options().write(true).open(p.path("f"))?;
        large[9 * MIB] = round;
        file.seek(SeekFrom::Start(9 * MIB as u64))?;
        file.write_all(&[round])?;
        sys::close(file)?;
        same_bytes(&p.object("f")?, &large);
        p.write("small", [round; 100])?;
        same_bytes(&p.object("small")?, &[round; 100]);
        p.foreign_put_unseen("small", [round + 100; 50])?;
        same_bytes(&p.read("small")?, &[round + 100; 50]);
    }
    fs::remove_file(p.path("small"))?;
    assert!(!p.has_object("small")?);
    // Made anew under a name whose latest version is a marker.
    fs::rename(p.path("f"), p.path("small"))?;
    fs::OpenOptions::new().append(true).open(p.path("small"))?.write_all(b"more")?;
    large.extend_from_slice(b"more");
    same_bytes(&p.read("small")?, &large);
    same_bytes(&p.object("small")?, &large);
    assert_eq!(p.keys()?, ["small"]);
    p.sim().set(&Faults::default());
    Ok(())
}
