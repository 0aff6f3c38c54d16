//! Directories: made, listed, changed while they are listed, removed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::harness::prelude::*;

pub fn facts() -> Vec<Fact> {
    vec![
        shared!(a_directory_leaves_a_marker).on(S3),
        shared!(an_empty_directory_is_listed_and_empty),
        shared!(mkdir_of_a_name_that_is_there_is_refused),
        shared!(mkdir_without_its_parent_is_refused),
        shared!(mkdir_under_a_file_is_refused),
        shared!(rmdir_takes_the_marker_away),
        shared!(rmdir_of_a_directory_with_names_is_refused),
        shared!(rmdir_of_a_file_or_of_nothing_is_refused),
        shared!(unlink_of_a_directory_is_refused),
        shared!(a_directory_of_2500_names).seconds(180),
        shared!(three_hundred_files_made_in_one_directory).seconds(180),
        shared!(nested_directories),
        shared!(a_directory_whose_last_file_went_stays),
        shared!(rm_rf_takes_every_key_away),
        shared!(rm_rf_of_a_tree_without_markers),
        shared!(names_added_while_listing_do_not_double_or_hide_others),
        shared!(names_removed_while_listing_do_not_hide_others),
        shared!(telldir_and_seekdir_resume),
        shared!(rewinddir_sees_new_names),
        shared!(dot_and_dot_dot_are_listed),
        shared!(listed_kinds_and_inode_numbers_agree_with_stat),
        shared!(find_and_du_walk_the_tree),
        shared!(lookups_of_nothing_and_through_files_are_refused),
        shared!(directories_are_not_files),
        shared!(a_removed_name_can_be_made_again),
        shared!(fsync_of_a_directory),
        shared!(working_inside_a_directory),
        shared!(file_and_directory_can_follow_each_other_under_one_name),
    ]
}

fn a_directory_leaves_a_marker(p: &Place) -> Outcome {
    fs::create_dir(p.path("d"))?;
    let head = p.mount.bucket.head(&p.key("d/"))?.ok_or_else(|| Failure("no marker".into()))?;
    assert_eq!(head.size_bytes, 0);
    assert_eq!(head.content_type, "application/x-directory");
    Ok(())
}

fn an_empty_directory_is_listed_and_empty(p: &Place) -> Outcome {
    fs::create_dir(p.path("d"))?;
    assert_eq!(p.names("")?, ["d"]);
    assert_eq!(p.names("d")?, Vec::<String>::new());
    assert!(fs::metadata(p.path("d"))?.is_dir());
    Ok(())
}

fn mkdir_of_a_name_that_is_there_is_refused(p: &Place) -> Outcome {
    fs::create_dir(p.path("d"))?;
    p.write("f", "")?;
    p.foreign_put("implicit/x", "x")?;
    for name in ["d", "f", "implicit"] {
        refused(fs::create_dir(p.path(name)), &[libc::EEXIST]);
    }
    Ok(())
}

fn mkdir_without_its_parent_is_refused(p: &Place) -> Outcome {
    refused(fs::create_dir(p.path("a/b")), &[libc::ENOENT]);
    fs::create_dir_all(p.path("a/b/c"))?;
    assert_eq!(p.names("a/b")?, ["c"]);
    Ok(())
}

fn mkdir_under_a_file_is_refused(p: &Place) -> Outcome {
    p.write("f", "x")?;
    refused(fs::create_dir(p.path("f/d")), &[libc::ENOTDIR]);
    refused(p.write("f/g", "x"), &[libc::ENOTDIR]);
    Ok(())
}

fn rmdir_takes_the_marker_away(p: &Place) -> Outcome {
    fs::create_dir(p.path("d"))?;
    fs::remove_dir(p.path("d"))?;
    assert!(!p.has_object("d/")?);
    refused(fs::metadata(p.path("d")), &[libc::ENOENT]);
    assert_eq!(p.names("")?, Vec::<String>::new());
    Ok(())
}

