//! The real file system and the model side by side: every step is done to both and must come out the same.

mod replaced;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use s3mount::clock::Clock;
use s3mount::fs::{FileSystem, FsError, FsResult, NewFile, SetAttributes};
use s3mount::store::memory::MemoryStore;
use s3mount::store::{GetRange, GetRequest, ListRequest, ObjectAttributes, ObjectStore, PutRequest, WriteCondition};
use s3mount::types::{ByteRange, FileHandle, Ino};

use crate::Step;
use crate::engines::{METADATA_TTL, PART_BYTES, build, stack};
use crate::model::{Inode, Model};

/// Directories of the universe; the first is the root.
pub const DIRECTORIES: &[&str] = &["", "d", "d-x", "d/e"];
/// Files of the universe.
pub const PATHS: &[&str] = &["a", "b", "d/a", "d/b", "d-x/a", "d/e/a", "d/e/한글 🦀"];

type Step_ = Result<(), String>;

/// Both sides of the comparison.
pub struct World {
    bucket: Arc<MemoryStore>,
    store: Arc<dyn ObjectStore>,
    fs: Arc<FileSystem>,
    clock: Clock,
    model: Model,
    handles: BTreeMap<usize, FileHandle>,
    faulty: bool,
    little_memory: bool,
}

fn content(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|index| seed.wrapping_add((index % 251) as u8)).collect()
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, wanted: &T) -> Step_ {
    if found == wanted { Ok(()) } else { Err(format!("{what}: found {found:?}, wanted {wanted:?}")) }
}

fn same_bytes(what: &str, found: &[u8], wanted: &[u8]) -> Step_ {
    if found == wanted {
        return Ok(());
    }
    let at = found.iter().zip(wanted).position(|(one, other)| one != other).unwrap_or(found.len().min(wanted.len()));
    Err(format!("{what}: {} bytes, wanted {}, first other byte at {at}", found.len(), wanted.len()))
}

fn shown<T>(outcome: &FsResult<T>) -> String {
    match outcome {
        Ok(_) => "success".into(),
        Err(error) => format!("{error:?}"),
    }
}

fn refused<T>(what: &str, outcome: &FsResult<T>, wanted: fn(&FsError) -> bool) -> Step_ {
    match outcome {
        Err(error) if wanted(error) => Ok(()),
        other => Err(format!("{what}: came out as {}", shown(other))),
    }
}

impl World {
    /// Two empty sides; with a seed, the store fails now and then. With little memory most unpublished bytes are on disk.
    pub fn new(faults: Option<u64>, little_memory: bool) -> Self {
        let clock = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let bucket = Arc::new(MemoryStore::with_part_bytes_min(PART_BYTES));
        let store = stack(&bucket, faults);
        let fs = build(&store, &clock, little_memory);
        Self {
            bucket,
            store,
            fs,
            clock,
            little_memory,
            model: Model::new(),
            handles: BTreeMap::new(),
            faulty: faults.is_some(),
        }
    }

