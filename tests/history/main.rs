//! Random histories of POSIX operations on `fs::FileSystem` over the memory store with faults, each step compared with a
//! model in memory; at the end everything is checked again in the bucket itself and after a remount.
//!
//! The faults are those that the retry layer is there to hide: errors before and after the effect, throttling, bodies
//! that end early. With them hidden, every step must have exactly the outcome that POSIX gives it.
//!
//! `S3MOUNT_TEST_HISTORIES=N` runs N histories of each kind, for a longer look.

#![allow(missing_docs, unreachable_pub, reason = "a test crate has no readers but its own")]

mod engines;
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
    /// Another client replaces a file to which nobody here writes, and it is renamed at once.
    ReplaceAndRename { from: usize, to: usize, len: usize, seed: u8 },
    /// The same, and its directory is renamed.
    ReplaceAndRenameDirectory { path: usize, to: usize, len: usize, seed: u8 },
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
    let replaced = (path.clone(), len.clone(), directory.clone());
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
        1 => (replaced.0.clone(), replaced.0.clone(), replaced.1.clone(), any::<u8>())
            .prop_map(|(from, to, len, seed)| Step::ReplaceAndRename { from, to, len, seed }),
        1 => (replaced.0, replaced.2, replaced.1, any::<u8>())
            .prop_map(|(path, to, len, seed)| Step::ReplaceAndRenameDirectory { path, to, len, seed }),
        1 => Just(Step::Wait),
        1 => Just(Step::Remount),
    ]
}

/// Under what a history runs.
#[derive(Clone, Copy, Debug)]
enum Under {
    Calm,
    Faults,
    LittleMemory,
}

fn run(histories: u32, under: Under) {
    let asked = std::env::var("S3MOUNT_TEST_HISTORIES").ok().map(|text| text.parse().expect("a number of histories"));
    let histories = asked.unwrap_or(histories);
    let mut runner = TestRunner::new(Config { cases: histories, failure_persistence: None, ..Config::default() });
    let strategy = (prop::collection::vec(step(), 1..60), any::<u64>());
    let outcome =
        runner.run(&strategy, |(steps, seed)| history_under(under, &steps, seed).map_err(TestCaseError::fail));
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// One history on a fresh world; with a seed, the store fails now and then.
fn history(steps: &[Step], faults: Option<u64>) -> Result<(), String> {
    history_under(faults.map_or(Under::Calm, |_| Under::Faults), steps, faults.unwrap_or(0))
}

fn history_under(under: Under, steps: &[Step], seed: u64) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime of one thread needs nothing that could be missing");
    runtime.block_on(async {
        let faults = matches!(under, Under::Faults).then_some(seed);
        let mut world = World::new(faults, matches!(under, Under::LittleMemory));
        for (number, step) in steps.iter().enumerate() {
            world.step(step).await.map_err(|why| format!("step {number}, {step:?}: {why}"))?;
        }
        world.finish().await
    })
}

fn open(slot: usize, path: usize) -> Step {
    Step::Open { slot, path, truncate: false, exclusive: false }
}

fn write(slot: usize, offset: usize, len: usize) -> Step {
    Step::Write { slot, offset, len, seed: 0 }
}

#[test]
fn an_unlinked_open_file_moves_with_its_directory_and_goes_with_its_last_handle() {
    let steps = [
        Step::Mkdir { directory: 1 },
        open(1, 2),
        open(1, 2),
        Step::Unlink { path: 2 },
        Step::RenameDirectory { from: 1, to: 2 },
        Step::Read { slot: 1, offset: 0, len: 1 },
    ];
    assert_eq!(history(&steps, None), Ok(()));
}

#[test]
fn a_file_cut_while_a_part_is_uploaded_leaves_no_upload_and_no_mixed_parts() {
    let short =
        [Step::Mkdir { directory: 1 }, open(0, 2), write(0, 22_467, 108_605), Step::TruncatePath { path: 2, len: 136 }];
    assert_eq!(history(&short, None), Ok(()));
    let long = [open(0, 0), open(1, 0), write(0, 52_696, 143_912), Step::TruncatePath { path: 0, len: 131_073 }];
    for seed in 0..20 {
        assert_eq!(history(&long, Some(seed)), Ok(()), "seed {seed}");
    }
}

#[test]
fn a_new_object_under_the_key_of_an_unlinked_open_file_stays_when_that_is_closed() {
    let steps = [
        open(1, 1),
        open(1, 1),
        Step::Unlink { path: 1 },
        Step::Foreign { path: 1, len: 1, seed: 0 },
        Step::Open { slot: 0, path: 1, truncate: true, exclusive: false },
        Step::Sync { slot: 0 },
    ];
    assert_eq!(history(&steps, None), Ok(()));
}

#[test]
fn an_empty_file_that_is_emptied_again_does_not_hide_what_others_put() {
    let steps = [
        open(3, 0),
        Step::Sync { slot: 3 },
        Step::Open { slot: 1, path: 0, truncate: true, exclusive: false },
        Step::Close { slot: 1 },
        Step::Close { slot: 3 },
        Step::Foreign { path: 0, len: 1, seed: 0 },
        Step::OpenRead { slot: 0, path: 0 },
    ];
    assert_eq!(history(&steps, None), Ok(()));
}

#[test]
fn a_listing_asked_for_before_an_unlinked_file_was_deleted_does_not_bring_it_back() {
    let steps = [
        open(0, 1),
        Step::Mkdir { directory: 1 },
        Step::Sync { slot: 0 },
        open(0, 1),
        open(2, 0),
        write(0, 65_308, 229),
        Step::Rmdir { directory: 3 },
        open(0, 2),
        write(0, 0, 1),
        write(2, 65_252, 285),
        Step::Remount,
        Step::Unlink { path: 5 },
        open(0, 3),
        Step::OpenRead { slot: 0, path: 2 },
        Step::Unlink { path: 0 },
        Step::Unlink { path: 2 },
        open(0, 2),
    ];
    assert_eq!(history(&steps, Some(15_411_695_524_635_999_144)), Ok(()));
}

#[test]
fn a_reader_of_what_another_client_replaced_reads_none_of_what_a_rename_moved() {
    let read = |offset| Step::Read { slot: 1, offset, len: 100 };
    let steps = [
        Step::Mkdir { directory: 1 },
        open(0, 2),
        write(0, 0, 150_000),
        Step::Close { slot: 0 },
        Step::OpenRead { slot: 1, path: 2 },
        read(0),
        Step::ReplaceAndRename { from: 2, to: 3, len: 150_000, seed: 9 },
        read(0),
        read(140_000),
        Step::OpenRead { slot: 2, path: 3 },
        Step::ReplaceAndRenameDirectory { path: 3, to: 2, len: 150_000, seed: 17 },
        read(140_000),
        Step::Read { slot: 2, offset: 0, len: 150_000 },
    ];
    assert_eq!(history(&steps, None), Ok(()));
}

#[test]
fn a_thousand_histories_equal_the_model() {
    run(1000, Under::Calm);
}

#[test]
fn two_thousand_histories_with_faults_equal_the_model() {
    run(2000, Under::Faults);
}

#[test]
fn histories_whose_unpublished_bytes_are_on_disk_equal_the_model() {
    run(500, Under::LittleMemory);
}
