//! What a mount needs of the machine: FUSE, memory, a disk for state, a network that finds S3.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::Check;
use crate::config::{MEMORY_BYTES_MIN, present_bytes};
use crate::ec2::{ImdsError, bandwidth_of};
use crate::lifecycle::instance::Surroundings;

/// What cannot be uploaded is kept on disk, and blocks are cached there: less is soon full.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// The smallest that IPv6 allows (RFC 8200): below it something is wrong with the network.
const MTU_MIN: u32 = 1280;
/// What instances have inside a VPC (user guide, "Network MTU for your EC2 instance").
const MTU_JUMBO: u32 = 9001;

fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

pub(super) fn fuse_device() -> Check {
    fuse_device_at(Path::new("/dev/fuse"))
}

fn fuse_device_at(device: &Path) -> Check {
    let (name, shown) = ("fuse device", device.display());
    match File::options().read(true).write(true).open(device) {
        Ok(_) => Check::ok(name, format!("{shown} can be opened")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Check::failed(
            name,
            format!("{shown} is missing"),
            "load it with modprobe fuse; in a container run with --device /dev/fuse --cap-add SYS_ADMIN",
        ),
        Err(error) => Check::failed(
            name,
            format!("{shown} cannot be opened: {error}"),
            "chmod 666 /dev/fuse; in a container run with --device /dev/fuse --cap-add SYS_ADMIN",
        ),
    }
}

pub(super) fn fusermount() -> Check {
    let name = "fusermount3";
    let path = std::env::var_os("PATH").unwrap_or_default();
    let remedy = "install it: apt-get install fuse3, or dnf install fuse3";
    match std::env::split_paths(&path).map(|dir| dir.join("fusermount3")).find(|path| path.is_file()) {
        Some(path) => Check::ok(name, path.display().to_string()),
        None if nix::unistd::geteuid().is_root() => {
            Check::note(name, "is not on PATH; root mounts without it, other users cannot", remedy)
        }
        None => Check::failed(name, "is not on PATH, and only root can mount without it", remedy),
    }
}

/// Which of what newer kernels offer this one has.
pub(super) fn kernel() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = crate::lifecycle::run::kernel_version();
    let offer = |since: (u32, u32), what: &str| {
        let has = version.is_some_and(|version| version >= since);
        format!("{what} {}", if has { "yes".to_owned() } else { format!("no (since {}.{})", since.0, since.1) })
    };
    let offers = [offer((6, 6), "mmap beside direct I/O"), offer((6, 9), "passthrough")].join(", ");
    let detail = format!("{}: {offers}", release.trim());
    // FUSE's readdirplus and parallel directory operations, which the mount counts on.
    if version.is_some_and(|version| version < (4, 18)) {
        return Check::failed("kernel", detail, "use a kernel of at least 4.18; 6.9 and later are the fastest");
    }
    Check::ok("kernel", detail)
}

pub(super) fn memory(here: &Surroundings) -> Check {
    memory_of(present_bytes(), here.machine().is_memory_optimised)
}

fn memory_of(present: u64, is_memory_optimised: bool) -> Check {
    let share = if is_memory_optimised { 2 } else { 4 };
    let limit = (present / share).max(MEMORY_BYTES_MIN);
    let detail = format!("{}, of which a mount takes up to {}", bytes(present), bytes(limit));
    if present < 4 * MEMORY_BYTES_MIN {
        let remedy = "use a larger machine or cgroup; 64MiB of --memory-limit is the least that works";
        return Check::failed("memory", detail, remedy);
    }
    Check::ok("memory", detail)
}

