//! The only source of the time: the system's clocks, or one that a test moves by hand.
//!
//! Nothing else in the program reads a clock, so every freshness, deadline and age can be tested without sleeping.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// A clock that is cheap to clone and shared by all who must agree on the time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Timers,
    Manual(Arc<Mutex<Manual>>),
}

#[derive(Debug)]
struct Manual {
    monotonic: Instant,
    wall: SystemTime,
}

impl Clock {
    /// The clocks of the operating system.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// The clock by which tokio's timers run: the operating system's, until a test pauses it. For what measures its own
    /// waiting.
    pub fn timers() -> Self {
        Self(Source::Timers)
    }

    /// A clock that stands still at `wall` until [`Clock::advance`] moves it.
    pub fn manual(wall: SystemTime) -> Self {
        Self(Source::Manual(Arc::new(Mutex::new(Manual { monotonic: Instant::now(), wall }))))
    }

    /// Monotonic time, for ages and deadlines.
    pub fn now(&self) -> Instant {
        match &self.0 {
            Source::System => Instant::now(),
            Source::Timers => tokio::time::Instant::now().into_std(),
            Source::Manual(manual) => manual.lock().monotonic,
        }
    }

    /// Time of day, for timestamps that leave the process. It may jump.
    pub fn wall(&self) -> SystemTime {
        match &self.0 {
            Source::System | Source::Timers => SystemTime::now(),
            Source::Manual(manual) => manual.lock().wall,
        }
    }

    /// Moves a manual clock forward; does nothing to the system's.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(manual) = &self.0 {
            let mut manual = manual.lock();
            manual.monotonic += by;
            manual.wall += by;
        }
    }
}
/// Clock ticks since the machine began, sleep included: the times of processes in proc_pid_stat(5). 0 where the kernel does not
/// tell.
pub fn ticks_since_boot() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is as large as the kernel writes; sysconf(3) takes a constant.
    let (failed, ticks_per_second) =
        unsafe { (libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) != 0, libc::sysconf(libc::_SC_CLK_TCK)) };
    let (Ok(ticks_per_second), false) = (u64::try_from(ticks_per_second), failed) else { return 0 };
    let (seconds, nanoseconds) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds * ticks_per_second + nanoseconds * ticks_per_second / 1_000_000_000
}
