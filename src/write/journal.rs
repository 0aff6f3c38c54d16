//! What must survive the process: uploads that were begun, and bytes that could not be published.
//!
//! On disk, in a directory that belongs to one bucket and prefix (mode 0700):
//!
//! ```text
//! uploads/HASH.json        an upload that was begun and neither completed nor aborted: {"key", "upload"}
//! kept/ID/data             the written bytes at their offsets, a sparse file
//! kept/ID/intent.json      what they are: written last, synced, and moved into place, so that whoever sees it sees all
//! discarded-ID/            what was kept and is being deleted; the next start deletes what is left of it
//! ```
//!
//! `intent.json` carries a version and the CRC-64/NVME of the kept bytes. A directory without a readable intent is told as
//! torn and never deleted by itself. A queue of writes that are still to be uploaded (`--write-back`) is the same record
//! with another reason.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};

use super::Piece;
use crate::store::UploadId;
use crate::types::{ByteRange, ObjectInfo, ObjectKey};

/// Version of `intent.json`.
const FORMAT: u32 = 1;
/// Bytes read at a time while kept bytes are checked.
const CHECK_BYTES: usize = 1 << 20;
/// How the name of a directory begins that is on its way out.
const DISCARDED: &str = "discarded-";
/// What file systems give room in.
const BLOCK_BYTES: u64 = 4096;
/// Room for what a record has beside its bytes: directory, intent, and what the file system itself takes.
const RECORD_BYTES: u64 = 128 << 10;

/// Names something kept; part of a path and of a command line.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeptId(pub String);

impl std::fmt::Display for KeptId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// An upload that was begun.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Begun {
    pub(super) key: String,
    pub(super) upload: String,
}

/// The object that kept bytes were written over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptBase {
    /// Its key.
    pub key: String,
    /// Its tag.
    pub etag: String,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// How far it shows through where nothing was written, in bytes.
    pub shown_bytes: u64,
}

impl KeptBase {
    /// An object, shown up to so many bytes.
    pub(super) fn of(object: &ObjectInfo, shown_bytes: u64) -> Self {
        Self {
            key: object.key().as_str().to_owned(),
            etag: object.etag().as_str().to_owned(),
            size_bytes: object.size_bytes,
            shown_bytes,
        }
    }
}

/// A part of an upload that the server still has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPart {
    /// Part number.
    pub number: u32,
    /// Tag that Complete must name.
    pub etag: String,
    /// Its first byte in the file.
    pub start: u64,
    /// One past its last byte.
    pub end: u64,
}

/// What is known of kept bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    format: u32,
    /// Key that they were to become.
    pub key: String,
    /// Length of the whole file in bytes.
    pub size_bytes: u64,
    /// What they were written over.
    pub base: Option<KeptBase>,
    /// Where they were written over nothing, the tag of the object that was emptied for them, if it was known.
    #[serde(default)]
    pub truncated: Option<String>,
    /// The written ranges, `[start, end)`, that `data` holds.
    pub ranges: Vec<(u64, u64)>,
    /// The upload whose parts hold more of them, and those parts.
    pub upload: Option<(String, Vec<KeptPart>)>,
    /// Whether the key had to be free.
    pub exclusive: bool,
    /// Content-Type of the object to be.
    pub content_type: Option<String>,
    /// Storage class of the object to be; `None` is STANDARD.
    #[serde(default)]
    pub storage_class: Option<String>,
    /// What else was said of its content.
    #[serde(default)]
    pub headers: crate::types::ContentHeaders,
    /// User metadata of the object to be.
    pub metadata: std::collections::BTreeMap<String, String>,
    /// Why they are here.
    pub reason: String,
    /// When they came, in seconds since 1970.
    pub kept_at_seconds: u64,
    /// CRC-64/NVME of the ranges of `data`, one after another.
    crc64nvme: u64,
}

/// Something in the journal.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its name.
    pub id: KeptId,
    /// What it is; `None` if the record is torn.
    pub intent: Option<Intent>,
    /// The file with the bytes.
    pub data: PathBuf,
}

