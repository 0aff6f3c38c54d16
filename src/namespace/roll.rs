//! The names of one directory as a listing brought them: 48 bytes and the name itself for each, and 10 bytes of index.
//!
//! An inode row is made of an entry only when somebody asks for the name; from then on the entry is *taken*: whatever is to
//! be known of the name is with the directory's children, also that it is gone. Entries are never removed and their numbers
//! never shift. What an entry says of an object is exact: tags and classes of unusual forms are kept beside.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hashbrown::HashTable;

use super::NodeKind;
use super::table::Found;
use crate::types::{ETag, Ino, ObjectInfo, ObjectVersion};

/// Entries that share one piece of memory; a full piece never moves again.
const CHUNK_ENTRIES: usize = 1024;
/// Storage classes that fit beside an entry's bits.
const CLASSES_MAX: usize = 31;

/// The entry is a directory.
const DIRECTORY: u8 = 1;
/// A row, or its absence, says more than the entry.
const TAKEN: u8 = 2;
/// Tag and class are in [`Roll::unusual`].
const UNUSUAL: u8 = 4;
/// Where the number of the storage class begins.
const CLASS_SHIFT: u8 = 3;

/// Number of an entry, in the order in which entries came.
pub(super) type Slot = u32;

#[derive(Clone, Copy, Debug)]
struct Packed {
    ino: u64,
    size_bytes: u64,
    /// Last-Modified in nanoseconds since 1970.
    modified_ns: i64,
    /// The hexadecimal digits of the tag.
    tag: [u8; 16],
    /// Where the name begins in the chunk.
    name_at: u32,
    /// Parts of a multipart upload, which the tag names behind a dash; 0 for none.
    parts: u16,
    name_len: u8,
    bits: u8,
}

#[derive(Debug, Default)]
struct Chunk {
    names: String,
    entries: Vec<Packed>,
}

/// The names of one directory.
#[derive(Debug, Default)]
pub(super) struct Roll {
    chunks: Vec<Chunk>,
    index: HashTable<Slot>,
    hasher: RandomState,
    classes: Vec<Arc<str>>,
    unusual: HashMap<Slot, (ETag, Option<Arc<str>>)>,
    untaken: usize,
}

