//! Files that neither S3 nor the journal took: the journal is asked for them again as long as the mount lives, and systemd hears how
//! many there are.
//!
//! Owns no bytes and gives none up. Nothing is uploaded again: close(2) has said that it failed, and must not have done all the same
//! a moment later.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::systemd;
use crate::clock::Clock;
use crate::fs::FileSystem;

/// How often the journal is asked again, and how many times as long as asking took there is a pause at least: a copy that a failing disk
/// breaks off may be large.
const ASK_EVERY: Duration = Duration::from_secs(10);
const PAUSE_TIMES: u32 = 10;

/// Asks until dropped.
#[derive(Debug)]
pub(super) struct Asking(AbortHandle);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Begins to ask. `serving` is what systemd shows of a mount that has no such files.
pub(super) fn ask_again(fs: &Arc<FileSystem>, serving: String) -> Asking {
    let (fs, clock) = (Arc::downgrade(fs), Clock::system());
    let task = tokio::spawn(async move {
        let (mut told, mut pause) = (0, ASK_EVERY);
        loop {
            tokio::time::sleep(pause).await;
            let Some(fs) = fs.upgrade() else { return };
            let began = clock.now();
            let left = fs.keep_unkept().await;
            pause = ASK_EVERY.max(clock.now().saturating_duration_since(began) * PAUSE_TIMES);
            if left != told {
                told = left;
                systemd::status(&if left == 0 { serving.clone() } else { here_only(left) });
            }
        }
    });
    Asking(task.abort_handle())
}

/// What is said of so many files while the mount lives.
pub(super) fn here_only(files: usize) -> String {
    format!(
        "{files} files are neither in S3 nor in the journal, and end with the mount: make room in the state directory, or write them \
         again where there is room"
    )
}
