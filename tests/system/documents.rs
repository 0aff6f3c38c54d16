//! The documents: every command line of s3mount in them is one that s3mount takes, and all but those of a terminal are run as
//! they stand.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use clap::Parser;
use cwsim::CwSim;
use nix::sys::signal::Signal;
use s3mount::config::MountConfig;
use s3mount::config::cli::{Cli, Refused};
use s3mount::config::helper::MountCall;

use s3sim::shaping::{Config, Faults};

use super::bed::{Bed, Daemon, SHOWN_BUCKET, hold, run, text};
use super::mounting::shown;
use super::{Fact, Shown};

pub const FACTS: &[Fact] = &[
    ("documents::every_command_is_one_that_the_program_takes", every_command_is_one_that_the_program_takes),
    ("documents::every_line_of_fstab_is_one_that_the_helper_takes", every_line_of_fstab_is_one_that_the_helper_takes),
    ("documents::the_commands_run_as_they_stand", the_commands_run_as_they_stand),
    ("documents::the_lines_of_fstab_mount_as_they_stand", the_lines_of_fstab_mount_as_they_stand),
    ("documents::the_commands_for_kept_bytes_run_as_they_stand", the_commands_for_kept_bytes_run_as_they_stand),
];

const DOCUMENTS: &[&str] = &["README.md", "docs/OPERATIONS.md"];

/// Lines inside of code blocks, each with its place.
pub fn code_lines() -> Result<Vec<(String, String)>, String> {
    let mut lines = Vec::new();
    for document in DOCUMENTS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
        let text = fs::read_to_string(path).map_err(|e| format!("{document}: {e}"))?;
        let mut inside = false;
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                inside = !inside;
            } else if inside {
                lines.push((format!("{document}:{}", number + 1), line.trim().to_owned()));
            }
        }
    }
    Ok(lines)
}

/// A command's words, without its comment and what stands before it.
fn words(line: &str) -> Option<Vec<String>> {
    let command = line.split(" #").next().unwrap_or(line);
    let command = command.trim_start_matches("sudo ").split(" | ").next().unwrap_or(command);
    let words: Vec<String> = command.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()).collect();
    (words.first().is_some_and(|word| word == "s3mount")).then_some(words)
}

/// The file of `/etc/s3mount` that the documents show, put where a test can name it.
pub fn shown_file(bed: &Bed) -> Result<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATIONS.md");
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    let block = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    let file = bed.path("data.toml");
    fs::write(&file, block.ok_or("no file is shown")?).map_err(|e| e.to_string())?;
    Ok(file.display().to_string())
}

/// The words, with the file where it was put.
fn named<'a>(words: &'a [String], file: &'a str) -> impl Iterator<Item = OsString> + 'a {
    words.iter().map(move |word| if matches!(&**word, "data" | "./data.toml") { file } else { word }.into())
}

fn every_command_is_one_that_the_program_takes() -> Shown {
    let bed = Bed::new()?;
    let file = shown_file(&bed)?;
    let mut count = 0;
    for (place, line) in code_lines()? {
        let Some(words) = words(&line) else { continue };
        match Cli::read(named(&words, &file)) {
            Ok(cli) if cli.command.is_none() => {
                MountConfig::new(cli.mount, (0, 0)).map_err(|e| format!("{place}: {line}: {e}"))?;
            }
            Ok(_) => {}
            Err(Refused::Words(error)) if !error.use_stderr() => {}
            Err(error) => return Err(format!("{place}: {line}: {error}")),
        }
        count += 1;
    }
    hold(count > 10, "there are commands", &count)?;
    Ok(None)
}

fn every_line_of_fstab_is_one_that_the_helper_takes() -> Shown {
    let mut count = 0;
    for (place, line) in code_lines()? {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [source, dir, "s3mount" | "fuse.s3mount", options, "0", "0"] = fields[..] else { continue };
        let call =
            MountCall::try_parse_from(["mount.s3mount", source, dir, "-o", options]).map_err(|e| e.to_string())?;
        let arguments = call.arguments().map_err(|e| format!("{place}: {line}: {e}"))?;
        MountConfig::new(arguments, (0, 0)).map_err(|e| format!("{place}: {line}: {e}"))?;
        count += 1;
    }
    hold(count > 1, "there are lines", &count)?;
    Ok(None)
}

