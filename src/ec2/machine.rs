//! Whether this machine is an EC2 instance, told by what the kernel shows of the hypervisor: no packet is sent.

use std::path::Path;

/// What the kernel's files tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    /// An instance.
    Ec2,
    /// Something else.
    Other,
    /// Nothing is shown (some containers and sandboxes).
    Unknown,
}

/// Reads below `root`, which is `/sys` but in tests.
///
/// Nitro says "Amazon EC2" as the vendor and the instance id as the asset tag of the board; Xen (r3, r4) says "amazon" in
/// the version of its firmware, and a hypervisor uuid that begins with ec2, in either order of its bytes.
pub(super) fn recognise(root: &Path) -> Machine {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok().map(|text| text.trim().to_ascii_lowercase());
    let uuid = read("hypervisor/uuid");
    if uuid.as_deref().is_some_and(|uuid| uuid.starts_with("ec2") || uuid.get(4..8).is_some_and(is_swapped_ec2)) {
        return Machine::Ec2;
    }
    let mut is_shown = false;
    for name in ["sys_vendor", "bios_version", "product_version", "board_asset_tag"] {
        let Some(text) = read(&format!("devices/virtual/dmi/id/{name}")) else { continue };
        is_shown = true;
        let is_ours = match name {
            "sys_vendor" => text == "amazon ec2",
            "board_asset_tag" => text.starts_with("i-"),
            _ => text.contains("amazon"),
        };
        if is_ours {
            return Machine::Ec2;
        }
    }
    if is_shown { Machine::Other } else { Machine::Unknown }
}

/// `45e12aec-…`: little-endian, the first byte `ec` is the fourth, and `2` begins the third.
fn is_swapped_ec2(digits: &str) -> bool {
    digits.ends_with("ec") && digits.starts_with('2')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> Machine {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("not the root")).expect("a folder");
            std::fs::write(path, format!("{text}\n")).expect("a file");
        }
        recognise(root.path())
    }

    #[test]
    fn nitro_and_xen_instances_are_known() {
        for file in [
            ("devices/virtual/dmi/id/sys_vendor", "Amazon EC2"),
            ("devices/virtual/dmi/id/board_asset_tag", "i-0123456789abcdef0"),
            ("devices/virtual/dmi/id/bios_version", "4.11.amazon"),
            ("hypervisor/uuid", "ec2e1916-9099-7caf-fd21-012345abcdef"),
            ("hypervisor/uuid", "45e12aec-dcd1-b213-94ed-012345abcdef"),
        ] {
            assert_eq!(machine(&[file]), Machine::Ec2, "{file:?}");
        }
    }

    #[test]
    fn other_machines_are_not_asked_for_metadata() {
        let vendor = "devices/virtual/dmi/id/sys_vendor";
        assert_eq!(machine(&[(vendor, "QEMU"), ("devices/virtual/dmi/id/bios_version", "1.16")]), Machine::Other);
        assert_eq!(machine(&[]), Machine::Unknown);
        assert_eq!(machine(&[("hypervisor/uuid", "00000000-0000-0000-0000-000000000000")]), Machine::Unknown);
    }
}
