//! Memory that is read while it is being filled: the bytes of one GET, or a block's share of them, as they arrive.
//!
//! Owns the buffer, how far each segment of it is filled, and who waits for what. Never asks S3 for anything.
//! Invariant, on which the unsafe code rests: bytes below a segment's `filled` mark are never written again, bytes above
//! it are touched by that segment's only writer alone. A writer that holds its bytes back leaves the mark where it is.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::Notify;

use super::ReadError;
use crate::memory::{PAGE_BYTES, Page, PagePool};
use crate::types::ByteRange;

/// No reader waits for a byte of this segment.
const NOBODY: u64 = u64::MAX;

/// Why bytes will not come.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// The request was given up because nobody seemed to want it: whoever does asks anew.
    Abandoned,
    /// The request failed.
    Failed(ReadError),
}

/// A range of an object, within one block, whose bytes are on their way.
pub(super) struct Filling {
    range: ByteRange,
    pages: Arc<PagePool>,
    /// Taken when the first byte arrives, so that a request that waits for its turn holds no memory.
    memory: OnceLock<Arc<Memory>>,
    segments: Box<[Segment]>,
    unfinished: AtomicUsize,
    outcome: OnceLock<Outcome>,
    arrived: Notify,
    waiters: AtomicUsize,
}

struct Segment {
    range: ByteRange,
    /// Offset in the object up to which bytes are there.
    filled: AtomicU64,
    /// Smallest offset that a waiter wants `filled` to reach, so that the writer wakes nobody in vain.
    wanted: AtomicU64,
}

/// The right to fill one segment, front to back. There is exactly one for each.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    filling: Arc<Filling>,
    segment: usize,
    filled: u64,
    /// Nobody sees what arrives from here on before it is known to be right.
    held_from: Option<u64>,
}

impl Filling {
    /// A filling of the parts of a range, which lies within one block: one segment for each, with its writer. There is at least one
    /// part, none is empty, and each begins where the one before it ends.
    pub(super) fn new(
        parts: &[ByteRange],
        pages: Arc<PagePool>,
    ) -> (Arc<Self>, impl Iterator<Item = SegmentWriter> + use<>) {
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else { panic!("a filling of nothing") };
        let range = ByteRange::new(first.start, last.end);
        let segments = parts.iter().map(|part| Segment {
            range: *part,
            filled: AtomicU64::new(part.start),
            wanted: AtomicU64::new(NOBODY),
        });
        let segments: Box<[Segment]> = segments.collect();
        let filling = Arc::new(Self {
            range,
            pages,
            memory: OnceLock::new(),
            unfinished: AtomicUsize::new(segments.len()),
            segments,
            outcome: OnceLock::new(),
            arrived: Notify::new(),
            waiters: AtomicUsize::new(0),
        });
        let all = Arc::clone(&filling);
        let writers = (0..filling.segments.len()).map(move |segment| {
            let filled = all.segments[segment].range.start;
            SegmentWriter { filling: Arc::clone(&all), segment, filled, held_from: None }
        });
        (filling, writers)
    }

    /// The bytes of the object that this will hold.
    pub(super) fn range(&self) -> ByteRange {
        self.range
    }

    /// Whether a read waits for bytes of this.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiters.load(SeqCst) > 0
    }

    /// The bytes of `range`, which lies within this filling, if they are there.
    pub(super) fn bytes(&self, range: ByteRange) -> Option<Bytes> {
        let is_there = |segment: &Segment| {
            let part = segment.range.intersect(&range);
            part.is_empty() || segment.filled.load(SeqCst) >= part.end
        };
        if !self.segments.iter().all(is_there) {
            return None;
        }
        let memory = Arc::clone(self.memory.get()?);
        let start = usize::try_from(range.start - self.range.start).ok()?;
        let len = usize::try_from(range.len()).ok()?;
        Some(Bytes::from_owner(FilledPart { memory, start, len }))
    }

    /// Waits until the bytes of `range`, which lies within this filling, are there.
    pub(super) async fn wait(&self, range: ByteRange) -> Result<Bytes, Outcome> {
        let _waiting = Waiting::new(&self.waiters);
        for segment in &self.segments {
            let part = segment.range.intersect(&range);
            if part.is_empty() {
                continue;
            }
            loop {
                let arrived = self.arrived.notified();
                let mut arrived = std::pin::pin!(arrived);
                // Listed before `wanted` and `filled` are touched: the writer touches them in the other order, so one of
                // the two sees the other.
                arrived.as_mut().enable();
                segment.wanted.fetch_min(part.end, SeqCst);
                if segment.filled.load(SeqCst) >= part.end {
                    break;
                }
                if let Some(outcome) = self.outcome.get() {
                    return Err(outcome.clone());
                }
                arrived.await;
            }
        }
        Ok(self.bytes(range).expect("every segment of the range was seen filled, and marks never go back"))
    }

    fn memory(&self) -> &Memory {
        self.memory.get_or_init(|| Arc::new(Memory::new(self.range, &self.pages)))
    }

    /// Tells all who wait that no more bytes will come.
    pub(super) fn fail(&self, outcome: Outcome) {
        // A second failure of one filling, from another of its segments, says nothing new.
        let _ = self.outcome.set(outcome);
        self.arrived.notify_waiters();
    }
}

