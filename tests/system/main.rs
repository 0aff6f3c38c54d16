//! s3mount beside the system's own programs: mount(8), umount(8), systemd, and the documents that tell how.
//!
//! Nothing of the machine is changed: what is put into /sbin and /run/mount is in a mount namespace that ends with the test.
//! What this machine cannot show is reported as ignored, with the reason.

#![allow(unreachable_pub, reason = "nothing of a test program is seen from outside")]

mod bed;
mod daemon;
mod documents;
mod instance_disk;
mod mounting;
mod package;
mod printing;
mod recovering;
mod remounting;
mod starting;
mod systemd;
mod units;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};

/// What a fact answers: the reason where this machine cannot show it.
pub type Shown = Result<Option<String>, String>;
/// A fact and its name.
pub type Fact = (&'static str, fn() -> Shown);

fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args().collect();
    if let [_, word, path] = &argv[..]
        && word == mounting::WRITE_BY_MAP
    {
        return mounting::write_by_map(path);
    }
    let arguments = Arguments::from_args();
    let facts = [
        mounting::FACTS,
        remounting::FACTS,
        daemon::FACTS,
        units::FACTS,
        systemd::FACTS,
        instance_disk::FACTS,
        documents::FACTS,
        printing::FACTS,
        recovering::FACTS,
        starting::FACTS,
        package::FACTS,
    ]
    .concat();
    let trials = facts.into_iter().map(|(name, fact)| {
        Trial::ignorable_test(name, move || match fact()? {
            Some(reason) => Ok(Completion::ignored_with(reason)),
            None => Ok(Completion::Completed),
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
