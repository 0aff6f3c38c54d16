//! The mount suite: facts about a real mount, each checked against several S3 servers with real system calls.
//!
//! A trial is named `SERVER::ROOM::FACT`, so `cargo test --test mount -- moto::rename` runs some of them. A server that
//! is not on this machine is reported as ignored, with the reason. With `S3MOUNT_TEST_PLAIN_DIR=DIR` the facts that hold
//! for any file system also run on a plain folder in DIR, under the server name `plain`: that checks the facts.
//!
//! `S3MOUNT_TEST_PROGRAM=PATH` runs the facts on another program than the one that was built.
//!
//! After all others one more trial for each server mounts the shared bucket anew and compares everything in it.

#![allow(unreachable_pub, reason = "nothing of a test program is seen from outside")]

mod facts;
mod harness;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};

use harness::facts::{note_panics, sites};
use harness::server::Kind;

/// Facts that run at the same time: they wait more than they work.
const THREADS: usize = 4;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    note_panics();

    let facts = facts::all();
    let mut trials: Vec<Trial> = Vec::new();
    for kind in Kind::ALL {
        if kind == Kind::Plain && std::env::var_os("S3MOUNT_TEST_PLAIN_DIR").is_none() {
            continue;
        }
        let of_server: Vec<_> = facts.iter().filter_map(|fact| fact.trial(kind)).collect();
        match kind.program() {
            // Nobody needs MinIO: where it is not, one line says so instead of two hundred.
            Err(reason) if kind == Kind::Minio => {
                let name = format!("{kind}::all_{}_facts", of_server.len());
                trials.push(Trial::ignorable_test(name, move || Ok(Completion::ignored_with(reason))));
            }
            _ => trials.extend(of_server),
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    let mut failed = conclusion.has_failed();
    if !arguments.list {
        let again = sites().mounted().into_iter().map(facts::remount::trial).collect();
        failed |= libtest_mimic::run(&arguments, again).has_failed();
    }
    sites().end();
    if failed { ExitCode::from(101) } else { ExitCode::SUCCESS }
}
