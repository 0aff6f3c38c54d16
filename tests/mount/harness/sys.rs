//! System calls that the standard library has no word for, as plain functions with `io::Result`.

use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL in a path of the suite")
}

fn done(result: i32) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn offset(result: i64) -> io::Result<u64> {
    u64::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).expect("an offset that fits")
}

/// open(2) with these flags and mode.
pub fn open(path: &Path, flags: i32, mode: u32) -> io::Result<File> {
    // SAFETY: the string lives through the call; a descriptor that was given is owned by the File alone.
    unsafe {
        let fd = libc::open(c(path).as_ptr(), flags | libc::O_CLOEXEC, mode);
        done(fd)?;
        Ok(File::from_raw_fd(fd))
    }
}

/// close(2), with its answer.
pub fn close(file: File) -> io::Result<()> {
    // SAFETY: the descriptor is the File's own and given up by it.
    done(unsafe { libc::close(std::os::fd::IntoRawFd::into_raw_fd(file)) })
}

/// renameat2(2).
pub fn rename2(from: &Path, to: &Path, flags: u32) -> io::Result<()> {
    // SAFETY: both strings live through the call.
    done(unsafe { libc::renameat2(libc::AT_FDCWD, c(from).as_ptr(), libc::AT_FDCWD, c(to).as_ptr(), flags) })
}

/// truncate(2).
pub fn truncate(path: &Path, len: u64) -> io::Result<()> {
    // SAFETY: the string lives through the call.
    done(unsafe { libc::truncate(c(path).as_ptr(), signed(len)) })
}

/// fallocate(2).
pub fn fallocate(file: &File, mode: i32, start: u64, len: u64) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    done(unsafe { libc::fallocate(file.as_raw_fd(), mode, signed(start), signed(len)) })
}

/// lseek(2).
pub fn seek(file: &File, to: u64, whence: i32) -> io::Result<u64> {
    // SAFETY: the descriptor is open.
    offset(unsafe { libc::lseek(file.as_raw_fd(), signed(to), whence) })
}

/// copy_file_range(2) between explicit offsets.
pub fn copy_range(from: &File, from_start: u64, to: &File, to_start: u64, len: usize) -> io::Result<u64> {
    let (mut a, mut b) = (signed(from_start), signed(to_start));
    // SAFETY: both descriptors are open and both offsets live through the call.
    offset(unsafe { libc::copy_file_range(from.as_raw_fd(), &raw mut a, to.as_raw_fd(), &raw mut b, len, 0) } as i64)
}

/// utimensat(2): seconds and nanoseconds of atime and mtime.
pub fn set_times(path: &Path, atime: (i64, i64), mtime: (i64, i64)) -> io::Result<()> {
    let times =
        [libc::timespec { tv_sec: atime.0, tv_nsec: atime.1 }, libc::timespec { tv_sec: mtime.0, tv_nsec: mtime.1 }];
    // SAFETY: the string and the two times live through the call.
    done(unsafe { libc::utimensat(libc::AT_FDCWD, c(path).as_ptr(), times.as_ptr(), 0) })
}

/// mkfifo(3).
pub fn mkfifo(path: &Path) -> io::Result<()> {
    // SAFETY: the string lives through the call.
    done(unsafe { libc::mkfifo(c(path).as_ptr(), 0o644) })
}

/// access(2).
pub fn access(path: &Path, mode: i32) -> io::Result<()> {
    // SAFETY: the string lives through the call.
    done(unsafe { libc::access(c(path).as_ptr(), mode) })
}

/// setxattr(2).
pub fn set_xattr(path: &Path, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: strings and value live through the call.
    done(unsafe { libc::setxattr(c(path).as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) })
}

/// A record lock on the whole file (F_SETLK, never waits): F_RDLCK, F_WRLCK or F_UNLCK.
pub fn record_lock(file: &File, command: i32, kind: i32) -> io::Result<()> {
    // SAFETY: all zeros is a flock of no pid over the whole file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = i16::try_from(kind).expect("a lock type is small");
    // SAFETY: the descriptor is open and the lock lives through the call.
    done(unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const lock) })
}

