//! Files: opened in every way, written at every place, read back, and the same bytes in S3.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use crate::harness::prelude::*;

const MIB: usize = 1 << 20;

pub fn facts() -> Vec<Fact> {
    vec![
        shared!(an_empty_file_is_an_empty_object),
        shared!(touch_makes_an_empty_object),
        shared!(a_small_file_round_trip),
        shared!(an_object_of_another_client_is_read),
        shared!(append_goes_to_the_end),
        shared!(two_appenders_take_turns),
        shared!(shell_redirections),
        shared!(o_excl_makes_only_what_is_not_there),
        shared!(o_excl_sees_objects_of_others).on(S3),
        shared!(o_trunc_empties_the_object),
        shared!(o_trunc_over_a_longer_file_leaves_no_tail),
        shared!(own_writes_are_read_before_close),
        shared!(other_handles_see_writes_before_close),
        shared!(overwrite_in_the_middle),
        shared!(overwrite_in_the_middle_of_a_large_object).seconds(120),
        shared!(append_to_a_large_object).seconds(120),
        shared!(sizes_around_the_part_borders).seconds(120),
        shared!(random_writes_and_reads_agree_with_a_model).seconds(120),
        shared!(written_backwards),
        shared!(one_write_of_64_mib).seconds(120),
        shared!(vectored_reads_and_writes),
        shared!(reading_at_and_behind_the_end),
        shared!(wrong_descriptors_are_refused),
        shared!(fsync_puts_the_object_there),
        shared!(writing_goes_on_after_fsync),
        shared!(o_direct_reads_and_writes).on(S3),
        shared!(sixteen_writers_in_one_directory),
        shared!(eight_readers_of_one_file),
        shared!(readers_beside_a_writer_of_another_handle),
        shared!(rewritten_many_times),
    ]
}

fn an_empty_file_is_an_empty_object(p: &Place) -> Outcome {
    drop(p.create("empty")?);
    same_bytes(&p.object("empty")?, b"");
    same_bytes(&p.read("empty")?, b"");
    assert_eq!(fs::metadata(p.path("empty"))?.len(), 0);
    p.foreign_put("foreign-empty", b"")?;
    same_bytes(&p.read("foreign-empty")?, b"");
    Ok(())
}

fn touch_makes_an_empty_object(p: &Place) -> Outcome {
    p.shell("touch a b; touch a")?;
    same_bytes(&p.object("a")?, b"");
    same_bytes(&p.object("b")?, b"");
    p.write("c", "content")?;
    p.shell("touch c")?;
    same_bytes(&p.read("c")?, b"content");
    same_bytes(&p.object("c")?, b"content");
    Ok(())
}

fn a_small_file_round_trip(p: &Place) -> Outcome {
    for (n, len) in [1, 2, 511, 4095, 4096, 4097, 65536, 100_000, MIB, MIB + 1].into_iter().enumerate() {
        let bytes = pattern(n as u64, len);
        let name = format!("{len}");
        p.write(&name, &bytes)?;
        same_bytes(&p.object(&name)?, &bytes);
        same_bytes(&p.read(&name)?, &bytes);
        assert_eq!(fs::metadata(p.path(&name))?.len(), len as u64);
    }
    Ok(())
}

fn an_object_of_another_client_is_read(p: &Place) -> Outcome {
    for len in [1, 5000, MIB, 3 * MIB + 17, 20 * MIB + 1] {
        let bytes = pattern(len as u64, len);
        p.foreign_put(&format!("{len}"), &bytes)?;
        assert_eq!(fs::metadata(p.path(format!("{len}")))?.len(), len as u64);
        same_bytes(&p.read(&format!("{len}"))?, &bytes);
    }
    Ok(())
}

fn append_goes_to_the_end(p: &Place) -> Outcome {
    p.write("log", "one\n")?;
    for line in ["two\n", "three\n"] {
        File::options().append(true).open(p.path("log"))?.write_all(line.as_bytes())?;
    }
    let mut file = File::options().append(true).read(true).open(p.path("log"))?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(b"four\n")?;
    drop(file);
    same_bytes(&p.read("log")?, b"one\ntwo\nthree\nfour\n");
    same_bytes(&p.object("log")?, b"one\ntwo\nthree\nfour\n");
    Ok(())
}

fn two_appenders_take_turns(p: &Place) -> Outcome {
    let mut a = File::options().append(true).create(true).open(p.path("log"))?;
    let mut b = File::options().append(true).open(p.path("log"))?;
    let mut expected = Vec::new();
    for n in 0..50 {
        for (name, file) in [("a", &mut a), ("b", &mut b)] {
            let line = format!("{name} {n}\n");
            file.write_all(line.as_bytes())?;
            expected.extend(line.as_bytes());
        }
    }
    drop((a, b));
    same_bytes(&p.object("log")?, &expected);
    Ok(())
}

