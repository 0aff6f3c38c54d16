//! Into the background: fork before there are threads, and let the parent wait for the child's word.
//!
//! The parent returns 0 only when the child has said that the mount answers; otherwise it prints the child's line and takes
//! its exit code. A child that dies without a word is an error, too.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use anyhow::Context;
use nix::fcntl::OFlag;
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe2, setsid};
use parking_lot::Mutex;

use super::log;

/// Which side of the fork this is.
#[derive(Debug)]
pub enum Side {
    /// The one that was called: it waits for the other's word.
    Parent(Waiting),
    /// The daemon to be.
    Child(Speaking),
}

/// The parent's end.
#[derive(Debug)]
pub struct Waiting(File);

/// The child's end, for one word; clones are the same. Without a word it says by its end that the child failed.
#[derive(Clone, Debug)]
pub struct Speaking(Arc<Mutex<Option<File>>>);

/// Forks.
///
/// # Errors
/// No pipe or no process can be made.
pub fn split() -> anyhow::Result<Side> {
    let (reading, writing): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC).context("no pipe can be made")?;
    // SAFETY: the process has one thread, for nothing was started before; the child may therefore do anything.
    match unsafe { fork() }.context("no process can be made")? {
        ForkResult::Parent { .. } => {
            drop(writing);
            Ok(Side::Parent(Waiting(reading.into())))
        }
        ForkResult::Child => {
            drop(reading);
            std::env::set_current_dir("/").context("the root directory cannot be entered")?;
            Ok(Side::Child(Speaking(Arc::new(Mutex::new(Some(writing.into()))))))
        }
    }
}

impl Waiting {
    /// Waits for the child: `Ok` when it is ready, else its exit code and its line.
    pub fn wait(mut self) -> Result<(), (u8, String)> {
        let mut said = String::new();
        // An error of the pipe leaves it empty, which is an answer, too.
        let _ = self.0.read_to_string(&mut said);
        match said.split_once('\n') {
            Some(("ready", _)) => Ok(()),
            Some((code, line)) => Err((code.parse().unwrap_or(32), line.to_owned())),
            None => Err((32, "the daemon ended before the mount answered; its log may say why".to_owned())),
        }
    }
}

impl Speaking {
    /// The mount answers: the parent may go, and with it the terminal. Only now the session is left: until an automount is
    /// done, autofs lets nobody pass but the process group of who asked for it.
    ///
    /// # Errors
    /// `/dev/null` cannot be opened.
    pub fn ready(&self) -> anyhow::Result<()> {
        setsid().context("no session can be made")?;
        let null = File::options().read(true).write(true).open("/dev/null").context("/dev/null cannot be opened")?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        if !log::stderr_is_the_journal() {
            dup2_stderr(&null)?;
        }
        debug_assert!(null.as_raw_fd() > 2);
        self.say("ready\n");
        Ok(())
    }

    /// It never will.
    pub fn failed(&self, code: u8, line: &str) {
        self.say(&format!("{code}\n{line}"));
    }

    fn say(&self, words: &str) {
        let pipe = self.0.lock().take();
        if let Some(mut pipe) = pipe {
            // A parent that was killed hears nothing; the daemon goes on all the same.
            let _ = pipe.write_all(words.as_bytes());
        }
    }
}
