//! The socket itself: where it is, who may speak, what is answered.

use std::ffi::OsString;
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

/// Where sockets are: `/run/s3mount` for root. Otherwise the user's runtime directory, and `/tmp` as well: the runtime
/// directory goes when the user logs out (pam_systemd(8)), and the mount goes on. The state directory is none of them: a
/// home may be shared by machines, whose device numbers are not told apart, and its path may be longer than a socket's may be.
fn socket_dirs(user: nix::unistd::Uid, runtime: Option<OsString>) -> Vec<PathBuf> {
    if user.is_root() {
        return vec![PathBuf::from("/run/s3mount")];
    }
    let runtime = runtime.filter(|dir| !dir.is_empty()).map(|dir| PathBuf::from(dir).join("s3mount"));
    runtime.into_iter().chain([PathBuf::from(format!("/tmp/s3mount-{user}"))]).collect()
}

/// The sockets of the mount with this device number, the one that is asked first before the others.
pub fn socket_paths(device: u64) -> Vec<PathBuf> {
    let name = format!("{}-{}.sock", libc::major(device), libc::minor(device));
    let dirs = socket_dirs(nix::unistd::geteuid(), std::env::var_os("XDG_RUNTIME_DIR"));
    dirs.into_iter().map(|dir| dir.join(&name)).collect()
}

/// Opens the first of these sockets that a process of ours serves.
///
/// # Errors
/// What the first of them said, if none is served; before that, that somebody else is in our daemon's place.
pub fn connect(paths: &[PathBuf]) -> io::Result<std::os::unix::net::UnixStream> {
    let mut refused: Option<io::Error> = None;
    for path in paths {
        match connect_to_ours(path) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                refused = refused.filter(|first| first.kind() == error.kind()).or(Some(error));
            }
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
}

/// Anybody may make the directory in /tmp before the daemon does, and answer in its place.
fn connect_to_ours(path: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    if let Some(dir) = path.parent() {
        check_private(dir)?;
    }
    let stream = std::os::unix::net::UnixStream::connect(path)?;
    check_peer(&stream, nix::unistd::geteuid())?;
    Ok(stream)
}

/// Fails unless the other end was made by a process of `user` (SO_PEERCRED, unix(7)).
fn check_peer(stream: &std::os::unix::net::UnixStream, user: nix::unistd::Uid) -> io::Result<()> {
    let peer = nix::sys::socket::getsockopt(stream, nix::sys::socket::sockopt::PeerCredentials)?.uid();
    if peer == user.as_raw() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {peer} is in the place of our daemon")))
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

/// Serves a socket at each of `paths`, as far as can be. Wishes to end the mount come out of `unmount`.
pub fn serve(
    paths: &[PathBuf],
    source: &StatusSource,
    unmount: &mpsc::Sender<UnmountRequest>,
) -> Vec<(PathBuf, io::Result<StatusSocket>)> {
    let served = paths.iter().map(|path| (path.clone(), serve_at(path, source.clone(), unmount.clone())));
    served.collect()
}

fn serve_at(path: &Path, source: StatusSource, unmount: mpsc::Sender<UnmountRequest>) -> io::Result<StatusSocket> {
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

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Write};
    use std::sync::Arc;

    use super::super::Live;
    use super::*;
    use crate::clock::Clock;
    use crate::metrics::{Metrics, PriceTable};

    fn a_status() -> StatusSource {
        let clock = Clock::system();
        StatusSource {
            metrics: Arc::new(Metrics::default()),
            prices: Arc::new(PriceTable::default()),
            fixed: Arc::new(Status { state: "serving".into(), ..Status::default() }),
            live: Arc::new(Live::default),
            began: clock.now(),
            clock,
        }
    }

    fn ask(paths: &[PathBuf]) -> io::Result<String> {
        let mut stream = connect(paths)?;
        stream.write_all(b"status\n")?;
        let mut line = String::new();
        std::io::BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    }

    #[test]
    fn a_user_has_a_socket_that_does_not_go_with_the_session() {
        let user = nix::unistd::Uid::from_raw(1000);
        let in_session = socket_dirs(user, Some("/run/user/1000".into()));
        let (first, last) = (Path::new("/run/user/1000/s3mount"), Path::new("/tmp/s3mount-1000"));
        assert_eq!(in_session, [first, last]);
        // From another session, or from none, the last is found.
        for runtime in [None, Some("".into())] {
            assert_eq!(socket_dirs(user, runtime), [last]);
        }
        let root = nix::unistd::Uid::from_raw(0);
        assert_eq!(socket_dirs(root, Some("/run/user/0".into())), [Path::new("/run/s3mount")]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_mount_answers_after_the_runtime_directory_has_gone() {
        let scratch = tempfile::tempdir().expect("a directory");
        let paths = ["runtime/s3mount/0-7.sock", "tmp/0-7.sock"].map(|path| scratch.path().join(path));
        let served = serve(&paths, &a_status(), &mpsc::channel(1).0);
        assert!(served.iter().all(|(_, socket)| socket.is_ok()));
        std::fs::remove_dir_all(scratch.path().join("runtime")).expect("removed");
        let answer = tokio::task::spawn_blocking(move || ask(&paths)).await.expect("no panic").expect("an answer");
        assert!(answer.contains("serving"), "{answer}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_else_could_answer_for_a_daemon_is_not_asked() {
        let scratch = tempfile::tempdir().expect("a directory");
        let paths = ["open", "ours"].map(|dir| scratch.path().join(dir).join("0-7.sock"));
        let _served = serve(&paths, &a_status(), &mpsc::channel(1).0);
        let ask = |paths: Vec<PathBuf>| tokio::task::spawn_blocking(move || super::tests::ask(&paths));
        let open = scratch.path().join("open");
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
        let refused = ask(vec![paths[0].clone()]).await.expect("no panic").expect_err("others may come in");
        assert!(refused.to_string().contains("is not ours alone"), "{refused}");
        // A link may lead to a directory of ours and be changed by whoever made it.
        let link = scratch.path().join("link");
        std::os::unix::fs::symlink(scratch.path().join("ours"), &link).expect("a link");
        let refused = ask(vec![link.join("0-7.sock")]).await.expect("no panic").expect_err("it is a link");
        assert!(refused.to_string().contains("is not ours alone"), "{refused}");
        // The next place is asked all the same.
        let answer = ask(paths.to_vec()).await.expect("no panic").expect("an answer");
        assert!(answer.contains("serving"), "{answer}");
        // Without an answer it is said that somebody is in the way, not that nobody is there.
        let nowhere = scratch.path().join("nowhere/0-7.sock");
        let refused = ask(vec![nowhere, paths[0].clone()]).await.expect("no panic").expect_err("nobody of ours");
        assert!(refused.to_string().contains("is not ours alone"), "{refused}");
        let ours = std::os::unix::net::UnixStream::connect(&paths[1]).expect("it is served");
        let somebody = nix::unistd::Uid::from_raw(nix::unistd::geteuid().as_raw() + 1);
        assert!(check_peer(&ours, nix::unistd::geteuid()).is_ok());
        assert!(check_peer(&ours, somebody).is_err());
    }

    #[tokio::test]
    async fn the_end_of_a_mount_leaves_the_socket_of_the_next_one() {
        let scratch = tempfile::tempdir().expect("a directory");
        let paths = [scratch.path().join("private/0-7.sock")];
        let ended = serve(&paths, &a_status(), &mpsc::channel(1).0);
        let next = serve(&paths, &a_status(), &mpsc::channel(1).0);
        drop(ended);
        assert!(paths[0].exists());
        drop(next);
        assert!(!paths[0].exists());
    }
}