/// What the documents take for granted, in the namespace of the fact: the directories of their mounts, endpoints of S3 and
/// CloudWatch, and no state and no mount but the fact's own.
const SETTING: &str = r#"
export AWS_ENDPOINT_URL=$ENDPOINT AWS_REGION=us-east-1
layer etc
lay_over /etc etc /etc
for own in /mnt /var/lib /var/log; do mount -t tmpfs tmpfs "$own"; done
mkdir -p /mnt/data /mnt/part /mnt/all /mnt/mine /mnt/nvme/cache /etc/s3mount
cp "$T/data.toml" /etc/s3mount/data.toml
cd "$T"
s3mount() { "$S3MOUNT" "$@"; }
mounted() { grep -q " $1 " /proc/self/mountinfo; }
# This machine's own mounts of s3mount, out of sight: "status" tells of every one that it sees.
{ findmnt -rno TARGET -t fuse.s3mount || true; } | while read -r dir; do umount -i -l "$(printf %b "$dir")"; done
gone() { if mounted "$1"; then s3mount unmount "$1"; fi; }
leave() { for dir in /mnt/data /mnt/part /mnt/all /mnt/mine; do if mounted "$dir"; then umount -i -l "$dir"; fi; done; }
"#;

/// Lines that need more: a terminal, or bytes that were kept.
fn needs_more(words: &[String]) -> bool {
    words.iter().any(|word| matches!(&**word, "top" | "ID"))
}

/// A shell's lines that run a command and look at what it did.
fn trial(line: &str, words: &[String], file: &str) -> Result<String, String> {
    let cli = Cli::read(named(words, file)).map_err(|_| format!("no command: {line}"))?;
    let said = format!("echo '+ {}'", line.replace('\'', ""));
    let line = line.split(" #").next().unwrap_or(line);
    let mounts = match (&cli.command, &cli.mount.dir) {
        (Some(_), _) if words.iter().any(|word| word == "doctor") => {
            return Ok(format!("{said}\n{line} || [ $? = 1 ]\n"));
        }
        (Some(_), _) => return Ok(format!("{said}\nmounted /mnt/data || s3mount my-bucket /mnt/data\n{line}\n")),
        (None, Some(dir)) => dir.display().to_string(),
        // A file names the directory.
        (None, None) => "/mnt/data".to_owned(),
    };
    let works = format!("mounted {mounts}\ndate >{mounts}/written\nrm {mounts}/written\n");
    let begin = format!("{said}\ngone {mounts}\n");
    Ok(if cli.mount.foreground {
        let up = format!("for _ in $(seq 600); do if mounted {mounts}; then break; fi; sleep 0.1; done");
        format!("{begin}{line} &\n{up}\n{works}s3mount unmount {mounts}\nwait $!\n")
    } else if let Some(address) = &cli.mount.metrics.prometheus {
        // A port that stands in a document may be somebody's.
        let port = address.rsplit(':').next().unwrap_or_default();
        let asked = "printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3\ngrep s3mount_bytes_written_total <&3\nexec 3>&-\n";
        format!(
            "{begin}if (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null; then echo 'port {port} is taken'\n\
             else\n{line}\n{works}exec 3<>/dev/tcp/127.0.0.1/{port}\n{asked}fi\n"
        )
    } else {
        format!("{begin}{line}\n{works}")
    })
}

