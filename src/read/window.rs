//! The prefetch policy: which bytes a handle's reads make worth asking for before they are asked for. Pure: no clock, no
//! I/O, no cache.
//!
//! Owns the stream detectors of one handle. A read that continues a detector's stream feeds it; one that continues none is
//! a seek and begins a new stream. Reads may come out of order, from several threads, and of several streams by turns.
//! Invariant: a stream never asks for more than [`ASKED_FACTOR`] times what was read of it (gaps that it reads through
//! included), so no workload, however unlucky, fetches more than twice what it reads; only a stream that began at offset 0
//! may bet higher, [`ASKED_FACTOR_FROM_START`] times, for most files that are read from their start are read to their end.

use super::fetch::BLOCK_BYTES;
use crate::config::ReadLimits;
use crate::types::ByteRange;

/// Streams that one handle may have at once. DuckDB and PyArrow interleave a handful of column chunks on a descriptor; twice
/// the eight that are promised leaves room for the random reads between them.
pub(super) const STREAMS_MAX: usize = 16;

/// How far behind the furthest read one still belongs to its stream: the kernel's read-ahead and parallel readers deliver
/// their requests out of order, by up to a few requests of 1 MiB.
const BEHIND_BYTES_MAX: u64 = 2 << 20;

/// How far from its place a read of the kernel's read-ahead may come: the mount raises it to 4 MiB, the kernel keeps the
/// present and the next one in flight, and several threads take its requests up.
const SHUFFLED_BYTES_MAX: u64 = 8 << 20;
/// The kernel's read-ahead asks for no less, once a file is read from its start.
const SHUFFLED_READ_BYTES_MIN: u64 = 128 << 10;

/// Bytes fetched for a byte read, at most.
const ASKED_FACTOR: u64 = 2;
/// The same for a stream that began at offset 0.
const ASKED_FACTOR_FROM_START: u64 = 8;
/// What a stream from offset 0 is granted beyond that at its second read, so that it asks for whole blocks at once.
const GRANT_FROM_START_BYTES: u64 = 2 << 20;

/// What follows on a read and is no longer than this part of it, as a divisor, is its rest.
const REST_DIVISOR: u64 = 8;

/// Smallest request of a forward stream: a read of the kernel's default read-ahead.
const UNIT_BYTES_MIN: u64 = 128 << 10;

/// How wide a window grows before a read has to wait again, in bytes: 10 Gbit/s for the 25 ms to a first byte.
const FIRST_WINDOW_BYTES: u64 = 32 << 20;
/// How many times wider it may become with each wait: a round trip that finds a window too small is lost.
const WINDOW_GROWTH: u64 = 4;

/// Requests that the window of a waiting stream is cut into at least, however many others there are.
const WINDOW_REQUESTS_MIN: u64 = 4;

/// Seeks without a use of it after which a stream's window closes.
const SEEKS_TO_CLOSE: u8 = 2;

/// Equal steps in a row that make a stride.
const STRIDES_TO_TRUST: u32 = 2;
/// Pieces of a strided stream that are asked for ahead.
const STRIDE_PIECES_MAX: i64 = 64;

/// A stream of which more than this was read counts as one that fills its window.
const STREAMING_BYTES: u64 = 1 << 20;

/// Bytes that a stream passes between two times that it says so.
const PASSED_BYTES_MIN: u64 = 1 << 20;

/// The limits that all streams of a mount share.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowLimits {
    /// Largest window in bytes.
    pub(super) window_bytes_max: u64,
    /// Largest request in bytes; requests end at multiples of it.
    pub(super) request_bytes_max: u64,
    /// Gaps up to this many bytes belong to the stream, in bytes.
    pub(super) gap_bytes_max: u64,
    /// What a stream has passed in a file over this many bytes is not read again before it would be dropped anyway.
    pub(super) kept_bytes_max: u64,
}

