//! With `--posix`: what objects say of themselves, and what is kept there.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use super::tools::has;
use crate::harness::prelude::*;
use crate::harness::sim::Faults;

pub fn facts() -> Vec<Fact> {
    vec![
        own!(what_was_set_is_there_after_a_remount).on(S3),
        own!(what_is_set_before_close_goes_with_the_put).on(SIM),
        own!(closing_a_file_changes_none_of_its_times).on(S3),
        own!(a_content_that_is_newer_than_a_time_that_was_set_has_its_own).on(S3),
        own!(chmod_of_a_closed_file_is_one_copy).on(SIM),
        own!(chmod_of_ten_gib_moves_no_bytes).on(SIM).seconds(180),
        own!(links_are_listed_as_links).on(S3),
        own!(pipes_sockets_and_devices_are_kept).on(S3),
        own!(extended_attributes_are_kept).on(S3),
        own!(more_than_metadata_holds_is_refused).on(S3),
        own!(metadata_of_other_programs_is_read).on(S3),
        own!(a_listing_asks_for_each_name_once).on(SIM),
        own!(what_another_mount_sets_is_seen).on(S3),
        own!(a_renamed_file_keeps_what_it_says).on(S3),
        own!(a_renamed_directory_keeps_what_is_said_in_it).on(S3),
        own!(readers_and_writers_go_on_when_attributes_change).on(S3),
        own!(a_new_content_keeps_mode_and_owner).on(S3),
        own!(a_refused_change_is_told_and_not_shown).on(SIM),
        own!(a_change_of_a_replaced_object_is_made_on_the_new_one).on(SIM),
        own!(set_group_id_directories_hand_their_group_on).on(S3),
        own!(rsync_archives_send_nothing_twice).on(S3),
        own!(tar_and_cp_keep_everything).on(S3),
    ]
}

const POSIX: &[&str] = &["--posix"];
/// What was listed stays known for the whole fact.
const REMEMBERING: &[&str] = &["--posix", "--metadata-ttl", "60"];

fn mode(p: &Place, name: &str) -> std::io::Result<u32> {
    Ok(fs::symlink_metadata(p.path(name))?.mode() & 0o7777)
}

fn what_was_set_is_there_after_a_remount(c: &Context) -> Outcome {
    let p = c.mount(POSIX)?;
    p.write("f", "content")?;
    fs::create_dir(p.path("d"))?;
    p.write("d/below", "x")?;
    symlink("f", p.path("l"))?;
    for name in ["f", "d", "l"] {
        lchown(p.path(name), Some(1234), Some(4321))?;
    }
    fs::set_permissions(p.path("f"), Permissions::from_mode(0o4751))?;
    fs::set_permissions(p.path("d"), Permissions::from_mode(0o1730))?;
    sys::set_times(&p.path("f"), (1_000_000_000, 7), (1_234_567_890, 123_456_789))?;
    sys::set_times(&p.path("d"), (1_000_000_001, 0), (1_234_567_891, 0))?;
    let told = |name: &str| -> std::io::Result<_> {
        let found = fs::symlink_metadata(p.path(name))?;
        let times = (found.atime(), found.atime_nsec(), found.mtime(), found.mtime_nsec());
        Ok((found.mode(), found.uid(), found.gid(), times, found.len()))
    };
    let before = (told("f")?, told("d")?, told("l")?);
    assert_eq!((before.0.0 & 0o7777, before.0.1, before.0.2), (0o4751, 1234, 4321));
    assert_eq!(before.0.3, (1_000_000_000, 7, 1_234_567_890, 123_456_789));
    assert_eq!(before.1.3.2, 1_234_567_891);
    p.mount.remount()?;
    assert_eq!((told("f")?, told("d")?, told("l")?), before);
    same_bytes(&p.object("f")?, b"content");
    assert_eq!(fs::read_link(p.path("l"))?.to_str(), Some("f"));
    Ok(())
}