/// A directory that a mount writes to, named by `option`.
pub(super) fn disk(name: &'static str, root: &Path, option: &str) -> Check {
    let shown = root.display();
    let remedy = format!("name a directory on a local disk with {option}");
    // What is not there yet is not made: the nearest directory that is tells the same.
    let Some(there) = root.ancestors().find(|dir| dir.is_dir()) else {
        return Check::failed(name, format!("{shown} cannot be made"), remedy);
    };
    let probe = there.join(format!(".s3mount-doctor-{:016x}", fastrand::u64(..)));
    if let Err(error) = File::create_new(&probe).and_then(|_| fs::remove_file(&probe)) {
        return Check::failed(name, format!("{shown} cannot be written: {error}"), remedy);
    }
    match nix::sys::statvfs::statvfs(there) {
        Err(error) => Check::failed(name, format!("{shown} cannot be looked at: {error}"), remedy),
        Ok(disk) => {
            let free = disk.blocks_available().saturating_mul(disk.fragment_size());
            let detail = format!("{shown} can be written, {} free", bytes(free));
            if free < FREE_BYTES_MIN {
                Check::note(name, detail, format!("make room, or {remedy}"))
            } else {
                Check::ok(name, detail)
            }
        }
    }
}

pub(super) fn instance(here: &Surroundings) -> Check {
    let name = "EC2 instance";
    match &here.instance {
        Ok((_, it)) => {
            let bandwidth = bandwidth_of(&it.instance_type).map_or_else(String::new, |bandwidth| {
                let gigabits = |megabits: u32| f64::from(megabits) / 1000.0;
                let (baseline, peak) = (gigabits(bandwidth.baseline_megabits), gigabits(bandwidth.peak_megabits));
                if baseline < peak {
                    format!(", {baseline} Gbit/s, at times {peak}")
                } else {
                    format!(", {baseline} Gbit/s")
                }
            });
            let spot = if it.is_spot == Some(true) { ", spot" } else { "" };
            Check::ok(name, format!("{} ({}) in {}{bandwidth}{spot}", it.id, it.instance_type, it.region))
        }
        Err(error @ (ImdsError::NotEc2 | ImdsError::Disabled | ImdsError::Unreachable(..))) => {
            Check::skipped(name, error.to_string())
        }
        Err(ImdsError::HopLimit) => Check::failed(
            name,
            "the metadata service gives no token into this container: its answers may take one hop only",
            "aws ec2 modify-instance-metadata-options --instance-id ID --http-put-response-hop-limit 2",
        ),
        Err(error) => Check::failed(name, error.to_string(), "see the instance's metadata options"),
    }
}

/// The interface of the default route and its MTU.
fn default_interface() -> Option<(String, u32)> {
    let routes = fs::read_to_string("/proc/net/route").ok()?;
    let interface = routes.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let (interface, destination) = (words.next()?, words.next()?);
        (destination == "00000000").then(|| interface.to_owned())
    })?;
    let mtu = fs::read_to_string(format!("/sys/class/net/{interface}/mtu")).ok()?.trim().parse().ok()?;
    Some((interface, mtu))
}

pub(super) fn mtu(here: &Surroundings) -> Check {
    mtu_of(default_interface(), here.instance.is_ok())
}

fn mtu_of(interface: Option<(String, u32)>, is_on_ec2: bool) -> Check {
    let name = "MTU";
    let Some((interface, mtu)) = interface else {
        return Check::skipped(name, "there is no default route over IPv4");
    };
    let detail = format!("{mtu} on {interface}");
    if mtu < MTU_MIN {
        return Check::failed(name, detail, format!("ip link set {interface} mtu 1500"));
    }
    if is_on_ec2 && mtu < MTU_JUMBO {
        let remedy = format!("ip link set {interface} mtu {MTU_JUMBO}: fewer packets a GB on the way to S3");
        return Check::note(name, detail, remedy);
    }
    Check::ok(name, detail)
}