/// What this moment leaves to one stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// Largest window in bytes.
    pub(super) window_bytes_max: u64,
    /// Streams of all handles that fill windows now, at least one.
    pub(super) streams: u64,
}

/// What a read is answered with: what to fetch ahead.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Ranges to ask for, in the order in which they will be needed; none crosses a multiple of the largest request.
    pub(super) ranges: Vec<ByteRange>,
    /// What the stream has passed and nobody will need again before the cache, which is smaller than the file, would have
    /// dropped it: blocks that end in here are better given back at once.
    pub(super) passed: Option<ByteRange>,
    /// Whether the read continued a stream.
    pub(super) sequential: bool,
    stream: usize,
    began: u64,
}

/// The detectors of one handle.
#[derive(Debug)]
pub(super) struct Streams {
    streams: Vec<Stream>,
    size_bytes: u64,
    /// Counts reads, to know the least recently used stream.
    reads: u64,
    /// How much of the start of the file is on its way already.
    opened_bytes: u64,
}

#[derive(Debug)]
struct Stream {
    /// The `reads` of its first and of its latest read.
    began: u64,
    used: u64,
    last: ByteRange,
    /// End of the furthest read.
    position: u64,
    /// Distance from start to start of its last two reads, and how often in a row it was that.
    step: i64,
    steps: u32,
    from_start: bool,
    /// Bytes read, and bytes asked for on its behalf, since its window opened.
    asked: u64,
    issued: u64,
    /// What lies between has been asked for, by reads or ahead of them, without a gap.
    issued_start: u64,
    issued_end: u64,
    /// How many pieces of a strided stream beyond `last` have been asked for.
    strides_issued: i64,
    /// How large the window may grow before a read has to wait again.
    allowance: u64,
    /// Where the allowance was raised last.
    raised_at: u64,
    /// What lies before was passed, and said to be.
    passed_end: u64,
    seeks: u8,
}

impl Stream {
    fn new(read: ByteRange, began: u64, opened_bytes: u64, limits: &WindowLimits) -> Self {
        let from_start = read.start == 0;
        let issued_end = if read.start <= opened_bytes { read.end.max(opened_bytes) } else { read.end };
        Self {
            began,
            used: began,
            last: read,
            position: read.end,
            step: 0,
            steps: 0,
            from_start,
            asked: read.len(),
            issued: read.len(),
            issued_start: read.start,
            issued_end,
            strides_issued: 0,
            allowance: FIRST_WINDOW_BYTES.min(limits.window_bytes_max),
            raised_at: read.end,
            passed_end: read.start,
            seeks: 0,
        }
    }

    fn continues_forward(&self, read: ByteRange, gap_bytes_max: u64) -> bool {
        let is_within = |behind: u64, ahead: u64| {
            read.start <= self.position.saturating_add(ahead) && read.start.saturating_add(behind) >= self.position
        };
        is_within(BEHIND_BYTES_MAX, gap_bytes_max)
            || (is_within(SHUFFLED_BYTES_MAX, SHUFFLED_BYTES_MAX) && self.is_shuffled(read))
    }

    /// Whether a read is one of the stream that merely comes before or after its turn: it was asked for ahead, or it is one of
    /// the large ones that the kernel sends side by side for a file that is read from its start.
    fn is_shuffled(&self, read: ByteRange) -> bool {
        let was_asked_for = self.issued_start <= read.start && read.end <= self.issued_end;
        was_asked_for || (self.from_start && read.len() >= SHUFFLED_READ_BYTES_MIN)
    }

    /// Whether a read is the last of those that the kernel makes of one call: a call at an odd offset ends in a page of its own,
    /// which says nothing of what is read next.
    fn is_rest(&self, read: ByteRange) -> bool {
        !self.from_start
            && self.steps == 0
            && read.start == self.position
            && read.len() <= self.last.len() / REST_DIVISOR
    }

    fn continues_stride(&self, read: ByteRange) -> bool {
        self.steps >= STRIDES_TO_TRUST && self.last.start.checked_add_signed(self.step) == Some(read.start)
    }

