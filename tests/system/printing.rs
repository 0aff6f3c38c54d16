//! What commands print, to readers that have gone and onto disks that are full.

use std::fs::File;
use std::process::{Command, Stdio};

use super::bed::{BUCKET, Bed, Daemon, hold, run, text};
use super::{Fact, Shown};

pub const FACTS: &[Fact] = &[
    ("printing::a_reader_that_has_gone_is_no_failure", a_reader_that_has_gone_is_no_failure),
    ("printing::a_full_disk_is_a_failure", a_full_disk_is_a_failure),
];

/// A pipe whose reader has gone before anything is written.
fn closed_pipe() -> Result<Stdio, String> {
    let (reader, writer) = std::io::pipe().map_err(|e| e.to_string())?;
    drop(reader);
    Ok(writer.into())
}

/// Exit status of a command, and what it said on the stream that has a reader.
fn ended(command: &mut Command) -> Result<(Option<i32>, String), String> {
    let child = command.spawn().map_err(|e| e.to_string())?;
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    Ok((output.status.code(), text(&output)))
}

fn a_reader_that_has_gone_is_no_failure() -> Shown {
    let bed = Bed::new()?;
    let dir = bed.path("mnt");
    let mut mount = bed.s3mount();
    mount.args(["-f", BUCKET]).arg(&dir).args(bed.reach()).stdout(Stdio::null()).stderr(Stdio::null());
    let _daemon = Daemon::start(&mut mount, &dir)?;
    let at = dir.display().to_string();
    let commands = [
        vec!["status", "--json", &at],
        vec!["status", &at],
        vec!["recover", "list"],
        vec!["cloudwatch", "install", BUCKET, "--mount-name", "name", "--region", "us-east-1", "--dry-run"],
        vec!["--help"],
        vec!["--version"],
    ];
    for words in commands {
        let (code, said) = ended(bed.s3mount().args(&words).stdout(closed_pipe()?).stderr(Stdio::piped()))?;
        hold(code == Some(0) && said.is_empty(), &format!("{words:?} ends well and says nothing"), &said)?;
    }
    // What it found is still told by the exit status and a line.
    let mut doctor = bed.s3mount();
    doctor.args(["doctor", "--json", "no-such-bucket"]).args(bed.reach());
    let (code, said) = ended(doctor.stdout(closed_pipe()?).stderr(Stdio::piped()))?;
    hold(code == Some(2) && said.lines().count() == 1 && said.contains("checks failed"), "doctor tells", &said)?;
    // Nor does it matter that nobody hears of an error.
    for words in [["status", "/nowhere"], ["--no-such-option", "x"]] {
        let wanted = run(bed.s3mount().args(words))?.status.code();
        let (code, said) = ended(bed.s3mount().args(words).stdout(Stdio::piped()).stderr(closed_pipe()?))?;
        hold(code == wanted && matches!(code, Some(1 | 32)), &format!("{words:?} has its exit status"), &said)?;
    }
    Ok(None)
}

fn a_full_disk_is_a_failure() -> Shown {
    let bed = Bed::new()?;
    let full = File::options().write(true).open("/dev/full").map_err(|e| e.to_string())?;
    let mut list = bed.s3mount();
    list.args(["recover", "list", "--state-dir"]).arg(bed.path("state")).stdout(full).stderr(Stdio::piped());
    let (code, said) = ended(&mut list)?;
    hold(code == Some(2), "it fails", &said)?;
    hold(said.trim() == "s3mount: what it prints is lost: No space left on device (os error 28)", "in a line", &said)?;
    Ok(None)
}
