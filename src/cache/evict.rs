//! What the disk cache holds, how much room that takes, and what goes first: the index, in memory, without any I/O.
//!
//! Room is given out before it is written to and taken back after it is free, never the other way round. Invariant:
//! `used_bytes` is at least what the files take, and at most the limit whenever room was given out. The unit of use and of
//! eviction is a segment of 16 blocks, so that an object larger than the cache passes through it.

use std::collections::{BTreeMap, HashMap};

use super::format::{BLOCK_BYTES, GRANULE_BYTES, Identity, granules_of_block};

/// Blocks of a segment.
pub(super) const BLOCKS_PER_SEGMENT: u64 = 16;
/// What a version costs beside its blocks: the header of its map, and two inodes with their names.
pub(super) const VERSION_BYTES: u64 = 2 * 4096;
/// What a block costs beside its granules: its row, which may be the only one of its file-system block, which also pays for the
/// extents of the content (340 of them to a block of ext4).
const ROW_CHARGE_BYTES: u64 = 4096;

/// One segment of one version.
pub(super) type SegmentId = (Identity, u64);

#[derive(Debug, Default)]
struct Segment {
    used_at: u64,
    /// Granules charged for each block.
    granules: [u16; BLOCKS_PER_SEGMENT as usize],
    /// Blocks whose bytes this process has written or checked, as a bit each.
    verified: u16,
}

#[derive(Debug)]
struct Version {
    size_bytes: u64,
    segments: u64,
    granules: u64,
    verified_blocks: u64,
    /// Readers to whom the kernel shows the file itself.
    pins: u32,
    /// Its files have lost their names; what they take is free when the last pin goes.
    gone: bool,
}

/// What must be taken away to make room.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Victim {
    /// The blocks of a segment; others of the version stay. With the bytes that are free then.
    Segment(SegmentId, u64),
    /// Both files. With the bytes that are free then.
    Version(Identity, u64),
}

impl Victim {
    pub(super) fn identity(&self) -> &Identity {
        match self {
            Self::Segment((identity, _), _) | Self::Version(identity, _) => identity,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Segment(_, bytes) | Self::Version(_, bytes) => *bytes,
        }
    }
}

/// Everything that is on disk.
#[derive(Debug)]
pub(super) struct Index {
    limit_bytes: u64,
    used_bytes: u64,
    versions: HashMap<Identity, Version>,
    segments: HashMap<SegmentId, Segment>,
    /// Segments by their last use.
    lru: BTreeMap<u64, SegmentId>,
    /// Versions whose files could not be deleted, with the bytes for which they count: they are not found, but take their room.
    stranded: HashMap<Identity, u64>,
    clock: u64,
}

fn charge(granules: u16) -> u64 {
    if granules == 0 { 0 } else { ROW_CHARGE_BYTES + u64::from(granules) * GRANULE_BYTES }
}

/// The blocks of a segment.
pub(super) fn blocks_of_segment(segment: u64) -> std::ops::Range<u64> {
    segment * BLOCKS_PER_SEGMENT..(segment + 1) * BLOCKS_PER_SEGMENT
}

/// Segment and place in it of a block.
fn place(block: u64) -> (u64, usize) {
    (block / BLOCKS_PER_SEGMENT, (block % BLOCKS_PER_SEGMENT) as usize)
}

