//! The kernel's callbacks: borrowed arguments in, exactly one reply out.
//!
//! What memory can answer is answered in the callback itself; for the rest the arguments are copied and a task takes
//! them, with the reply, to the file system: no thread ever blocks on S3. A panic drops the reply, which tells the
//! kernel EIO, and kills nothing else. No policy lives here.
//!
//! Operations that are absent here get fuser's answers, which are what we want: link EPERM; access, poll and lseek ENOSYS,
//! after which the kernel stops asking and answers itself (permissions by the mount option default_permissions, SEEK_DATA and
//! SEEK_HOLE as for a file without holes); locks stay in the kernel. So it is with extended attributes without `--posix`.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle as KernelHandle, Filesystem, FopenFlags, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};

use super::attr::{file_attr, set_time};
use super::directory;
use super::errno::answer;
use super::passthrough::Creating;
use super::process;
use super::reply::{attr, data, empty, entry, found, handle, ino, kept_for};
use super::session::negotiate;
use super::tasks::Adapter;
use super::xattr;
use crate::fs::{FsResult, LookedUp, NewFile, SetAttributes};
use crate::metrics::Latency;
use crate::types::ByteRange;

fn new_file(request: &Request, mode: u32) -> NewFile {
    NewFile { mode, uid: request.uid(), gid: request.gid() }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let passthrough = negotiate(config, self.options);
        self.fs.allow_passthrough(passthrough);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (started, ttl, parent) = (self.clock.now(), self.ttl, ino(parent));
        let _runtime = self.runtime.enter();
        self.fs.looked_up(parent, || process::opening(request.pid()));
        let left = self.in_place(Latency::Metadata, started, reply, |reply| match self.fs.try_lookup(parent, name) {
            Some(outcome) => {
                found(reply, ttl, outcome.map(LookedUp::from), || self.fs.absent_for(parent, name));
                None
            }
            None => Some(reply),
        });
        let Some(reply) = left else { return };
        let (name, thread) = (name.to_owned(), request.pid());
        let opening = process::opening(thread);
        self.task(Latency::Metadata, started, move |fs| async move {
            let outcome = fs.lookup_in_call(parent, &name, thread, opening).await;
            found(reply, ttl, outcome, || fs.absent_for(parent, &name));
        });
    }

    fn forget(&self, _request: &Request, inode: INodeNo, lookups: u64) {
        self.fs.forget(ino(inode), lookups);
    }

    fn getattr(&self, _request: &Request, inode: INodeNo, _handle: Option<KernelHandle>, reply: ReplyAttr) {
        let (started, ttl) = (self.clock.now(), self.ttl);
        let left = self.in_place(Latency::Metadata, started, reply, |reply| match self.fs.try_getattr(ino(inode)) {
            Some(node) => {
                attr(reply, "getattr", ttl, Ok(node));
                None
            }
            None => Some(reply),
        });
        let Some(reply) = left else { return };
        self.task(Latency::Metadata, started, move |fs| async move {
            attr(reply, "getattr", ttl, fs.getattr(ino(inode)).await);
        });
    }

    fn setattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        through: Option<KernelHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set =
            SetAttributes { size_bytes: size, mode, uid, gid, atime: atime.map(set_time), mtime: mtime.map(set_time) };
        let ttl = self.ttl;
        self.task(Latency::Metadata, self.clock.now(), move |fs| async move {
            attr(reply, "setattr", ttl, fs.setattr(ino(inode), through.map(handle), set).await);
        });
    }

    fn readlink(&self, _request: &Request, inode: INodeNo, reply: ReplyData) {
        self.task(Latency::Metadata, self.clock.now(), move |fs| async move {
            data(reply, fs.readlink(ino(inode)).await.map(Bytes::from));
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let new = new_file(request, mode & !umask);
        let (name, ttl) = (name.to_owned(), self.ttl);
        self.task(Latency::Metadata, self.clock.now(), move |fs| async move {
            entry(reply, "mknod", ttl, fs.mknod(ino(parent), &name, new, rdev).await);
        });
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let new = new_file(request, mode & !umask);
        let (name, ttl) = (name.to_owned(), self.ttl);
        self.task(Latency::Metadata, self.clock.now(), move |fs| async move {
            entry(reply, "mkdir", ttl, fs.mkdir(ino(parent), &name, new).await);
        });
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.task(Latency::Metadata, self.clock.now(), move |fs| async move {
            empty(reply, "unlink", fs.unlink(ino(parent), &name).await);
        });
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.task(Latency::Metadata, self.clock.now(), move |fs| async move {
            empty(reply, "rmdir", fs.rmdir(ino(parent), &name).await);
        });
    }

    fn symlink(&self, request: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        let new = new_file(request, 0o777);
        let ttl = self.ttl;
        let (name, target) = (link_name.to_owned(), target.as_os_str().to_owned());
        self.task(Latency::Metadata, self.clock.now(), move |fs| async move {
            entry(reply, "symlink", ttl, fs.symlink(ino(parent), &name, &target, new).await);
        });
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !RenameFlags::RENAME_NOREPLACE.contains(flags) {
            reply.error(Errno::EINVAL);
            return;
        }
        let no_replace = flags.contains(RenameFlags::RENAME_NOREPLACE);
        let (name, new_name) = (name.to_owned(), new_name.to_owned());
        self.task(Latency::Metadata, self.clock.now(), move |fs| async move {
            let outcome = fs.rename((ino(parent), &name), (ino(new_parent), &new_name), no_replace).await;
            empty(reply, "rename", outcome);
        });
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (backings, opener) = (Arc::clone(&self.backings), process::opener(request.pid()));
        self.task(Latency::Metadata, self.clock.now(), move |fs| async move {
            match fs.open_by(ino(inode), flags.0, opener.thread).await {
                Ok(opened) => {
                    fs.opened_by(opened.handle, opener);
                    backings.reply(&fs, ino(inode), opened, reply);
                }
                Err(error) => reply.error(answer("open", &error)),
            }
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let new = new_file(request, mode & !umask);
        let (name, ttl, opener) = (name.to_owned(), self.ttl, process::opener(request.pid()));
        let backings = Arc::clone(&self.backings);
        self.task(Latency::Metadata, self.clock.now(), move |fs| async move {
            match fs.create(ino(parent), &name, new, flags).await {
                Ok((node, opened)) => {
                    fs.opened_by(opened.handle, opener);
                    let (fresh_for, attr) = (kept_for(node.fresh_for, ttl), file_attr(&node));
                    backings.reply(&fs, node.ino, opened, Creating { reply, fresh_for, attr });
                }
                Err(error) => reply.error(answer("create", &error)),
            }
        });
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        through: KernelHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let started = self.clock.now();
        let (through, range) = (handle(through), ByteRange::of_len(offset, u64::from(size)));
        let left = self.in_place(Latency::Read, started, reply, |reply| match self.fs.try_read(through, range) {
            Some(outcome) => {
                data(reply, outcome);
                None
            }
            None => Some(reply),
        });
        let Some(reply) = left else { return };
        self.task(Latency::Read, started, move |fs| async move { data(reply, fs.read(through, range).await) });
    }

    fn write(
        &self,
        _request: &Request,
        _ino: INodeNo,
        through: KernelHandle,
        offset: u64,
        written: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let started = self.clock.now();
        let through = handle(through);
        self.fs.wrote(through, lock_owner.map(|owner| owner.0));
        let size = u32::try_from(written.len()).expect("a request of the kernel is at most 16 MiB");
        let finish = move |reply: ReplyWrite, outcome: FsResult<()>| match outcome {
            Ok(()) => reply.written(size),
            Err(error) => reply.error(answer("write", &error)),
        };
        let left =
            self.in_place(Latency::Write, started, reply, |reply| match self.fs.try_write(through, offset, written) {
                Some(outcome) => {
                    finish(reply, outcome);
                    None
                }
                None => Some(reply),
            });
        let Some(reply) = left else { return };
        let written = Bytes::copy_from_slice(written);
        self.task(Latency::Write, started, move |fs| async move {
            finish(reply, fs.write(through, offset, written).await);
        });
    }

    fn flush(&self, request: &Request, _ino: INodeNo, through: KernelHandle, lock_owner: LockOwner, reply: ReplyEmpty) {
        let (started, through, closer) = (self.clock.now(), handle(through), request.pid());
        if !self.fs.needs_flush(through, lock_owner.0, |opener| process::is_foreign(opener, closer)) {
            reply.ok();
            return;
        }
        self.task(Latency::Sync, started, move |fs| async move { empty(reply, "flush", fs.flush(through).await) });
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        through: KernelHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.backings.release(through);
        self.task(Latency::Sync, self.clock.now(), move |fs| async move {
            fs.release(handle(through)).await;
            reply.ok();
        });
    }

    fn fsync(&self, _request: &Request, _ino: INodeNo, through: KernelHandle, _datasync: bool, reply: ReplyEmpty) {
        self.task(Latency::Sync, self.clock.now(), move |fs| async move {
            empty(reply, "fsync", fs.fsync(handle(through)).await);
        });
    }

    fn opendir(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.task(Latency::Metadata, self.clock.now(), move |fs| async move {
            match fs.opendir(ino(inode)) {
                Ok(opened) => reply.opened(KernelHandle(opened.0), FopenFlags::empty()),
                Err(error) => reply.error(answer("opendir", &error)),
            }
        });
    }

    fn readdir(&self, _request: &Request, _ino: INodeNo, through: KernelHandle, offset: u64, reply: ReplyDirectory) {
        let (started, through) = (self.clock.now(), handle(through));
        // What a walk makes worth fetching is fetched by tasks.
        let _runtime = self.runtime.enter();
        let left = self.in_place(Latency::Metadata, started, reply, |reply| {
            directory::try_names(reply, &self.fs, through, offset)
        });
        let Some(reply) = left else { return };
        self.task(Latency::Metadata, started, move |fs| async move {
            directory::names(reply, &fs, through, offset).await;
        });
    }

    fn readdirplus(
        &self,
        _request: &Request,
        _ino: INodeNo,
        through: KernelHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let (started, through, ttl) = (self.clock.now(), handle(through), self.ttl);
        let _runtime = self.runtime.enter();
        let left = self.in_place(Latency::Metadata, started, reply, |reply| {
            directory::try_entries(reply, &self.fs, through, ttl, offset)
        });
        let Some(reply) = left else { return };
        self.task(Latency::Metadata, started, move |fs| async move {
            directory::entries(reply, &fs, through, ttl, offset).await;
        });
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        through: KernelHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.fs.releasedir(handle(through));
        reply.ok();
    }

    fn fsyncdir(&self, _request: &Request, _ino: INodeNo, _fh: KernelHandle, _datasync: bool, reply: ReplyEmpty) {
        // Names are in S3 before mkdir, unlink and rename answer.
        reply.ok();
    }

    fn setxattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let Some(reply) = xattr::refused(&self.fs, name, reply, ReplyEmpty::error) else { return };
        let (name, value, how) = (name.to_owned(), value.to_vec(), xattr::how(flags));
        self.task(Latency::Metadata, self.clock.now(), move |fs| async move {
            empty(reply, "setxattr", fs.set_xattr(ino(inode), &name, value, how).await);
        });
    }

    fn getxattr(&self, _request: &Request, inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let Some(reply) = xattr::refused(&self.fs, name, reply, ReplyXattr::error) else { return };
        let name = name.to_owned();
        self.task(Latency::Metadata, self.clock.now(), move |fs| async move {
            xattr::answer(reply, "getxattr", size, fs.xattr(ino(inode), &name).await);
        });
    }

    fn listxattr(&self, _request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        let Some(reply) = xattr::unavailable(&self.fs, reply, ReplyXattr::error) else { return };
        self.task(Latency::Metadata, self.clock.now(), move |fs| async move {
            xattr::answer(reply, "listxattr", size, fs.xattrs(ino(inode)).await.map(|all| xattr::names(&all)));
        });
    }

    fn removexattr(&self, _request: &Request, inode: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let Some(reply) = xattr::refused(&self.fs, name, reply, ReplyEmpty::error) else { return };
        let name = name.to_owned();
        self.task(Latency::Metadata, self.clock.now(), move |fs| async move {
            empty(reply, "removexattr", fs.remove_xattr(ino(inode), &name).await);
        });
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let it = self.fs.statfs();
        reply.statfs(
            it.blocks,
            it.blocks,
            it.blocks,
            it.inodes,
            it.inodes,
            it.block_bytes,
            it.name_bytes_max,
            it.block_bytes,
        );
    }

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: KernelHandle,
        _flags: IoctlFlags,
        _command: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        _request: &Request,
        _ino: INodeNo,
        through: KernelHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.task(Latency::Metadata, self.clock.now(), move |fs| async move {
            let outcome = fs.allocate(handle(through), ByteRange::of_len(offset, length), mode).await;
            empty(reply, "fallocate", outcome);
        });
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        _ino_in: INodeNo,
        handle_in: KernelHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        handle_out: KernelHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.task(Latency::Write, self.clock.now(), move |fs| async move {
            let source = (handle(handle_in), ByteRange::of_len(offset_in, len));
            match fs.copy_file_range(source, (handle(handle_out), offset_out)).await {
                Ok(copied) => reply.written(u32::try_from(copied).unwrap_or(u32::MAX)),
                Err(error) => reply.error(answer("copy_file_range", &error)),
            }
        });
    }
}
