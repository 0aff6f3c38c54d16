//! The package: what it installs works, and what it removes is gone; and what is handed out for EC2 is what it says.

use std::fs;
use std::path::{Path, PathBuf};

use super::bed::{Bed, SHOWN_BUCKET, has, hold, run, text};
use super::documents::code_lines;
use super::systemd::{BEGIN, run_job};
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
    ("package::user_data_installs_and_mounts", user_data_installs_and_mounts),
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

/// Packs the program that the other facts are about: nothing is built for these ones. `Err` has the reason where that cannot be
/// done here.
fn packed(bed: &Bed, kind: &str, packer: &str, installer: &str) -> Result<Result<PathBuf, String>, String> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(Err("needs root".into()));
    }
    if let Some(missing) = [installer, "unshare"].into_iter().find(|program| !has(program)) {
        return Ok(Err(format!("no {missing}")));
    }
    if !has(packer) && !cache().join("bin").join(packer).is_file() {
        return Ok(Err(format!("no {packer} (scripts/package --tools installs it)")));
    }
    let mut package = bed.command(&root().join("scripts/package").display().to_string());
    package.args([&format!("--{kind}"), "--binary", env!("CARGO_BIN_EXE_s3mount")]).current_dir(root());
    for name in ["HOME", "CARGO_HOME", "RUSTUP_HOME", "XDG_CACHE_HOME", "CARGO_TARGET_DIR"] {
        package.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    let made = run(&mut package)?;
    hold(made.status.success(), "the package is made", &text(&made))?;
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    let made = said.lines().last().map(|line| root().join(line.trim())).ok_or("no package is named")?;
    // Another fact may pack anew.
    let own = bed.path("package").join(made.file_name().unwrap_or_default());
    fs::create_dir(bed.path("package")).and_then(|()| fs::copy(&made, &own)).map_err(|e| e.to_string())?;
    Ok(Ok(own))
}

/// The lines that README has for a machine with the package.
fn shown_lines() -> Result<String, String> {
    let lines = code_lines()?.into_iter().filter(|(place, _)| place.starts_with("README.md"));
    let lines = lines.map(|(_, line)| line).filter(|line| line.contains("sudo "));
    let lines: Vec<String> = lines.map(|line| line + "\n").collect();
    hold(lines.len() == 5, "there are five lines", &lines.concat())?;
    Ok(lines.concat())
}

/// Runs package.sh with the package of a kind.
fn install_mount_work_and_remove(kind: &str, packer: &str, installer: &str) -> Shown {
    let bed = Bed::new()?;
    let made = match packed(&bed, kind, packer, installer)? {
        Ok(made) => made,
        Err(reason) => return Ok(Some(reason)),
    };
    fs::write(bed.path("lines"), shown_lines()?).map_err(|e| e.to_string())?;
    let here = root().join("tests/system");
    let mut command = bed.command("unshare");
    command.args(["--mount", "--propagation", "private", "bash"]).arg(here.join("package.sh"));
    command.env("T", bed.scratch()).env("HERE", here).env("PACKAGE", made);
    command.env("AWS_ENDPOINT_URL", bed.sim.url()).env("AWS_REGION", "us-east-1");
    let output = run(&mut command)?;
    if output.status.code() == Some(77) {
        return Ok(Some(text(&output).trim().to_owned()));
    }
    hold(output.status.success(), "install, mount, work, remove", &text(&output))?;
    let object = bed.path("bucket").join(SHOWN_BUCKET).join("examples/example.toml");
    hold(object.is_file(), "the work is in S3", &text(&output))?;
    Ok(None)
}

/// What an instance does at its first boot, and what is done for an image before.
const FIRST_BOOT: &str = r#"
mkdir -p /var/log/apt
export PACKAGE_URI=$(echo /run/out/s3mount_*.deb) SOURCE=s3://my-bucket/boot DIR=/mnt/data NAME=data
ENABLE_ONLY=1 sh -x /run/out/user-data.sh
[ "$(systemctl is-enabled s3mount@data)" = enabled ]
! mountpoint -q /mnt/data
sh -x /run/out/user-data.sh
mountpoint /mnt/data
echo booted >/mnt/data/file
systemctl stop s3mount@data
! mountpoint -q /mnt/data
echo done
"#;

fn user_data_installs_and_mounts() -> Shown {
    let bed = Bed::new()?;
    let made = match packed(&bed, "deb", "cargo-deb", "apt-get")? {
        Ok(made) => made,
        Err(reason) => return Ok(Some(reason)),
    };
    let out = bed.path("out");
    fs::create_dir(&out).map_err(|e| e.to_string())?;
    for file in [made, root().join("scripts/user-data.sh")] {
        fs::copy(&file, out.join(file.file_name().unwrap_or_default())).map_err(|e| e.to_string())?;
    }
    match run_job(&bed, &format!("{BEGIN}{FIRST_BOOT}"), true)? {
        Err(reason) => Ok(Some(reason)),
        Ok(said) => {
            let object = bed.path("bucket").join(SHOWN_BUCKET).join("boot/file");
            hold(fs::read(object).is_ok_and(|it| it == b"booted\n"), "what was written is in S3", &said)?;
            Ok(None)
        }
    }
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
