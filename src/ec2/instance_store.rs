//! The instance's own disks: which block devices they are, and where they are mounted.
//!
//! Reads sysfs and the table of mounts alone; the block-device mapping of older instances, whose disks have no model, comes from
//! the metadata service. Never writes to a device, mounts or formats one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Imds, ImdsError};

/// Model of an NVMe instance store volume (EC2 user guide, "SSD instance store volumes").
const MODEL: &str = "Amazon EC2 NVMe Instance Storage";
/// How long the metadata service may take for one answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where the kernel tells of devices and mounts; elsewhere in tests.
#[derive(Clone, Debug)]
pub struct Roots {
    /// `/sys`.
    pub sys: PathBuf,
    /// `/proc/self/mountinfo`.
    pub mountinfo: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { sys: "/sys".into(), mountinfo: "/proc/self/mountinfo".into() }
    }
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceStore {
    /// Name of the device below `/dev`.
    pub device: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Where it is mounted for writing: itself, one of its partitions, or what is built over them (RAID, LVM, dm-crypt).
    pub mounted_at: Option<PathBuf>,
}

/// The disks of this instance, the mounted ones first, of these the largest. `mapped` are device names of the block-device
/// mapping, such as `sdb`.
pub fn instance_stores(roots: &Roots, mapped: &[String]) -> Vec<InstanceStore> {
    let mounts = fs::read_to_string(&roots.mountinfo).unwrap_or_default();
    let mut found: Vec<InstanceStore> = Vec::new();
    for name in names(&roots.sys.join("block")) {
        let device = roots.sys.join("block").join(&name);
        let is_nvme = fs::read_to_string(device.join("device/model")).is_ok_and(|model| model.trim() == MODEL);
        if !is_nvme && !mapped.iter().any(|mapped| is_mapped(mapped, &name)) {
            continue;
        }
        let mut numbers = Vec::new();
        numbers_over(&roots.sys, &device, &mut numbers);
        let sectors = fs::read_to_string(device.join("size")).ok().and_then(|text| text.trim().parse::<u64>().ok());
        found.push(InstanceStore {
            device: name,
            // sysfs counts sectors of 512 bytes whatever the device's are (Documentation/ABI/stable/sysfs-block).
            size_bytes: sectors.unwrap_or(0) * 512,
            mounted_at: mounts
                .lines()
                .filter_map(mounted)
                .find(|(number, _)| numbers.contains(number))
                .map(|(_, at)| at),
        });
    }
    found.sort_by_key(|store| (store.mounted_at.is_none(), std::cmp::Reverse(store.size_bytes), store.device.clone()));
    found
}

