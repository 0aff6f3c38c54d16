//! How much memory there is, and how the mount divides its share.

use std::path::Path;

use super::{ReadLimits, WriteLimits};

/// The least that works: one window, one part, some cache.
pub const MEMORY_BYTES_MIN: u64 = 64 << 20;

/// Memory of the machine, or of the cgroups that the process is in where that is less, in bytes. 2 GiB where nothing tells.
pub fn present_bytes() -> u64 {
    let machine = read_meminfo(Path::new("/proc/meminfo"));
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = cgroup_limit(&groups, Path::new("/sys/fs/cgroup"));
    machine.into_iter().chain(limit).min().unwrap_or(2 << 30)
}

/// The least limit of the cgroups in `/proc/self/cgroup` (cgroups(7)) and of those above them: a service's MemoryMax stands
/// in its own group, a container's mostly in the root of what it sees.
fn cgroup_limit(groups: &str, root: &Path) -> Option<u64> {
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        let group = root.join(path.trim_start_matches('/'));
        for group in group.ancestors().take_while(|group| group.starts_with(&root)) {
            let limit = std::fs::read_to_string(group.join(file)).ok().and_then(|text| text.trim().parse().ok());
            least = least.into_iter().chain(limit).min();
        }
    }
    least
}

fn read_meminfo(path: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// One part in this many of the bytes on their way in is left to others by the widest window.
const RESERVED_SHARE: u64 = 8;
/// Requests of a stream are not made smaller than a block, in bytes.
const REQUEST_BYTES_MIN: u64 = 1 << 20;

/// Divides a limit, where the widest window of a stream is wanted to have `window_bytes`: half for cached blocks, a quarter for bytes on their way in, a quarter for bytes on their way out, so
/// that together they stay within it. More than 4 GiB on their way helps no network card.
pub(super) fn divide(limit_bytes: u64, window_bytes: u64, read: &mut ReadLimits, write: &mut WriteLimits) {
    let quarter = (limit_bytes / 4).min(4 << 30);
    read.in_flight_bytes = quarter;
    write.staging_bytes = quarter;
    read.cache_bytes = limit_bytes - 2 * quarter;
    read.window_bytes_max = window_bytes.min(quarter - quarter / RESERVED_SHARE);
    let request_bytes = (read.window_bytes_max / ReadLimits::WINDOW_REQUESTS).max(REQUEST_BYTES_MIN);
    read.request_bytes_max = ReadLimits::default().request_bytes_max.min(1 << request_bytes.ilog2());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_add_up_to_the_limit() {
        for limit in [MEMORY_BYTES_MIN, 512 << 20, 6 << 30, 244 << 30] {
            let (mut read, mut write) = (ReadLimits::default(), WriteLimits::default());
            divide(limit, read.window_bytes_max, &mut read, &mut write);
            assert_eq!(read.cache_bytes + read.in_flight_bytes + write.staging_bytes, limit);
        }
    }

    #[test]
    fn a_limit_of_any_group_above_counts() {
        let root = tempfile::tempdir().expect("a directory");
        let service = root.path().join("system.slice/s3mount.service");
        std::fs::create_dir_all(&service).expect("a directory");
        std::fs::write(service.join("memory.max"), "max\n").expect("a file");
        assert_eq!(cgroup_limit("0::/system.slice/s3mount.service\n", root.path()), None);
        std::fs::write(root.path().join("system.slice/memory.max"), "1073741824\n").expect("a file");
        assert_eq!(cgroup_limit("0::/system.slice/s3mount.service\n", root.path()), Some(1 << 30));
        std::fs::write(service.join("memory.max"), "536870912\n").expect("a file");
        assert_eq!(cgroup_limit("0::/system.slice/s3mount.service\n", root.path()), Some(512 << 20));
        let first = root.path().join("memory/docker");
        std::fs::create_dir_all(&first).expect("a directory");
        std::fs::write(first.join("memory.limit_in_bytes"), "268435456\n").expect("a file");
        assert_eq!(cgroup_limit("5:cpu,cpuacct:/x\n4:memory:/docker\n", root.path()), Some(256 << 20));
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(present_bytes() >= MEMORY_BYTES_MIN);
    }
}