fn what_is_set_before_close_goes_with_the_put(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    p.names("")?;
    let _quiet = quiet();
    p.sim().reset_counts();
    let mut file = p.create("f")?;
    file.write_all(b"content")?;
    file.set_permissions(Permissions::from_mode(0o640))?;
    std::os::unix::fs::fchown(&file, Some(7), Some(8))?;
    file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(98))?;
    file.write_all(b" and more")?;
    file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(99))?;
    sys::close(file)?;
    assert_eq!(p.sim().counts(), [("PutObject", 1)]);
    let found = fs::metadata(p.path("f"))?;
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid(), found.mtime()), (0o640, 7, 8, 99));
    let said = p.mount.bucket.head(&p.key("f"))?.ok_or_else(|| Failure("no object".into()))?.metadata;
    assert_eq!(said.get("mode").map(String::as_str), Some("33184"), "{said:?}");
    assert_eq!(said.get("mtime").map(String::as_str), Some("99"), "{said:?}");
    Ok(())
}

fn a_content_that_is_newer_than_a_time_that_was_set_has_its_own(c: &Context) -> Outcome {
    let p = c.mount(POSIX)?;
    let mut file = p.create("f")?;
    file.write_all(b"content")?;
    file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(99))?;
    file.write_all(b" and more")?;
    sys::close(file)?;
    assert!(fs::metadata(p.path("f"))?.mtime() > 99);
    p.mount.remount()?;
    assert!(fs::metadata(p.path("f"))?.mtime() > 99);
    Ok(())
}

fn closing_a_file_changes_none_of_its_times(c: &Context) -> Outcome {
    let p = c.mount(POSIX)?;
    let times = || fs::metadata(p.path("f")).map(|it| (it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec()));
    let mut file = p.create("f")?;
    file.write_all(b"content")?;
    let before = times()?;
    std::thread::sleep(Duration::from_millis(1100));
    sys::close(file)?;
    assert_eq!(times()?, before);
    Ok(())
}

fn chmod_of_a_closed_file_is_one_copy(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    p.write("f", "content")?;
    let shown = fs::metadata(p.path("f"))?.modified()?;
    let _quiet = quiet();
    p.sim().reset_counts();
    fs::set_permissions(p.path("f"), Permissions::from_mode(0o600))?;
    assert_eq!(p.sim().counts(), [("CopyObject", 1)]);
    assert_eq!(mode(&p, "f")?, 0o600);
    assert_eq!(fs::metadata(p.path("f"))?.modified()?, shown, "the content is as old as it was");
    Ok(())
}

fn chmod_of_ten_gib_moves_no_bytes(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    p.synthetic("f", 10 << 30)?;
    let file = File::open(p.path("f"))?;
    let mut before = vec![0; 100_000];
    file.read_exact_at(&mut before, 7 << 30)?;
    let _quiet = quiet();
    let (sent, received) = (p.sim().bytes_sent(), p.sim().bytes_received());
    fs::set_permissions(p.path("f"), Permissions::from_mode(0o600))?;
    let moved = p.sim().bytes_sent() - sent + p.sim().bytes_received() - received;
    assert!(moved < 1 << 20, "{moved} bytes were moved");
    let mut after = vec![0; 100_000];
    file.read_exact_at(&mut after, (7 << 30) + 5)?;
    same_bytes(&after[..99_995], &before[5..]);
    assert_eq!((mode(&p, "f")?, fs::metadata(p.path("f"))?.len()), (0o600, 10 << 30));
    Ok(())
}

fn links_are_listed_as_links(c: &Context) -> Outcome {
    let p = c.mount(POSIX)?;
    fs::create_dir(p.path("d"))?;
    for n in 0..40 {
        p.write(&format!("d/{n:03}"), "x")?;
        symlink(format!("{n:03}"), p.path(format!("d/link-{n:03}")))?;
    }
    p.mount.remount()?;
    let links = fs::read_dir(p.path("d"))?
        .map(|entry| entry?.file_type())
        .collect::<Result<Vec<_>, _>>()?
        .iter()
        .filter(|kind| kind.is_symlink())
        .count();
    assert_eq!(links, 40);
    assert_eq!(p.shell("find d -type l | wc -l; find d -type f | wc -l; cat d/link-007")?, "40\n40\nx");
    p.mount.bucket.put_with(&p.key("empty"), b"", &[("--symlink-target", "d%2F003")])?;
    assert!(
        poll(Duration::from_secs(20), || fs::read_link(p.path("empty")).is_ok_and(|to| to.to_str() == Some("d/003")))
    );
    Ok(())
}

