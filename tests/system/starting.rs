//! A daemon in the background and who called it: paths, descriptors, values that cannot be meant, and its log.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use s3sim::shaping::{Config, Faults};

use super::bed::{BUCKET, Bed, hold, is_mounted, run, text, until};
use super::{Fact, Shown};

pub const FACTS: &[Fact] = &[
    ("starting::paths_are_those_of_the_caller", paths_are_those_of_the_caller),
    ("starting::a_daemon_keeps_no_descriptor_of_its_caller", a_daemon_keeps_no_descriptor_of_its_caller),
    ("starting::what_cannot_be_meant_is_one_line", what_cannot_be_meant_is_one_line),
    ("starting::keys_that_end_in_a_newline_are_used_without_it", keys_that_end_in_a_newline_are_used_without_it),
    ("starting::sighup_opens_the_log_anew", sighup_opens_the_log_anew),
    ("starting::warnings_that_repeat_are_counted", warnings_that_repeat_are_counted),
];

/// A mount in the background; unmounted when dropped.
struct Mounted<'a>(&'a Bed);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let dir = self.0.path("mnt");
        if is_mounted(&dir) {
            let _ = run(self.0.s3mount().arg("unmount").arg(&dir));
        }
        if is_mounted(&dir) {
            let _ = Command::new("fusermount3").arg("-uz").arg(&dir).status();
        }
    }
}

impl Mounted<'_> {
    /// Who serves it.
    fn pid(&self) -> Result<Pid, String> {
        let told = run(self.0.s3mount().args(["status", "--json"]).arg(self.0.path("mnt")))?;
        let status: serde_json::Value =
            serde_json::from_slice(&told.stdout).map_err(|e| format!("{e}: {}", text(&told)))?;
        let pid = status["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        pid.map(Pid::from_raw).ok_or_else(|| format!("no pid: {status}"))
    }
}

/// Runs a command that mounts in the background on `mnt` of the scratch directory.
fn background<'a>(bed: &'a Bed, command: &mut Command) -> Result<Mounted<'a>, String> {
    // The terminal of a daemon is not ours to keep: what it prints before it is ready goes to a file.
    let said = fs::File::create(bed.path("said")).map_err(|e| e.to_string())?;
    let status = command.stdout(Stdio::null()).stderr(said).status().map_err(|e| e.to_string())?;
    let mounted = Mounted(bed);
    let said = fs::read_to_string(bed.path("said")).unwrap_or_default();
    hold(status.success() && is_mounted(&bed.path("mnt")), "it mounts", &format!("{status}: {said}"))?;
    Ok(mounted)
}

fn paths_are_those_of_the_caller() -> Shown {
    let bed = Bed::new()?;
    let write = |name: &str, text: &str| fs::write(bed.path(name), text).map_err(|e| e.to_string());
    write("rel.cred", "[default]\naws_access_key_id = key-of-the-file\naws_secret_access_key = secret\n")?;
    write("rel.conf", "[default]\nregion = eu-west-3\n")?;
    let prices = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/metrics/prices.toml");
    let mut command = bed.s3mount();
    command.current_dir(bed.scratch()).env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    command.env("AWS_SHARED_CREDENTIALS_FILE", "./rel.cred").env("AWS_CONFIG_FILE", "rel.conf");
    command.args([BUCKET, "mnt", "--endpoint-url", bed.sim.url(), "--cache-dir", "./cache", "--cache-size", "64MiB"]);
    command.args(["--log-file", "rel.log", "--state-dir", "rel-state"]);
    if prices.exists() {
        fs::copy(&prices, bed.path("prices.toml")).map_err(|e| e.to_string())?;
        command.args(["--price-table", "prices.toml"]);
    }
    let mounted = background(&bed, &mut command)?;
    let log = fs::read_to_string(bed.path("rel.log")).unwrap_or_default();
    hold(log.contains("key-of-the-file"), "the log and the credentials are where they were named", &log)?;
    hold(bed.path("cache").is_dir() && bed.path("rel-state").is_dir(), "so are cache and state", &log)?;
    // The directory of the caller is left when the mount answers: it may be unmounted, too.
    let at = fs::read_link(format!("/proc/{}/cwd", mounted.pid()?)).map_err(|e| e.to_string())?;
    hold(at == Path::new("/"), "the daemon is at the root", &at.display())?;
    Ok(None)
}

fn a_daemon_keeps_no_descriptor_of_its_caller() -> Shown {
    let bed = Bed::new()?;
    let mut command = bed.command("bash");
    command.args(["-c", "exec 7>\"$0\"; flock 7; \"$@\""]).arg(bed.path("lock")).arg(env!("CARGO_BIN_EXE_s3mount"));
    let mounted = background(&bed, command.arg(BUCKET).arg(bed.path("mnt")).args(bed.reach()))?;
    let held = fs::read_dir(format!("/proc/{}/fd", mounted.pid()?)).map_err(|e| e.to_string())?;
    let held: Vec<String> = held
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .map(|target| target.display().to_string())
        .filter(|target| target.starts_with(&*bed.path("lock").to_string_lossy()))
        .collect();
    hold(held.is_empty(), "the lock is not the daemon's", &held.join(", "))?;
    let locked = run(bed.command("flock").arg("-n").arg(bed.path("lock")).arg("true"))?;
    hold(locked.status.success(), "the lock is free when its shell has ended", &text(&locked))?;
    Ok(None)
}

/// Arguments, variables, exit status, and what is said.
type Case = (&'static [&'static str], &'static [(&'static str, &'static str)], i32, &'static str);

