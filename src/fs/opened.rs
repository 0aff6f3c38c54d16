//! What is open: for each inode in use one [`OpenInode`], which all its handles share.
//!
//! Invariant: every handle of an inode shows the same content, the inode's [`View`]: the version that was opened, or
//! what the inode's writer makes of it. A view moves to another version only by this mount's own publishing or renaming,
//! never because S3 changed: that is what keeps bytes of two versions apart, in our replies and in the kernel's page cache.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::unkept::Stays;
use crate::namespace::Namespace;
use crate::read::WholeFile;
use crate::types::{Ino, ObjectInfo, ObjectVersion};
use crate::write::Writer;

/// A file of the disk cache that the kernel reads itself (FUSE passthrough) for every handle of an inode. While there is one, the
/// inode's content does not change: who would change it gets a new inode.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) file: Arc<WholeFile>,
    pub(super) version: ObjectVersion,
    pub(super) handles: usize,
}

/// The content that all handles of an inode see.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The object that the content rests on; `None` while nothing of it is in S3.
    pub(super) info: Option<ObjectInfo>,
    /// Whether `info` was settled by an open or a create, and not merely defaulted.
    pub(super) settled: bool,
    /// Counts the moves of `info`: what was begun before one of them begins anew.
    pub(super) generation: u64,
    /// Local bytes over `info`.
    pub(super) writer: Option<Writer>,
    /// Why the last publication failed, if it did.
    pub(super) failed: Option<String>,
    /// A rename is moving the file: nothing new is uploaded under its key.
    pub(super) moving: bool,
    /// What is unpublished is being put into the journal and will be gone from here: whoever opens the file waits.
    pub(super) given_up: bool,
    /// The inode stays in use without a handle, because nobody else has the writer's bytes: neither S3 nor the journal took them.
    pub(super) unkept: Option<Stays>,
    /// Handles open for writing.
    pub(super) write_handles: usize,
    /// Handles in all.
    pub(super) handles: usize,
    /// What the kernel reads itself. Then all handles are of it.
    pub(super) shown: Option<Shown>,
    /// The name is gone; nothing is published any more, and the object goes with the last handle.
    pub(super) unlinked: bool,
    /// The object of the unlinked inode is still in S3 and is deleted at the last close.
    pub(super) delete_at_close: bool,
}

impl View {
    /// Moves the view to another version.
    pub(super) fn move_to(&mut self, info: Option<ObjectInfo>) {
        self.info = info;
        self.settled = true;
        self.generation += 1;
    }

    /// A handle is gone.
    pub(super) fn leave(&mut self, writable: bool, shown: bool) {
        self.handles -= 1;
        self.write_handles -= usize::from(writable);
        if shown {
            self.leave_shown();
        }
    }

    /// A handle that the kernel was to read itself is none of these any more.
    pub(super) fn leave_shown(&mut self) {
        if let Some(shown) = &mut self.shown {
            shown.handles -= 1;
            if shown.handles == 0 {
                self.shown = None;
            }
        }
    }

    /// Present length in bytes; `None` if neither a writer nor an object says.
    pub(super) fn size_bytes(&self) -> Option<u64> {
        match (&self.writer, &self.info) {
            (Some(writer), _) => Some(writer.size_bytes()),
            (None, Some(info)) => Some(info.size_bytes),
            (None, None) => None,
        }
    }

    /// Forgets a writer that holds nothing, unless somebody may be about to write through it: whoever has the file open for writing may
    /// have taken it and wait for memory.
    pub(super) fn forget_clean_writer(&mut self) {
        if self.write_handles == 0 && !self.is_dirty() {
            self.writer = None;
        }
    }

    /// Whether a writer holds bytes, a size or attributes that S3 does not have.
    pub(super) fn is_dirty(&self) -> bool {
        self.writer.as_ref().is_some_and(Writer::is_dirty)
    }
}

/// One inode that is in use.
#[derive(Debug)]
pub(super) struct OpenInode {
    pub(super) ino: Ino,
    /// Held across S3 by whoever changes which object the inode is: opening, publishing, truncating, renaming, unlinking.
    pub(super) order: tokio::sync::Mutex<()>,
    pub(super) view: Mutex<View>,
}

#[derive(Debug)]
struct Row {
    inode: Arc<OpenInode>,
    uses: usize,
}

