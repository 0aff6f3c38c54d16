//! The S3 servers that the facts are run against: where each is found, how it is started and ended. A server that is not
//! there is a reason, not an error.

use std::fmt;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_s3::Client;

use super::outcome::{Failure, Outcome};
use super::process::{cache_dir, find, poll, spawn};
use super::s3::{self, Bucket};
use super::sim::Sim;

/// How long a server may take until it listens: moto imports its whole self first, on a cold disk.
const START_LIMIT: Duration = Duration::from_secs(60);

/// An S3 server, or a plain local folder in the place of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder of the machine, no mount and no S3: shows that the facts themselves are right.
    Plain,
    /// Our own simulator, in this process.
    S3sim,
    /// moto's server.
    Moto,
    /// versitygw over a folder.
    Versitygw,
    /// MinIO.
    Minio,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::S3sim => "s3sim",
            Self::Moto => "moto",
            Self::Versitygw => "versitygw",
            Self::Minio => "minio",
        })
    }
}

impl Kind {
    /// Every kind, in the order in which they are run.
    pub const ALL: [Self; 5] = [Self::Plain, Self::S3sim, Self::Moto, Self::Versitygw, Self::Minio];

    /// The program of the server, or why there is none.
    pub fn program(self) -> Result<PathBuf, String> {
        let in_cache = |name: &str| {
            find(name, &[cache_dir().join("bin"), home().join("go/bin")])
                .ok_or_else(|| format!("{name} is not on PATH"))
        };
        match self {
            Self::Plain | Self::S3sim => Ok(PathBuf::new()),
            Self::Moto => Some(cache_dir().join("venv/bin/moto_server"))
                .filter(|p| p.is_file())
                .ok_or_else(|| "no virtual environment with moto (scripts/test makes it)".to_owned()),
            Self::Versitygw => in_cache("versitygw"),
            Self::Minio => in_cache("minio"),
        }
    }
}

fn home() -> PathBuf {
    std::env::var_os("HOME").unwrap_or_else(|| "/root".into()).into()
}

/// A server that runs.
pub struct Server {
    /// Which it is.
    pub kind: Kind,
    /// Its address, `http://127.0.0.1:PORT`; empty for `plain`.
    pub endpoint: String,
    /// The simulator's controls.
    pub sim: Option<Sim>,
    client: Option<Client>,
    child: Mutex<Option<Child>>,
    folder: PathBuf,
    buckets: AtomicU32,
    // Last, so that the folder goes after the process that works in it.
    _scratch: tempfile::TempDir,
}

impl Server {
    /// Starts a server and waits until it listens.
    pub fn start(kind: Kind) -> Outcome<Self> {
        let program = kind.program().map_err(Failure)?;
        let scratch = tempfile::Builder::new().prefix("s3mount-suite-").tempdir()?;
        let folder = match std::env::var_os("S3MOUNT_TEST_PLAIN_DIR") {
            Some(dir) if kind == Kind::Plain => Path::new(&dir).join(format!("run-{}", std::process::id())),
            _ => scratch.path().join("data"),
        };
        std::fs::create_dir_all(&folder)?;
        let sim = if kind == Kind::S3sim { Some(Sim::start()?) } else { None };
        let (mut endpoint, mut child) = (String::new(), None);
        if let Some(sim) = &sim {
            sim.endpoint().clone_into(&mut endpoint);
        } else if kind != Kind::Plain {
            let port = free_port()?;
            endpoint = format!("http://127.0.0.1:{port}");
            child = Some(start_process(kind, &program, port, &folder, &scratch.path().join("log"))?);
        }
        let client = (kind != Kind::Plain).then(|| s3::client(&endpoint));
        let child = Mutex::new(child);
        Ok(Self { kind, endpoint, sim, client, child, folder, buckets: AtomicU32::new(0), _scratch: scratch })
    }

    /// A new and empty bucket.
    pub fn new_bucket(&self) -> Outcome<Bucket> {
        let name = format!("suite-{}", self.buckets.fetch_add(1, Ordering::Relaxed));
        let bucket = match &self.client {
            None => {
                let folder = self.folder.join(name);
                std::fs::create_dir_all(&folder)?;
                Bucket::Folder(folder)
            }
            Some(client) => Bucket::S3 { client: client.clone(), name },
        };
        bucket.create()?;
        Ok(bucket)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(mut slot) = self.child.lock()
            && let Some(child) = slot.as_mut()
        {
            let _ = child.kill();
            let _ = child.wait();
        }
        if self.kind == Kind::Plain {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Ports below those that Linux gives to who asks for any (32768 to 60999): the simulators and stubs of other facts ask so,
/// and one of them would get the port in the seconds until a server has started.
const PORTS: std::ops::Range<u16> = 16_384..32_768;

/// A port that nobody listens on. Another process may take it before the server does; then the start fails loudly.
pub fn free_port() -> io::Result<u16> {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let found = std::iter::repeat_with(|| fastrand::u16(PORTS)).take(1000).find(is_free);
    found.ok_or_else(|| io::Error::other("no free port"))
}

fn start_process(kind: Kind, program: &Path, port: u16, folder: &Path, log: &Path) -> Outcome<Child> {
    let mut command = Command::new(program);
    match kind {
        Kind::Moto => command.args(["-H", "127.0.0.1", "-p", &port.to_string()]),
        Kind::Minio => command.arg("server").args(["--address", &format!("127.0.0.1:{port}"), "--quiet"]).arg(folder),
        _ => command.args(["--port", &format!("127.0.0.1:{port}"), "--quiet", "posix"]).arg(folder),
    };
    let log_file = std::fs::File::create(log)?;
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder)
        .env("ROOT_ACCESS_KEY", s3::ACCESS_KEY)
        .env("ROOT_SECRET_KEY", s3::SECRET_KEY)
        .env("MINIO_ROOT_USER", s3::ACCESS_KEY)
        .env("MINIO_ROOT_PASSWORD", s3::SECRET_KEY)
        .stdin(Stdio::null())
        .stdout(log_file.try_clone()?)
        .stderr(log_file);
    let mut child = spawn(command, libc::SIGKILL)?;
    let mut ended = None;
    let listens = poll(START_LIMIT, || {
        ended = child.try_wait().ok().flatten();
        ended.is_some() || TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    if listens && ended.is_none() {
        return Ok(child);
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(Failure(format!("{kind} does not start: {}", std::fs::read_to_string(log).unwrap_or_default())))
}