    /// Whether the reads are so far apart, or so surely backward, that reading through would waste more than half.
    fn is_strided(&self) -> bool {
        let dense = 0 <= self.step && self.step.unsigned_abs() <= self.last.len().saturating_mul(ASKED_FACTOR);
        self.steps >= STRIDES_TO_TRUST && !dense
    }

    fn advance(&mut self, read: ByteRange, now: u64) {
        // Offsets of S3 objects stay below 2^46, far from where a difference overflows.
        let step = read.start as i64 - self.last.start as i64;
        let foreseen = step == self.step && self.strides_issued > 0;
        if step == self.step {
            self.steps += 1;
            self.strides_issued = (self.strides_issued - 1).max(0);
        } else {
            self.step = step;
            self.steps = 1;
            self.strides_issued = 0;
        }
        self.last = read;
        self.used = now;
        self.seeks = 0;
        // The first of the kernel's requests may come after the second.
        self.from_start |= read.start == 0;
        self.asked += read.len();
        self.position = self.position.max(read.end);
        if read.end < self.issued_start || read.start > self.issued_end {
            if !foreseen {
                self.issued += read.len();
            }
            // Of the two ranges apart, the one further on is where the stream goes.
            if read.start > self.issued_end {
                (self.issued_start, self.issued_end) = (read.start, read.end);
            }
            return;
        }
        if !foreseen {
            self.issued += self.issued_start.saturating_sub(read.start) + read.end.saturating_sub(self.issued_end);
        }
        self.issued_start = self.issued_start.min(read.start);
        self.issued_end = self.issued_end.max(read.end);
    }

    fn close(&mut self, limits: &WindowLimits) {
        self.asked = 0;
        self.issued = 0;
        self.from_start = false;
        self.allowance = FIRST_WINDOW_BYTES.min(limits.window_bytes_max);
        self.raised_at = self.position;
    }

    /// What was passed since the last time, up to where a read that comes late may still belong to the stream.
    fn pass(&mut self, size_bytes: u64, limits: &WindowLimits) -> Option<ByteRange> {
        let end = self.position.saturating_sub(SHUFFLED_BYTES_MAX);
        if size_bytes <= limits.kept_bytes_max || end < self.passed_end.saturating_add(PASSED_BYTES_MIN) {
            return None;
        }
        let passed = ByteRange::new(self.passed_end, end);
        self.passed_end = end;
        Some(passed)
    }

    fn is_streaming(&self, size_bytes: u64) -> bool {
        self.asked >= STREAMING_BYTES && self.position < size_bytes
    }

    /// The window in bytes, and how much of it may still be asked for.
    fn window(&mut self, waited: bool, share: Share, limits: &WindowLimits) -> (u64, u64) {
        let (window, issued_max) = if self.from_start {
            let grant = if self.steps == 0 { 0 } else { GRANT_FROM_START_BYTES };
            let grown = self.asked.saturating_mul(ASKED_FACTOR_FROM_START - 1).max(grant);
            (grown, self.asked.saturating_mul(ASKED_FACTOR_FROM_START).saturating_add(grant))
        } else {
            (self.asked, self.asked.saturating_mul(ASKED_FACTOR))
        };
        // A reader that never waits has all the window that bandwidth times latency asks for.
        let travelled = self.position.abs_diff(self.raised_at);
        if waited && window > self.allowance && travelled >= self.allowance / 4 {
            self.allowance = (WINDOW_GROWTH * self.allowance).min(limits.window_bytes_max);
            self.raised_at = self.position;
        }
        let window = window.min(self.allowance).min(limits.window_bytes_max).min(share.window_bytes_max);
        (window, issued_max.saturating_sub(self.issued))
    }

