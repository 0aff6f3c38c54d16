//! Names: which keys a path spells, which keys show as which names, and which stay hidden.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use crate::harness::prelude::*;

pub fn facts() -> Vec<Fact> {
    vec![
        shared!(korean_and_emoji_names),
        shared!(unicode_forms_of_one_letter_are_two_names),
        shared!(names_differ_by_case),
        shared!(names_of_255_bytes_work),
        shared!(names_of_256_bytes_are_too_long),
        shared!(keys_of_1024_bytes_work),
        shared!(keys_over_1024_bytes_are_too_long).on(S3),
        shared!(a_dash_b_beside_directory_a),
        shared!(blanks_quotes_and_percent_signs),
        shared!(percent_escapes_are_not_decoded),
        shared!(backslashes_and_shell_signs),
        shared!(tabs_and_deletes_in_names),
        shared!(control_characters_in_names).differs(&[
            (Kind::Moto, "answers 404 to a newline in a key"),
            (Kind::Versitygw, "lists them as raw bytes, which XML cannot carry"),
        ]),
        shared!(names_that_are_not_utf8_are_refused).on(S3),
        shared!(hidden_names_and_many_dots),
        shared!(keys_with_double_slash_stay_hidden_and_untouched)
            .on(S3)
            .differs(&[(Kind::Versitygw, "folds `//` to `/`"), (Kind::Minio, "refuses keys with `//`")]),
        shared!(keys_with_dot_segments_stay_hidden_and_untouched).on(S3).differs(&[
            (Kind::Versitygw, "refuses keys with `.` or `..` as a segment"),
            (Kind::Minio, "refuses keys with `..`"),
        ]),
        shared!(a_file_and_a_directory_of_one_name).on(S3).differs(&[
            (Kind::Versitygw, "answers 409 to the second of them"),
            (Kind::Minio, "refuses the second of them"),
        ]),
        shared!(directories_without_marker_are_there),
        shared!(markers_with_content_are_directories).on(S3).differs(&[
            (Kind::Versitygw, "refuses a body under a key that ends in `/`"),
            (Kind::Minio, "refuses a body under a key that ends in `/`"),
        ]),
    ]
}

fn round_trip(p: &Place, names: &[&str]) -> Outcome {
    for name in names {
        p.write(name, format!("content of {name}"))?;
    }
    let mut expected: Vec<_> = names.iter().map(|n| (*n).to_owned()).collect();
    expected.sort();
    assert_eq!(p.names("")?, expected);
    assert_eq!(p.keys()?, expected);
    for name in names {
        same_bytes(&p.object(name)?, format!("content of {name}").as_bytes());
        same_bytes(&p.read(name)?, format!("content of {name}").as_bytes());
        assert!(fs::metadata(p.path(name))?.is_file());
    }
    Ok(())
}

fn korean_and_emoji_names(p: &Place) -> Outcome {
    round_trip(p, &["한국어 파일.txt", "🦀🎉", "日本語", "naïve café", "👨‍👩‍👧‍👦 family"])?;
    fs::create_dir(p.path("폴더 📁"))?;
    p.write("폴더 📁/안녕", "하세요")?;
    same_bytes(&p.object("폴더 📁/안녕")?, "하세요".as_bytes());
    assert_eq!(p.names("폴더 📁")?, ["안녕"]);
    Ok(())
}

fn unicode_forms_of_one_letter_are_two_names(p: &Place) -> Outcome {
    round_trip(p, &["\u{e9}", "e\u{301}"])
}

fn names_differ_by_case(p: &Place) -> Outcome {
    round_trip(p, &["readme", "README", "Readme"])
}

fn names_of_255_bytes_work(p: &Place) -> Outcome {
    round_trip(p, &[&"x".repeat(255), &"가".repeat(85)])
}

fn names_of_256_bytes_are_too_long(p: &Place) -> Outcome {
    let long = "x".repeat(256);
    refused(p.write(&long, ""), &[libc::ENAMETOOLONG]);
    refused(fs::create_dir(p.path(&long)), &[libc::ENAMETOOLONG]);
    refused(fs::metadata(p.path(&long)), &[libc::ENAMETOOLONG]);
    Ok(())
}

/// Folders below the place so that `room` bytes of the key are left for a name.
fn deep(p: &Place, room: usize) -> Outcome<String> {
    let mut key = String::new();
    while p.key(&key).len() + 201 + room <= 1024 {
        key += &"d".repeat(200);
        fs::create_dir(p.path(&key))?;
        key += "/";
    }
    Ok(key)
}

fn keys_of_1024_bytes_work(p: &Place) -> Outcome {
    let folder = deep(p, 10)?;
    let name = format!("{folder}{}", "n".repeat(1024 - p.key(&folder).len()));
    assert_eq!(p.key(&name).len(), 1024);
    p.write(&name, "as long as a key can be")?;
    same_bytes(&p.object(&name)?, b"as long as a key can be");
    same_bytes(&p.read(&name)?, b"as long as a key can be");
    Ok(())
}

fn keys_over_1024_bytes_are_too_long(p: &Place) -> Outcome {
    let folder = deep(p, 10)?;
    let name = format!("{folder}{}", "n".repeat(1025 - p.key(&folder).len()));
    refused(p.write(&name, "too long"), &[libc::ENAMETOOLONG]);
    refused(fs::create_dir(p.path(&name)), &[libc::ENAMETOOLONG]);
    assert_eq!(p.names(&folder)?, Vec::<String>::new());
    Ok(())
}

