//! `-o` as mount(8) and fstab(5) write it: words parted by commas, `\,` for a comma inside a value, `_` and `-` alike.
//!
//! Every long option of the command line is a word here. The words that mount(8) itself deals with are accepted and need
//! nothing from us. Anything else is refused with the nearest word that is known.

use super::ConfigError;
use super::cli::MountArgs;

/// Words of mount(8), fstab(5) and systemd that are not for the file system, or that it grants anyway.
const ORDINARY: &[&str] = &[
    "rw",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "nousers",
    "owner",
    "group",
    "_netdev",
    "nofail",
    "defaults",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "async",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "lazytime",
    "nolazytime",
    "silent",
    "loud",
    "default-permissions",
    "nonempty",
];

/// Words that mean an option.
const FLAGS: &[&str] =
    &["ro", "read-only", "allow-other", "allow-root", "no-sign-request", "force-path-style", "foreground"];
const VALUES: &[&str] = &[
    "endpoint-url",
    "region",
    "profile",
    "uid",
    "gid",
    "file-mode",
    "dir-mode",
    "metadata-ttl",
    "memory-limit",
    "part-size",
    "max-concurrency",
    "log-level",
    "log-file",
    "state-dir",
];

/// Parts a list at its commas, but for those behind a backslash.
fn split(list: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut letters = list.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ',' => words.push(String::new()),
            '\\' => match letters.next() {
                Some(next @ (',' | '\\')) => words.last_mut().expect("one is there from the start").push(next),
                Some(next) => words.last_mut().expect("one is there from the start").extend(['\\', next]),
                None => words.last_mut().expect("one is there from the start").push('\\'),
            },
            _ => words.last_mut().expect("one is there from the start").push(letter),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Enters a list of words into the arguments.
pub(super) fn apply(list: &str, arguments: &mut MountArgs) -> Result<(), ConfigError> {
    for word in split(list) {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word.as_str(), None),
        };
        let name = if name == "_netdev" { name.to_owned() } else { name.replace('_', "-") };
        one(&name, value, arguments)?;
    }
    Ok(())
}

fn one(name: &str, value: Option<&str>, arguments: &mut MountArgs) -> Result<(), ConfigError> {
    if ORDINARY.contains(&name) || name.starts_with("x-") || name == "comment" {
        if name == "rw" && arguments.read_only {
            return Err(ConfigError::Contradiction("rw", "read-only"));
        }
        return Ok(());
    }
    if FLAGS.contains(&name) {
        if value.is_some() {
            return Err(ConfigError::Value(name.to_owned(), "it takes no value".to_owned()));
        }
        match name {
            "ro" | "read-only" => arguments.read_only = true,
            "allow-other" => arguments.allow_other = true,
            "allow-root" => arguments.allow_root = true,
            "no-sign-request" => arguments.s3.no_sign_request = true,
            "force-path-style" => arguments.s3.force_path_style = true,
            _ => arguments.foreground = true,
        }
        return Ok(());
    }
    let Some(value) = value.filter(|_| VALUES.contains(&name)) else {
        if VALUES.contains(&name) {
            return Err(ConfigError::Value(name.to_owned(), format!("write {name}=VALUE")));
        }
        return Err(ConfigError::Unknown { name: name.to_owned(), nearest: nearest(name) });
    };
    let number = |value: &str| {
        value.parse().map_err(|_| ConfigError::Value(name.to_owned(), format!("{value} is not a number")))
    };
    let text = || Some(value.to_owned());
    match name {
        "endpoint-url" => arguments.s3.endpoint_url = text(),
        "region" => arguments.s3.region = text(),
        "profile" => arguments.s3.profile = text(),
        "uid" => arguments.uid = Some(number(value)?),
        "gid" => arguments.gid = Some(number(value)?),
        "file-mode" => arguments.file_mode = text(),
        "dir-mode" => arguments.dir_mode = text(),
        "metadata-ttl" => arguments.metadata_ttl = text(),
        "memory-limit" => arguments.memory_limit = text(),
        "part-size" => arguments.part_size = text(),
        "max-concurrency" => arguments.max_concurrency = Some(number(value)? as usize),
        "log-level" => arguments.log_level = text(),
        "log-file" => arguments.log_file = Some(value.into()),
        _ => arguments.state_dir = Some(value.into()),
    }
    Ok(())
}

/// The known word that looks most like `name`, if any does.
fn nearest(name: &str) -> Option<&'static str> {
    let known = ORDINARY.iter().chain(FLAGS).chain(VALUES);
    let scored = known.map(|word| (strsim::damerau_levenshtein(name, word), *word));
    scored.min().filter(|(distance, word)| *distance <= word.len().div_ceil(3)).map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(list: &str) -> Result<MountArgs, ConfigError> {
        let mut arguments = MountArgs::default();
        apply(list, &mut arguments).map(|()| arguments)
    }

    #[test]
    fn the_words_of_fstab_are_accepted() {
        let arguments =
            read("_netdev,nofail,allow_other,ro,x-systemd.automount,comment=a b,uid=7").expect("known words");
        assert!(arguments.allow_other && arguments.read_only);
        assert_eq!(arguments.uid, Some(7));
    }

    #[test]
    fn underscore_and_dash_are_alike() {
        assert_eq!(
            read("metadata_ttl=5s").expect("known").metadata_ttl,
            read("metadata-ttl=5s").expect("known").metadata_ttl
        );
    }

    #[test]
    fn an_unknown_word_is_refused_with_the_nearest() {
        assert!(matches!(read("alow_other"), Err(ConfigError::Unknown { nearest: Some("allow-other"), .. })));
        assert!(matches!(read("zebra"), Err(ConfigError::Unknown { nearest: None, .. })));
        assert!(matches!(read("region"), Err(ConfigError::Value(..))));
        assert!(matches!(read("uid=seven"), Err(ConfigError::Value(..))));
    }

    proptest! {
        #[test]
        fn a_value_with_commas_survives_its_escapes(value in "[a-z,\\\\]{1,20}") {
            let escaped = value.replace('\\', "\\\\").replace(',', "\\,");
            let arguments = read(&format!("ro,profile={escaped},allow_other")).expect("known words");
            prop_assert_eq!(arguments.s3.profile, Some(value));
            prop_assert!(arguments.read_only && arguments.allow_other);
        }
    }
}
