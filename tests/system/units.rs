//! The unit files: systemd has nothing to say against them, and they keep the mount where everybody sees it.

use std::fs;
use std::path::Path;

use super::bed::{Bed, has, hold, run, text};
use super::{Fact, Shown};

pub const FACTS: &[Fact] = &[
    ("units::systemd_has_nothing_to_say", systemd_has_nothing_to_say),
    ("units::no_directive_hides_the_mount", no_directive_hides_the_mount),
    ("units::a_start_that_fails_is_tried_again_and_a_deliberate_end_is_not", a_start_that_fails_is_tried_again),
];

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd"))
}

fn systemd_has_nothing_to_say() -> Shown {
    if !has("systemd-analyze") {
        return Ok(Some("no systemd-analyze".into()));
    }
    let bed = Bed::new()?;
    // The program is where the package would put it; here it is where it was built.
    let service = fs::read_to_string(folder().join("s3mount@.service")).map_err(|e| e.to_string())?;
    hold(service.contains("ExecStart=/usr/bin/s3mount "), "the program is that of the package", &service)?;
    let service = service.replace("/usr/bin/s3mount", env!("CARGO_BIN_EXE_s3mount"));
    let units = bed.path("units");
    fs::create_dir(&units).map_err(|e| e.to_string())?;
    fs::write(units.join("s3mount@data.service"), service).map_err(|e| e.to_string())?;
    for example in ["mnt-data.mount", "mnt-data.automount"] {
        fs::copy(folder().join(example), units.join(example)).map_err(|e| e.to_string())?;
    }
    let all = ["s3mount@data.service", "mnt-data.mount", "mnt-data.automount"].map(|unit| units.join(unit));
    let output = run(bed.command("systemd-analyze").args(["verify", "--man=no"]).args(all))?;
    let said = text(&output);
    hold(output.status.success() && said.trim().is_empty(), "nothing is said", &said)?;
    Ok(None)
}

/// systemd.service(5): what follows which end.
fn a_start_that_fails_is_tried_again() -> Shown {
    let service = fs::read_to_string(folder().join("s3mount@.service")).map_err(|e| e.to_string())?;
    // 32 and 34 are starts that failed (docs/OPERATIONS.md): neither they nor their number end the trying.
    for line in ["Restart=on-failure", "StartLimitIntervalSec=0", "RestartPreventExitStatus=1 2", "RestartSec=10"] {
        hold(service.lines().any(|it| it == line), line, &service)?;
    }
    Ok(None)
}

/// systemd.exec(5): each of these gives the service a mount namespace of its own, in which its mount would stay.
const HIDING: &[&str] = &[
    "BindPaths",
    "BindReadOnlyPaths",
    "DynamicUser",
    "ExecPaths",
    "InaccessiblePaths",
    "NoExecPaths",
    "PrivateDevices",
    "PrivateMounts",
    "PrivateTmp",
    "ProcSubset",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "RootDirectory",
    "RootImage",
    "TemporaryFileSystem",
];

fn no_directive_hides_the_mount() -> Shown {
    let service = fs::read_to_string(folder().join("s3mount@.service")).map_err(|e| e.to_string())?;
    let directives = service.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    let hiding: Vec<&str> = directives.map(|(name, _)| name).filter(|name| HIDING.contains(name)).collect();
    hold(hiding.is_empty(), "the service has no namespace of its own", &hiding.join(", "))?;
    Ok(None)
}
