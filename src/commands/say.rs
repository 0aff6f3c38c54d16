//! What commands print. The only place that writes to stdout and stderr for people.
//!
//! Invariant: nobody who reads is no failure. Who reads may have seen enough and closed the pipe (`| head -1`); the command
//! goes on to its end, quietly, and its exit status tells of what it did. What is lost for another reason, such as a full
//! disk, is a failure.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};

use parking_lot::Mutex;

use crate::lifecycle::Failure;

/// Why a line was lost; the first time.
static LOST: Mutex<Option<io::Error>> = Mutex::new(None);

/// Prints a line to stdout, as `println!` would write it.
macro_rules! say {
    ($($words:tt)+) => { $crate::commands::say::line(format_args!($($words)+)) };
}
pub(super) use say;

/// Prints a line to stderr, as `eprintln!` would write it.
macro_rules! complain {
    ($($words:tt)+) => { $crate::commands::say::complaint(format_args!($($words)+)) };
}
pub(super) use complain;

/// Words without what a terminal would obey: names of files, sources of mounts and answers of daemons are others' words. Lines stay
/// lines; whoever prints a name that may have one in it escapes it.
fn harmless(words: Arguments<'_>) -> String {
    let mut harmless = String::new();
    for letter in words.to_string().chars() {
        match letter {
            '\n' | '\t' => harmless.push(letter),
            _ if letter.is_control() => harmless.extend(letter.escape_default()),
            _ => harmless.push(letter),
        }
    }
    harmless
}

/// See [`say!`].
pub(super) fn line(words: Arguments<'_>) {
    if let Err(error) = writeln!(io::stdout(), "{}", harmless(words))
        && error.kind() != ErrorKind::BrokenPipe
    {
        LOST.lock().get_or_insert(error);
    }
}

/// See [`complain!`]. Where nobody can be told, there is nobody to tell that to.
pub(super) fn complaint(words: Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{}", harmless(words));
}

/// That something was lost, at the end of a command that succeeded.
pub(super) fn all_was_printed() -> Result<(), Failure> {
    match LOST.lock().take() {
        Some(error) => Err(Failure::system(format!("what it prints is lost: {error}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_printed_as_letters() {
        assert_eq!(harmless(format_args!("a\x1b[2J{}\u{9b}", "\x07b")), "a\\u{1b}[2J\\u{7}b\\u{9b}");
        assert_eq!(harmless(format_args!("über\tone\ntwo")), "über\tone\ntwo");
    }
}
