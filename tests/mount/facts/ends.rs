//! How mounts begin and end: in the background, by unmount, by signals; and that nothing is lost on the way.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use super::durability::is_kept;
use crate::harness::mount::text;
use crate::harness::place::checked;
use crate::harness::prelude::*;
use crate::harness::sim::Faults;

const MIB: usize = 1 << 20;

pub fn facts() -> Vec<Fact> {
    vec![
        own!(everything_is_there_after_a_remount),
        own!(unmount_waits_for_uploads).on(SIM).seconds(120),
        own!(unmount_of_a_busy_mount_is_told_or_waits).on(SIM),
        own!(sigterm_publishes_what_is_open).on(SIM),
        own!(sigint_ends_like_unmount).on(SIM),
        own!(umount_8_ends_the_daemon).on(SIM),
        own!(a_background_mount_answers_when_the_command_returns).on(SIM),
        own!(unmounting_what_is_not_mounted_is_told).on(SIM),
        own!(what_neither_s3_nor_the_journal_took_holds_an_unmount_up_and_is_told_at_the_end).on(SIM).seconds(120),
    ]
}

fn everything_is_there_after_a_remount(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    fs::create_dir_all(p.path("폴더/empty"))?;
    p.write("폴더/파일 🦀", "content")?;
    p.write("large", pattern(1, 20 * MIB))?;
    drop(p.create("empty file")?);
    File::options().append(true).open(p.path("폴더/파일 🦀"))?.write_all(b", more")?;
    fs::rename(p.path("large"), p.path("폴더/large"))?;
    p.mount.remount()?;
    assert_eq!(p.names("")?, ["empty file", "폴더"]);
    assert_eq!(p.names("폴더")?, ["empty", "large", "파일 🦀"]);
    assert_eq!(p.names("폴더/empty")?, Vec::<String>::new());
    same_bytes(&p.read("폴더/파일 🦀")?, b"content, more");
    same_bytes(&p.read("폴더/large")?, &pattern(1, 20 * MIB));
    same_bytes(&p.read("empty file")?, b"");
    Ok(())
}

fn unmount_waits_for_uploads(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    let bytes = pattern(2, 24 * MIB);
    // Half a second for each of the parts.
    p.sim().set(&Faults { bytes_per_second: 16_000_000, ..Faults::default() });
    thread::scope(|scope| -> Outcome {
        let writer = scope.spawn(|| p.write("f", &bytes));
        assert!(poll(Duration::from_secs(10), || p.path("f").exists()));
        // The file is open until its bytes are in S3: a patient unmount succeeds only behind that.
        let unmounted = poll(Duration::from_secs(60), || p.mount.pid().is_none() || p.mount.unmount().is_ok());
        assert!(unmounted, "it cannot be unmounted");
        let written = writer.join().expect("the writer does not panic");
        if written.is_ok() {
            p.sim().set(&Faults::default());
            same_bytes(&p.object("f")?, &bytes);
        }
        Ok(())
    })
}

fn unmount_of_a_busy_mount_is_told_or_waits(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    let mut file = p.create("f")?;
    file.write_all(b"in use")?;
    let output = p.mount.run(&["unmount", p.dir.to_str().unwrap_or_default()])?;
    if !output.status.success() {
        assert!(!text(&output).is_empty());
        file.write_all(b", still")?;
        sys::close(file)?;
        same_bytes(&p.object("f")?, b"in use, still");
        return Ok(());
    }
    // A lazy unmount must have published what was written.
    same_bytes(&p.object("f")?, b"in use");
    Ok(())
}

fn sigterm_publishes_what_is_open(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    let mut small = p.create("small")?;
    small.write_all(b"never closed")?;
    let large = p.create("large")?;
    large.write_all_at(&pattern(3, 20 * MIB), 0)?;
    p.mount.end_by(libc::SIGTERM)?;
    same_bytes(&p.object("small")?, b"never closed");
    same_bytes(&p.object("large")?, &pattern(3, 20 * MIB));
    drop((small, large));
    assert!(!p.mount.is_mounted());
    Ok(())
}

fn sigint_ends_like_unmount(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.write("f", "x")?;
    let status = p.mount.end_by(libc::SIGINT)?;
    assert!(status.success(), "{status}");
    assert!(!p.mount.is_mounted());
    same_bytes(&p.object("f")?, b"x");
    Ok(())
}

