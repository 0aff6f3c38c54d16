//! Where the log goes: stderr in the foreground, a file in the background.

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// A filter for `level`; `S3MOUNT_LOG` goes before it. Of the libraries only warnings are shown unless the filter names
/// them: fuser warns of every operation that we leave to the kernel.
fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    let text = match std::env::var("S3MOUNT_LOG") {
        Ok(text) if !text.is_empty() => text,
        _ if ["error", "warn", "info", "debug", "trace"].contains(&level) => {
            format!("warn,fuser=error,s3mount={level}")
        }
        _ => level.to_owned(),
    };
    EnvFilter::try_new(&text)
        .with_context(|| format!("bad log level {text:?}: write error, warn, info, debug or trace"))
}

/// Logs to stderr.
///
/// # Errors
/// The level is none.
pub fn to_stderr(level: &str) -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(filter(level)?).with_writer(std::io::stderr).with_ansi(false).init();
    Ok(())
}

/// Logs to the end of a file.
///
/// # Errors
/// The level is none; the file cannot be written.
pub fn to_file(level: &str, path: &Path) -> anyhow::Result<()> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("the log {} cannot be written: name another with --log-file", path.display()))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter(level)?)
        .with_writer(std::sync::Arc::new(file))
        .with_ansi(false)
        .init();
    Ok(())
}
