//! What clap refuses, said in one line.

use std::process::ExitCode;

use clap::error::ErrorKind;

use super::say::complain;

/// Help and version are no errors; anything else is said in one line, with exit bit 1 of mount(8).
pub(super) fn exit(program: &str, error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        let _ = error.print();
        let shown = error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        return ExitCode::from(u8::from(!shown));
    }
    complain!("{program}: {}", line(error));
    ExitCode::from(1)
}

/// The line alone.
pub(super) fn line(error: &clap::Error) -> String {
    let text = error.to_string();
    let words = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("Usage"));
    let line: Vec<&str> = words.filter(|line| !line.starts_with("For more information")).collect();
    line.join("; ").trim_start_matches("error: ").to_owned()
}
