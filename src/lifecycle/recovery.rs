//! The journals below a state directory, and what is brought back from them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Failure;
use super::instance::Surroundings;
use super::run::{connect_failure, s3_settings};
use crate::clock::Clock;
use crate::config::{S3Config, WriteLimits};
use crate::memory::{PagePool, Spill};
use crate::metrics::Metrics;
use crate::store::ObjectStore;
use crate::store::s3::connect;
use crate::write::{Journal, Kept, KeptId, WriteEngine, recover};

/// The journal of one bucket and prefix.
struct Place {
    bucket: String,
    /// What the keys of its mounts begin with: more may not be permitted.
    prefix: String,
    dir: PathBuf,
    journal: Journal,
}

/// Something kept, as a person wants to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub id: String,
    /// Bucket.
    pub bucket: String,
    /// Key, length in bytes and reason; `None` if the record is torn.
    pub what: Option<(String, u64, String)>,
    /// The file with its bytes.
    pub data: PathBuf,
}

/// Every journal below the state directory.
fn places(root: &Path) -> Vec<Place> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    let mut dirs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    dirs.sort();
    let open = |dir: PathBuf| {
        let source = std::fs::read_to_string(dir.join("bucket")).ok()?;
        let source = source.strip_suffix('\n').unwrap_or(&source);
        let (bucket, prefix) = source.split_once('/').unwrap_or((source, ""));
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        Some(Place { bucket, prefix, journal: Journal::open(&dir).ok()?, dir })
    };
    dirs.into_iter().filter_map(open).collect()
}

fn find(root: &Path, id: &str) -> Result<(Place, Kept), Failure> {
    let wanted = KeptId(id.to_owned());
    for place in places(root) {
        if let Some(kept) = place.journal.kept().into_iter().find(|kept| kept.id == wanted) {
            return Ok((place, kept));
        }
    }
    Err(Failure::usage(format!(
        "nothing named {id} is kept below {}: s3mount recover list shows what is",
        root.display()
    )))
}

fn failed(id: &str, error: &recover::RecoverError) -> Failure {
    Failure::system(format!("{id} is still kept: {error}"))
}

fn in_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Failure::system(format!("no threads can be made: {error}")))?.block_on(work)
}

/// Reaches the bucket of a journal as its mount did. What does not publish is `read_only`: nothing is probed by writing.
async fn store(s3: &S3Config, place: &Place, read_only: bool) -> Result<Arc<dyn ObjectStore>, Failure> {
    let settings = s3_settings(s3, &place.bucket, &place.prefix, read_only, &Surroundings::look().await);
    connect(&settings, Arc::new(Metrics::default())).await.map_err(|error| connect_failure(&error))
}

/// Everything that is kept.
pub fn list(root: &Path) -> Vec<Row> {
    let mut rows = Vec::new();
    for place in places(root) {
        for kept in place.journal.kept() {
            rows.push(Row {
                id: kept.id.to_string(),
                bucket: place.bucket.clone(),
                what: kept.intent.map(|intent| (intent.key, intent.size_bytes, intent.reason)),
                data: kept.data,
            });
        }
    }
    rows
}

/// Deletes something kept, for good. Parts of it that lie in an unfinished upload go with it; the answer says why they
/// could not, if so.
///
/// # Errors
/// It is not there, or cannot be deleted.
pub fn discard(root: &Path, s3: &S3Config, id: &str) -> Result<Option<String>, Failure> {
    let (place, kept) = find(root, id)?;
    let mut left = None;
    if kept.intent.as_ref().is_some_and(|intent| intent.upload.is_some()) {
        let aborted = in_runtime(async {
            let store = store(s3, &place, true).await?;
            recover::abort(&*store, &kept).await.map_err(|error| Failure::system(error.to_string()))
        });
        left = aborted.err().map(|error| {
            format!("its unfinished upload stays in {} until a lifecycle rule aborts it: {}", place.bucket, error.line)
        });
    }
    place.journal.discard(&kept.id).map_err(|error| Failure::system(format!("{id} cannot be deleted: {error}")))?;
    Ok(left)
}

/// Writes something kept, whole, to a local file; it stays kept. S3 is asked only where bytes of the object are needed that it
/// was written over.
///
/// # Errors
/// See [`recover::RecoverError`].
pub fn export(root: &Path, s3: &S3Config, id: &str, path: &Path, holes: bool) -> Result<(), Failure> {
    let (place, kept) = find(root, id)?;
    in_runtime(async {
        let base = if recover::needs_base(&kept) { Some(store(s3, &place, true).await?) } else { None };
        recover::export(base.as_deref(), &kept, path, holes).await.map_err(|error| failed(id, &error))
    })
}

/// Uploads something kept to its key, and forgets it; answers `s3://BUCKET/KEY`.
///
/// # Errors
/// See [`recover::RecoverError`]; it then stays kept.
pub fn push(root: &Path, s3: &S3Config, id: &str, force: bool) -> Result<String, Failure> {
    let (place, kept) = find(root, id)?;
    in_runtime(async {
        let store = store(s3, &place, false).await?;
        let mut engine = WriteEngine::new(
            Arc::clone(&store),
            PagePool::new(0),
            WriteLimits::default(),
            Arc::new(Metrics::default()),
            Clock::system(),
            place.journal.clone(),
        );
        // Bytes here and there in a large file are more than the budget before the first can leave. Memory takes what a full disk does not.
        if let Ok(spill) = Spill::in_dir(&place.dir) {
            engine = engine.spilling_to(spill);
        }
        let info = recover::push(&store, &engine, &kept, force).await.map_err(|error| failed(id, &error))?;
        place.journal.discard(&kept.id).map_err(|error| Failure::system(error.to_string()))?;
        Ok(format!("s3://{}/{}", place.bucket, info.key()))
    })
}
