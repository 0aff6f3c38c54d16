//! The clock over every fact. A fact that takes too long is named, its daemons' logs are printed, and its mounts are cut
//! off from the kernel, so that a hanging call ends and the fact fails by itself. Should even that not help, the suite
//! ends.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, Once, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::mount::Mount;

/// How long after its mounts were cut off a fact may still take.
const GRACE: Duration = Duration::from_secs(60);

/// One fact that runs.
#[derive(Default)]
struct Run {
    name: String,
    limit: Duration,
    started: Option<Instant>,
    cut_off: bool,
    mounts: Vec<(Weak<Mount>, u64)>,
}

type Shared = Arc<Mutex<Run>>;

thread_local! {
    static CURRENT: RefCell<Option<Shared>> = const { RefCell::new(None) };
}

static RUNS: Mutex<Vec<Shared>> = Mutex::new(Vec::new());
static WATCHDOG: Once = Once::new();

/// A fact under watch, until dropped.
pub struct Watched(Shared);

impl Watched {
    /// Watches what this thread does from now on.
    pub fn begin(name: &str, limit: Duration) -> Self {
        WATCHDOG.call_once(|| drop(thread::spawn(look_around)));
        let run = Run { name: name.to_owned(), limit, started: Some(Instant::now()), ..Run::default() };
        let run = Arc::new(Mutex::new(run));
        RUNS.lock().expect("nobody panics with it").push(Arc::clone(&run));
        CURRENT.with(|current| *current.borrow_mut() = Some(Arc::clone(&run)));
        Self(run)
    }

    /// Whether the time ran out.
    pub fn timed_out(&self) -> bool {
        self.0.lock().expect("nobody panics with it").cut_off
    }

    /// What the daemons logged since the fact began.
    pub fn logs(&self) -> String {
        logs_of(&self.0.lock().expect("nobody panics with it"))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        CURRENT.with(|current| *current.borrow_mut() = None);
        RUNS.lock().expect("nobody panics with it").retain(|run| !Arc::ptr_eq(run, &self.0));
    }
}

/// Whether this thread runs a fact.
pub fn is_watched() -> bool {
    CURRENT.with(|current| current.borrow().is_some())
}

/// Notes that the fact of this thread uses a mount.
pub fn watch(mount: &Arc<Mount>) {
    CURRENT.with(|current| {
        if let Some(run) = &*current.borrow() {
            run.lock().expect("nobody panics with it").mounts.push((Arc::downgrade(mount), mount.log_len()));
        }
    });
}

fn logs_of(run: &Run) -> String {
    let mounts = run.mounts.iter().filter_map(|(mount, start)| Some((mount.upgrade()?, *start)));
    mounts
        .map(|(mount, start)| format!("--- the daemon at {}:\n{}", mount.dir.display(), mount.log_from(start)))
        .collect()
}

fn look_around() {
    loop {
        thread::sleep(Duration::from_millis(200));
        let runs = RUNS.lock().expect("nobody panics with it").clone();
        for run in runs {
            let mut run = run.lock().expect("nobody panics with it");
            let Some(started) = run.started else { continue };
            if started.elapsed() > run.limit && !run.cut_off {
                run.cut_off = true;
                eprintln!("TIMEOUT: {} took over {:?}\n{}", run.name, run.limit, logs_of(&run));
                for (mount, _) in &run.mounts {
                    if let Some(mount) = mount.upgrade() {
                        mount.abort_connection();
                    }
                }
            }
            if started.elapsed() > run.limit + GRACE {
                eprintln!("TIMEOUT: {} does not end although its mounts were cut off; the suite gives up", run.name);
                std::process::exit(101);
            }
        }
    }
}
