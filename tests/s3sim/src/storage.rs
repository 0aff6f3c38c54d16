//! Buckets, objects and uploads in memory, written through to a folder where one is given.
//!
//! In the folder an object is a plain file under its key, so that a person can look; what it carries beside its bytes is in
//! `.s3sim/BUCKET/HASH.json`. A key that is no path (`a//b`, or a file where a directory is) has its bytes there, too.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::content::Content;

/// What an object carries beside its bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Carried {
    /// Content-Type.
    pub content_type: Option<String>,
    /// User metadata, lower-case names without `x-amz-meta-`.
    pub metadata: BTreeMap<String, String>,
    /// Storage class; `None` is STANDARD.
    pub storage_class: Option<String>,
    /// Headers of the content beside its type: name and value.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Checksum headers as they were sent: name and value.
    pub checksums: BTreeMap<String, String>,
}

/// One object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its bytes.
    pub content: Content,
    /// Its tag, quotes included.
    pub etag: String,
    /// When it was written.
    pub modified: SystemTime,
    /// What it carries.
    pub carried: Carried,
}

/// One part of an upload.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its bytes.
    pub content: Content,
    /// Its tag, quotes included.
    pub etag: String,
    /// MD5 of its bytes, from which the tag of the object is made.
    pub digest: [u8; 16],
}

/// An upload under way.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Bucket and key.
    pub bucket: String,
    /// Key that it will write.
    pub key: String,
    /// What the object will carry.
    pub carried: Carried,
    /// When it was begun.
    pub initiated: SystemTime,
    /// Parts by number.
    pub parts: BTreeMap<u32, Part>,
}

/// Everything that the endpoint holds.
#[derive(Debug, Default)]
pub struct Held {
    /// Objects by bucket and key.
    pub buckets: HashMap<String, BTreeMap<String, Object>>,
    /// Uploads by id.
    pub uploads: BTreeMap<String, Upload>,
    /// Makes ids.
    pub next: u64,
}

/// The storage of an endpoint.
#[derive(Debug)]
pub struct Storage {
    /// Everything, under one lock that is held for no I/O but the folder's.
    pub held: Mutex<Held>,
    folder: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Sidecar {
    key: String,
    etag: String,
    modified_ms: u64,
    carried: Carried,
    /// The bytes are beside this file and not under the key.
    hidden: bool,
}

impl Storage {
    /// An empty storage, or what a folder holds.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn open(folder: Option<PathBuf>, buckets: &[String]) -> io::Result<Self> {
        let mut held = Held::default();
        for bucket in buckets {
            held.buckets.entry(bucket.clone()).or_default();
        }
        if let Some(folder) = &folder {
            load(folder, &mut held)?;
            for bucket in held.buckets.keys() {
                std::fs::create_dir_all(folder.join(bucket))?;
                std::fs::create_dir_all(folder.join(".s3sim").join(bucket))?;
            }
        }
        Ok(Self { held: Mutex::new(held), folder })
    }

    /// Makes a bucket.
    pub fn create_bucket(&self, bucket: &str) {
        self.held.lock().buckets.entry(bucket.to_owned()).or_default();
        if let Some(folder) = &self.folder {
            let _ = std::fs::create_dir_all(folder.join(bucket));
            let _ = std::fs::create_dir_all(folder.join(".s3sim").join(bucket));
        }
    }

    /// Writes an object through to the folder. Called with the lock held, so that the folder follows memory in order.
    pub fn wrote(&self, bucket: &str, key: &str, object: &Object) {
        let Some(folder) = &self.folder else { return };
        if let Err(error) = write_through(folder, bucket, key, object) {
            tracing::error!(bucket, key, %error, "the folder does not have this object");
        }
    }

    /// Deletes an object from the folder.
    pub fn deleted(&self, bucket: &str, key: &str) {
        let Some(folder) = &self.folder else { return };
        let sidecar = sidecar(folder, bucket, key);
        let _ = std::fs::remove_file(sidecar.with_extension("data"));
        let _ = std::fs::remove_file(&sidecar);
        if let Some(path) = plain(folder, bucket, key) {
            let _ = std::fs::remove_file(&path);
            let mut dir = path.parent();
            // Directories are in the way of files of their name once they are empty.
            while let Some(at) = dir.filter(|at| **at != folder.join(bucket) && std::fs::remove_dir(at).is_ok()) {
                dir = at.parent();
            }
        }
    }
}

fn sidecar(folder: &Path, bucket: &str, key: &str) -> PathBuf {
    let hash = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, key.as_bytes());
    folder.join(".s3sim").join(bucket).join(format!("{hash:016x}.json"))
}

/// The path of a key that is one.
fn plain(folder: &Path, bucket: &str, key: &str) -> Option<PathBuf> {
    let odd = key.split('/').any(|name| matches!(name, "" | "." | "..") || name.len() > 255) || key.contains('\0');
    (!odd).then(|| folder.join(bucket).join(key))
}

fn write_through(folder: &Path, bucket: &str, key: &str, object: &Object) -> io::Result<()> {
    let sidecar = sidecar(folder, bucket, key);
    let write = |path: &Path| -> io::Result<()> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut file = std::fs::File::create(path)?;
        for chunk in object.content.slice(0, object.content.len()) {
            file.write_all(&chunk)?;
        }
        Ok(())
    };
    let shown = plain(folder, bucket, key).is_some_and(|path| write(&path).is_ok());
    if !shown {
        write(&sidecar.with_extension("data"))?;
    }
    let modified_ms = object.modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let record = Sidecar {
        key: key.to_owned(),
        etag: object.etag.clone(),
        modified_ms,
        carried: object.carried.clone(),
        hidden: !shown,
    };
    std::fs::write(sidecar, serde_json::to_vec(&record)?)
}

fn load(folder: &Path, held: &mut Held) -> io::Result<()> {
    let root = folder.join(".s3sim");
    std::fs::create_dir_all(&root)?;
    for bucket in std::fs::read_dir(&root)?.flatten() {
        let Ok(name) = bucket.file_name().into_string() else { continue };
        let objects = held.buckets.entry(name.clone()).or_default();
        for entry in
            std::fs::read_dir(bucket.path())?.flatten().filter(|it| it.path().extension() == Some("json".as_ref()))
        {
            let record: Sidecar = serde_json::from_slice(&std::fs::read(entry.path())?)?;
            let path = if record.hidden {
                Some(entry.path().with_extension("data"))
            } else {
                plain(folder, &name, &record.key)
            };
            let Some(Ok(bytes)) = path.map(std::fs::read) else { continue };
            let object = Object {
                content: Content::keep(vec![Bytes::from(bytes)]),
                etag: record.etag,
                modified: UNIX_EPOCH + Duration::from_millis(record.modified_ms),
                carried: record.carried,
            };
            objects.insert(record.key, object);
        }
    }
    Ok(())
}