fn a_dash_b_beside_directory_a(p: &Place) -> Outcome {
    // In the order of keys `a-b` and `a.txt` come before `a/`, in the order of names behind `a`.
    for key in ["a-b", "a/x", "a/y", "a.txt", "a0", "a!"] {
        p.foreign_put(key, key)?;
    }
    assert_eq!(p.names("")?, ["a", "a!", "a-b", "a.txt", "a0"]);
    assert!(fs::metadata(p.path("a"))?.is_dir());
    assert_eq!(p.names("a")?, ["x", "y"]);
    same_bytes(&p.read("a-b")?, b"a-b");
    same_bytes(&p.read("a/x")?, b"a/x");
    Ok(())
}

fn blanks_quotes_and_percent_signs(p: &Place) -> Outcome {
    round_trip(
        p,
        &[" leading", "trailing ", "a b  c", "it's", "say \"hi\"", "100% sure", "a+b", "c&d=e;f?g#h", "<x>", "@:,$!"],
    )
}

fn percent_escapes_are_not_decoded(p: &Place) -> Outcome {
    round_trip(p, &["%2F", "%41", "a%20b", "%", "%%"])
}

fn backslashes_and_shell_signs(p: &Place) -> Outcome {
    round_trip(p, &["back\\slash", "*", "[a]", "{b}", "~", "-rf", "a|b", "^", "`c`"])
}

fn tabs_and_deletes_in_names(p: &Place) -> Outcome {
    round_trip(p, &["tab\there", "del\u{7f}"])
}

fn control_characters_in_names(p: &Place) -> Outcome {
    round_trip(p, &["line\nbreak", "return\r", "bell\u{7}", "escape\u{1b}[0m"])
}

fn names_that_are_not_utf8_are_refused(p: &Place) -> Outcome {
    let name = OsStr::from_bytes(b"latin-1-\xe9");
    refused(fs::write(p.path(name), ""), &[libc::EILSEQ, libc::EINVAL]);
    refused(fs::create_dir(p.path(name)), &[libc::EILSEQ, libc::EINVAL]);
    refused(fs::metadata(p.path(name)), &[libc::EILSEQ, libc::EINVAL, libc::ENOENT]);
    assert_eq!(p.names("")?, Vec::<String>::new());
    Ok(())
}

fn hidden_names_and_many_dots(p: &Place) -> Outcome {
    round_trip(p, &[".hidden", "...", "..x", "x..", "a.b.c", "._d"])
}

fn keys_with_double_slash_stay_hidden_and_untouched(p: &Place) -> Outcome {
    for key in ["d//x", "d/y", "//z", "e//"] {
        p.foreign_put(key, key)?;
    }
    assert_eq!(p.names("d")?, ["y"]);
    assert!(!p.names("")?.contains(&String::new()));
    fs::remove_file(p.path("d/y"))?;
    same_bytes(&p.object("d//x")?, b"d//x");
    same_bytes(&p.object("//z")?, b"//z");
    Ok(())
}

fn keys_with_dot_segments_stay_hidden_and_untouched(p: &Place) -> Outcome {
    for key in ["d/../x", "d/./y", "d/z", "d/.."] {
        p.foreign_put(key, key)?;
    }
    assert_eq!(p.names("d")?, ["z"]);
    same_bytes(&p.read("d/z")?, b"d/z");
    fs::remove_file(p.path("d/z"))?;
    same_bytes(&p.object("d/../x")?, b"d/../x");
    same_bytes(&p.object("d/./y")?, b"d/./y");
    Ok(())
}

fn a_file_and_a_directory_of_one_name(p: &Place) -> Outcome {
    p.foreign_put("n/x", "in the directory")?;
    p.foreign_put("n", "the file")?;
    p.foreign_put("m", "another")?;
    assert_eq!(p.names("")?, ["m", "n"]);
    assert!(fs::metadata(p.path("n"))?.is_dir());
    assert_eq!(p.names("n")?, ["x"]);
    same_bytes(&p.read("n/x")?, b"in the directory");
    refused(fs::remove_dir(p.path("n")), &[libc::ENOTEMPTY]);
    same_bytes(&p.object("n")?, b"the file");
    Ok(())
}

fn directories_without_marker_are_there(p: &Place) -> Outcome {
    p.foreign_put("year=2013/month=01/day=02.parquet", "rows")?;
    assert!(fs::metadata(p.path("year=2013"))?.is_dir());
    assert!(fs::metadata(p.path("year=2013/month=01"))?.is_dir());
    assert_eq!(p.names("year=2013/month=01")?, ["day=02.parquet"]);
    p.write("year=2013/month=01/day=03.parquet", "more rows")?;
    assert_eq!(p.names("year=2013/month=01")?, ["day=02.parquet", "day=03.parquet"]);
    Ok(())
}

fn markers_with_content_are_directories(p: &Place) -> Outcome {
    p.foreign_put("m/", "content of a marker")?;
    p.foreign_put("m/x", "x")?;
    assert!(fs::metadata(p.path("m"))?.is_dir());
    assert_eq!(p.names("m")?, ["x"]);
    Ok(())
}
