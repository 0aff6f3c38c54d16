//! Symbolic links and special files, as s3fs stores them: the mode in the metadata says what they are, a link's target is the body.
//! Links of geesefs, whose target is in the metadata, are read as well.
//!
//! A listing brings no metadata. Without `--posix` a link is known as one when it was made or looked up by name here; one
//! that was only listed is shown as a small file with the target in it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;

use super::attributes::{Stored, target_of};
use super::table::Row;
use super::{Namespace, NamespaceError, NamespaceResult, NewNode, Node, NodeKind, keys};
use crate::store::{GetRange, GetRequest, ObjectAttributes, PutRequest, StoreError, WriteCondition};
use crate::types::{Ino, ObjectKey, ObjectMetadata};

/// Longest target in bytes (PATH_MAX of Linux).
const TARGET_BYTES_MAX: u64 = 4096;

impl Namespace {
    /// Makes a symbolic link; it is in S3 when this answers. One reference is taken.
    pub async fn create_symlink(&self, parent: Ino, name: &str, target: &str, new: NewNode) -> NamespaceResult<Node> {
        let stored = Stored { mode: Some(libc::S_IFLNK | 0o777), ..self.stored_anew(new) };
        self.create_object(parent, name, NodeKind::Symlink, stored, target).await
    }

    /// Makes a named pipe, a socket or a device; it is in S3 when this answers. One reference is taken. `rdev` is the device's number.
    pub async fn create_special(
        &self,
        parent: Ino,
        name: &str,
        kind: NodeKind,
        new: NewNode,
        rdev: u32,
    ) -> NamespaceResult<Node> {
        let is_device = matches!(kind, NodeKind::CharacterDevice | NodeKind::BlockDevice);
        let stored = Stored {
            mode: Some(kind.mode_bits() | new.mode),
            rdev: is_device.then_some(rdev),
            ..self.stored_anew(new)
        };
        self.create_object(parent, name, kind, stored, "").await
    }

    /// Whose a new object is, and since when.
    fn stored_anew(&self, new: NewNode) -> Stored {
        Stored { uid: Some(new.uid), gid: Some(new.gid), mtime: Some(self.0.clock.wall()), ..Stored::default() }
    }

    async fn create_object(
        &self,
        parent: Ino,
        name: &str,
        kind: NodeKind,
        mut stored: Stored,
        content: &str,
    ) -> NamespaceResult<Node> {
        let key = {
            let table = self.0.table.lock();
            Self::check_directory(&table, parent)?;
            stored.gid = self.inherited_group(&table, parent).or(stored.gid);
            let prefix = self.directory_prefix(&table, parent)?;
            keys::file_key(&prefix, name)?
        };
        if self.exists(parent, name).await? {
            return Err(NamespaceError::Exists);
        }
        let key = ObjectKey::from(key);
        self.settle_deferred(&key).await?;
        let mut metadata = ObjectMetadata::new();
        stored.write(&mut metadata);
        let put = PutRequest {
            key,
            payload: Bytes::copy_from_slice(content.as_bytes()).into(),
            attributes: ObjectAttributes { metadata: Arc::new(metadata.clone()), ..ObjectAttributes::default() },
            condition: WriteCondition::Absent,
        };
        let mut info = match self.0.store.put(put).await {
            Ok(info) => info,
            Err(StoreError::PreconditionFailed | StoreError::Conflict) => return Err(NamespaceError::Exists),
            Err(error) => return Err(error.into()),
        };
        info.metadata = Some(Arc::new(metadata));
        let mut table = self.0.table.lock();
        let (now, wall) = (self.0.clock.now(), self.0.clock.wall());
        let change = table.change();
        if let Some(old) = table.child(parent, name) {
            table.unlink(old);
        }
        let ino = table.link(parent, name, kind, now, wall);
        table.touch(parent, wall);
        let row = table.row_mut(ino);
        row.changed = change;
        row.lookups = 1;
        row.object = Some(info);
        row.target = (kind == NodeKind::Symlink).then(|| content.into());
        Ok(self.node_of(&table, ino))
    }

    /// The target of a symbolic link.
    pub async fn read_link(&self, ino: Ino) -> NamespaceResult<String> {
        let info = {
            let table = self.0.table.lock();
            let row = table.rows.get(&ino).ok_or(NamespaceError::Stale)?;
            if row.kind != NodeKind::Symlink {
                return Err(NamespaceError::InvalidName);
            }
            if let Some(target) = &row.target {
                return Ok(target.to_string());
            }
            row.object.clone().ok_or(NamespaceError::Stale)?
        };
        if info.size_bytes == 0
            && let Some(target) = info.metadata.as_deref().and_then(target_of)
        {
            return Ok(target);
        }
        if info.size_bytes == 0 || info.size_bytes > TARGET_BYTES_MAX {
            return Err(NamespaceError::InvalidName);
        }
        let request = GetRequest {
            key: info.key().clone(),
            range: GetRange::Whole,
            if_match: Some(info.etag().clone()),
            if_none_match: None,
        };
        let response = match self.0.store.get(request).await {
            Ok(response) => response,
            Err(StoreError::PreconditionFailed | StoreError::NotFound) => return Err(NamespaceError::Stale),
            Err(error) => return Err(error.into()),
        };
        let body: BytesMut = response
            .body
            .try_fold(BytesMut::new(), async |mut body, chunk| {
                body.extend_from_slice(&chunk);
                Ok(body)
            })
            .await?;
        let target = String::from_utf8(body.to_vec()).map_err(|_| NamespaceError::InvalidName)?;
        let mut table = self.0.table.lock();
        let is_of = |row: &&mut Row| row.object.as_ref().is_some_and(|now| now.version == info.version);
        if let Some(row) = table.rows.get_mut(&ino).filter(is_of) {
            row.target = Some(target.as_str().into());
        }
        Ok(target)
    }
}
