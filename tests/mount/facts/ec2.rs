//! At home on an instance: what the metadata service says is used, what it does wrong is told in a line, and credentials
//! are renewed under load.

use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::harness::imds::{ImdsStub, Manner, MetadataMock, without_keys};
use crate::harness::mount::Mounting;
use crate::harness::prelude::*;
use crate::harness::s3::ACCESS_KEY;
use crate::harness::sim::Faults;

const MIB: usize = 1 << 20;
/// Credentials of this age are far from being renewed.
const LONG: Duration = Duration::from_secs(21_600);

pub fn facts() -> Vec<Fact> {
    let facts = vec![
        own!(a_long_upload_and_a_long_read_live_through_renewals).seconds(180),
        own!(expired_credentials_are_loaded_anew_and_the_request_is_repeated),
        own!(credentials_that_stay_expired_are_told_in_a_line),
        own!(keys_that_are_renewed_in_their_file_are_seen),
        own!(a_profile_that_is_not_there_is_refused_in_a_line),
        own!(an_object_encrypted_with_sse_c_is_told_and_costs_no_renewals),
        own!(a_metadata_service_that_hangs_is_told_and_the_mount_works),
        own!(without_credentials_the_hanging_service_is_the_cause),
        own!(a_hop_limit_of_one_is_told_with_its_remedy),
        own!(a_clock_twenty_minutes_off_is_told_and_the_mount_works),
        own!(the_instance_sets_what_the_user_did_not),
        own!(the_mock_of_aws_is_understood),
        own!(a_spot_notice_publishes_what_is_open),
        own!(a_disabled_service_is_not_asked),
    ];
    facts.into_iter().map(|fact| fact.on(SIM)).collect()
}

/// Why a mount did not come to be.
fn refusal(c: &Context, how: &Mounting) -> String {
    match c.mount_as(how) {
        Ok(_) => panic!("it mounts"),
        Err(failure) => failure.0,
    }
}

fn a_long_upload_and_a_long_read_live_through_renewals(c: &Context) -> Outcome {
    let imds = ImdsStub::start(Manner::Answers, Duration::from_secs(8), usize::MAX)?;
    let p = c.mount_as(&imds.mounting())?;
    let bytes = pattern(1, 48 * MIB);
    p.foreign_put("read", &bytes)?;
    p.sim().reset_counts();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| -> Outcome {
        // As S3 does: a key that has expired is refused from that moment on.
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let faults = Faults { expired_keys: imds.expired(), bytes_per_second: 500_000, ..Faults::default() };
                p.sim().set(&faults);
                thread::sleep(Duration::from_millis(50));
            }
        });
        let work = || -> Outcome {
            let mut file = p.create("written")?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            same_bytes(&p.read("read")?, &bytes);
            // Over at least three lives of a key.
            if !poll(Duration::from_secs(60), || imds.expired().len() >= 3) {
                return Err(Failure("keys do not expire".into()));
            }
            p.write("small", "after renewals")?;
            Ok(())
        };
        let outcome = work();
        is_over.store(true, Ordering::Relaxed);
        outcome
    })?;
    p.sim().set(&Faults::default());
    same_bytes(&p.object("written")?, &bytes);
    let used = p.sim().access_keys();
    let renewed = used.iter().filter(|key| key.starts_with("ASIASTUB")).count();
    assert!(renewed >= 3, "{used:?}");
    assert!(!p.mount.log_from(0).contains("no longer taken"), "{}", p.mount.log_from(0));
    Ok(())
}

fn expired_credentials_are_loaded_anew_and_the_request_is_repeated(c: &Context) -> Outcome {
    let imds = ImdsStub::start(Manner::Answers, LONG, usize::MAX)?;
    let p = c.mount_as(&imds.mounting())?;
    p.write("before", "x")?;
    // What was loaded within the last second is not loaded again.
    thread::sleep(Duration::from_millis(1100));
    let first = imds.keys();
    p.sim().set(&Faults { expired_keys: first.clone(), ..Faults::default() });
    p.write("after", "y")?;
    same_bytes(&p.read("before")?, b"x");
    same_bytes(&p.object("after")?, b"y");
    assert!(imds.keys().len() > first.len());
    Ok(())
}

fn credentials_that_stay_expired_are_told_in_a_line(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    let mut file = p.create("f")?;
    file.write_all(b"kept")?;
    p.sim().reset_counts();
    p.sim().set(&Faults { expired_keys: vec![ACCESS_KEY.into()], ..Faults::default() });
    refused(file.sync_all(), &[libc::EIO]);
    let log = p.mount.log_from(0);
    assert!(log.lines().any(|line| line.contains("ExpiredToken") && line.contains("log in again")), "{log}");
    // The first try and one more.
    assert_eq!(p.sim().counts().of("PutObject"), 2);
    p.sim().set(&Faults::default());
    file.sync_all()?;
    same_bytes(&p.object("f")?, b"kept");
    Ok(())
}

