//! Paths and keys: which key spells which path. Pure.
//!
//! The rule, held by the tests below:
//!
//! - **Shown.** A key is the mount's prefix and then names, each of 1 to 255 bytes, parted by single `/`. `a/b` is the file
//!   `b` in the directory `a`. A key that ends in `/` is the marker of a directory; what it holds is not shown.
//! - **Shadowed.** Where a file `a` and keys below `a/` exist, the directory is shown and the file is not, as long as the
//!   directory lives.
//! - **Hidden.** Keys with an empty name (`//`, or a leading `/`), with a name `.` or `..`, with a NUL, or with a name over
//!   255 bytes have no path. They are left untouched, and a directory is empty without regard to them only if they are
//!   not below it: what is hidden is never deleted in silence.
//!
//! A path whose name is not UTF-8, or whose key would be over 1024 bytes, cannot be stored.

use crate::types::ObjectKey;

/// Longest name in bytes (NAME_MAX of Linux).
pub(super) const NAME_BYTES_MAX: usize = 255;

/// Why a name cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameError {
    /// Empty, a dot, two dots, or with a `/` or NUL inside.
    Invalid,
    /// Over [`NAME_BYTES_MAX`] bytes, or its key over 1024.
    TooLong,
}

/// Whether a single name can be shown.
pub(super) fn check_name(name: &str) -> Result<(), NameError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong);
    }
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(NameError::Invalid);
    }
    Ok(())
}

/// The key of the file `name` in the directory whose keys begin with `directory` (empty, or ending in `/`).
pub(super) fn file_key(directory: &str, name: &str) -> Result<String, NameError> {
    check_name(name)?;
    let key = format!("{directory}{name}");
    if key.len() > ObjectKey::LEN_BYTES_MAX { Err(NameError::TooLong) } else { Ok(key) }
}

/// The beginning of all keys in the directory `name`: also the key of its marker.
pub(super) fn directory_key(directory: &str, name: &str) -> Result<String, NameError> {
    let mut key = file_key(directory, name)?;
    key.push('/');
    if key.len() > ObjectKey::LEN_BYTES_MAX { Err(NameError::TooLong) } else { Ok(key) }
}

/// What a key below a directory means to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// The marker of the directory itself.
    Marker,
    /// A file in it.
    File(&'a str),
    /// Something in a directory in it, or that directory's marker.
    Directory(&'a str),
    /// Nothing that has a path.
    Hidden,
}

/// What `key` means to the directory whose keys begin with `directory`; `None` if it is not below it.
pub(super) fn meaning<'a>(directory: &str, key: &'a str) -> Option<Meaning<'a>> {
    let rest = key.strip_prefix(directory)?;
    if rest.is_empty() {
        return Some(Meaning::Marker);
    }
    let (name, below) = match rest.split_once('/') {
        Some((name, _)) => (name, true),
        None => (rest, false),
    };
    Some(match check_name(name) {
        Err(_) => Meaning::Hidden,
        Ok(()) if below => Meaning::Directory(name),
        Ok(()) => Meaning::File(name),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = String> {
        prop_oneof!["[a-c]{1,3}", "[ -~]{1,20}", "\\PC{1,8}"]
            .prop_filter("a name that can be shown", |name| check_name(name).is_ok())
    }

    /// The path of a key, as walking down the directories shows it.
    fn path(key: &str) -> Option<Vec<String>> {
        let mut directory = String::new();
        let mut names = Vec::new();
        loop {
            match meaning(&directory, key)? {
                Meaning::Marker => return Some(names),
                Meaning::Hidden => return None,
                Meaning::File(name) => {
                    names.push(name.to_owned());
                    return Some(names);
                }
                Meaning::Directory(name) => {
                    names.push(name.to_owned());
                    directory = directory_key(&directory, name).ok()?;
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_path_and_its_key_name_each_other(names in prop::collection::vec(name(), 1..6)) {
            let (last, parents) = names.split_last().expect("at least one name");
            let directory = parents.iter().try_fold(String::new(), |directory, name| directory_key(&directory, name));
            if let Ok(key) = directory.and_then(|directory| file_key(&directory, last)) {
                prop_assert_eq!(path(&key), Some(names));
            }
        }

        #[test]
        fn a_key_without_a_path_is_hidden_and_one_with_a_path_spells_it(key in "[a./\\x00]{1,12}") {
            if let Some(names) = path(&key) {
                prop_assert_eq!(names.join("/"), key.strip_suffix('/').unwrap_or(&key));
            }
        }
    }

    #[test]
    fn odd_keys_are_hidden() {
        for key in ["//a", "/a", "./a", "../a", "."] {
            assert_eq!(meaning("", key), Some(Meaning::Hidden), "{key}");
        }
        assert_eq!(meaning("d/", "d//x"), Some(Meaning::Hidden));
        assert_eq!(meaning("d/", "d/"), Some(Meaning::Marker));
        assert_eq!(meaning("d/", "e"), None);
        assert_eq!(meaning("", &"n".repeat(256)), Some(Meaning::Hidden));
    }

    #[test]
    fn a_key_over_1024_bytes_is_refused() {
        let directory = format!("{}/", "d".repeat(1000));
        assert_eq!(file_key(&directory, &"n".repeat(24)), Err(NameError::TooLong));
        assert!(file_key(&directory, &"n".repeat(23)).is_ok());
        assert_eq!(directory_key(&directory, &"n".repeat(23)), Err(NameError::TooLong));
    }
}
