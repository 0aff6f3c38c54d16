//! Two mounts of one bucket: close-to-open, and what happens when both write.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::harness::prelude::*;

const SOON: Duration = Duration::from_secs(20);

pub fn facts() -> Vec<Fact> {
    vec![
        own!(what_one_closes_the_other_opens),
        own!(what_one_truncates_the_other_opens),
        own!(new_names_and_removed_names_reach_the_other),
        own!(a_rename_reaches_the_other),
        own!(of_two_conflicting_edits_one_wins_and_one_is_kept),
        own!(of_two_exclusive_creators_one_wins),
        own!(a_reader_of_one_mount_never_mixes_versions_of_the_other)
            .seconds(120)
            .differs(&[(Kind::Moto, "cuts a body short while another thread computes the ETag of the same object")]),
        own!(a_counter_passed_back_and_forth),
    ]
}

fn pair(c: &Context) -> Outcome<(Place, Place)> {
    let a = c.mount(&[])?;
    let b = c.second(&a, &[])?;
    Ok((a, b))
}

fn what_one_closes_the_other_opens(c: &Context) -> Outcome {
    let (a, b) = pair(c)?;
    for round in 0..10 {
        let content = format!("round {round}");
        a.write("f", &content)?;
        assert!(poll(SOON, || b.path("f").exists()));
        same_bytes(&b.read("f")?, content.as_bytes());
        let answer = format!("{content}, answered at length");
        b.write("f", &answer)?;
        same_bytes(&a.read("f")?, answer.as_bytes());
    }
    Ok(())
}

fn what_one_truncates_the_other_opens(c: &Context) -> Outcome {
    let (a, b) = pair(c)?;
    a.write("f", pattern(1, 100_000))?;
    same_bytes(&b.read("f")?, &pattern(1, 100_000));
    sys::truncate(&a.path("f"), 10)?;
    same_bytes(&b.read("f")?, &pattern(1, 10));
    Ok(())
}

fn new_names_and_removed_names_reach_the_other(c: &Context) -> Outcome {
    let (a, b) = pair(c)?;
    assert_eq!(b.names("")?, Vec::<String>::new());
    fs::create_dir(a.path("d"))?;
    a.write("d/f", "x")?;
    assert!(poll(SOON, || b.names("d").is_ok_and(|names| names == ["f"])));
    fs::remove_file(a.path("d/f"))?;
    fs::remove_dir(a.path("d"))?;
    assert!(poll(SOON, || b.names("").is_ok_and(|names| names.is_empty())));
    assert!(poll(SOON, || fs::metadata(b.path("d/f")).is_err()));
    Ok(())
}

fn a_rename_reaches_the_other(c: &Context) -> Outcome {
    let (a, b) = pair(c)?;
    a.write("f", "content")?;
    same_bytes(&b.read("f")?, b"content");
    fs::rename(a.path("f"), a.path("g"))?;
    assert!(poll(SOON, || b.names("").is_ok_and(|names| names == ["g"])));
    same_bytes(&b.read("g")?, b"content");
    assert!(poll(SOON, || fs::metadata(b.path("f")).is_err()));
    Ok(())
}

fn of_two_conflicting_edits_one_wins_and_one_is_kept(c: &Context) -> Outcome {
    let (a, b) = pair(c)?;
    a.write("f", "shared base")?;
    assert!(poll(SOON, || b.path("f").exists()));
    let open = |p: &Place| File::options().read(true).write(true).open(p.path("f"));
    let (one, two) = (open(&a)?, open(&b)?);
    // Who has read what it edits has all of it at hand when the edit is kept.
    assert_eq!(std::io::read_to_string(&two)?, "shared base");
    one.write_all_at(b"A", 0)?;
    two.write_all_at(b"B", 0)?;
    sys::close(one)?;
    let lost = sys::close(two);
    assert!(lost.is_err(), "the second writer must be told");
    same_bytes(&a.object("f")?, b"Ahared base");
    super::durability::is_kept(&b, "f", b"Bhared base")?;
    assert!(poll(SOON, || b.read("f").is_ok_and(|found| found == b"Ahared base")));
    Ok(())
}

fn of_two_exclusive_creators_one_wins(c: &Context) -> Outcome {
    let (a, b) = pair(c)?;
    assert!(a.names("")?.is_empty() && b.names("")?.is_empty());
    let create = |p: &Place, content: &str| -> std::io::Result<()> {
        let mut file = File::options().write(true).create_new(true).open(p.path("lock"))?;
        file.write_all(content.as_bytes())?;
        sys::close(file)
    };
    let (one, two) = (create(&a, "a"), create(&b, "b"));
    assert!(one.is_ok() && two.is_err(), "{one:?} {two:?}");
    same_bytes(&a.object("lock")?, b"a");
    Ok(())
}

fn a_reader_of_one_mount_never_mixes_versions_of_the_other(c: &Context) -> Outcome {
    const LEN: usize = 3 << 20;
    let (a, b) = pair(c)?;
    a.write("f", vec![b'a'; LEN])?;
    assert!(poll(SOON, || b.path("f").exists()));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> Outcome {
            for round in 0..12_u8 {
                // A child that another fact forks between open and write would publish the empty file.
                let _quiet = quiet();
                a.write("f", vec![b'b' + round; LEN])?;
            }
            Ok(())
        });
        while !writer.is_finished() {
            match b.read("f") {
                Ok(found) => {
                    assert_eq!(found.len(), LEN);
                    assert!(found.iter().all(|&byte| byte == found[0]), "bytes of two versions are mixed");
                }
                Err(error) => refused::<()>(Err(error), &[libc::ESTALE]),
            }
        }
        writer.join().expect("the writer does not panic")
    })?;
    same_bytes(&b.read("f")?, &vec![b'b' + 11; LEN]);
    Ok(())
}

fn a_counter_passed_back_and_forth(c: &Context) -> Outcome {
    let (a, b) = pair(c)?;
    a.write("count", "0")?;
    assert!(poll(SOON, || b.path("count").exists()));
    for n in 0..20 {
        let p = if n % 2 == 0 { &b } else { &a };
        let mut file = File::options().read(true).write(true).open(p.path("count"))?;
        let text = std::io::read_to_string(&file)?;
        assert_eq!(text, n.to_string());
        file.set_len(0)?;
        std::io::Seek::rewind(&mut file)?;
        file.write_all((n + 1).to_string().as_bytes())?;
        sys::close(file)?;
    }
    same_bytes(&a.object("count")?, b"20");
    Ok(())
}