pub(super) async fn dns(host: &str) -> Check {
    let name = "DNS";
    if host.parse::<std::net::IpAddr>().is_ok() {
        return Check::skipped(name, format!("{host} is an address"));
    }
    match tokio::net::lookup_host((host, 443)).await {
        Ok(addresses) => Check::ok(name, format!("{host} has {} addresses", addresses.count())),
        Err(error) => Check::failed(
            name,
            format!("{host} is not found: {error}"),
            "see /etc/resolv.conf, the VPC's DNS support, and --endpoint-url",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::doctor::Verdict::{Failed, Note, Ok, Skipped};

    fn remedy(check: &Check) -> &str {
        check.remedy.as_deref().unwrap_or_default()
    }

    #[test]
    fn a_fuse_device_that_is_missing_is_told_with_its_remedy() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = fuse_device_at(&folder.path().join("fuse"));
        assert!(missing.verdict == Failed && missing.detail.ends_with("is missing"), "{missing:?}");
        assert!(remedy(&missing).contains("modprobe fuse") && remedy(&missing).contains("--device /dev/fuse"));
        // A directory cannot be opened for writing, by nobody.
        let closed = fuse_device_at(folder.path());
        assert!(closed.verdict == Failed && closed.detail.contains("cannot be opened"), "{closed:?}");
        assert_eq!(fuse_device_at(Path::new("/dev/null")).verdict, Ok);
    }

    #[test]
    fn packets_are_large_inside_of_a_vpc_and_nowhere_tiny() {
        let mtu = |mtu: u32, is_on_ec2: bool| mtu_of(Some(("ens5".to_owned(), mtu)), is_on_ec2);
        assert_eq!(mtu(1500, false).verdict, Ok);
        assert_eq!(mtu(9001, true).verdict, Ok);
        let small = mtu(1500, true);
        assert_eq!((small.verdict, small.detail.as_str()), (Note, "1500 on ens5"));
        assert!(remedy(&small).starts_with("ip link set ens5 mtu 9001"));
        assert_eq!(mtu(576, false).verdict, Failed);
        assert_eq!(mtu_of(None, true).verdict, Skipped);
    }

    #[test]
    fn memory_that_is_too_little_is_found_and_the_share_is_told() {
        assert_eq!(memory_of(128 << 20, false).verdict, Failed);
        let (plain, optimised) = (memory_of(64 << 30, false), memory_of(64 << 30, true));
        assert_eq!((plain.verdict, optimised.verdict), (Ok, Ok));
        assert!(plain.detail.contains("up to 16.00 GiB") && optimised.detail.contains("up to 32.00 GiB"), "{plain:?}");
    }

    #[test]
    fn a_disk_that_cannot_be_written_names_the_option() {
        let check = disk("cache disk", Path::new("/proc/nowhere/cache"), "--cache-dir");
        assert!(check.verdict == Failed && remedy(&check).contains("--cache-dir"), "{check:?}");
        let folder = tempfile::tempdir().expect("a folder");
        let check = disk("cache disk", &folder.path().join("not/made/yet"), "--cache-dir");
        assert!(matches!(check.verdict, Ok | Note) && check.detail.contains("can be written"), "{check:?}");
        assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 0, "nothing is left");
    }

    #[tokio::test]
    async fn a_host_that_is_not_found_is_told() {
        assert_eq!(dns("127.0.0.1").await.verdict, Skipped);
        assert_eq!(dns("localhost").await.verdict, Ok);
        // RFC 2606: nobody will ever have that name.
        let unknown = dns("bucket.invalid").await;
        assert!(unknown.verdict == Failed && remedy(&unknown).contains("--endpoint-url"), "{unknown:?}");
    }

    #[test]
    fn a_hop_limit_of_one_is_a_failure_and_no_instance_is_none() {
        let of = |error: ImdsError| instance(&Surroundings { instance: Err(error) });
        let hop = of(ImdsError::HopLimit);
        assert!(hop.verdict == Failed && remedy(&hop).contains("--http-put-response-hop-limit 2"), "{hop:?}");
        assert_eq!(of(ImdsError::NotEc2).verdict, Skipped);
        assert_eq!(of(ImdsError::Silent("http://169.254.169.254".into())).verdict, Failed);
    }
}
