//! Opening, reopening and what a handle may do.
//!
//! Opening for reading issues one GET of the first bytes, which learns the current version and brings data in the same
//! request (promise: close-to-open). While this mount holds unpublished bytes of the file, they are what is opened.
//!
//! A version other than the one that the kernel was told of opens as a new inode: the kernel's size and pages belong to the
//! inode, and would be those of the old one (docs/decisions/0004).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::Mutex;

use super::FileSystem;
use super::data::VIEW_MOVES_MAX;
use super::error::{FsError, FsResult};
use super::handles::OpenFile;
use super::opened::{InodeUse, OpenInode, Shown, View};
use crate::memory::PAGE_BYTES;
use crate::metrics::Gauge;
use crate::namespace::NodeKind;
use crate::read::{Reader, WholeFile};
use crate::store::StoreError;
use crate::types::{ByteRange, FileHandle, Ino, ObjectInfo, ObjectVersion};
use crate::write::{Base, WriteTarget, Writer};

/// The answer to an open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The new handle.
    pub handle: FileHandle,
    /// The kernel's cached pages of the inode are of the opened version and may stay (FOPEN_KEEP_CACHE).
    pub keep_cache: bool,
    /// Reads and writes of this handle pass the page cache by (FOPEN_DIRECT_IO): right for write-only handles, which
    /// nobody can map, and for all with `--direct-io`.
    pub direct_io: bool,
    /// The kernel may read the disk cache's file itself (FOPEN_PASSTHROUGH): see [`FileSystem::shown_file`].
    pub passthrough: bool,
}

/// What `flags` of open(2) ask for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) truncate: bool,
}

/// The version of an object that an open has found to be current and the view to be of.
pub(super) struct Checked {
    pub(super) reader: Reader,
    /// The kernel's pages are of it.
    pub(super) keep_cache: bool,
    /// The same for the kernel to read itself, which it does for all handles of an inode or for none (`fs/fuse/iomode.c`).
    pub(super) whole: Option<WholeFile>,
    /// The view's, when that was so.
    pub(super) generation: u64,
}

/// What a view is to an open that found a version to be current.
enum Seen {
    /// Of that version, at this generation.
    Settled(u64),
    /// This mount itself has moved it since, or wrote.
    Moved,
    /// Of another version.
    Other,
}

impl OpenInode {
    /// Looks at the view with a version that was found to be current, and settles it on that where nobody has seen another.
    fn see(&self, info: &ObjectInfo, told_otherwise: bool, generation: u64) -> Seen {
        let mut view = self.view.lock();
        if view.generation != generation || view.is_dirty() {
            return Seen::Moved;
        }
        let is_other = view.info.as_ref().is_some_and(|seen| seen.version != info.version);
        if told_otherwise || (view.handles > 0 && is_other) {
            return Seen::Other;
        }
        if is_other || view.info.is_none() {
            view.writer = None;
            view.move_to(Some(info.clone()));
        }
        view.settled = true;
        Seen::Settled(view.generation)
    }
}

impl Access {
    pub(super) fn of(flags: i32) -> Self {
        let mode = flags & libc::O_ACCMODE;
        let writable = mode == libc::O_WRONLY || mode == libc::O_RDWR;
        Self { readable: mode != libc::O_WRONLY, writable, truncate: writable && flags & libc::O_TRUNC != 0 }
    }
}

impl FileSystem {
    /// Opens a file with the flags of open(2). `ESTALE` makes the kernel look the name up again and open what is there
    /// then (`do_filp_open`): it is answered where another writer replaced what the kernel was told of.
    pub async fn open(&self, ino: Ino, flags: i32) -> FsResult<Opened> {
        self.open_by(ino, flags, 0).await
    }

    /// The same for the thread of this number (0: not known): what its lookup of a moment ago asked of S3 in the same call of
    /// open(2) is not asked again.
    pub async fn open_by(&self, ino: Ino, flags: i32, thread: u32) -> FsResult<Opened> {
        let mut asked = self.lookups.take(ino, thread, self.clock.now());
        let access = Access::of(flags);
        if access.writable {
            self.refuse_if_read_only()?;
        }
        let node = self.namespace.peek(ino).ok_or(FsError::Stale)?;
        match node.kind {
            NodeKind::File => {}
            NodeKind::Directory => return Err(FsError::IsADirectory),
            _ => return Err(FsError::Invalid("not a regular file")),
        }
        let inode = self.open.acquire(ino);
        if access.truncate {
            let _tree = self.tree.read().await;
            let _order = inode.order.lock().await;
            self.refuse_if_shown(&inode)?;
            self.truncate_at_open(&inode).await?;
            return self.insert_handle(inode.clone(), access);
        }
        for _ in 0..VIEW_MOVES_MAX {
            if inode.view.lock().given_up {
                let _until_kept = inode.order.lock().await;
            }
            if let Some(opened) = self.open_unpublished(&inode, access)? {
                return Ok(opened);
            }
            let generation = inode.view.lock().generation;
            // What this mount itself published since the lookup is newer than what that got.
            let asked = asked.take().filter(|asked| !self.namespace.has_changed_since(ino, asked.changes));
            let asked = asked.map(|asked| asked.reader);
            if let Some(opened) = self.open_published(&inode, access, generation, asked).await? {
                return Ok(opened);
            }
        }
        Err(FsError::Stale)
    }

