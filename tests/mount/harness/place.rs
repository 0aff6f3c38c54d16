//! Where a fact happens: a folder of its own in the mount that all facts of a server share, or a mount of its own.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::mount::{Mount, text};
use super::outcome::{Failure, Outcome};
use super::process::{poll, run};
use super::s3::Bucket;
use super::server::Kind;
use super::sim::Sim;

/// Longer than any fact lets names live (`--metadata-ttl`, a second if nothing is said).
const NAMES_LIVE: Duration = Duration::from_secs(20);

/// A folder in a mount, and the keys that belong to it.
#[derive(Clone)]
pub struct Place {
    /// The folder.
    pub dir: PathBuf,
    /// The mount that it lies in.
    pub mount: Arc<Mount>,
    /// What every key of the place begins with: empty, or with a closing `/`.
    pub prefix: String,
}

impl Place {
    /// The top of a mount.
    pub fn top(mount: Arc<Mount>) -> Self {
        Self { dir: mount.dir.clone(), mount, prefix: String::new() }
    }

    /// A folder of its own at the top of a mount.
    pub fn folder(mount: Arc<Mount>, name: &str) -> Outcome<Self> {
        let dir = mount.dir.join(name);
        fs::create_dir(&dir)?;
        Ok(Self { dir, mount, prefix: format!("{name}/") })
    }

    /// Which server it is.
    pub fn kind(&self) -> Kind {
        self.mount.server.kind
    }

    /// The simulator's controls.
    pub fn sim(&self) -> &Sim {
        self.mount.server.sim.as_ref().expect("only asked for by facts of s3sim")
    }

    /// An object of any size under a name of the simulator, and the mount has learned that it is there.
    pub fn synthetic(&self, name: &str, size_bytes: u64) -> Outcome {
        self.synthetic_unseen(name, size_bytes)?;
        self.seen(name)
    }

    /// The same without a look at it through the mount.
    pub fn synthetic_unseen(&self, name: &str, size_bytes: u64) -> Outcome {
        let Bucket::S3 { name: bucket, .. } = &self.mount.bucket else { return Err(Failure("needs a bucket".into())) };
        self.sim().synthetic(bucket, &self.key(name), size_bytes);
        Ok(())
    }

    /// The path of a name.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// The key of a name.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Writes a file through the mount.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> io::Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, bytes)?;
        Ok(path)
    }

    /// Reads a file through the mount.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(name))
    }

    /// Creates a file that can be read and written.
    pub fn create(&self, name: &str) -> io::Result<File> {
        File::options().read(true).write(true).create(true).truncate(true).open(self.path(name))
    }

    /// The bytes that S3 has under a name, asked independently; fails if there are none.
    pub fn object(&self, name: &str) -> Outcome<Vec<u8>> {
        self.mount.bucket.get(&self.key(name))?.ok_or_else(|| Failure(format!("no object {}", self.key(name))))
    }

    /// Whether S3 has an object under a name.
    pub fn has_object(&self, name: &str) -> Outcome<bool> {
        Ok(self.mount.bucket.head(&self.key(name))?.is_some())
    }

    /// Another client writes an object; the mount may not know of it for as long as its names live.
    pub fn foreign_put_unseen(&self, name: &str, bytes: impl AsRef<[u8]>) -> Outcome {
        self.mount.bucket.put(&self.key(name), bytes.as_ref())
    }

    /// Another client writes an object, and the mount has learned that the name is there.
    pub fn foreign_put(&self, name: &str, bytes: impl AsRef<[u8]>) -> Outcome {
        self.foreign_put_unseen(name, bytes)?;
        self.seen(name)
    }

    /// Another client writes many objects, each holding its own key, and the mount has learned that they are there.
    pub fn foreign_put_many(&self, names: &[String]) -> Outcome {
        self.mount.bucket.put_many(&names.iter().map(|name| self.key(name)).collect::<Vec<_>>())?;
        names.last().map_or(Ok(()), |name| self.seen(name))
    }

    /// Waits until the mount shows a name, unless it is one that no mount shows.
    fn seen(&self, name: &str) -> Outcome {
        let hidden = name.split('/').any(|part| matches!(part, "" | "." | ".."));
        if hidden || poll(NAMES_LIVE, || self.path(name).exists()) {
            return Ok(());
        }
        Err(Failure(format!("{name} was put by another client and the mount does not show it after {NAMES_LIVE:?}")))
    }

    /// All keys of the place without its prefix, in order; the marker of the place's own folder aside.
    pub fn keys(&self) -> Outcome<Vec<String>> {
        let keys = self.mount.bucket.list(&self.prefix)?;
        Ok(keys.into_keys().map(|key| key[self.prefix.len()..].to_owned()).filter(|key| !key.is_empty()).collect())
    }

    /// The names in a folder as the mount lists them, in order.
    pub fn names(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.path(folder))?.collect::<io::Result<Vec<_>>>()?;
        let mut names: Vec<_> = entries.iter().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    }

    /// A program that works in the folder, with a clean environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LANG", "C.UTF-8");
        command
            .env("HOME", &self.mount.home)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .current_dir(&self.dir)
            .stdin(Stdio::null());
        command
    }

    /// Runs a shell script in the folder and gives what it printed; fails if it fails.
    pub fn shell(&self, script: &str) -> Outcome<String> {
        let mut command = self.command("bash");
        checked(&run(command.args(["-euc", script]))?)
    }

    /// Runs a Python program in the folder and gives what it printed; fails if it fails.
    pub fn python(&self, script: &str) -> Outcome<String> {
        let mut command = self.command("python3");
        checked(&run(command.args(["-c", script]))?)
    }
}

/// The output of a program that succeeded.
pub fn checked(output: &Output) -> Outcome<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Failure(format!("{}: {}", output.status, text(output))))
}
