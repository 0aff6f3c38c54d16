//! Building the program, running it and ending it in order.
//!
//! `run` is the only place that builds things. A process forks before it has threads; it says that it is ready only after
//! the mount answers; every orderly end (unmount, a signal) takes the same way, `shutdown`.

mod budget;
pub mod daemonize;
mod disk_cache;
pub mod doctor;
mod exports;
pub mod instance;
mod instance_disk;
pub mod log;
pub mod place;
pub mod recovery;
pub mod run;
mod shutdown;
pub mod state;
mod systemd;
mod telling;
mod unkept;
pub mod utab;

pub use self::shutdown::left_behind;

/// Why a command failed: one line of cause and remedy, and the exit bit of mount(8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// 1 usage, 2 system, 32 mount failed, 34 both of the latter.
    pub code: u8,
    /// Cause and remedy.
    pub line: String,
}

impl Failure {
    /// What was typed is wrong.
    pub fn usage(line: impl Into<String>) -> Self {
        Self { code: 1, line: line.into() }
    }

    /// The machine does not let us.
    pub fn system(line: impl Into<String>) -> Self {
        Self { code: 2, line: line.into() }
    }

    /// The mount did not come to be.
    pub fn mount(line: impl Into<String>) -> Self {
        Self { code: 32, line: line.into() }
    }

    /// The same failure of a mount that did not come to be: where the machine was the cause, both bits of mount(8) are set. So 2
    /// alone is the end of a mount that left something behind, after which nobody is to mount again by himself.
    #[must_use]
    pub fn of_a_start(self) -> Self {
        let code = if self.code == 2 { 2 | 32 } else { self.code };
        Self { code, ..self }
    }
}
