//! What can be known of a thread that asks: the kernel names it with each request.
//!
//! Which process it belongs to: what cannot be told is said to be no other process, so that a close rather publishes too
//! much than too little. Numbers of threads are given anew: a thread that began after the opening is not the one that opened. In which
//! call it waits: what cannot be told (no ptrace access to it, as for a daemon of another user or
//! one without CAP_SYS_PTRACE) is said to be none that matters, which costs a request and changes no answer.

use crate::clock::ticks_since_boot;
use crate::fs::Opener;

/// A thread that opens a file now.
pub(super) fn opener(thread: u32) -> Opener {
    Opener { thread, at_ticks: ticks_since_boot() }
}

/// Whether the opener lives, and in another process than thread `closer`.
pub(super) fn is_foreign(opener: Opener, closer: u32) -> bool {
    let (one, other) = (opener.thread, closer);
    if one == other || one == 0 || other == 0 {
        return false;
    }
    let is_opener = || started_ticks(one).is_some_and(|started| started <= opener.at_ticks);
    matches!((process_of(one), process_of(other)), (Some(one), Some(other)) if one != other) && is_opener()
}

/// The process of a thread, which /proc shows for every thread under its own number (proc_pid_status(5)).
fn process_of(thread: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// When a thread began, in clock ticks since the machine did: field 22 of proc_pid_stat(5). The second field is its name in
/// parentheses, and may hold any.
fn started_ticks(thread: u32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{thread}/stat")).ok()?;
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    std::str::from_utf8(&stat[end + 1..]).ok()?.split_whitespace().nth(19)?.parse().ok()
}

/// Looks at a thread's call: it may not have gone to sleep yet when its request is here.
const LOOKS_MAX: u32 = 10;

/// The flags of open(2) where the thread waits in that call, for something that it will open if it is there: not to replace its
/// content (O_TRUNC), to be told that it is there (O_EXCL), or to open it later (O_PATH).
pub(super) fn opening(thread: u32) -> Option<i32> {
    if thread == 0 {
        return None;
    }
    let mut call = None;
    for _ in 0..LOOKS_MAX {
        let line = std::fs::read_to_string(format!("/proc/{thread}/syscall")).ok()?;
        if !line.starts_with("running") {
            call = Some(line);
            break;
        }
        std::thread::yield_now();
    }
    let flags = flags_of_open(&call?)?;
    (flags & (libc::O_TRUNC | libc::O_EXCL | libc::O_PATH) == 0).then_some(flags)
}

/// The flags in a line of `/proc/PID/syscall` (proc_pid_syscall(5)), the call's number and its arguments, if it is open(2) or openat(2).
/// openat2(2) has its flags elsewhere.
fn flags_of_open(line: &str) -> Option<i32> {
    let mut words = line.split_ascii_whitespace();
    let number: libc::c_long = words.next()?.parse().ok()?;
    let at = match number {
        libc::SYS_openat => 2,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => 1,
        _ => return None,
    };
    let flags = u64::from_str_radix(words.nth(at)?.strip_prefix("0x")?, 16).ok()?;
    i32::try_from(flags & u64::from(u32::MAX)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_an_open_are_found_among_its_arguments() {
        let arguments = "0xffffff9c 0x7ffd5c1e1f20 0x80000 0x0 0x0 0x0 0x7ffd5c1e1d08 0x7f0c";
        assert_eq!(flags_of_open(&format!("{} {arguments}", libc::SYS_openat)), Some(libc::O_CLOEXEC));
        assert_eq!(flags_of_open(&format!("{} {arguments}", libc::SYS_newfstatat)), None);
        assert_eq!(flags_of_open("running"), None);
        assert_eq!(flags_of_open("-1 0x7ffd5c1e1d08 0x7f0c"), None);
    }

    #[test]
    fn a_thread_that_waits_in_open_is_seen_with_its_flags_and_no_other() {
        let dir = tempfile::tempdir().expect("a directory");
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("made");
        let (sender, receiver) = std::sync::mpsc::channel();
        let path = pipe.clone();
        let opener = std::thread::spawn(move || {
            sender.send(nix::unistd::gettid().as_raw().unsigned_abs()).expect("somebody waits");
            std::fs::File::open(path)
        });
        let thread = receiver.recv().expect("it runs");
        // It waits until somebody writes.
        let seen = loop {
            match opening(thread) {
                None => std::thread::yield_now(),
                seen => break seen,
            }
        };
        assert_eq!(seen, Some(libc::O_CLOEXEC));
        assert_eq!(opening(nix::unistd::gettid().as_raw().unsigned_abs()), None, "it reads that file");
        std::fs::File::options().write(true).open(pipe).expect("the reader waits");
        opener.join().expect("no panic").expect("opened");
    }

    #[test]
    fn threads_of_one_process_are_not_foreign_to_each_other() {
        let main = std::process::id();
        let thread = std::thread::spawn(|| nix::unistd::gettid().as_raw().unsigned_abs());
        let here = nix::unistd::gettid().as_raw().unsigned_abs();
        assert!(!is_foreign(opener(here), main) && !is_foreign(opener(main), here));
        let ended = thread.join().expect("no panic");
        assert!(!is_foreign(opener(ended), main));
    }

    #[test]
    fn a_child_is_foreign_and_what_is_not_known_is_not() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a child");
        assert!(is_foreign(opener(std::process::id()), child.id()));
        assert!(is_foreign(opener(child.id()), std::process::id()));
        child.kill().expect("killed");
        child.wait().expect("waited for");
        assert!(!is_foreign(opener(std::process::id()), child.id()));
        assert!(!is_foreign(opener(child.id()), std::process::id()));
        assert!(!is_foreign(opener(std::process::id()), 0));
    }

    #[test]
    fn a_number_that_was_given_anew_is_not_the_opener() {
        let before = ticks_since_boot();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a child");
        let began = started_ticks(child.id()).expect("it is there");
        assert!(before < began && began <= ticks_since_boot(), "{before} {began}");
        // Somebody of that number opened a file before the child was there.
        assert!(!is_foreign(Opener { thread: child.id(), at_ticks: before }, std::process::id()));
        child.kill().expect("killed");
        child.wait().expect("waited for");
    }
}
