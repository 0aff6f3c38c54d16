//! How much memory there is, and how the mount divides its share.

use std::path::Path;

use super::{ReadLimits, WriteLimits};

/// The least that works: one window, one part, some cache.
pub const MEMORY_BYTES_MIN: u64 = 64 << 20;

/// Memory of the machine, or of the cgroup where that is less, in bytes. 2 GiB where nothing tells.
pub fn present_bytes() -> u64 {
    let machine = read_meminfo(Path::new("/proc/meminfo"));
    let cgroups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let cgroup = cgroups.iter().filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()).min();
    machine.into_iter().chain(cgroup).min().unwrap_or(2 << 30)
}

fn read_meminfo(path: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// Divides a limit: half for cached blocks, a quarter for bytes on their way in, a quarter for bytes on their way out, so
/// that together they stay within it. More than 4 GiB on their way helps no network card.
pub(super) fn divide(limit_bytes: u64, read: &mut ReadLimits, write: &mut WriteLimits) {
    let quarter = (limit_bytes / 4).min(4 << 30);
    read.in_flight_bytes = quarter;
    write.staging_bytes = quarter;
    read.cache_bytes = limit_bytes - 2 * quarter;
    read.window_bytes_max = read.window_bytes_max.min(quarter / 2);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_add_up_to_the_limit() {
        for limit in [MEMORY_BYTES_MIN, 512 << 20, 6 << 30, 244 << 30] {
            let (mut read, mut write) = (ReadLimits::default(), WriteLimits::default());
            divide(limit, &mut read, &mut write);
            assert_eq!(read.cache_bytes + read.in_flight_bytes + write.staging_bytes, limit);
        }
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(present_bytes() >= MEMORY_BYTES_MIN);
    }
}
