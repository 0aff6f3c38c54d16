//! Lookups that open(2) makes of names that are not known, or have grown old: the open's own GET answers them, so that both
//! cost one request.
//!
//! The kernel looks a name up and opens what was found as two requests of one call. Owns the readers that such lookups got,
//! until the open of the same thread comes for them. Invariant: the kernel keeps no name for which a reader waits here (the
//! answer gives it no time, and an answer that does drops the reader), so that each later call begins with a lookup of its
//! own: what an open finds here was asked of S3 after its call began, which is what close-to-open asks for.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::FileSystem;
use super::error::{FsError, FsResult};
use super::open::Access;
use crate::namespace::{Node, NodeKind};
use crate::read::Reader;
use crate::types::Ino;

/// From a lookup's answer to the open of the same call a busy machine takes some milliseconds; readers of calls that ended
/// otherwise shall not pin their bytes.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Readers that wait for their open: a few at a time, one for each thread in open(2).
#[derive(Debug, Default)]
pub(super) struct OpenLookups(Mutex<Vec<Waiting>>);

#[derive(Debug)]
struct Waiting {
    ino: Ino,
    thread: u32,
    since: Instant,
    asked: AskedByLookup,
}

/// What a lookup got of S3.
#[derive(Debug)]
pub(super) struct AskedByLookup {
    pub(super) reader: Reader,
    /// The count of local changes before it was asked for.
    pub(super) changes: u64,
}

impl OpenLookups {
    fn put(&self, waiting: Waiting) {
        let mut all = self.0.lock();
        // A thread is in one call at a time.
        all.retain(|old| old.thread != waiting.thread && is_timely(old, waiting.since));
        all.push(waiting);
    }

    /// The reader that a thread's lookup of the inode got.
    pub(super) fn take(&self, ino: Ino, thread: u32, now: Instant) -> Option<AskedByLookup> {
        let mut all = self.0.lock();
        let at = all.iter().position(|waiting| waiting.ino == ino && waiting.thread == thread)?;
        Some(all.swap_remove(at)).filter(|waiting| is_timely(waiting, now)).map(|waiting| waiting.asked)
    }

    /// The kernel is given the name for a while: calls of open(2) may come without a lookup.
    pub(super) fn forget(&self, ino: Ino) {
        let mut all = self.0.lock();
        if !all.is_empty() {
            all.retain(|waiting| waiting.ino != ino);
        }
    }
}

fn is_timely(waiting: &Waiting, now: Instant) -> bool {
    now.saturating_duration_since(waiting.since) < WAIT_MAX
}

/// The answer to a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookedUp {
    /// What the name leads to; its lookup count has been raised.
    pub node: Node,
    /// How long the kernel may keep the name.
    pub name_for: Duration,
}

impl From<Node> for LookedUp {
    fn from(node: Node) -> Self {
        Self { name_for: node.fresh_for, node }
    }
}

impl FileSystem {
    /// Looks a name up for a thread; `opening` has the flags of open(2) if it is in that call, of this name or of one below it.
    pub async fn lookup_in_call(
        &self,
        parent: Ino,
        name: &OsStr,
        thread: u32,
        opening: Option<i32>,
    ) -> FsResult<LookedUp> {
        match opening {
            None => self.lookup(parent, name).await.map(LookedUp::from),
            Some(flags) if flags & libc::O_DIRECTORY != 0 => {
                let name = Self::name(name).map_err(|_| FsError::NotFound)?;
                Ok(self.as_found(self.namespace.lookup_directory(parent, name).await?).into())
            }
            Some(flags) => self.lookup_to_open(parent, name, thread, flags).await,
        }
    }

    /// Looks a name up for a thread that is in open(2) with these flags, of this name or of one below it.
    pub async fn lookup_to_open(&self, parent: Ino, name: &OsStr, thread: u32, flags: i32) -> FsResult<LookedUp> {
        let spelled = Self::name(name).map_err(|_| FsError::NotFound)?;
        let access = Access::of(flags);
        let changes = self.namespace.changes();
        let asked = self.namespace.lookup_by(parent, spelled, async |key, known| {
            let brought = match known {
                Some((ino, known)) if !access.writable => self.neighbour(ino, known).await,
                _ => None,
            };
            let reader = match (brought, known) {
                (Some(reader), _) => reader,
                (None, Some((_, known))) => self.read.open_old(key, known).await?,
                (None, None) => self.read.open(key, None).await?,
            };
            Ok((reader.info().clone(), reader))
        });
        if let Some((node, reader)) = asked.await? {
            let is_of = |reader: &Reader| node.info.as_ref().is_some_and(|it| it.version == reader.info().version);
            if let Some(reader) = reader.filter(is_of).filter(|_| node.kind == NodeKind::File) {
                let asked = AskedByLookup { reader, changes };
                self.lookups.put(Waiting { ino: node.ino, thread, since: self.clock.now(), asked });
                return Ok(LookedUp { node: self.as_opened(node), name_for: Duration::ZERO });
            }
            return Ok(self.as_found(node).into());
        }
        self.lookup(parent, name).await.map(LookedUp::from)
    }
}
