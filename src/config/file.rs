//! A mount's file, `/etc/s3mount/NAME.toml`: the long options of the command line as keys, and `source` and `dir`.
//!
//! There is no second definition of an option: each key is rewritten as the long option of its name and read by clap, as
//! each word behind `-o` is. What the command line says goes before the file. Keys that are unknown are refused, with the
//! nearest that is known and the line.

use std::path::{Path, PathBuf};

use clap::{Arg, Args, Command, Parser};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::cli::{Cli, MountArgs};
use super::fstab::nearest;

/// Where files are looked for by name.
const FOLDER: &str = "/etc/s3mount";
/// Long options that make no sense in a file: which file, and what the caller alone knows.
const NOT_IN_A_FILE: &[&str] = &["config", "foreground"];

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct File {
    /// Bucket and prefix.
    pub(super) source: Option<String>,
    /// Directory to mount on.
    pub(super) dir: Option<PathBuf>,
    /// Everything else, as arguments of the command line.
    pub(super) arguments: Vec<String>,
}

/// Where the file is that `--config` names: a path has a slash in it, a name has none.
pub(super) fn path(name: &str) -> PathBuf {
    if name.contains('/') { PathBuf::from(name) } else { Path::new(FOLDER).join(format!("{name}.toml")) }
}

/// Reads a file.
///
/// # Errors
/// It cannot be read, is no TOML, or a key or a value is not one of ours: with the line.
pub(super) fn read(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::File {
        place: path.display().to_string(),
        why: match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file: write one, or name another with --config".into(),
            _ => error.to_string(),
        },
    })?;
    parse(&text).map_err(|(line, why)| ConfigError::File { place: format!("{}:{line}", path.display()), why })
}

/// What a text says; an error has its line.
fn parse(text: &str) -> Result<File, (usize, String)> {
    let line = |at: usize| text.get(..at).unwrap_or(text).lines().count().max(1);
    let line_of = |at: usize| if text.get(..at).is_some_and(|it| it.ends_with('\n')) { line(at) + 1 } else { line(at) };
    let table = DeTable::parse(text)
        .map_err(|error| (line_of(error.span().map_or(0, |span| span.start)), error.message().to_owned()))?;
    let known = MountArgs::augment_args(Command::new("s3mount"));
    let mut file = File::default();
    for (key, value) in table.get_ref() {
        let at = line_of(key.span().start);
        add(&mut file, &key.get_ref().replace('_', "-"), value, &known).map_err(|error| (at, error))?;
    }
    Ok(file)
}

fn add(file: &mut File, key: &str, value: &Spanned<DeValue<'_>>, known: &Command) -> Result<(), String> {
    let value = value.get_ref();
    if matches!(key, "source" | "dir") {
        let Some(text) = value.as_str() else { return Err(format!("{key} is a string: write {key} = \"..\"")) };
        match key {
            "source" => file.source = Some(text.to_owned()),
            _ => file.dir = Some(PathBuf::from(text)),
        }
        return Ok(());
    }
    let option = known.get_arguments().find(|option| option.get_long() == Some(key) && !option.is_hide_set());
    let Some(option) = option.filter(|_| !NOT_IN_A_FILE.contains(&key)) else {
        let nearest = nearest(key, known, &["source", "dir"]).filter(|near| !NOT_IN_A_FILE.contains(&&**near));
        return Err(ConfigError::Unknown { nearest, name: key.to_owned() }.to_string());
    };
    if !option.get_action().takes_values() {
        match value.as_bool() {
            Some(true) => file.arguments.push(format!("--{key}")),
            Some(false) => {}
            None => return Err(format!("{key} is true or false")),
        }
        return Ok(());
    }
    let said = match value.as_array() {
        Some(_) if !takes_a_list(option) => return Err(format!("{key} is one value: write it without brackets")),
        Some(values) => values.iter().map(|value| scalar(value.get_ref())).collect::<Option<Vec<_>>>(),
        None => scalar(value).map(|value| vec![value]),
    };
    let Some(said) = said else {
        return Err(format!("{key} is a string or a number, not {}", value.type_str()));
    };
    let argument = format!("--{key}={}", said.join(","));
    // Alone first, so that what is wrong is said with its line.
    if let Err(error) = Cli::try_parse_from(["s3mount", &argument]) {
        let said = error.to_string();
        let first = said.lines().next().unwrap_or_default();
        return Err(first.trim_start_matches("error: ").to_owned());
    }
    file.arguments.push(argument);
    Ok(())
}