/// flock(2).
pub fn flock(file: &File, how: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    done(unsafe { libc::flock(file.as_raw_fd(), how) })
}

/// A mapping of a whole file.
pub struct Map {
    start: *mut libc::c_void,
    len: usize,
}

impl Map {
    /// mmap(2) with PROT_READ, PROT_WRITE if `write`, and MAP_SHARED or MAP_PRIVATE.
    pub fn new(file: &File, len: usize, write: bool, how: i32) -> io::Result<Self> {
        let protection = libc::PROT_READ | if write { libc::PROT_WRITE } else { 0 };
        // SAFETY: a new mapping at a place of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, how, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { start, len }) }
    }

    /// The bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping lives as long as `self`; nobody else in the suite changes the file meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.len) }
    }

    /// msync(2), MS_SYNC.
    pub fn sync(&self) -> io::Result<()> {
        // SAFETY: the mapping lives.
        done(unsafe { libc::msync(self.start, self.len, libc::MS_SYNC) })
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody has a reference into it any more.
        unsafe { libc::munmap(self.start, self.len) };
    }
}

/// An open directory stream.
pub struct Directory(*mut libc::DIR);

/// What readdir(3) tells of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// The name.
    pub name: OsString,
    /// Its inode number.
    pub ino: u64,
    /// DT_REG, DT_DIR, ..
    pub kind: u8,
}

impl Directory {
    /// opendir(3).
    pub fn open(path: &Path) -> io::Result<Self> {
        // SAFETY: the string lives through the call.
        let stream = unsafe { libc::opendir(c(path).as_ptr()) };
        if stream.is_null() { Err(io::Error::last_os_error()) } else { Ok(Self(stream)) }
    }

    /// readdir(3); `.` and `..` too.
    pub fn next(&mut self) -> io::Result<Option<Name>> {
        // SAFETY: the stream is open; the entry is copied before the next call.
        unsafe {
            *libc::__errno_location() = 0;
            let entry = libc::readdir64(self.0);
            if entry.is_null() {
                return if *libc::__errno_location() == 0 { Ok(None) } else { Err(io::Error::last_os_error()) };
            }
            let name = CStr::from_ptr((&raw const (*entry).d_name).cast()).to_bytes().to_vec();
            Ok(Some(Name { name: OsString::from_vec(name), ino: (*entry).d_ino, kind: (*entry).d_type }))
        }
    }

    /// The rest of the names, without `.` and `..`.
    pub fn rest(&mut self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        while let Some(entry) = self.next()? {
            if entry.name != "." && entry.name != ".." {
                names.push(entry.name.to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    /// telldir(3).
    pub fn tell(&mut self) -> i64 {
        // SAFETY: the stream is open.
        unsafe { libc::telldir(self.0) }
    }

    /// seekdir(3).
    pub fn seek(&mut self, place: i64) {
        // SAFETY: the stream is open and the place is one that it told.
        unsafe { libc::seekdir(self.0, place) };
    }

    /// rewinddir(3).
    pub fn rewind(&mut self) {
        // SAFETY: the stream is open.
        unsafe { libc::rewinddir(self.0) };
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // SAFETY: the stream is open and ours.
        unsafe { libc::closedir(self.0) };
    }
}

/// How many pages of a file's first `bytes` the kernel has cached, asked of a map that touches none (mincore(2)).
pub fn cached_pages(file: &File, bytes: usize) -> io::Result<usize> {
    let mut pages = vec![0_u8; bytes.div_ceil(4096)];
    // SAFETY: the map is of a file that stays open until it is taken away again, and nobody reads it; `pages` has a byte for
    // each page of it.
    unsafe {
        let map = libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0);
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let told = done(libc::mincore(map, bytes, pages.as_mut_ptr()));
        libc::munmap(map, bytes);
        told?;
    }
    Ok(pages.iter().filter(|page| **page & 1 != 0).count())
}
