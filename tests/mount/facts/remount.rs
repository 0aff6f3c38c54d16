//! After all facts: the shared bucket of each server is mounted anew, and everything in it must be as it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};

use crate::harness::facts::sites;
use crate::harness::prelude::*;
use crate::harness::watchdog::Watched;

/// In a directory of more names only sizes are compared: thousands of small files would take a slow server a minute.
const READ_MAX: usize = 200;

/// What a path is: a directory, or a file of some fingerprint and length.
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
        let entries = fs::read_dir(&folder)?.collect::<std::io::Result<Vec<_>>>()?;
        let is_read = entries.len() <= READ_MAX;
        for entry in entries {
            let (path, kind) = (entry.path(), entry.file_type()?);
            let below = path.strip_prefix(top)?.to_owned();
            if kind.is_dir() {
                folders.push(path);
                tree.insert(below, None);
            } else if kind.is_file() {
                let found = if is_read { fingerprint(&path) } else { entry.metadata().map(|found| (0, found.len())) };
                let found = found.map_err(|error| Failure(format!("{}: {error}", path.display())))?;
                tree.insert(below, Some(found));
            }
        }
    }
    Ok(tree)
}
