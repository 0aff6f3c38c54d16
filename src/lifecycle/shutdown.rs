//! The one way to end: no new work, everything published, what cannot be is kept.
//!
//! It is taken after `umount`, on `s3mount unmount`, on SIGTERM and SIGINT, and shortly before a spot instance is taken away:
//! at the notice everything is uploaded, and the mount serves on until its last half minute. A second signal keeps what is
//! not uploaded for `s3mount recover` and leaves at once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::Failure;
use super::systemd::{self, Watchdog};
use super::telling;
use super::unkept::{Asking, here_only};
use crate::clock::Clock;
use crate::ec2::{Imds, spot};
use crate::export::cloudwatch::CloudWatchExport;
use crate::export::prometheus::PrometheusServer;
use crate::export::status::{Status, StatusSource, UnmountRequest};
use crate::fs::{Drained, Drains, FileSystem};
use crate::fuse::mount::Mounted;
use crate::fuse::session::Served;

/// How often a session is looked at; the kernel tells its end to the threads that serve it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A mount ends so long before its instance does: what was written since the notice is uploaded in that time.
const BEFORE_THE_INSTANCE: Duration = Duration::from_secs(30);

/// How long a signal's end tries again to bring away what neither S3 nor the journal took, and how often: what other files had on local
/// disk gives its room back aside, and somebody may make some. Well within the last half minute of an instance.
const LAST_TRIES_LIMIT: Duration = Duration::from_secs(20);
const LAST_TRIES_EVERY: Duration = Duration::from_secs(2);

/// How long the end waits for what the disk cache is still to keep.
const DISK_CACHE_LIMIT: Duration = Duration::from_secs(5);

/// A mount that is in use is asked for again before that is said: a program that just closed its last file, or a child that
/// was forked and has yet to let go of what it inherited, uses it for a moment longer.
const BUSY_TRIES_MAX: u32 = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// SIGTERM, SIGINT, and SIGHUP where it says that the terminal is closed; elsewhere that is for the log.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

/// Whether the process has a terminal that it does not outlive: nohup(1) has SIGHUP ignored. To be asked before anybody
/// listens for signals.
fn ends_with_its_terminal() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    ignored & (1 << (libc::SIGHUP - 1)) == 0 && std::fs::File::open("/dev/tty").is_ok()
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: ends_with_its_terminal().then(|| signal(SignalKind::hangup())).transpose()?,
        })
    }

    /// The terminal is no longer ours.
    pub(super) fn leave_terminal(&mut self) {
        self.hangup = None;
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            Some(()) = hung_up(&mut self.hangup) => {}
        }
    }

    /// Does some work of the start, unless a signal ends the process first.
    pub(super) async fn unless_ended<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            done = work => Ok(done),
            () = self.next() => Err(Failure::mount("a signal ended the start before the mount answered")),
        }
    }
}