    fn plan_forward(
        &mut self,
        (window, room): (u64, u64),
        window_requests: Option<u64>,
        size_bytes: u64,
        limits: &WindowLimits,
    ) -> Vec<ByteRange> {
        let start = self.issued_end.max(self.position);
        let unit = unit_of(window, window_requests, limits);
        let wanted = self.position.saturating_add(window).min(start.saturating_add(room));
        let target = if wanted >= size_bytes { size_bytes } else { wanted / unit * unit };
        if target <= start {
            return Vec::new();
        }
        self.issued += target - start;
        self.issued_end = target;
        cut(ByteRange::new(start, target), unit)
    }

    fn plan_strides(&mut self, window: u64, room: u64, size_bytes: u64, limits: &WindowLimits) -> Vec<ByteRange> {
        let len = self.last.len();
        if len == 0 {
            return Vec::new();
        }
        let wanted = i64::try_from(window / len).unwrap_or(i64::MAX).min(STRIDE_PIECES_MAX);
        if self.strides_issued > wanted / 2 {
            return Vec::new();
        }
        let affordable = i64::try_from(room / len).unwrap_or(i64::MAX);
        let until = wanted.min(self.strides_issued.saturating_add(affordable));
        let mut ranges: Vec<ByteRange> = Vec::new();
        while self.strides_issued < until {
            let distance = self.step.saturating_mul(self.strides_issued + 1);
            let Some(start) = self.last.start.checked_add_signed(distance) else { break };
            let piece = ByteRange::new(start, start.saturating_add(len).min(size_bytes));
            if start >= size_bytes {
                break;
            }
            self.strides_issued += 1;
            self.issued += piece.len();
            match ranges.last_mut() {
                Some(range) if piece.end == range.start => range.start = piece.start,
                _ => ranges.push(piece),
            }
        }
        ranges.into_iter().flat_map(|range| cut(range, limits.request_bytes_max)).collect()
    }
}

/// The multiples at which a forward stream's requests end: half its window, so that one request is being read while the next
/// is on its way. For a reader that waits the window is filled by `window_requests` and no request is larger than a block at
/// first, since what a window brings in a second is its bytes by the time of one request.
fn unit_of(window: u64, window_requests: Option<u64>, limits: &WindowLimits) -> u64 {
    let half = window / 2;
    let unit = window_requests.map_or(half, |requests| half.min(BLOCK_BYTES).max(window / requests));
    let power = 1 << unit.max(1).ilog2();
    power.clamp(UNIT_BYTES_MIN.min(limits.request_bytes_max), limits.request_bytes_max)
}

/// Cuts a range at multiples of `at`.
pub(super) fn cut(range: ByteRange, at: u64) -> Vec<ByteRange> {
    let mut parts = Vec::with_capacity(usize::try_from(range.len() / at).unwrap_or(0) + 2);
    let mut start = range.start;
    while start < range.end {
        let end = (start / at + 1).saturating_mul(at).min(range.end);
        parts.push(ByteRange::new(start, end));
        start = end;
    }
    parts
}

impl Streams {
    /// Detectors for a file of `size_bytes` of which the first `opened_bytes` are on their way.
    pub(super) fn new(size_bytes: u64, opened_bytes: u64) -> Self {
        Self { streams: Vec::new(), size_bytes, reads: 0, opened_bytes }
    }

