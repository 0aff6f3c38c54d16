//! `s3mount make-manuals DIR`, for packages: manual pages and completions out of clap's definition, so that they tell what
//! this program takes.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::config::cli::Cli;
use crate::config::helper::{MountCall, UnmountCall, option_words};
use crate::lifecycle::Failure;

/// Writes `s3mount.1`, `mount.s3mount.8`, `umount.s3mount.8` and the completions of bash, zsh and fish.
pub(super) fn run(dir: &Path) -> Result<(), Failure> {
    write(dir).map_err(|error| Failure::system(format!("{} cannot be written: {error}", dir.display())))
}

fn write(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join("s3mount.1"), own_page()?)?;
    let words = option_words();
    let words = words.iter().map(|(word, help)| format!(".TP\n\\fB{}\\fR\n{}\n", escaped(word), escaped(help)));
    let words = format!(
        ".SH WORDS\nEach word behind \\fB\\-o\\fR and in fstab(5) is a long option of s3mount(1), with \\- or _; the words of \
         mount(8) are accepted. A comma inside of a value is written \\e,.\n{}.SH EXAMPLES\n.nf\n\
         s3://my\\-bucket/prefix /mnt/data s3mount _netdev,nofail,allow_other 0 0\n.fi\n{}",
        words.collect::<String>(),
        see_also("s3mount(1), umount.s3mount(8), mount(8), fstab(5)")
    );
    fs::write(dir.join("mount.s3mount.8"), page(MountCall::command(), "8", &words)?)?;
    let also = see_also("s3mount(1), mount.s3mount(8), umount(8)");
    let waits = ".SH NOTES\numount(8) as root comes here and waits until everything is in S3, but for \\fB\\-l\\fR.\n";
    fs::write(dir.join("umount.s3mount.8"), page(UnmountCall::command(), "8", &format!("{waits}{also}"))?)?;
    for (shell, name) in [(Shell::Bash, "s3mount.bash"), (Shell::Zsh, "_s3mount"), (Shell::Fish, "s3mount.fish")] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "s3mount", &mut text);
        fs::write(dir.join(name), text)?;
    }
    Ok(())
}

/// s3mount(1): the program, then each of its commands.
fn own_page() -> io::Result<Vec<u8>> {
    let mut command = Cli::command();
    command.build();
    let mut more = String::from(".SH COMMANDS\n");
    commands(&command, "s3mount", &mut more);
    more += ".SH EXIT STATUS\nThe bits of mount(8): 0, 1 (usage), 2 (system), 32 (mount failed).\n\
             .SH FILES\n.TP\n/etc/s3mount/NAME.toml\nlong options as keys, and source and dir\n\
             .TP\n/var/lib/s3mount\nbytes that could not be uploaded, of root's mounts\n";
    more += &see_also("mount.s3mount(8), umount.s3mount(8)");
    page(Cli::command(), "1", &more)
}

fn commands(command: &Command, path: &str, out: &mut String) {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        let path = format!("{path} {}", sub.get_name());
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        *out += &format!(".SS {}\n{}\n", escaped(&path), escaped(&about));
        for argument in sub.get_arguments().filter(|it| !it.is_hide_set() && !it.is_global_set()) {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            if !matches!(argument.get_id().as_str(), "help" | "version") {
                *out += &format!(".TP\n\\fB{}\\fR\n{}\n", escaped(&argument.to_string()), escaped(&help));
            }
        }
        commands(sub, &path, out);
    }
}

fn page(command: Command, section: &str, more: &str) -> io::Result<Vec<u8>> {
    let man = Man::new(command).section(section);
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    out.extend_from_slice(more.as_bytes());
    Ok(out)
}

fn see_also(pages: &str) -> String {
    format!(".SH SEE ALSO\n{pages}\n")
}

/// Text that roff takes for text.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_and_command_is_in_a_page() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path()).expect("written");
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).expect("a page");
        let (own, helper) = (read("s3mount.1"), read("mount.s3mount.8"));
        for (word, _) in option_words() {
            let long = word.split('=').next().unwrap_or(&word);
            assert!(own.contains(&escaped(&format!("--{long}"))), "--{long} is not in s3mount(1)");
            assert!(helper.contains(&escaped(long)), "{long} is not in mount.s3mount(8)");
        }
        for command in ["unmount", "status", "doctor", "recover push", "cloudwatch install"] {
            assert!(own.contains(&format!(".SS s3mount {command}\n")), "{command} is not in s3mount(1)");
        }
        assert!(!own.contains("make\\-manuals"));
        for name in ["s3mount.bash", "_s3mount", "s3mount.fish"] {
            assert!(read(name).contains("metadata-ttl"), "{name}");
        }
    }
}
