//! Files that nobody writes any more and that could not be published: they go into the journal, or stay here.
//!
//! Owns what becomes of a writer that is given up. Invariant: written bytes leave the process for S3 or the journal only, or because
//! somebody removed, emptied or cut the file. A file that neither took stays in use without a handle as long as the mount lives, and
//! the journal is asked for it again.

use std::io;
use std::sync::atomic::Ordering::Relaxed;

use super::error::{FsError, FsResult};
use super::opened::{InodeUse, OpenInode};
use super::{FileSystem, KernelEvent};
use crate::types::ObjectKey;
use crate::write::{Keep, KeptId, Writer};

/// Files that may stay here at once. Their bytes are bounded by the memory and disk for unpublished bytes; each takes some KiB beside
/// those.
pub(super) const UNKEPT_FILES_MAX: usize = 10_000;

/// A file whose bytes neither S3 nor the journal took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unkept {
    /// Key that it was to have.
    pub key: ObjectKey,
    /// Why S3 did not take it.
    pub upload: String,
    /// Why the journal did not.
    pub journal: String,
}

impl std::fmt::Display for Unkept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: not in S3 ({}), not in the journal ({})", self.key, self.upload, self.journal)
    }
}

/// What became of a file that was to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Published,
    /// Under this name, if there is a journal.
    Kept(Option<KeptId>),
    Unkept(Unkept),
}

/// An inode that stays in use because nobody else has its bytes.
#[derive(Debug)]
pub(super) struct Stays {
    why: Unkept,
    inode: InodeUse,
}

impl Stays {
    fn new(inode: InodeUse, why: Unkept) -> Self {
        inode.table().unkept.fetch_add(1, Relaxed);
        Self { why, inode }
    }
}

impl Drop for Stays {
    fn drop(&mut self) {
        self.inode.table().unkept.fetch_sub(1, Relaxed);
    }
}

/// For as long as this lives, what is unpublished is about to leave: whoever opens the file waits.
struct GivenUp<'a>(&'a OpenInode);

impl<'a> GivenUp<'a> {
    /// `None` if somebody has the file open for writing, who then hears of the failure.
    fn of_unwritten(inode: &'a OpenInode, reason: &str) -> Option<Self> {
        let mut view = inode.view.lock();
        view.given_up = view.write_handles == 0;
        if !view.given_up {
            view.failed = Some(reason.to_owned());
            return None;
        }
        Some(Self(inode))
    }
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        self.0.view.lock().given_up = false;
    }
}

/// Has the journal take the bytes of a writer, in a thread that may block. Goes on to the end also where nobody waits for it.
pub(super) async fn keep(writer: &Writer, reason: &str) -> Fate {
    let (keeping, why) = (writer.clone(), reason.to_owned());
    let kept = tokio::task::spawn_blocking(move || keeping.keep(&why)).await;
    match kept.unwrap_or_else(|ended| Err(io::Error::other(ended))) {
        Ok(Keep::Kept(id)) => Fate::Kept(id),
        Ok(Keep::Published) => Fate::Published,
        Err(error) => Fate::Unkept(Unkept { key: writer.key(), upload: reason.to_owned(), journal: error.to_string() }),
    }
}

impl FileSystem {
    /// Puts what is unpublished into the journal, for a caller who holds the inode's order. While somebody has the file open for
    /// writing it stays here, too: what that program writes on must meet what it wrote before; and where the journal does not take it.
    /// Otherwise the file is again what S3 has.
    pub(super) async fn give_up(&self, inode: &OpenInode, writer: &Writer, reason: &str) -> Fate {
        tracing::error!(ino = %inode.ino, reason, "a file could not be uploaded");
        let was_told = inode.view.lock().unkept.is_some();
        let fate = self.keep_or_stay(inode, writer, reason).await;
        if let Fate::Unkept(why) = &fate
            && !was_told
        {
            tracing::error!("{why}: it is here only, and the journal is asked again until the mount ends");
        }
        fate
    }

    /// The same without a word.
    pub(super) async fn keep_or_stay(&self, inode: &OpenInode, writer: &Writer, reason: &str) -> Fate {
        let Some(_until_settled) = GivenUp::of_unwritten(inode, reason) else {
            return keep(writer, reason).await;
        };
        let fate = keep(writer, reason).await;
        if let Fate::Unkept(why) = &fate {
            let stays = self.open.join(inode.ino).map(|inode| Stays::new(inode, why.clone()));
            let _before = std::mem::replace(&mut inode.view.lock().unkept, stays);
            return fate;
        }
        self.let_go(inode);
        fate
    }

    /// What a call was to publish and could not is not wanted, unless somebody has the file open for writing by now.
    pub(super) fn let_go_if_unwritten(&self, inode: &OpenInode, reason: &str) {
        if let Some(_until_gone) = GivenUp::of_unwritten(inode, reason) {
            self.let_go(inode);
        }
    }

    /// What was unpublished is elsewhere, or not wanted: the file is again what S3 has. For a caller who sees to it that nobody opens it
    /// for writing meanwhile.
    fn let_go(&self, inode: &OpenInode) {
        self.namespace.revert(inode.ino);
        let _unkept = {
            let mut view = inode.view.lock();
            view.writer = None;
            let base = view.info.take();
            view.move_to(base);
            view.unkept.take()
        };
        // The kernel still caches pages of what was given up.
        self.tell_kernel(KernelEvent::Inode { ino: inode.ino, offset: 0, len: 0 });
    }

    /// Asks the journal again for every file that neither S3 nor it took; it may have room by now. Answers how many stay.
    pub async fn keep_unkept(&self) -> usize {
        for inode in self.open.unkept() {
            let _tree = self.tree.read().await;
            let _order = inode.order.lock().await;
            let wanted = {
                let view = inode.view.lock();
                // Whoever writes to it publishes it, or gives it up again.
                let is_idle = view.write_handles == 0 && view.is_dirty();
                let stays = view.unkept.as_ref().filter(|_| is_idle);
                stays.zip(view.writer.as_ref()).map(|(stays, writer)| (writer.clone(), stays.why.upload.clone()))
            };
            if let Some((writer, reason)) = wanted {
                let drain = self.write.draining();
                let fate = self.keep_or_stay(&inode, &writer, &reason).await;
                drop(writer);
                if !matches!(fate, Fate::Unkept(_)) {
                    drain.freed();
                }
            }
        }
        self.unkept_files()
    }

    /// How many files neither S3 nor the journal took.
    pub fn unkept_files(&self) -> usize {
        self.open.unkept.load(Relaxed)
    }

    /// These files.
    pub fn unkept(&self) -> Vec<Unkept> {
        if self.unkept_files() == 0 {
            return Vec::new();
        }
        let stays = self.open.unkept();
        stays.iter().filter_map(|inode| inode.view.lock().unkept.as_ref().map(|stays| stays.why.clone())).collect()
    }

    /// Refuses to begin a file that might have to stay here, where there are too many.
    pub(super) fn refuse_if_too_many_unkept(&self) -> FsResult<()> {
        if self.unkept_files() < UNKEPT_FILES_MAX {
            return Ok(());
        }
        Err(FsError::NoSpace(format!("{UNKEPT_FILES_MAX} files could neither be uploaded nor kept")))
    }
}