fn what_cannot_be_meant_is_one_line() -> Shown {
    let bed = Bed::new()?;
    let region: &'static [&'static str] = &["--region", "eu\nwest"];
    let limit: &'static [&'static str] = &["--max-concurrency", "18446744073709551615"];
    let time: &'static [&'static str] = &["--metadata-ttl", "150000000000000d"];
    let memory: &'static [&'static str] = &["--memory-limit", "17179869183GiB"];
    let cases: [Case; 8] = [
        (region, &[], 1, "is no region such as eu-west-1"),
        (&[], &[("AWS_REGION", "eu west 1")], 1, "is no region such as eu-west-1"),
        (limit, &[], 1, "bad value for max-concurrency: 18446744073709551615 is not between 1 and"),
        (time, &[], 1, "bad value for metadata-ttl"),
        (memory, &[], 1, "bad value for memory-limit"),
        (&[], &[("AWS_ACCESS_KEY_ID", "ke\ny")], 32, "the access key ID of the environment"),
        (&[], &[("AWS_SECRET_ACCESS_KEY", "sec ret")], 32, "the secret access key of the environment"),
        (&[], &[("AWS_SESSION_TOKEN", "to\u{1}ken")], 32, "the session token of the environment"),
    ];
    for (arguments, environment, code, words) in cases {
        for foreground in [false, true] {
            let mut command = bed.s3mount();
            command.arg(BUCKET).arg(bed.path("mnt")).args(["--endpoint-url", bed.sim.url(), "--state-dir"]);
            command.arg(bed.path("state")).env("AWS_REGION", "us-east-1").args(arguments);
            command.envs(environment.iter().copied()).args(foreground.then_some("-f"));
            let refused = run(command.args(["--log-level", "error"]))?;
            let said = text(&refused);
            hold(
                refused.status.code() == Some(code) && said.contains(words),
                words,
                &format!("{}: {said}", refused.status),
            )?;
            hold(said.lines().count() == 1 && !said.contains("panicked"), "it is one line", &said)?;
        }
    }
    Ok(None)
}

fn keys_that_end_in_a_newline_are_used_without_it() -> Shown {
    let bed = Bed::new()?;
    let mut command = bed.s3mount();
    command.env("AWS_ACCESS_KEY_ID", "key-of-a-secret\n").env("AWS_SECRET_ACCESS_KEY", "secret\n");
    let _mounted = background(&bed, command.arg(BUCKET).arg(bed.path("mnt")).args(bed.reach()))?;
    let signed = bed.sim.log().into_iter().all(|request| request.access_key.as_deref() == Some("key-of-a-secret"));
    hold(signed, "requests are signed with the key", &format!("{:?}", bed.sim.log()))?;
    Ok(None)
}

fn sighup_opens_the_log_anew() -> Shown {
    let bed = Bed::new()?;
    let (log, moved) = (bed.path("s3mount.log"), bed.path("s3mount.log.1"));
    let mut command = bed.s3mount();
    command.arg(BUCKET).arg(bed.path("mnt")).args(bed.reach()).arg("--log-file").arg(&log);
    let mounted = background(&bed, &mut command)?;
    let daemon = mounted.pid()?;
    fs::rename(&log, &moved).map_err(|e| e.to_string())?;
    kill(daemon, Signal::SIGHUP).map_err(|e| e.to_string())?;
    let words = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    until("the log is made anew", || words(&log).contains("opened anew at SIGHUP"))?;
    hold(words(&moved).contains("mounted"), "what was said stays", &words(&moved))?;
    fs::write(bed.path("mnt").join("file"), "still there").map_err(|e| e.to_string())?;
    hold(bed.object("file").as_deref() == Some(b"still there"), "the mount goes on", &words(&log))?;
    Ok(None)
}

fn warnings_that_repeat_are_counted() -> Shown {
    const OPENS: usize = 300;
    let bed = Bed::new()?;
    let log = bed.path("s3mount.log");
    let mut command = bed.s3mount();
    command.arg(BUCKET).arg(bed.path("mnt")).args(bed.reach()).arg("--log-file").arg(&log);
    let mounted = background(&bed, &mut command)?;
    let daemon = mounted.pid()?;
    fs::write(bed.path("mnt").join("file"), "x").map_err(|e| e.to_string())?;
    let denied = vec!["GetObject".to_owned(), "HeadObject".to_owned()];
    bed.sim.set(Config { faults: Faults { denied, ..Faults::default() }, ..Config::default() });
    let failed = (0..OPENS).filter(|_| fs::File::open(bed.path("mnt").join("file")).is_err()).count();
    hold(failed == OPENS, "every open fails", &failed)?;
    bed.sim.set(Config::default());
    drop(mounted);
    until("the daemon ends", || {
        std::thread::sleep(Duration::from_millis(50));
        kill(daemon, None).is_err()
    })?;
    let said = fs::read_to_string(&log).unwrap_or_default();
    let (told, others): (Vec<&str>, Vec<&str>) =
        said.lines().filter(|line| line.contains("WARN")).partition(|line| line.contains("were left out: "));
    let failures = others.iter().filter(|line| line.contains("operation failed")).count();
    let left_out: usize = told
        .iter()
        .filter_map(|line| line.split(" more lines").next()?.rsplit(' ').next()?.parse::<usize>().ok())
        .sum();
    hold(
        failures < 100 && failures + left_out == OPENS,
        "each is written or counted",
        &format!("{failures} and {left_out}: {said}"),
    )?;
    Ok(None)
}