fn pipes_sockets_and_devices_are_kept(c: &Context) -> Outcome {
    let p = c.mount(POSIX)?;
    sys::mkfifo(&p.path("pipe"))?;
    drop(UnixListener::bind(p.path("socket"))?);
    p.shell("mknod null c 1 3; mknod disk b 7 200")?;
    p.mount.remount()?;
    let kind = |name: &str| fs::symlink_metadata(p.path(name)).map(|found| found.file_type());
    assert!(kind("pipe")?.is_fifo() && kind("socket")?.is_socket());
    assert!(kind("null")?.is_char_device() && kind("disk")?.is_block_device());
    let rdev = |name: &str| fs::symlink_metadata(p.path(name)).map(|found| found.rdev());
    assert_eq!((rdev("null")?, rdev("disk")?), (libc::makedev(1, 3), libc::makedev(7, 200)));
    assert_eq!(
        p.shell("(echo through > pipe &); cat pipe; mv pipe moved; test -p moved; rm moved socket null disk; ls")?,
        "through\n"
    );
    assert!(p.keys()?.is_empty());
    Ok(())
}

fn extended_attributes_are_kept(c: &Context) -> Outcome {
    let p = c.mount(POSIX)?;
    p.write("f", "content")?;
    fs::create_dir(p.path("d"))?;
    p.python(
        "import os
for name in ('f', 'd'):
    os.setxattr(name, 'user.colour', b'red'); os.setxattr(name, 'user.\\u8272', b'\\0\\xff'); os.setxattr(name, 'user.empty', b'')
with open('new', 'w') as file:
    os.setxattr(file.fileno(), 'user.early', b'bird'); file.write('worm')
for wrong, flag, error in (('user.colour', os.XATTR_CREATE, FileExistsError), ('user.none', os.XATTR_REPLACE, OSError)):
    try: os.setxattr('f', wrong, b'', flag); raise SystemExit(wrong)
    except error: pass
for wrong in ('security.x', 'trusted.x'):
    try: os.setxattr('f', wrong, b''); raise SystemExit(wrong)
    except OSError as error: assert error.errno == 95, error
os.removexattr('f', 'user.empty')",
    )?;
    p.mount.remount()?;
    let told = p.python(
        "import os
print(sorted(os.listxattr('f')), sorted(os.listxattr('d')), os.listxattr('new'))
print(os.getxattr('f', 'user.colour'), os.getxattr('d', 'user.\\u8272'), os.getxattr('new', 'user.early'), open('f').read())
try: os.getxattr('f', 'user.empty')
except OSError as error: print(error.errno)",
    )?;
    let wanted = "['user.colour', 'user.色'] ['user.colour', 'user.empty', 'user.色'] ['user.early']
b'red' b'\\x00\\xff' b'bird' content
61
";
    assert_eq!(told, wanted);
    Ok(())
}

fn more_than_metadata_holds_is_refused(c: &Context) -> Outcome {
    let p = c.mount(POSIX)?;
    p.write("f", "content")?;
    p.python(
        "import os
os.setxattr('f', 'user.some', bytes(500))
try: os.setxattr('f', 'user.more', bytes(3000)); raise SystemExit('taken')
except OSError as error: assert error.errno == 28, error
assert os.listxattr('f') == ['user.some']
os.setxattr('f', 'user.little', b'x')",
    )?;
    Ok(())
}

