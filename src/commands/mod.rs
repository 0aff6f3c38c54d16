//! One file per subcommand. Each takes what clap read and gives an exit code; errors are one line on stderr.

mod doctor;
mod mount;
mod recover;
mod status;
mod unmount;

use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::config::cli::{Cli, Command, Refused};
use crate::lifecycle::Failure;

/// Reads the command line and does what it says.
pub fn run() -> ExitCode {
    let outcome = match Cli::read(std::env::args_os()) {
        Err(Refused::Words(error)) => return refused(&error),
        Err(Refused::Option(error)) => Err(Failure::usage(error.to_string())),
        Ok(cli) => match cli.command {
            None => mount::run(cli.mount),
            Some(Command::Unmount(arguments)) => unmount::run(&arguments),
            Some(Command::Status(arguments)) => status::run(&arguments),
            Some(Command::Doctor(arguments)) => doctor::run(arguments),
            Some(Command::Recover(arguments)) => recover::run(arguments),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, line }) => {
            eprintln!("s3mount: {line}");
            ExitCode::from(code)
        }
    }
}

/// Help and version are no errors; anything else is said in one line, with exit bit 1 of mount(8).
fn refused(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        let _ = error.print();
        let shown = error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        return ExitCode::from(u8::from(!shown));
    }
    let text = error.to_string();
    let words = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("Usage"));
    let line: Vec<&str> = words.filter(|line| !line.starts_with("For more information")).collect();
    eprintln!("s3mount: {}", line.join("; ").trim_start_matches("error: "));
    ExitCode::from(1)
}
