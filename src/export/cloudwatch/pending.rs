//! What is still to be sent: the data of intervals, oldest first, bounded. Pure.
//!
//! Invariant: what was sent is never sent again after its success was heard, and what was not is given up only when the
//! ring is full (then the oldest interval as a whole) or CloudWatch says that it will never take it.

use std::collections::VecDeque;

use super::datum::Datum;

/// Intervals that are held while CloudWatch is away: 12 hours of minutes, or 12 minutes of seconds. CloudWatch takes data
/// of the past two weeks. An interval is some 15 KB, so this is 11 MB at most.
const INTERVALS_MAX: usize = 720;
/// Data a request may have, and bytes (API reference, PutMetricData). The bytes are reckoned before compression, with room
/// for what the estimate does not see.
const DATA_MAX: usize = 1000;
const REQUEST_BYTES_MAX: usize = 900_000;

/// The ring.
#[derive(Debug)]
pub(super) struct Pending {
    intervals: VecDeque<Vec<(u64, Datum)>>,
    next: u64,
    /// Bytes of the dimensions that each datum carries.
    dimension_bytes: usize,
}

/// Data for one request, in order; never none.
#[derive(Clone, Debug)]
pub(super) struct Batch(Vec<(u64, Datum)>);

impl Batch {
    /// The data.
    pub(super) fn data(&self) -> Vec<Datum> {
        self.0.iter().map(|(_, datum)| datum.clone()).collect()
    }

    /// To be told to [`Pending::done`].
    pub(super) fn last(&self) -> u64 {
        self.0.last().expect("a batch has data").0
    }

    /// Two halves that say the same together; `None` of a single datum.
    pub(super) fn halves(mut self) -> Option<(Self, Self)> {
        let rest = self.0.split_off(self.0.len().div_ceil(2));
        (!rest.is_empty()).then_some((self, Self(rest)))
    }
}

impl Pending {
    pub(super) fn new(dimension_bytes: usize) -> Self {
        Self { intervals: VecDeque::new(), next: 0, dimension_bytes }
    }

    /// Takes the data of an interval in. Answers whether the oldest one had to go for it.
    pub(super) fn push(&mut self, data: Vec<Datum>) -> bool {
        let numbered = data.into_iter().flat_map(Datum::split).zip(self.next..).map(|(datum, number)| (number, datum));
        let numbered: Vec<_> = numbered.collect();
        self.next += numbered.len() as u64;
        self.intervals.push_back(numbered);
        let is_full = self.intervals.len() > INTERVALS_MAX;
        if is_full {
            self.intervals.pop_front();
        }
        is_full
    }

    /// What the next request should carry.
    pub(super) fn batch(&self) -> Option<Batch> {
        let (mut data, mut bytes) = (Vec::new(), 0);
        for (number, datum) in self.intervals.iter().flatten() {
            let more = datum.bytes_max() + self.dimension_bytes;
            if data.len() == DATA_MAX || (bytes + more > REQUEST_BYTES_MAX && !data.is_empty()) {
                break;
            }
            bytes += more;
            data.push((*number, datum.clone()));
        }
        (!data.is_empty()).then_some(Batch(data))
    }

    /// All data up to `last` were sent, or will never be.
    pub(super) fn done(&mut self, last: u64) {
        while let Some(first) = self.intervals.front_mut() {
            first.retain(|(number, _)| *number > last);
            if !first.is_empty() {
                return;
            }
            self.intervals.pop_front();
        }
    }

    /// How many intervals wait.
    pub(super) fn intervals(&self) -> usize {
        self.intervals.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::super::datum::{Distribution, Value};
    use super::*;

    fn datum(second: u64, value: Value) -> Datum {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        Datum { name: "BytesRead", operation: None, unit: "Bytes", at, value }
    }

    fn singles(second: u64, count: usize) -> Vec<Datum> {
        vec![datum(second, Value::Single(1.0)); count]
    }

    fn send_all(pending: &mut Pending) -> Vec<usize> {
        let mut sizes = Vec::new();
        while let Some(batch) = pending.batch() {
            sizes.push(batch.data().len());
            pending.done(batch.last());
        }
        sizes
    }

    #[test]
    fn a_request_has_at_most_a_thousand_data() {
        let mut pending = Pending::new(60);
        (0..100).for_each(|second| assert!(!pending.push(singles(second, 25))));
        assert_eq!(send_all(&mut pending), [1000, 1000, 500]);
        assert_eq!(pending.intervals(), 0);
    }

    #[test]
    fn a_request_has_at_most_so_many_bytes() {
        let (values, counts) = ((0..150).map(f64::from).collect(), vec![1.0; 150]);
        let wide = Distribution { values, counts, sample_count: 150.0, sum: 1.0, minimum: 0.0, maximum: 149.0 };
        let mut pending = Pending::new(60);
        pending.push(vec![datum(0, Value::Distribution(wide)); 700]);
        let each = pending.batch().expect("data").data()[0].bytes_max() + 60;
        let sizes = send_all(&mut pending);
        assert_eq!(sizes.iter().sum::<usize>(), 700);
        assert!(sizes.len() > 1 && sizes.iter().all(|data| data * each <= REQUEST_BYTES_MAX), "{sizes:?}");
    }

    #[test]
    fn what_was_sent_is_not_sent_again_when_a_later_request_fails() {
        let mut pending = Pending::new(0);
        pending.push(singles(0, 1500));
        let first = pending.batch().expect("data");
        pending.done(first.last());
        for _ in 0..2 {
            assert_eq!(pending.batch().expect("the rest").data().len(), 500, "failing changes nothing");
        }
    }

    #[test]
    fn a_full_ring_gives_its_oldest_interval_up() {
        let mut pending = Pending::new(0);
        let dropped = (0..=INTERVALS_MAX as u64).filter(|&second| pending.push(singles(second, 2))).count();
        assert_eq!((dropped, pending.intervals()), (1, INTERVALS_MAX));
        let first = pending.batch().expect("data").data()[0].at;
        assert_eq!(first, SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    }

    #[test]
    fn what_fell_out_of_the_ring_while_it_was_sent_takes_nothing_along() {
        let mut pending = Pending::new(0);
        pending.push(singles(0, 2));
        let sending = pending.batch().expect("data");
        (1..=INTERVALS_MAX as u64).for_each(|second| {
            pending.push(singles(second, 2));
        });
        pending.done(sending.last());
        assert_eq!(pending.intervals(), INTERVALS_MAX);
    }

    proptest! {
        #[test]
        fn every_datum_is_sent_once_and_in_order_however_requests_fail(
            steps in prop::collection::vec((0_usize..1500, prop::collection::vec(any::<bool>(), 0..3)), 1..40)
        ) {
            let mut pending = Pending::new(60);
            let (mut pushed, mut sent) = (Vec::new(), Vec::new());
            let mut send = |pending: &mut Pending, is_taken: bool| {
                let Some(batch) = pending.batch() else { return false };
                assert!(batch.data().len() <= DATA_MAX);
                assert!(batch.data().iter().map(|it| it.bytes_max() + 60).sum::<usize>() <= REQUEST_BYTES_MAX);
                if is_taken {
                    sent.extend(batch.data().iter().map(|it| it.at));
                    pending.done(batch.last());
                }
                true
            };
            for (second, (count, requests)) in steps.into_iter().enumerate() {
                let data = singles(second as u64, count);
                pushed.extend(data.iter().map(|it| it.at));
                pending.push(data);
                for is_taken in requests {
                    send(&mut pending, is_taken);
                }
            }
            while send(&mut pending, true) {}
            prop_assert_eq!(sent, pushed);
        }
    }
}
