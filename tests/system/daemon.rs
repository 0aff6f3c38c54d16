//! The daemon under systemd: what it says on the notify socket and when, how signals end it, how it logs.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use s3sim::shaping::{Config, FirstByte};

use super::bed::{BUCKET, Bed, Daemon, hold, is_mounted, run, text, until};
use super::{Fact, Shown};

pub const FACTS: &[Fact] = &[
    ("daemon::systemd_is_told_in_order", systemd_is_told_in_order),
    ("daemon::a_start_that_finishes_a_rename_asks_for_more_time", a_start_that_finishes_a_rename_asks_for_more_time),
    ("daemon::a_mount_that_does_not_answer_is_not_reported_alive", a_mount_that_does_not_answer_is_not_reported_alive),
    ("daemon::the_second_sigterm_keeps_what_is_not_uploaded", the_second_sigterm_keeps_what_is_not_uploaded),
    (
        "daemon::what_neither_s3_nor_the_journal_took_is_told_to_systemd",
        what_neither_s3_nor_the_journal_took_is_told_to_systemd,
    ),
    ("daemon::sigusr2_raises_the_level_and_brings_it_back", sigusr2_raises_the_level_and_brings_it_back),
    ("daemon::the_journal_gets_priorities_and_no_times", the_journal_gets_priorities_and_no_times),
    ("daemon::a_file_named_by_config_is_what_is_mounted", a_file_named_by_config_is_what_is_mounted),
];

/// A socket in systemd's place.
struct Listener(UnixDatagram);

impl Listener {
    fn at(path: &Path) -> Result<Self, String> {
        let socket = UnixDatagram::bind(path).map_err(|e| e.to_string())?;
        socket.set_read_timeout(Some(Duration::from_secs(60))).map_err(|e| e.to_string())?;
        Ok(Self(socket))
    }

