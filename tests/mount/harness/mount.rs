//! One mount: the daemon in the foreground, its folder, its log. Unmounts when dropped, in the orderly way first and
//! lazily as the last resort, and kills nothing but the daemon that it started.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::outcome::{Failure, Outcome};
use super::process::{poll, run, spawn, start, wait};
use super::s3::{ACCESS_KEY, Bucket, SECRET_KEY};
use super::server::Server;
use super::watchdog;

/// How long a daemon may take until its mount answers, and until it is gone after an unmount.
const START_LIMIT: Duration = Duration::from_secs(20);
const END_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take after that until the kernel's read-ahead is raised, where that is permitted.
const READ_AHEAD_LIMIT: Duration = Duration::from_secs(1);
/// How long the last try to publish a file may take: all retries of a request, on a server that never answers well.
const SETTLED_LIMIT: Duration = Duration::from_secs(90);

/// A mounted bucket (or the plain folder that stands for one).
pub struct Mount {
    /// Where it is mounted.
    pub dir: PathBuf,
    /// What is mounted, asked independently.
    pub bucket: Bucket,
    /// Where the bucket is.
    pub server: Arc<Server>,
    /// The daemon's home: its state and kept bytes, from one mount of the folder to the next.
    pub home: PathBuf,
    prefix: String,
    options: Vec<String>,
    environment: Vec<(String, Option<String>)>,
    child: Mutex<Option<Child>>,
    _scratch: Arc<tempfile::TempDir>,
}

/// How to mount.
#[derive(Clone, Debug, Default)]
pub struct Mounting {
    /// `""` or `a/b`: mounts `BUCKET/a/b`.
    pub prefix: String,
    /// Further arguments.
    pub options: Vec<String>,
    /// Variables of the daemon's environment that are set, or taken away.
    pub environment: Vec<(String, Option<String>)>,
}

impl Mounting {
    /// With these arguments.
    pub fn with(options: &[&str]) -> Self {
        Self { options: options.iter().map(|&o| o.to_owned()).collect(), ..Self::default() }
    }

    /// With this variable, or without it.
    #[must_use]
    pub fn variable(mut self, name: &str, value: Option<&str>) -> Self {
        self.environment.push((name.to_owned(), value.map(str::to_owned)));
        self
    }
}

impl Mount {
    /// Mounts a bucket and waits until the mount answers.
    pub fn start(server: &Arc<Server>, bucket: &Bucket, how: &Mounting) -> Outcome<Arc<Self>> {
        let scratch = Arc::new(tempfile::Builder::new().prefix("s3mount-mount-").tempdir()?);
        Self::start_in(server, bucket, how, scratch)
    }

    fn start_in(
        server: &Arc<Server>,
        bucket: &Bucket,
        how: &Mounting,
        scratch: Arc<tempfile::TempDir>,
    ) -> Outcome<Arc<Self>> {
        let home = scratch.path().join("home");
        fs::create_dir_all(&home)?;
        let mut dir = scratch.path().join("mnt");
        if let Bucket::Folder(folder) = bucket {
            dir.clone_from(folder);
        }
        fs::create_dir_all(&dir)?;
        let mount = Arc::new(Self {
            dir,
            bucket: bucket.clone(),
            server: Arc::clone(server),
            home,
            prefix: how.prefix.clone(),
            options: how.options.clone(),
            environment: how.environment.clone(),
            child: Mutex::new(None),
            _scratch: scratch,
        });
        watchdog::watch(&mount);
        if matches!(bucket, Bucket::S3 { .. }) {
            mount.start_daemon()?;
        }
        Ok(mount)
    }

    /// What to hand to the program: `BUCKET` or `BUCKET/PREFIX`.
    pub fn source(&self) -> String {
        let Bucket::S3 { name, .. } = &self.bucket else { return String::new() };
        if self.prefix.is_empty() { name.clone() } else { format!("{name}/{}", self.prefix) }
    }

    /// The program with this mount's environment: nothing of the suite's own but PATH.
    pub fn program(&self) -> Command {
        self.program_with(&self.environment)
    }

