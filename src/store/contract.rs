//! What every store holds to, as one suite of named facts: run over the memory store, its wrappers, and the S3 client
//! against each server that the tests know.
//!
//! For tests; never part of a mount. A fact works under a prefix of its own and leaves what it made, so that facts run
//! side by side on one bucket. What a server cannot do is said by [`Quirks`] and by the store's capabilities.

mod conditions;
mod listing;
mod multipart;
mod objects;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use futures_util::future::BoxFuture;

use super::{
    GetRange, GetRequest, ListPage, ListRequest, ObjectAttributes, ObjectStore, Payload, PutRequest, StoreError,
    StoreResult, WriteCondition,
};
use crate::types::{ETag, ObjectInfo, ObjectKey};

/// What a server does otherwise than S3.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quirks {
    /// Keys that S3 takes are refused or folded: `//`, control characters.
    pub refuses_odd_keys: bool,
    /// Keys are paths: `a` and `a/b` do not stand side by side, and `a/` holds no bytes.
    pub is_a_file_system: bool,
    /// An upload that is gone is an error of the server.
    pub loses_track_of_uploads: bool,
    /// A part under 5 MiB is taken anywhere.
    pub takes_small_parts: bool,
    /// A wrong part list is taken or refused in ways of its own.
    pub is_lax_about_parts: bool,
}

/// One fact. `run` panics where it does not hold.
pub struct Fact {
    /// What holds.
    pub name: &'static str,
    run: fn(Bed) -> BoxFuture<'static, ()>,
}

impl std::fmt::Debug for Fact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Fact {
    /// Tries the fact on a store.
    pub async fn check(&self, store: &Arc<dyn ObjectStore>, quirks: Quirks) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("contract-{:08x}-{number}/", fastrand::u32(..));
        (self.run)(Bed { store: Arc::clone(store), prefix, quirks }).await;
    }
}

/// All facts.
pub fn facts() -> Vec<Fact> {
    [objects::facts(), listing::facts(), conditions::facts(), multipart::facts()].into_iter().flatten().collect()
}

/// Names each function of the list as a fact.
macro_rules! name_facts {
    ($($name:ident),+ $(,)?) => {
        pub(super) fn facts() -> Vec<super::Fact> {
            vec![$(super::Fact { name: stringify!($name), run: |bed| Box::pin($name(bed)) }),+]
        }
    };
}
use name_facts;

/// The place where one fact is tried.
struct Bed {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    quirks: Quirks,
}

impl Bed {
    fn key(&self, name: &str) -> ObjectKey {
        format!("{}{name}", self.prefix).into()
    }

    fn request(&self, name: &str, bytes: &[u8]) -> PutRequest {
        PutRequest {
            key: self.key(name),
            payload: Bytes::copy_from_slice(bytes).into(),
            attributes: ObjectAttributes::default(),
            condition: WriteCondition::None,
        }
    }

    async fn put(&self, name: &str, bytes: &[u8]) -> ObjectInfo {
        self.store.put(self.request(name, bytes)).await.expect("a PUT")
    }

    async fn put_if(&self, name: &str, bytes: &[u8], condition: WriteCondition) -> StoreResult<ObjectInfo> {
        self.store.put(PutRequest { condition, ..self.request(name, bytes) }).await
    }

    async fn get(&self, name: &str, range: GetRange) -> StoreResult<(ObjectInfo, Bytes)> {
        self.get_if(name, range, None, None).await
    }

    async fn get_if(
        &self,
        name: &str,
        range: GetRange,
        if_match: Option<&ETag>,
        if_none_match: Option<&ETag>,
    ) -> StoreResult<(ObjectInfo, Bytes)> {
        let (if_match, if_none_match) = (if_match.cloned(), if_none_match.cloned());
        let response = self.store.get(GetRequest { key: self.key(name), range, if_match, if_none_match }).await?;
        let bytes: BytesMut = response.body.try_collect().await?;
        assert_eq!(bytes.len() as u64, response.range.len());
        Ok((response.info, bytes.freeze()))
    }

