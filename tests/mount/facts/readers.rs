//! Programs that read data for a living, unchanged: what they find in the mount is what they find on a local disk.
//!
//! `tests/readers/readers.py` makes the data of a reader, with a fixed seed, and runs the reader over a folder. Each fact
//! runs one over the local folder and over a fresh mount of the same bytes, and compares what they print.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::place::checked;
use crate::harness::prelude::*;
use crate::harness::process::{cache_dir, find};

pub fn facts() -> Vec<Fact> {
    let facts = vec![
        own!(duckdb_queries_parquet),
        own!(duckdb_queries_csv),
        own!(pandas_reads_csv_and_parquet),
        own!(pyarrow_datasets_are_read_with_threads),
        own!(a_shuffled_loader_of_eight_processes),
        own!(grep_tar_find_and_du),
        own!(random_reads_of_maps_in_several_processes),
        own!(sqlite_reads_only),
    ];
    facts.into_iter().map(|fact| fact.on(SIM).seconds(180)).collect()
}

fn duckdb_queries_parquet(c: &Context) -> Outcome {
    same_as_local(c, "duckdb_parquet")
}

fn duckdb_queries_csv(c: &Context) -> Outcome {
    same_as_local(c, "duckdb_csv")
}

fn pandas_reads_csv_and_parquet(c: &Context) -> Outcome {
    same_as_local(c, "pandas")
}

fn pyarrow_datasets_are_read_with_threads(c: &Context) -> Outcome {
    same_as_local(c, "pyarrow")
}

fn a_shuffled_loader_of_eight_processes(c: &Context) -> Outcome {
    same_as_local(c, "loader")
}

fn grep_tar_find_and_du(c: &Context) -> Outcome {
    same_as_local(c, "shell")
}

fn random_reads_of_maps_in_several_processes(c: &Context) -> Outcome {
    same_as_local(c, "mmap")
}

fn sqlite_reads_only(c: &Context) -> Outcome {
    same_as_local(c, "sqlite")
}

/// Workers that put a data set.
const PUTS: usize = 8;

fn same_as_local(c: &Context, reader: &str) -> Outcome {
    // What scripts/test installed; readers that need none of it run on any Python.
    let installed = cache_dir().join("readers/bin/python3");
    let Some(python) = Some(installed).filter(|it| it.is_file()).or_else(|| find("python3", &[])) else {
        return skip("no python3");
    };
    let local = tempfile::tempdir()?;
    let missing = run_reader(&python, "missing", reader, local.path())?;
    if !missing.trim().is_empty() {
        return skip(&format!("no {}: scripts/test installs it", missing.trim()));
    }
    run_reader(&python, "make", reader, local.path())?;
    let p = c.mount(&["--read-only"])?;
    put_all(&p, local.path())?;
    let expected = run_reader(&python, "read", reader, local.path())?;
    assert!(expected.lines().count() >= 2, "the reader found nothing: {expected}");
    let found = run_reader(&python, "read", reader, &p.dir)?;
    assert_eq!(found, expected);
    Ok(())
}

fn run_reader(python: &Path, action: &str, reader: &str, folder: &Path) -> Outcome<String> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers/readers.py");
    let mut command = Command::new(python);
    // No user's site-packages, no bytecode beside the source.
    command.args(["-s", "-B"]).arg(program).args([action, reader]).arg(folder);
    checked(&run(&mut command)?)
}

/// Puts every file under its path, past the mount.
fn put_all(p: &Place, local: &Path) -> Outcome {
    let mut files = Vec::new();
    let mut folders = vec![local.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    let put = |share: &[PathBuf]| -> Outcome {
        for path in share {
            let key = path.strip_prefix(local)?.to_string_lossy().into_owned();
            p.foreign_put_unseen(&key, fs::read(path)?)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let shares: Vec<_> = files.chunks(files.len().div_ceil(PUTS)).map(|share| scope.spawn(|| put(share))).collect();
        shares.into_iter().try_for_each(|worker| worker.join().expect("a worker reports what failed"))
    })
}
