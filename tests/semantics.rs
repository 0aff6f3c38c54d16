//! docs/SEMANTICS.md tells users what holds; every heading names the tests that hold it, and every test that it names is
//! there.

use std::fs;
use std::path::{Path, PathBuf};

/// How a line begins that names tests.
const HELD_BY: &str = "Held by ";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A heading with the tests under it.
fn headings(document: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let mut naming = false;
    for line in document.lines() {
        if let Some(heading) = line.strip_prefix("## ").or_else(|| line.strip_prefix("### ")) {
            found.push((heading.to_owned(), Vec::new()));
        }
        naming = line.starts_with(HELD_BY) || (naming && !line.trim().is_empty());
        if naming && let Some((_, tests)) = found.last_mut() {
            tests.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

/// Whether `room::..::name` is a function of that name in a file of the room: of the mount suite, of src, or of tests.
fn exists(test: &str) -> bool {
    let Some((path, name)) = test.rsplit_once("::") else { return false };
    let room = path.split("::").next().unwrap_or(path);
    let places = ["tests/mount/facts", "src", "tests"].map(|folder| root().join(folder));
    let named = format!("fn {name}(");
    places.iter().any(|place| has(&place.join(format!("{room}.rs")), &named) || folder_has(&place.join(room), &named))
}

fn has(file: &Path, text: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|found| found.contains(text))
}

fn folder_has(folder: &Path, text: &str) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| if path.is_dir() { folder_has(&path, text) } else { has(&path, text) })
}

#[test]
fn every_heading_names_tests_that_exist() {
    let document = fs::read_to_string(root().join("docs/SEMANTICS.md")).expect("docs/SEMANTICS.md is there");
    let headings = headings(&document);
    assert!(headings.len() > 10, "only {} headings", headings.len());
    let mut wrong = Vec::new();
    for (heading, tests) in headings {
        if tests.is_empty() {
            wrong.push(format!("\"{heading}\" names no test"));
        }
        wrong.extend(tests.iter().filter(|test| !exists(test)).map(|test| format!("\"{heading}\" names {test}")));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_heading_without_a_test_and_a_test_that_is_not_there_are_found() {
    let document = "# Title\n\n## One\n\nText with `code`.\n\nHeld by `names::korean_and_emoji_names`,\n`names::no_such`.\n\n## Two\n";
    let found = headings(document);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].1, ["names::korean_and_emoji_names", "names::no_such"]);
    assert!(found[1].1.is_empty());
    assert!(exists("names::korean_and_emoji_names"));
    assert!(!exists("names::no_such"));
}
