//! What a name leads to, and how st_mode (inode(7)) spells it.

use super::attributes::Stored;
use crate::types::ObjectInfo;

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A regular file: one object.
    File,
    /// A directory: a marker object, or keys below it.
    Directory,
    /// A symbolic link: an object whose metadata says so.
    Symlink,
    /// A named pipe; this and what follows are empty objects whose metadata says what they are.
    Fifo,
    /// A socket of the local host.
    Socket,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
}

impl NodeKind {
    /// The kind that the type bits of an st_mode spell; `None` if they spell none.
    pub fn of_mode(mode: u32) -> Option<Self> {
        match mode & libc::S_IFMT {
            libc::S_IFREG => Some(Self::File),
            libc::S_IFDIR => Some(Self::Directory),
            libc::S_IFLNK => Some(Self::Symlink),
            libc::S_IFIFO => Some(Self::Fifo),
            libc::S_IFSOCK => Some(Self::Socket),
            libc::S_IFCHR => Some(Self::CharacterDevice),
            libc::S_IFBLK => Some(Self::BlockDevice),
            _ => None,
        }
    }

    /// Whether it is one only because its object's metadata says so.
    pub(super) fn is_special(self) -> bool {
        !matches!(self, Self::File | Self::Directory)
    }

    /// The type bits of st_mode.
    pub(super) fn mode_bits(self) -> u32 {
        match self {
            Self::File => libc::S_IFREG,
            Self::Directory => libc::S_IFDIR,
            Self::Symlink => libc::S_IFLNK,
            Self::Fifo => libc::S_IFIFO,
            Self::Socket => libc::S_IFSOCK,
            Self::CharacterDevice => libc::S_IFCHR,
            Self::BlockDevice => libc::S_IFBLK,
        }
    }

    /// The kind of an object that is no directory; a listing brings no metadata, so that it shows every such object as a file.
    pub(super) fn of(info: &ObjectInfo) -> Self {
        info.metadata.as_ref().map_or(Self::File, |metadata| Stored::read(metadata).kind())
    }
}
