//! Locks, which the kernel keeps: they hold on this host.

use std::fs::File;

use crate::harness::prelude::*;

pub fn facts() -> Vec<Fact> {
    vec![
        shared!(flock_excludes),
        shared!(record_locks_exclude_other_processes),
        shared!(open_file_description_locks_exclude),
        shared!(locks_end_with_the_descriptor),
    ]
}

fn two(p: &Place) -> Outcome<(File, File)> {
    p.write("f", "x")?;
    let open = || File::options().read(true).write(true).open(p.path("f"));
    Ok((open()?, open()?))
}

fn flock_excludes(p: &Place) -> Outcome {
    let (a, b) = two(p)?;
    sys::flock(&a, libc::LOCK_SH)?;
    sys::flock(&b, libc::LOCK_SH | libc::LOCK_NB)?;
    refused(sys::flock(&b, libc::LOCK_EX | libc::LOCK_NB), &[libc::EWOULDBLOCK]);
    sys::flock(&a, libc::LOCK_UN)?;
    sys::flock(&b, libc::LOCK_EX | libc::LOCK_NB)?;
    refused(sys::flock(&a, libc::LOCK_SH | libc::LOCK_NB), &[libc::EWOULDBLOCK]);
    Ok(())
}

fn record_locks_exclude_other_processes(p: &Place) -> Outcome {
    let (a, _) = two(p)?;
    sys::record_lock(&a, libc::F_SETLK, libc::F_WRLCK)?;
    let attempt = "import fcntl\n\
        f = open('f', 'r+')\n\
        try:\n    fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB); print('taken')\n\
        except OSError as e:\n    print('refused', e.errno)\n";
    assert_eq!(p.python(attempt)?.trim(), format!("refused {}", libc::EAGAIN));
    sys::record_lock(&a, libc::F_SETLK, libc::F_UNLCK)?;
    assert_eq!(p.python(attempt)?.trim(), "taken");
    Ok(())
}

fn open_file_description_locks_exclude(p: &Place) -> Outcome {
    let (a, b) = two(p)?;
    sys::record_lock(&a, libc::F_OFD_SETLK, libc::F_WRLCK)?;
    refused(sys::record_lock(&b, libc::F_OFD_SETLK, libc::F_RDLCK), &[libc::EAGAIN, libc::EACCES]);
    sys::record_lock(&a, libc::F_OFD_SETLK, libc::F_UNLCK)?;
    sys::record_lock(&b, libc::F_OFD_SETLK, libc::F_RDLCK)?;
    Ok(())
}

fn locks_end_with_the_descriptor(p: &Place) -> Outcome {
    let (a, b) = two(p)?;
    sys::flock(&a, libc::LOCK_EX)?;
    refused(sys::flock(&b, libc::LOCK_EX | libc::LOCK_NB), &[libc::EWOULDBLOCK]);
    sys::close(a)?;
    // FUSE's release is told after close has answered, the kernel's own lock is gone with it.
    assert!(poll(std::time::Duration::from_secs(5), || sys::flock(&b, libc::LOCK_EX | libc::LOCK_NB).is_ok()));
    Ok(())
}