fn the_commands_run_as_they_stand() -> Shown {
    let bed = Bed::new()?;
    let file = shown_file(&bed)?;
    let cloudwatch = CwSim::start().map_err(|e| e.to_string())?;
    let (mut body, mut count) = (format!("{SETTING}export AWS_ENDPOINT_URL_CLOUDWATCH={}\n", cloudwatch.url()), 0);
    for (_, line) in code_lines()? {
        let Some(words) = words(&line).filter(|words| !needs_more(words)) else { continue };
        body.push_str(&trial(&line, &words, &file)?);
        count += 1;
    }
    body.push_str("for dir in /mnt/data /mnt/part; do gone $dir; done\n");
    hold(count > 17, "there are commands", &count)?;
    shown(&bed, &body, |said| {
        let run = said.lines().filter(|line| line.starts_with("+ s3mount")).count();
        hold(run == count, "each of them has run", &said)?;
        let refused = cloudwatch.refusals().into_iter().filter(|it| !it.starts_with("ResourceNotFound"));
        hold(refused.count() == 0, "CloudWatch takes what is put", &cloudwatch.refusals().join("\n"))?;
        hold(!cloudwatch.points().is_empty(), "metrics are sent", &said)?;
        hold(cloudwatch.alarms().len() == 3, "alarms are put", &said)
    })
}

fn the_lines_of_fstab_mount_as_they_stand() -> Shown {
    let bed = Bed::new()?;
    shown_file(&bed)?;
    let mut body = SETTING.to_owned();
    for (_, line) in code_lines()? {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let [_, dir, "s3mount" | "fuse.s3mount", _, "0", "0"] = fields[..] {
            body.push_str(&format!(
                "echo '{line}' >\"$T/fstab\"\ngone {dir}\nmount -T \"$T/fstab\" {dir}\nmounted {dir}\nls {dir}\numount {dir}\n"
            ));
        }
    }
    shown(&bed, &body, |_| Ok(()))
}

/// Leaves a file's bytes that could not be uploaded; the name under which they are kept.
fn keep(bed: &Bed) -> Result<String, String> {
    let dir = bed.path("mnt");
    let mut mount = bed.s3mount();
    mount.args(["-f", SHOWN_BUCKET]).arg(&dir).args(bed.reach()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut daemon = Daemon::start(&mut mount, &dir)?;
    let denied = vec!["PutObject".to_owned()];
    bed.sim.set(Config { faults: Faults { denied, ..Faults::default() }, ..Config::default() });
    let closed = fs::write(dir.join("file"), "kept");
    // std closes without a look at what that says; the drain says it again.
    daemon.signal(Signal::SIGTERM)?;
    daemon.ended()?;
    bed.sim.set(Config::default());
    let listed = text(&run(bed.s3mount().args(["recover", "list", "--state-dir"]).arg(bed.path("state")))?);
    let id = listed.lines().find(|line| line.contains("s3://my-bucket/file")).and_then(|line| line.split(' ').next());
    id.map(str::to_owned).ok_or_else(|| format!("nothing is kept: {closed:?} {listed}"))
}

fn the_commands_for_kept_bytes_run_as_they_stand() -> Shown {
    let bed = Bed::new()?;
    let rescued = bed.path("rescued").display().to_string();
    let mut count = 0;
    for (place, line) in code_lines()? {
        let Some(words) = words(&line).filter(|words| words.iter().any(|word| word == "ID")) else { continue };
        let id = keep(&bed)?;
        let _ = fs::remove_file(&rescued);
        let put = |word: &String| match &**word {
            "ID" => id.clone(),
            "FILE" | "/tmp/rescued" => rescued.clone(),
            other => other.to_owned(),
        };
        let output = run(bed.s3mount().args(words[1..].iter().map(put)).args(bed.reach()))?;
        hold(output.status.success(), &format!("{place}: {line} succeeds"), &text(&output))?;
        let object = bed.path("bucket").join(SHOWN_BUCKET).join("file");
        let listed = text(&run(bed.s3mount().args(["recover", "list", "--state-dir"]).arg(bed.path("state")))?);
        match &*words[2] {
            "export" => hold(fs::read(&rescued).is_ok_and(|it| it == b"kept"), "the file is whole", &text(&output))?,
            "push" => hold(fs::read(&object).is_ok_and(|it| it == b"kept"), "the object is there", &text(&output))?,
            _ => hold(!listed.contains(&id), "nothing is kept any more", &listed)?,
        }
        let _ = run(bed.s3mount().args(["recover", "discard", &id]).args(bed.reach()));
        let _ = fs::remove_file(&object);
        count += 1;
    }
    hold(count == 5, "there are commands", &count)?;
    Ok(None)
}
