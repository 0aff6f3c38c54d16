//! The bytes of a fake object: extents that know runs of zeros, so that a sparse object of many GiB costs nothing.
//!
//! Takes its own copy of what it is given, as a network would: no page of the program stays referenced here.

use bytes::Bytes;

use crate::store::checksum::{Crc64, RunningCrc64};
use crate::types::ByteRange;

/// Pieces in which bodies are handed out (about what hyper hands over), and the grain at which zeros are found.
const PIECE_BYTES: usize = 256 << 10;
static ZEROS: [u8; PIECE_BYTES] = [0; PIECE_BYTES];

#[derive(Clone, Debug)]
enum Extent {
    Bytes(Bytes),
    Zeros(u64),
}

impl Extent {
    fn len_bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Zeros(len) => *len,
        }
    }
}

/// Contents of an object or a part. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    extents: Vec<Extent>,
    len_bytes: u64,
}

impl Content {
    pub(super) fn copy_of(chunks: &[Bytes]) -> Self {
        let mut content = Self::default();
        for piece in chunks.iter().flat_map(|chunk| chunk.chunks(PIECE_BYTES)) {
            if piece == &ZEROS[..piece.len()] {
                content.push(Extent::Zeros(piece.len() as u64));
            } else {
                content.push(Extent::Bytes(Bytes::copy_from_slice(piece)));
            }
        }
        content
    }

    pub(super) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    pub(super) fn append(&mut self, other: &Self) {
        for extent in &other.extents {
            self.push(extent.clone());
        }
    }

    /// The bytes of `range`, which must lie inside.
    pub(super) fn slice(&self, range: ByteRange) -> Self {
        let mut slice = Self::default();
        let mut start = 0;
        for extent in &self.extents {
            let end = start + extent.len_bytes();
            let wanted = range.intersect(&ByteRange::new(start, end));
            if !wanted.is_empty() {
                slice.push(match extent {
                    Extent::Zeros(_) => Extent::Zeros(wanted.len()),
                    Extent::Bytes(bytes) => {
                        Extent::Bytes(bytes.slice((wanted.start - start) as usize..(wanted.end - start) as usize))
                    }
                });
            }
            start = end;
        }
        slice
    }

    /// The bytes in pieces of at most 256 KiB.
    pub(super) fn pieces(self) -> impl Iterator<Item = Bytes> + Send {
        self.extents.into_iter().flat_map(|extent| {
            let (bytes, mut zeros) = match extent {
                Extent::Bytes(bytes) => (Some(bytes), 0),
                Extent::Zeros(len) => (None, len),
            };
            bytes.into_iter().chain(std::iter::from_fn(move || {
                let len = zeros.min(PIECE_BYTES as u64);
                zeros -= len;
                (len > 0).then(|| Bytes::from_static(&ZEROS[..len as usize]))
            }))
        })
    }

    pub(super) fn crc64nvme(&self) -> Crc64 {
        let mut running = RunningCrc64::default();
        for piece in self.clone().pieces() {
            running.update(&piece);
        }
        running.finish()
    }

    fn push(&mut self, extent: Extent) {
        self.len_bytes += extent.len_bytes();
        if let (Some(Extent::Zeros(last)), Extent::Zeros(more)) = (self.extents.last_mut(), &extent) {
            *last += more;
        } else {
            self.extents.push(extent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(content: Content) -> Vec<u8> {
        content.pieces().flatten().collect()
    }

    #[test]
    fn zeros_cost_nothing_and_read_as_zeros() {
        let mut content = Content::copy_of(&[Bytes::from(vec![0; 3 * PIECE_BYTES + 5]), Bytes::from_static(b"end")]);
        assert_eq!(content.extents.len(), 2);
        content.append(&content.clone());
        assert_eq!(content.len_bytes(), 2 * (3 * PIECE_BYTES as u64 + 8));
        let at = 3 * PIECE_BYTES as u64 + 4;
        assert_eq!(joined(content.slice(ByteRange::of_len(at, 6))), b"\0end\0\0");
    }
}