impl Roll {
    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK_ENTRIES + last.entries.len())
    }

    /// How many entries are not taken.
    pub(super) fn untaken(&self) -> usize {
        self.untaken
    }

    fn packed(&self, slot: Slot) -> &Packed {
        &self.chunks[slot as usize / CHUNK_ENTRIES].entries[slot as usize % CHUNK_ENTRIES]
    }

    fn packed_mut(&mut self, slot: Slot) -> &mut Packed {
        &mut self.chunks[slot as usize / CHUNK_ENTRIES].entries[slot as usize % CHUNK_ENTRIES]
    }

    /// The name of an entry.
    pub(super) fn name(&self, slot: Slot) -> &str {
        let chunk = &self.chunks[slot as usize / CHUNK_ENTRIES];
        let packed = &chunk.entries[slot as usize % CHUNK_ENTRIES];
        let start = packed.name_at as usize;
        &chunk.names[start..start + usize::from(packed.name_len)]
    }

    /// The inode number of an entry.
    pub(super) fn ino(&self, slot: Slot) -> Ino {
        Ino(self.packed(slot).ino)
    }

    /// Directory, or file: a listing shows links as files.
    pub(super) fn kind(&self, slot: Slot) -> NodeKind {
        if self.packed(slot).bits & DIRECTORY == 0 { NodeKind::File } else { NodeKind::Directory }
    }

    /// Whether the children say more than the entry.
    pub(super) fn is_taken(&self, slot: Slot) -> bool {
        self.packed(slot).bits & TAKEN != 0
    }

    /// The entry of a name.
    pub(super) fn find(&self, name: &str) -> Option<Slot> {
        self.index.find(self.hasher.hash_one(name), |&slot| self.name(slot) == name).copied()
    }

    /// From now on the children say what is to be known of the name.
    pub(super) fn take(&mut self, name: &str) {
        if let Some(slot) = self.find(name)
            && !self.is_taken(slot)
        {
            self.packed_mut(slot).bits |= TAKEN;
            self.untaken -= 1;
        }
    }

    /// A new entry; the name must be new and have at most 255 bytes. With `taken` it is a name alone.
    pub(super) fn push(&mut self, name: &str, ino: Ino, found: &Found, taken: bool) -> Slot {
        let slot = Slot::try_from(self.len()).expect("a directory of four billion names fits no memory");
        let mut packed = Packed {
            ino: ino.0,
            size_bytes: 0,
            modified_ns: 0,
            tag: [0; 16],
            name_at: 0,
            parts: 0,
            name_len: u8::try_from(name.len()).expect("keys::meaning hides names over 255 bytes"),
            bits: if taken { TAKEN } else { 0 },
        };
        match found {
            Found::Directory { .. } => packed.bits |= DIRECTORY,
            Found::File(_) if taken => {}
            Found::File(info) => self.pack(slot, &mut packed, info),
        }
        if self.chunks.last().is_none_or(|chunk| chunk.entries.len() == CHUNK_ENTRIES) {
            self.chunks.push(Chunk::default());
        }
        let chunk = self.chunks.last_mut().expect("one was pushed if there was none");
        packed.name_at = u32::try_from(chunk.names.len()).expect("1024 names of 255 bytes are less than 4 GiB");
        chunk.names.push_str(name);
        chunk.entries.push(packed);
        if chunk.entries.len() == CHUNK_ENTRIES {
            chunk.names.shrink_to_fit();
            chunk.entries.shrink_to_fit();
        }
        self.untaken += usize::from(!taken);
        let Self { chunks, index, hasher, .. } = self;
        let hash = |slot: &Slot| {
            let chunk = &chunks[*slot as usize / CHUNK_ENTRIES];
            let packed = &chunk.entries[*slot as usize % CHUNK_ENTRIES];
            let start = packed.name_at as usize;
            hasher.hash_one(&chunk.names[start..start + usize::from(packed.name_len)])
        };
        index.insert_unique(hasher.hash_one(name), slot, hash);
        slot
    }

    fn pack(&mut self, slot: Slot, packed: &mut Packed, info: &ObjectInfo) {
        packed.size_bytes = info.size_bytes;
        packed.modified_ns = nanoseconds(info.last_modified);
        let class = match &info.storage_class {
            None => Some(0),
            Some(class) => self.class(class),
        };
        if let (Some((tag, parts)), Some(class)) = (packed_tag(info.etag().as_str()), class) {
            (packed.tag, packed.parts) = (tag, parts);
            packed.bits |= class << CLASS_SHIFT;
        } else {
            packed.bits |= UNUSUAL;
            self.unusual.insert(slot, (info.etag().clone(), info.storage_class.clone()));
        }
    }

    /// The number of a storage class, from 1.
    fn class(&mut self, class: &Arc<str>) -> Option<u8> {
        let known = self.classes.iter().position(|known| known == class);
        let position = known.or_else(|| {
            (self.classes.len() < CLASSES_MAX).then(|| {
                self.classes.push(Arc::clone(class));
                self.classes.len() - 1
            })
        })?;
        u8::try_from(position + 1).ok()
    }

    /// Length in bytes and Last-Modified of an entry.
    pub(super) fn size_and_time(&self, slot: Slot) -> (u64, SystemTime) {
        let packed = self.packed(slot);
        (packed.size_bytes, time(packed.modified_ns))
    }

    /// The object of a file's entry, as the listing told it; keys of the directory begin with `prefix`.
    pub(super) fn object(&self, slot: Slot, prefix: &str) -> ObjectInfo {
        let packed = self.packed(slot);
        let (etag, storage_class) = if packed.bits & UNUSUAL == 0 {
            let class = usize::from(packed.bits >> CLASS_SHIFT);
            (tag_text(&packed.tag, packed.parts), class.checked_sub(1).map(|at| Arc::clone(&self.classes[at])))
        } else {
            self.unusual[&slot].clone()
        };
        let key = format!("{prefix}{}", self.name(slot));
        ObjectInfo {
            version: ObjectVersion::new(key.into(), etag, None),
            size_bytes: packed.size_bytes,
            last_modified: time(packed.modified_ns),
            metadata: None,
            content_type: None,
            storage_class,
            headers: None,
        }
    }

    /// Gives back memory that was reserved for more names.
    pub(super) fn shrink(&mut self) {
        if let Some(last) = self.chunks.last_mut() {
            last.names.shrink_to_fit();
            last.entries.shrink_to_fit();
        }
        self.chunks.shrink_to_fit();
    }
}