/// What [`Journal::keep`] is given beside the bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Keeping {
    pub(super) key: String,
    pub(super) size_bytes: u64,
    pub(super) base: Option<KeptBase>,
    pub(super) truncated: Option<String>,
    pub(super) upload: Option<(String, Vec<KeptPart>)>,
    pub(super) exclusive: bool,
    pub(super) content_type: Option<String>,
    pub(super) storage_class: Option<String>,
    pub(super) headers: crate::types::ContentHeaders,
    pub(super) metadata: std::collections::BTreeMap<String, String>,
    pub(super) reason: String,
}

/// The journal of one bucket and prefix. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Journal {
    dir: Option<PathBuf>,
    #[cfg(test)]
    pub(super) test: std::sync::Arc<tests::Interference>,
}

impl Journal {
    /// Opens the journal in `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        let is_new = !dir.join("kept").exists();
        builder.create(dir.join("uploads"))?;
        builder.create(dir.join("kept"))?;
        if is_new {
            // What is kept outlives a machine only if the way to it does.
            for dir in [Some(dir), dir.parent()].into_iter().flatten() {
                let _ = File::open(dir).and_then(|dir| dir.sync_all());
            }
        }
        for left in fs::read_dir(dir)?.flatten() {
            if left.file_name().as_encoded_bytes().starts_with(DISCARDED.as_bytes()) {
                let _ = fs::remove_dir_all(left.path());
            }
        }
        Ok(Self::of(Some(dir.to_owned())))
    }

    fn of(dir: Option<PathBuf>) -> Self {
        Self {
            dir,
            #[cfg(test)]
            test: std::sync::Arc::default(),
        }
    }

    /// No journal: nothing is kept. For tests.
    pub fn disabled() -> Self {
        Self::of(None)
    }

    pub(super) fn is_disabled(&self) -> bool {
        self.dir.is_none()
    }

    fn upload_path(&self, upload: &str) -> Option<PathBuf> {
        let hash = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, upload.as_bytes());
        Some(self.dir.as_ref()?.join("uploads").join(format!("{hash:016x}.json")))
    }

    /// An upload was begun. A journal that cannot be written is no reason to fail: the bucket's lifecycle rule aborts what
    /// this one then does not know of.
    pub(super) fn began(&self, key: &ObjectKey, upload: &UploadId) {
        let Some(path) = self.upload_path(&upload.0) else { return };
        let begun = Begun { key: key.as_str().to_owned(), upload: upload.0.to_string() };
        let written = serde_json::to_vec(&begun).map_err(io::Error::from).and_then(|text| fs::write(&path, text));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "the journal does not know of an upload that was begun");
        }
    }

    /// An upload was completed or aborted.
    pub(super) fn ended(&self, upload: &str) {
        if let Some(path) = self.upload_path(upload) {
            // Not there if it could not be written.
            let _ = fs::remove_file(path);
        }
    }

    /// Uploads that were begun and did not end.
    pub(super) fn begun(&self) -> Vec<Begun> {
        let Some(dir) = &self.dir else { return Vec::new() };
        let Ok(entries) = fs::read_dir(dir.join("uploads")) else { return Vec::new() };
        let read = |entry: fs::DirEntry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok();
        entries.flatten().filter_map(read).collect()
    }

    /// Keeps bytes. Everything is on disk when this answers; nothing is, and `None` the answer, if they are not wanted any more
    /// once all of them are written.
    ///
    /// # Errors
    /// `StorageFull`, before anything is written, where there is no room for all of them; what the disk says.
    pub(super) fn keep(
        &self,
        keeping: Keeping,
        bytes: &[(ByteRange, Vec<Piece>)],
        now: SystemTime,
        is_wanted: impl FnOnce() -> bool,
    ) -> io::Result<Option<KeptId>> {
        let dir = self.dir.as_ref().ok_or_else(|| io::Error::other("there is no journal"))?;
        self.check_room(dir, bytes.iter().map(|(range, _)| on_disk_bytes(*range)).sum())?;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = KeptId(format!("{}-{:08x}", now.as_secs(), fastrand::u32(..)));
        let home = dir.join("kept").join(&id.0);
        fs::DirBuilder::new().mode(0o700).create(&home)?;
        let is_wanted = || {
            #[cfg(test)]
            self.test.written();
            is_wanted()
        };
        let written = write_kept(&home, keeping, bytes, now.as_secs(), is_wanted);
        if !matches!(written, Ok(true)) {
            // Half of it helps nobody; memory still has it all.
            let _ = fs::remove_dir_all(&home);
        }
        Ok(written?.then_some(id))
    }

    /// A copy that would not fit is not begun: until it failed it would leave nobody else any room.
    fn check_room(&self, dir: &Path, bytes: u64) -> io::Result<()> {
        // A file system that does not say is found out by writing.
        let Ok(fs) = statvfs(dir) else { return Ok(()) };
        let free = fs.blocks_available().saturating_mul(fs.fragment_size());
        #[cfg(test)]
        let free = free.min(self.test.room_bytes());
        if free >= bytes.saturating_add(RECORD_BYTES) {
            return Ok(());
        }
        let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
        let (wanted, free, dir) = (mebibytes(bytes), free >> 20, dir.display());
        Err(io::Error::new(io::ErrorKind::StorageFull, format!("{wanted} MiB do not fit {dir}, which has {free} free")))
    }

    /// Whether something is still kept, whole.
    pub(super) fn holds(&self, id: &KeptId) -> bool {
        self.dir.as_ref().is_some_and(|dir| dir.join("kept").join(&id.0).join("intent.json").exists())
    }

    /// What is kept lies over this object from now on. On disk when this answers.
    ///
    /// # Errors
    /// It is not there any more, or cannot be written; the record is then as it was.
    pub(super) fn rest_on(&self, id: &KeptId, base: KeptBase) -> io::Result<()> {
        let kept = self.kept().into_iter().find(|kept| kept.id == *id);
        kept.ok_or(io::ErrorKind::NotFound)?.rest_on(base).map(|_| ())
    }

    /// Forgets something that was kept.
    ///
    /// # Errors
    /// It is not there, or cannot be deleted.
    pub fn discard(&self, id: &KeptId) -> io::Result<()> {
        let dir = self.dir.as_ref().ok_or_else(|| io::Error::other("there is no journal"))?;
        if id.0.contains(['/', '\0']) || id.0.starts_with('.') {
            return Err(io::ErrorKind::NotFound.into());
        }
        // It is gone whole: of half a record nobody could tell what it was.
        let discarded = dir.join(format!("{DISCARDED}{}", id.0));
        fs::rename(dir.join("kept").join(&id.0), &discarded)?;
        if let Err(error) = fs::remove_dir_all(&discarded)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %discarded.display(), %error, "what was discarded still takes its room; the next mount tries again");
        }
        Ok(())
    }

    /// Everything that is kept, oldest first; torn records without an intent.
    pub fn kept(&self) -> Vec<Kept> {
        let Some(dir) = &self.dir else { return Vec::new() };
        let Ok(entries) = fs::read_dir(dir.join("kept")) else { return Vec::new() };
        let mut all: Vec<Kept> = entries
            .flatten()
            .filter_map(|entry| {
                let id = KeptId(entry.file_name().into_string().ok()?);
                let data = entry.path().join("data");
                let intent = fs::read(entry.path().join("intent.json"))
                    .ok()
                    .and_then(|text| serde_json::from_slice::<Intent>(&text).ok())
                    .filter(|intent| intent.format == FORMAT);
                Some(Kept { id, intent, data })
            })
            .collect();
        all.sort_by(|one, other| one.id.cmp(&other.id));
        all
    }
}