impl Index {
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            used_bytes: 0,
            versions: HashMap::new(),
            segments: HashMap::new(),
            lru: BTreeMap::new(),
            stranded: HashMap::new(),
            clock: 0,
        }
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    pub(super) fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Whether files of the version are there.
    pub(super) fn has_version(&self, identity: &Identity) -> bool {
        self.versions.contains_key(identity)
    }

    /// Granules of a block that may be there; 0 for a version whose files are gone.
    pub(super) fn granules(&self, identity: &Identity, block: u64) -> u64 {
        let (segment, at) = place(block);
        if self.versions.get(identity).is_none_or(|version| version.gone) {
            return 0;
        }
        self.segments.get(&(*identity, segment)).map_or(0, |segment| u64::from(segment.granules[at]))
    }

    /// Counts as a use of the segment of a block.
    pub(super) fn touch(&mut self, identity: &Identity, block: u64) {
        let id = (*identity, place(block).0);
        let Some(segment) = self.segments.get_mut(&id) else { return };
        self.lru.remove(&segment.used_at);
        self.clock += 1;
        segment.used_at = self.clock;
        self.lru.insert(self.clock, id);
    }

    /// What a block would cost more with `added` granules, and its version with it.
    pub(super) fn growth_bytes(&self, identity: &Identity, size_bytes: u64, block: u64, added: u64) -> u64 {
        let before = self.granules(identity, block);
        let after = (before + added).min(granules_of_block(block, size_bytes));
        let version = if self.has_version(identity) { 0 } else { VERSION_BYTES };
        version + charge(after as u16) - charge(before as u16)
    }

    /// Whether `bytes` more are within the limit now.
    pub(super) fn fits(&self, bytes: u64) -> bool {
        self.used_bytes.saturating_add(bytes) <= self.limit_bytes
    }

    /// The next that must go to make room, but nothing of `kept` and nothing that the kernel shows. It is no longer found, and
    /// counts until [`Index::freed`].
    pub(super) fn victim(&mut self, kept: &SegmentId) -> Option<Victim> {
        let pinned = |id: &SegmentId| self.versions.get(&id.0).is_some_and(|version| version.pins > 0);
        let id = *self.lru.values().find(|id| *id != kept && !pinned(id))?;
        let segment = self.segments.remove(&id)?;
        self.lru.remove(&segment.used_at);
        let bytes = segment.granules.iter().map(|granules| charge(*granules)).sum();
        let version = self.versions.get_mut(&id.0)?;
        version.segments -= 1;
        version.granules -= segment.granules.iter().map(|granules| u64::from(*granules)).sum::<u64>();
        version.verified_blocks -= u64::from(segment.verified.count_ones());
        if version.segments > 0 || id.0 == kept.0 {
            return Some(Victim::Segment(id, bytes));
        }
        self.versions.remove(&id.0);
        Some(Victim::Version(id.0, bytes + VERSION_BYTES))
    }

    /// What a victim took is free.
    pub(super) fn freed(&mut self, victim: &Victim) {
        self.used_bytes = self.used_bytes.saturating_sub(victim.bytes());
    }

    /// The files of a victim could not be deleted: all of the version counts until they can be.
    pub(super) fn strand_victim(&mut self, victim: &Victim) {
        let identity = *victim.identity();
        self.strand(&identity);
        *self.stranded.entry(identity).or_default() += victim.bytes();
    }

    /// The files of a version could not be deleted: it is not found any more, and counts until they can be.
    pub(super) fn strand(&mut self, identity: &Identity) {
        let before = self.used_bytes;
        self.remove(identity);
        let bytes = before - self.used_bytes;
        self.used_bytes = before;
        if bytes > 0 {
            *self.stranded.entry(*identity).or_default() += bytes;
        }
    }

    /// One of the versions whose files are to be deleted yet.
    pub(super) fn stranded(&self) -> Option<Identity> {
        self.stranded.keys().next().copied()
    }

    /// Whether files of the version are there that could not be deleted.
    pub(super) fn is_stranded(&self, identity: &Identity) -> bool {
        self.stranded.contains_key(identity)
    }

    /// They are gone.
    pub(super) fn freed_stranded(&mut self, identity: &Identity) {
        let bytes = self.stranded.remove(identity).unwrap_or(0);
        self.used_bytes = self.used_bytes.saturating_sub(bytes);
    }

    /// A version whose files are about to be made.
    pub(super) fn add_version(&mut self, identity: Identity, size_bytes: u64) {
        if self.has_version(&identity) {
            return;
        }
        let version = Version { size_bytes, segments: 0, granules: 0, verified_blocks: 0, pins: 0, gone: false };
        self.versions.insert(identity, version);
        self.used_bytes += VERSION_BYTES;
    }

    /// A block has `granules` from now on; `verified` says that this process knows all its bytes to be right. Counts as a use.
    pub(super) fn set_block(&mut self, identity: &Identity, block: u64, granules: u64, verified: bool) {
        let Some(version) = self.versions.get_mut(identity) else { return };
        let (number, at) = place(block);
        let granules = granules.min(granules_of_block(block, version.size_bytes)) as u16;
        let id = (*identity, number);
        if granules == 0 && !self.segments.contains_key(&id) {
            return;
        }
        let segment = self.segments.entry(id).or_insert_with(|| {
            version.segments += 1;
            Segment::default()
        });
        let before = std::mem::replace(&mut segment.granules[at], granules);
        let was_verified = segment.verified >> at & 1 == 1;
        segment.verified = segment.verified & !(1 << at) | u16::from(verified) << at;
        version.granules = version.granules + u64::from(granules) - u64::from(before);
        version.verified_blocks = version.verified_blocks + u64::from(verified) - u64::from(was_verified);
        self.used_bytes = self.used_bytes + charge(granules) - charge(before);
        self.touch(identity, block);
    }

    /// Whether this process knows the bytes of a block to be right.
    pub(super) fn is_verified(&self, identity: &Identity, block: u64) -> bool {
        let (number, at) = place(block);
        self.segments.get(&(*identity, number)).is_some_and(|segment| segment.verified >> at & 1 == 1)
    }

    /// Takes note that all bytes of a block were checked.
    pub(super) fn verify(&mut self, identity: &Identity, block: u64) {
        let granules = self.granules(identity, block);
        let Some(version) = self.versions.get(identity) else { return };
        if granules > 0 && granules == granules_of_block(block, version.size_bytes) {
            self.set_block(identity, block, granules, true);
        }
    }

    /// Forgets a version whose files are gone, or about to be. What the kernel still shows counts until it is let go.
    pub(super) fn remove(&mut self, identity: &Identity) {
        let Some(version) = self.versions.get_mut(identity) else { return };
        if version.pins > 0 {
            version.gone = true;
            return;
        }
        let last = version.size_bytes.div_ceil(BLOCK_BYTES).div_ceil(BLOCKS_PER_SEGMENT);
        // Few segments of a large object, or many of a small one: the shorter way.
        let numbers: Vec<u64> = if last <= self.segments.len() as u64 {
            (0..last).collect()
        } else {
            self.segments.keys().filter(|id| id.0 == *identity).map(|id| id.1).collect()
        };
        for number in numbers {
            if let Some(segment) = self.segments.remove(&(*identity, number)) {
                self.lru.remove(&segment.used_at);
                let bytes: u64 = segment.granules.iter().map(|granules| charge(*granules)).sum();
                self.used_bytes = self.used_bytes.saturating_sub(bytes);
            }
        }
        self.versions.remove(identity);
        self.used_bytes = self.used_bytes.saturating_sub(VERSION_BYTES);
    }

    /// Whether every byte of the object is there.
    pub(super) fn is_whole(&self, identity: &Identity) -> bool {
        self.versions.get(identity).is_some_and(|version| {
            !version.gone && version.granules == version.size_bytes.div_ceil(GRANULE_BYTES) && version.size_bytes > 0
        })
    }

    /// Whether a version is whole, and known to this process to be right.
    pub(super) fn is_right(&self, identity: &Identity) -> bool {
        self.is_whole(identity)
            && self.versions.get(identity).is_some_and(|it| it.verified_blocks == it.size_bytes.div_ceil(BLOCK_BYTES))
    }

    /// Keeps a version that is whole and known to be right from being evicted; false if it is not so.
    pub(super) fn pin(&mut self, identity: &Identity) -> bool {
        let right = self.is_right(identity);
        let Some(version) = self.versions.get_mut(identity) else { return false };
        version.pins += u32::from(right);
        right
    }

    /// Whether the kernel shows files of the version.
    pub(super) fn is_pinned(&self, identity: &Identity) -> bool {
        self.versions.get(identity).is_some_and(|version| version.pins > 0)
    }

    /// Takes a pin back.
    pub(super) fn unpin(&mut self, identity: &Identity) {
        let Some(version) = self.versions.get_mut(identity) else { return };
        version.pins -= 1;
        if version.pins == 0 && version.gone {
            self.remove(identity);
        }
    }

    /// Whether the files of the version have lost their names while the kernel shows them.
    pub(super) fn is_gone(&self, identity: &Identity) -> bool {
        self.versions.get(identity).is_some_and(|version| version.gone)
    }
}
