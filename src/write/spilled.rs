//! Reading what is on local disk: ranges of staged pages that are not in memory, read where their bytes are needed and no sooner.
//!
//! Never under the lock of a file: the disk may take its time. Whoever holds a range holds its page, which is then not written to.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::{Piece, WriteError};
use crate::memory::SpilledPage;

/// Written bytes on local disk: a range of one page.
#[derive(Clone, Debug)]
pub struct SpilledRange {
    page: Arc<SpilledPage>,
    within: Range<usize>,
}

impl SpilledRange {
    pub(super) fn new(page: Arc<SpilledPage>, within: Range<usize>) -> Self {
        Self { page, within }
    }

    pub(super) fn read(&self) -> io::Result<Bytes> {
        self.page.read(self.within.clone()).map(Bytes::from)
    }
}

/// Pieces that lie in one page, read at once.
struct Run {
    /// From the first to behind the last; between them are no others that are on disk.
    pieces: Range<usize>,
    within: Range<usize>,
}

fn runs(pieces: &[Piece]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut last: Option<&SpilledRange> = None;
    for (at, piece) in pieces.iter().enumerate() {
        let Piece::Spilled(range) = piece else { continue };
        match (runs.last_mut(), last) {
            (Some(run), Some(last)) if Arc::ptr_eq(&last.page, &range.page) => {
                run.pieces.end = at + 1;
                run.within.end = range.within.end;
            }
            _ => runs.push(Run { pieces: at..at + 1, within: range.within.clone() }),
        }
        last = Some(range);
    }
    runs
}

/// Bytes of memory that [`load`] takes.
pub(super) fn load_bytes(pieces: &[Piece]) -> u64 {
    runs(pieces).iter().map(|run| run.within.len() as u64).sum()
}

/// Pieces of a file, in order, with those that are on local disk in memory.
///
/// # Errors
/// `Spill`: the disk cannot be read, or does not have what was written.
pub async fn load(mut pieces: Vec<Piece>) -> Result<Vec<Piece>, WriteError> {
    if !pieces.iter().any(|piece| matches!(piece, Piece::Spilled(_))) {
        return Ok(pieces);
    }
    let read = tokio::task::spawn_blocking(move || read(&mut pieces).map(|()| pieces));
    read.await.unwrap_or_else(|ended| Err(io::Error::other(ended))).map_err(WriteError::Spill)
}

fn read(pieces: &mut [Piece]) -> io::Result<()> {
    for run in runs(pieces) {
        let mut bytes = Bytes::new();
        for piece in &mut pieces[run.pieces] {
            let Piece::Spilled(range) = piece else { continue };
            if bytes.is_empty() {
                bytes = range.page.read(run.within.clone())?.into();
            }
            let start = range.within.start - run.within.start;
            *piece = Piece::Staged(bytes.slice(start..start + range.within.len()));
        }
    }
    Ok(())
}
