//! Words to systemd (sd_notify(3)); without `NOTIFY_SOCKET` they go nowhere.

use sd_notify::NotifyState;

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

/// The mount is ending.
pub(super) fn stopping(what: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(what)]);
}
