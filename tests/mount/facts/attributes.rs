//! Modes, owners, times, access, and what is refused.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::harness::mount::Mounting;
use crate::harness::prelude::*;

/// A user that owns nothing.
const NOBODY: u32 = 65534;

pub fn facts() -> Vec<Fact> {
    vec![
        shared!(times_can_be_set),
        shared!(a_time_set_right_after_close_survives_a_rename),
        shared!(touch_sets_the_time),
        shared!(writing_moves_the_time),
        shared!(the_time_of_a_directory_moves_with_its_names),
        shared!(an_unlinked_open_file_has_no_links),
        shared!(the_time_of_a_foreign_object_is_its_last_modified).on(S3),
        shared!(chmod_succeeds_and_shows),
        shared!(chown_succeeds_and_shows),
        shared!(the_size_of_a_file_that_is_written_shows_at_once),
        shared!(access_follows_the_mode),
        own!(modes_and_owners_come_from_the_options),
        own!(the_mode_keeps_other_users_out),
        shared!(hard_links_are_refused).on(S3),
        shared!(fifos_are_refused).on(S3),
        shared!(symlinks_work_or_are_refused_cleanly).on(S3),
        shared!(extended_attributes_are_refused_cleanly).on(S3),
        shared!(the_creation_mode_shows),
    ]
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(0))
}

fn times_can_be_set(p: &Place) -> Outcome {
    p.write("f", "x")?;
    sys::set_times(&p.path("f"), (1_000_000_000, 0), (1_234_567_890, 0))?;
    let found = fs::metadata(p.path("f"))?;
    assert_eq!((found.atime(), found.mtime()), (1_000_000_000, 1_234_567_890));
    same_bytes(&p.read("f")?, b"x");
    fs::create_dir(p.path("d"))?;
    sys::set_times(&p.path("d"), (1, 0), (2, 0))?;
    Ok(())
}

fn a_time_set_right_after_close_survives_a_rename(p: &Place) -> Outcome {
    // As rsync does it; the kernel tells of the last close only after close(2) has answered.
    for n in 0..60 {
        p.write("part", "x")?;
        sys::set_times(&p.path("part"), (1_000_000_000, 0), (1_234_567_890, 0))?;
        fs::rename(p.path("part"), p.path(format!("{n}")))?;
        assert_eq!(fs::metadata(p.path(format!("{n}")))?.mtime(), 1_234_567_890, "{n}");
    }
    Ok(())
}

fn touch_sets_the_time(p: &Place) -> Outcome {
    p.shell("touch -d '2013-01-02 03:04:05 UTC' f")?;
    assert_eq!(fs::metadata(p.path("f"))?.mtime(), 1_357_095_845);
    Ok(())
}

fn writing_moves_the_time(p: &Place) -> Outcome {
    let before = seconds(SystemTime::now()) - 2;
    p.write("f", "x")?;
    let made = fs::metadata(p.path("f"))?.mtime();
    assert!((before..before + 60).contains(&made), "{made} is not now");
    sys::set_times(&p.path("f"), (5, 0), (5, 0))?;
    File::options().append(true).open(p.path("f"))?.write_all(b"y")?;
    assert!(fs::metadata(p.path("f"))?.mtime() >= before);
    Ok(())
}

