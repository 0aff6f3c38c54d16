//! Files that are asked for before they are opened, because their neighbours were.
//!
//! Owns the readers that wait for their open. Each is what one GET answered, with the moment at which that GET was made:
//! whoever opens says how old it may be. What nobody opens in time is dropped; its bytes, once in the cache, stay there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::flight::Owner;
use super::open::HEAD_BYTES;
use super::{ReadEngine, Reader};
use crate::clock::Clock;
use crate::types::{ObjectInfo, ObjectKey};

/// Files that may wait for their open.
const BROUGHT_MAX: usize = 512;

/// By key, what is asked for and was not opened yet.
pub(super) type Brought = HashMap<ObjectKey, Coming>;

/// A reader on its way, and when it was ordered.
#[derive(Debug)]
pub(super) struct Coming {
    ordered: Instant,
    reader: oneshot::Receiver<(Instant, Reader)>,
}

impl ReadEngine {
    /// Asks for the whole of a file that may be opened soon, unless it is on its way already, or one GET does not bring all of
    /// it; false if memory or the number of such files does not allow it. What was ordered before `no_older_than` is forgotten.
    pub fn bring(&self, info: &ObjectInfo, clock: &Clock, no_older_than: Instant) -> bool {
        if !(1..=HEAD_BYTES).contains(&info.size_bytes) {
            return true;
        }
        let mut brought = self.0.brought.lock();
        if brought.get(info.key()).is_some_and(|coming| coming.ordered >= no_older_than) {
            return true;
        }
        brought.retain(|_, coming| coming.ordered >= no_older_than);
        if brought.len() >= BROUGHT_MAX {
            return false;
        }
        let Some(lease) = self.0.fetcher.budget.try_take(info.size_bytes) else { return false };
        let (sender, reader) = oneshot::channel();
        brought.insert(info.key().clone(), Coming { ordered: clock.now(), reader });
        drop(brought);
        let (engine, info, clock) = (self.clone(), info.clone(), clock.clone());
        self.0.fetcher.runtime.spawn(async move {
            let asked = clock.now();
            let reader = engine.ask(info.key(), Some(&info), Arc::new(Owner::default()), Some(lease), 1).await;
            // A failure is for the open to find out; and who opens may have gone on.
            if let Ok(reader) = reader {
                let _ = sender.send((asked, reader));
            }
        });
        true
    }

    /// The reader of a file that was brought, if S3 was asked at `no_older_than` or later and the key holds the version that
    /// is `known`. Waits for what is on its way.
    pub async fn brought(&self, known: &ObjectInfo, no_older_than: Instant) -> Option<Reader> {
        let coming = self.0.brought.lock().remove(known.key())?;
        let (asked, reader) = coming.reader.await.ok()?;
        (asked >= no_older_than && reader.info().version == known.version).then_some(reader)
    }
}
