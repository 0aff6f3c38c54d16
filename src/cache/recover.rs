//! What an earlier process left in the directory: taken over where it is sound, deleted where it is not.
//!
//! Reads headers and maps, never contents: a sum is checked when its bytes are read. Only names of this cache's spelling are
//! looked at; a map that is torn, of another bucket or of another format goes, with its content.

use std::collections::HashSet;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use super::files::{DATA, Files, MAP};
use super::format::{BLOCK_BYTES, GRANULE_BYTES, HEADER_BYTES, Header, Identity, ROW_BYTES, granules_of_block, sums};

/// A version that was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) identity: Identity,
    pub(super) size_bytes: u64,
    /// Blocks with how many granules of them there are, ascending.
    pub(super) blocks: Vec<(u64, u64)>,
    /// Last use, in seconds and nanoseconds.
    used: (i64, i64),
}

/// Maps are read in pieces of this many rows.
const ROWS_AT_ONCE: u64 = 256;

/// Everything sound in the directory, the least recently used first; what is not is deleted.
pub(super) fn scan(path: &Path, files: &Files, source: &str) -> io::Result<Vec<Found>> {
    let (mut found, mut kept) = (Vec::new(), HashSet::new());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let name = entry?.file_name();
        let Some((stem, ending)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
        let Some(identity) = Identity::parse(stem) else { continue };
        if ending == MAP || ending == DATA {
            names.push((identity, format!("{identity}.{ending}")));
        }
    }
    for (identity, _) in names.iter().filter(|(_, name)| name.ends_with(MAP)) {
        // What cannot be read is dropped like what is wrong.
        if let Ok(Some(version)) = read(files, *identity, source) {
            kept.insert(*identity);
            found.push(version);
        }
    }
    for (_, name) in names.iter().filter(|(identity, _)| !kept.contains(identity)) {
        files.remove_name(name)?;
    }
    found.sort_by_key(|version| version.used);
    Ok(found)
}

fn read(files: &Files, identity: Identity, source: &str) -> io::Result<Option<Found>> {
    let map = files.map(&identity)?;
    let mut head = vec![0; HEADER_BYTES as usize];
    map.read_exact_at(&mut head, 0)?;
    let header = Header::decode(&head).filter(|header| header.source == source && header.identity() == identity);
    let Some(header) = header else { return Ok(None) };
    let data = files.data(&identity)?.metadata()?;
    if !data.is_file() || data.len() != header.size_bytes {
        return Ok(None);
    }
    let rows_bytes = map.metadata()?.len().saturating_sub(HEADER_BYTES);
    let mut blocks = Vec::new();
    let mut buffer = vec![0; (ROWS_AT_ONCE * ROW_BYTES) as usize];
    let rows = rows_bytes.div_ceil(ROW_BYTES);
    for first in (0..rows).step_by(ROWS_AT_ONCE as usize) {
        let bytes = (rows_bytes - first * ROW_BYTES).min(ROWS_AT_ONCE * ROW_BYTES) as usize;
        map.read_exact_at(&mut buffer[..bytes], HEADER_BYTES + first * ROW_BYTES)?;
        for (row, block) in buffer[..bytes].chunks(ROW_BYTES as usize).zip(first..) {
            let granules = sums(row).filter(|sum| *sum != 0).count() as u64;
            if granules > granules_of_block(block, header.size_bytes) {
                return Ok(None);
            }
            if granules > 0 {
                blocks.push((block, granules));
            }
        }
    }
    if data.blocks() * 512 > blocks.iter().map(|(_, granules)| granules * GRANULE_BYTES).sum() {
        // Bytes that a process wrote and did not live to enter into the map take room that nobody counts.
        wipe_gaps(files, &identity, &blocks, header.size_bytes.div_ceil(BLOCK_BYTES))?;
    }
    Ok(Some(Found { identity, size_bytes: header.size_bytes, blocks, used: last_use(&data) }))
}

fn wipe_gaps(files: &Files, identity: &Identity, blocks: &[(u64, u64)], until: u64) -> io::Result<()> {
    let mut from = 0;
    for block in blocks.iter().map(|(block, _)| *block).chain([until]) {
        if block > from {
            files.wipe(identity, from..block)?;
        }
        from = block + 1;
    }
    Ok(())
}

/// The later of access and change: mounts with `noatime` keep the order of writing.
fn last_use(data: &Metadata) -> (i64, i64) {
    (data.atime(), data.atime_nsec()).max((data.mtime(), data.mtime_nsec()))
}