    /// The program with this mount's home and the variables of another.
    pub fn program_of(&self, how: &Mounting) -> Command {
        self.program_with(&how.environment)
    }

    fn program_with(&self, environment: &[(String, Option<String>)]) -> Command {
        let mut command = program(&self.home);
        for (name, value) in environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    fn start_daemon(&self) -> Outcome {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut command = self.program();
        command.arg("-f").arg(self.source()).arg(&self.dir).args(["--endpoint-url", &self.server.endpoint]);
        command.args(["--region", "us-east-1", "--log-level", "info", "--state-dir"]).arg(self.state_dir());
        command.args(&self.options);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = spawn(command, libc::SIGTERM)?;
        let mut ended = None;
        let answers = poll(START_LIMIT, || {
            ended = child.try_wait().ok().flatten();
            ended.is_some() || self.is_mounted()
        });
        if answers && ended.is_none() {
            // The kernel's read-ahead, which each open takes as it is then, is raised a moment after that; not for all users.
            poll(READ_AHEAD_LIMIT, || self.is_read_ahead_raised());
            *self.child.lock().expect("nobody panics with it") = Some(child);
            return Ok(());
        }
        let _ = child.kill();
        let _ = child.wait();
        lazy_unmount(&self.dir);
        Err(Failure(format!("the mount does not come up ({ended:?}):\n{}", self.log_from(0))))
    }

    /// Whether the folder is a mount that answers.
    pub fn is_mounted(&self) -> bool {
        let outside = self.dir.parent().and_then(|p| fs::metadata(p).ok()).map(|m| m.dev());
        fs::metadata(&self.dir).is_ok_and(|m| Some(m.dev()) != outside)
    }

    /// Whether the kernel reads ahead by more than it does of itself (128 KiB).
    fn is_read_ahead_raised(&self) -> bool {
        let Ok(device) = fs::metadata(&self.dir).map(|found| found.dev()) else { return false };
        let (major, minor) = (libc::major(device), libc::minor(device));
        let told = fs::read_to_string(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"));
        told.ok().and_then(|told| told.trim().parse::<u64>().ok()).is_some_and(|kibibytes| kibibytes > 128)
    }

    /// The daemon's process id, while it lives.
    pub fn pid(&self) -> Option<u32> {
        self.child.lock().expect("nobody panics with it").as_ref().map(Child::id)
    }

    /// `s3mount unmount DIR`, and waits for the daemon's end.
    pub fn unmount(&self) -> Outcome<ExitStatus> {
        let Some(child) = self.child.lock().expect("nobody panics with it").take() else {
            return Err(Failure("not mounted".into()));
        };
        let output = run(self.program().arg("unmount").arg(&self.dir))?;
        if !output.status.success() {
            // It may have ended all the same, with something kept; if not, it is ended now.
            let _ = signal_child(&child, libc::SIGTERM);
            self.ended(child, "unmount")?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Failure(format!("s3mount unmount: {}: {}{said}", output.status, text(&output))));
        }
        self.ended(child, "unmount")
    }

    /// Sends a signal and waits for the daemon's end.
    pub fn end_by(&self, signal: i32) -> Outcome<ExitStatus> {
        let Some(child) = self.child.lock().expect("nobody panics with it").take() else {
            return Err(Failure("not mounted".into()));
        };
        signal_child(&child, signal)?;
        self.ended(child, "signal")
    }

    /// kill -9, and takes the dead mount away.
    pub fn kill(&self) -> Outcome {
        self.end_by(libc::SIGKILL)?;
        self.take_away();
        Ok(())
    }

    /// Takes away what a killed daemon leaves: a mount that answers ENOTCONN.
    pub fn take_away(&self) {
        lazy_unmount(&self.dir);
    }

    /// Waits until no writer holds anything: each has published its file, or has kept it.
    pub fn settled(&self) -> Outcome {
        let mut said = String::new();
        let settled = poll(SETTLED_LIMIT, || {
            let output = run(self.program().args(["status", "--json"]).arg(&self.dir));
            said = output.as_ref().map(text).unwrap_or_default();
            let status = serde_json::from_str::<serde_json::Value>(&said);
            status.is_ok_and(|status| status["dirty_files"] == 0)
        });
        if settled { Ok(()) } else { Err(Failure(format!("files stay dirty: {said}"))) }
    }

    fn ended(&self, mut child: Child, what: &str) -> Outcome<ExitStatus> {
        if let Some(status) = wait(&mut child, END_LIMIT)? {
            return Ok(status);
        }
        let _ = child.kill();
        let _ = child.wait();
        lazy_unmount(&self.dir);
        Err(Failure(format!("the daemon lives on {END_LIMIT:?} after {what}")))
    }

    /// Mounts the same bucket again after an end, with the same home and options.
    pub fn start_again(&self) -> Outcome {
        if matches!(self.bucket, Bucket::Folder(_)) {
            return Ok(());
        }
        self.start_daemon()
    }

    /// Unmounts and mounts again: nothing is remembered but what S3 has.
    pub fn remount(&self) -> Outcome {
        if matches!(self.bucket, Bucket::Folder(_)) {
            return Ok(());
        }
        self.unmount()?;
        self.start_daemon()
    }

    /// `s3mount ARGUMENTS` with this mount's environment.
    pub fn run(&self, arguments: &[&str]) -> io::Result<Output> {
        run(self.program().args(arguments))
    }

    /// Where the daemon keeps what it could not upload.
    pub fn state_dir(&self) -> PathBuf {
        self.home.join("state")
    }

    fn log_path(&self) -> PathBuf {
        self.home.join("daemon.log")
    }

    /// How long the log is.
    pub fn log_len(&self) -> u64 {
        fs::metadata(self.log_path()).map_or(0, |m| m.len())
    }

    /// What the daemon logged from a byte on; only the end of it if that is much.
    pub fn log_from(&self, start: u64) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        let start = usize::try_from(start).unwrap_or(0).min(bytes.len()).max(bytes.len().saturating_sub(6000));
        String::from_utf8_lossy(&bytes[start..]).into_owned()
    }