fn shell_redirections(p: &Place) -> Outcome {
    p.shell("echo one > f; echo two >> f; echo three >> f; cat f f > g; : > h; echo x >> h; wc -c < g > count")?;
    same_bytes(&p.object("f")?, b"one\ntwo\nthree\n");
    same_bytes(&p.object("g")?, b"one\ntwo\nthree\none\ntwo\nthree\n");
    same_bytes(&p.object("h")?, b"x\n");
    same_bytes(&p.object("count")?, b"28\n");
    Ok(())
}

fn o_excl_makes_only_what_is_not_there(p: &Place) -> Outcome {
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
    let mut file = sys::open(&p.path("lock"), flags, 0o644)?;
    refused(sys::open(&p.path("lock"), flags, 0o644), &[libc::EEXIST]);
    file.write_all(b"mine")?;
    sys::close(file)?;
    refused(sys::open(&p.path("lock"), flags, 0o644), &[libc::EEXIST]);
    same_bytes(&p.object("lock")?, b"mine");
    fs::create_dir(p.path("d"))?;
    refused(sys::open(&p.path("d"), flags, 0o644), &[libc::EEXIST]);
    Ok(())
}

fn o_excl_sees_objects_of_others(p: &Place) -> Outcome {
    p.names("")?;
    p.foreign_put_unseen("lock", "theirs")?;
    // The mount may still believe that the name is free; then the publication must fail, and their bytes stay.
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
    match sys::open(&p.path("lock"), flags, 0o644) {
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EEXIST)),
        Ok(mut file) => {
            let written = file.write_all(b"mine");
            let closed = sys::close(file);
            assert!(written.is_err() || closed.is_err(), "both believe that they made the file");
        }
    }
    same_bytes(&p.object("lock")?, b"theirs");
    Ok(())
}

fn o_trunc_empties_the_object(p: &Place) -> Outcome {
    p.write("f", "content")?;
    sys::close(File::options().write(true).truncate(true).open(p.path("f"))?)?;
    same_bytes(&p.object("f")?, b"");
    same_bytes(&p.read("f")?, b"");
    Ok(())
}

fn o_trunc_over_a_longer_file_leaves_no_tail(p: &Place) -> Outcome {
    p.write("f", pattern(1, 10 * MIB))?;
    p.write("f", "short")?;
    same_bytes(&p.object("f")?, b"short");
    same_bytes(&p.read("f")?, b"short");
    Ok(())
}

fn own_writes_are_read_before_close(p: &Place) -> Outcome {
    let mut file = p.create("f")?;
    file.write_all(b"hello world")?;
    let mut found = [0; 5];
    file.read_exact_at(&mut found, 6)?;
    assert_eq!(&found, b"world");
    file.write_all_at(b"W", 6)?;
    file.seek(SeekFrom::Start(0))?;
    let mut all = String::new();
    file.read_to_string(&mut all)?;
    assert_eq!(all, "hello World");
    Ok(())
}

fn other_handles_see_writes_before_close(p: &Place) -> Outcome {
    p.write("f", "old content")?;
    let writer = File::options().write(true).open(p.path("f"))?;
    let reader = File::open(p.path("f"))?;
    writer.write_all_at(b"new", 0)?;
    writer.write_all_at(b" and longer", 11)?;
    let mut found = vec![0; 22];
    reader.read_exact_at(&mut found, 0)?;
    same_bytes(&found, b"new content and longer");
    assert_eq!(reader.metadata()?.len(), 22);
    assert_eq!(fs::metadata(p.path("f"))?.len(), 22);
    same_bytes(&p.read("f")?, b"new content and longer");
    Ok(())
}

fn overwrite_in_the_middle(p: &Place) -> Outcome {
    let mut expected = pattern(3, 100_000);
    p.write("f", &expected)?;
    let file = File::options().write(true).open(p.path("f"))?;
    file.write_all_at(b"here", 50_000)?;
    file.write_all_at(b"there", 99_995)?;
    drop(file);
    expected[50_000..50_004].copy_from_slice(b"here");
    expected[99_995..].copy_from_slice(b"there");
    same_bytes(&p.read("f")?, &expected);
    same_bytes(&p.object("f")?, &expected);
    Ok(())
}

