//! The package: what it installs works, and what it removes is gone; and what is handed out for EC2 is what it says.

use std::fs;
use std::path::{Path, PathBuf};

use super::bed::{Bed, has, hold, run, text};
use super::{Fact, Shown};

pub const FACTS: &[Fact] = &[
    (
        "package::the_deb_is_installed_works_and_leaves_nothing_behind",
        the_deb_is_installed_works_and_leaves_nothing_behind,
    ),
    (
        "package::the_rpm_is_installed_works_and_leaves_nothing_behind",
        the_rpm_is_installed_works_and_leaves_nothing_behind,
    ),
    ("package::the_files_for_ec2_are_well_formed", the_files_for_ec2_are_well_formed),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where scripts/package puts the tools that it installs.
fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    let base = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map_or_else(home, PathBuf::from);
    base.join("s3mount")
}

fn the_deb_is_installed_works_and_leaves_nothing_behind() -> Shown {
    install_mount_work_and_remove("deb", "cargo-deb", "apt-get")
}

fn the_rpm_is_installed_works_and_leaves_nothing_behind() -> Shown {
    install_mount_work_and_remove("rpm", "cargo-generate-rpm", "rpm")
}

/// Packs the program with `packer`, and runs package.sh, which installs it with `installer`.
fn install_mount_work_and_remove(kind: &str, packer: &str, installer: &str) -> Shown {
    if !nix::unistd::geteuid().is_root() {
        return Ok(Some("needs root".into()));
    }
    if let Some(missing) = [installer, "unshare"].into_iter().find(|program| !has(program)) {
        return Ok(Some(format!("no {missing}")));
    }
    if !has(packer) && !cache().join("bin").join(packer).is_file() {
        return Ok(Some(format!("no {packer} (scripts/package --tools installs it)")));
    }
    let bed = Bed::new()?;
    // The program that the other facts are about is packed: nothing is built for this one.
    let mut package = bed.command(&root().join("scripts/package").display().to_string());
    package.args([&format!("--{kind}"), "--binary", env!("CARGO_BIN_EXE_s3mount")]).current_dir(root());
    for name in ["HOME", "CARGO_HOME", "RUSTUP_HOME", "XDG_CACHE_HOME", "CARGO_TARGET_DIR"] {
        package.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    let packed = run(&mut package)?;
    hold(packed.status.success(), "the package is made", &text(&packed))?;
    let said = String::from_utf8_lossy(&packed.stdout).into_owned();
    let made = said.lines().last().map(|line| root().join(line.trim())).ok_or("no package is named")?;
    let here = root().join("tests/system");
    let mut command = bed.command("unshare");
    command.args(["--mount", "--propagation", "private", "bash"]).arg(here.join("package.sh"));
    command.env("T", bed.scratch()).env("HERE", here).env("PACKAGE", made).env("ENDPOINT", bed.sim.url());
    let output = run(&mut command)?;
    if output.status.code() == Some(77) {
        return Ok(Some(text(&output).trim().to_owned()));
    }
    hold(output.status.success(), "install, mount, work, remove", &text(&output))?;
    hold(bed.object("work/examples/example.toml").is_some(), "the work is in S3", &text(&output))?;
    Ok(None)
}

fn the_files_for_ec2_are_well_formed() -> Shown {
    let bed = Bed::new()?;
    let script = root().join("scripts/user-data.sh");
    let checked = run(bed.command("sh").arg("-n").arg(&script))?;
    hold(checked.status.success(), "the user data is a script", &text(&checked))?;
    let template = fs::read_to_string(root().join("docs/ec2/launch-template.json")).map_err(|e| e.to_string())?;
    let template: serde_json::Value = serde_json::from_str(&template).map_err(|e| e.to_string())?;
    let tokens = &template["LaunchTemplateData"]["MetadataOptions"]["HttpTokens"];
    hold(tokens == "required", "the template wants IMDSv2", &template)?;
    // The file that the user data writes is one that the program takes.
    let text = fs::read_to_string(&script).map_err(|e| e.to_string())?;
    let written =
        text.split("<<END\n").nth(1).and_then(|rest| rest.split("END\n").next()).ok_or("no file is written")?;
    let file = bed.path("data.toml");
    let filled = written.replace("$SOURCE", "s3://my-bucket/prefix").replace("$DIR", "/mnt/data");
    fs::write(&file, filled).map_err(|e| e.to_string())?;
    for file in [file, root().join("packaging/example.toml")] {
        let argv = ["s3mount".into(), "--config".into(), file.clone().into_os_string()];
        s3mount::config::cli::Cli::read(argv).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    Ok(None)
}