/// All inodes in use.
#[derive(Debug)]
pub(super) struct OpenInodes {
    /// How many of them stay because nobody else has their bytes.
    pub(super) unkept: AtomicUsize,
    rows: Mutex<HashMap<Ino, Row>>,
    namespace: Namespace,
}

/// One use of an inode: keeps its [`OpenInode`] and pins it in the namespace until dropped.
#[derive(Debug)]
pub(super) struct InodeUse {
    table: Arc<OpenInodes>,
    inode: Arc<OpenInode>,
}

impl OpenInodes {
    pub(super) fn new(namespace: Namespace) -> Arc<Self> {
        Arc::new(Self { unkept: AtomicUsize::new(0), rows: Mutex::new(HashMap::new()), namespace })
    }

    /// Begins a use of `ino`.
    pub(super) fn acquire(self: &Arc<Self>, ino: Ino) -> InodeUse {
        let mut rows = self.rows.lock();
        let row = rows.entry(ino).or_insert_with(|| {
            self.namespace.pin(ino);
            let inode = OpenInode { ino, order: tokio::sync::Mutex::new(()), view: Mutex::default() };
            Row { inode: Arc::new(inode), uses: 0 }
        });
        row.uses += 1;
        InodeUse { table: Arc::clone(self), inode: Arc::clone(&row.inode) }
    }

    /// The inode, if it is in use.
    pub(super) fn get(&self, ino: Ino) -> Option<Arc<OpenInode>> {
        self.rows.lock().get(&ino).map(|row| Arc::clone(&row.inode))
    }

    /// A further use of the inode, if it is in use.
    pub(super) fn join(self: &Arc<Self>, ino: Ino) -> Option<InodeUse> {
        let mut rows = self.rows.lock();
        let row = rows.get_mut(&ino)?;
        row.uses += 1;
        Some(InodeUse { table: Arc::clone(self), inode: Arc::clone(&row.inode) })
    }

    /// A use of every inode whose writer holds unpublished bytes that are wanted.
    pub(super) fn dirty(self: &Arc<Self>) -> Vec<InodeUse> {
        self.those(|view| view.is_dirty() && !view.unlinked)
    }

    /// The writers of all inodes in use.
    pub(super) fn writers(&self) -> Vec<Writer> {
        let inodes: Vec<_> = self.rows.lock().values().map(|row| Arc::clone(&row.inode)).collect();
        inodes.iter().filter_map(|inode| inode.view.lock().writer.clone()).collect()
    }

    /// Has all files give back the memory of parts that S3 has; whether any did.
    pub(super) fn free_uploaded(&self) -> bool {
        self.writers().iter().filter(|writer| writer.free_uploaded()).count() > 0
    }

    /// A use of every inode whose object waits for the last close to be deleted.
    pub(super) fn unlinked(self: &Arc<Self>) -> Vec<InodeUse> {
        self.those(|view| view.delete_at_close)
    }

    /// A use of every inode whose bytes nobody else has.
    pub(super) fn unkept(self: &Arc<Self>) -> Vec<InodeUse> {
        if self.unkept.load(Relaxed) == 0 {
            return Vec::new();
        }
        self.those(|view| view.unkept.is_some())
    }

    fn those(self: &Arc<Self>, wanted: impl Fn(&View) -> bool) -> Vec<InodeUse> {
        let all: Vec<Ino> = self.rows.lock().keys().copied().collect();
        all.into_iter().filter_map(|ino| self.join(ino)).filter(|inode| wanted(&inode.view.lock())).collect()
    }
}

impl InodeUse {
    pub(super) fn table(&self) -> &OpenInodes {
        &self.table
    }
}

impl std::ops::Deref for InodeUse {
    type Target = OpenInode;

    fn deref(&self) -> &OpenInode {
        &self.inode
    }
}

impl Clone for InodeUse {
    fn clone(&self) -> Self {
        let mut rows = self.table.rows.lock();
        if let Some(row) = rows.get_mut(&self.inode.ino) {
            row.uses += 1;
        }
        Self { table: Arc::clone(&self.table), inode: Arc::clone(&self.inode) }
    }
}

impl Drop for InodeUse {
    fn drop(&mut self) {
        let mut rows = self.table.rows.lock();
        if let Some(row) = rows.get_mut(&self.inode.ino) {
            row.uses -= 1;
            if row.uses == 0 {
                rows.remove(&self.inode.ino);
                self.table.namespace.unpin(self.inode.ino);
            }
        }
    }
}