fn overwrite_in_the_middle_of_a_large_object(p: &Place) -> Outcome {
    let mut expected = pattern(4, 40 * MIB + 5);
    p.foreign_put("f", &expected)?;
    let file = File::options().write(true).read(true).open(p.path("f"))?;
    file.write_all_at(b"here", 25 * MIB as u64 - 2)?;
    expected[25 * MIB - 2..25 * MIB + 2].copy_from_slice(b"here");
    let mut around = vec![0; 4096];
    file.read_exact_at(&mut around, 25 * MIB as u64 - 2048)?;
    same_bytes(&around, &expected[25 * MIB - 2048..25 * MIB + 2048]);
    sys::close(file)?;
    same_bytes(&p.object("f")?, &expected);
    same_bytes(&p.read("f")?, &expected);
    Ok(())
}

fn append_to_a_large_object(p: &Place) -> Outcome {
    let mut expected = pattern(5, 20 * MIB + 1);
    p.foreign_put("f", &expected)?;
    File::options().append(true).open(p.path("f"))?.write_all(&pattern(6, 3 * MIB))?;
    expected.extend(pattern(6, 3 * MIB));
    same_bytes(&p.object("f")?, &expected);
    same_bytes(&p.read("f")?, &expected);
    Ok(())
}

fn sizes_around_the_part_borders(p: &Place) -> Outcome {
    for len in [8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 16 * MIB, 16 * MIB + 1] {
        let bytes = pattern(7, len);
        let name = format!("{len}");
        p.write(&name, &bytes)?;
        same_bytes(&p.object(&name)?, &bytes);
        same_bytes(&p.read(&name)?, &bytes);
    }
    Ok(())
}

fn random_writes_and_reads_agree_with_a_model(p: &Place) -> Outcome {
    let mut random = fastrand::Rng::with_seed(13);
    let mut model = pattern(8, 6 * MIB);
    p.foreign_put("f", &model)?;
    let file = File::options().read(true).write(true).open(p.path("f"))?;
    for round in 0..300_u64 {
        let start = random.usize(..12 * MIB);
        let len = random.usize(1..200_000);
        match random.u8(..10) {
            0 => {
                let to = random.usize(..14 * MIB);
                file.set_len(to as u64)?;
                model.resize(to, 0);
            }
            1 if round % 40 == 1 => file.sync_all()?,
            2..=5 => {
                let mut found = vec![0; len];
                let got = file.read_at(&mut found, start as u64)?;
                let end = model.len().min(start + len);
                same_bytes(&found[..got], model.get(start..end).unwrap_or_default());
            }
            _ => {
                let bytes = pattern(round, len);
                file.write_all_at(&bytes, start as u64)?;
                model.resize(model.len().max(start + len), 0);
                model[start..start + len].copy_from_slice(&bytes);
            }
        }
        assert_eq!(file.metadata()?.len(), model.len() as u64);
    }
    sys::close(file)?;
    same_bytes(&p.object("f")?, &model);
    same_bytes(&p.read("f")?, &model);
    Ok(())
}

fn written_backwards(p: &Place) -> Outcome {
    let bytes = pattern(9, 18 * MIB);
    let file = p.create("f")?;
    for piece in (0..18).rev() {
        file.write_all_at(&bytes[piece * MIB..(piece + 1) * MIB], (piece * MIB) as u64)?;
    }
    sys::close(file)?;
    same_bytes(&p.object("f")?, &bytes);
    Ok(())
}

fn one_write_of_64_mib(p: &Place) -> Outcome {
    let bytes = pattern(10, 64 * MIB);
    let file = p.create("f")?;
    file.write_all_at(&bytes, 0)?;
    sys::close(file)?;
    same_bytes(&p.object("f")?, &bytes);
    same_bytes(&p.read("f")?, &bytes);
    Ok(())
}

fn vectored_reads_and_writes(p: &Place) -> Outcome {
    let mut file = p.create("f")?;
    let pieces = [b"one ".as_slice(), b"two ", b"three"].map(std::io::IoSlice::new);
    assert_eq!(file.write_vectored(&pieces)?, 13);
    file.seek(SeekFrom::Start(0))?;
    let (mut a, mut b) = ([0; 6], [0; 7]);
    let mut into = [std::io::IoSliceMut::new(&mut a), std::io::IoSliceMut::new(&mut b)];
    assert_eq!(file.read_vectored(&mut into)?, 13);
    assert_eq!((&a, &b), (b"one tw", b"o three"));
    Ok(())
}

fn reading_at_and_behind_the_end(p: &Place) -> Outcome {
    p.write("f", "12345")?;
    let file = File::open(p.path("f"))?;
    let mut buffer = [0; 16];
    assert_eq!(file.read_at(&mut buffer, 3)?, 2);
    assert_eq!(file.read_at(&mut buffer, 5)?, 0);
    assert_eq!(file.read_at(&mut buffer, 1 << 40)?, 0);
    assert_eq!(file.read_at(&mut [], 0)?, 0);
    Ok(())
}