fn nanoseconds(time: SystemTime) -> i64 {
    // From 1678 to 2262; S3 began in 2006.
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |before| -before),
    }
}

fn time(nanoseconds: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanoseconds.unsigned_abs());
    if nanoseconds < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

/// The digits and parts of a tag of S3's usual form, `"32 lower-case hexadecimal digits"` or the same with `-parts`.
fn packed_tag(tag: &str) -> Option<([u8; 16], u16)> {
    let inner = tag.strip_prefix('"')?.strip_suffix('"')?;
    let (digits, parts) = inner.split_once('-').map_or((inner, None), |(digits, parts)| (digits, Some(parts)));
    let parts = match parts {
        None => 0,
        // Only a number that is written back as it was read.
        Some(text) => text.parse::<u16>().ok().filter(|parts| *parts > 0 && parts.to_string() == text)?,
    };
    let digits = digits.as_bytes();
    if digits.len() != 32 {
        return None;
    }
    let mut packed = [0; 16];
    for (byte, pair) in packed.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some((packed, parts))
}

fn digit(letter: u8) -> Option<u8> {
    match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        _ => None,
    }
}

fn tag_text(tag: &[u8; 16], parts: u16) -> ETag {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(40);
    text.push('"');
    for byte in tag {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    if parts > 0 {
        text.push('-');
        text.push_str(&parts.to_string());
    }
    text.push('"');
    ETag::new(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tag() -> impl Strategy<Value = String> {
        prop_oneof!["\"[0-9a-f]{32}\"", "\"[0-9a-f]{32}-[0-9]{1,5}\"", "\\PC{0,40}", "\"[0-9A-F]{32}\""]
    }

    proptest! {
        #[test]
        fn an_entry_says_exactly_what_the_listing_said(
            objects in prop::collection::btree_map("\\PC{1,20}", (tag(), any::<u64>(), -1i64 << 60..1 << 60,
                                                                  prop::option::of("[A-Z]{1,2}")), 1..60),
        ) {
            let mut roll = Roll::default();
            let infos: Vec<ObjectInfo> = objects.iter().map(|(name, (tag, size_bytes, modified, class))| ObjectInfo {
                version: ObjectVersion::new(format!("d/{name}").into(), tag.as_str().into(), None),
                size_bytes: *size_bytes,
                last_modified: time(*modified),
                metadata: None,
                content_type: None,
                storage_class: class.as_deref().map(Into::into),
                headers: None,
            }).collect();
            for ((name, _), info) in objects.iter().zip(&infos) {
                roll.push(name, Ino(info.size_bytes), &Found::File(info.clone()), false);
            }
            for ((name, _), info) in objects.iter().zip(&infos) {
                let slot = roll.find(name).expect("it was pushed");
                prop_assert_eq!(roll.name(slot), name);
                prop_assert_eq!(roll.ino(slot), Ino(info.size_bytes));
                prop_assert_eq!(&roll.object(slot, "d/"), info);
            }
            prop_assert_eq!(roll.untaken(), objects.len());
            let first = objects.keys().next().expect("at least one");
            roll.take(first);
            roll.take(first);
            prop_assert_eq!(roll.untaken(), objects.len() - 1);
            prop_assert!(roll.find("a name that is longer than twenty letters").is_none());
        }
    }

    #[test]
    fn a_name_costs_48_bytes_beside_itself_and_its_index() {
        assert_eq!(size_of::<Packed>(), 48);
    }
}