fn umount_8_ends_the_daemon(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.write("f", "x")?;
    p.shell("cd /; true")?;
    checked(&run(std::process::Command::new("fusermount3").arg("-u").arg(&p.dir))?)?;
    // The daemon ends by itself; signal 0 asks whether it lives.
    let status = p.mount.end_by(libc::SIGCONT)?;
    assert!(status.success(), "{status}");
    same_bytes(&p.object("f")?, b"x");
    Ok(())
}

fn a_background_mount_answers_when_the_command_returns(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.write("f", "x")?;
    p.mount.unmount()?;
    let dir = p.dir.to_str().unwrap_or_default();
    let arguments = [&*p.mount.source(), dir, "--endpoint-url", &p.mount.server.endpoint, "--region", "us-east-1"];
    let output = p.mount.run(&arguments)?;
    assert!(output.status.success(), "{}", text(&output));
    let answered = p.read("f");
    let again = p.mount.run(&["unmount", dir])?;
    same_bytes(&answered?, b"x");
    assert!(again.status.success(), "{}", text(&again));
    assert!(!p.mount.is_mounted());
    Ok(())
}

fn unmounting_what_is_not_mounted_is_told(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    p.mount.unmount()?;
    let output = p.mount.run(&["unmount", p.dir.to_str().unwrap_or_default()])?;
    assert!(!output.status.success());
    assert!(text(&output).contains("mounted"), "{}", text(&output));
    Ok(())
}

/// Puts files where the journals of a mount keep things, or takes them away.
fn block_journals(p: &Place, blocked: bool) -> Outcome {
    for entry in fs::read_dir(p.mount.state_dir())? {
        let kept = entry?.path().join("kept");
        match (kept.is_dir(), kept.exists(), blocked) {
            (true, _, true) => {
                fs::remove_dir(&kept)?;
                fs::write(&kept, "")?;
            }
            (false, true, false) => {
                fs::remove_file(&kept)?;
                fs::create_dir(&kept)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn what_neither_s3_nor_the_journal_took_holds_an_unmount_up_and_is_told_at_the_end(c: &Context) -> Outcome {
    let p = c.mount(&[])?;
    let dir = p.dir.to_str().unwrap_or_default();
    let lose = |name: &str, bytes: &[u8]| -> Outcome {
        block_journals(&p, true)?;
        let mut file = p.create(name)?;
        file.write_all(bytes)?;
        refused(sys::close(file), &[libc::EACCES]);
        assert!(poll(Duration::from_secs(10), || status(&p).contains("here only      1 files")), "{}", status(&p));
        same_bytes(&p.read(name)?, bytes);
        Ok(())
    };
    p.names("")?;
    p.sim().set(&Faults { denied: &["PutObject"], ..Faults::default() });
    lose("kept later", b"first")?;
    let refused = p.mount.run(&["unmount", dir])?;
    assert_eq!(refused.status.code(), Some(32), "{}", text(&refused));
    assert!(text(&refused).contains("1 files are neither in S3 nor in the journal"), "{}", text(&refused));
    same_bytes(&p.read("kept later")?, b"first");
    block_journals(&p, false)?;
    // The journal is asked again.
    assert!(poll(Duration::from_secs(30), || !status(&p).contains("here only")), "{}", status(&p));
    is_kept(&p, "kept later", b"first")?;
    let discarded =
        p.mount.run(&["recover", "list", "--state-dir", p.mount.state_dir().to_str().unwrap_or_default()])?;
    let id = text(&discarded).split(' ').next().unwrap_or_default().to_owned();
    checked(&run(p.mount.program().args(["recover", "discard", &id, "--state-dir"]).arg(p.mount.state_dir()))?)?;
    lose("second", b"second")?;
    let helper = p.mount.home.join("umount.s3mount");
    std::os::unix::fs::symlink(p.mount.program().get_program(), &helper)?;
    let refused = run(std::process::Command::new(&helper).arg(dir))?;
    assert_eq!(refused.status.code(), Some(32), "{}", text(&refused));
    assert!(text(&refused).contains("1 files are neither in S3 nor in the journal"), "{}", text(&refused));
    let log = p.mount.log_len();
    let ended = p.mount.end_by(libc::SIGTERM)?;
    assert_eq!(ended.code(), Some(2));
    let said = p.mount.log_from(log);
    let line = said.lines().find(|line| line.contains("lost: ")).unwrap_or_default();
    let tells =
        ["lost: second: not in S3 (", "not in the journal (", "write it again"].iter().all(|word| line.contains(word));
    assert!(tells && said.contains("1 files are lost"), "{said}");
    Ok(())
}

fn status(p: &Place) -> String {
    run(p.mount.program().arg("status").arg(&p.dir)).map(|output| text(&output)).unwrap_or_default()
}
