//! Renames: of files, over files, of directories, and while something is open.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;

use crate::harness::prelude::*;

const MIB: usize = 1 << 20;

pub fn facts() -> Vec<Fact> {
    vec![
        shared!(a_renamed_file_has_the_new_key_only),
        shared!(a_file_replaces_another),
        shared!(a_file_moves_to_another_directory),
        shared!(a_large_file_is_renamed).seconds(120),
        shared!(a_directory_is_renamed_with_all_below),
        shared!(a_directory_of_1200_files_is_renamed).seconds(180),
        shared!(a_directory_replaces_an_empty_one),
        shared!(a_directory_does_not_replace_one_with_names),
        shared!(a_directory_does_not_move_into_itself),
        shared!(kinds_do_not_replace_each_other),
        shared!(noreplace_keeps_what_is_there),
        shared!(exchange_is_refused).on(S3),
        shared!(a_rename_of_nothing_is_refused),
        shared!(a_rename_to_itself_changes_nothing),
        shared!(write_temporary_then_rename),
        shared!(renamed_while_open_for_reading),
        shared!(renamed_while_open_for_writing),
        shared!(an_unpublished_file_never_has_its_old_key),
        shared!(replaced_while_open_is_all_old_or_stale),
        shared!(a_directory_is_renamed_with_a_writer_open_in_it),
        shared!(a_renamed_name_can_be_made_again),
        shared!(a_directory_without_marker_is_renamed),
        shared!(a_chain_of_renames),
        shared!(names_turn_in_a_circle),
    ]
}

fn a_renamed_file_has_the_new_key_only(p: &Place) -> Outcome {
    p.write("a", "content")?;
    fs::rename(p.path("a"), p.path("b"))?;
    assert_eq!(p.keys()?, ["b"]);
    assert_eq!(p.names("")?, ["b"]);
    same_bytes(&p.object("b")?, b"content");
    same_bytes(&p.read("b")?, b"content");
    refused(fs::metadata(p.path("a")), &[libc::ENOENT]);
    Ok(())
}

fn a_file_replaces_another(p: &Place) -> Outcome {
    p.write("a", "new")?;
    p.write("b", "old and longer")?;
    fs::rename(p.path("a"), p.path("b"))?;
    assert_eq!(p.keys()?, ["b"]);
    same_bytes(&p.read("b")?, b"new");
    same_bytes(&p.object("b")?, b"new");
    assert_eq!(fs::metadata(p.path("b"))?.len(), 3);
    Ok(())
}

fn a_file_moves_to_another_directory(p: &Place) -> Outcome {
    fs::create_dir_all(p.path("x/y"))?;
    p.write("x/f", "content")?;
    fs::rename(p.path("x/f"), p.path("x/y/g"))?;
    assert_eq!(p.names("x")?, ["y"]);
    assert_eq!(p.names("x/y")?, ["g"]);
    same_bytes(&p.object("x/y/g")?, b"content");
    assert!(!p.has_object("x/f")?);
    refused(fs::rename(p.path("x/y/g"), p.path("nothing/g")), &[libc::ENOENT]);
    Ok(())
}

fn a_large_file_is_renamed(p: &Place) -> Outcome {
    let bytes = pattern(1, 30 * MIB + 1);
    p.write("a", &bytes)?;
    fs::rename(p.path("a"), p.path("b"))?;
    same_bytes(&p.object("b")?, &bytes);
    same_bytes(&p.read("b")?, &bytes);
    assert!(!p.has_object("a")?);
    Ok(())
}

fn a_directory_is_renamed_with_all_below(p: &Place) -> Outcome {
    fs::create_dir_all(p.path("a/deep/er"))?;
    fs::create_dir(p.path("a/empty"))?;
    p.write("a/1", "one")?;
    p.write("a/deep/2", "two")?;
    p.write("a/deep/er/3", "three")?;
    fs::rename(p.path("a"), p.path("b"))?;
    refused(fs::metadata(p.path("a")), &[libc::ENOENT]);
    assert_eq!(p.names("b")?, ["1", "deep", "empty"]);
    assert_eq!(p.names("b/empty")?, Vec::<String>::new());
    for (name, content) in [("b/1", "one"), ("b/deep/2", "two"), ("b/deep/er/3", "three")] {
        same_bytes(&p.read(name)?, content.as_bytes());
        same_bytes(&p.object(name)?, content.as_bytes());
    }
    assert_eq!(p.keys()?.iter().filter(|key| key.starts_with("a/")).count(), 0);
    Ok(())
}

fn a_directory_of_1200_files_is_renamed(p: &Place) -> Outcome {
    let names: Vec<_> = (0..1200).map(|n| format!("a/{n:04}")).collect();
    p.foreign_put_many(&names)?;
    fs::rename(p.path("a"), p.path("b"))?;
    assert_eq!(p.names("b")?.len(), 1200);
    same_bytes(&p.read("b/0777")?, p.key("a/0777").as_bytes());
    let keys = p.keys()?;
    assert_eq!(keys.iter().filter(|key| key.starts_with("a/")).count(), 0);
    assert_eq!(keys.iter().filter(|key| key.starts_with("b/") && *key != "b/").count(), 1200);
    Ok(())
}

