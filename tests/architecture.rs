//! The rules of the house, held against the source: who imports whom, where foreign types stay, how files are written.
//!
//! Reads text, not syntax trees: comments, strings and test code are cut out first, then paths are looked for. The tests
//! at the end show that each rule can fail.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The ground floor: importable by every room.
const GROUND: [&str; 5] = ["types", "clock", "config", "memory", "metrics"];

/// Who may import whom, the ground floor aside (docs/ARCHITECTURE.md).
const TABLE: [(&str, &[&str]); 17] = [
    ("types", &[]),
    ("clock", &[]),
    ("config", &[]),
    ("memory", &[]),
    ("metrics", &[]),
    ("store", &[]),
    ("cache", &[]),
    ("namespace", &["store"]),
    ("read", &["cache", "store"]),
    ("write", &["store"]),
    // Of the store, fs names errors and what objects are; it never asks S3 itself.
    ("fs", &["namespace", "read", "write", "store"]),
    ("fuse", &["fs"]),
    ("ec2", &[]),
    ("export", &[]),
    ("lifecycle", &["store", "cache", "namespace", "read", "write", "fs", "fuse", "ec2", "export"]),
    ("commands", &["lifecycle", "export", "store"]),
    ("main", &["commands", "lifecycle"]),
];

/// What each floor of the ground may import of the ground: nothing that stands on it.
const GROUND_TABLE: [(&str, &[&str]); 5] = [
    ("types", &[]),
    ("clock", &["types"]),
    ("config", &["types", "clock"]),
    ("metrics", &["types", "clock"]),
    ("memory", &["types", "clock", "config", "metrics"]),
];

/// Where the AWS SDK may be named.
const AWS: [&str; 3] = ["src/store/s3", "src/export/cloudwatch", "src/commands/cloudwatch"];

/// Lines of a file, its tests included.
const LINES_MAX: usize = 500;

/// One source file: its path in the repository, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The room, which is the first folder or file below src.
    fn room(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path);
        below.split('/').next().unwrap_or(below).trim_end_matches(".rs")
    }

    /// The path of its module, crate root excluded.
    fn module(&self) -> Vec<&str> {
        let below = self.path.strip_prefix("src/").unwrap_or(&self.path).trim_end_matches(".rs");
        let mut parts: Vec<_> = below.split('/').collect();
        if parts.last() == Some(&"mod") {
            parts.pop();
        }
        parts
    }

    /// Whether the file is test code as a whole.
    fn is_tests(&self) -> bool {
        !self.path.starts_with("src/") || self.path.split('/').any(|part| matches!(part, "tests" | "tests.rs"))
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders: Vec<_> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("sources are UTF-8");
                found.push(Source { path: repository_path(&path), text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn repository_path(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned()
}

/// The code alone: comments and the insides of strings are blanked, `#[cfg(test)]` items are cut out. Lines stay lines.
fn code(text: &str) -> String {
    without_tests(&blanked(text))
}

fn blanked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = if rest.starts_with(b"//") {
            at + rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            at + find(rest, b"*/").map_or(rest.len(), |n| n + 2)
        } else if rest[0] == b'"' {
            string_end(bytes, at)
        } else if let Some(hashes) = raw_string(rest) {
            let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
            let open = hashes + 2;
            at + find(&rest[open..], &close).map_or(rest.len(), |n| open + n + close.len())
        } else if rest.starts_with(b"'\"'") || rest.starts_with(b"'{'") || rest.starts_with(b"'}'") {
            at + 3
        } else if rest.starts_with(b"b'\"'") {
            at + 4
        } else {
            out.push(char::from(rest[0]));
            at += 1;
            continue;
        };
        out.extend(bytes[at..end].iter().filter(|&&b| b == b'\n').map(|&b| char::from(b)));
        out.push(' ');
        at = end;
    }
    out
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest.strip_prefix(b"r")?.iter().take_while(|&&b| b == b'#').count();
    (rest.get(1 + hashes) == Some(&b'"')).then_some(hashes)
}

fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::new();
    let mut rest = code;
    while let Some(start) = rest.find(MARK) {
        out += &rest[..start];
        rest = &rest[start + MARK.len()..];
        let mut depth = 0_usize;
        let mut end = rest.len();
        for (at, byte) in rest.bytes().enumerate() {
            match byte {
                b'{' => depth += 1,
                b'}' if depth <= 1 => {
                    end = at + 1;
                    break;
                }
                b'}' => depth -= 1,
                b';' if depth == 0 => {
                    end = at + 1;
                    break;
                }
                _ => {}
            }
        }
        rest = &rest[end..];
    }
    out + rest
}