impl fmt::Debug for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filling({}, {} segments)", self.range, self.segments.len())
    }
}

impl SegmentWriter {
    /// The filling of which this is a segment.
    pub(super) fn filling(&self) -> &Arc<Filling> {
        &self.filling
    }

    /// The bytes of the object that this segment will hold.
    pub(super) fn range(&self) -> ByteRange {
        self.filling.segments[self.segment].range
    }

    /// Whether every byte of the segment is there.
    pub(super) fn is_full(&self) -> bool {
        self.filled == self.range().end
    }

    /// Takes bytes from the front of `chunk` until the segment is full; returns how many.
    pub(super) fn append(&mut self, chunk: &[u8]) -> usize {
        let filling = &*self.filling;
        let segment = &filling.segments[self.segment];
        let room = usize::try_from(segment.range.end - self.filled).unwrap_or(usize::MAX);
        let taken = chunk.len().min(room);
        let offset = usize::try_from(self.filled - filling.range.start).expect("a filling fits in memory");
        filling.memory().write(offset, &chunk[..taken]);
        self.advance(taken);
        taken
    }

    /// The bytes of the object that are still missing.
    pub(super) fn missing(&self) -> ByteRange {
        ByteRange::new(self.filled, self.range().end)
    }

    /// Has `source` put bytes where the missing ones belong; it is given the offset in the object and the memory, and answers
    /// how many it put there, from the front. They need no copy.
    pub(super) fn fill_with(&mut self, source: impl FnOnce(u64, &mut [u8]) -> usize) {
        let missing = self.missing();
        let memory = self.filling.memory();
        let offset = usize::try_from(missing.start - self.filling.range.start).expect("a filling fits in memory");
        let len = usize::try_from(missing.len()).expect("a filling fits in memory");
        // SAFETY: the slice lies in the buffer, above the mark of a segment of which this is the only writer: until the mark
        // moves, nobody else reads or writes it. The buffer is initialised from its beginning, if with bytes of no meaning.
        let into = unsafe { memory.unfilled(offset, len) };
        let filled = source(missing.start, into).min(len);
        self.advance(filled);
    }

    /// What arrives from now on is seen by nobody until [`SegmentWriter::release`].
    pub(super) fn hold(&mut self) {
        self.held_from.get_or_insert(self.filled);
    }

    /// What was held is not right: it is to come anew.
    pub(super) fn take_back(&mut self) {
        self.filled = self.held_from.unwrap_or(self.filled);
    }

    /// What was held is right, or as good as it gets.
    pub(super) fn release(&mut self) {
        if self.held_from.take().is_some() {
            self.advance(0);
        }
    }

    fn advance(&mut self, bytes: usize) {
        let filling = &*self.filling;
        let segment = &filling.segments[self.segment];
        self.filled += bytes as u64;
        if self.held_from.is_some() {
            return;
        }
        segment.filled.store(self.filled, SeqCst);
        if self.filled >= segment.wanted.load(SeqCst) {
            segment.wanted.store(NOBODY, SeqCst);
            filling.arrived.notify_waiters();
        }
    }