fn metadata_of_other_programs_is_read(c: &Context) -> Outcome {
    let p = c.mount(POSIX)?;
    let put = |name: &str, said: &[(&str, &str)]| p.mount.bucket.put_with(&p.key(name), b"abc", said);
    put("s3fs", &[("mode", "33152"), ("uid", "33"), ("gid", "34"), ("mtime", "1234567890"), ("atime", "5")])?;
    put("s3fs-link", &[("mode", "41471"), ("uid", "0"), ("gid", "0")])?;
    put("rclone", &[("mtime", "1234567890.5")])?;
    put("xattr", &[("xattr", "%7B%22user.a%22%3A%22Yg%3D%3D%22%7D")])?;
    put("strange", &[("mode", "rw"), ("uid", "-"), ("mtime", "soon")])?;
    p.mount.bucket.put_with(&p.key("dir/"), b"", &[("mode", "16832"), ("uid", "9"), ("mtime", "77")])?;
    assert!(poll(Duration::from_secs(20), || p.path("dir").exists() && p.path("strange").exists()));
    let found = fs::metadata(p.path("s3fs"))?;
    assert_eq!((found.mode(), found.uid(), found.gid(), found.mtime()), (0o100_600, 33, 34, 1_234_567_890));
    assert_eq!(fs::read_link(p.path("s3fs-link"))?.to_str(), Some("abc"));
    let found = fs::metadata(p.path("rclone"))?;
    assert_eq!((found.mtime(), found.mtime_nsec(), found.mode()), (1_234_567_890, 500_000_000, 0o100_644));
    assert_eq!(p.python("import os; print(os.getxattr('xattr', 'user.a'))")?, "b'b'\n");
    assert_eq!(fs::metadata(p.path("strange"))?.mode(), 0o100_644);
    let found = fs::metadata(p.path("dir"))?;
    assert_eq!((found.mode(), found.uid(), found.mtime()), (0o040_700, 9, 77));
    Ok(())
}

fn a_listing_asks_for_each_name_once(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    let names: Vec<String> = (0..300).map(|n| format!("d/{n:03}")).collect();
    p.foreign_put_many(&names)?;
    let listed = || -> std::io::Result<usize> {
        let modes = fs::read_dir(p.path("d"))?.map(|entry| entry?.metadata().map(|found| found.mode()));
        Ok(modes.collect::<Result<Vec<_>, _>>()?.iter().filter(|mode| **mode == 0o100_644).count())
    };
    let _quiet = quiet();
    p.sim().reset_counts();
    assert_eq!((listed()?, listed()?), (300, 300));
    let counts = p.sim().counts();
    assert!(counts.of("HeadObject") <= 302, "{counts:?}");
    assert!(counts.of("ListObjectsV2") <= 3 && counts.of("GetObject") == 0, "{counts:?}");
    Ok(())
}

fn what_another_mount_sets_is_seen(c: &Context) -> Outcome {
    let p = c.mount(POSIX)?;
    let other = c.second(&p, POSIX)?;
    p.write("f", "content")?;
    fs::create_dir(p.path("d"))?;
    let seen =
        |name: &str, wanted: u32| poll(Duration::from_secs(20), || mode(&other, name).is_ok_and(|it| it == wanted));
    for wanted in [0o600, 0o640, 0o444, 0o777] {
        fs::set_permissions(p.path("f"), Permissions::from_mode(wanted))?;
        fs::set_permissions(p.path("d"), Permissions::from_mode(wanted))?;
        assert!(seen("f", wanted), "{:o} of {wanted:o}", mode(&other, "f")?);
        assert!(seen("d", wanted), "{:o} of {wanted:o}", mode(&other, "d")?);
        let listed = |entry: fs::DirEntry| entry.metadata().map(|found| found.mode() & 0o7777);
        assert!(poll(Duration::from_secs(20), || {
            let modes =
                fs::read_dir(&other.dir).and_then(|all| all.map(|entry| listed(entry?)).collect::<Result<Vec<_>, _>>());
            modes.is_ok_and(|modes| modes == [wanted, wanted])
        }));
    }
    Ok(())
}