fn rmdir_of_a_directory_with_names_is_refused(p: &Place) -> Outcome {
    fs::create_dir_all(p.path("d/e"))?;
    refused(fs::remove_dir(p.path("d")), &[libc::ENOTEMPTY]);
    fs::create_dir(p.path("f"))?;
    p.write("f/x", "x")?;
    refused(fs::remove_dir(p.path("f")), &[libc::ENOTEMPTY]);
    // A name that only S3 knows of counts as well.
    fs::create_dir(p.path("g"))?;
    p.foreign_put_unseen("g/from-elsewhere", "x")?;
    refused(fs::remove_dir(p.path("g")), &[libc::ENOTEMPTY]);
    same_bytes(&p.object("g/from-elsewhere")?, b"x");
    Ok(())
}

fn rmdir_of_a_file_or_of_nothing_is_refused(p: &Place) -> Outcome {
    p.write("f", "x")?;
    refused(fs::remove_dir(p.path("f")), &[libc::ENOTDIR]);
    refused(fs::remove_dir(p.path("nothing")), &[libc::ENOENT]);
    Ok(())
}

fn unlink_of_a_directory_is_refused(p: &Place) -> Outcome {
    fs::create_dir(p.path("d"))?;
    refused(fs::remove_file(p.path("d")), &[libc::EISDIR, libc::EPERM]);
    assert!(fs::metadata(p.path("d"))?.is_dir());
    Ok(())
}

fn a_directory_of_2500_names(p: &Place) -> Outcome {
    let names: Vec<_> = (0..2500).map(|n| format!("d/{n:04}")).collect();
    p.foreign_put_many(&names)?;
    let expected: Vec<_> = (0..2500).map(|n| format!("{n:04}")).collect();
    assert_eq!(p.names("d")?, expected);
    let size = p.key("d/0000").len() as u64;
    for entry in fs::read_dir(p.path("d"))? {
        assert_eq!(entry?.metadata()?.len(), size);
    }
    same_bytes(&p.read("d/2499")?, p.key("d/2499").as_bytes());
    refused(fs::metadata(p.path("d/2500")), &[libc::ENOENT]);
    Ok(())
}

fn three_hundred_files_made_in_one_directory(p: &Place) -> Outcome {
    fs::create_dir(p.path("d"))?;
    let expected: Vec<_> = (0..300).map(|n| format!("file {n:03}")).collect();
    for name in &expected {
        p.write(&format!("d/{name}"), name)?;
    }
    assert_eq!(p.names("d")?, expected);
    for name in &expected {
        same_bytes(&p.read(&format!("d/{name}"))?, name.as_bytes());
    }
    let objects = p.mount.bucket.list(&p.key("d/"))?;
    assert_eq!(objects.values().filter(|&&size| size == 8).count(), 300);
    Ok(())
}

fn nested_directories(p: &Place) -> Outcome {
    let mut path = String::new();
    for depth in 0..40 {
        path += &format!("{depth}/");
        fs::create_dir(p.path(&path))?;
        p.write(&format!("{path}file"), &path)?;
    }
    same_bytes(&p.read(&format!("{path}file"))?, path.as_bytes());
    same_bytes(&p.object(&format!("{path}file"))?, path.as_bytes());
    assert_eq!(p.names("0/1/2")?, ["3", "file"]);
    Ok(())
}

fn a_directory_whose_last_file_went_stays(p: &Place) -> Outcome {
    fs::create_dir(p.path("d"))?;
    p.write("d/f", "x")?;
    fs::remove_file(p.path("d/f"))?;
    assert_eq!(p.names("")?, ["d"]);
    assert_eq!(p.names("d")?, Vec::<String>::new());
    p.write("d/g", "y")?;
    assert_eq!(p.names("d")?, ["g"]);
    Ok(())
}

fn rm_rf_takes_every_key_away(p: &Place) -> Outcome {
    for a in 0..5 {
        fs::create_dir_all(p.path(format!("t/{a}/deeper")))?;
        for b in 0..10 {
            p.write(&format!("t/{a}/{b}"), "x")?;
            p.write(&format!("t/{a}/deeper/{b}"), "y")?;
        }
    }
    fs::remove_dir_all(p.path("t"))?;
    refused(fs::metadata(p.path("t")), &[libc::ENOENT]);
    assert_eq!(p.keys()?.iter().filter(|k| k.starts_with("t/")).count(), 0);
    Ok(())
}