/// A mount whose keys are in files of its own.
fn with_files(keys: &std::path::Path) -> Mounting {
    Mounting::default()
        .variable("AWS_ACCESS_KEY_ID", None)
        .variable("AWS_SECRET_ACCESS_KEY", None)
        .variable("AWS_SHARED_CREDENTIALS_FILE", keys.to_str())
        .variable("AWS_CONFIG_FILE", Some("/dev/null"))
}

fn profile(name: &str, key: &str) -> String {
    format!("[{name}]\naws_access_key_id = {key}\naws_secret_access_key = secret\naws_session_token = session\n")
}

fn keys_that_are_renewed_in_their_file_are_seen(c: &Context) -> Outcome {
    let home = tempfile::tempdir()?;
    let keys = home.path().join("credentials");
    let refusals = [
        Faults { expired_keys: vec!["ASIAFIRST".into()], ..Faults::default() },
        Faults { unknown_keys: vec!["ASIAFIRST".into()], ..Faults::default() },
    ];
    for (key, refusal) in ["ASIASECOND", "ASIATHIRD"].into_iter().zip(refusals) {
        std::fs::write(&keys, profile("default", "ASIAFIRST"))?;
        let p = c.mount_as(&with_files(&keys))?;
        p.write("before", "x")?;
        // What was loaded within the last second is not loaded again.
        thread::sleep(Duration::from_millis(1100));
        std::fs::write(&keys, profile("default", key))?;
        p.sim().set(&refusal);
        p.write(key, "y")?;
        same_bytes(&p.object(key)?, b"y");
        assert!(p.sim().access_keys().contains(key), "{:?}", p.sim().access_keys());
    }
    Ok(())
}

fn a_profile_that_is_not_there_is_refused_in_a_line(c: &Context) -> Outcome {
    let home = tempfile::tempdir()?;
    let keys = home.path().join("credentials");
    std::fs::write(&keys, profile("work", "ASIAWORK"))?;
    // There is another identity to be had, which must not be taken.
    let imds = ImdsStub::start(Manner::Answers, LONG, 1)?;
    let files = with_files(&keys)
        .variable("AWS_EC2_METADATA_DISABLED", None)
        .variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", Some(&imds.endpoint));
    let named = |name: &str| Mounting { options: vec!["--profile".into(), name.into()], ..files.clone() };
    let p = c.mount_as(&named("work"))?;
    p.write("f", "x")?;
    assert!(imds.keys().is_empty());
    for how in [named("wrok"), files.clone().variable("AWS_PROFILE", Some("wrok"))] {
        let said = refusal(c, &how);
        let line = said.lines().find(|line| line.contains("\"wrok\"")).unwrap_or_default();
        assert!(line.contains("is in none of the AWS configuration files"), "{said}");
    }
    assert!(imds.keys().is_empty());
    Ok(())
}

fn an_object_encrypted_with_sse_c_is_told_and_costs_no_renewals(c: &Context) -> Outcome {
    let imds = ImdsStub::start(Manner::Answers, LONG, usize::MAX)?;
    let p = c.mount_as(&imds.mounting())?;
    p.sim().set(&Faults { customer_encrypted: vec!["f".into()], ..Faults::default() });
    let first = imds.keys().len();
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(1100));
        refused(std::fs::metadata(p.path("f")), &[libc::EIO]);
    }
    assert_eq!(imds.keys().len(), first + 1);
    let log = p.mount.log_from(0);
    assert!(log.lines().any(|line| line.contains("encrypted with SSE-C")), "{log}");
    Ok(())
}

fn a_metadata_service_that_hangs_is_told_and_the_mount_works(c: &Context) -> Outcome {
    let imds = ImdsStub::start(Manner::Hangs, LONG, 1)?;
    let how = Mounting::default()
        .variable("AWS_EC2_METADATA_DISABLED", None)
        .variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", Some(&imds.endpoint));
    let p = c.mount_as(&how)?;
    p.write("f", "x")?;
    let log = p.mount.log_from(0);
    assert!(log.lines().any(|line| line.contains("metadata service") && line.contains("hangs")), "{log}");
    // Once, for all that is asked of it.
    assert_eq!(imds.asked("/latest/api/token"), 1);
    Ok(())
}

fn without_credentials_the_hanging_service_is_the_cause(c: &Context) -> Outcome {
    let imds = ImdsStub::start(Manner::Hangs, LONG, 1)?;
    let said = refusal(c, &imds.mounting());
    let line = said.lines().find(|line| line.contains("no usable credentials")).unwrap_or_default();
    assert!(line.contains("metadata service") && line.contains("hangs"), "{said}");
    assert_eq!(imds.asked("/latest/api/token"), 1);
    Ok(())
}