    /// The next message.
    fn next(&self) -> Result<String, String> {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).map_err(|e| format!("nothing is said: {e}"))?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// What has come and was not read, without waiting.
    fn empty(&self) -> String {
        let mut said = String::new();
        let mut buffer = [0; 4096];
        let _ = self.0.set_nonblocking(true);
        while let Ok(length) = self.0.recv(&mut buffer) {
            said.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        let _ = self.0.set_nonblocking(false);
        said
    }

    /// The next message with a word in it.
    fn until(&self, word: &str) -> Result<String, String> {
        loop {
            let said = self.next()?;
            if said.contains(word) {
                return Ok(said);
            }
        }
    }
}

/// A mount in the foreground, with these further arguments and variables.
fn start(bed: &Bed, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Daemon, String> {
    let log = File::create(bed.path("log")).map_err(|e| e.to_string())?;
    let dir = bed.path("mnt");
    let mut command = bed.s3mount();
    command.args(["-f", BUCKET]).arg(&dir).args(bed.reach()).args(arguments).envs(environment.iter().copied());
    Daemon::start(command.stdout(Stdio::null()).stderr(log), &dir)
}

fn log(bed: &Bed) -> String {
    fs::read_to_string(bed.path("log")).unwrap_or_default()
}

/// Requests that put something take so many milliseconds.
fn slow_puts(bed: &Bed, milliseconds: f64) {
    let first_byte_ms = FirstByte { put: milliseconds, ..FirstByte::default() };
    bed.sim.set(Config { first_byte_ms, ..Config::default() });
}

fn systemd_is_told_in_order() -> Shown {
    let bed = Bed::new()?;
    let path = bed.path("notify");
    let systemd = Listener::at(&path)?;
    let socket = path.display().to_string();
    let mut daemon = start(&bed, &[], &[("NOTIFY_SOCKET", &socket), ("WATCHDOG_USEC", "400000")])?;
    let ready = systemd.next()?;
    hold(ready.contains("READY=1") && ready.contains("STATUS=data on "), "READY=1 is the first word", &ready)?;
    hold(is_mounted(&bed.path("mnt")), "it is mounted then", &ready)?;
    let ping = systemd.next()?;
    hold(ping.trim() == "WATCHDOG=1", "then the watchdog is pinged", &ping)?;
    // Open, so that its bytes are still to be uploaded at the end.
    let file = File::create(bed.path("mnt").join("file")).map_err(|e| e.to_string())?;
    std::io::Write::write_all(&mut &file, b"still open").map_err(|e| e.to_string())?;
    slow_puts(&bed, 5000.0);
    daemon.signal(Signal::SIGTERM)?;
    let stopping = systemd.until("STOPPING=1")?;
    hold(stopping.contains("EXTEND_TIMEOUT_USEC="), "time is asked for at once", &stopping)?;
    let draining = systemd.next()?;
    hold(draining.contains("EXTEND_TIMEOUT_USEC="), "more time is asked for while it goes on", &draining)?;
    hold(draining.contains("STATUS=uploading"), "what is left is told", &draining)?;
    let status = daemon.ended()?;
    hold(status.success(), "it ends well", &format!("{status}: {}", log(&bed)))?;
    hold(bed.object("file").as_deref() == Some(b"still open"), "everything is in S3", &log(&bed))?;
    Ok(None)
}

fn a_start_that_finishes_a_rename_asks_for_more_time() -> Shown {
    const FILES: u64 = 30;
    let bed = Bed::new()?;
    let dir = bed.path("mnt");
    let mut daemon = start(&bed, &[], &[])?;
    fs::create_dir(dir.join("old")).map_err(|e| e.to_string())?;
    for n in 0..FILES {
        fs::write(dir.join(format!("old/{n}")), "x").map_err(|e| e.to_string())?;
    }
    bed.sim.reset();
    // Copies and deletions take their time, so that the daemon can be killed between the two.
    let first_byte_ms = FirstByte { default: 4000.0, ..FirstByte::default() };
    bed.sim.set(Config { first_byte_ms, ..Config::default() });
    let (from, to) = (dir.join("old"), dir.join("new"));
    let renaming = std::thread::spawn(move || fs::rename(from, to));
    until("all is copied", || bed.sim.counters().requests.get("CopyObject").is_some_and(|&copies| copies >= FILES))?;
    // The intent to delete is written down at once, and the deletion takes four seconds.
    std::thread::sleep(Duration::from_millis(1000));
    daemon.signal(Signal::SIGKILL)?;
    daemon.ended()?;
    let _ = renaming.join();
    // A dead mount is replaced.
    let path = bed.path("notify");
    let systemd = Listener::at(&path)?;
    let socket = path.display().to_string();
    let daemon = start(&bed, &[], &[("NOTIFY_SOCKET", &socket)]);
    let said = systemd.next()?;
    hold(said.contains("EXTEND_TIMEOUT_USEC=") && !said.contains("READY"), "time is asked for before READY=1", &said)?;
    hold(said.contains("STATUS=finishing what an earlier process left"), "it is said what for", &said)?;
    systemd.until("READY=1")?;
    let mut daemon = daemon?;
    let gone = bed.object("old/0").is_none() && bed.object("new/0").is_some();
    hold(gone, "the rename is finished then", &log(&bed))?;
    daemon.signal(Signal::SIGTERM)?;
    daemon.ended()?;
    Ok(None)
}

fn a_mount_that_does_not_answer_is_not_reported_alive() -> Shown {
    if !nix::unistd::geteuid().is_root() {
        return Ok(Some("binding a mount needs root".into()));
    }
    let bed = Bed::new()?;
    // A mount whose daemon is dead, to be put where the living one is asked.
    let (dead_dir, dir) = (bed.path("dead"), bed.path("mnt"));
    fs::create_dir(&dead_dir).map_err(|e| e.to_string())?;
    let mut dead = Daemon::start(bed.s3mount().args(["-f", BUCKET]).arg(&dead_dir).args(bed.reach()), &dead_dir)?;
    dead.signal(Signal::SIGKILL)?;
    dead.ended()?;
    let path = bed.path("notify");
    let systemd = Listener::at(&path)?;
    let socket = path.display().to_string();
    let mut daemon = start(&bed, &[], &[("NOTIFY_SOCKET", &socket), ("WATCHDOG_USEC", "100000")])?;
    systemd.until("WATCHDOG=1")?;
    let unanswered = || log(&bed).matches("systemd is not pinged").count();
    let bound = mount(Some(&dead_dir), &dir, None::<&str>, MsFlags::MS_BIND, None::<&str>);
    let shown = bound.map_err(|e| e.to_string()).and_then(|()| {
        until("it is noticed", || unanswered() >= 2)?;
        systemd.empty();
        until("it is noticed again", || unanswered() >= 6)
    });
    let said = systemd.empty();
    let lifted = umount2(&dir, MntFlags::MNT_DETACH).and_then(|()| umount2(&dead_dir, MntFlags::MNT_DETACH));
    shown?;
    lifted.map_err(|e| e.to_string())?;
    hold(!said.contains("WATCHDOG"), "no ping", &said)?;
    systemd.until("WATCHDOG=1")?;
    daemon.signal(Signal::SIGTERM)?;
    daemon.ended()?;
    Ok(None)
}

fn the_second_sigterm_keeps_what_is_not_uploaded() -> Shown {
    let bed = Bed::new()?;
    let mut daemon = start(&bed, &[], &[])?;
    let file = File::create(bed.path("mnt").join("file")).map_err(|e| e.to_string())?;
    std::io::Write::write_all(&mut &file, b"never uploaded").map_err(|e| e.to_string())?;
    slow_puts(&bed, 50_000.0);
    daemon.signal(Signal::SIGTERM)?;
    until("the first one is heard", || log(&bed).contains("a signal ends the mount"))?;
    daemon.signal(Signal::SIGTERM)?;
    let status = daemon.ended()?;
    hold(!status.success(), "the end says that something is left", &status)?;
    bed.sim.set(Config::default());
    let listed = text(&run(bed.s3mount().args(["recover", "list", "--state-dir"]).arg(bed.path("state")))?);
    let Some(id) = listed.lines().find(|line| line.contains("s3://data/file")).and_then(|line| line.split(' ').next())
    else {
        return Err(format!("it is not kept: {listed}\n{}", log(&bed)));
    };
    let pushed = run(bed.s3mount().args(["recover", "push", id]).args(bed.reach()))?;
    hold(pushed.status.success(), "it can be pushed", &text(&pushed))?;
    hold(bed.object("file").as_deref() == Some(b"never uploaded"), "it is what was written", &text(&pushed))?;
    Ok(None)
}

fn what_neither_s3_nor_the_journal_took_is_told_to_systemd() -> Shown {
    let bed = Bed::new()?;
    let path = bed.path("notify");
    let systemd = Listener::at(&path)?;
    let socket = path.display().to_string();
    let mut daemon = start(&bed, &[], &[("NOTIFY_SOCKET", &socket)])?;
    let denied = vec!["PutObject".to_owned()];
    bed.sim.set(Config { faults: s3sim::shaping::Faults { denied, ..Default::default() }, ..Config::default() });
    for entry in fs::read_dir(bed.path("state")).map_err(|e| e.to_string())? {
        // Nothing can be put where a file is in the way.
        let kept = entry.map_err(|e| e.to_string())?.path().join("kept");
        if fs::remove_dir(&kept).is_ok() {
            fs::write(&kept, "").map_err(|e| e.to_string())?;
        }
    }
    let _denied = fs::write(bed.path("mnt").join("file"), "nobody takes it");
    systemd.until("STATUS=1 files are neither in S3 nor in the journal")?;
    daemon.signal(Signal::SIGTERM)?;
    systemd.until("STOPPING=1")?;
    systemd.until(", 1 files neither in S3 nor in the journal")?;
    systemd.until("STATUS=1 files are lost, which neither S3 nor the journal took")?;
    let status = daemon.ended()?;
    hold(status.code() == Some(2), "the end says it", &format!("{status}: {}", log(&bed)))?;
    let lines = log(&bed).lines().filter(|line| line.contains("lost: file: not in S3 (")).count();
    hold(lines == 1, "it is named in a line", &log(&bed))?;
    Ok(None)
}

fn sigusr2_raises_the_level_and_brings_it_back() -> Shown {
    let bed = Bed::new()?;
    let daemon = start(&bed, &["--log-level", "warn", "--log-format", "json"], &[])?;
    let changes = || log(&bed).matches("s3mount=debug").count();
    daemon.signal(Signal::SIGUSR2)?;
    until("the level is raised", || changes() == 1)?;
    daemon.signal(Signal::SIGUSR2)?;
    // At the level of warnings the second change is not told; the third is.
    until("the level is back and raised again", || {
        std::thread::sleep(Duration::from_millis(50));
        let _ = daemon.signal(Signal::SIGUSR2);
        changes() >= 2
    })?;
    for line in log(&bed).lines() {
        let record: serde_json::Value = serde_json::from_str(line).map_err(|e| format!("{e}: {line}"))?;
        let whole = ["timestamp", "level", "target"].iter().all(|key| record[key].is_string());
        hold(whole && record["fields"]["message"].is_string(), "each line is a record", &line)?;
    }
    Ok(None)
}

fn the_journal_gets_priorities_and_no_times() -> Shown {
    use std::os::unix::fs::MetadataExt;
    let bed = Bed::new()?;
    // The log of `start` is what stderr will be.
    File::create(bed.path("log")).map_err(|e| e.to_string())?;
    let it = fs::metadata(bed.path("log")).map_err(|e| e.to_string())?;
    let stream = format!("{}:{}", it.dev(), it.ino());
    let mut daemon = start(&bed, &[], &[("JOURNAL_STREAM", &stream)])?;
    until("it says that it is mounted", || log(&bed).contains("mounted"))?;
    daemon.signal(Signal::SIGTERM)?;
    daemon.ended()?;
    let said = log(&bed);
    hold(said.lines().all(|line| line.starts_with('<')), "each line has a priority", &said)?;
    hold(said.contains("<6>s3mount::lifecycle::run: mounted"), "and no time", &said)?;
    Ok(None)
}

fn a_file_named_by_config_is_what_is_mounted() -> Shown {
    let bed = Bed::new()?;
    let dir = bed.path("mnt");
    let file = bed.path("data.toml");
    let words = format!(
        "source = \"s3://data/prefix\"\ndir = {dir:?}\nendpoint-url = {:?}\nregion = \"us-east-1\"\nstate-dir = {:?}\n",
        bed.sim.url(),
        bed.path("state")
    );
    fs::write(&file, &words).map_err(|e| e.to_string())?;
    let mut daemon = Daemon::start(bed.s3mount().arg("--foreground").arg("--config").arg(&file), &dir)?;
    fs::write(dir.join("file"), "hello").map_err(|e| e.to_string())?;
    daemon.signal(Signal::SIGTERM)?;
    daemon.ended()?;
    hold(bed.object("prefix/file").is_some(), "the file's prefix is mounted", &words)?;
    fs::write(&file, format!("{words}regoin = \"x\"\n")).map_err(|e| e.to_string())?;
    let refused = run(bed.s3mount().arg("--config").arg(&file))?;
    let wanted = format!("{}:6: unknown option \"regoin\"; did you mean \"region\"?", file.display());
    hold(refused.status.code() == Some(1) && text(&refused).contains(&wanted), &wanted, &text(&refused))?;
    Ok(None)
}