fn a_renamed_file_keeps_what_it_says(c: &Context) -> Outcome {
    let p = c.mount(POSIX)?;
    p.write("said", "x")?;
    fs::set_permissions(p.path("said"), Permissions::from_mode(0o711))?;
    sys::set_times(&p.path("said"), (1, 0), (2, 0))?;
    p.foreign_put("unsaid", "y")?;
    let before = fs::metadata(p.path("unsaid"))?.mtime();
    std::thread::sleep(Duration::from_millis(1100));
    fs::rename(p.path("said"), p.path("a"))?;
    fs::rename(p.path("unsaid"), p.path("b"))?;
    p.mount.remount()?;
    let (a, b) = (fs::metadata(p.path("a"))?, fs::metadata(p.path("b"))?);
    assert_eq!((a.mode() & 0o7777, a.mtime(), b.mtime()), (0o711, 2, before));
    Ok(())
}

fn a_renamed_directory_keeps_what_is_said_in_it(c: &Context) -> Outcome {
    let p = c.mount(POSIX)?;
    fs::create_dir_all(p.path("d/e"))?;
    p.write("d/e/f", "x")?;
    symlink("f", p.path("d/e/l"))?;
    fs::set_permissions(p.path("d/e/f"), Permissions::from_mode(0o640))?;
    fs::set_permissions(p.path("d/e"), Permissions::from_mode(0o750))?;
    sys::set_times(&p.path("d/e/f"), (1, 0), (2, 0))?;
    fs::rename(p.path("d"), p.path("moved"))?;
    assert_eq!((mode(&p, "moved/e/f")?, mode(&p, "moved/e")?), (0o640, 0o750));
    p.mount.remount()?;
    assert_eq!((mode(&p, "moved/e/f")?, mode(&p, "moved/e")?), (0o640, 0o750));
    assert_eq!(fs::metadata(p.path("moved/e/f"))?.mtime(), 2);
    assert_eq!(fs::read(p.path("moved/e/l"))?, b"x");
    Ok(())
}

fn readers_and_writers_go_on_when_attributes_change(c: &Context) -> Outcome {
    let p = c.mount(POSIX)?;
    let bytes = pattern(3, 20 << 20);
    p.write("f", &bytes)?;
    let mut reader = File::open(p.path("f"))?;
    let mut start = vec![0; 1 << 20];
    reader.read_exact(&mut start)?;
    let mut writer = File::options().read(true).write(true).open(p.path("f"))?;
    fs::set_permissions(p.path("f"), Permissions::from_mode(0o600))?;
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest)?;
    same_bytes(&rest, &bytes[1 << 20..]);
    writer.write_all(b"first")?;
    writer.sync_all()?;
    writer.set_permissions(Permissions::from_mode(0o640))?;
    writer.write_all(b"second")?;
    writer.set_permissions(Permissions::from_mode(0o644))?;
    sys::close(writer)?;
    drop(reader);
    p.mount.remount()?;
    assert_eq!(mode(&p, "f")?, 0o644);
    let read = p.read("f")?;
    assert_eq!(&read[..11], b"firstsecond");
    same_bytes(&read[11..], &bytes[11..]);
    Ok(())
}

fn a_new_content_keeps_mode_and_owner(c: &Context) -> Outcome {
    let p = c.mount(POSIX)?;
    p.write("f", "#!/bin/sh\necho one\n")?;
    fs::set_permissions(p.path("f"), Permissions::from_mode(0o755))?;
    chown(p.path("f"), Some(12), Some(13))?;
    sys::set_times(&p.path("f"), (1, 0), (2, 0))?;
    p.mount.remount()?;
    p.shell("echo 'echo two' >> f; ./f; echo '#!/bin/sh' > f; echo 'echo three' >> f; ./f")?;
    p.mount.remount()?;
    let found = fs::metadata(p.path("f"))?;
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o755, 12, 13));
    assert!(found.mtime() > 2, "a new content has a new time");
    assert_eq!(p.shell("./f")?, "three\n");
    Ok(())
}

