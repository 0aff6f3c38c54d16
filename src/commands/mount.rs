//! `s3mount BUCKET[/PREFIX] DIR`.

use crate::config::MountConfig;
use crate::config::cli::MountArgs;
use crate::lifecycle::daemonize::{self, Side};
use crate::lifecycle::{Failure, log, place, run, state};

/// Mounts, in the foreground or behind a daemon that answers.
///
/// # Errors
/// The mount did not come to be. In the foreground also: its end left something behind.
pub(super) fn run(arguments: MountArgs) -> Result<(), Failure> {
    match started(arguments).map_err(Failure::of_a_start)? {
        None => Ok(()),
        Some(left_behind) => Err(Failure::system(left_behind)),
    }
}

/// What the end of a mount in the foreground left behind.
fn started(arguments: MountArgs) -> Result<Option<String>, Failure> {
    let ids = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let config = MountConfig::new(arguments, ids).map_err(|error| Failure::usage(error.to_string()))?;
    let point = place::mount_point(&config.dir, config.nonempty)?;
    let root = place::state_root(config.state_dir.as_deref());
    let claimed = state::claim(&root, &config.bucket, &config.prefix)?;
    let usage = |error: anyhow::Error| Failure::usage(format!("{error:#}"));
    let system = |error: anyhow::Error| Failure::system(format!("{error:#}"));
    if config.foreground {
        log::to_stderr(&config.log_level, config.log_format).map_err(usage)?;
        return run::serve(&config, point, claimed, None);
    }
    let file = config.log_file.as_deref().map(std::path::absolute).transpose();
    let file = file.map_err(|error| system(error.into()))?.unwrap_or_else(|| root.join("s3mount.log"));
    match daemonize::split().map_err(system)? {
        Side::Parent(waiting) => waiting.wait().map(|()| None).map_err(|(code, line)| Failure { code, line }),
        Side::Child(speaking) => {
            // Started by a mount unit: what systemd reads stays open, and no file grows beside it.
            let started = match &config.log_file {
                None if log::stderr_is_the_journal() => log::to_stderr(&config.log_level, config.log_format),
                _ => log::to_file(&config.log_level, config.log_format, &file),
            };
            if let Err(error) = started {
                speaking.failed(2, &format!("{error:#}"));
                std::process::exit(2);
            }
            match run::serve(&config, point, claimed, Some(speaking.clone())) {
                Ok(None) => std::process::exit(0),
                Ok(Some(left_behind)) => {
                    tracing::error!("{left_behind}");
                    std::process::exit(2);
                }
                Err(Failure { code, line }) => {
                    tracing::error!("{line}");
                    speaking.failed(code, &line);
                    std::process::exit(i32::from(code));
                }
            }
        }
    }
}