fn a_hop_limit_of_one_is_told_with_its_remedy(c: &Context) -> Outcome {
    let imds = ImdsStub::start(Manner::LosesTokens, LONG, 1)?;
    let said = refusal(c, &imds.mounting());
    let line = said.lines().find(|line| line.contains("no usable credentials")).unwrap_or_default();
    assert!(line.contains("--http-put-response-hop-limit 2"), "{said}");
    Ok(())
}

fn a_clock_twenty_minutes_off_is_told_and_the_mount_works(c: &Context) -> Outcome {
    for ahead in [1200, -1200] {
        let p = c.mount(&[])?;
        p.sim().set(&Faults { clock_ahead_seconds: ahead, ..Faults::default() });
        p.write("f", "x")?;
        p.write("g", pattern(1, 20 * MIB))?;
        same_bytes(&p.read("f")?, b"x");
        // A mount that begins with such a clock, too.
        p.mount.remount()?;
        same_bytes(&p.read("g")?, &pattern(1, 20 * MIB));
        let log = p.mount.log_from(0);
        assert!(log.lines().any(|line| line.contains("the clock of this machine is wrong")), "{log}");
        assert!(log.contains("169.254.169.123"), "{log}");
    }
    Ok(())
}

fn the_instance_sets_what_the_user_did_not(c: &Context) -> Outcome {
    let imds = ImdsStub::start(Manner::Answers, LONG, 1)?;
    let p = c.mount_as(&imds.mounting())?;
    let log = p.mount.log_from(0);
    // r6in.8xlarge: 50 Gbit/s.
    assert!(log.contains("uploads=105"), "{log}");
    assert!(log.contains("i-0stub"), "{log}");
    let said = Mounting { options: vec!["--max-concurrency".into(), "7".into()], ..imds.mounting() };
    let p = c.mount_as(&said)?;
    assert!(p.mount.log_from(0).contains("uploads=7"), "{}", p.mount.log_from(0));
    Ok(())
}

fn the_mock_of_aws_is_understood(c: &Context) -> Outcome {
    let program = match MetadataMock::program() {
        Ok(program) => program,
        Err(reason) => return skip(&reason),
    };
    let mock = MetadataMock::start(&program, &[], "{}")?;
    let p = c.mount_as(&without_keys(&mock.endpoint))?;
    p.write("f", "x")?;
    same_bytes(&p.object("f")?, b"x");
    let log = p.mount.log_from(0);
    assert!(log.contains("i-1234567890abcdef0") && log.contains("m4.xlarge"), "{log}");
    assert!(log.contains("source=\"the instance's role\""), "{log}");
    Ok(())
}

fn a_spot_notice_publishes_what_is_open(c: &Context) -> Outcome {
    let program = match MetadataMock::program() {
        Ok(program) => program,
        Err(reason) => return skip(&reason),
    };
    let at = humantime::format_rfc3339_seconds(SystemTime::now() + Duration::from_secs(40)).to_string();
    let spot = r#"{"metadata": {"values": {"instance-life-cycle": "spot"}}}"#;
    let mock = MetadataMock::start(&program, &["spot", "--time", &at, "--mock-delay-sec", "2"], spot)?;
    let p = c.mount_as(&without_keys(&mock.endpoint))?;
    let mut open = p.create("open")?;
    open.write_all(b"never closed")?;
    // What is open is in S3 long before the end, while the mount still serves.
    let is_told = || p.mount.log_from(0).contains("takes this spot instance away (terminate)");
    let is_uploaded = || p.object("open").is_ok_and(|bytes| bytes == b"never closed");
    assert!(poll(Duration::from_secs(30), || is_told() && is_uploaded()), "{}", p.mount.log_from(0));
    let later = p.write("later", "still served");
    // The daemon ends by itself; signal 0 asks whether it lives.
    let status = p.mount.end_by(libc::SIGCONT)?;
    assert!(status.success(), "{status}");
    assert!(!p.mount.is_mounted());
    same_bytes(&p.object("open")?, b"never closed");
    if later.is_ok() {
        same_bytes(&p.object("later")?, b"still served");
    }
    drop(open);
    Ok(())
}

fn a_disabled_service_is_not_asked(c: &Context) -> Outcome {
    let imds = ImdsStub::start(Manner::Answers, LONG, 1)?;
    let how = Mounting::default().variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", Some(&imds.endpoint));
    let p = c.mount_as(&how)?;
    let file = File::create(p.path("f"))?;
    drop(file);
    assert_eq!(imds.asked("/latest/api/token"), 0);
    Ok(())
}
