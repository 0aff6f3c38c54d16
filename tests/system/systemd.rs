//! The service under a real systemd: what the documents say about `systemctl` is done, line by line. Processes are those of the
//! fact's own namespace, so that `pkill` finds no other mount.

use std::fs;
use std::path::Path;

use super::bed::{Bed, SHOWN_BUCKET, hold, run, text};
use super::documents::{code_lines, shown_file};
use super::{Fact, Shown};

pub const FACTS: &[Fact] = &[
    ("systemd::the_service_runs_as_the_documents_say", the_service_runs_as_the_documents_say),
    ("systemd::an_endpoint_that_is_away_is_awaited_and_a_kept_end_is_final", an_endpoint_that_is_away_is_awaited),
];

/// What the job begins with: what fails is said, and ends it.
pub const BEGIN: &str = r#"set -euo pipefail
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

/// Runs a job under a systemd of its own, with the service of this repository or, where `packed`, without any; what it said.
/// `Err` has the reason where that cannot be done here.
pub fn run_job(bed: &Bed, job: &str, packed: bool) -> Result<Result<String, String>, String> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(Err("needs root".into()));
    }
    shown_file(bed)?;
    fs::write(bed.path("job"), job).map_err(|e| e.to_string())?;
    fs::create_dir_all(bed.path("out")).map_err(|e| e.to_string())?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (here, unit) = (root.join("tests/system"), root.join("systemd/s3mount@.service"));
    let mut command = bed.command("timeout");
    command.args(["--signal=KILL", "120", "bash"]).arg(here.join("systemd.sh"));
    command.env("T", bed.scratch()).env("HERE", here).env("ENDPOINT", bed.sim.url());
    if !packed {
        command.env("UNIT", unit).env("S3MOUNT", env!("CARGO_BIN_EXE_s3mount"));
    }
    let output = run(&mut command)?;
    if output.status.code() == Some(77) {
        return Ok(Err(text(&output)));
    }
    let said = fs::read_to_string(bed.path("out/log")).unwrap_or_default();
    hold(said.ends_with("done\n"), "every line succeeds", &format!("{said}{}", text(&output)))?;
    Ok(Ok(said))
}

/// The unit's own rules, but for how long a try waits: of twelve that fail none is the last, and then the endpoint is there.
const AWAY: &str = r#"
mkdir -p /mnt/data
drop_in=/etc/systemd/system/s3mount@data.service.d
property() { systemctl show --value --property "$1" s3mount@data; }
printf '[Service]\nRestartSec=50ms\nEnvironment=AWS_ENDPOINT_URL=http://127.0.0.1:9\n' >$drop_in/zz-away.conf
systemctl daemon-reload
! systemctl start s3mount@data
for _ in $(seq 300); do if [ "$(property NRestarts)" -ge 12 ]; then break; fi; sleep 0.1; done
echo "restarts: $(property NRestarts), $(property ActiveState)"
[ "$(property ActiveState)" = activating ]
rm $drop_in/zz-away.conf
systemctl daemon-reload
answers
systemctl stop s3mount@data
# What follows an exit status is systemd's to decide: 2 and 1 are final, 34 is not.
for status in 1 2 34; do
    printf '[Service]\nType=exec\nRestartSec=50ms\nExecStart=\nExecStart=/bin/sh -c "sleep 0.2; exit %s"\n' $status >$drop_in/zz-ends.conf
    systemctl daemon-reload
    systemctl reset-failed s3mount@data || true
    systemctl start s3mount@data
    sleep 2
    echo "status $status: $(property ActiveState) $([ "$(property NRestarts)" = 0 ] && echo final || echo again)"
    systemctl stop s3mount@data
done
echo done
"#;

fn an_endpoint_that_is_away_is_awaited() -> Shown {
    let bed = Bed::new()?;
    let said = match run_job(&bed, &format!("{BEGIN}{AWAY}"), false)? {
        Ok(said) => said,
        Err(reason) => return Ok(Some(reason)),
    };
    for line in ["status 1: failed final", "status 2: failed final"] {
        hold(said.contains(line), line, &said)?;
    }
    let again = said.lines().any(|line| line.starts_with("status 34: ") && line.ends_with(" again"));
    hold(again, "a start that the machine failed is tried again", &said)?;
    Ok(None)
}

fn the_service_runs_as_the_documents_say() -> Shown {
    let bed = Bed::new()?;
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
    let said = match run_job(&bed, &job, false)? {
        Ok(said) => said,
        Err(reason) => return Ok(Some(reason)),
    };
    hold(said.matches("+ systemctl").count() > 2, "there are lines", &said)?;
    hold(said.contains("Result=success"), "systemd saw no failure at the end", &said)?;
    let object = bed.path("bucket").join(SHOWN_BUCKET).join("some/prefix/file");
    hold(fs::read(object).ok().as_deref() == Some(b"again\n"), "what was written last is in S3", &said)?;
    Ok(None)
}
