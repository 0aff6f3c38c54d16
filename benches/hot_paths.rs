//! What every request of the kernel costs in the daemon when nothing is asked of S3: `cargo bench`.
//!
//! A regression here is a copy, a lock or an allocation more. Streams and whole programs are measured by `scripts/bench`.

use std::ffi::OsStr;
use std::sync::Arc;

use bytes::Bytes;
use divan::Bencher;
use divan::counter::BytesCount;
use s3mount::clock::Clock;
use s3mount::config::{AttributeDefaults, NamespaceLimits, ReadLimits, WriteLimits};
use s3mount::fs::{FileSystem, FileSystemOptions, NewFile};
use s3mount::memory::PagePool;
use s3mount::metrics::Metrics;
use s3mount::namespace::Namespace;
use s3mount::read::ReadEngine;
use s3mount::store::memory::MemoryStore;
use s3mount::store::{ObjectAttributes, ObjectStore, PutRequest, WriteCondition};
use s3mount::types::{ByteRange, FileHandle, Ino};
use s3mount::write::{Journal, WriteEngine};
use tokio::runtime::Runtime;

const MIB: usize = 1 << 20;
/// Size of the file that is read, in bytes.
const FILE_BYTES: usize = 64 * MIB;
/// Names in the directory that is listed.
const NAMES: usize = 10_000;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

/// A mount without a kernel, on a bucket in memory.
struct Mount {
    runtime: Runtime,
    bucket: MemoryStore,
    fs: Arc<FileSystem>,
}

impl Mount {
    fn new() -> Self {
        let runtime = Runtime::new().expect("threads can be made");
        let _inside = runtime.enter();
        let bucket = MemoryStore::new();
        let store: Arc<dyn ObjectStore> = Arc::new(bucket.clone());
        let (clock, metrics, pages) = (Clock::system(), Arc::new(Metrics::default()), PagePool::new(256 * MIB));
        let defaults = AttributeDefaults { uid: 0, gid: 0, file_mode: 0o644, dir_mode: 0o755, posix: false };
        let limits =
            NamespaceLimits { metadata_ttl: std::time::Duration::from_secs(3600), ..NamespaceLimits::default() };
        let namespace = Namespace::new(Arc::clone(&store), "", defaults, limits, clock.clone(), None);
        let read = ReadEngine::new(Arc::clone(&store), Arc::clone(&pages), ReadLimits::default(), Arc::clone(&metrics));
        let journal = Journal::disabled();
        let write =
            WriteEngine::new(store, pages, WriteLimits::default(), Arc::clone(&metrics), clock.clone(), journal);
        let options = FileSystemOptions::new(defaults, limits.metadata_ttl);
        let (fs, _) = FileSystem::new(namespace, read, write, options, metrics, clock);
        drop(_inside);
        Self { runtime, bucket, fs }
    }

    fn put(&self, key: &str, payload: Bytes) {
        let put = PutRequest {
            key: key.into(),
            payload: payload.into(),
            attributes: ObjectAttributes::default(),
            condition: WriteCondition::None,
        };
        self.runtime.block_on(self.bucket.put(put)).expect("a bucket in memory takes what it is given");
    }

    /// Opens a file and reads all of it once, so that memory holds it.
    fn open_warm(&self, name: &str) -> FileHandle {
        self.runtime.block_on(async {
            let node = self.fs.lookup(Ino::ROOT, OsStr::new(name)).await.expect("it was put");
            let handle = self.fs.open(node.ino, libc::O_RDONLY).await.expect("it was put").handle;
            for start in (0..FILE_BYTES as u64).step_by(MIB) {
                let range = ByteRange::of_len(start, MIB as u64);
                self.fs.read(handle, range).await.expect("the store does not fail");
            }
            handle
        })
    }
}

#[divan::bench(args = [4 << 10, 128 << 10, MIB])]
fn a_read_that_memory_answers(bencher: Bencher, bytes: usize) {
    let mount = Mount::new();
    mount.put("file", Bytes::from(vec![7; FILE_BYTES]));
    let handle = mount.open_warm("file");
    let mut start = 0;
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        let range = ByteRange::of_len(start as u64, bytes as u64);
        start = (start + bytes) % FILE_BYTES;
        mount.fs.try_read(handle, range).expect("memory holds the file").expect("the handle is open")
    });
}

#[divan::bench(args = [4 << 10, 128 << 10, MIB])]
fn a_write_into_staging(bencher: Bencher, bytes: usize) {
    let mount = Mount::new();
    let new = NewFile { mode: 0o100_644, uid: 0, gid: 0 };
    let flags = libc::O_RDWR | libc::O_CREAT;
    let create = mount.fs.create(Ino::ROOT, OsStr::new("file"), new, flags);
    let handle = mount.runtime.block_on(create).expect("the name is new").1.handle;
    let data = vec![7; bytes];
    let mut start = 0;
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        // Within one part: nothing is uploaded, pages are written again and again.
        mount.fs.try_write(handle, start as u64, &data).expect("staging has room").expect("the handle is open");
        start = (start + bytes) % (4 * MIB);
    });
}

#[divan::bench]
fn a_lookup_that_memory_answers(bencher: Bencher) {
    let mount = Mount::new();
    for number in 0..NAMES {
        mount.put(&format!("name-{number:05}"), Bytes::new());
    }
    list(&mount);
    let mut number = 0;
    bencher.bench_local(|| {
        number = (number + 7919) % NAMES;
        let name = format!("name-{number:05}");
        mount.fs.try_lookup(Ino::ROOT, OsStr::new(&name)).expect("the directory is sealed").expect("the name was put")
    });
}

#[divan::bench]
fn a_listing_of_ten_thousand_names_from_memory(bencher: Bencher) {
    let mount = Mount::new();
    for number in 0..NAMES {
        mount.put(&format!("name-{number:05}"), Bytes::new());
    }
    list(&mount);
    bencher.bench_local(|| list(&mount));
}

/// Lists the root to its end; answers how many entries there were.
fn list(mount: &Mount) -> usize {
    mount.runtime.block_on(async {
        let handle = mount.fs.opendir(Ino::ROOT).expect("the root is there");
        let (mut offset, mut count) = (0, 0);
        loop {
            let entries = mount.fs.readdir(handle, offset, 512).await.expect("the store does not fail");
            let Some(last) = entries.last() else { break };
            (offset, count) = (last.next_offset, count + entries.len());
        }
        mount.fs.releasedir(handle);
        count
    })
}