    /// Opens what a writer of this mount holds, if it holds anything that S3 does not.
    fn open_unpublished(&self, inode: &InodeUse, access: Access) -> FsResult<Option<Opened>> {
        let local = {
            let view = inode.view.lock();
            !view.given_up && (view.unlinked || view.is_dirty())
        };
        if !local {
            return Ok(None);
        }
        match self.insert_handle(inode.clone(), access) {
            Err(FsError::Stale) if inode.view.lock().given_up => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Opens what S3 holds now; `None` if this mount itself moved the view meanwhile, or wrote. Many may do so at once.
    async fn open_published(
        &self,
        inode: &InodeUse,
        access: Access,
        generation: u64,
        asked: Option<Reader>,
    ) -> FsResult<Option<Opened>> {
        let told = self.namespace.peek(inode.ino).and_then(|node| node.info);
        let known = { inode.view.lock().info.clone() }.or_else(|| told.clone());
        let key = self.namespace.key(inode.ino)?;
        let may_show = !access.writable && !self.options.direct_io && self.passthrough.load(Relaxed);
        let checked = known.as_ref().filter(|_| may_show).and_then(|known| self.read.begin_check(known));
        let moment = self.namespace.moment();
        let (asked, learned) = match asked.filter(|reader| reader.info().key() == &key) {
            Some(reader) => (Ok(reader), true),
            None => {
                let brought = match &known {
                    Some(known) if !access.writable && known.key() == &key => self.neighbour(inode.ino, known).await,
                    _ => None,
                };
                let asked = match brought {
                    Some(reader) => Ok(reader),
                    None => self.read.open(&key, known.as_ref()).await,
                };
                (asked, false)
            }
        };
        let reader = match asked {
            Ok(reader) => reader,
            Err(_) if self.view_moved(inode, generation).await => return Ok(None),
            Err(StoreError::NotFound) if !self.namespace.key(inode.ino).is_ok_and(|now| now == key) => {
                return Err(FsError::Stale);
            }
            Err(error) => {
                if matches!(error, StoreError::NotFound) {
                    self.namespace.vanished(inode.ino, &moment);
                }
                return Err(error.into());
            }
        };
        let whole = match checked {
            Some(checked) => checked.whole(reader.info()).await,
            None => None,
        };
        let info = reader.info();
        let told_otherwise = told.is_some_and(|told| told.version != info.version);
        let mut seen = inode.see(info, told_otherwise, generation);
        if matches!(seen, Seen::Other) {
            // Whoever publishes, renames or copies the file has changed it in S3 before the view moves.
            if self.view_moved(inode, generation).await {
                return Ok(None);
            }
            seen = inode.see(info, told_otherwise, generation);
        }
        let generation = match seen {
            Seen::Settled(generation) => generation,
            Seen::Moved => return Ok(None),
            Seen::Other => {
                tracing::debug!(key = %info.key(), "another writer replaced this object; it opens as a new inode");
                if self.namespace.supersede(inode.ino, info) {
                    return Err(FsError::Stale);
                }
                // A rename is moving it: where to, and which version, it says when it is done.
                let _ = self.view_moved(inode, generation).await;
                return Ok(None);
            }
        };
        if !learned {
            self.namespace.learned(inode.ino, info, &moment);
        }
        let keep_cache = self.namespace.opened_version(inode.ino, &info.version);
        self.insert_opened(inode.clone(), access, Some(Checked { reader, keep_cache, whole, generation }))
    }

    /// Gives the inode a writer for an empty file, whatever it held; S3 is not asked.
    pub(super) fn writer_of_emptied(&self, inode: &OpenInode) -> FsResult<Writer> {
        let key = self.namespace.key(inode.ino)?;
        let known = self.namespace.peek(inode.ino).and_then(|node| node.info);
        let base = Base::Truncated(known.map(|info| info.etag().clone()));
        let attributes = self.namespace.object_attributes(inode.ino);
        let writer = self.write.writer(WriteTarget { key, base, attributes });
        let mut view = inode.view.lock();
        view.writer = Some(writer.clone());
        view.settled = true;
        Ok(writer)
    }

    /// O_TRUNC: whatever the file held is not wanted, so nothing is asked of S3.
    async fn truncate_at_open(&self, inode: &OpenInode) -> FsResult<()> {
        let present = inode.view.lock().writer.clone();
        let writer = match present {
            Some(writer) => {
                self.truncate_in_order(inode, &writer, 0).await?;
                writer
            }
            None => {
                self.refuse_if_too_many_unkept()?;
                self.writer_of_emptied(inode)?
            }
        };
        self.note_written(inode.ino, &writer);
        Ok(())
    }

    /// Makes a handle of what the view is, whatever that may be.
    ///
    /// # Errors
    /// As [`Self::insert_opened`].
    pub(super) fn insert_handle(&self, inode: InodeUse, access: Access) -> FsResult<Opened> {
        self.insert_opened(inode, access, None)?.ok_or(FsError::Stale)
    }

    /// Makes a handle; `checked` is the version that was opened. `None` if the view is another one by now.
    ///
    /// # Errors
    /// `Stale` where the kernel reads another content for the inode's handles: the name leads to a new inode then; and where what is
    /// unpublished is about to leave.
    pub(super) fn insert_opened(
        &self,
        inode: InodeUse,
        access: Access,
        checked: Option<Checked>,
    ) -> FsResult<Option<Opened>> {
        let (reader, keep_cache, whole, generation) = match checked {
            Some(it) => (Some(it.reader), it.keep_cache, it.whole, Some(it.generation)),
            None => (None, false, None, None),
        };
        let shown = {
            let mut view = inode.view.lock();
            if generation.is_some_and(|checked| checked != view.generation) {
                return Ok(None);
            }
            if view.given_up {
                return Err(FsError::Stale);
            }
            let same = |version: &ObjectVersion| view.info.as_ref().is_some_and(|info| info.version == *version);
            let may_show = !access.writable && !view.is_dirty();
            let shown = match (&view.shown, whole) {
                (Some(shown), _) if may_show && same(&shown.version) => true,
                (Some(_), _) => {
                    drop(view);
                    self.refuse_if_shown(&inode)?;
                    return Err(FsError::Stale);
                }
                (None, Some(whole)) if may_show && view.handles == 0 && reader.is_some() => {
                    let version = view.info.as_ref().map(|info| info.version.clone());
                    view.shown = version.map(|version| Shown { file: Arc::new(whole), version, handles: 0 });
                    view.shown.is_some()
                }
                (None, _) => false,
            };
            if let Some(it) = &mut view.shown {
                it.handles += usize::from(shown);
            }
            view.settled = true;
            view.handles += 1;
            view.write_handles += usize::from(access.writable);
            shown
        };
        self.metrics.shift(Gauge::OpenHandles, 1);
        let file = OpenFile {
            inode,
            readable: access.readable,
            writable: access.writable,
            shown: AtomicBool::new(shown),
            reader: Mutex::new(reader),
            writers: Mutex::default(),
        };
        let handle = self.handles.insert_file(file);
        let direct_io = self.options.direct_io || !access.readable;
        Ok(Some(Opened { handle, keep_cache, direct_io, passthrough: shown }))
    }

    /// The inode's writer, made when the first byte, size or attribute is written.
    pub(super) fn writer(&self, inode: &OpenInode, view: &mut View) -> FsResult<Writer> {
        if let Some(writer) = &view.writer {
            return Ok(writer.clone());
        }
        let info = view.info.clone().ok_or(FsError::Stale)?;
        let key = self.namespace.key(inode.ino).unwrap_or_else(|_| info.key().clone());
        let attributes = self.namespace.object_attributes(inode.ino);
        let content = self.content_at_hand(&info);
        let writer = self.write.writer(WriteTarget { key, base: Base::Object(info), attributes });
        writer.freeze(view.moving);
        if let Some(content) = content {
            writer.prime(content);
        }
        view.writer = Some(writer.clone());
        Ok(writer)
    }

    /// The whole content of a small object, if memory holds it, as it mostly does right after an open.
    fn content_at_hand(&self, info: &ObjectInfo) -> Option<Bytes> {
        if info.size_bytes > PAGE_BYTES as u64 {
            return None;
        }
        let content = self.read.reader(info).try_read(ByteRange::new(0, info.size_bytes))?;
        (content.len() as u64 == info.size_bytes).then_some(content)
    }
}