    /// Ends a full segment. Gives the bytes of the whole filling to the writer of its last segment.
    pub(super) fn finish(self) -> Option<(Arc<Filling>, Bytes)> {
        debug_assert!(self.is_full());
        if self.filling.unfinished.fetch_sub(1, SeqCst) > 1 {
            return None;
        }
        let bytes = self.filling.bytes(self.filling.range)?;
        Some((self.filling, bytes))
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// A buffer that is written and read at once, in disjoint parts.
struct Memory {
    /// Into `_holder`, taken after that came to rest behind the Arc and never through it again.
    start: *mut u8,
    len: usize,
    _holder: Holder,
}

enum Holder {
    Page(#[expect(dead_code, reason = "held for its memory")] Page),
    Exact(#[expect(dead_code, reason = "held for its memory")] Box<[u8]>),
}

// SAFETY: the pointer leads into heap memory that `_holder` owns and that stays where it is when `Memory` moves. What
// threads may do with it at once is bounded by the invariant of this file.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Memory for `range`: a page of the pool for a whole block, exactly so many bytes for less, so that a small file does
    /// not hold a page.
    fn new(range: ByteRange, pages: &Arc<PagePool>) -> Self {
        let len = usize::try_from(range.len()).expect("a filling lies within a block");
        if len == PAGE_BYTES {
            let mut page = pages.take();
            let start = page.as_mut_ptr();
            Self { start, len, _holder: Holder::Page(page) }
        } else {
            let mut exact = vec![0; len].into_boxed_slice();
            let start = exact.as_mut_ptr();
            Self { start, len, _holder: Holder::Exact(exact) }
        }
    }

    /// Part of the buffer, to be written to.
    ///
    /// # Safety
    /// Nobody may read or write that part while the slice lives.
    #[expect(clippy::mut_from_ref, reason = "the caller vouches for it")]
    unsafe fn unfilled(&self, offset: usize, len: usize) -> &mut [u8] {
        assert!(len <= self.len && offset <= self.len - len);
        // SAFETY: the part lies in the buffer (asserted), and the caller has it for itself.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), len) }
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(bytes.len() <= self.len && offset <= self.len - bytes.len());
        // SAFETY: the destination lies in the buffer (asserted) and above the mark of a segment whose only writer calls
        // this, so nobody reads or writes it now. `bytes` cannot overlap it, for no slice of it has been given out.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(offset), bytes.len()) }
    }
}

/// Bytes below the marks, kept alive for a reader.
struct FilledPart {
    memory: Arc<Memory>,
    start: usize,
    len: usize,
}

impl AsRef<[u8]> for FilledPart {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `Filling::bytes`, the only maker of this, saw with SeqCst that every byte of the part is below its
        // segment's mark: it lies in the buffer, was written before, and is never written again.
        unsafe { std::slice::from_raw_parts(self.memory.start.add(self.start), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filling(start: u64, end: u64, segments: u64) -> (Arc<Filling>, Vec<SegmentWriter>) {
        let cut = |nth: u64| start + (end - start) * nth / segments;
        let parts: Vec<ByteRange> = (0..segments).map(|nth| ByteRange::new(cut(nth), cut(nth + 1))).collect();
        let (filling, writers) = Filling::new(&parts, PagePool::new(0));
        let writers = writers.collect();
        (filling, writers)
    }

    #[tokio::test]
    async fn a_waiter_for_the_first_bytes_is_served_before_the_rest_arrives() {
        let (filling, mut writers) = filling(100, 200, 1);
        let waiter = {
            let filling = Arc::clone(&filling);
            tokio::spawn(async move { filling.wait(ByteRange::new(100, 104)).await })
        };
        while !filling.is_wanted() {
            tokio::task::yield_now().await;
        }
        assert_eq!(writers[0].append(b"abcd"), 4);
        assert_eq!(waiter.await.expect("no panic").expect("bytes"), &b"abcd"[..]);
        assert!(filling.bytes(ByteRange::new(100, 105)).is_none());
        assert!(!filling.is_wanted());
    }

    #[tokio::test]
    async fn a_failure_reaches_the_waiter_of_missing_bytes_only() {
        let (filling, mut writers) = filling(0, 10, 1);
        writers[0].append(b"abc");
        filling.fail(Outcome::Abandoned);
        assert_eq!(filling.wait(ByteRange::new(0, 3)).await.expect("there"), &b"abc"[..]);
        assert!(matches!(filling.wait(ByteRange::new(0, 4)).await, Err(Outcome::Abandoned)));
    }

    #[test]
    fn a_segment_takes_no_more_than_its_own() {
        let (filling, mut writers) = filling(3, 12, 2);
        assert_eq!(writers.len(), 2);
        assert_eq!(writers[0].append(b"0123456789"), 4);
        assert!(writers[0].is_full());
        assert_eq!(writers[1].append(b"456789"), 5);
        assert!(writers.remove(0).finish().is_none());
        let (_, bytes) = writers.remove(0).finish().expect("the last segment gives the bytes");
        assert_eq!(bytes, &b"012345678"[..]);
        assert_eq!(filling.bytes(ByteRange::new(7, 9)).as_deref(), Some(&b"45"[..]));
    }

    #[test]
    fn bytes_put_in_place_count_as_far_as_they_are_right() {
        let (filling, mut writers) = filling(0, 10, 1);
        writers[0].append(b"ab");
        writers[0].fill_with(|start, into| {
            assert_eq!((start, into.len()), (2, 8));
            into[..5].copy_from_slice(b"cdexx");
            3
        });
        assert_eq!(writers[0].missing(), ByteRange::new(5, 10));
        assert_eq!(filling.bytes(ByteRange::new(0, 5)).as_deref(), Some(&b"abcde"[..]));
        assert!(filling.bytes(ByteRange::new(0, 6)).is_none());
        writers[0].append(b"fghij");
        let (_, bytes) = writers.remove(0).finish().expect("full");
        assert_eq!(bytes, &b"abcdefghij"[..]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn readers_beside_the_writers_see_only_written_bytes(len in 8_u64..4000, segments in 1_u64..5, chunk in 1_usize..700) {
            let (filling, writers) = filling(1000, 1000 + len, segments);
            let byte_at = |offset: u64| (offset * 7) as u8;
            std::thread::scope(|scope| {
                for mut writer in writers {
                    scope.spawn(move || {
                        let all: Vec<u8> = (writer.range().start..writer.range().end).map(byte_at).collect();
                        for part in all.chunks(chunk) {
                            writer.append(part);
                        }
                        writer.finish();
                    });
                }
                let reader = scope.spawn(|| {
                    let mut start = 1000;
                    while start < 1000 + len {
                        let range = ByteRange::new(start, (start + 13).min(1000 + len));
                        if let Some(bytes) = filling.bytes(range) {
                            assert!(bytes.iter().zip(start..).all(|(byte, at)| *byte == byte_at(at)));
                            start = range.end;
                        }
                    }
                });
                reader.join().expect("bytes as written");
            });
        }
    }
}
