//! What the mount counts of its requests, and what it says they cost, against what the simulator saw.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::harness::mount::text;
use crate::harness::place::checked;
use crate::harness::prelude::*;
use crate::harness::sim::Faults;

const MIB: usize = 1 << 20;

pub fn facts() -> Vec<Fact> {
    let facts = vec![
        own!(requests_are_counted_as_the_server_counts_them_under_faults).seconds(180),
        own!(late_reads_are_sent_twice_and_each_request_is_counted),
        own!(dollars_are_the_price_table_applied_to_the_log_of_the_server),
        own!(a_mount_over_its_budget_says_so_and_goes_on),
        own!(a_bad_price_table_is_refused_in_one_line),
        own!(status_tells_each_dirty_file_and_its_upload),
        own!(the_status_socket_is_for_its_owner_alone),
        own!(top_without_a_terminal_names_status),
        own!(top_restores_the_terminal_at_a_signal_and_ends_when_it_hangs_up),
    ];
    facts.into_iter().map(|fact| fact.on(SIM)).collect()
}

/// The answer of `s3mount status --json`.
fn status(p: &Place) -> Outcome<Value> {
    let output = p.mount.run(&["status", "--json", &p.mount.dir.to_string_lossy()])?;
    Ok(serde_json::from_str(&checked(&output)?)?)
}

