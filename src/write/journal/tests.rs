//! What tests do to a journal.

use parking_lot::Mutex;

use super::Journal;

/// A disk that is full, or slow at the worst moment.
#[derive(Default)]
pub(in super::super) struct Interference {
    room_bytes: Mutex<Option<u64>>,
    when_written: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Interference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interference").finish_non_exhaustive()
    }
}

impl Interference {
    pub(super) fn room_bytes(&self) -> u64 {
        self.room_bytes.lock().unwrap_or(u64::MAX)
    }

    pub(super) fn written(&self) {
        let wait = self.when_written.lock().take();
        if let Some(wait) = wait {
            wait();
        }
    }
}

impl Journal {
    /// Its disk has so many bytes free from now on.
    pub(crate) fn leave_room(&self, bytes: u64) {
        *self.test.room_bytes.lock() = Some(bytes);
    }

    /// Does this once, when the next copy is written and before it counts.
    pub(crate) fn when_written(&self, then: impl FnOnce() + Send + 'static) {
        *self.test.when_written.lock() = Some(Box::new(then));
    }
}
