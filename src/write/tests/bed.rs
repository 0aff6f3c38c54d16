//! An engine over a bucket in memory that may be made to fail, with a journal.

use super::*;

pub(in crate::write) struct Bed {
    pub(in crate::write) bucket: MemoryStore,
    pub(in crate::write) faults: Faults,
    pub(in crate::write) engine: WriteEngine,
    pub(in crate::write) journal: Journal,
    pub(in crate::write) dir: tempfile::TempDir,
}

impl Bed {
    pub(in crate::write) fn with(limits: WriteLimits) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path()).expect("a journal");
        let (bucket, faults) = (MemoryStore::with_part_bytes_min(1), Faults::seeded(0));
        let store = Arc::new(FaultyStore::new(Arc::new(bucket.clone()), faults.clone()));
        let engine =
            WriteEngine::new(store, PagePool::new(0), limits, Arc::default(), Clock::system(), journal.clone());
        Self { bucket, faults, engine, journal, dir }
    }

    pub(in crate::write) fn writer(&self, base: Base) -> Writer {
        self.engine.writer(WriteTarget { key: "k".into(), base, attributes: ObjectAttributes::default() })
    }
}
