//! One file per subcommand. Each takes what clap read and gives an exit code; errors are one line on stderr.

mod cloudwatch;
mod doctor;
mod helper;
mod manuals;
mod mount;
mod panics;
mod recover;
mod refused;
mod remount;
mod say;
mod status;
mod top;
mod unmount;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::config::cli::{Cli, Command, Refused};
use crate::config::helper::Helper;
use crate::lifecycle::Failure;

/// Reads the command line and does what it says.
pub fn run() -> ExitCode {
    panics::report();
    let argv: Vec<OsString> = std::env::args_os().collect();
    let helper = argv.first().and_then(|program| Helper::called(program));
    let program = match helper {
        None => "s3mount",
        Some(Helper::Mount) => "mount.s3mount",
        Some(Helper::Unmount) => "umount.s3mount",
    };
    let outcome = match helper {
        Some(helper) => helper::run(helper, argv),
        None => own(argv),
    };
    let outcome = outcome.map(|done| done.and_then(|()| say::all_was_printed()));
    match outcome {
        Err(error) => refused::exit(program, &error),
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(Failure { code, line })) => {
            say::complain!("{program}: {line}");
            ExitCode::from(code)
        }
    }
}

/// The program by its own name; `Err` has clap's words where they are all there is to say.
fn own(argv: Vec<OsString>) -> Result<Result<(), Failure>, clap::Error> {
    let cli = match Cli::read(argv) {
        Ok(cli) => cli,
        Err(Refused::Words(error)) => return Err(error),
        Err(Refused::Option(error)) => return Ok(Err(Failure::usage(error.to_string()))),
    };
    Ok(match cli.command {
        None => mount::run(cli.mount),
        Some(Command::Unmount(arguments)) => unmount::run(&arguments),
        Some(Command::Status(arguments)) => status::run(&arguments),
        Some(Command::Doctor(arguments)) => doctor::run(arguments),
        Some(Command::Top(arguments)) => top::run(&arguments),
        Some(Command::Recover(arguments)) => recover::run(arguments),
        Some(Command::CloudWatch(arguments)) => cloudwatch::run(arguments),
        Some(Command::MakeManuals { dir }) => manuals::run(&dir),
    })
}
