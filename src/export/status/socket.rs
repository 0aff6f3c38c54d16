//! The socket itself: where it is, who may speak, what is answered.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

use super::{Status, StatusSource};

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Where sockets are: `/run/s3mount` for root, the user's runtime directory otherwise.
pub fn socket_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/run/s3mount");
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir).join("s3mount"),
        _ => std::env::temp_dir().join(format!("s3mount-{}", nix::unistd::geteuid())),
    }
}

/// The socket of the mount with this device number.
pub fn socket_path(device: u64) -> PathBuf {
    socket_dir().join(format!("{}-{}.sock", libc::major(device), libc::minor(device)))
}

/// A client that waits for the end of the mount.
#[derive(Debug)]
pub struct UnmountRequest {
    /// Takes the steps.
    pub steps: mpsc::Sender<Status>,
    /// The client unmounts by itself, and only wants to hear of the end.
    pub follows: bool,
}

/// The socket, served until dropped; it then disappears.
#[derive(Debug)]
pub struct StatusSocket {
    path: PathBuf,
    /// Device and inode number of the socket, which tell it from another under the same name.
    identity: (u64, u64),
    _stop: watch::Sender<()>,
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        // The next mount may have taken the device number that was given back; then it is its socket.
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// A directory that others can write, or made before us, would let them answer in our place.
fn check_private(dir: &Path) -> io::Result<()> {
    let metadata = std::fs::symlink_metadata(dir)?;
    let is_ours = metadata.is_dir() && metadata.uid() == nix::unistd::geteuid().as_raw();
    if is_ours && metadata.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{} is not ours alone (mode 0700)", dir.display())))
}

/// Serves the socket at `path`. Wishes to end the mount come out of `unmount`.
///
/// # Errors
/// The directory or the socket cannot be made.
pub fn serve(path: &Path, source: StatusSource, unmount: mpsc::Sender<UnmountRequest>) -> io::Result<StatusSocket> {
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        check_private(dir)?;
    }
    // Under its name it is for its owner alone from the first moment. What a killed daemon left under either name goes:
    // the device number is ours now.
    let unnamed = path.with_extension("new");
    let _ = std::fs::remove_file(&unnamed);
    let listener = UnixListener::bind(&unnamed)?;
    std::fs::set_permissions(&unnamed, std::fs::Permissions::from_mode(0o600))?;
    let identity = identity(&unnamed)?;
    std::fs::rename(&unnamed, path)?;
    let (stop, mut stopped) = watch::channel(());
    tokio::spawn(async move {
        loop {
            let connection = tokio::select! {
                connection = listener.accept() => connection,
                _ = stopped.changed() => return,
            };
            let Ok((stream, _)) = connection else { return };
            let (source, unmount) = (source.clone(), unmount.clone());
            tokio::spawn(async move {
                if let Err(error) = answer(stream, source, unmount).await {
                    tracing::debug!(%error, "a client of the status socket went away");
                }
            });
        }
    });
    Ok(StatusSocket { path: path.to_owned(), identity, _stop: stop })
}

async fn answer(stream: UnixStream, source: StatusSource, unmount: mpsc::Sender<UnmountRequest>) -> io::Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut word = String::new();
    BufReader::new(reading).read_line(&mut word).await?;
    match word.trim() {
        word @ ("unmount" | "follow") => {
            let (sender, mut steps) = mpsc::channel(16);
            if unmount.send(UnmountRequest { steps: sender, follows: word == "follow" }).await.is_err() {
                let ended = Status { state: "ended".into(), ..source.now() };
                return write(&mut writing, &ended).await;
            }
            loop {
                let step = tokio::time::timeout(PROGRESS_EVERY, steps.recv()).await;
                match step {
                    Ok(Some(step)) => write(&mut writing, &step).await?,
                    Ok(None) => return Ok(()),
                    Err(_) => write(&mut writing, &Status { state: "draining".into(), ..source.now() }).await?,
                }
            }
        }
        _ => write(&mut writing, &source.now()).await,
    }
}

async fn write(stream: &mut (impl AsyncWriteExt + Unpin), status: &Status) -> io::Result<()> {
    let mut line = serde_json::to_vec(status)?;
    line.push(b'\n');
    stream.write_all(&line).await
}
