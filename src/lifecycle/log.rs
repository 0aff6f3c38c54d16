//! Where the log goes, in which form, and how much of it.
//!
//! In the foreground it goes to stderr, in the background to a file. Where stderr is the journal (`JOURNAL_STREAM`,
//! systemd.exec(5)) each line begins with its priority as sd-daemon(3) has it, and without a time, which the journal notes
//! itself. That needs no socket of the journal and no library, holds in containers, and a line stays readable anywhere.

mod file;
mod repeats;

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

use self::file::LogFile;
use self::repeats::{LeftOut, Repeats};
use crate::clock::Clock;
use crate::config::LogFormat;

/// How often it is looked whether there are lines that were left out.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What the log is, and the way to change it.
struct Running {
    file: Option<LogFile>,
    repeats: Repeats,
    asked: String,
    raised: AtomicBool,
    reload: reload::Handle<EnvFilter, Registry>,
}

static RUNNING: OnceLock<Running> = OnceLock::new();

/// What SIGUSR2 raises the level to: everything of our own but what is said for each request of the kernel.
const RAISED: &str = "warn,fuser=error,s3mount=debug";
/// The same where that is what was asked for.
const RAISED_AGAIN: &str = "info,fuser=error,s3mount=trace";

/// A filter for `level`; `S3MOUNT_LOG` goes before it. Of the libraries only warnings are shown unless the filter names
/// them: fuser warns of every operation that we leave to the kernel.
fn filter(level: &str) -> String {
    match std::env::var("S3MOUNT_LOG") {
        Ok(text) if !text.is_empty() => text,
        _ if ["error", "warn", "info", "debug", "trace"].contains(&level) => {
            format!("warn,fuser=error,s3mount={level}")
        }
        _ => level.to_owned(),
    }
}

/// Whether stderr is a stream of the journal. False where somebody redirected it since.
pub fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else { return false };
    stream == format!("{}:{}", stderr.dev(), stderr.ino())
}

/// Logs to stderr.
///
/// # Errors
/// The level is none.
pub fn to_stderr(level: &str, format: LogFormat) -> anyhow::Result<()> {
    start(level, format, stderr_is_the_journal(), io::stderr, None)
}

/// Logs to the end of a file.
///
/// # Errors
/// The level is none; the file cannot be written.
pub fn to_file(level: &str, format: LogFormat, path: &Path) -> anyhow::Result<()> {
    let file = LogFile::at(path)
        .with_context(|| format!("the log {} cannot be written: name another with --log-file", path.display()))?;
    start(level, format, false, file.clone(), Some(file))
}

fn start<W>(level: &str, format: LogFormat, journal: bool, writer: W, file: Option<LogFile>) -> anyhow::Result<()>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let asked = filter(level);
    let filter = EnvFilter::try_new(&asked)
        .with_context(|| format!("bad log level {asked:?}: write error, warn, info, debug or trace"))?;
    let (filter, reload) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
    let lines = match (format, journal) {
        (LogFormat::Json, _) => lines.json().boxed(),
        (LogFormat::Text, true) => lines.event_format(JournalLine).boxed(),
        (LogFormat::Text, false) => lines.boxed(),
    };
    let repeats = Repeats::default();
    tracing_subscriber::registry().with(filter).with(lines.with_filter(repeats.clone())).try_init()?;
    // The log is started once in a process.
    let _ = RUNNING.set(Running { file, repeats, asked, raised: AtomicBool::new(false), reload });
    Ok(())
}

/// Whether somebody reads on stderr what the log says.
pub fn is_on_stderr() -> bool {
    RUNNING.get().is_some_and(|running| running.file.is_none())
}

/// Raises the level at SIGUSR2 and brings it back at the next one, opens the file anew at SIGHUP, and tells what was left out.
///
/// # Errors
/// No signals can be listened for.
pub(super) fn tend() -> io::Result<()> {
    let mut turns = signal(SignalKind::user_defined2())?;
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(()) = turns.recv() => turn(),
                Some(()) = hangups.recv() => reopen(),
                () = tokio::time::sleep(TELL_EVERY) => tell_left_out(false),
            }
        }
    });
    Ok(())
}

/// Tells of lines that were left out because others said the same: of all of them, or of those whose time is over.
pub(super) fn tell_left_out(all: bool) {
    let Some(running) = RUNNING.get() else { return };
    for LeftOut { count, example } in running.repeats.take_left_out(Clock::system().now(), all) {
        tracing::warn!("{count} more lines like this one were left out: {example}");
    }
}

fn reopen() {
    let Some(file) = RUNNING.get().and_then(|running| running.file.as_ref()) else { return };
    match file.reopen() {
        Ok(()) => tracing::info!("the log was opened anew at SIGHUP"),
        Err(error) => tracing::warn!(%error, "the log cannot be opened anew: it goes on in the old file"),
    }
}

/// Raises the level if it is not raised, else brings it back.
fn turn() {
    let Some(running) = RUNNING.get() else { return };
    let raised = !running.raised.fetch_xor(true, Ordering::Relaxed);
    let wanted = match (raised, running.asked == RAISED) {
        (true, false) => RAISED,
        (true, true) => RAISED_AGAIN,
        (false, _) => &running.asked,
    };
    if running.reload.reload(EnvFilter::new(wanted)).is_ok() {
        tracing::info!(filter = wanted, "the log's level was changed by SIGUSR2");
    }
}

/// A line for the journal: its priority, then the event without a time.
struct JournalLine;

impl<S, N> FormatEvent<S, N> for JournalLine
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        write!(writer, "<{}>", priority(event.metadata().level()))?;
        Format::default().without_time().with_level(false).with_ansi(false).format_event(context, writer, event)
    }
}

/// A level as syslog(3) counts.
fn priority(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Lines(std::sync::Arc<parking_lot::Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_of_the_journal_begins_with_its_priority_and_has_no_time() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).event_format(JournalLine);
        let log = log.with_max_level(Level::TRACE).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(log, || {
            tracing::error!("lost");
            tracing::warn!("soon");
            tracing::info!(dir = "/mnt", "mounted");
            tracing::debug!("detail");
        });
        let text = String::from_utf8(lines.0.lock().clone()).expect("text");
        let begins: Vec<&str> = text.lines().filter_map(|line| line.get(..3)).collect();
        assert_eq!(begins, ["<3>", "<4>", "<6>", "<7>"]);
        assert!(text.contains("<6>s3mount::lifecycle::log::tests: mounted dir=\"/mnt\""), "{text}");
    }

    #[test]
    fn a_level_is_of_our_own_and_a_filter_stays() {
        assert_eq!(filter("debug"), RAISED);
        assert_eq!(filter("s3mount::store=trace"), "s3mount::store=trace");
    }
}
