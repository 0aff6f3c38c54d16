//! Descriptors that share one open file: dup, fork and what is inherited.

use std::fs::File;
use std::io::Write;
use std::process::Stdio;

use crate::harness::prelude::*;
use crate::harness::process::start;

pub fn facts() -> Vec<Fact> {
    vec![
        shared!(a_duplicated_descriptor_keeps_writing),
        shared!(a_child_writes_to_an_inherited_descriptor),
        shared!(a_child_that_only_inherits_a_descriptor_publishes_nothing),
        shared!(a_child_that_ends_before_the_first_write_publishes_nothing).on(S3),
        shared!(closing_twice_by_dup_publishes_once_more_only_if_needed),
    ]
}

fn a_duplicated_descriptor_keeps_writing(p: &Place) -> Outcome {
    let mut one = p.create("f")?;
    let mut two = one.try_clone()?;
    one.write_all(b"one ")?;
    sys::close(one)?;
    same_bytes(&p.object("f")?, b"one ");
    two.write_all(b"two")?;
    sys::close(two)?;
    same_bytes(&p.object("f")?, b"one two");
    same_bytes(&p.read("f")?, b"one two");
    Ok(())
}

fn a_child_writes_to_an_inherited_descriptor(p: &Place) -> Outcome {
    let mut file = p.create("f")?;
    file.write_all(b"parent ")?;
    let mut command = p.command("sh");
    command.args(["-c", "printf 'child '"]).stdout(Stdio::from(file.try_clone()?));
    assert!(start(&mut command)?.wait()?.success());
    drop(command);
    file.write_all(b"parent again")?;
    sys::close(file)?;
    same_bytes(&p.object("f")?, b"parent child parent again");
    Ok(())
}

fn a_child_that_only_inherits_a_descriptor_publishes_nothing(p: &Place) -> Outcome {
    p.foreign_put("f", "the whole of before")?;
    let mut file = File::options().write(true).truncate(true).open(p.path("f"))?;
    file.write_all(b"half of ")?;
    // `true` holds a copy of the descriptor as its standard error until it ends, and writes nothing to it.
    let mut command = p.command("true");
    command.stderr(Stdio::from(file.try_clone()?));
    assert!(start(&mut command)?.wait()?.success());
    same_bytes(&p.object("f")?, b"the whole of before");
    drop(command);
    file.write_all(b"what comes")?;
    sys::close(file)?;
    same_bytes(&p.object("f")?, b"half of what comes");
    Ok(())
}

fn a_child_that_ends_before_the_first_write_publishes_nothing(p: &Place) -> Outcome {
    p.foreign_put("emptied", "the whole of before")?;
    for name in ["emptied", "made"] {
        let mut file = File::options().write(true).create(true).truncate(true).open(p.path(name))?;
        let mut command = p.command("true");
        command.stderr(Stdio::from(file.try_clone()?));
        assert!(start(&mut command)?.wait()?.success());
        // Here the name is there at once, and empty.
        assert_eq!(std::fs::metadata(p.path(name))?.len(), 0);
        match name {
            "emptied" => same_bytes(&p.object(name)?, b"the whole of before"),
            _ => assert!(!p.has_object(name)?),
        }
        drop(command);
        file.write_all(b"what comes")?;
        sys::close(file)?;
        same_bytes(&p.object(name)?, b"what comes");
    }
    // Who opened a file and writes nothing publishes it all the same, also after a child of it.
    let file = File::create(p.path("empty"))?;
    let mut command = p.command("true");
    command.stderr(Stdio::from(file.try_clone()?));
    assert!(start(&mut command)?.wait()?.success());
    drop(command);
    sys::close(file)?;
    same_bytes(&p.object("empty")?, b"");
    // And so does the last of several processes, where the opener has ended first.
    p.shell("(sleep 0.2; printf late) >orphan & wait")?;
    same_bytes(&p.object("orphan")?, b"late");
    Ok(())
}

fn closing_twice_by_dup_publishes_once_more_only_if_needed(p: &Place) -> Outcome {
    let mut file = p.create("f")?;
    file.write_all(b"bytes")?;
    for _ in 0..5 {
        sys::close(file.try_clone()?)?;
    }
    same_bytes(&p.object("f")?, b"bytes");
    // Another client's bytes stay: the closes that follow have nothing to publish.
    p.foreign_put_unseen("f", "theirs")?;
    sys::close(file.try_clone()?)?;
    sys::close(file)?;
    same_bytes(&p.object("f")?, b"theirs");
    Ok(())
}
