//! Warnings that repeat: a mount whose S3 is away says why some times, and then how often it would have said so.
//!
//! Two lines are alike if they differ in numbers alone: sizes, seconds, tries. Errors are never left out, for each may name
//! what is lost. Invariant: what was left out is counted, and the count is told.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

use crate::clock::Clock;

/// So many lines that are alike are written in so much time.
const LINES_MAX: u32 = 20;
const WINDOW: Duration = Duration::from_secs(10);
/// Kinds of lines that are remembered; a mount has some dozens.
const KINDS_MAX: usize = 512;

/// What has been said lately; clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Repeats(Arc<Mutex<HashMap<u64, Kind>>>);

#[derive(Debug)]
struct Kind {
    began: Instant,
    said: u32,
    left_out: u64,
    /// The first that was left out.
    example: String,
}

/// Lines of one kind that were left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// How many.
    pub(super) count: u64,
    /// One of them.
    pub(super) example: String,
}

impl Repeats {
    /// Whether a line may be written.
    fn admit(&self, line: &str, now: Instant) -> bool {
        let mut kinds = self.0.lock();
        if kinds.len() >= KINDS_MAX {
            kinds.retain(|_, kind| kind.left_out > 0 || now.saturating_duration_since(kind.began) < WINDOW);
        }
        let is_full = kinds.len() >= 2 * KINDS_MAX;
        let key = kind_of(line);
        if is_full && !kinds.contains_key(&key) {
            return true;
        }
        let fresh = || Kind { began: now, said: 0, left_out: 0, example: String::new() };
        let kind = kinds.entry(key).or_insert_with(fresh);
        // One with lines to tell of goes on until they are told.
        if kind.left_out == 0 && now.saturating_duration_since(kind.began) >= WINDOW {
            *kind = fresh();
        }
        if kind.said < LINES_MAX {
            kind.said += 1;
            return true;
        }
        if kind.left_out == 0 {
            line.clone_into(&mut kind.example);
        }
        kind.left_out += 1;
        false
    }

    /// What was left out in windows that are over at `now`, or in all of them; it is told once.
    pub(super) fn take_left_out(&self, now: Instant, all: bool) -> Vec<LeftOut> {
        let mut left_out = Vec::new();
        self.0.lock().retain(|_, kind| {
            let is_over = all || now.saturating_duration_since(kind.began) >= WINDOW;
            if is_over && kind.left_out > 0 {
                left_out.push(LeftOut { count: kind.left_out, example: std::mem::take(&mut kind.example) });
            }
            !is_over
        });
        left_out
    }
}

/// The line without its numbers.
fn kind_of(line: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    line.bytes().filter(|byte| !byte.is_ascii_digit()).for_each(|byte| hasher.write_u8(byte));
    hasher.finish()
}

/// The message of an event, then its fields.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A string takes whatever is written to it.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

impl<S: Subscriber> Filter<S> for Repeats {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        if *event.metadata().level() != Level::WARN {
            return true;
        }
        let mut line = Line::default();
        event.record(&mut line);
        self.admit(&format!("{}{}", line.message, line.fields), Clock::system().now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_in_numbers_alone_are_counted_and_told_once() {
        let (repeats, now) = (Repeats::default(), Clock::system().now());
        let written = (0..500).filter(|n| repeats.admit(&format!("open failed after {n} s"), now)).count();
        assert_eq!(written, LINES_MAX as usize);
        assert!(repeats.admit("write failed after 3 s", now), "another line is written");
        assert!(repeats.take_left_out(now, false).is_empty(), "the time is not over");
        let later = now + WINDOW;
        let told = LeftOut { count: 480, example: "open failed after 20 s".to_owned() };
        assert_eq!(repeats.take_left_out(later, false), [told]);
        assert!(repeats.take_left_out(later, true).is_empty());
        assert!(repeats.admit("open failed after 7 s", later), "a new time has begun");
    }

    #[test]
    fn lines_that_are_all_different_take_no_memory_without_end() {
        let (repeats, now) = (Repeats::default(), Clock::system().now());
        for n in 0..10 * KINDS_MAX {
            let letters: String = n.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect();
            assert!(repeats.admit(&letters, now));
        }
        assert!(repeats.0.lock().len() <= 2 * KINDS_MAX);
        repeats.admit("x", now + WINDOW);
        assert!(repeats.0.lock().len() <= 1);
    }
}