/// Whether an option takes values parted by commas: its value is then called `NAME[,...]`.
fn takes_a_list(option: &Arg) -> bool {
    option.get_value_names().is_some_and(|names| names.iter().any(|name| name.ends_with("[,...]")))
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        // 0o640 is a mode like 640.
        DeValue::Integer(number) if number.radix() == 8 => Some(number.as_str().to_owned()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MountConfig;

    fn wrong(text: &str) -> (usize, String) {
        parse(text).expect_err("something is wrong with it")
    }

    #[test]
    fn each_key_is_the_long_option_of_its_name() {
        let text = "source = \"s3://bucket/p\"\ndir = '/mnt'\nallow_other = true\nread-only = false\nuid = 7\n\
                    file-mode = 0o640\nmetadata-ttl = \"5s\"\n";
        let file = parse(text).expect("a good file");
        assert_eq!((file.source.as_deref(), file.dir.as_deref()), (Some("s3://bucket/p"), Some(Path::new("/mnt"))));
        assert_eq!(file.arguments, ["--allow-other", "--file-mode=640", "--metadata-ttl=5s", "--uid=7"]);
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_and_its_line() {
        let (line, why) = wrong("# a comment\n\nsorce = \"b\"\n");
        assert_eq!((line, &*why), (3, "unknown option \"sorce\"; did you mean \"source\"?"));
        let (line, why) = wrong("source = \"b\"\nmetadata_tll = \"1s\"");
        assert_eq!((line, &*why), (2, "unknown option \"metadata-tll\"; did you mean \"metadata-ttl\"?"));
        assert!(wrong("foreground = true").1.contains("unknown"));
        assert!(wrong("config = 'x'").1.contains("unknown"));
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_refused_with_its_line() {
        assert_eq!(wrong("uid = 1\nread-only = 'yes'"), (2, "read-only is true or false".to_owned()));
        assert_eq!(wrong("\n\nuid = 'root'").0, 3);
        assert_eq!(wrong("[uid]\na = 1").0, 1);
        assert_eq!(wrong("source = 1"), (1, "source is a string: write source = \"..\"".to_owned()));
        assert_eq!(wrong("uid = 1\nuid = ").0, 2);
    }

    #[test]
    fn an_array_is_a_list_where_the_option_takes_one() {
        let file = parse("cloudwatch-dimensions = ['Bucket', 'MountName']").expect("a good file");
        assert_eq!(file.arguments, ["--cloudwatch-dimensions=Bucket,MountName"]);
        assert_eq!(wrong("\nuid = [1, 2]"), (2, "uid is one value: write it without brackets".to_owned()));
        assert_eq!(wrong("profile = ['only']").1, "profile is one value: write it without brackets");
        assert!(wrong("cloudwatch-dimensions = [['Bucket']]").1.contains("is a string or a number"));
    }

    #[test]
    fn what_contradicts_the_command_line_is_not_heard() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("data.toml");
        let config = |text: &str, words: &[&str]| {
            std::fs::write(&path, format!("source = 's3://bucket'\ndir = '/mnt'\n{text}\n")).expect("written");
            let named = ["s3mount".into(), "--config".into(), path.clone().into_os_string()];
            let cli = Cli::read(named.into_iter().chain(words.iter().map(Into::into))).expect("good words");
            MountConfig::new(cli.mount, (0, 0))
        };
        let writable = config("read-only = true", &["-o", "rw"]).expect("rw goes before the file");
        assert!(!writable.read_only);
        let for_root = config("allow-other = true", &["--allow-root"]).expect("the command line goes before the file");
        assert!(for_root.allow_root && !for_root.allow_other);
        let for_all =
            config("allow-root = true", &["-o", "allow_other"]).expect("the command line goes before the file");
        assert!(for_all.allow_other && !for_all.allow_root);
        let signed =
            config("no-sign-request = true", &["--profile", "p"]).expect("the command line goes before the file");
        assert!(!signed.s3.no_sign_request);
        let public = config("profile = 'p'", &["--no-sign-request"]).expect("the command line goes before the file");
        assert_eq!((public.s3.no_sign_request, public.s3.profile), (true, None));
        // What one of them says twice is a contradiction as before.
        assert!(config("allow-other = true\nallow-root = true", &[]).is_err());
        assert!(config("uid = 1", &["--read-only", "-o", "rw"]).is_err());
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("data.toml");
        std::fs::write(&path, "source = 's3://bucket'\ndir = '/mnt'\nuid = 1\ngid = 2\nallow-other = true\n")
            .expect("written");
        let config = |words: &[&str]| {
            let named = ["s3mount".into(), "--config".into(), path.clone().into_os_string()];
            let cli = Cli::read(named.into_iter().chain(words.iter().map(Into::into))).expect("good words");
            MountConfig::new(cli.mount, (0, 0)).expect("a good mount")
        };
        let plain = config(&[]);
        assert_eq!((&*plain.source, &*plain.dir, plain.allow_other), ("s3://bucket", Path::new("/mnt"), true));
        assert_eq!((plain.defaults.uid, plain.defaults.gid), (1, 2));
        let said = config(&["--uid", "3", "-o", "gid=4", "other-bucket", "/other"]);
        assert_eq!((&*said.bucket, &*said.dir), ("other-bucket", Path::new("/other")));
        assert_eq!((said.defaults.uid, said.defaults.gid), (3, 4));
    }

    #[test]
    fn a_file_is_named_by_its_mount_or_by_its_path() {
        assert_eq!(path("data"), Path::new("/etc/s3mount/data.toml"));
        assert_eq!(path("./data.toml"), Path::new("./data.toml"));
        let missing = read(Path::new("/no/such.toml")).expect_err("it is not there");
        assert!(missing.to_string().starts_with("/no/such.toml: there is no such file"), "{missing}");
    }
}