fn a_directory_replaces_an_empty_one(p: &Place) -> Outcome {
    fs::create_dir(p.path("a"))?;
    p.write("a/f", "x")?;
    fs::create_dir(p.path("b"))?;
    fs::rename(p.path("a"), p.path("b"))?;
    assert_eq!(p.names("")?, ["b"]);
    assert_eq!(p.names("b")?, ["f"]);
    same_bytes(&p.object("b/f")?, b"x");
    Ok(())
}

fn a_directory_does_not_replace_one_with_names(p: &Place) -> Outcome {
    for name in ["a", "b"] {
        fs::create_dir(p.path(name))?;
        p.write(&format!("{name}/f"), name)?;
    }
    refused(fs::rename(p.path("a"), p.path("b")), &[libc::ENOTEMPTY, libc::EEXIST]);
    same_bytes(&p.read("a/f")?, b"a");
    same_bytes(&p.object("b/f")?, b"b");
    Ok(())
}

fn a_directory_does_not_move_into_itself(p: &Place) -> Outcome {
    fs::create_dir_all(p.path("a/b"))?;
    refused(fs::rename(p.path("a"), p.path("a/c")), &[libc::EINVAL]);
    refused(fs::rename(p.path("a"), p.path("a/b/c")), &[libc::EINVAL]);
    assert_eq!(p.names("a")?, ["b"]);
    Ok(())
}

fn kinds_do_not_replace_each_other(p: &Place) -> Outcome {
    p.write("f", "x")?;
    fs::create_dir(p.path("d"))?;
    refused(fs::rename(p.path("f"), p.path("d")), &[libc::EISDIR]);
    refused(fs::rename(p.path("d"), p.path("f")), &[libc::ENOTDIR]);
    assert_eq!(p.names("")?, ["d", "f"]);
    Ok(())
}

fn noreplace_keeps_what_is_there(p: &Place) -> Outcome {
    p.write("a", "a")?;
    p.write("b", "b")?;
    refused(sys::rename2(&p.path("a"), &p.path("b"), libc::RENAME_NOREPLACE), &[libc::EEXIST]);
    same_bytes(&p.read("b")?, b"b");
    sys::rename2(&p.path("a"), &p.path("c"), libc::RENAME_NOREPLACE)?;
    same_bytes(&p.object("c")?, b"a");
    assert_eq!(p.names("")?, ["b", "c"]);
    Ok(())
}

fn exchange_is_refused(p: &Place) -> Outcome {
    p.write("a", "a")?;
    p.write("b", "b")?;
    refused(sys::rename2(&p.path("a"), &p.path("b"), libc::RENAME_EXCHANGE), &[libc::EINVAL]);
    same_bytes(&p.read("a")?, b"a");
    Ok(())
}

fn a_rename_of_nothing_is_refused(p: &Place) -> Outcome {
    refused(fs::rename(p.path("nothing"), p.path("b")), &[libc::ENOENT]);
    p.write("b", "stays")?;
    refused(fs::rename(p.path("nothing"), p.path("b")), &[libc::ENOENT]);
    same_bytes(&p.object("b")?, b"stays");
    Ok(())
}

fn a_rename_to_itself_changes_nothing(p: &Place) -> Outcome {
    p.write("a", "content")?;
    fs::rename(p.path("a"), p.path("a"))?;
    same_bytes(&p.read("a")?, b"content");
    same_bytes(&p.object("a")?, b"content");
    fs::create_dir(p.path("d"))?;
    fs::rename(p.path("d"), p.path("d"))?;
    assert_eq!(p.names("")?, ["a", "d"]);
    Ok(())
}

fn write_temporary_then_rename(p: &Place) -> Outcome {
    for round in 0..5 {
        let mut file = p.create("config.tmp")?;
        file.write_all(format!("round {round}").as_bytes())?;
        file.sync_all()?;
        drop(file);
        fs::rename(p.path("config.tmp"), p.path("config"))?;
        same_bytes(&p.object("config")?, format!("round {round}").as_bytes());
        same_bytes(&p.read("config")?, format!("round {round}").as_bytes());
        assert_eq!(p.keys()?, ["config"]);
    }
    Ok(())
}

fn renamed_while_open_for_reading(p: &Place) -> Outcome {
    let bytes = pattern(2, 20 * MIB);
    p.foreign_put("a", &bytes)?;
    let mut file = File::open(p.path("a"))?;
    let mut found = vec![0; MIB];
    file.read_exact(&mut found)?;
    fs::rename(p.path("a"), p.path("b"))?;
    file.read_to_end(&mut found)?;
    same_bytes(&found, &bytes);
    same_bytes(&p.read("b")?, &bytes);
    Ok(())
}

