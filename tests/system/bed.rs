//! What the facts stand on: a simulator over a folder, a scratch directory, programs with a clean environment.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use s3sim::{Options, S3Sim};

/// The bucket of every fact.
pub const BUCKET: &str = "data";
/// The bucket of the documents.
pub const SHOWN_BUCKET: &str = "my-bucket";
/// How long a daemon may take for anything, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(60);

/// A simulator, and a place for everything else.
pub struct Bed {
    /// The S3 endpoint.
    pub sim: S3Sim,
    scratch: tempfile::TempDir,
}

impl Bed {
    /// Starts anew.
    pub fn new() -> Result<Self, String> {
        let scratch = tempfile::Builder::new().prefix("s3mount-system-").tempdir().map_err(|e| e.to_string())?;
        for folder in ["bucket", "mnt", "home"] {
            fs::create_dir(scratch.path().join(folder)).map_err(|e| e.to_string())?;
        }
        let options = Options {
            buckets: vec![BUCKET.into(), SHOWN_BUCKET.into()],
            folder: Some(scratch.path().join("bucket")),
            ..Options::default()
        };
        Ok(Self { sim: S3Sim::start(options).map_err(|e| e.to_string())?, scratch })
    }

    /// A path in the scratch directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The scratch directory.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// The bytes of an object, as they lie in the simulator's folder.
    pub fn object(&self, key: &str) -> Option<Vec<u8>> {
        fs::read(self.path("bucket").join(BUCKET).join(key)).ok()
    }

    /// What is needed to reach the simulator, as arguments.
    pub fn reach(&self) -> Vec<String> {
        let state = self.path("state").display().to_string();
        ["--endpoint-url", self.sim.url(), "--region", "us-east-1", "--state-dir", &state].map(str::to_owned).into()
    }

    /// A program with nothing of the suite's environment but PATH, and with keys.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("home"))
            .env("AWS_ACCESS_KEY_ID", "key")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::null());
        command
    }

    /// s3mount.
    pub fn s3mount(&self) -> Command {
        self.command(env!("CARGO_BIN_EXE_s3mount"))
    }
}

/// A daemon in the foreground; ended when dropped.
pub struct Daemon(pub Child, PathBuf);

impl Daemon {
    /// Starts a command that mounts on `dir` in the foreground, and waits until it does.
    pub fn start(command: &mut Command, dir: &Path) -> Result<Self, String> {
        let child = command.spawn().map_err(|e| e.to_string())?;
        let mut daemon = Self(child, dir.to_owned());
        let mut ended = None;
        until("the mount comes up", || {
            ended = daemon.0.try_wait().ok().flatten();
            ended.is_some() || is_mounted(dir)
        })?;
        ended.map_or(Ok(daemon), |status| Err(format!("the daemon ended: {status}")))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> Result<(), String> {
        let pid = i32::try_from(self.0.id()).map_err(|e| e.to_string())?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).map_err(|e| e.to_string())
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> Result<std::process::ExitStatus, String> {
        let mut status = None;
        until("the daemon ends", || {
            status = self.0.try_wait().ok().flatten();
            status.is_some()
        })?;
        status.ok_or_else(|| "no status".to_owned())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
        if is_mounted(&self.1) {
            let _ = Command::new("fusermount3").arg("-uz").arg(&self.1).status();
        }
    }
}

/// Whether something is mounted there; nothing is asked of it.
pub fn is_mounted(dir: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(4) == Some(&*dir.to_string_lossy()))
}

/// Waits until something is so.
pub fn until(what: &str, mut so: impl FnMut() -> bool) -> Result<(), String> {
    let end = Instant::now() + LIMIT;
    while !so() {
        if Instant::now() > end {
            return Err(format!("not within {LIMIT:?}: {what}"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Result<Output, String> {
    command.output().map_err(|e| format!("{}: {e}", command.get_program().display()))
}

/// What it printed.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Whether a program is on this machine.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Fails with what was seen unless it holds.
pub fn hold(holds: bool, what: &str, seen: &dyn std::fmt::Display) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("does not hold: {what}; seen:\n{seen}")) }
}