/// The same without a child, which would close its copies of our descriptors.
fn asked(socket: &std::path::Path) -> Outcome<Value> {
    use std::io::{BufRead, BufReader, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
    stream.write_all(b"status\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// The socket of a mount; it is made a moment after the mount answers.
fn socket(p: &Place) -> Outcome<std::path::PathBuf> {
    let device = std::os::unix::fs::MetadataExt::dev(&fs::metadata(&p.mount.dir)?);
    let name = format!("{}-{}.sock", libc::major(device), libc::minor(device));
    let places = [std::path::PathBuf::from("/run/s3mount"), p.mount.home.join("s3mount")];
    let mut found = None;
    poll(std::time::Duration::from_secs(20), || {
        found = places.iter().map(|dir| dir.join(&name)).find(|path| path.exists());
        found.is_some()
    });
    found.ok_or_else(|| Failure(format!("no socket {name} in {places:?}")))
}

/// What the mount counted since `before`, kinds without requests left out.
fn counted(before: &Value, now: &Value) -> BTreeMap<String, u64> {
    let table = now["requests"].as_object().expect("the status has requests");
    let since = |name: &str, n: &Value| n.as_u64().unwrap_or(0) - before["requests"][name].as_u64().unwrap_or(0);
    table.iter().map(|(name, n)| (name.clone(), since(name, n))).filter(|(_, n)| *n > 0).collect()
}

/// Both sides have come to rest: nothing is dirty, and the server has answered what it was asked.
fn at_rest(p: &Place) -> Outcome {
    p.mount.settled()?;
    let mut before = p.sim().counts().total();
    let rested = poll(std::time::Duration::from_secs(30), || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let now = p.sim().counts().total();
        std::mem::replace(&mut before, now) == now
    });
    if rested { Ok(()) } else { Err(Failure("requests go on and on".into())) }
}

/// Reading, writing, renaming and removing of all sizes.
fn work(p: &Place) -> Outcome {
    for n in 0..12_u64 {
        // Faults may reach the application where retries do not mend them; what counts is what was counted.
        let name = format!("small {n}");
        let _ = p.write(&name, pattern(n, 40_000));
        let _ = p.read(&name);
        let _ = fs::rename(p.path(&name), p.path(format!("renamed {n}")));
        let _ = fs::remove_file(p.path(format!("renamed {n}")));
    }
    let _ = p.write("large", pattern(7, 40 * MIB));
    let _ = p.read("large");
    let _ = p.read("huge");
    let _ = p.names("");
    Ok(())
}

fn requests_are_counted_as_the_server_counts_them_under_faults(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.synthetic("huge", 64 << 20)?;
    at_rest(&p)?;
    let before = status(&p)?;
    p.sim().reset_counts();
    p.sim().set(&Faults { slow_down: 0.1, reset: 0.1, truncate: 0.1, ..Faults::default() });
    work(&p)?;
    at_rest(&p)?;
    p.sim().set(&Faults::default());
    let now = status(&p)?;
    let (ours, theirs) = (counted(&before, &now), p.sim().counts());
    for (kind, n) in &ours {
        assert_eq!(*n, theirs.of(kind), "{kind}: ours {ours:?}, the server's {theirs:?}");
    }
    assert_eq!(ours.values().sum::<u64>(), theirs.total(), "ours {ours:?}, the server's {theirs:?}");
    assert!(now["retries"].as_u64().unwrap_or(0) > 0, "the faults did not bite");
    Ok(())
}

fn late_reads_are_sent_twice_and_each_request_is_counted(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    for n in 0..100_u64 {
        p.foreign_put(&format!("f{n}"), pattern(n, 3000))?;
    }
    at_rest(&p)?;
    let before = status(&p)?;
    p.sim().reset_counts();
    // What is late is known by what was in time.
    for n in 0..90_u64 {
        same_bytes(&p.read(&format!("f{n}"))?, &pattern(n, 3000));
    }
    let first_byte_milliseconds = 400;
    p.sim().set(&Faults { first_byte_milliseconds, ..Faults::default() });
    for n in 90..93_u64 {
        same_bytes(&p.read(&format!("f{n}"))?, &pattern(n, 3000));
    }
    p.sim().set(&Faults::default());
    at_rest(&p)?;
    let now = status(&p)?;
    let (ours, theirs) = (counted(&before, &now), p.sim().counts());
    assert!((1..=3).contains(&now["hedges"].as_u64().unwrap_or(0)), "{now}");
    assert_eq!(ours.get("GetObject"), Some(&(93 + now["hedges"].as_u64().unwrap_or(0))), "{ours:?}");
    for (kind, n) in &ours {
        assert_eq!(*n, theirs.of(kind), "{kind}: ours {ours:?}, the server's {theirs:?}");
    }
    assert_eq!(ours.values().sum::<u64>(), theirs.total(), "ours {ours:?}, the server's {theirs:?}");
    Ok(())
}

fn dollars_are_the_price_table_applied_to_the_log_of_the_server(c: &Context) -> Outcome {
    let folder = tempfile::tempdir()?;
    let table = folder.path().join("prices.toml");
    fs::write(
        &table,
        "dated = \"2030-01\"\nregion = \"test\"\n[requests]\nwrite_usd_per_1000 = 7.0\nread_usd_per_1000 = 3.0\n\
         delete_usd_per_1000 = 1.0\n",
    )?;
    let p = c.mount(&["--price-table", &table.to_string_lossy()])?;
    at_rest(&p)?;
    let before = status(&p)?;
    p.sim().reset_counts();
    p.sim().set(&Faults { slow_down: 0.15, ..Faults::default() });
    p.write("a", pattern(1, 20 * MIB))?;
    same_bytes(&p.read("a")?, &pattern(1, 20 * MIB));
    fs::remove_file(p.path("a"))?;
    p.names("")?;
    at_rest(&p)?;
    p.sim().set(&Faults::default());
    let now = status(&p)?;
    let wanted: f64 = p.sim().log().iter().map(|operation| price(operation)).sum();
    let told = now["cost"]["usd"].as_f64().unwrap_or(0.0) - before["cost"]["usd"].as_f64().unwrap_or(0.0);
    assert!((told - wanted).abs() < 1e-9, "told {told}, the log costs {wanted}");
    assert!(wanted > 0.02, "{wanted}");
    assert_eq!((&now["cost"]["prices_dated"], &now["cost"]["prices_region"]), (&"2030-01".into(), &"test".into()));
    Ok(())
}

/// What the table of the fact above asks for a request.
fn price(operation: &str) -> f64 {
    match operation {
        "GetObject" | "HeadObject" | "HeadBucket" => 0.003,
        "DeleteObject" | "DeleteObjects" | "AbortMultipartUpload" => 0.001,
        _ => 0.007,
    }
}

fn a_mount_over_its_budget_says_so_and_goes_on(c: &Context) -> Outcome {
    let p = c.mount(&["--budget-usd-per-hour", "0.0001"])?;
    for n in 0..20_u64 {
        p.write(&format!("f{n}"), pattern(n, 1000))?;
    }
    let mut told = Value::Null;
    let is_over = poll(std::time::Duration::from_secs(20), || {
        told = status(&p).unwrap_or_default();
        told["cost"]["over_budget"] == true && told["cost"]["read_ahead_divisor"].as_u64() > Some(1)
    });
    assert!(is_over, "{told}");
    assert_eq!(told["cost"]["budget_usd_per_hour"], 0.0001);
    assert!(told["cost"]["usd_per_hour"].as_f64() > Some(0.0001), "{told}");
    assert_eq!(p.mount.log_from(0).matches("over budget").count(), 1, "{}", p.mount.log_from(0));
    p.synthetic("huge", 48 << 20)?;
    assert_eq!(p.read("huge")?.len(), 48 << 20);
    Ok(())
}

fn a_bad_price_table_is_refused_in_one_line(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    let table = p.mount.home.join("bad.toml");
    fs::write(&table, "dated = \"2030-01\"\n[requests]\nwrite_usd_per_1000 = -1.0\nread_usd_per_1000 = 3.0\n")?;
    let dir = p.mount.home.join("elsewhere");
    fs::create_dir(&dir)?;
    let output = p.mount.run(&["-f", "bucket", &dir.to_string_lossy(), "--price-table", &table.to_string_lossy()])?;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let said: Vec<_> = told.lines().filter(|line| line.starts_with("s3mount: ")).collect();
    assert!(said.len() == 1 && said[0].contains("write_usd_per_1000 is no price"), "{told}");
    Ok(())
}

fn status_tells_each_dirty_file_and_its_upload(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    let socket = socket(&p)?;
    let quiet = quiet();
    let file = p.create("large")?;
    let bytes = pattern(3, 24 * MIB + 1000);
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0)?;
    let mut told = Value::Null;
    // Whole parts go up while the file is being written.
    let uploaded = poll(std::time::Duration::from_secs(20), || {
        told = asked(&socket).unwrap_or_default();
        told["files"][0]["in_s3_bytes"].as_u64() >= Some(16 << 20)
    });
    assert!(uploaded, "{told}");
    let dirty = &told["files"][0];
    assert_eq!((&dirty["path"], &dirty["key"]), (&"large".into(), &"large".into()));
    assert_eq!(dirty["size_bytes"], bytes.len());
    let (waiting, there) = (dirty["dirty_bytes"].as_u64(), dirty["in_s3_bytes"].as_u64());
    assert_eq!(waiting.zip(there).map(|(a, b)| a + b), Some(bytes.len() as u64), "{dirty}");
    assert!(dirty["oldest_seconds"].as_f64() > Some(0.0), "{dirty}");
    assert_eq!(told["version"], 1);
    assert!(told["uptime_seconds"].as_f64() > Some(0.0), "{told}");
    assert_eq!(told["capabilities"]["conditional_writes"], true);
    assert_eq!(told["options"]["part-size"], (8 << 20).to_string());
    assert!(told["cache"]["memory_bytes_max"].as_u64() > Some(0), "{told}");
    sys::close(file)?;
    drop(quiet);
    assert_eq!(status(&p)?["files"], serde_json::json!([]));
    Ok(())
}

fn the_status_socket_is_for_its_owner_alone(c: &Context) -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    let p = c.mount(&[])?;
    assert_eq!(fs::metadata(socket(&p)?)?.permissions().mode() & 0o777, 0o600);
    Ok(())
}