/// Room that the bytes of a range take.
fn on_disk_bytes(range: ByteRange) -> u64 {
    (range.end.div_ceil(BLOCK_BYTES) - range.start / BLOCK_BYTES) * BLOCK_BYTES
}

/// False if nobody wants it any more once the bytes are written.
fn write_kept(
    home: &Path,
    keeping: Keeping,
    bytes: &[(ByteRange, Vec<Piece>)],
    now: u64,
    is_wanted: impl FnOnce() -> bool,
) -> io::Result<bool> {
    let data = File::create(home.join("data"))?;
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
    for (range, chunks) in bytes {
        let mut at = range.start;
        for chunk in chunks {
            // One at a time: what is on local disk is more than memory has room for.
            let chunk = match chunk {
                Piece::Staged(bytes) => bytes.clone(),
                Piece::Spilled(range) => range.read()?,
                Piece::Zeros(_) | Piece::Base(_) | Piece::Dropped(_) => {
                    return Err(io::Error::other("only written bytes are kept"));
                }
            };
            digest.update(&chunk);
            data.write_all_at(&chunk, at)?;
            at += chunk.len() as u64;
        }
    }
    data.sync_all()?;
    if !is_wanted() {
        return Ok(false);
    }
    let intent = Intent {
        format: FORMAT,
        key: keeping.key,
        size_bytes: keeping.size_bytes,
        base: keeping.base,
        truncated: keeping.truncated,
        ranges: bytes.iter().map(|(range, _)| (range.start, range.end)).collect(),
        upload: keeping.upload,
        exclusive: keeping.exclusive,
        content_type: keeping.content_type,
        storage_class: keeping.storage_class,
        headers: keeping.headers,
        metadata: keeping.metadata,
        reason: keeping.reason,
        kept_at_seconds: now,
        crc64nvme: digest.finalize(),
    };
    write_intent(home, &intent)?;
    File::open(home.parent().unwrap_or(home))?.sync_all()?;
    Ok(true)
}