/// Asks for the device names that the block-device mapping calls ephemeral.
///
/// # Errors
/// The service could not be asked.
pub async fn mapped_devices(imds: &Imds) -> Result<Vec<String>, ImdsError> {
    const MAPPING: &str = "/latest/meta-data/block-device-mapping/";
    let mut devices = Vec::new();
    let names = match imds.get(MAPPING, PATIENCE).await {
        Ok(names) => names,
        Err(ImdsError::NotFound) => return Ok(devices),
        Err(error) => return Err(error),
    };
    for name in names.lines().map(str::trim).filter(|name| name.starts_with("ephemeral")) {
        match imds.get(&format!("{MAPPING}{name}"), PATIENCE).await {
            Ok(device) => devices.push(device.trim().to_owned()),
            Err(ImdsError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(devices)
}

/// Whether a device is the one that a mapping names: `sdb`, `/dev/sdb` and `xvdb` are one disk, as the kernel of a Xen guest
/// names it (EC2 user guide, "Device names").
fn is_mapped(mapped: &str, device: &str) -> bool {
    let mapped = mapped.trim_start_matches("/dev/");
    let letters = mapped.strip_prefix("sd").or_else(|| mapped.strip_prefix("xvd"));
    mapped == device || letters.is_some_and(|letters| device.strip_prefix("xvd") == Some(letters))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The device numbers (`major:minor`) of a device, of its partitions and of everything built over one of them.
fn numbers_over(sys: &Path, device: &Path, numbers: &mut Vec<String>) {
    let Ok(number) = fs::read_to_string(device.join("dev")) else { return };
    let number = number.trim().to_owned();
    if numbers.contains(&number) {
        return;
    }
    numbers.push(number);
    for partition in names(device).into_iter().filter(|name| device.join(name).join("partition").exists()) {
        numbers_over(sys, &device.join(partition), numbers);
    }
    for holder in names(&device.join("holders")) {
        numbers_over(sys, &sys.join("block").join(holder), numbers);
    }
}

/// Device number and place of a line of mountinfo (proc_pid_mountinfo(5)) whose mount and file system can be written to.
fn mounted(line: &str) -> Option<(String, PathBuf)> {
    let (before, behind) = line.split_once(" - ")?;
    let fields: Vec<&str> = before.split(' ').collect();
    let (number, dir, options) = (fields.get(2)?, fields.get(4)?, fields.get(5)?);
    let of_fs = behind.split(' ').nth(2)?;
    let is_read_only = |options: &str| options.split(',').any(|option| option == "ro");
    // Blanks and backslashes in paths are written as octal numbers: such a place is none for a cache.
    if is_read_only(options) || is_read_only(of_fs) || dir.contains('\\') || fields.get(3) != Some(&"/") {
        return None;
    }
    Some(((*number).to_owned(), PathBuf::from(dir)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small sysfs: devices with model, number and length, partitions and holders.
    struct Stub(tempfile::TempDir);

    impl Stub {
        fn new(mountinfo: &str) -> Self {
            let stub = Self(tempfile::tempdir().expect("a temporary directory"));
            fs::write(stub.0.path().join("mountinfo"), mountinfo).expect("room");
            stub
        }

        fn device(&self, path: &str, number: &str, model: Option<&str>) {
            let dir = self.0.path().join("sys/block").join(path);
            fs::create_dir_all(dir.join("holders")).expect("room");
            fs::write(dir.join("dev"), format!("{number}\n")).expect("room");
            fs::write(dir.join("size"), "2048\n").expect("room");
            if let Some(model) = model {
                fs::create_dir_all(dir.join("device")).expect("room");
                fs::write(dir.join("device/model"), format!("{model:40}\n")).expect("room");
            }
            if path.contains('/') {
                fs::write(dir.join("partition"), "1\n").expect("room");
            }
        }

        fn held(&self, path: &str, by: &str) {
            fs::create_dir_all(self.0.path().join("sys/block").join(path).join("holders").join(by)).expect("room");
        }

        fn found(&self, mapped: &[&str]) -> Vec<InstanceStore> {
            let roots = Roots { sys: self.0.path().join("sys"), mountinfo: self.0.path().join("mountinfo") };
            instance_stores(&roots, &mapped.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
        }
    }

    fn store(device: &str, at: Option<&str>) -> InstanceStore {
        InstanceStore { device: device.into(), size_bytes: 1 << 20, mounted_at: at.map(PathBuf::from) }
    }

    #[test]
    fn an_nvme_instance_store_is_known_by_its_model_and_ebs_is_not_taken() {
        let stub = Stub::new(
            "22 1 259:0 / / rw - xfs /dev/nvme0n1 rw\n36 22 259:2 / /mnt/fast rw,noatime - xfs /dev/nvme1n1 rw\n",
        );
        stub.device("nvme0n1", "259:0", Some("Amazon Elastic Block Store"));
        stub.device("nvme1n1", "259:2", Some(MODEL));
        assert_eq!(stub.found(&[]), [store("nvme1n1", Some("/mnt/fast"))]);
    }

    #[test]
    fn what_is_not_mounted_is_found_and_goes_last() {
        let stub = Stub::new("36 22 259:3 / /mnt/fast rw - xfs /dev/nvme2n1 rw\n");
        stub.device("nvme1n1", "259:2", Some(MODEL));
        stub.device("nvme2n1", "259:3", Some(MODEL));
        assert_eq!(stub.found(&[]), [store("nvme2n1", Some("/mnt/fast")), store("nvme1n1", None)]);
    }

    #[test]
    fn a_partition_or_a_raid_over_it_counts() {
        let stub = Stub::new(
            "36 22 259:4 / /mnt/part rw - ext4 /dev/nvme1n1p1 rw\n37 22 9:0 / /mnt/raid rw - xfs /dev/md0 rw\n",
        );
        stub.device("nvme1n1", "259:2", Some(MODEL));
        stub.device("nvme1n1/nvme1n1p1", "259:4", None);
        stub.device("nvme2n1", "259:3", Some(MODEL));
        stub.device("md0", "9:0", None);
        stub.held("nvme2n1", "md0");
        let found = stub.found(&[]);
        assert_eq!(found, [store("nvme1n1", Some("/mnt/part")), store("nvme2n1", Some("/mnt/raid"))]);
    }

    #[test]
    fn a_disk_of_an_older_instance_is_known_by_its_mapping() {
        let stub = Stub::new("36 22 202:16 / /media/ephemeral0 rw - ext3 /dev/xvdb rw\n");
        stub.device("xvda", "202:0", None);
        stub.device("xvdb", "202:16", None);
        assert!(stub.found(&[]).is_empty());
        for mapped in ["sdb", "/dev/sdb", "xvdb"] {
            assert_eq!(stub.found(&[mapped]), [store("xvdb", Some("/media/ephemeral0"))], "{mapped}");
        }
    }

    #[test]
    fn read_only_and_bind_mounts_are_no_place_for_a_cache() {
        for line in [
            "36 22 259:2 / /mnt/fast ro,noatime - xfs /dev/nvme1n1 rw\n",
            "36 22 259:2 / /mnt/fast rw - xfs /dev/nvme1n1 ro,attr2\n",
            "36 22 259:2 /sub /mnt/fast rw - xfs /dev/nvme1n1 rw\n",
        ] {
            let stub = Stub::new(line);
            stub.device("nvme1n1", "259:2", Some(MODEL));
            assert_eq!(stub.found(&[]), [store("nvme1n1", None)], "{line}");
        }
    }

    #[tokio::test]
    async fn the_mapping_names_ephemeral_disks_alone() {
        let service = super::super::stub::Stub::start(super::super::stub::Manner::Answers).await;
        let imds = Imds::at(&service.endpoint()).expect("an address");
        assert_eq!(mapped_devices(&imds).await, Ok(vec![]), "an instance without a mapping");
        let mapping = "/latest/meta-data/block-device-mapping/";
        service.put(mapping, "ami\nephemeral0\nephemeral1\nroot");
        service.put(&format!("{mapping}ephemeral0"), "sdb");
        service.put(&format!("{mapping}root"), "/dev/xvda");
        assert_eq!(mapped_devices(&imds).await, Ok(vec!["sdb".to_owned()]));
    }

    #[test]
    fn a_machine_without_sysfs_has_none() {
        let roots = Roots { sys: "/nowhere".into(), mountinfo: "/nowhere".into() };
        assert!(instance_stores(&roots, &["sdb".into()]).is_empty());
    }
}
