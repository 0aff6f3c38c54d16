//! Into the background: fork before there are threads, and let the parent wait for the child's word.
//!
//! The parent returns 0 only when the child has said that the mount answers; otherwise it prints the child's line and takes
//! its exit code. A child that dies without a word is an error, too.
//!
//! What was named relative to the caller's directory means the same before and after: options are absolute paths from the
//! start (`config`), so are those of the environment, and the directory itself is left only when the mount answers.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use anyhow::Context;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
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
pub struct Speaking {
    pipe: Arc<Mutex<Option<File>>>,
    /// Descriptors of whoever called: a daemon that kept them would hold their locks and pipes for its life.
    inherited: Vec<RawFd>,
}

/// Variables that name files of the AWS SDK or certificates. Some are read again whenever credentials are renewed.
const PATHS_IN_THE_ENVIRONMENT: [&str; 8] = [
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "XDG_STATE_HOME",
];

/// Makes the paths in the environment absolute. To be called before there are threads.
fn name_paths_absolutely() {
    for name in PATHS_IN_THE_ENVIRONMENT {
        let Some(path) = std::env::var_os(name).filter(|path| !path.is_empty()) else { continue };
        // The home is the SDK's to fill in.
        let is_home = path.as_encoded_bytes().starts_with(b"~");
        if !is_home && let Ok(absolute) = std::path::absolute(&path) {
            // SAFETY: the process has one thread: nothing was started before.
            unsafe { std::env::set_var(name, absolute) };
        }
    }
}

/// The descriptors that were open when the program began: all of our own are closed by exec(2), so those that are not came
/// through it.
fn inherited() -> Vec<RawFd> {
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    let came_through = |&number: &RawFd| {
        // SAFETY: the number is borrowed for the length of one call, which fails on one that is closed.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        fcntl(borrowed, FcntlArg::F_GETFD).is_ok_and(|flags| flags & FdFlag::FD_CLOEXEC.bits() == 0)
    };
    numbers.filter(|&number| number > libc::STDERR_FILENO).filter(came_through).collect()
}

/// Forks. The caller has one thread.
///
/// # Errors
/// No pipe or no process can be made.
pub fn split() -> anyhow::Result<Side> {
    name_paths_absolutely();
    let inherited = inherited();
    let (reading, writing): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC).context("no pipe can be made")?;
    // SAFETY: the process has one thread, for nothing was started before; the child may therefore do anything.
    match unsafe { fork() }.context("no process can be made")? {
        ForkResult::Parent { .. } => {
            drop(writing);
            Ok(Side::Parent(Waiting(reading.into())))
        }
        ForkResult::Child => {
            drop(reading);
            Ok(Side::Child(Speaking { pipe: Arc::new(Mutex::new(Some(writing.into()))), inherited }))
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
    /// The mount answers: the parent may go, and with it the terminal, the directory and the descriptors of the caller. Only now
    /// the session is left: until an automount is done, autofs lets nobody pass but the process group of who asked for it.
    ///
    /// # Errors
    /// `/dev/null` cannot be opened.
    pub fn ready(&self) -> anyhow::Result<()> {
        setsid().context("no session can be made")?;
        std::env::set_current_dir("/").context("the root directory cannot be entered")?;
        for &descriptor in &self.inherited {
            // SAFETY: it came from the caller and belongs to nothing in this process.
            unsafe { libc::close(descriptor) };
        }
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
        let pipe = self.pipe.lock().take();
        if let Some(mut pipe) = pipe {
            // A parent that was killed hears nothing; the daemon goes on all the same.
            let _ = pipe.write_all(words.as_bytes());
        }
    }
}