fn wrong_descriptors_are_refused(p: &Place) -> Outcome {
    p.write("f", "12345")?;
    refused(File::open(p.path("f"))?.write_at(b"x", 0), &[libc::EBADF]);
    refused(File::options().write(true).open(p.path("f"))?.read_at(&mut [0], 0), &[libc::EBADF]);
    refused(File::open(p.path("f"))?.set_len(0), &[libc::EINVAL, libc::EBADF]);
    same_bytes(&p.object("f")?, b"12345");
    Ok(())
}

fn fsync_puts_the_object_there(p: &Place) -> Outcome {
    let mut file = p.create("f")?;
    file.write_all(b"durable")?;
    file.sync_all()?;
    same_bytes(&p.object("f")?, b"durable");
    file.write_all(b" data")?;
    file.sync_data()?;
    same_bytes(&p.object("f")?, b"durable data");
    Ok(())
}

fn writing_goes_on_after_fsync(p: &Place) -> Outcome {
    let file = p.create("f")?;
    let mut expected = Vec::new();
    for round in 0..5_u64 {
        let bytes = pattern(round, 3 * MIB);
        file.write_all_at(&bytes, expected.len() as u64)?;
        expected.extend(bytes);
        file.write_all_at(&[round as u8], 100)?;
        expected[100] = round as u8;
        file.sync_all()?;
        same_bytes(&p.object("f")?, &expected);
    }
    drop(file);
    same_bytes(&p.object("f")?, &expected);
    Ok(())
}

fn o_direct_reads_and_writes(p: &Place) -> Outcome {
    let bytes = pattern(11, 3 * MIB);
    let file = sys::open(&p.path("f"), libc::O_CREAT | libc::O_RDWR | libc::O_DIRECT, 0o644)?;
    file.write_all_at(&bytes, 0)?;
    let mut found = vec![0; MIB];
    file.read_exact_at(&mut found, MIB as u64)?;
    same_bytes(&found, &bytes[MIB..2 * MIB]);
    sys::close(file)?;
    same_bytes(&p.object("f")?, &bytes);
    Ok(())
}

fn sixteen_writers_in_one_directory(p: &Place) -> Outcome {
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..16_u64)
            .map(|worker| {
                scope.spawn(move || -> Outcome {
                    for n in 0..8_u64 {
                        p.write(&format!("{worker}-{n}"), pattern(worker * 100 + n, 30_000))?;
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|w| w.join().expect("a worker does not panic"))
    })?;
    assert_eq!(p.names("")?.len(), 128);
    for worker in 0..16_u64 {
        for n in 0..8_u64 {
            same_bytes(&p.object(&format!("{worker}-{n}"))?, &pattern(worker * 100 + n, 30_000));
        }
    }
    Ok(())
}

fn eight_readers_of_one_file(p: &Place) -> Outcome {
    let bytes = pattern(12, 24 * MIB);
    p.foreign_put("f", &bytes)?;
    let bytes = &bytes;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8_u64)
            .map(|worker| {
                scope.spawn(move || -> Outcome {
                    let file = File::open(p.path("f"))?;
                    let mut random = fastrand::Rng::with_seed(worker);
                    for _ in 0..40 {
                        let start = random.usize(..24 * MIB);
                        let mut found = vec![0; random.usize(1..600_000)];
                        let got = file.read_at(&mut found, start as u64)?;
                        same_bytes(&found[..got], &bytes[start..(start + found.len()).min(bytes.len())]);
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|w| w.join().expect("a reader found other bytes"))
    })
}

fn readers_beside_a_writer_of_another_handle(p: &Place) -> Outcome {
    let writer = p.create("f")?;
    let reader = File::open(p.path("f"))?;
    let mut found = vec![0; 100_000];
    for n in 0..100_u64 {
        let bytes = pattern(n, 100_000);
        writer.write_all_at(&bytes, n * 100_000)?;
        reader.read_exact_at(&mut found, n * 100_000)?;
        same_bytes(&found, &bytes);
    }
    Ok(())
}

fn rewritten_many_times(p: &Place) -> Outcome {
    for n in 0..40_usize {
        let bytes = pattern(n as u64, 1000 + n * 37);
        p.write("f", &bytes)?;
        same_bytes(&p.read("f")?, &bytes);
        assert_eq!(fs::metadata(p.path("f"))?.len(), bytes.len() as u64);
    }
    same_bytes(&p.object("f")?, &pattern(39, 1000 + 39 * 37));
    Ok(())
}