    /// The inode of a directory. Its references are kept, as the kernel keeps those of whatever it is about to use.
    async fn directory(&self, path: &str) -> FsResult<Ino> {
        let mut ino = Ino::ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            ino = self.fs.lookup(ino, OsStr::new(name)).await?.ino;
        }
        Ok(ino)
    }

    /// The directory and the last name of a path.
    async fn place(&self, path: &'static str) -> FsResult<(Ino, &'static OsStr)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.directory(parent).await?, OsStr::new(name)))
    }

    /// Does one step to both sides.
    pub async fn step(&mut self, step: &Step) -> Step_ {
        match *step {
            Step::Open { slot, path, truncate, exclusive } => self.open(slot, PATHS[path], truncate, exclusive).await,
            Step::OpenRead { slot, path } => self.open_read(slot, PATHS[path]).await,
            Step::Write { slot, offset, len, seed } => self.write(slot, offset, &content(seed, len)).await,
            Step::Read { slot, offset, len } => self.read(slot, offset, len).await,
            Step::Truncate { slot, len } => self.truncate(slot, len).await,
            Step::TruncatePath { path, len } => self.truncate_path(PATHS[path], len).await,
            Step::Sync { slot } => match self.handles.get(&slot) {
                Some(&handle) => self.fs.fsync(handle).await.map_err(|error| format!("fsync: {error:?}")),
                None => Ok(()),
            },
            Step::Close { slot } => self.close(slot).await,
            Step::Unlink { path } => self.unlink(PATHS[path]).await,
            Step::Mkdir { directory } => self.mkdir(DIRECTORIES[directory]).await,
            Step::Rmdir { directory } => self.rmdir(DIRECTORIES[directory]).await,
            Step::Rename { from, to } => self.rename(PATHS[from], PATHS[to]).await,
            Step::RenameDirectory { from, to } => self.rename_directory(DIRECTORIES[from], DIRECTORIES[to]).await,
            Step::List { directory } => self.list(DIRECTORIES[directory]).await,
            Step::Stat { path } => self.stat(PATHS[path]).await,
            Step::Foreign { path, len, seed } => self.foreign(PATHS[path], content(seed, len)).await,
            Step::ReplaceAndRename { from, to, len, seed } => {
                self.replace_and_rename(PATHS[from], PATHS[to], content(seed, len)).await
            }
            Step::ReplaceAndRenameDirectory { path, to, len, seed } => {
                self.replace_and_rename_directory(PATHS[path], DIRECTORIES[to], content(seed, len)).await
            }
            Step::Wait => {
                self.clock.advance(METADATA_TTL * 2);
                Ok(())
            }
            Step::Remount => self.remount().await,
        }
    }

    async fn open(&mut self, slot: usize, path: &'static str, truncate: bool, exclusive: bool) -> Step_ {
        self.close(slot).await?;
        let place = self.place(path).await;
        if !self.model.is_directory(Model::parent(path)) {
            return refused("open below no directory", &place, |error| matches!(error, FsError::NotFound));
        }
        let (parent, name) = place.map_err(|error| format!("the directory is not found: {error:?}"))?;
        let mut flags = libc::O_RDWR | libc::O_CREAT;
        flags |= if truncate { libc::O_TRUNC } else { 0 } | if exclusive { libc::O_EXCL } else { 0 };
        let present = self.fs.lookup(parent, name).await;
        let known = self.model.files.get(path).copied();
        let opened = match present {
            Ok(node) => {
                if known.is_none() {
                    return Err("a name is found that should not be".into());
                }
                self.fs.forget(node.ino, 1);
                if exclusive {
                    return Ok(());
                }
                self.fs.open(node.ino, flags).await.map_err(|error| format!("open: {error:?}"))?
            }
            Err(FsError::NotFound) => {
                if known.is_some() {
                    return Err("a name is missing".into());
                }
                let new = NewFile { mode: 0o100_644, uid: 0, gid: 0 };
                let created = self.fs.create(parent, name, new, flags).await;
                let (node, opened) = created.map_err(|error| format!("create: {error:?}"))?;
                self.fs.forget(node.ino, 1);
                opened
            }
            Err(error) => return Err(format!("lookup: {error:?}")),
        };
        let inode = known.unwrap_or_else(|| self.model.create(path));
        if truncate {
            self.model.contents[inode].clear();
        }
        self.model.handles.insert(slot, (inode, true));
        self.handles.insert(slot, opened.handle);
        Ok(())
    }

    async fn open_read(&mut self, slot: usize, path: &'static str) -> Step_ {
        self.close(slot).await?;
        let node = match self.place(path).await {
            Ok((parent, name)) => self.fs.lookup(parent, name).await,
            Err(error) => Err(error),
        };
        let Some(&inode) = self.model.files.get(path) else {
            return refused("open of a missing file", &node, |error| matches!(error, FsError::NotFound));
        };
        let node = node.map_err(|error| format!("lookup: {error:?}"))?;
        self.fs.forget(node.ino, 1);
        let opened = self.fs.open(node.ino, libc::O_RDONLY).await.map_err(|error| format!("open: {error:?}"))?;
        self.model.handles.insert(slot, (inode, false));
        self.handles.insert(slot, opened.handle);
        Ok(())
    }

    async fn write(&mut self, slot: usize, offset: usize, data: &[u8]) -> Step_ {
        let (Some(&handle), Some(&(inode, writable))) = (self.handles.get(&slot), self.model.handles.get(&slot)) else {
            return Ok(());
        };
        let outcome = match self.fs.try_write(handle, offset as u64, data) {
            Some(outcome) => outcome,
            None => self.fs.write(handle, offset as u64, Bytes::copy_from_slice(data)).await,
        };
        if !writable {
            return refused("write through a handle for reading", &outcome, |error| {
                matches!(error, FsError::BadHandle)
            });
        }
        if matches!(outcome, Err(FsError::Stale)) && self.model.lost[inode] {
            return Ok(());
        }
        outcome.map_err(|error| format!("write: {error:?}"))?;
        self.model.write(inode, offset, data);
        Ok(())
    }

    async fn read(&mut self, slot: usize, offset: usize, len: usize) -> Step_ {
        let (Some(&handle), Some(&(inode, _))) = (self.handles.get(&slot), self.model.handles.get(&slot)) else {
            return Ok(());
        };
        let range = ByteRange::of_len(offset as u64, len as u64);
        let outcome = match self.fs.try_read(handle, range) {
            Some(outcome) => outcome,
            None => self.fs.read(handle, range).await,
        };
        match outcome {
            Ok(bytes) => same_bytes("read", &bytes, self.model.read(inode, offset, len)),
            Err(FsError::Stale) if self.model.lost[inode] => Ok(()),
            Err(error) => Err(format!("read: {error:?}")),
        }
    }

    async fn truncate(&mut self, slot: usize, len: usize) -> Step_ {
        let (Some(&handle), Some(&(inode, true))) = (self.handles.get(&slot), self.model.handles.get(&slot)) else {
            return Ok(());
        };
        let range = ByteRange::of_len(0, len as u64);
        // ftruncate needs the inode number, which only a lookup gives: growing goes through fallocate.
        if len >= self.model.contents[inode].len() && len > 0 {
            let outcome = self.fs.allocate(handle, range, 0).await;
            if matches!(outcome, Err(FsError::Stale)) && self.model.lost[inode] {
                return Ok(());
            }
            outcome.map_err(|error| format!("fallocate: {error:?}"))?;
            self.model.contents[inode].resize(len, 0);
        }
        Ok(())
    }

    async fn truncate_path(&mut self, path: &'static str, len: usize) -> Step_ {
        let Some(&inode) = self.model.files.get(path) else { return Ok(()) };
        let (parent, name) = self.place(path).await.map_err(|error| format!("place: {error:?}"))?;
        let node = self.fs.lookup(parent, name).await.map_err(|error| format!("lookup: {error:?}"))?;
        let set = SetAttributes { size_bytes: Some(len as u64), ..SetAttributes::default() };
        let outcome = self.fs.setattr(node.ino, None, set).await;
        self.fs.forget(node.ino, 1);
        let node = outcome.map_err(|error| format!("truncate: {error:?}"))?;
        self.model.contents[inode].resize(len, 0);
        same("size after truncate", &node.attributes.size_bytes, &(len as u64))
    }

    async fn close(&mut self, slot: usize) -> Step_ {
        let Some(handle) = self.handles.remove(&slot) else { return Ok(()) };
        self.model.handles.remove(&slot);
        let flushed = self.fs.flush(handle).await;
        self.fs.release(handle).await;
        flushed.map_err(|error| format!("close: {error:?}"))
    }

    async fn unlink(&mut self, path: &'static str) -> Step_ {
        let outcome = match self.place(path).await {
            Ok((parent, name)) => self.fs.unlink(parent, name).await,
            Err(error) => Err(error),
        };
        let Some(inode) = self.model.files.remove(path) else {
            return refused("unlink of a missing file", &outcome, |error| matches!(error, FsError::NotFound));
        };
        // A new object under the same key may replace the one that open handles still read.
        self.model.lost[inode] = true;
        outcome.map_err(|error| format!("unlink: {error:?}"))
    }

    async fn mkdir(&mut self, path: &'static str) -> Step_ {
        let outcome = match self.place(path).await {
            Ok((parent, name)) => self.fs.mkdir(parent, name, NewFile { mode: 0o40_755, uid: 0, gid: 0 }).await,
            Err(error) => Err(error),
        };
        if !self.model.is_directory(Model::parent(path)) {
            return refused("mkdir below no directory", &outcome, |error| matches!(error, FsError::NotFound));
        }
        if self.model.is_directory(path) {
            return refused("mkdir of a directory", &outcome, |error| matches!(error, FsError::Exists));
        }
        let node = outcome.map_err(|error| format!("mkdir: {error:?}"))?;
        self.fs.forget(node.ino, 1);
        self.model.directories.push(path.to_owned());
        Ok(())
    }

    async fn rmdir(&mut self, path: &'static str) -> Step_ {
        let outcome = match self.place(path).await {
            Ok((parent, name)) => self.fs.rmdir(parent, name).await,
            Err(error) => Err(error),
        };
        if !self.model.is_directory(path) {
            return refused("rmdir of no directory", &outcome, |error| matches!(error, FsError::NotFound));
        }
        if !self.model.is_empty(path) {
            return refused("rmdir of a full directory", &outcome, |error| matches!(error, FsError::NotEmpty));
        }
        self.model.directories.retain(|directory| directory != path);
        outcome.map_err(|error| format!("rmdir: {error:?}"))
    }

    async fn rename(&mut self, from: &'static str, to: &'static str) -> Step_ {
        if !self.model.is_directory(Model::parent(from)) || !self.model.is_directory(Model::parent(to)) {
            return Ok(());
        }
        let places = (self.place(from).await, self.place(to).await);
        let (Ok(source), Ok(target)) = places else { return Err("a directory is not found".into()) };
        let outcome = self.fs.rename(source, target, false).await;
        let Some(&inode) = self.model.files.get(from) else {
            if from == to {
                return Ok(());
            }
            return refused("rename of a missing file", &outcome, |error| matches!(error, FsError::NotFound));
        };
        outcome.map_err(|error| format!("rename: {error:?}"))?;
        if from != to {
            self.model.files.remove(from);
            if let Some(replaced) = self.model.files.insert(to.to_owned(), inode) {
                self.model.lost[replaced] = true;
            }
        }
        Ok(())
    }

    async fn rename_directory(&mut self, from: &'static str, to: &'static str) -> Step_ {
        if from == to || !self.model.is_directory(from) || !self.model.is_directory(Model::parent(to)) {
            return Ok(());
        }
        let places = (self.place(from).await, self.place(to).await);
        let (Ok(source), Ok(target)) = places else { return Err("a directory is not found".into()) };
        let outcome = self.fs.rename(source, target, false).await;
        if to.starts_with(&format!("{from}/")) {
            return refused("rename into itself", &outcome, |error| matches!(error, FsError::Invalid(_)));
        }
        if self.model.is_directory(to) && !self.model.is_empty(to) {
            return refused("rename over a full directory", &outcome, |error| matches!(error, FsError::NotEmpty));
        }
        outcome.map_err(|error| format!("rename of a directory: {error:?}"))?;
        self.model.rename_directory(from, to);
        Ok(())
    }

    async fn list(&mut self, path: &'static str) -> Step_ {
        let ino = self.directory(path).await;
        if !self.model.is_directory(path) {
            return refused("listing of no directory", &ino, |error| matches!(error, FsError::NotFound));
        }
        let ino = ino.map_err(|error| format!("directory: {error:?}"))?;
        let handle = self.fs.opendir(ino).map_err(|error| format!("opendir: {error:?}"))?;
        let mut names = Vec::new();
        let mut offset = 0;
        loop {
            // Three at a time, so that offsets are resumed.
            let entries = self.fs.readdir(handle, offset, 3).await.map_err(|error| format!("readdir: {error:?}"))?;
            let Some(last) = entries.last() else { break };
            offset = last.next_offset;
            names.extend(entries.iter().map(|entry| entry.name.to_string()));
        }
        self.fs.releasedir(handle);
        names.retain(|name| name != "." && name != "..");
        names.sort();
        same("names", &names, &self.model.names(path))
    }

    async fn stat(&mut self, path: &'static str) -> Step_ {
        let node = match self.place(path).await {
            Ok((parent, name)) => self.fs.lookup(parent, name).await,
            Err(error) => Err(error),
        };
        let Some(&inode) = self.model.files.get(path) else {
            return refused("stat of a missing file", &node, |error| matches!(error, FsError::NotFound));
        };
        let node = node.map_err(|error| format!("stat: {error:?}"))?;
        self.fs.forget(node.ino, 1);
        same("size", &node.attributes.size_bytes, &(self.model.contents[inode].len() as u64))
    }

    async fn foreign(&mut self, path: &'static str, data: Vec<u8>) -> Step_ {
        let open = |inode: Inode| self.model.handles.values().any(|&(of, _)| of == inode);
        let known = self.model.files.get(path).copied();
        if known.is_some_and(open) || !self.model.is_directory(Model::parent(path)) {
            return Ok(());
        }
        self.put(path, data).await?;
        self.clock.advance(METADATA_TTL * 2);
        Ok(())
    }

    /// Another client puts an object.
    async fn put(&mut self, path: &'static str, data: Vec<u8>) -> Step_ {
        let put = PutRequest {
            key: path.into(),
            payload: Bytes::from(data.clone()).into(),
            attributes: ObjectAttributes::default(),
            condition: WriteCondition::None,
        };
        self.bucket.put(put).await.map_err(|error| format!("foreign put: {error}"))?;
        let inode = self.model.create(path);
        self.model.contents[inode] = data;
        Ok(())
    }

    async fn remount(&mut self) -> Step_ {
        let open: Vec<usize> = self.handles.keys().copied().collect();
        for slot in open {
            self.close(slot).await?;
        }
        let drained = self.fs.drain().await;
        same("kept at the end", &drained.kept, &0)?;
        self.fs = build(&self.store, &self.clock, self.little_memory);
        Ok(())
    }

    /// Ends the mount and compares the bucket, then a fresh mount, with the model.
    pub async fn finish(&mut self) -> Step_ {
        self.remount().await?;
        let page = self.bucket.list(ListRequest::default()).await.map_err(|error| format!("list: {error}"))?;
        let keys: Vec<&str> =
            page.objects.iter().map(|info| info.key().as_str()).filter(|key| !key.ends_with('/')).collect();
        let wanted: Vec<&str> = self.model.files.keys().map(String::as_str).collect();
        same("keys in the bucket", &keys, &wanted)?;
        for (path, &inode) in &self.model.files {
            let bytes = whole(&self.bucket, path).await?;
            same_bytes(&format!("object {path}"), &bytes, &self.model.contents[inode])?;
        }
        let uploads = self.bucket.list_uploads("").await.map_err(|error| format!("list uploads: {error}"))?;
        // An upload whose first reply was lost has a name that nobody knows; a lifecycle rule of the bucket ends it.
        if !self.faulty {
            same("uploads left behind", &uploads.len(), &0)?;
        }
        for directory in DIRECTORIES {
            self.list(directory).await?;
        }
        for path in PATHS {
            self.stat(path).await?;
        }
        Ok(())
    }
}

async fn whole(bucket: &MemoryStore, path: &str) -> Result<Vec<u8>, String> {
    use futures_util::TryStreamExt;
    let request = GetRequest { key: path.into(), range: GetRange::Whole, if_match: None, if_none_match: None };
    let response = bucket.get(request).await.map_err(|error| format!("get {path}: {error}"))?;
    let chunks: Vec<Bytes> = response.body.try_collect().await.map_err(|error| format!("body of {path}: {error}"))?;
    Ok(chunks.concat())
}
