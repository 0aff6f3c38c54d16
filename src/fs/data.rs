//! Bytes: read, write, allocate.
//!
//! A read is answered from the inode's writer where it holds newer bytes, else from the handle's reader of the view's
//! version. When publishing or renaming moves the view while a read is under way, the read begins anew on the new
//! version; it never joins bytes of both.
//!
//! Invariant: a handle keeps no reader of another version than that of the view, and one that it has of before is never read.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::error::{FsError, FsResult};
use super::handles::OpenFile;
use super::opened::OpenInode;
use super::{FileSystem, KernelEvent};
use crate::metrics::Counter;
use crate::read::Reader;
use crate::types::{ByteRange, FileHandle, ObjectInfo};
use crate::write::{self, Piece, WriteError, Writer};

/// How often a read begins anew because this mount itself moved the view. Each move is a publication or a rename, so
/// that more of them within one read mean a program that publishes without end.
pub(super) const VIEW_MOVES_MAX: usize = 16;

/// Where the bytes of a read come from.
enum Source {
    Writer(Writer),
    Reader(Reader),
    Nothing,
}

impl FileSystem {
    /// Answers a read from memory; `None` where S3 must be asked or somebody waited for.
    pub fn try_read(&self, handle: FileHandle, range: ByteRange) -> Option<FsResult<Bytes>> {
        let file = match self.readable(handle) {
            Ok(file) => file,
            Err(error) => return Some(Err(error)),
        };
        let bytes = match self.source(&file).1 {
            Source::Reader(reader) => reader.try_read(range)?,
            Source::Nothing => Bytes::new(),
            Source::Writer(writer) => {
                let (pieces, base) = writer.pieces_over(range);
                match one_piece(pieces) {
                    OnePiece::Ready(bytes) => bytes,
                    OnePiece::Base(range) => self.reader_of(&file, &base?).try_read(range)?,
                    OnePiece::Several => return None,
                }
            }
        };
        self.metrics.add(Counter::BytesRead, bytes.len() as u64);
        Some(Ok(bytes))
    }