/// The rooms that a file names by `crate::room` or by `super` beyond its own room.
fn imports(source: &Source) -> Vec<String> {
    let code: String = code(&source.text).split_whitespace().collect::<Vec<_>>().join(" ").replace(" :: ", "::");
    let mut rooms = Vec::new();
    for (at, word) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        let before = code[..at].bytes().next_back();
        if before.is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':' | b'$')) {
            continue;
        }
        let mut tail = &code[at + word.len()..];
        if word == "super::" {
            let mut module = source.module();
            module.pop();
            while let Some(next) = tail.strip_prefix("super::") {
                tail = next;
                module.pop();
            }
            if !module.is_empty() {
                continue;
            }
        }
        rooms.extend(first_segments(tail));
    }
    rooms.sort();
    rooms.dedup();
    rooms
}

/// `a::b` gives a; `{a::{b, c}, d}` gives a and d.
fn first_segments(path: &str) -> Vec<String> {
    let name = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth > 0 => depth -= 1,
            b',' if depth == 0 => {
                found.push(name(&group[start..at]));
                start = at + 1;
            }
            b'}' => {
                found.push(name(&group[start..at]));
                break;
            }
            _ => {}
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

/// Every import that the table does not allow.
fn forbidden_imports(sources: &[Source]) -> Vec<String> {
    let table: BTreeMap<_, _> = TABLE.into_iter().collect();
    let ground: BTreeMap<_, _> = GROUND_TABLE.into_iter().collect();
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|s| s.path.starts_with("src/") && !s.is_tests() && s.room() != "lib") {
        let room = source.room();
        let Some(allowed) = table.get(room) else {
            wrong.push(format!("{}: the room {room} is not in the table", source.path));
            continue;
        };
        for other in imports(source) {
            let known = table.contains_key(&*other);
            let fine = match ground.get(room) {
                Some(below) => below.contains(&&*other),
                None => GROUND.contains(&&*other) || allowed.contains(&&*other),
            };
            if known && other != room && !fine {
                wrong.push(format!("{}: {room} may not import {other}", source.path));
            }
        }
    }
    wrong
}

/// Every place that names something that belongs elsewhere.
fn strays(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|s| s.path.starts_with("src/") && !s.is_tests()) {
        for (number, line) in code(&source.text).lines().enumerate() {
            let mut stray = |what: &str| wrong.push(format!("{}:{}: {what}", source.path, number + 1));
            if line.contains("aws_") && !AWS.iter().any(|place| source.path.starts_with(place)) {
                stray("the AWS SDK stays in the S3 store and in CloudWatch");
            }
            if line.contains("fuser::") && source.room() != "fuse" {
                stray("fuser stays in fuse");
            }
            if line.contains(".unwrap()") {
                stray("expect(\"why this holds\") instead of unwrap()");
            }
            let reads = ["Instant::now", "SystemTime::now", "clock_gettime"].iter().any(|read| line.contains(read));
            if reads && source.room() != "clock" {
                stray("only Clock reads the time");
            }
        }
    }
    wrong
}

/// Every file that is too long or does not say what it is.
fn shapeless(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        let lines = source.text.lines().count();
        if lines >= LINES_MAX {
            wrong.push(format!("{}: {lines} lines, under {LINES_MAX} wanted", source.path));
        }
        if !source.text.starts_with("//!") {
            wrong.push(format!("{}: does not open with //!", source.path));
        }
    }
    wrong
}

fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn rooms_import_only_what_the_table_allows() {
    none(&forbidden_imports(&sources(&["src"])));
}

#[test]
fn foreign_types_clock_reads_and_unwraps_stay_where_they_belong() {
    none(&strays(&sources(&["src"])));
}

#[test]
fn files_are_short_and_say_what_they_are() {
    none(&shapeless(&sources(&["src", "tests", "benches"])));
}

#[test]
fn every_room_of_the_table_is_in_the_source() {
    for (room, _) in TABLE {
        let there =
            root().join(format!("src/{room}.rs")).exists() || root().join(format!("src/{room}/mod.rs")).exists();
        assert!(there, "{room} is in the table and not in src");
    }
}

fn snippet(path: &str, text: &str) -> [Source; 1] {
    [Source { path: path.to_owned(), text: text.to_owned() }]
}

#[test]
fn a_forbidden_import_is_found_in_each_spelling() {
    for text in [
        "use crate::write::Writer;",
        "use crate::{types::Ino, write::{Writer, plan}};",
        "fn f() { crate :: write::g() }",
        "use super::super::write::Writer;",
        "use crate::{\n    types::Ino,\n    write,\n};",
    ] {
        let wrong = forbidden_imports(&snippet("src/read/fetch.rs", text));
        assert_eq!(wrong, ["src/read/fetch.rs: read may not import write"], "{text}");
    }
    assert_eq!(forbidden_imports(&snippet("src/types.rs", "use crate::store::X;")).len(), 1);
    assert_eq!(forbidden_imports(&snippet("src/metrics/x.rs", "use crate::memory::X;")).len(), 1);
    assert_eq!(forbidden_imports(&snippet("src/attic/x.rs", "")).len(), 1);
}

#[test]
fn allowed_imports_comments_strings_and_tests_are_left_alone() {
    for text in [
        "use crate::{types::Ino, store::ObjectStore, cache::Memory, memory};",
        "// use crate::write::Writer;\n/// [`crate::write`]",
        "const S: &str = \"crate::write::\"; const R: &str = r#\"crate::write \"x\" \"#;",
        "#[cfg(test)]\nmod tests {\n    use crate::write::Writer;\n    fn f() { x.unwrap(); }\n}\nfn g() {}",
        "#[cfg(test)]\nuse crate::write::Writer;\nuse super::window::W;",
        "macro_rules! m { () => { $crate::write::x() } }",
    ] {
        assert_eq!(forbidden_imports(&snippet("src/read/fetch.rs", text)), Vec::<String>::new(), "{text}");
        assert_eq!(strays(&snippet("src/read/fetch.rs", text)), Vec::<String>::new(), "{text}");
    }
    assert!(forbidden_imports(&snippet("src/read/fetch/tests.rs", "use crate::write::Writer;")).is_empty());
}

#[test]
fn strays_are_found() {
    for text in [
        "use aws_sdk_s3::Client;",
        "use fuser::Filesystem;",
        "x.unwrap();",
        "let t = Instant::now();",
        "SystemTime::now()",
    ] {
        assert_eq!(strays(&snippet("src/read/fetch.rs", text)).len(), 1, "{text}");
    }
    assert!(strays(&snippet("src/store/s3/client.rs", "use aws_sdk_s3::Client;")).is_empty());
    assert!(strays(&snippet("src/fuse/adapter.rs", "use fuser::Filesystem;")).is_empty());
    assert!(strays(&snippet("src/clock.rs", "Instant::now()")).is_empty());
    assert_eq!(strays(&snippet("src/a/b.rs", "#[cfg(test)]\nmod tests { }\nfn f() { x.unwrap(); }")).len(), 1);
}

#[test]
fn long_and_nameless_files_are_found() {
    assert_eq!(shapeless(&snippet("src/a.rs", &"//! x\n".repeat(LINES_MAX))).len(), 1);
    assert_eq!(shapeless(&snippet("src/a.rs", "use std::fs;\n")).len(), 1);
    assert!(shapeless(&snippet("src/a.rs", "//! What it owns.\n")).is_empty());
}