fn the_time_of_a_directory_moves_with_its_names(p: &Place) -> Outcome {
    // Python's import system, among others, looks into a directory anew only when its time has moved.
    fs::create_dir_all(p.path("d/below"))?;
    p.write("d/old", "x")?;
    let changes: [(&str, &dyn Fn() -> std::io::Result<()>); 6] = [
        ("a new file", &|| p.write("d/new", "x").map(|_| ())),
        ("a new directory", &|| fs::create_dir(p.path("d/e"))),
        ("a name that goes", &|| fs::remove_file(p.path("d/old"))),
        ("a directory that goes", &|| fs::remove_dir(p.path("d/e"))),
        ("a name that leaves", &|| fs::rename(p.path("d/new"), p.path("elsewhere"))),
        ("a name that comes", &|| fs::rename(p.path("elsewhere"), p.path("d/back"))),
    ];
    for (what, change) in changes {
        let before = fs::metadata(p.path("d"))?.modified()?;
        std::thread::sleep(std::time::Duration::from_millis(20));
        change()?;
        assert!(fs::metadata(p.path("d"))?.modified()? > before, "{what} does not show in the directory's time");
    }
    sys::set_times(&p.path("d"), (1, 0), (2, 0))?;
    assert_eq!(fs::metadata(p.path("d"))?.mtime(), 2);
    p.write("d/last", "x")?;
    assert!(fs::metadata(p.path("d"))?.mtime() > 2);
    Ok(())
}

fn an_unlinked_open_file_has_no_links(p: &Place) -> Outcome {
    let path = p.write("f", "x")?;
    let file = File::open(&path)?;
    assert_eq!(file.metadata()?.nlink(), 1);
    fs::remove_file(path)?;
    assert_eq!(file.metadata()?.nlink(), 0);
    Ok(())
}

fn the_time_of_a_foreign_object_is_its_last_modified(p: &Place) -> Outcome {
    let before = seconds(SystemTime::now()) - 2;
    p.foreign_put("f", "x")?;
    let found = fs::metadata(p.path("f"))?.mtime();
    assert!((before..before + 60).contains(&found), "{found} is not now");
    Ok(())
}

fn chmod_succeeds_and_shows(p: &Place) -> Outcome {
    p.write("f", "#!/bin/sh\necho run\n")?;
    fs::set_permissions(p.path("f"), Permissions::from_mode(0o755))?;
    assert_eq!(fs::metadata(p.path("f"))?.mode() & 0o7777, 0o755);
    assert_eq!(p.shell("./f")?, "run\n");
    fs::create_dir(p.path("d"))?;
    fs::set_permissions(p.path("d"), Permissions::from_mode(0o700))?;
    assert_eq!(fs::metadata(p.path("d"))?.mode() & 0o7777, 0o700);
    same_bytes(&p.object("f")?, b"#!/bin/sh\necho run\n");
    Ok(())
}

fn chown_succeeds_and_shows(p: &Place) -> Outcome {
    if !nix::unistd::geteuid().is_root() {
        return skip("chown to another user needs root");
    }
    p.write("f", "x")?;
    chown(p.path("f"), Some(1234), Some(4321))?;
    let found = fs::metadata(p.path("f"))?;
    assert_eq!((found.uid(), found.gid()), (1234, 4321));
    Ok(())
}

fn the_size_of_a_file_that_is_written_shows_at_once(p: &Place) -> Outcome {
    let mut file = p.create("f")?;
    for n in 1..=5 {
        file.write_all(&[7; 1000])?;
        assert_eq!(fs::metadata(p.path("f"))?.len(), n * 1000);
        let listed = fs::read_dir(&p.dir)?.next().ok_or_else(|| Failure("not listed".into()))??;
        assert_eq!(listed.metadata()?.len(), n * 1000);
    }
    Ok(())
}

fn access_follows_the_mode(p: &Place) -> Outcome {
    p.write("f", "x")?;
    sys::access(&p.path("f"), libc::R_OK | libc::W_OK)?;
    fs::set_permissions(p.path("f"), Permissions::from_mode(0o644))?;
    refused(sys::access(&p.path("f"), libc::X_OK), &[libc::EACCES]);
    refused(sys::access(&p.path("nothing"), libc::F_OK), &[libc::ENOENT]);
    sys::access(&p.dir, libc::R_OK | libc::W_OK | libc::X_OK)?;
    Ok(())
}

