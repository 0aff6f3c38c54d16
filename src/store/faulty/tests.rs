//! That each fault does what it says.

use futures_util::TryStreamExt as _;

use super::*;
use crate::store::memory::MemoryStore;
use crate::store::{GetRange, WriteCondition};

fn faulty() -> (MemoryStore, Faults, Arc<FaultyStore>) {
    let memory = MemoryStore::default();
    let faults = Faults::seeded(7);
    let store = FaultyStore::new(Arc::new(memory.clone()), faults.clone());
    (memory, faults, Arc::new(store))
}

fn get() -> GetRequest {
    GetRequest { key: "k".into(), range: GetRange::Whole, if_match: None, if_none_match: None }
}

fn put() -> PutRequest {
    PutRequest {
        key: "k".into(),
        payload: Bytes::from_static(b"new").into(),
        attributes: ObjectAttributes::default(),
        condition: WriteCondition::None,
    }
}

fn lost() -> StoreError {
    StoreError::Transient("connection reset".into())
}

#[tokio::test]
async fn an_error_before_leaves_nothing_and_an_error_after_leaves_the_object() {
    let (memory, faults, store) = faulty();
    faults.fail_nth(RequestKind::Put, 1, lost());
    faults.lose_reply_of_nth(RequestKind::Put, 2, lost());
    assert!(store.put(put()).await.is_err());
    assert!(memory.keys().is_empty());
    assert!(store.put(put()).await.is_err());
    assert_eq!(memory.content("k").unwrap(), "new");
    store.put(put()).await.unwrap();
    assert_eq!(faults.injected(), 2);
}

#[tokio::test]
async fn a_broken_body_gives_its_bytes_and_then_the_error() {
    let (memory, faults, store) = faulty();
    memory.put_directly("k", vec![1; 800_000]);
    faults.add(Rule::new(Fault::BrokenBody { after_bytes: 600_000, error: lost() }).times(1));
    let mut body = store.get(get()).await.unwrap().body;
    let mut seen = 0;
    let error = loop {
        match body.next().await.unwrap() {
            Ok(bytes) => seen += bytes.len(),
            Err(error) => break error,
        }
    };
    assert_eq!(seen, 600_000);
    assert!(matches!(error, StoreError::Transient(_)));
}

#[tokio::test]
async fn a_damaged_body_differs_and_says_so_at_its_end() {
    let (memory, faults, store) = faulty();
    memory.put_directly("k", "hello");
    faults.add(Rule::new(Fault::Damaged).on(RequestKind::Get));
    let mut body = store.get(get()).await.unwrap().body;
    assert_ne!(body.next().await.unwrap().unwrap(), "hello");
    assert!(matches!(body.next().await, Some(Err(StoreError::Corrupt(_)))));
}

#[tokio::test]
async fn a_held_reply_comes_when_the_gate_opens() {
    let (memory, faults, store) = faulty();
    let gate = Gate::closed();
    faults.add(Rule::new(Fault::HoldReply(gate.clone())).on(RequestKind::Put));
    let call = tokio::spawn(async move { store.put(put()).await });
    gate.arrived(1).await;
    assert_eq!(memory.content("k").unwrap(), "new");
    assert!(!call.is_finished());
    gate.open();
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_held_body_gives_the_bytes_before_the_gate() {
    let (memory, faults, store) = faulty();
    memory.put_directly("k", vec![3; 500_000]);
    let gate = Gate::closed();
    faults.add(Rule::new(Fault::HoldBody { after_bytes: 300_000, gate: gate.clone() }));
    let mut body = store.get(get()).await.unwrap().body;
    let before: usize =
        body.by_ref().take(2).map(|item| item.unwrap().len()).fold(0, |a, b| async move { a + b }).await;
    assert_eq!(before, 300_000);
    gate.open();
    let rest: Vec<Bytes> = body.try_collect().await.unwrap();
    assert_eq!(rest.iter().map(Bytes::len).sum::<usize>(), 200_000);
}

#[tokio::test]
async fn the_same_seed_meets_the_same_faults() {
    let mut histories = Vec::new();
    for _ in 0..2 {
        let (_, faults, store) = faulty();
        faults.add(Rule::new(Fault::Before(lost())).rate(0.3));
        let mut history = Vec::new();
        for _ in 0..50 {
            history.push(store.put(put()).await.is_ok());
        }
        histories.push(history);
    }
    assert_eq!(histories[0], histories[1]);
    assert!(histories[0].iter().any(|ok| *ok) && histories[0].iter().any(|ok| !*ok));
}
