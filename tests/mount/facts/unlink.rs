//! Unlinks, also of what is open.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::harness::prelude::*;

const MIB: usize = 1 << 20;

pub fn facts() -> Vec<Fact> {
    vec![
        shared!(an_unlinked_file_is_gone_from_s3),
        shared!(unlink_of_nothing_is_refused),
        shared!(unlinked_while_open_stays_readable),
        shared!(a_large_file_unlinked_while_open_stays_readable).seconds(120),
        shared!(unlinked_while_written_leaves_no_object),
        shared!(unlinked_while_written_stays_usable),
        shared!(unlinked_and_made_again_while_open),
        shared!(five_hundred_unlinks_then_rmdir).seconds(180),
        shared!(unlinked_names_stay_gone),
        shared!(the_object_of_another_goes_too),
    ]
}

fn an_unlinked_file_is_gone_from_s3(p: &Place) -> Outcome {
    p.write("f", "x")?;
    fs::remove_file(p.path("f"))?;
    // The kernel may tell of the close only after the unlink: until then the file counts as open.
    assert!(poll(Duration::from_secs(20), || p.has_object("f").is_ok_and(|there| !there)));
    refused(fs::metadata(p.path("f")), &[libc::ENOENT]);
    refused(File::open(p.path("f")), &[libc::ENOENT]);
    assert_eq!(p.names("")?, Vec::<String>::new());
    Ok(())
}

fn unlink_of_nothing_is_refused(p: &Place) -> Outcome {
    refused(fs::remove_file(p.path("nothing")), &[libc::ENOENT]);
    p.write("f", "x")?;
    fs::remove_file(p.path("f"))?;
    refused(fs::remove_file(p.path("f")), &[libc::ENOENT]);
    Ok(())
}

fn unlinked_while_open_stays_readable(p: &Place) -> Outcome {
    p.write("f", "still here")?;
    let mut file = File::open(p.path("f"))?;
    fs::remove_file(p.path("f"))?;
    refused(fs::metadata(p.path("f")), &[libc::ENOENT]);
    let mut found = String::new();
    file.read_to_string(&mut found)?;
    assert_eq!(found, "still here");
    assert_eq!(file.metadata()?.len(), 10);
    drop(file);
    p.shell("sync . ; true")?;
    let gone = || p.has_object("f").is_ok_and(|there| !there);
    assert!(poll(std::time::Duration::from_secs(10), gone), "the object outlives the last close");
    Ok(())
}

fn a_large_file_unlinked_while_open_stays_readable(p: &Place) -> Outcome {
    let bytes = pattern(1, 40 * MIB);
    p.foreign_put("f", &bytes)?;
    let file = File::open(p.path("f"))?;
    fs::remove_file(p.path("f"))?;
    let mut found = vec![0; bytes.len()];
    file.read_exact_at(&mut found, 0)?;
    same_bytes(&found, &bytes);
    assert_eq!(p.names("")?, Vec::<String>::new());
    Ok(())
}

fn unlinked_while_written_leaves_no_object(p: &Place) -> Outcome {
    for len in [10, 20 * MIB] {
        let mut file = p.create("f")?;
        file.write_all(&pattern(2, len))?;
        fs::remove_file(p.path("f"))?;
        file.write_all(b"more")?;
        sys::close(file)?;
        assert_eq!(p.keys()?, Vec::<String>::new());
    }
    assert_eq!(p.names("")?, Vec::<String>::new());
    Ok(())
}

fn unlinked_while_written_stays_usable(p: &Place) -> Outcome {
    let mut file = p.create("f")?;
    file.write_all(b"temporary ")?;
    fs::remove_file(p.path("f"))?;
    file.write_all(b"data")?;
    file.sync_all()?;
    let mut found = vec![0; 14];
    file.read_exact_at(&mut found, 0)?;
    same_bytes(&found, b"temporary data");
    file.set_len(4)?;
    assert_eq!(file.metadata()?.len(), 4);
    Ok(())
}

fn unlinked_and_made_again_while_open(p: &Place) -> Outcome {
    p.write("f", "old")?;
    let mut old = File::open(p.path("f"))?;
    fs::remove_file(p.path("f"))?;
    p.write("f", "new")?;
    let mut found = String::new();
    old.read_to_string(&mut found)?;
    assert_eq!(found, "old");
    drop(old);
    same_bytes(&p.read("f")?, b"new");
    same_bytes(&p.object("f")?, b"new");
    assert_eq!(p.names("")?, ["f"]);
    Ok(())
}

fn five_hundred_unlinks_then_rmdir(p: &Place) -> Outcome {
    let names: Vec<_> = (0..500).map(|n| format!("d/{n:03}")).collect();
    p.foreign_put_many(&names)?;
    for name in &names {
        fs::remove_file(p.path(name))?;
    }
    if p.path("d").exists() {
        fs::remove_dir(p.path("d"))?;
    }
    assert_eq!(p.keys()?, Vec::<String>::new());
    assert_eq!(p.names("")?, Vec::<String>::new());
    Ok(())
}

fn unlinked_names_stay_gone(p: &Place) -> Outcome {
    for n in 0..20 {
        p.write(&format!("{n}"), "x")?;
    }
    for n in (0..20).step_by(2) {
        fs::remove_file(p.path(format!("{n}")))?;
        assert!(!p.names("")?.contains(&n.to_string()));
        refused(fs::metadata(p.path(format!("{n}"))), &[libc::ENOENT]);
    }
    assert_eq!(p.names("")?.len(), 10);
    Ok(())
}

fn the_object_of_another_goes_too(p: &Place) -> Outcome {
    p.foreign_put("f", "x")?;
    fs::remove_file(p.path("f"))?;
    assert!(!p.has_object("f")?);
    Ok(())
}
