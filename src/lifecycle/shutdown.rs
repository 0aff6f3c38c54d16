//! The one way to end: no new work, everything published, what cannot be is kept.
//!
//! It is taken after `umount`, on `s3mount unmount`, and on SIGTERM and SIGINT. A second signal keeps what is not uploaded
//! for `s3mount recover` and leaves at once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::{Failure, systemd};
use crate::export::status::{Status, StatusSource, UnmountRequest};
use crate::fs::{Drained, FileSystem};
use crate::fuse::mount::Mounted;
use crate::fuse::session::Served;

/// How often a session is looked at; the kernel tells its end to the threads that serve it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Everything that ends together.
pub(super) struct Mount {
    pub(super) fs: Arc<FileSystem>,
    pub(super) mounted: Arc<Mounted>,
    pub(super) session: Served,
    pub(super) told: StatusSource,
    pub(super) unmount: mpsc::Receiver<UnmountRequest>,
    pub(super) signals: Signals,
}

enum Event {
    SessionEnded,
    Signal,
    Unmount(UnmountRequest),
}

/// Waits for the end of a mount and brings it about in order.
pub(super) async fn until_the_end(mut mount: Mount) -> Result<(), Failure> {
    let mut waiting = None;
    loop {
        let event = tokio::select! {
            () = session_end(&mount.session) => Event::SessionEnded,
            () = mount.signals.next() => Event::Signal,
            Some(wish) = mount.unmount.recv() => Event::Unmount(wish),
        };
        match event {
            Event::SessionEnded => break,
            Event::Signal => {
                tracing::info!("a signal ends the mount; a second one ends it without waiting for uploads");
                systemd::stopping("uploading what is not in S3 yet");
                if let Err(error) = mount.mounted.detach() {
                    tracing::warn!(%error, "the mount could not be taken out of the tree");
                }
                break;
            }
            Event::Unmount(wish) => {
                if let Some(drained) = unmount(&mount, &wish).await {
                    waiting = Some((wish, drained));
                    break;
                }
            }
        }
    }
    let drained = tokio::select! {
        drained = drain(&mount.fs) => drained,
        () = mount.signals.next() => {
            let kept = mount.fs.keep_all().await;
            tracing::warn!(kept, "ended before everything was uploaded; see `s3mount recover list`");
            Drained { published: 0, kept }
        }
    };
    tracing::info!(published = drained.published, kept = drained.kept, "unmounted");
    let before = waiting.as_ref().map_or(0, |(_, earlier): &(UnmountRequest, Drained)| earlier.kept);
    let kept = drained.kept + before;
    if let Some((wish, _)) = waiting {
        // A client that went away hears nothing.
        let _ = wish.send(Status { state: "ended".into(), kept, ..mount.told.now() }).await;
        drop(wish);
        // The answer is written by another task; it is short.
        tokio::time::sleep(LOOK_EVERY).await;
    }
    if kept > 0 {
        return Err(Failure::system(format!(
            "{kept} files could not be uploaded and are kept: see s3mount recover list"
        )));
    }
    Ok(())
}

async fn session_end(session: &Served) {
    while !session.is_finished() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn drain(fs: &Arc<FileSystem>) -> Drained {
    let drained = fs.drain().await;
    fs.delete_all_unlinked().await;
    drained
}

/// Publishes everything, then unmounts, unless somebody still uses the mount.
async fn unmount(mount: &Mount, wish: &UnmountRequest) -> Option<Drained> {
    let drained = mount.fs.drain().await;
    let mounted = Arc::clone(&mount.mounted);
    let outcome = tokio::task::spawn_blocking(move || mounted.unmount()).await;
    let (state, message) = match outcome {
        Ok(Ok(())) => return Some(drained),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ResourceBusy => ("busy", error.to_string()),
        Ok(Err(error)) => ("failed", error.to_string()),
        Err(error) => ("failed", error.to_string()),
    };
    let answer = Status { state: state.into(), kept: drained.kept, message: Some(message), ..mount.told.now() };
    let _ = wish.send(answer).await;
    None
}