    /// Reads `range`, cut at the end of the file.
    pub async fn read(&self, handle: FileHandle, range: ByteRange) -> FsResult<Bytes> {
        let file = self.readable(handle)?;
        for _ in 0..VIEW_MOVES_MAX {
            let (generation, source) = self.source(&file);
            let outcome = match source {
                Source::Nothing => Ok(Bytes::new()),
                Source::Reader(reader) => reader.read(range).await.map_err(FsError::from),
                Source::Writer(writer) => match self.read_through(&file, &writer, range).await {
                    Ok(Some(bytes)) => Ok(bytes),
                    Ok(None) => {
                        // A part was uploaded and dropped from memory: publishing makes it readable.
                        self.publish(&file.inode).await?;
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            match outcome {
                Ok(bytes) => {
                    self.metrics.add(Counter::BytesRead, bytes.len() as u64);
                    return Ok(bytes);
                }
                Err(FsError::Stale) if self.view_moved(&file.inode, generation).await => {}
                Err(error) => return Err(error),
            }
        }
        Err(FsError::Stale)
    }

    /// Reads from a writer; `None` if a piece must be published before it can be read.
    async fn read_through(&self, file: &OpenFile, writer: &Writer, range: ByteRange) -> FsResult<Option<Bytes>> {
        let (pieces, base) = writer.pieces_over(range);
        let mut parts = Vec::with_capacity(pieces.len());
        for piece in write::load(pieces).await? {
            match piece {
                Piece::Staged(bytes) => parts.push(bytes),
                Piece::Zeros(len) => parts.push(zeros(len)),
                Piece::Base(range) => {
                    let base = base.as_ref().ok_or(FsError::Stale)?;
                    let bytes = self.reader_of(file, base).read(range).await?;
                    if bytes.len() as u64 != range.len() {
                        return Err(FsError::Stale);
                    }
                    parts.push(bytes);
                }
                Piece::Spilled(_) | Piece::Dropped(_) => return Ok(None),
            }
        }
        Ok(Some(joined(parts)))
    }

    /// Whether the view has moved on from `generation`, once those who are moving it have finished.
    pub(super) async fn view_moved(&self, inode: &OpenInode, generation: u64) -> bool {
        if inode.view.lock().generation != generation {
            return true;
        }
        let _tree = self.tree.read().await;
        let _order = inode.order.lock().await;
        inode.view.lock().generation != generation
    }

    fn readable(&self, handle: FileHandle) -> FsResult<Arc<OpenFile>> {
        let file = self.handles.file(handle)?;
        if file.readable { Ok(file) } else { Err(FsError::BadHandle) }
    }

    fn source(&self, file: &OpenFile) -> (u64, Source) {
        let view = file.inode.view.lock();
        let generation = view.generation;
        let source = match (&view.writer, &view.info) {
            (Some(writer), _) if writer.is_dirty() || view.unlinked || view.info.is_none() => {
                Source::Writer(writer.clone())
            }
            (_, Some(info)) => Source::Reader(self.cached_reader(file, info)),
            (_, None) => Source::Nothing,
        };
        (generation, source)
    }

    /// The handle's reader for the view's version; renewed when the view has moved, so that its detectors of streams
    /// live as long as the version.
    fn cached_reader(&self, file: &OpenFile, info: &ObjectInfo) -> Reader {
        let mut cached = file.reader.lock();
        match &*cached {
            Some(reader) if reader.info().version == info.version => reader.clone(),
            _ => cached.insert(self.read.reader(info)).clone(),
        }
    }

    /// A reader of the version that a writer rests on, or rested on a moment ago: only that of the view is worth keeping.
    fn reader_of(&self, file: &OpenFile, info: &ObjectInfo) -> Reader {
        let view = file.inode.view.lock();
        if view.info.as_ref().is_some_and(|seen| seen.version == info.version) {
            return self.cached_reader(file, info);
        }
        self.read.reader(info)
    }

    /// Takes written bytes into memory; `None` where the caller must wait (see [`FileSystem::write`]).
    pub fn try_write(&self, handle: FileHandle, offset: u64, data: &[u8]) -> Option<FsResult<()>> {
        let file = match self.writable(handle) {
            Ok(file) => file,
            Err(error) => return Some(Err(error)),
        };
        let writer = {
            let mut view = file.inode.view.lock();
            if view.unlinked && view.writer.is_none() {
                return None;
            }
            match self.writer(&file.inode, &mut view) {
                Ok(writer) => writer,
                Err(error) => return Some(Err(error)),
            }
        };
        let outcome = writer.try_write(offset, data)?;
        Some(outcome.map(|()| self.written(&file, &writer, offset, data.len())).map_err(Into::into))
    }

    /// Takes written bytes, waiting for room where staging is full.
    pub async fn write(&self, handle: FileHandle, offset: u64, data: Bytes) -> FsResult<()> {
        let file = self.writable(handle)?;
        let writer = self.writer_of(&file.inode).await?;
        let len = data.len();
        let mut outcome = writer.write(offset, data.clone()).await;
        while matches!(outcome, Err(WriteError::NoSpace)) && self.open.free_uploaded() {
            outcome = writer.write(offset, data.clone()).await;
        }
        outcome?;
        self.written(&file, &writer, offset, len);
        Ok(())
    }

    /// The inode's writer, made if there is none; that of an unlinked inode never publishes.
    pub(super) async fn writer_of(&self, inode: &OpenInode) -> FsResult<Writer> {
        let (writer, orphan) = {
            let mut view = inode.view.lock();
            let orphan = view.unlinked && view.writer.is_none();
            (self.writer(inode, &mut view)?, orphan)
        };
        if orphan {
            writer.abandon().await;
        }
        Ok(writer)
    }

    fn writable(&self, handle: FileHandle) -> FsResult<Arc<OpenFile>> {
        let file = self.handles.file(handle)?;
        if file.writable { Ok(file) } else { Err(FsError::BadHandle) }
    }

    fn written(&self, file: &OpenFile, writer: &Writer, offset: u64, len: usize) {
        self.metrics.add(Counter::BytesWritten, len as u64);
        if self.namespace.set_written(file.inode.ino, writer.size_bytes(), self.clock.wall()) {
            writer.set_attributes(self.namespace.object_attributes(file.inode.ino));
        }
        let others_read = || {
            let view = file.inode.view.lock();
            view.handles > view.write_handles || view.write_handles > 1
        };
        if self.options.invalidate_direct_writes && !file.readable && others_read() {
            let (offset, len) = (i64::try_from(offset).unwrap_or(0), i64::try_from(len).unwrap_or(0));
            self.tell_kernel(KernelEvent::Inode { ino: file.inode.ino, offset, len });
        }
    }

    /// fallocate(2) with mode 0: the file is at least `offset + len` long afterwards. Space is not reserved in S3,
    /// where it cannot run out.
    pub async fn allocate(&self, handle: FileHandle, range: ByteRange, mode: i32) -> FsResult<()> {
        if mode != 0 {
            return Err(FsError::Unsupported);
        }
        let file = self.writable(handle)?;
        let _tree = self.tree.read().await;
        let _order = file.inode.order.lock().await;
        let writer = self.writer_of(&file.inode).await?;
        if writer.size_bytes() < range.end {
            file.writers.lock().wrote(None);
            self.truncate_in_order(&file.inode, &writer, range.end).await?;
            self.note_written(file.inode.ino, &writer);
        }
        Ok(())
    }
}

enum OnePiece {
    Ready(Bytes),
    Base(ByteRange),
    Several,
}

fn one_piece(mut pieces: Vec<Piece>) -> OnePiece {
    if pieces.len() > 1 {
        return OnePiece::Several;
    }
    match pieces.pop() {
        None => OnePiece::Ready(Bytes::new()),
        Some(Piece::Staged(bytes)) => OnePiece::Ready(bytes),
        Some(Piece::Zeros(len)) => OnePiece::Ready(zeros(len)),
        Some(Piece::Base(range)) => OnePiece::Base(range),
        // Local disk may take its time.
        Some(Piece::Spilled(_) | Piece::Dropped(_)) => OnePiece::Several,
    }
}

/// `len` zero bytes; requests of the kernel are at most 1 MiB, which one static page serves without a copy.
fn zeros(len: u64) -> Bytes {
    static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
    match usize::try_from(len) {
        Ok(len) if len <= ZEROS.len() => Bytes::from_static(&ZEROS[..len]),
        Ok(len) => Bytes::from(vec![0; len]),
        Err(_) => Bytes::new(),
    }
}

fn joined(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() <= 1 {
        return parts.pop().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    for part in parts {
        whole.extend_from_slice(&part);
    }
    whole.freeze()
}
