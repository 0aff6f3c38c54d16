//! The file system in this process, over the store in memory: no S3, no daemon. Root only.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use s3mount::clock::Clock;
use s3mount::config::{AttributeDefaults, NamespaceLimits, ReadLimits, WriteLimits};
use s3mount::fs::{FileSystem, FileSystemOptions};
use s3mount::fuse::session::{SessionOptions, serve};
use s3mount::memory::PagePool;
use s3mount::metrics::Metrics;
use s3mount::namespace::Namespace;
use s3mount::read::ReadEngine;
use s3mount::store::memory::MemoryStore;
use s3mount::write::{Journal, WriteEngine};

use super::outcome::Outcome;

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("two threads")
    })
}

/// Mounts a store.
pub fn mount(store: &MemoryStore, dir: &Path, state: &Path) -> Outcome {
    let device: OwnedFd = fs::File::options().read(true).write(true).open("/dev/fuse")?.into();
    let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    nix::mount::mount(Some("memory"), dir, Some("fuse.s3mount"), nix::mount::MsFlags::MS_NODEV, Some(&*data))?;
    let _runtime = runtime().enter();
    let store: Arc<dyn s3mount::store::ObjectStore> = Arc::new(store.clone());
    let (metrics, clock, pages) = (Arc::new(Metrics::default()), Clock::system(), PagePool::new(256 << 20));
    let defaults = AttributeDefaults { uid: 0, gid: 0, file_mode: 0o644, dir_mode: 0o755, posix: false };
    let limits = NamespaceLimits::default();
    fs::create_dir_all(state)?;
    let namespace = Namespace::new(Arc::clone(&store), "", defaults, limits, clock.clone(), Some(state.to_owned()));
    let read = ReadEngine::new(Arc::clone(&store), Arc::clone(&pages), ReadLimits::default(), Arc::clone(&metrics));
    let journal = Journal::open(&state.join("journal"))?;
    let write = WriteEngine::new(store, pages, WriteLimits::default(), Arc::clone(&metrics), clock.clone(), journal);
    let options = FileSystemOptions::new(defaults, Duration::from_secs(1));
    let (fs, events) = FileSystem::new(namespace, read, write, options, Arc::clone(&metrics), clock);
    let served = serve(device, fs, events, SessionOptions::default(), metrics, runtime().handle().clone())?;
    std::mem::drop(std::thread::spawn(move || served.join()));
    Ok(())
}