    async fn content(&self, name: &str) -> Bytes {
        self.get(name, GetRange::Whole).await.expect("a GET").1
    }

    async fn is_there(&self, name: &str) -> bool {
        match self.store.head(&self.key(name)).await {
            Ok(_) => true,
            Err(StoreError::NotFound) => false,
            Err(error) => panic!("HEAD: {error}"),
        }
    }

    async fn list(&self, request: ListRequest) -> ListPage {
        let prefix = format!("{}{}", self.prefix, request.prefix);
        let start_after = request.start_after.map(|name| format!("{}{name}", self.prefix));
        self.store.list(ListRequest { prefix, start_after, ..request }).await.expect("a LIST")
    }

    /// Names of a page without the prefix: objects, and rolled-up prefixes.
    fn names(&self, page: &ListPage) -> (Vec<String>, Vec<String>) {
        let name = |key: &str| key.strip_prefix(&self.prefix).expect("a listed key begins with the prefix").to_owned();
        let objects = page.objects.iter().map(|object| name(object.key().as_str())).collect();
        (objects, page.common_prefixes.iter().map(|prefix| name(prefix)).collect())
    }
}

/// Bytes that differ from one another everywhere.
fn pattern(len: usize, seed: u8) -> Bytes {
    let mut state = u32::from(seed) + 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// A payload in chunks of odd lengths.
fn in_chunks(bytes: &Bytes) -> Payload {
    let third = bytes.len() / 3;
    Payload::new(vec![bytes.slice(..third), Bytes::new(), bytes.slice(third..2 * third), bytes.slice(2 * third..)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::metrics::Metrics;
    use crate::store::StoreCapabilities;
    use crate::store::conditional::ConditionalStore;
    use crate::store::faulty::{Fault, Faults, FaultyStore, Rule};
    use crate::store::measured::MeasuredStore;
    use crate::store::memory::{MemoryOptions, MemoryStore};
    use crate::store::retry::{RetryPolicy, RetryStore};

    #[expect(clippy::print_stdout, reason = "shown where a fact fails")]
    async fn holds(store: Arc<dyn ObjectStore>) {
        for fact in facts() {
            println!("{}", fact.name);
            fact.check(&store, Quirks::default()).await;
        }
    }

    #[tokio::test]
    async fn memory_holds_the_contract() {
        holds(Arc::new(MemoryStore::new())).await;
    }

    #[tokio::test]
    async fn faulty_without_faults_holds_the_contract() {
        holds(Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()), Faults::seeded(1)))).await;
    }

    #[tokio::test]
    async fn retry_over_measured_holds_the_contract() {
        let metrics = Arc::new(Metrics::default());
        let measured = MeasuredStore::new(Arc::new(MemoryStore::new()), Arc::clone(&metrics), Clock::system());
        holds(Arc::new(RetryStore::new(Arc::new(measured), RetryPolicy::default(), metrics))).await;
    }

    #[tokio::test]
    async fn conditional_over_a_server_that_ignores_conditions_holds_the_contract() {
        let none = StoreCapabilities::NONE;
        let options = MemoryOptions { capabilities: none, ..MemoryOptions::default() };
        let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::with_options(options));
        let looking: Arc<dyn ObjectStore> = Arc::new(ConditionalStore::new(store, none));
        // Nobody else writes, so that looking first is as good as a condition, and the facts of conditions hold too.
        let faulty = FaultyStore::new(looking, Faults::seeded(1)).claiming(StoreCapabilities::ALL);
        holds(Arc::new(faulty)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn retry_holds_the_contract_while_every_tenth_reply_is_lost() {
        for seed in 0..8 {
            let faults = Faults::seeded(seed);
            let lost = || StoreError::Transient("connection reset".into());
            faults.add(Rule::new(Fault::After(lost())).rate(0.1));
            faults.add(Rule::new(Fault::Before(lost())).rate(0.1));
            let faulty = FaultyStore::new(Arc::new(MemoryStore::new()), faults);
            let metrics = Arc::new(Metrics::default());
            holds(Arc::new(RetryStore::new(Arc::new(faulty), RetryPolicy::default(), metrics))).await;
        }
    }
}
