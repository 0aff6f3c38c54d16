//! The service under a real systemd: what the documents say about `systemctl` is done, line by line. Processes are those of the
//! fact's own namespace, so that `pkill` finds no other mount.

use std::fs;
use std::path::Path;

use super::bed::{Bed, SHOWN_BUCKET, hold, run, text};
use super::documents::{code_lines, shown_file};
use super::{Fact, Shown};

pub const FACTS: &[Fact] = &[("systemd::the_service_runs_as_the_documents_say", the_service_runs_as_the_documents_say)];

/// What the job begins with: what fails is said, and ends it.
const BEGIN: &str = r#"set -euo pipefail
trap 'echo "failed: $BASH_COMMAND"; journalctl --no-pager -u s3mount@data' ERR
export SYSTEMD_PAGER=
answers() { for _ in $(seq 300); do if ls /mnt/data >/dev/null 2>&1 && mountpoint -q /mnt/data; then return; fi; sleep 0.1; done; return 1; }
"#;

/// What it ends with: a daemon that is killed comes back, and the last stop leaves everything in S3.
const END: &str = r#"
echo written >/mnt/data/file
systemctl kill --kill-whom=main --signal=KILL s3mount@data
sleep 1
answers
cat /mnt/data/file
echo again >/mnt/data/file
systemctl stop s3mount@data
! mountpoint -q /mnt/data
systemctl show --property Result s3mount@data
echo done
"#;

fn the_service_runs_as_the_documents_say() -> Shown {
    if !nix::unistd::geteuid().is_root() {
        return Ok(Some("needs root".into()));
    }
    let bed = Bed::new()?;
    shown_file(&bed)?;
    let mut job = BEGIN.to_owned();
    for (_, line) in code_lines()? {
        let first = line.split_whitespace().next().unwrap_or_default();
        if matches!(first, "systemctl" | "journalctl" | "pkill") || line == "mkdir -p /mnt/data" {
            job.push_str(&format!("echo '+ {line}'\n{line}\n"));
        }
        if line.contains("--now") || line.contains("restart") {
            // READY=1 is sent when the mount answers: there is nothing to wait for.
            job.push_str("ls /mnt/data\nmountpoint /mnt/data\n");
        }
    }
    job.push_str(END);
    let write = |name: &str, text: &str| fs::write(bed.path(name), text).map_err(|e| e.to_string());
    write("job", &job)?;
    fs::create_dir(bed.path("out")).map_err(|e| e.to_string())?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (here, unit) = (root.join("tests/system"), root.join("systemd/s3mount@.service"));
    let mut command = bed.command("timeout");
    command.args(["--signal=KILL", "120", "bash"]).arg(here.join("systemd.sh"));
    command.env("T", bed.scratch()).env("HERE", here).env("UNIT", unit);
    command.env("S3MOUNT", env!("CARGO_BIN_EXE_s3mount")).env("ENDPOINT", bed.sim.url());
    let output = run(&mut command)?;
    if output.status.code() == Some(77) {
        return Ok(Some(text(&output)));
    }
    let said = fs::read_to_string(bed.path("out/log")).unwrap_or_default();
    let all = format!("{said}{}", text(&output));
    hold(said.ends_with("done\n"), "every line succeeds", &all)?;
    hold(said.matches("+ systemctl").count() > 2, "there are lines", &all)?;
    hold(said.contains("Result=success"), "systemd saw no failure at the end", &all)?;
    let object = bed.path("bucket").join(SHOWN_BUCKET).join("some/prefix/file");
    hold(fs::read(object).ok().as_deref() == Some(b"again\n"), "what was written last is in S3", &all)?;
    Ok(None)
}
