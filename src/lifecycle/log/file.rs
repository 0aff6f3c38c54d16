//! The file that a daemon in the background logs to. It can be opened anew under its name, so that logrotate may move it away.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use tracing_subscriber::fmt::MakeWriter;

/// A log file; clones are the same.
#[derive(Clone, Debug)]
pub(super) struct LogFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    open: RwLock<Arc<File>>,
}

fn open(path: &Path) -> io::Result<Arc<File>> {
    File::options().create(true).append(true).open(path).map(Arc::new)
}

impl LogFile {
    /// Opens the file at this absolute path, and makes it if it is not there.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let open = RwLock::new(open(path)?);
        Ok(Self(Arc::new(Inner { path: path.to_owned(), open })))
    }

    /// Opens what has the name now. Where that fails the file that was open goes on to be written.
    pub(super) fn reopen(&self) -> io::Result<()> {
        *self.0.open.write() = open(&self.0.path)?;
        Ok(())
    }
}

impl MakeWriter<'_> for LogFile {
    type Writer = Arc<File>;

    fn make_writer(&self) -> Self::Writer {
        Arc::clone(&self.0.open.read())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, moved) = (dir.path().join("log"), dir.path().join("log.1"));
        let log = LogFile::at(&path).expect("it can be made");
        let say = |words: &[u8]| log.make_writer().write_all(words).expect("there is room");
        say(b"one");
        std::fs::rename(&path, &moved).expect("moved");
        say(b" two");
        log.reopen().expect("it can be made");
        say(b"three");
        assert_eq!(std::fs::read(&moved).expect("it is there"), b"one two");
        assert_eq!(std::fs::read(&path).expect("it is there"), b"three");
        // Where it cannot be made, nothing is lost.
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir(&path).expect("made");
        assert!(log.reopen().is_err());
        say(b"four");
    }
}