fn renamed_while_open_for_writing(p: &Place) -> Outcome {
    let mut file = p.create("a")?;
    file.write_all(b"before, ")?;
    file.sync_all()?;
    fs::rename(p.path("a"), p.path("b"))?;
    file.write_all(b"after")?;
    sys::close(file)?;
    assert_eq!(p.keys()?, ["b"]);
    same_bytes(&p.object("b")?, b"before, after");
    same_bytes(&p.read("b")?, b"before, after");
    Ok(())
}

fn an_unpublished_file_never_has_its_old_key(p: &Place) -> Outcome {
    let mut file = p.create("a")?;
    file.write_all(b"written under ")?;
    fs::rename(p.path("a"), p.path("b"))?;
    file.write_all(b"two names")?;
    sys::close(file)?;
    assert_eq!(p.keys()?, ["b"]);
    same_bytes(&p.object("b")?, b"written under two names");
    Ok(())
}

fn replaced_while_open_is_all_old_or_stale(p: &Place) -> Outcome {
    let old = pattern(3, 12 * MIB);
    p.foreign_put("b", &old)?;
    let file = File::open(p.path("b"))?;
    let mut found = vec![0; 4096];
    file.read_exact_at(&mut found, 0)?;
    p.write("a", pattern(4, 12 * MIB))?;
    fs::rename(p.path("a"), p.path("b"))?;
    for at in (0..12).map(|n| n * MIB) {
        match file.read_exact_at(&mut found, at as u64) {
            Ok(()) => same_bytes(&found, &old[at..at + 4096]),
            Err(error) => refused::<()>(Err(error), &[libc::ESTALE]),
        }
    }
    same_bytes(&p.read("b")?, &pattern(4, 12 * MIB));
    Ok(())
}

fn a_directory_is_renamed_with_a_writer_open_in_it(p: &Place) -> Outcome {
    fs::create_dir_all(p.path("a/deep"))?;
    p.write("a/old", "x")?;
    let mut new = p.create("a/deep/new")?;
    new.write_all(b"before, ")?;
    let mut old = File::options().append(true).open(p.path("a/old"))?;
    old.write_all(b" and ")?;
    fs::rename(p.path("a"), p.path("b"))?;
    new.write_all(b"after")?;
    old.write_all(b"more")?;
    sys::close(new)?;
    sys::close(old)?;
    same_bytes(&p.object("b/deep/new")?, b"before, after");
    same_bytes(&p.object("b/old")?, b"x and more");
    same_bytes(&p.read("b/deep/new")?, b"before, after");
    assert_eq!(p.keys()?.iter().filter(|key| key.starts_with("a/")).count(), 0);
    refused(fs::metadata(p.path("a")), &[libc::ENOENT]);
    Ok(())
}

fn a_renamed_name_can_be_made_again(p: &Place) -> Outcome {
    p.write("a", "first")?;
    fs::rename(p.path("a"), p.path("b"))?;
    p.write("a", "second")?;
    same_bytes(&p.read("a")?, b"second");
    same_bytes(&p.read("b")?, b"first");
    fs::create_dir(p.path("d"))?;
    p.write("d/x", "first")?;
    fs::rename(p.path("d"), p.path("e"))?;
    fs::create_dir(p.path("d"))?;
    p.write("d/x", "second")?;
    same_bytes(&p.object("d/x")?, b"second");
    same_bytes(&p.object("e/x")?, b"first");
    Ok(())
}

fn a_directory_without_marker_is_renamed(p: &Place) -> Outcome {
    p.foreign_put("a/b/c", "content")?;
    fs::rename(p.path("a/b"), p.path("a/z"))?;
    same_bytes(&p.object("a/z/c")?, b"content");
    assert!(!p.has_object("a/b/c")?);
    assert_eq!(p.names("a")?, ["z"]);
    Ok(())
}

fn a_chain_of_renames(p: &Place) -> Outcome {
    p.write("0", "content")?;
    for n in 0..10 {
        fs::rename(p.path(n.to_string()), p.path((n + 1).to_string()))?;
    }
    assert_eq!(p.keys()?, ["10"]);
    same_bytes(&p.read("10")?, b"content");
    Ok(())
}

fn names_turn_in_a_circle(p: &Place) -> Outcome {
    for name in ["a", "b", "c"] {
        p.write(name, name)?;
    }
    for (from, to) in [("a", "t"), ("b", "a"), ("c", "b"), ("t", "c")] {
        fs::rename(p.path(from), p.path(to))?;
    }
    for (name, content) in [("a", "b"), ("b", "c"), ("c", "a")] {
        same_bytes(&p.read(name)?, content.as_bytes());
        same_bytes(&p.object(name)?, content.as_bytes());
    }
    assert_eq!(p.keys()?, ["a", "b", "c"]);
    Ok(())
}
