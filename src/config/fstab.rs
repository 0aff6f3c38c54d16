//! `-o` as mount(8) and fstab(5) write it: words parted by commas, `\,` for a comma inside a value, `_` and `-` alike.
//!
//! Every long option of the command line is a word here, for each is rewritten as one and read by clap. The words that
//! mount(8) itself deals with are accepted and need nothing from us. Anything else is refused with the nearest word that is
//! known.

use clap::{Args, Command};

use super::ConfigError;
use super::cli::MountArgs;

/// Words of mount(8), fstab(5) and systemd that are not for the file system, or that it grants anyway.
const ORDINARY: &[&str] = &[
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
    "nomand",
    "noiversion",
    "symfollow",
];

/// Words of mount(8) that ask for what a mount of ours is not.
const REFUSED: [(&str, &str); 5] = [
    ("sync", "close and fsync return when S3 has everything; each write alone would be a request. Leave it out"),
    ("dirsync", "fsync of a directory waits for S3, and no other call is made to. Leave it out"),
    ("mand", "Linux has no mandatory locks any more. Leave it out"),
    ("iversion", "S3 has no counter of changes. Leave it out"),
    ("nosymfollow", "it is not passed on to the kernel. Leave it out"),
];

/// Words by which mount(8) repeats what the kernel and libmount's table show of a mount, where fstab(5) has no line for it.
const SHOWN: &[&str] = &["user_id", "group_id", "max_read", "blksize", "fd", "rootmode", "subtype", "helper"];

/// The options of ours in a list that has the word `remount`: each with its value, without the words by which mount(8) says
/// what it has read from the kernel. `None` where the list asks for no remount.
pub(super) fn remount(list: &str) -> Option<String> {
    let words = split(list);
    if !words.iter().any(|word| word == "remount") {
        return None;
    }
    let name = |word: &str| word.split_once('=').map_or(word, |(name, _)| name).to_owned();
    let is_shown = words.iter().any(|word| name(word) == "user_id");
    // The kernel shows this for --allow-root, too.
    let repeated = |name: &str| SHOWN.contains(&name) || (is_shown && name == "allow_other");
    let kept = words.iter().filter(|word| *word != "remount" && !repeated(&name(word)));
    let escaped = kept.map(|word| word.replace('\\', "\\\\").replace(',', "\\,"));
    Some(escaped.collect::<Vec<_>>().join(","))
}

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

/// The arguments of the command line that a list of words stands for: `metadata_ttl=5s` is `--metadata-ttl=5s`. Where
/// `sloppy` is said, here or in the list, unknown words are passed over.
///
/// # Errors
/// A word that is unknown, that lacks its value, or that takes none.
pub(super) fn arguments(list: &str, sloppy: bool) -> Result<Vec<String>, ConfigError> {
    let known = MountArgs::augment_args(Command::new("s3mount"));
    let words = split(list);
    let sloppy = sloppy || words.iter().any(|word| word == "sloppy");
    let passed_over = |word: &Result<String, ConfigError>| sloppy && matches!(word, Err(ConfigError::Unknown { .. }));
    let read = words.iter().filter(|word| *word != "sloppy").filter_map(|word| one(word, &known).transpose());
    read.filter(|word| !passed_over(word)).collect()
}

/// One word; `None` if it needs nothing from us.
fn one(word: &str, known: &Command) -> Result<Option<String>, ConfigError> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    let name = if name == "_netdev" { name.to_owned() } else { name.replace('_', "-") };
    if ORDINARY.contains(&name.as_str()) || name.starts_with("x-") || name == "comment" {
        return Ok(None);
    }
    if let Some((_, why)) = REFUSED.iter().find(|(word, _)| *word == name) {
        return Err(ConfigError::Value(name, (*why).to_owned()));
    }
    let long = match name.as_str() {
        "ro" => "read-only",
        "rw" => "read-write",
        other => other,
    };
    let Some(option) = known.get_arguments().find(|option| option.get_long() == Some(long)) else {
        return Err(ConfigError::Unknown { nearest: nearest(&name, known, &ordinary()), name });
    };
    match (option.get_action().takes_values(), value) {
        (true, Some(value)) => Ok(Some(format!("--{long}={value}"))),
        (false, None) => Ok(Some(format!("--{long}"))),
        (true, None) => Err(ConfigError::Value(name.clone(), format!("write {name}=VALUE"))),
        (false, Some(_)) => Err(ConfigError::Value(name, "it takes no value".to_owned())),
    }
}

/// The words that are no long options.
fn ordinary() -> Vec<&'static str> {
    ORDINARY.iter().copied().chain(["ro", "rw", "exec", "noexec", "sloppy"]).collect()
}

/// The known word that looks most like `name`, if any does: a long option, or one of `others`.
pub(super) fn nearest(name: &str, known: &Command, others: &[&str]) -> Option<String> {
    let options = known.get_arguments().filter(|option| !option.is_hide_set()).filter_map(clap::Arg::get_long);
    let words = others.iter().copied().chain(options);
    let scored = words.map(|word| (strsim::damerau_levenshtein(name, word), word));
    scored.min().filter(|(distance, word)| *distance <= word.len().div_ceil(3)).map(|(_, word)| word.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_words_of_fstab_are_accepted() {
        let list = "_netdev,nofail,allow_other,ro,x-systemd.automount,comment=a b,uid=7";
        assert_eq!(arguments(list, false).expect("known words"), ["--allow-other", "--read-only", "--uid=7"]);
    }

    #[test]
    fn underscore_and_dash_are_alike() {
        assert_eq!(arguments("metadata_ttl=5s", false), arguments("metadata-ttl=5s", false));
    }

    #[test]
    fn an_unknown_word_is_refused_with_the_nearest() {
        let nearest = |word: &str| match arguments(word, false) {
            Err(ConfigError::Unknown { nearest, .. }) => nearest,
            other => panic!("{word}: {other:?}"),
        };
        assert_eq!(nearest("alow_other").as_deref(), Some("allow-other"));
        assert_eq!(nearest("zebra"), None);
        assert!(matches!(arguments("region", false), Err(ConfigError::Value(..))));
        assert!(matches!(arguments("allow_other=yes", false), Err(ConfigError::Value(..))));
    }

    #[test]
    fn words_of_mount_8_that_cannot_be_granted_say_why() {
        for (word, why) in REFUSED {
            let refused = arguments(word, false).expect_err(word).to_string();
            assert!(refused == format!("bad value for {word}: {why}"), "{refused}");
        }
        assert_eq!(arguments("nomand,nonempty", false).expect("known words"), ["--nonempty"]);
    }

    proptest! {
        #[test]
        fn a_value_with_commas_survives_its_escapes(value in "[a-z,\\\\]{1,20}") {
            let escaped = value.replace('\\', "\\\\").replace(',', "\\,");
            let words = arguments(&format!("ro,profile={escaped},allow_other"), false).expect("known words");
            prop_assert_eq!(words, ["--read-only".to_owned(), format!("--profile={value}"), "--allow-other".to_owned()]);
        }
    }
}
