//! Words to systemd (sd_notify(3)); without `NOTIFY_SOCKET` they go nowhere.
//!
//! Invariant: a ping of the watchdog (WATCHDOG=1) says that the mount answered a moment ago, never only that time went by.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::AbortHandle;

use crate::fuse::mount;
use crate::metrics::{Gauge, Metrics};

/// How often systemd hears how far the last uploads are.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// How much longer systemd waits from each such word on, in microseconds: a daemon that hangs is ended after so long.
const EXTENSION_MICROSECONDS: u32 = 60_000_000;

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// The mount answers.
pub(super) fn ready(what: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(what)]);
}

/// What the mount is doing.
pub(super) fn status(what: &str) {
    tell(&[NotifyState::Status(what)]);
}

/// Asks for more time for a start that finishes what an earlier process left, for as long as it is polled.
pub(super) async fn while_resuming() -> Infallible {
    loop {
        let status = NotifyState::Status("finishing what an earlier process left");
        tell(&[status, NotifyState::ExtendTimeoutUsec(EXTENSION_MICROSECONDS)]);
        tokio::time::sleep(TELL_EVERY).await;
    }
}

/// The mount is ending.
pub(super) fn stopping(what: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(what), NotifyState::ExtendTimeoutUsec(EXTENSION_MICROSECONDS)]);
}

/// Tells how much is left, and asks for more time, for as long as it is polled.
pub(super) async fn while_draining(metrics: &Arc<Metrics>, unkept_files: impl Fn() -> usize) -> Infallible {
    loop {
        tokio::time::sleep(TELL_EVERY).await;
        let left = u64::try_from(metrics.gauge(Gauge::DirtyBytes)).unwrap_or(0);
        let mut status = format!("uploading, {} left", indicatif::BinaryBytes(left));
        match unkept_files() {
            0 => {}
            files => status += &format!(", {files} files neither in S3 nor in the journal"),
        }
        tell(&[
            NotifyState::Status(&status),
            NotifyState::ExtendTimeoutUsec(EXTENSION_MICROSECONDS),
            // No mount is left to be asked; that this task runs is what there is to say.
            NotifyState::Watchdog,
        ]);
    }
}

/// Pings the watchdog until dropped.
#[derive(Debug)]
pub(super) struct Watchdog(Option<AbortHandle>);

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Pings the watchdog of systemd, if it has one for us, each time that the mount at `dir` has answered: a request goes
/// through the kernel to the threads that serve it and back. A mount that hangs pings no more, and is restarted.
pub(super) fn watch(dir: &Path) -> Watchdog {
    // Half of the time, as sd_watchdog_enabled(3) advises; a second half for an answer that is slow.
    let Some(interval) = sd_notify::watchdog_enabled().map(|limit| limit / 2) else { return Watchdog(None) };
    let dir: PathBuf = dir.to_owned();
    let task = tokio::spawn(async move {
        loop {
            let asked = dir.clone();
            match tokio::task::spawn_blocking(move || mount::answers(&asked)).await {
                Ok(Ok(())) => tell(&[NotifyState::Watchdog]),
                Ok(Err(error)) => tracing::error!(%error, "the mount does not answer; systemd is not pinged"),
                Err(error) => tracing::error!(%error, "the mount cannot be asked; systemd is not pinged"),
            }
            tokio::time::sleep(interval).await;
        }
    });
    Watchdog(Some(task.abort_handle()))
}