fn rm_rf_of_a_tree_without_markers(p: &Place) -> Outcome {
    p.foreign_put_many(&["t/a/b/1", "t/a/b/2", "t/a/3", "t/4"].map(str::to_owned))?;
    assert_eq!(p.names("t")?, ["4", "a"]);
    fs::remove_dir_all(p.path("t"))?;
    assert_eq!(p.keys()?.iter().filter(|k| k.starts_with("t/")).count(), 0);
    assert_eq!(p.names("")?, Vec::<String>::new());
    Ok(())
}

fn names_added_while_listing_do_not_double_or_hide_others(p: &Place) -> Outcome {
    fs::create_dir(p.path("d"))?;
    let old: Vec<_> = (0..500).map(|n| format!("d/m{n:03}")).collect();
    p.foreign_put_many(&old)?;
    let mut listing = sys::Directory::open(&p.path("d"))?;
    let mut seen = Vec::new();
    for _ in 0..10 {
        seen.extend(listing.next()?.map(|entry| entry.name.to_string_lossy().into_owned()));
    }
    for n in 0..20 {
        p.write(&format!("d/a{n}"), "before all others")?;
        p.write(&format!("d/z{n}"), "behind all others")?;
    }
    seen.extend(listing.rest()?);
    let unique: BTreeSet<_> = seen.iter().filter(|n| *n != "." && *n != "..").collect();
    assert_eq!(unique.len(), seen.iter().filter(|n| *n != "." && *n != "..").count(), "a name came twice");
    assert_eq!(unique.iter().filter(|n| n.starts_with('m')).count(), 500);
    assert_eq!(p.names("d")?.len(), 540);
    Ok(())
}

fn names_removed_while_listing_do_not_hide_others(p: &Place) -> Outcome {
    fs::create_dir(p.path("d"))?;
    p.foreign_put_many(&(0..600).map(|n| format!("d/{n:03}")).collect::<Vec<_>>())?;
    let mut listing = sys::Directory::open(&p.path("d"))?;
    let mut count = 0;
    while let Some(entry) = listing.next()? {
        if entry.name != "." && entry.name != ".." {
            fs::remove_file(p.path("d").join(&entry.name))?;
            count += 1;
        }
    }
    assert_eq!(count, 600);
    assert_eq!(p.names("d")?, Vec::<String>::new());
    Ok(fs::remove_dir(p.path("d"))?)
}

fn telldir_and_seekdir_resume(p: &Place) -> Outcome {
    p.foreign_put_many(&(0..400).map(|n| format!("d/{n:03}")).collect::<Vec<_>>())?;
    let mut listing = sys::Directory::open(&p.path("d"))?;
    for _ in 0..123 {
        listing.next()?;
    }
    let place = listing.tell();
    let rest = listing.rest()?;
    listing.seek(place);
    assert_eq!(listing.rest()?, rest);
    listing.rewind();
    assert_eq!(listing.rest()?.len(), 400);
    Ok(())
}

fn rewinddir_sees_new_names(p: &Place) -> Outcome {
    fs::create_dir(p.path("d"))?;
    p.write("d/a", "")?;
    let mut listing = sys::Directory::open(&p.path("d"))?;
    assert_eq!(listing.rest()?, ["a"]);
    p.write("d/b", "")?;
    listing.rewind();
    let mut names = listing.rest()?;
    names.sort();
    assert_eq!(names, ["a", "b"]);
    Ok(())
}

fn dot_and_dot_dot_are_listed(p: &Place) -> Outcome {
    fs::create_dir(p.path("d"))?;
    let mut listing = sys::Directory::open(&p.path("d"))?;
    let mut names = Vec::new();
    while let Some(entry) = listing.next()? {
        assert_eq!(entry.kind, libc::DT_DIR);
        names.push(entry.name.to_string_lossy().into_owned());
    }
    names.sort();
    assert_eq!(names, [".", ".."]);
    Ok(())
}

