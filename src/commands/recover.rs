//! `s3mount recover`: bytes that could not be uploaded, shown, exported, pushed or discarded.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::Clock;
use crate::config::cli::{RecoverAction, RecoverArgs};
use crate::config::{S3Config, WriteLimits};
use crate::lifecycle::run::{connect_failure, s3_settings};
use crate::lifecycle::{Failure, place};
use crate::memory::PagePool;
use crate::metrics::Metrics;
use crate::store::ObjectStore;
use crate::store::s3::connect;
use crate::write::{Journal, Kept, KeptId, WriteEngine, recover};

/// One bucket's journal.
struct Place {
    bucket: String,
    journal: Journal,
}

/// Does what was asked; lists if nothing was.
pub(super) fn run(arguments: RecoverArgs) -> Result<(), Failure> {
    let root = place::state_root(arguments.state_dir.as_deref());
    let s3 = S3Config::new(arguments.s3).map_err(|error| Failure::usage(error.to_string()))?;
    match arguments.action.unwrap_or(RecoverAction::List) {
        RecoverAction::List => {
            list(&root);
            Ok(())
        }
        RecoverAction::Discard { id } => {
            let (place, kept) = find(&root, &id)?;
            place.journal.discard(&kept.id).map_err(|error| Failure::system(format!("{id} cannot be deleted: {error}")))
        }
        RecoverAction::Export { id, path, holes } => {
            let (place, kept) = find(&root, &id)?;
            in_runtime(async {
                let store = store(&s3, &place.bucket).await?;
                recover::export(&*store, &kept, &path, holes).await.map_err(|error| failed(&id, &error))?;
                println!("{} is written; {id} is still kept: s3mount recover discard {id}", path.display());
                Ok(())
            })
        }
        RecoverAction::Push { id, force } => {
            let (place, kept) = find(&root, &id)?;
            in_runtime(async {
                let store = store(&s3, &place.bucket).await?;
                let engine = WriteEngine::new(
                    Arc::clone(&store),
                    PagePool::new(0),
                    WriteLimits::default(),
                    Arc::new(Metrics::default()),
                    Clock::system(),
                    place.journal.clone(),
                );
                let info = recover::push(&store, &engine, &kept, force).await.map_err(|error| failed(&id, &error))?;
                println!("s3://{}/{} is written", place.bucket, info.key());
                place.journal.discard(&kept.id).map_err(|error| Failure::system(error.to_string()))
            })
        }
    }
}

fn failed(id: &str, error: &recover::RecoverError) -> Failure {
    Failure::system(format!("{id} is still kept: {error}"))
}

fn in_runtime(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Failure::system(format!("no threads can be made: {error}")))?.block_on(work)
}

async fn store(s3: &S3Config, bucket: &str) -> Result<Arc<dyn ObjectStore>, Failure> {
    let settings = s3_settings(s3, bucket, "", false);
    connect(&settings, Arc::new(Metrics::default())).await.map_err(|error| connect_failure(&error))
}

/// Every journal below the state directory.
fn places(root: &Path) -> Vec<Place> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    let mut dirs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    dirs.sort();
    let open = |dir: PathBuf| {
        let source = std::fs::read_to_string(dir.join("bucket")).ok()?;
        let bucket = source.split('/').next()?.trim().to_owned();
        Some(Place { bucket, journal: Journal::open(&dir).ok()? })
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

fn list(root: &Path) {
    let mut any = false;
    for place in places(root) {
        for kept in place.journal.kept() {
            any = true;
            match kept.intent {
                Some(intent) => println!(
                    "{}  s3://{}/{}  {}  {}",
                    kept.id,
                    place.bucket,
                    intent.key,
                    indicatif::BinaryBytes(intent.size_bytes),
                    intent.reason
                ),
                None => {
                    println!("{}  s3://{}/?  torn record; its bytes: {}", kept.id, place.bucket, kept.data.display());
                }
            }
        }
    }
    if !any {
        println!("nothing is kept below {}", root.display());
    }
}
