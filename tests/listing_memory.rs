//! What a listed name costs in memory: live bytes of the allocator, counted, before and after a big listing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use s3mount::clock::Clock;
use s3mount::config::{AttributeDefaults, NamespaceLimits};
use s3mount::namespace::Namespace;
use s3mount::store::memory::MemoryStore;
use s3mount::types::Ino;

/// Names of the directory; each has 12 bytes.
const NAMES: i64 = 200_000;

struct Counting;

static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE_BYTES.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[tokio::test]
async fn a_listed_name_costs_less_than_ninety_bytes() {
    let store = Arc::new(MemoryStore::new());
    for n in 0..NAMES {
        store.put_directly(&format!("d/f{n:07}.dat"), "x");
    }
    let defaults = AttributeDefaults { uid: 0, gid: 0, file_mode: 0o644, dir_mode: 0o755, posix: false };
    let limits = NamespaceLimits::default();
    let namespace = Namespace::new(store, "", defaults, limits, Clock::system(), None);
    let directory = namespace.lookup(Ino::ROOT, "d").await.expect("keys lie below it").ino;
    let before = LIVE_BYTES.load(Ordering::Relaxed);
    let stream = namespace.open_directory(directory).expect("a directory");
    let (mut offset, mut seen) = (0, 0);
    loop {
        let entries = stream.read(offset, 1000).await.expect("the store does not fail");
        let Some(last) = entries.last() else { break };
        offset = last.next_offset;
        seen += entries.len() as i64;
    }
    assert_eq!(seen, NAMES + 2);
    let bytes = LIVE_BYTES.load(Ordering::Relaxed) - before;
    let each = bytes / NAMES;
    assert!(each < 90, "{each} bytes a name");
}