    /// Breaks the connection to the kernel, so that every call that hangs in it ends.
    pub fn abort_connection(&self) {
        // stat(2) would hang with the rest; the table of mounts does not.
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let dir = self.dir.to_string_lossy();
        for line in table.lines() {
            let mut words = line.split(' ').skip(2);
            let (device, _, place) = (words.next(), words.next(), words.next());
            if place == Some(&*dir)
                && let Some(minor) = device.and_then(|d| d.split(':').nth(1))
            {
                let _ = fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), "1");
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let child = self.child.get_mut().ok().and_then(Option::take);
        if let Some(mut child) = child {
            let _ = signal_child(&child, libc::SIGTERM);
            if !matches!(wait(&mut child, Duration::from_secs(10)), Ok(Some(_))) {
                self.abort_connection();
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        lazy_unmount(&self.dir);
    }
}

/// The program with a clean environment: dummy keys, a home of its own, and nothing else of the suite's but PATH.
pub fn program(home: &Path) -> Command {
    // Another build of the program, or a wrapper around another program that is to be compared.
    let other = std::env::var_os("S3MOUNT_TEST_PROGRAM");
    let mut command = Command::new(other.unwrap_or_else(|| env!("CARGO_BIN_EXE_s3mount").into()));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("XDG_STATE_HOME", home.join("state"))
        .env("XDG_CACHE_HOME", home.join("cache"))
        .env("XDG_RUNTIME_DIR", home)
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("LANG", "C.UTF-8")
        .env("RUST_BACKTRACE", "1");
    command
}

/// What a program printed.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn signal_child(child: &Child, signal: i32) -> Outcome {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    Ok(nix::sys::signal::kill(pid, nix::sys::signal::Signal::try_from(signal)?)?)
}

fn lazy_unmount(dir: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if table.lines().any(|line| line.split(' ').nth(4) == Some(&*dir.to_string_lossy())) {
        let child = start(Command::new("fusermount3").arg("-uz").arg(dir).stderr(Stdio::null()));
        let _ = child.and_then(|mut child| child.wait());
    }
}
