//! How a fact fails: one message with the place in the source where it did. Holds no state.

use std::fmt::Display;
use std::io;
use std::panic::Location;

/// Why a fact does not hold.
#[derive(Debug)]
pub struct Failure(pub String);

/// What a fact answers.
pub type Outcome<T = ()> = Result<T, Failure>;

// `Failure` is no `Error` itself, so that `?` turns every error into one and notes the line.
impl<E: std::error::Error> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        Self::at(Location::caller(), &text)
    }
}

impl Failure {
    /// A failure seen at a line.
    pub fn at(place: &Location<'_>, message: &dyn Display) -> Self {
        Self(format!("{}:{}: {message}", place.file(), place.line()))
    }
}

/// Fails unless the call was refused with one of these errnos.
#[track_caller]
pub fn refused<T>(result: io::Result<T>, errnos: &[i32]) {
    match result {
        Ok(_) => panic!("succeeded, expected {}", names(errnos)),
        Err(error) => {
            let found = error.raw_os_error();
            assert!(found.is_some_and(|e| errnos.contains(&e)), "{error}, expected {}", names(errnos));
        }
    }
}

fn names(errnos: &[i32]) -> String {
    errnos.iter().map(|&e| nix::errno::Errno::from_raw(e).to_string()).collect::<Vec<_>>().join(" or ")
}

/// Fails where two byte strings differ, and says where first.
#[track_caller]
pub fn same_bytes(found: &[u8], expected: &[u8]) {
    if found == expected {
        return;
    }
    let first = found.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(found.len().min(expected.len()));
    let differing = found.iter().zip(expected).filter(|(a, b)| a != b).count();
    panic!(
        "bytes differ from offset {first} on ({differing} of them): found {} bytes {:02x?}.., expected {} bytes {:02x?}..",
        found.len(),
        &found[first..found.len().min(first + 16)],
        expected.len(),
        &expected[first..expected.len().min(first + 16)],
    );
}
