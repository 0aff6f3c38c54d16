//! What a fault of our own says: one line, where somebody looks for it, instead of several on a stderr that a daemon has not.

use std::any::Any;
use std::panic::{self, Location};

use super::say::complain;
use crate::lifecycle::log;

/// From now on a panic is one line in the log. It is one on stderr as well, which is the terminal until a daemon is ready, unless
/// the log is there anyway. With `RUST_BACKTRACE` Rust says what it would have said, too.
pub(super) fn report() {
    let rusts_own = panic::take_hook();
    let wants_backtrace = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    panic::set_hook(Box::new(move |told| {
        let line = line(told.payload(), told.location());
        tracing::error!("{line}");
        if !log::is_on_stderr() {
            complain!("s3mount: {line}");
        }
        if wants_backtrace {
            rusts_own(told);
        }
    }));
}

fn line(payload: &(dyn Any + Send), location: Option<&Location<'_>>) -> String {
    let words =
        payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let words = words.unwrap_or("no message").lines().map(str::trim).collect::<Vec<_>>().join("; ");
    let place = location.map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    format!("a fault in s3mount at {place}: {words}; please report this line")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_one_line_with_its_place() {
        let told = |payload: &(dyn Any + Send)| line(payload, Some(Location::caller()));
        let said = told(&"left != right\n  left: 1\n right: 2".to_owned());
        assert!(said.contains(": left != right; left: 1; right: 2; please") && said.lines().count() == 1, "{said}");
        assert!(said.contains("panics.rs:"), "{said}");
        assert!(told(&"a constant").contains(": a constant;"));
        assert!(told(&7).contains(": no message;"));
    }
}
