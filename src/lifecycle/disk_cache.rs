//! The disk cache of a mount: where it is, how large it may grow, and that no other process uses it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::statvfs::statvfs;

use super::{Failure, instance_disk};
use crate::cache::{DISK_CACHE_BYTES_MIN, DiskCache};
use crate::clock::Clock;
use crate::config::{CacheDir, MountConfig};
use crate::ec2::{Imds, InstanceStore, Roots, instance_stores, mapped_devices};
use crate::metrics::Metrics;

/// Share of what is free that the cache may take where nothing was said, in percent.
const FREE_PERCENT: u64 = 80;

/// Below the place where an instance store is mounted.
const FOLDER: &str = "s3mount-cache";

/// How long a mount that is just ending may keep its cache: what is unmounted is often mounted again at once.
const LOCK_LIMIT: Duration = Duration::from_secs(15);
const LOCK_EVERY: Duration = Duration::from_millis(100);

/// How long a mount waits for its cache to be looked through; beyond that it goes on without what was not found yet.
const RECOVER_LIMIT: Duration = Duration::from_secs(3);

/// Opens the disk cache that a configuration asks for.
///
/// # Errors
/// Another mount of the same bucket and prefix uses the directory; it cannot be made or belongs to somebody else; it is too
/// small.
pub(super) async fn open(
    config: &MountConfig,
    metrics: &Arc<Metrics>,
    clock: &Clock,
) -> Result<Option<DiskCache>, Failure> {
    let Some(wanted) = &config.disk_cache else { return Ok(None) };
    let parent = match &wanted.dir {
        CacheDir::At(dir) => std::path::absolute(dir).unwrap_or_else(|_| dir.clone()),
        CacheDir::InstanceStore { format } => instance_store(*format).await?.join(FOLDER),
    };
    let source = source(config);
    let path = parent.join(directory_name(&config.bucket, &source));
    let shown = path.display();
    let unusable = |error: &io::Error| {
        Failure::system(format!("the cache directory {shown} cannot be used ({error}): name another with --cache-dir"))
    };
    let limit_bytes = match wanted.size_bytes {
        Some(bytes) => bytes,
        None => default_limit_bytes(&parent, &path).map_err(|error| unusable(&error))?,
    };
    if limit_bytes < DISK_CACHE_BYTES_MIN {
        return Err(Failure::system(format!(
            "only {} MiB are to be had for the disk cache in {}: make room, or name another directory with --cache-dir",
            limit_bytes >> 20,
            parent.display()
        )));
    }
    let mut tries = LOCK_LIMIT.as_millis() / LOCK_EVERY.as_millis();
    let cache = loop {
        match DiskCache::open(&path, &source, limit_bytes, Arc::clone(metrics), clock.clone()) {
            Ok(cache) => break cache,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && tries > 0 => tries -= 1,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(Failure::system(format!(
                    "the disk cache {shown} is in use by another mount of the same bucket and prefix: give each mount its \
                     own --cache-dir"
                )));
            }
            Err(error) => return Err(unusable(&error)),
        }
        tokio::time::sleep(LOCK_EVERY).await;
    };
    let looking = cache.clone();
    let recovery = tokio::task::spawn_blocking(move || looking.recover());
    match tokio::time::timeout(RECOVER_LIMIT, recovery).await {
        Ok(found) => tracing::info!(dir = %shown, limit_bytes, versions = found.unwrap_or(0), "disk cache"),
        Err(_) => tracing::info!(dir = %shown, limit_bytes, "disk cache; it is still being looked through"),
    }
    Ok(Some(cache))
}

/// Where the instance's own disk is mounted. With `format` it is mounted where it is not, and made ready if it is blank.
async fn instance_store(format: bool) -> Result<PathBuf, Failure> {
    let mapped = match Imds::of_this_machine() {
        Ok(imds) => mapped_devices(&imds).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "no block-device mapping");
            Vec::new()
        }),
        Err(_) => Vec::new(),
    };
    let found = move || instance_stores(&Roots::default(), &mapped);
    let stores = found();
    if let (true, Some(InstanceStore { device, mounted_at: None, .. })) = (format, stores.first()) {
        let device = Path::new("/dev").join(device);
        let ready = tokio::task::spawn_blocking(move || {
            let any_is_mounted = || found().iter().any(|store| store.mounted_at.is_some());
            instance_disk::make_ready(&device, Path::new(instance_disk::MOUNT_POINT), any_is_mounted)?;
            Ok(found())
        });
        let stores = ready.await.map_err(|error| Failure::system(format!("--format-instance-store: {error}")))??;
        return place_of(&stores);
    }
    place_of(&stores)
}

fn place_of(stores: &[InstanceStore]) -> Result<PathBuf, Failure> {
    match stores.first() {
        Some(InstanceStore { mounted_at: Some(dir), .. }) => Ok(dir.clone()),
        Some(InstanceStore { device, .. }) => Err(Failure::system(format!(
            "--cache-dir auto: the instance store /dev/{device} is not mounted: mount it, or let --format-instance-store make a \
             file system on it if it is blank"
        ))),
        None => Err(Failure::system(
            "--cache-dir auto: this machine has no instance store: name a directory on a fast local disk with --cache-dir",
        )),
    }
}

/// What tells the objects of this mount from those of others: endpoint, bucket and prefix.
fn source(config: &MountConfig) -> String {
    format!("{}|{}/{}", config.s3.endpoint_url.as_deref().unwrap_or(""), config.bucket, config.prefix)
}

fn directory_name(bucket: &str, source: &str) -> String {
    let hash = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, source.as_bytes());
    format!("s3mount-{bucket}-{hash:016x}")
}

/// A share of what is free, what the cache takes already counted as free.
fn default_limit_bytes(parent: &Path, path: &Path) -> io::Result<u64> {
    std::fs::create_dir_all(parent)?;
    let fs = statvfs(parent)?;
    let free = fs.blocks_available().saturating_mul(fs.fragment_size());
    Ok((free + taken_bytes(path)) / 100 * FREE_PERCENT)
}

/// What the files of a directory take.
fn taken_bytes(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.blocks() * 512).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_different_sources_have_directories_of_their_own() {
        let names = ["|b/", "|b/p/", "http://127.0.0.1:9|b/"].map(|source| directory_name("b", source));
        assert!(names[0] != names[1] && names[0] != names[2] && names[1] != names[2], "{names:?}");
    }

    #[test]
    fn an_instance_store_that_is_not_mounted_is_said_and_never_taken() {
        let store = |device: &str, at: Option<&str>| InstanceStore {
            device: device.into(),
            size_bytes: 1,
            mounted_at: at.map(PathBuf::from),
        };
        assert_eq!(place_of(&[store("nvme1n1", Some("/mnt/fast"))]), Ok(PathBuf::from("/mnt/fast")));
        let not_mounted = place_of(&[store("nvme1n1", None)]).expect_err("nowhere to write");
        assert!(not_mounted.line.contains("/dev/nvme1n1 is not mounted"), "{}", not_mounted.line);
        assert!(place_of(&[]).is_err());
    }

    #[test]
    fn what_the_cache_takes_already_is_found() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(taken_bytes(&dir.path().join("not there")), 0);
        std::fs::write(dir.path().join("x"), vec![1; 1 << 20]).expect("room for a file");
        assert!(taken_bytes(dir.path()) >= 1 << 20);
    }
}