fn top_without_a_terminal_names_status(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    let output = p.mount.run(&["top", &p.mount.dir.to_string_lossy()])?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("s3mount status") && told.trim_end().lines().count() == 1, "{told}");
    Ok(())
}

/// Runs top on a terminal of its own, ends it, and prints what the terminal got and how top ended.
const ON_A_TERMINAL: &str = r#"
import fcntl, os, pty, select, signal, struct, sys, termios, time
program, dir, how = sys.argv[1:4]
child, terminal = pty.fork()
if child == 0:
    os.environ["TERM"] = "xterm"
    os.execv(program, [program, "top", dir])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
shown = b""
def read(seconds, until=None):
    global shown
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (until and until in shown):
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:
                return
read(20, b"quit")
print("drawn", b"\x1b[?1049h" in shown)
if how == "hangup":
    os.close(terminal)
else:
    os.kill(child, signal.SIGTERM)
    read(20, b"\x1b[?1049l")
    print("restored", b"\x1b[?1049l" in shown)
end = time.monotonic() + 20
while time.monotonic() < end:
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid:
        print("ended", os.waitstatus_to_exitcode(status))
        sys.exit()
    time.sleep(0.05)
os.kill(child, signal.SIGKILL)
print("lives on")
"#;

fn top_restores_the_terminal_at_a_signal_and_ends_when_it_hangs_up(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    socket(&p)?;
    let program = p.mount.program().get_program().to_owned();
    for (how, wanted) in [("signal", "drawn True\nrestored True\nended 0\n"), ("hangup", "drawn True\nended 0\n")] {
        let mut python = p.command("python3");
        python.env("XDG_RUNTIME_DIR", &p.mount.home).args(["-c", ON_A_TERMINAL]);
        let told = checked(&run(python.arg(&program).arg(&p.mount.dir).arg(how))?)?;
        assert_eq!(told, wanted, "{how}");
    }
    Ok(())
}
