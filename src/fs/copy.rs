//! copy_file_range between files of the mount, done by S3.
//!
//! A whole published file that is copied to the beginning of an empty one becomes a server-side copy when the target is
//! published: no byte passes through this machine. Everything else is refused with `Unsupported`, upon which the kernel
//! copies through reads and writes (`splice_copy_file_range`).

use super::FileSystem;
use super::error::{FsError, FsResult};
use crate::types::{ByteRange, FileHandle};

/// The largest count that a FUSE reply can carry: `fuse_write_out.size` is 32 bits.
const COPIED_BYTES_MAX: u64 = u32::MAX as u64;

impl FileSystem {
    /// Copies `source` of one handle to `target_offset` of another and answers how many bytes that were.
    pub async fn copy_file_range(&self, source: (FileHandle, ByteRange), target: (FileHandle, u64)) -> FsResult<u64> {
        let (from, to) = (self.handles.file(source.0)?, self.handles.file(target.0)?);
        if !from.readable || !to.writable {
            return Err(FsError::BadHandle);
        }
        self.refuse_if_read_only()?;
        if from.inode.ino == to.inode.ino {
            return Err(FsError::Unsupported);
        }
        let info = {
            let view = from.inode.view.lock();
            if view.is_dirty() || view.unlinked {
                return Err(FsError::Unsupported);
            }
            view.info.clone().ok_or(FsError::Unsupported)?
        };
        let whole = source.1.start == 0 && target.1 == 0 && source.1.end >= info.size_bytes;
        if !whole || info.size_bytes == 0 || info.size_bytes > COPIED_BYTES_MAX {
            return Err(FsError::Unsupported);
        }
        let _order = to.inode.order.lock().await;
        let writer = self.writer_of(&to.inode).await?;
        if !writer.adopt(&info) {
            return Err(FsError::Unsupported);
        }
        to.writers.lock().wrote(None);
        self.namespace.set_written(to.inode.ino, info.size_bytes, self.clock.wall());
        Ok(info.size_bytes)
    }
}
