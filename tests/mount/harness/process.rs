//! Children of the suite. Every child is started by one thread that lives as long as the suite, because the signal that
//! ends a child when the suite dies (PR_SET_PDEATHSIG) is bound to the thread that started it. Never signals a process
//! that the suite did not start.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock, RwLockWriteGuard};
use std::thread;
use std::time::{Duration, Instant};

/// Held for reading while a child is being started. Until it runs its own program, a child has copies of all our
/// descriptors, and closing them is a close(2) to the file system: whatever was written is published at that moment.
static STARTING: RwLock<()> = RwLock::new(());

/// Keeps all children from being started, for a fact that counts requests or says what is not yet published.
pub fn quiet() -> RwLockWriteGuard<'static, ()> {
    STARTING.write().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a child, and waits for its end and its output.
pub fn run(command: &mut Command) -> io::Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    start(command)?.wait_with_output()
}

/// Starts a child.
pub fn start(command: &mut Command) -> io::Result<Child> {
    let _starting = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

type Job = (Command, Sender<io::Result<Child>>);

/// Starts a child that gets `signal` should the suite die.
pub fn spawn(mut command: Command, signal: i32) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    // SAFETY: prctl is async-signal-safe and touches nothing but the child.
    unsafe {
        command.pre_exec(move || match libc::prctl(libc::PR_SET_PDEATHSIG, signal) {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = channel::<Job>();
        thread::spawn(move || {
            for (mut command, reply) in jobs {
                // A caller that is gone wants no child.
                if let Err(unwanted) = reply.send(start(&mut command))
                    && let Ok(mut child) = unwanted.0
                {
                    let _ = child.kill();
                }
            }
        });
        Mutex::new(sender)
    });
    let (reply, answer) = channel();
    spawner.lock().expect("nobody panics with it").send((command, reply)).expect("the spawner lives on");
    answer.recv().expect("the spawner answers")
}

/// Waits for a child's end; `None` if it lives on after `limit`.
pub fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > end {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Asks again and again until the answer is there; `false` if it did not come within `limit`.
pub fn poll(limit: Duration, mut answer: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if answer() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Where a program is: on PATH, or in one of these folders.
pub fn find(program: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(folders.iter().cloned()).map(|dir| dir.join(program)).find(|p| p.is_file())
}

/// Where scripts/test puts what it installs.
pub fn cache_dir() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").filter(|d| !d.is_empty()).map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache"),
        PathBuf::from,
    );
    base.join("s3mount")
}