fn write_intent(home: &Path, intent: &Intent) -> io::Result<()> {
    let new = home.join("intent.new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec_pretty(intent)?)?;
    file.sync_all()?;
    fs::rename(&new, home.join("intent.json"))?;
    File::open(home)?.sync_all()
}

impl Kept {
    /// Reads a range of the kept bytes.
    ///
    /// # Errors
    /// The file is gone or shorter than it was.
    pub(super) fn read(&self, range: ByteRange) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(range.len()).map_err(io::Error::other)?];
        File::open(&self.data)?.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes)
    }

    /// The record, with its bytes over an object that has everything else of the file, its upload included. On disk when
    /// this answers.
    ///
    /// # Errors
    /// It cannot be written; the record on disk is then as it was.
    pub(super) fn rest_on(&self, base: KeptBase) -> io::Result<Self> {
        let mut intent = self.intent.clone().ok_or_else(|| io::Error::other("the record is torn"))?;
        intent.base = Some(base);
        intent.upload = None;
        write_intent(self.data.parent().unwrap_or(Path::new(".")), &intent)?;
        Ok(Self { intent: Some(intent), ..self.clone() })
    }

    /// Whether the bytes are what was kept.
    ///
    /// # Errors
    /// They are not, or cannot be read.
    pub fn verify(&self) -> io::Result<()> {
        let intent = self.intent.as_ref().ok_or_else(|| io::Error::other("the record is torn"))?;
        let mut file = File::open(&self.data)?;
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
        let mut buffer = vec![0; CHECK_BYTES];
        for &(start, end) in &intent.ranges {
            io::Seek::seek(&mut file, io::SeekFrom::Start(start))?;
            let mut left = end.saturating_sub(start);
            while left > 0 {
                let now = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                file.read_exact(&mut buffer[..now])?;
                digest.update(&buffer[..now]);
                left -= now as u64;
            }
        }
        if digest.finalize() == intent.crc64nvme { Ok(()) } else { Err(io::Error::other("the kept bytes are damaged")) }
    }
}

#[cfg(test)]
mod tests;