fn modes_and_owners_come_from_the_options(c: &Context) -> Outcome {
    let p = c.mount(&["--uid", "1234", "--gid", "4321", "--file-mode", "0640", "--dir-mode", "0750"])?;
    p.foreign_put("d/f", "x")?;
    let (file, dir) = (fs::metadata(p.path("d/f"))?, fs::metadata(p.path("d"))?);
    assert_eq!((file.uid(), file.gid(), file.mode()), (1234, 4321, libc::S_IFREG | 0o640));
    assert_eq!((dir.uid(), dir.gid(), dir.mode()), (1234, 4321, libc::S_IFDIR | 0o750));
    Ok(())
}

fn the_mode_keeps_other_users_out(c: &Context) -> Outcome {
    if !nix::unistd::geteuid().is_root() {
        return skip("being another user needs root");
    }
    let p =
        c.mount_as(&Mounting::with(&["--allow-other", "--uid", "0", "--file-mode", "0600", "--dir-mode", "0755"]))?;
    // The folders above the mount are the suite's own.
    let above = p.dir.parent().expect("a mount lies in a folder");
    fs::set_permissions(above, Permissions::from_mode(0o755))?;
    p.foreign_put("secret", "x")?;
    let as_nobody = |script: &str| run(p.command("sh").args(["-c", script]).uid(NOBODY).gid(NOBODY));
    assert!(as_nobody("ls > /dev/null")?.status.success());
    let refused_read = as_nobody("cat secret")?;
    assert!(!refused_read.status.success());
    assert!(String::from_utf8_lossy(&refused_read.stderr).contains("Permission denied"));
    assert!(!as_nobody("echo x > new")?.status.success());
    assert!(!as_nobody("rm -f secret")?.status.success());
    same_bytes(&p.object("secret")?, b"x");
    Ok(())
}

fn hard_links_are_refused(p: &Place) -> Outcome {
    p.write("f", "x")?;
    refused(fs::hard_link(p.path("f"), p.path("g")), &[libc::EPERM, libc::EOPNOTSUPP, libc::ENOSYS]);
    assert_eq!(fs::metadata(p.path("f"))?.nlink(), 1);
    Ok(())
}

fn fifos_are_refused(p: &Place) -> Outcome {
    refused(sys::mkfifo(&p.path("pipe")), &[libc::EPERM, libc::EOPNOTSUPP, libc::ENOSYS]);
    assert_eq!(p.names("")?, Vec::<String>::new());
    Ok(())
}

fn symlinks_work_or_are_refused_cleanly(p: &Place) -> Outcome {
    p.write("f", "target")?;
    match symlink("f", p.path("link")) {
        Ok(()) => {
            assert_eq!(fs::read_link(p.path("link"))?.as_os_str(), "f");
            same_bytes(&p.read("link")?, b"target");
            fs::remove_file(p.path("link"))?;
            same_bytes(&p.read("f")?, b"target");
        }
        Err(error) => refused::<()>(Err(error), &[libc::EPERM, libc::EOPNOTSUPP, libc::ENOSYS]),
    }
    assert_eq!(p.names("")?, ["f"]);
    Ok(())
}

fn extended_attributes_are_refused_cleanly(p: &Place) -> Outcome {
    p.write("f", "x")?;
    if let Err(error) = sys::set_xattr(&p.path("f"), c"user.note", b"value") {
        refused::<()>(Err(error), &[libc::EOPNOTSUPP, libc::EPERM]);
    }
    // ls and cp -a ask for security labels and ACLs; they must not be told of an error of the disk.
    p.shell("ls -l f > /dev/null; cp -a f g")?;
    same_bytes(&p.object("g")?, b"x");
    Ok(())
}

fn the_creation_mode_shows(p: &Place) -> Outcome {
    drop(sys::open(&p.path("f"), libc::O_CREAT | libc::O_WRONLY, 0o600)?);
    assert_eq!(fs::metadata(p.path("f"))?.mode() & 0o777, 0o600);
    p.shell("umask 077; mkdir d")?;
    assert_eq!(fs::metadata(p.path("d"))?.mode() & 0o777, 0o700);
    Ok(())
}
