//! After all facts: the shared bucket of each server is mounted anew, and everything in it must be as it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};

use crate::harness::facts::sites;
use crate::harness::prelude::*;
use crate::harness::watchdog::Watched;

/// What a path is: a directory, or a file of some length and fingerprint.
type Tree = BTreeMap<PathBuf, Option<(u64, u64)>>;

/// The trial of a server.
pub fn trial(kind: Kind) -> Trial {
    let name = format!("{kind}::remount::everything_is_as_it_was");
    Trial::test(name.clone(), move || {
        let watched = Watched::begin(&name, Duration::from_secs(240));
        everything_is_as_it_was(kind).map_err(|failure| Failed::from(format!("{}\n{}", failure.0, watched.logs())))
    })
}

fn everything_is_as_it_was(kind: Kind) -> Outcome {
    let mount = sites().mount(kind)?;
    crate::harness::watchdog::watch(&mount);
    let before = tree_of(&mount.dir)?;
    if before.is_empty() {
        return Err(Failure("the shared mount is empty".into()));
    }
    mount.remount()?;
    let after = tree_of(&mount.dir)?;
    let differing: Vec<_> = before
        .keys()
        .chain(after.keys())
        .filter(|path| before.get(*path) != after.get(*path))
        .map(|path| format!("{}: {:?}, then {:?}", path.display(), before.get(path), after.get(path)))
        .take(20)
        .collect();
    if differing.is_empty() { Ok(()) } else { Err(Failure(differing.join("\n"))) }
}

fn tree_of(top: &Path) -> Outcome<Tree> {
    let mut tree = Tree::new();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let (path, kind) = {
                let entry = entry?;
                (entry.path(), entry.file_type()?)
            };
            let below = path.strip_prefix(top)?.to_owned();
            if kind.is_dir() {
                folders.push(path);
                tree.insert(below, None);
            } else if kind.is_file() {
                let found = fingerprint(&path);
                let (hash, len) = found.map_err(|error| Failure(format!("{}: {error}", path.display())))?;
                tree.insert(below, Some((hash, len)));
            }
        }
    }
    Ok(tree)
}