fn a_refused_change_is_told_and_not_shown(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    p.write("f", "content")?;
    fs::create_dir(p.path("d"))?;
    let before = (mode(&p, "f")?, mode(&p, "d")?);
    p.sim().set(&Faults { denied: &["CopyObject", "PutObject"], ..Faults::default() });
    refused(fs::set_permissions(p.path("f"), Permissions::from_mode(0o600)), &[libc::EACCES]);
    refused(fs::set_permissions(p.path("d"), Permissions::from_mode(0o700)), &[libc::EACCES]);
    p.sim().set(&Faults::default());
    assert_eq!((mode(&p, "f")?, mode(&p, "d")?), before);
    fs::set_permissions(p.path("f"), Permissions::from_mode(0o600))?;
    assert_eq!(mode(&p, "f")?, 0o600);
    Ok(())
}

fn a_change_of_a_replaced_object_is_made_on_the_new_one(c: &Context) -> Outcome {
    let p = c.mount(REMEMBERING)?;
    p.write("f", "content")?;
    let _known = fs::metadata(p.path("f"))?;
    p.foreign_put_unseen("f", "another content")?;
    fs::set_permissions(p.path("f"), Permissions::from_mode(0o600))?;
    assert_eq!(mode(&p, "f")?, 0o600);
    same_bytes(&p.object("f")?, b"another content");
    same_bytes(&p.read("f")?, b"another content");
    Ok(())
}

fn set_group_id_directories_hand_their_group_on(c: &Context) -> Outcome {
    let p = c.mount(POSIX)?;
    fs::create_dir(p.path("d"))?;
    chown(p.path("d"), None, Some(77))?;
    fs::set_permissions(p.path("d"), Permissions::from_mode(0o2775))?;
    p.write("d/f", "x")?;
    fs::create_dir(p.path("d/e"))?;
    symlink("f", p.path("d/l"))?;
    let group = |name: &str| fs::symlink_metadata(p.path(name)).map(|found| found.gid());
    assert_eq!((group("d/f")?, group("d/e")?, group("d/l")?), (77, 77, 77));
    assert_eq!(mode(&p, "d/e")? & 0o2000, 0o2000);
    Ok(())
}

/// A tree with modes, owners, times, links and a pipe, beside the mount.
const TREE: &str = "mkdir -p tree/d/e; umask 022
    for n in 1 2 3 4 5; do head -c $((n * 1000)) /dev/urandom > tree/d/f$n; chmod 6${n}1 tree/d/f$n; chown $n:$((n + 10)) tree/d/f$n; done
    ln -s f1 tree/d/link; ln -s nowhere tree/broken; mkfifo tree/d/e/pipe; chmod 1777 tree/d/e; chmod 700 tree/d
    touch -d '2001-02-03 04:05:06.789' tree/d/f1; touch -h -d 2002-02-02 tree/d/link; touch -d 2003-03-03 tree/d/e tree/d";

fn rsync_archives_send_nothing_twice(c: &Context) -> Outcome {
    if !has("rsync") {
        return skip("no rsync");
    }
    let p = c.mount(POSIX)?;
    let outside = tempfile::tempdir()?;
    let outside = outside.path().display();
    p.shell(&format!(
        "(cd {outside}; {TREE}); rsync -aD {outside}/tree/ tree/; rsync -aDi {outside}/tree/ tree/ > {outside}/again
         cat {outside}/again; test ! -s {outside}/again"
    ))?;
    p.mount.remount()?;
    p.shell(&format!(
        "rsync -aDi {outside}/tree/ tree/ > {outside}/again; cat {outside}/again; test ! -s {outside}/again"
    ))?;
    Ok(())
}

fn tar_and_cp_keep_everything(c: &Context) -> Outcome {
    let p = c.mount(POSIX)?;
    let outside = tempfile::tempdir()?;
    let outside = outside.path().display();
    let list = "find . -printf '%P %y %m %U %G %T@ %l\\n' | sort";
    p.shell(&format!(
        "(cd {outside}; {TREE}; tar --format=posix -cf a.tar tree; cd tree; {list} > ../wanted)
         mkdir t c; tar xpf {outside}/a.tar -C t; cp -a {outside}/tree c/"
    ))?;
    p.mount.remount()?;
    p.shell(&format!("(cd t/tree; {list}) | diff {outside}/wanted -; (cd c/tree; {list}) | diff {outside}/wanted -"))?;
    Ok(())
}
