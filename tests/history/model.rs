//! The file system as POSIX has it, in a few maps: what the real one is compared with.

use std::collections::BTreeMap;

/// A file's identity: names and handles point at it.
pub type Inode = usize;

/// Names, contents and handles.
#[derive(Debug, Default)]
pub struct Model {
    /// Contents by inode; they outlive their names while a handle is open.
    pub contents: Vec<Vec<u8>>,
    /// Whether S3's copy of the inode's content was overwritten or deleted behind open handles: their reads may then
    /// fail, but never show other bytes.
    pub lost: Vec<bool>,
    /// Paths of files.
    pub files: BTreeMap<String, Inode>,
    /// Paths of directories; the root is the empty path.
    pub directories: Vec<String>,
    /// Handles by slot: the inode and whether it may be written.
    pub handles: BTreeMap<usize, (Inode, bool)>,
}

impl Model {
    /// An empty mount.
    pub fn new() -> Self {
        Self { directories: vec![String::new()], ..Self::default() }
    }

    /// The directory part of a path.
    pub fn parent(path: &str) -> &str {
        path.rsplit_once('/').map_or("", |(parent, _)| parent)
    }

    /// Whether a directory of this path exists.
    pub fn is_directory(&self, path: &str) -> bool {
        self.directories.iter().any(|directory| directory == path)
    }

    /// Whether any name is in the directory.
    pub fn is_empty(&self, directory: &str) -> bool {
        self.names(directory).is_empty()
    }

    /// The names in a directory, sorted.
    pub fn names(&self, directory: &str) -> Vec<String> {
        let all = self.files.keys().chain(self.directories.iter().filter(|path| !path.is_empty()));
        let mut names: Vec<String> = all
            .filter(|path| Self::parent(path) == directory)
            .map(|path| path.rsplit('/').next().unwrap_or(path).to_owned())
            .collect();
        names.sort();
        names
    }

    /// A new empty file.
    pub fn create(&mut self, path: &str) -> Inode {
        let inode = self.contents.len();
        self.contents.push(Vec::new());
        self.lost.push(false);
        self.files.insert(path.to_owned(), inode);
        inode
    }

    /// Writes as pwrite(2) does.
    pub fn write(&mut self, inode: Inode, offset: usize, data: &[u8]) {
        let content = &mut self.contents[inode];
        if content.len() < offset + data.len() {
            content.resize(offset + data.len(), 0);
        }
        content[offset..offset + data.len()].copy_from_slice(data);
    }

    /// The bytes of a range, cut at the end of the file.
    pub fn read(&self, inode: Inode, offset: usize, len: usize) -> &[u8] {
        let content = &self.contents[inode];
        let start = offset.min(content.len());
        &content[start..(start + len).min(content.len())]
    }

    /// Moves a directory and everything below it.
    pub fn rename_directory(&mut self, from: &str, to: &str) {
        let moved = |path: &str| -> Option<String> {
            let rest = path.strip_prefix(from)?;
            (rest.is_empty() || rest.starts_with('/')).then(|| format!("{to}{rest}"))
        };
        self.directories.retain(|directory| directory != to);
        for directory in &mut self.directories {
            if let Some(new) = moved(directory) {
                *directory = new;
            }
        }
        self.files = std::mem::take(&mut self.files)
            .into_iter()
            .map(|(path, inode)| (moved(&path).unwrap_or(path), inode))
            .collect();
    }
}
