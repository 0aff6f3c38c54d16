//! Random histories of POSIX operations on `fs::FileSystem` over the memory store with faults, each step compared with a
//! model in memory; at the end everything is checked again in the bucket itself and after a remount.
//!
//! The faults are those that the retry layer is there to hide: errors before and after the effect, throttling, bodies
//! that end early. With them hidden, every step must have exactly the outcome that POSIX gives it.

#![allow(missing_docs, unreachable_pub, reason = "a test crate has no readers but its own")]

mod model;
mod world;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::world::World;

/// One step of a history. Paths are numbers into a small universe, so that steps meet.
#[derive(Clone, Debug)]
pub enum Step {
    /// open(2) with O_CREAT | O_RDWR, with O_TRUNC or O_EXCL where set.
    Open { slot: usize, path: usize, truncate: bool, exclusive: bool },
    /// open(2) for reading.
    OpenRead { slot: usize, path: usize },
    /// pwrite(2).
    Write { slot: usize, offset: usize, len: usize, seed: u8 },
    /// pread(2).
    Read { slot: usize, offset: usize, len: usize },
    /// ftruncate(2).
    Truncate { slot: usize, len: usize },
    /// truncate(2).
    TruncatePath { path: usize, len: usize },
    /// fsync(2).
    Sync { slot: usize },
    /// close(2).
    Close { slot: usize },
    /// unlink(2).
    Unlink { path: usize },
    /// mkdir(2).
    Mkdir { directory: usize },
    /// rmdir(2).
    Rmdir { directory: usize },
    /// rename(2) of a file.
    Rename { from: usize, to: usize },
    /// rename(2) of a directory.
    RenameDirectory { from: usize, to: usize },
    /// readdir(3).
    List { directory: usize },
    /// stat(2).
    Stat { path: usize },
    /// Another client puts an object where no handle is open, and the time of old names passes.
    Foreign { path: usize, len: usize, seed: u8 },
    /// Time passes.
    Wait,
    /// Everything is closed, the mount ends and begins anew.
    Remount,
}

fn step() -> impl Strategy<Value = Step> {
    let slot = 0..4_usize;
    let path = 0..world::PATHS.len();
    let directory = 1..world::DIRECTORIES.len();
    let offset = prop_oneof![0..2000_usize, 0..200_000_usize];
    let len = prop_oneof![1..300_usize, 1..150_000_usize];
    prop_oneof![
        6 => (slot.clone(), path.clone(), any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(slot, path, truncate, exclusive)| Step::Open { slot, path, truncate, exclusive }),
        4 => (slot.clone(), path.clone()).prop_map(|(slot, path)| Step::OpenRead { slot, path }),
        8 => (slot.clone(), offset.clone(), len.clone(), any::<u8>())
            .prop_map(|(slot, offset, len, seed)| Step::Write { slot, offset, len, seed }),
        8 => (slot.clone(), offset.clone(), len.clone()).prop_map(|(slot, offset, len)| Step::Read { slot, offset, len }),
        2 => (slot.clone(), offset.clone()).prop_map(|(slot, len)| Step::Truncate { slot, len }),
        1 => (path.clone(), offset).prop_map(|(path, len)| Step::TruncatePath { path, len }),
        3 => slot.clone().prop_map(|slot| Step::Sync { slot }),
        5 => slot.prop_map(|slot| Step::Close { slot }),
        3 => path.clone().prop_map(|path| Step::Unlink { path }),
        3 => directory.clone().prop_map(|directory| Step::Mkdir { directory }),
        1 => directory.clone().prop_map(|directory| Step::Rmdir { directory }),
        3 => (path.clone(), path.clone()).prop_map(|(from, to)| Step::Rename { from, to }),
        1 => (directory.clone(), directory).prop_map(|(from, to)| Step::RenameDirectory { from, to }),
        2 => (0..world::DIRECTORIES.len()).prop_map(|directory| Step::List { directory }),
        2 => path.clone().prop_map(|path| Step::Stat { path }),
        1 => (path, len, any::<u8>()).prop_map(|(path, len, seed)| Step::Foreign { path, len, seed }),
        1 => Just(Step::Wait),
        1 => Just(Step::Remount),
    ]
}

fn run(histories: u32, faulty: bool) {
    let mut runner = TestRunner::new(Config { cases: histories, failure_persistence: None, ..Config::default() });
    let strategy = (prop::collection::vec(step(), 1..60), any::<u64>());
    let outcome = runner.run(&strategy, |(steps, seed)| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime of one thread needs nothing that could be missing");
        runtime.block_on(async {
            let mut world = World::new(faulty.then_some(seed));
            for (number, step) in steps.iter().enumerate() {
                world.step(step).await.map_err(|why| TestCaseError::fail(format!("step {number}, {step:?}: {why}")))?;
            }
            world.finish().await.map_err(TestCaseError::fail)
        })
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn a_thousand_histories_equal_the_model() {
    run(1000, false);
}

#[test]
fn two_thousand_histories_with_faults_equal_the_model() {
    run(2000, true);
}