async fn hung_up(hangup: &mut Option<Signal>) -> Option<()> {
    match hangup {
        Some(hangup) => hangup.recv().await,
        None => std::future::pending().await,
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
    pub(super) cloudwatch: Option<CloudWatchExport>,
    /// Answers for as long as the mount is there.
    pub(super) prometheus: Option<PrometheusServer>,
    /// Where spot notices come from, on a spot instance.
    pub(super) spot: Option<Arc<Imds>>,
    pub(super) watchdog: Watchdog,
    /// Asks the journal again for what neither S3 nor it took.
    pub(super) unkept: Asking,
}

enum Event {
    SessionEnded,
    Signal,
    /// The instance will be taken away, and its last half minute has begun.
    InstanceEnds,
    Unmount(UnmountRequest),
}

/// Waits for the end of a mount and brings it about in order; says what it left behind, if anything.
pub(super) async fn until_the_end(mut mount: Mount) -> Option<String> {
    let mut waiting = None;
    let drains = Arc::new(Drains::default());
    let instance_end = instance_end(mount.spot.clone(), Arc::clone(&mount.fs), Arc::clone(&drains));
    tokio::pin!(instance_end);
    let mut followers: Vec<UnmountRequest> = Vec::new();
    loop {
        let event = tokio::select! {
            () = session_end(&mount.session) => Event::SessionEnded,
            () = &mut instance_end => Event::InstanceEnds,
            () = mount.signals.next() => Event::Signal,
            Some(wish) = mount.unmount.recv() => Event::Unmount(wish),
        };
        match event {
            Event::SessionEnded => break,
            Event::Signal | Event::InstanceEnds => {
                let cause = if matches!(event, Event::Signal) { "a signal" } else { "the end of the instance" };
                tracing::info!("{cause} ends the mount; a signal then ends it without waiting for uploads");
                if let Err(error) = mount.mounted.detach() {
                    tracing::warn!(%error, "the mount could not be taken out of the tree");
                }
                break;
            }
            Event::Unmount(wish) if wish.follows => {
                followers.retain(|follower| !follower.steps.is_closed());
                followers.push(wish);
            }
            Event::Unmount(wish) => {
                let unmounted = tokio::select! {
                    outcome = unmount(&mount.fs, &drains, &mount.mounted, &mount.told, &wish) => outcome,
                    // Whoever ends the process does not wait for a client that wants everything uploaded first.
                    () = mount.signals.next() => {
                        tracing::info!("a signal ends the mount while it is being unmounted");
                        if let Err(error) = mount.mounted.detach() {
                            tracing::warn!(%error, "the mount could not be taken out of the tree");
                        }
                        followers.push(wish);
                        break;
                    }
                };
                if unmounted {
                    waiting = Some(wish);
                    break;
                }
            }
        }
    }
    // Nobody answers where it was mounted, from now on.
    drop((mount.watchdog, mount.unkept));
    systemd::stopping("uploading what is not in S3 yet");
    let uploaded_or_kept = async {
        tokio::select! {
            () = drain(&mount.fs, &drains) => {}
            () = mount.signals.next() => {
                mount.fs.keep_all(&drains).await;
                tracing::warn!("ended before everything was uploaded; see `s3mount recover list`");
            }
        }
    };
    tokio::select! {
        () = uploaded_or_kept => {}
        // Copies of what was spilled may be large, too.
        never = systemd::while_draining(&mount.told.metrics, || drains.drained().unkept.len()) => match never {},
    }
    let fs = Arc::clone(&mount.fs);
    // A cache that is not whole costs requests after the next start, and nothing else.
    let _ = tokio::task::spawn_blocking(move || fs.settle_disk_cache(DISK_CACHE_LIMIT)).await;
    let drained = mount.fs.drained(&drains);
    for lost in &drained.unkept {
        tracing::error!("lost: {lost}; write it again where there is room");
    }
    tracing::info!(published = drained.published, kept = drained.kept, lost = drained.unkept.len(), "unmounted");
    let left = left_behind(drained.kept, drained.unkept.len());
    if let Some(line) = &left {
        systemd::status(line);
    }
    // One that asked while the rest was uploaded.
    mount.unmount.close();
    while let Some(late) = mount.unmount.recv().await {
        followers.push(late);
    }
    followers.extend(waiting);
    // Who hears of the end may mount again at once, with the same address.
    if let Some(prometheus) = mount.prometheus {
        prometheus.stop().await;
    }
    if !followers.is_empty() {
        let ended = told(&mount.told, "ended", &drained);
        for follower in followers {
            // A client that went away hears nothing, and one that does not listen is not waited for.
            let _ = follower.steps.try_send(ended.clone());
        }
        // The answer is written by another task; it is short.
        tokio::time::sleep(LOOK_EVERY).await;
    }
    // Everything is in S3 or kept: what it took is told last.
    if let Some(cloudwatch) = mount.cloudwatch {
        cloudwatch.finish().await;
    }
    left
}

/// What is said of an end that did not bring everything into S3; nothing of one that did.
pub fn left_behind(kept: usize, lost: usize) -> Option<String> {
    let kept = (kept > 0).then(|| format!("{kept} files could not be uploaded and are kept: see s3mount recover list"));
    let lost =
        (lost > 0).then(|| format!("{lost} files are lost, which neither S3 nor the journal took: the log names them"));
    let lines: Vec<_> = lost.into_iter().chain(kept).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// A word to somebody who waits for the end.
fn told(source: &StatusSource, state: &str, drained: &Drained) -> Status {
    let unkept = drained.unkept.iter().map(telling::unkept).collect();
    Status { state: state.into(), kept: drained.kept, ..source.now() }.with_unkept(unkept)
}

/// Waits for a spot notice, uploads everything at once, and ends shortly before the instance does.
async fn instance_end(spot: Option<Arc<Imds>>, fs: Arc<FileSystem>, drains: Arc<Drains>) {
    let Some(imds) = spot else { return std::future::pending().await };
    let notice = spot::notice(&imds).await;
    let left = notice.time_left(Clock::system().wall());
    let (action, seconds) = (&notice.action, left.as_secs());
    tracing::warn!("EC2 takes this spot instance away ({action}) in {seconds} s: everything is uploaded now");
    systemd::status("a spot notice came: uploading what is not in S3 yet");
    let until = tokio::time::sleep(left.saturating_sub(BEFORE_THE_INSTANCE));
    // Applications go on meanwhile: nothing is refused before it must be. What is not uploaded by then goes the way of every end.
    tokio::spawn(async move {
        fs.drain_into(&drains).await;
        let Drained { published, kept, unkept } = drains.drained();
        tracing::info!(published, kept, unkept = unkept.len(), "uploaded after the spot notice");
    });
    until.await;
}

async fn session_end(session: &Served) {
    while !session.is_finished() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn drain(fs: &FileSystem, drains: &Drains) {
    fs.drain_into(drains).await;
    let files = drains.drained().unkept.len();
    if files > 0 {
        tracing::error!(
            "{}, after tries for {} s; a signal ends them at once",
            here_only(files),
            LAST_TRIES_LIMIT.as_secs()
        );
        let last_tries = async {
            while !drains.drained().unkept.is_empty() {
                tokio::time::sleep(LAST_TRIES_EVERY).await;
                fs.drain_into(drains).await;
            }
        };
        if tokio::time::timeout(LAST_TRIES_LIMIT, last_tries).await.is_err() {
            fs.keep_all(drains).await;
        }
    }
    fs.delete_all_unlinked().await;
}

/// Publishes everything, then unmounts, unless somebody still uses the mount, or its end would lose something. Whether it did.
async fn unmount(
    fs: &FileSystem,
    drains: &Drains,
    mounted: &Arc<Mounted>,
    told_by: &StatusSource,
    wish: &UnmountRequest,
) -> bool {
    fs.drain_into(drains).await;
    let drained = fs.drained(drains);
    if !drained.unkept.is_empty() {
        let answer = told(told_by, "failed", &drained);
        let message = Some(here_only(drained.unkept.len()));
        let _ = wish.steps.send(Status { message, ..answer }).await;
        return false;
    }
    let mut outcome;
    let mut tries = 0;
    loop {
        let mounted = Arc::clone(mounted);
        outcome = tokio::task::spawn_blocking(move || mounted.unmount()).await;
        tries += 1;
        let is_busy = matches!(&outcome, Ok(Err(error)) if error.kind() == io::ErrorKind::ResourceBusy);
        if !is_busy || tries == BUSY_TRIES_MAX {
            break;
        }
        tokio::time::sleep(BUSY_PAUSE).await;
    }
    let (state, message) = match outcome {
        Ok(Ok(())) => return true,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ResourceBusy => ("busy", error.to_string()),
        Ok(Err(error)) => ("failed", error.to_string()),
        Err(error) => ("failed", error.to_string()),
    };
    let answer = told(told_by, state, &drained);
    let _ = wish.steps.send(Status { message: Some(message), ..answer }).await;
    false
}
