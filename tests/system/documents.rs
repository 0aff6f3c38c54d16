//! The documents: every command line of s3mount in them is one that s3mount takes.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use clap::Parser;
use s3mount::config::MountConfig;
use s3mount::config::cli::{Cli, Refused};
use s3mount::config::helper::MountCall;

use super::bed::{Bed, hold};
use super::{Fact, Shown};

pub const FACTS: &[Fact] = &[
    ("documents::every_command_is_one_that_the_program_takes", every_command_is_one_that_the_program_takes),
    ("documents::every_line_of_fstab_is_one_that_the_helper_takes", every_line_of_fstab_is_one_that_the_helper_takes),
];

const DOCUMENTS: &[&str] = &["README.md", "docs/OPERATIONS.md"];

/// Lines inside of code blocks, each with its place.
fn code_lines() -> Result<Vec<(String, String)>, String> {
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
fn shown_file(bed: &Bed) -> Result<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATIONS.md");
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    let block = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    let file = bed.path("data.toml");
    fs::write(&file, block.ok_or("no file is shown")?).map_err(|e| e.to_string())?;
    Ok(file.display().to_string())
}

fn every_command_is_one_that_the_program_takes() -> Shown {
    let bed = Bed::new()?;
    let file = shown_file(&bed)?;
    let mut count = 0;
    for (place, line) in code_lines()? {
        let Some(words) = words(&line) else { continue };
        let named = |word: &String| if matches!(&**word, "data" | "./data.toml") { file.clone() } else { word.clone() };
        let argv = words.iter().map(named).map(OsString::from);
        match Cli::read(argv) {
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