    /// Takes note of a read (cut at the end of the file) and says what to fetch beside it. `waited` is whether the read
    /// found its bytes missing.
    pub(super) fn observe(&mut self, read: ByteRange, waited: bool, share: Share, limits: &WindowLimits) -> Plan {
        // What many streams have in flight together need not be more requests than one has alone.
        let window_requests = || (ReadLimits::WINDOW_REQUESTS / share.streams.max(1)).max(WINDOW_REQUESTS_MIN);
        let window_requests = waited.then(window_requests);
        self.reads += 1;
        let now = self.reads;
        let Some(index) = self.stream_of(read, limits) else {
            let index = self.seek(read, limits);
            let stream = &mut self.streams[index];
            // A read of the start stands for what follows, as far as the factor lets it.
            if !stream.from_start || stream.steps > 0 {
                return Plan::default();
            }
            let window = stream.window(waited, share, limits);
            let ranges = stream.plan_forward(window, window_requests, self.size_bytes, limits);
            return Plan { ranges, stream: index, began: now, ..Plan::default() };
        };
        let stream = &mut self.streams[index];
        let is_rest = stream.is_rest(read);
        stream.advance(read, now);
        if is_rest {
            return Plan { sequential: true, stream: index, began: stream.began, ..Plan::default() };
        }
        let (window, room) = stream.window(waited, share, limits);
        let (ranges, passed) = if stream.is_strided() {
            (stream.plan_strides(window, room, self.size_bytes, limits), None)
        } else {
            let passed = stream.pass(self.size_bytes, limits);
            (stream.plan_forward((window, room), window_requests, self.size_bytes, limits), passed)
        };
        Plan { ranges, passed, sequential: true, stream: index, began: stream.began }
    }

    /// Takes back the ranges of a plan, from the `from`th on, that could not be asked for.
    pub(super) fn retract(&mut self, plan: &Plan, from: usize) {
        let Some(stream) = self.streams.get_mut(plan.stream).filter(|stream| stream.began == plan.began) else {
            return;
        };
        let left = &plan.ranges[from.min(plan.ranges.len())..];
        let Some(first) = left.first() else { return };
        stream.issued = stream.issued.saturating_sub(left.iter().map(ByteRange::len).sum());
        if stream.is_strided() {
            stream.strides_issued = 0;
        } else {
            stream.issued_end = stream.issued_end.min(first.start.max(stream.position));
        }
    }

    /// How many streams now fill windows.
    pub(super) fn streaming(&self) -> usize {
        self.streams.iter().filter(|stream| stream.is_streaming(self.size_bytes)).count()
    }

    fn stream_of(&self, read: ByteRange, limits: &WindowLimits) -> Option<usize> {
        let strided = self.streams.iter().position(|stream| stream.continues_stride(read));
        strided.or_else(|| {
            let forward = self.streams.iter().enumerate();
            let forward = forward.filter(|(_, stream)| stream.continues_forward(read, limits.gap_bytes_max));
            forward.min_by_key(|(_, stream)| stream.position.abs_diff(read.start)).map(|(index, _)| index)
        })
    }

    /// A read that continues nothing: closes what it leaves for the second time, and begins a stream, unless it is the third
    /// of three equal steps.
    /// Its number is answered.
    fn seek(&mut self, read: ByteRange, limits: &WindowLimits) -> usize {
        for stream in &mut self.streams {
            stream.seeks = stream.seeks.saturating_add(1);
            if stream.seeks == SEEKS_TO_CLOSE {
                stream.close(limits);
            }
        }
        let mut new = Stream::new(read, self.reads, self.opened_bytes, limits);
        if let Some((before, step)) = self.stride_to(read) {
            let earlier = self.streams.swap_remove(before);
            new.step = step;
            new.steps = STRIDES_TO_TRUST;
            new.asked += earlier.asked;
            new.issued += earlier.issued;
        }
        if self.streams.len() < STREAMS_MAX {
            self.streams.push(new);
            return self.streams.len() - 1;
        }
        let oldest = (0..STREAMS_MAX).min_by_key(|&index| self.streams[index].used).expect("there are some");
        self.streams[oldest] = new;
        oldest
    }

    /// The single read one step before `read`, if another lies one step before that.
    fn stride_to(&self, read: ByteRange) -> Option<(usize, i64)> {
        let singles = || self.streams.iter().enumerate().filter(|(_, stream)| stream.steps == 0);
        for (index, before) in singles() {
            if before.last.len() != read.len() {
                continue;
            }
            let step = read.start as i64 - before.last.start as i64;
            let earlier = before.last.start.checked_add_signed(-step);
            if step != 0 && singles().any(|(_, other)| Some(other.last.start) == earlier) {
                return Some((index, step));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
