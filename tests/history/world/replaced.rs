//! Another client replaces a file, and this mount renames it before it has heard of that: what is there moves, and who reads the old
//! content reads that, or hears that it is gone.

use super::*;

impl World {
    /// Whether another client may replace the file: nobody here writes to it.
    fn is_replaceable(&self, path: &str) -> bool {
        let written = |inode: Inode| self.model.handles.values().any(|&(of, writable)| of == inode && writable);
        self.model.files.get(path).is_some_and(|&inode| !written(inode))
    }

    async fn replace(&mut self, path: &'static str, data: Vec<u8>) -> Step_ {
        if let Some(&old) = self.model.files.get(path) {
            self.model.lost[old] = true;
        }
        self.put(path, data).await
    }

    pub(super) async fn replace_and_rename(&mut self, from: &'static str, to: &'static str, data: Vec<u8>) -> Step_ {
        if from == to || !self.is_replaceable(from) || !self.model.is_directory(Model::parent(to)) {
            return Ok(());
        }
        self.replace(from, data).await?;
        self.rename(from, to).await
    }

    pub(super) async fn replace_and_rename_directory(
        &mut self,
        path: &'static str,
        to: &'static str,
        data: Vec<u8>,
    ) -> Step_ {
        let from = Model::parent(path);
        let is_within = to == from || to.starts_with(&format!("{from}/"));
        let is_free = self.model.is_directory(Model::parent(to)) && self.model.is_empty(to);
        if from.is_empty() || is_within || !is_free || !self.is_replaceable(path) {
            return Ok(());
        }
        self.replace(path, data).await?;
        self.rename_directory(from, to).await
    }
}