fn listed_kinds_and_inode_numbers_agree_with_stat(p: &Place) -> Outcome {
    fs::create_dir(p.path("d"))?;
    p.write("f", "x")?;
    p.foreign_put("implicit/x", "x")?;
    let mut listing = sys::Directory::open(&p.dir)?;
    let mut seen = 0;
    while let Some(entry) = listing.next()? {
        if entry.name == "." || entry.name == ".." {
            continue;
        }
        let found = fs::metadata(p.path(&entry.name))?;
        assert_eq!(entry.kind, if found.is_dir() { libc::DT_DIR } else { libc::DT_REG });
        assert_eq!(entry.ino, found.ino(), "{:?}", entry.name);
        assert_eq!(found.ino(), fs::File::open(p.path(&entry.name))?.metadata()?.ino());
        seen += 1;
    }
    assert_eq!(seen, 3);
    Ok(())
}

fn find_and_du_walk_the_tree(p: &Place) -> Outcome {
    for a in 0..4 {
        for b in 0..4 {
            fs::create_dir_all(p.path(format!("{a}/{b}")))?;
            p.write(&format!("{a}/{b}/file"), vec![7; 5000])?;
        }
    }
    assert_eq!(p.shell("find . -type f | wc -l")?.trim(), "16");
    assert_eq!(p.shell("find . -mindepth 1 -type d | wc -l")?.trim(), "20");
    assert!(p.shell("du -sk .")?.split_whitespace().next().is_some_and(|k| k.parse::<u64>().is_ok_and(|k| k >= 78)));
    assert_eq!(p.shell("find . -name file -size -6000c | sort | head -1")?.trim(), "./0/0/file");
    Ok(())
}

fn lookups_of_nothing_and_through_files_are_refused(p: &Place) -> Outcome {
    p.write("f", "x")?;
    refused(fs::metadata(p.path("nothing")), &[libc::ENOENT]);
    refused(fs::metadata(p.path("nothing/below")), &[libc::ENOENT]);
    refused(fs::metadata(p.path("f/below")), &[libc::ENOTDIR]);
    refused(fs::read_dir(p.path("f")), &[libc::ENOTDIR]);
    refused(fs::File::open(p.path("nothing")), &[libc::ENOENT]);
    Ok(())
}

fn directories_are_not_files(p: &Place) -> Outcome {
    fs::create_dir(p.path("d"))?;
    refused(fs::read(p.path("d")), &[libc::EISDIR]);
    refused(fs::write(p.path("d"), "x"), &[libc::EISDIR]);
    refused(sys::truncate(&p.path("d"), 0), &[libc::EISDIR]);
    Ok(())
}

fn a_removed_name_can_be_made_again(p: &Place) -> Outcome {
    for round in 0..3 {
        fs::create_dir(p.path("d"))?;
        p.write("d/f", format!("round {round}"))?;
        same_bytes(&p.object("d/f")?, format!("round {round}").as_bytes());
        fs::remove_file(p.path("d/f"))?;
        fs::remove_dir(p.path("d"))?;
        refused(fs::metadata(p.path("d")), &[libc::ENOENT]);
    }
    Ok(())
}

fn fsync_of_a_directory(p: &Place) -> Outcome {
    fs::create_dir(p.path("d"))?;
    p.write("d/a", "x")?;
    p.write("d/b", "x")?;
    fs::remove_file(p.path("d/a"))?;
    fs::remove_file(p.path("d/b"))?;
    fs::File::open(p.path("d"))?.sync_all()?;
    assert!(!p.has_object("d/a")? && !p.has_object("d/b")?);
    Ok(())
}

fn working_inside_a_directory(p: &Place) -> Outcome {
    fs::create_dir_all(p.path("a/b"))?;
    let printed = p.shell("cd a/b; echo hello > x; cd ..; cat b/x; cat ../a/b/x; (cd b && pwd)")?;
    assert!(printed.starts_with("hello\nhello\n") && printed.trim_end().ends_with("/a/b"), "{printed}");
    Ok(())
}

fn file_and_directory_can_follow_each_other_under_one_name(p: &Place) -> Outcome {
    p.write("n", "a file")?;
    fs::remove_file(p.path("n"))?;
    fs::create_dir(p.path("n"))?;
    p.write("n/x", "below")?;
    fs::remove_dir_all(p.path("n"))?;
    p.write("n", "a file again")?;
    same_bytes(&p.read("n")?, b"a file again");
    same_bytes(&p.object("n")?, b"a file again");
    assert_eq!(p.keys()?, ["n"]);
    Ok(())
}
