//! What the kernel is shown of the disk cache.

use super::*;
use crate::cache::DiskCache;

const MIB: usize = 1 << 20;

fn mount_with_a_disk_cache(dir: &std::path::Path) -> Mount {
    let bucket = Arc::new(MemoryStore::new());
    let read = |store, pages, metrics: Arc<Metrics>, clock: &Clock| {
        let disk = DiskCache::open(dir, "source", 256 << 20, metrics.clone(), clock.clone()).expect("the lock");
        ReadEngine::with_disk(store, pages, ReadLimits::default(), metrics, disk).expect("a thread")
    };
    let stores = (bucket.clone(), bucket as Arc<dyn ObjectStore>);
    let mount = Mount::reading_by(read, stores, Duration::ZERO, Journal::disabled(), WriteLimits::default());
    mount.fs.allow_passthrough(true);
    mount
}

impl Mount {
    /// Whether the kernel is shown a file at one of so many looks; between them it is read by us, so that it gets onto the disk whole.
    async fn is_shown(&self, directory: Ino, name: &str, looks: usize) -> bool {
        let node = self.fs.lookup(directory, OsStr::new(name)).await.expect("present");
        for _ in 0..looks {
            let opened = self.fs.open(node.ino, libc::O_RDONLY).await.expect("present");
            if opened.passthrough {
                self.fs.release(opened.handle).await;
                return true;
            }
            self.read(opened.handle).await.expect("present");
            self.fs.release(opened.handle).await;
            self.fs.settle_disk_cache(Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_this_mount_wrote_is_not_shown_by_the_kernel_under_another_name_either() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mount = mount_with_a_disk_cache(&dir.path().join("c"));
    mount.bucket.put_directly("theirs", vec![1; MIB]);
    assert!(mount.is_shown(Ino::ROOT, "theirs", 1000).await, "what others wrote is");
    mount.put("tmp", &vec![2; MIB]).await;
    assert!(!mount.is_shown(Ino::ROOT, "tmp", 3).await);
    mount.fs.rename((Ino::ROOT, OsStr::new("tmp")), (Ino::ROOT, OsStr::new("log")), false).await.expect("present");
    assert!(!mount.is_shown(Ino::ROOT, "log", 3).await);
    mount.fs.rename((Ino::ROOT, OsStr::new("theirs")), (Ino::ROOT, OsStr::new("moved")), false).await.expect("present");
    assert!(mount.is_shown(Ino::ROOT, "moved", 1000).await, "a rename writes nothing");
    let new = NewFile { mode: 0o40_755, uid: 0, gid: 0 };
    let from = mount.fs.mkdir(Ino::ROOT, OsStr::new("d"), new).await.expect("free").ino;
    mount.fs.rename((Ino::ROOT, OsStr::new("log")), (from, OsStr::new("log")), false).await.expect("present");
    mount.fs.rename((Ino::ROOT, OsStr::new("d")), (Ino::ROOT, OsStr::new("e")), false).await.expect("present");
    assert!(!mount.is_shown(from, "log", 3).await);
}
