//! Which process a thread belongs to: the kernel names threads where it says who asks.
//!
//! What cannot be told is said to be no other process, so that a close rather publishes too much than too little.

/// Whether thread `one` lives, and in another process than thread `other`.
pub(super) fn is_foreign(one: u32, other: u32) -> bool {
    if one == other || one == 0 || other == 0 {
        return false;
    }
    matches!((process_of(one), process_of(other)), (Some(one), Some(other)) if one != other)
}

/// The process of a thread, which /proc shows for every thread under its own number (proc_pid_status(5)).
fn process_of(thread: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_one_process_are_not_foreign_to_each_other() {
        let main = std::process::id();
        let thread = std::thread::spawn(|| nix::unistd::gettid().as_raw().unsigned_abs());
        let here = nix::unistd::gettid().as_raw().unsigned_abs();
        assert!(!is_foreign(here, main) && !is_foreign(main, here));
        let ended = thread.join().expect("no panic");
        assert!(!is_foreign(ended, main));
    }

    #[test]
    fn a_child_is_foreign_and_what_is_not_known_is_not() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a child");
        assert!(is_foreign(std::process::id(), child.id()));
        child.kill().expect("killed");
        child.wait().expect("waited for");
        assert!(!is_foreign(std::process::id(), child.id()));
        assert!(!is_foreign(std::process::id(), 0));
    }
}
