//! What the picture shows: mounts, the one that is chosen, and the history of each. Pure: answers and keys go in.

use std::collections::VecDeque;

use super::rates::{Rates, between};
use crate::export::status::Status;

/// Rates that are kept for the curves: as many as a wide terminal has columns for, two to a column.
const HISTORY_MAX: usize = 600;

/// Everything that is drawn.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) mounts: Vec<MountSeen>,
    pub(super) chosen: usize,
    pub(super) is_paused: bool,
}

/// One mount.
#[derive(Debug, Default)]
pub(super) struct MountSeen {
    /// Device number: what the mount is known by.
    pub(super) device: u64,
    /// Where it is.
    pub(super) dir: String,
    /// The last answer.
    pub(super) status: Option<Status>,
    /// Why there is no newer one.
    pub(super) failure: Option<String>,
    /// Rates by time, oldest first.
    pub(super) history: VecDeque<Rates>,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Quit,
    Pause,
    Next,
    Previous,
}

impl MountSeen {
    /// The latest rates.
    pub(super) fn rates(&self) -> Option<&Rates> {
        self.history.back()
    }

    /// Takes an answer, or why there was none.
    pub(super) fn hear(&mut self, answer: Result<Status, String>) {
        match answer {
            Ok(status) => {
                if let Some(before) = &self.status {
                    self.history.push_back(between(before, &status));
                    if self.history.len() > HISTORY_MAX {
                        self.history.pop_front();
                    }
                }
                self.status = Some(status);
                self.failure = None;
            }
            Err(failure) => self.failure = Some(failure),
        }
    }
}

impl Model {
    /// The mounts that are there now; what is known of those that stay is kept, and one that went is shown as gone.
    pub(super) fn found(&mut self, present: &[(u64, String)]) {
        for (device, dir) in present {
            if !self.mounts.iter().any(|mount| mount.device == *device) {
                // A mount that came anew at the place of one that is gone takes its place.
                self.mounts.retain(|mount| mount.dir != *dir);
                self.mounts.push(MountSeen { device: *device, dir: dir.clone(), ..MountSeen::default() });
            }
        }
        for mount in &mut self.mounts {
            if !present.iter().any(|(device, _)| *device == mount.device) {
                mount.failure = Some("it is no longer mounted".into());
            }
        }
        self.chosen = self.chosen.min(self.mounts.len().saturating_sub(1));
    }

    /// The mount that is shown.
    pub(super) fn shown(&self) -> Option<&MountSeen> {
        self.mounts.get(self.chosen)
    }

    /// Does what a key asks for; true if that is to quit.
    pub(super) fn obey(&mut self, wish: Wish) -> bool {
        let count = self.mounts.len().max(1);
        match wish {
            Wish::Quit => return true,
            Wish::Pause => self.is_paused = !self.is_paused,
            Wish::Next => self.chosen = (self.chosen + 1) % count,
            Wish::Previous => self.chosen = (self.chosen + count - 1) % count,
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(model: &mut Model, present: &[(u64, &str)]) {
        let present: Vec<_> = present.iter().map(|(device, dir)| (*device, (*dir).to_owned())).collect();
        model.found(&present);
    }

    #[test]
    fn a_mount_that_goes_is_shown_as_gone_and_one_that_comes_back_takes_its_place() {
        let mut model = Model::default();
        found(&mut model, &[(1, "/a"), (2, "/b")]);
        model.mounts[0].hear(Ok(Status::default()));
        found(&mut model, &[(2, "/b")]);
        assert!(model.mounts[0].failure.is_some() && model.mounts[0].status.is_some());
        found(&mut model, &[(2, "/b"), (3, "/a")]);
        let devices: Vec<_> = model.mounts.iter().map(|mount| mount.device).collect();
        assert_eq!(devices, [2, 3]);
    }

    #[test]
    fn arrows_go_round() {
        let mut model = Model::default();
        found(&mut model, &[(1, "/a"), (2, "/b")]);
        assert!(!model.obey(Wish::Previous));
        assert_eq!(model.chosen, 1);
        model.obey(Wish::Next);
        assert_eq!(model.chosen, 0);
        assert!(model.obey(Wish::Quit));
        assert!(!Model::default().obey(Wish::Next));
    }

    #[test]
    fn history_is_bounded_and_a_failure_keeps_what_was_known() {
        let mut mount = MountSeen::default();
        for second in 0..2000_u32 {
            mount.hear(Ok(Status { uptime_seconds: f64::from(second), ..Status::default() }));
        }
        assert_eq!(mount.history.len(), HISTORY_MAX);
        mount.hear(Err("gone".into()));
        assert!(mount.status.is_some() && mount.failure.as_deref() == Some("gone"));
        mount.hear(Ok(Status::default()));
        assert_eq!(mount.failure, None);
    }
}
