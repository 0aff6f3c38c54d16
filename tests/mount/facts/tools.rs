//! Programs that people run: what they make in the mount is what they make anywhere.

use std::fs;

use crate::harness::prelude::*;
use crate::harness::process::find;

pub fn facts() -> Vec<Fact> {
    vec![
        shared!(sqlite_works).seconds(180),
        shared!(git_works).seconds(240),
        shared!(git_clones_out_of_and_into_the_mount).seconds(240),
        shared!(tar_round_trip).seconds(120),
        shared!(rsync_round_trip).seconds(120),
        shared!(cp_r_round_trip).seconds(120),
        shared!(sed_in_place_and_sort_in_place),
        shared!(dd_into_the_middle),
        shared!(python_zip_and_json),
        shared!(grep_and_wc_over_many_files),
        shared!(mv_between_the_mount_and_outside),
        shared!(tail_follows_a_growing_file),
        shared!(install_copies_with_a_mode),
    ]
}

pub(super) fn has(program: &str) -> bool {
    find(program, &[]).is_some()
}

fn sqlite_works(p: &Place) -> Outcome {
    p.python(
        "import sqlite3\n\
         db = sqlite3.connect('base.db')\n\
         db.execute('create table t (id integer primary key, word text)')\n\
         with db:\n    db.executemany('insert into t (word) values (?)', [(f'word {n}',) for n in range(2000)])\n\
         with db:\n    db.execute('update t set word = upper(word) where id % 3 = 0')\n\
         with db:\n    db.execute('delete from t where id % 5 = 0')\n\
         db.execute('create index i on t (word)')\n\
         db.execute('vacuum')\n\
         db.close()\n",
    )?;
    let answer = p.python(
        "import sqlite3\n\
         db = sqlite3.connect('base.db')\n\
         print(db.execute('pragma integrity_check').fetchone()[0], db.execute('select count(*), sum(id) from t').fetchone())\n",
    )?;
    assert_eq!(answer.trim(), "ok (1600, 1600000)");
    same_bytes(&p.object("base.db")?, &p.read("base.db")?);
    Ok(())
}

const IDENTITY: &str = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b\n";

fn git_works(p: &Place) -> Outcome {
    if !has("git") {
        return skip("no git");
    }
    p.shell(&format!(
        "{IDENTITY} git init -q -b main repo; cd repo
         for n in $(seq 15); do mkdir -p d$((n % 4)); echo \"content $n\" > d$((n % 4))/f$n; done
         git add .; git commit -qm first
         echo changed >> d1/f1; git mv d2/f2 d2/renamed; git rm -q d3/f3; git commit -qam second
         git checkout -qb side HEAD~1; echo side > side; git add side; git commit -qm side
         git checkout -q main; git merge -q -m merged side
         git gc -q; git fsck --full --strict; test -z \"$(git status --porcelain)\"
         git log --oneline | wc -l > ../count"
    ))?;
    same_bytes(&p.read("count")?, b"4\n");
    same_bytes(&p.read("repo/d1/f1")?, b"content 1\nchanged\n");
    Ok(())
}

fn git_clones_out_of_and_into_the_mount(p: &Place) -> Outcome {
    if !has("git") {
        return skip("no git");
    }
    let outside = tempfile::tempdir()?;
    let outside = outside.path().display();
    p.shell(&format!(
        "{IDENTITY} git init -q -b main {outside}/origin; (cd {outside}/origin; seq 5000 > numbers; git add .; git commit -qm one)
         git clone -q --no-local {outside}/origin inside; cmp inside/numbers {outside}/origin/numbers
         (cd inside; echo more >> numbers; git commit -qam two; git fsck --full)
         git clone -q --no-local inside {outside}/back; cmp inside/numbers {outside}/back/numbers"
    ))?;
    Ok(())
}

/// A small tree outside of the mount, with sizes from nothing to a few MiB.
fn tree(outside: &std::path::Path) -> Outcome {
    for (n, len) in [0, 1, 1000, 70_000, 3 << 20].into_iter().enumerate() {
        let dir = outside.join(format!("tree/d{n}/하위"));
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("file"), pattern(n as u64, len))?;
        fs::write(outside.join(format!("tree/d{n}/name with blanks")), pattern(n as u64 + 9, len / 2))?;
    }
    Ok(())
}

fn tar_round_trip(p: &Place) -> Outcome {
    let outside = tempfile::tempdir()?;
    tree(outside.path())?;
    let outside = outside.path().display();
    p.shell(&format!(
        "tar -C {outside} -cf - tree | tar -xf -; diff -r {outside}/tree tree
         tar -czf packed.tgz tree; mkdir {outside}/back; tar -C {outside}/back -xzf packed.tgz; diff -r {outside}/tree {outside}/back/tree"
    ))?;
    Ok(())
}

fn rsync_round_trip(p: &Place) -> Outcome {
    if !has("rsync") {
        return skip("no rsync");
    }
    let outside = tempfile::tempdir()?;
    tree(outside.path())?;
    let outside = outside.path().display();
    p.shell(&format!(
        "rsync -rt {outside}/tree/ tree/; diff -r {outside}/tree tree
         rsync -rti --omit-dir-times {outside}/tree/ tree/ > {outside}/again; cat {outside}/again; test ! -s {outside}/again
         echo more >> {outside}/tree/d1/하위/file; rm {outside}/tree/d2/하위/file
         rsync -rt --delete {outside}/tree/ tree/; diff -r {outside}/tree tree
         rsync -rt --inplace --checksum tree/ {outside}/back/; diff -r tree {outside}/back"
    ))?;
    Ok(())
}

fn cp_r_round_trip(p: &Place) -> Outcome {
    let outside = tempfile::tempdir()?;
    tree(outside.path())?;
    let outside = outside.path().display();
    p.shell(&format!(
        "cp -r {outside}/tree .; diff -r {outside}/tree tree; cp -r tree again; diff -r tree again
         cp -a again {outside}/back; diff -r {outside}/tree {outside}/back; cp -f tree/d1/하위/file tree/d0/하위/file
         cmp tree/d1/하위/file tree/d0/하위/file; rm -r again; test ! -e again"
    ))?;
    Ok(())
}

fn sed_in_place_and_sort_in_place(p: &Place) -> Outcome {
    p.shell("seq 1000 | sort -R > f; sort -n -o f f; sed -i 's/^500$/five hundred/' f")?;
    let found = String::from_utf8(p.object("f")?)?;
    let lines: Vec<_> = found.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[499], lines[999]), (1000, "1", "five hundred", "1000"));
    assert_eq!(p.names("")?, ["f"]);
    Ok(())
}

fn dd_into_the_middle(p: &Place) -> Outcome {
    let mut expected = pattern(1, 300_000);
    p.write("f", &expected)?;
    p.shell(
        "printf middle | dd of=f bs=1 seek=123456 conv=notrunc status=none; dd if=f of=g bs=64k conv=fsync status=none",
    )?;
    expected[123_456..123_462].copy_from_slice(b"middle");
    same_bytes(&p.object("f")?, &expected);
    same_bytes(&p.object("g")?, &expected);
    Ok(())
}

fn python_zip_and_json(p: &Place) -> Outcome {
    let printed = p.python(
        "import json, zipfile, pathlib\n\
         with zipfile.ZipFile('a.zip', 'w', zipfile.ZIP_DEFLATED) as z:\n    [z.writestr(f'{n}.json', json.dumps({'n': n})) for n in range(100)]\n\
         with zipfile.ZipFile('a.zip', 'a') as z:\n    z.writestr('last', 'x' * 100000)\n\
         z = zipfile.ZipFile('a.zip')\n\
         print(z.testzip(), len(z.namelist()), json.loads(z.read('77.json'))['n'])\n\
         pathlib.Path('t.json').write_text(json.dumps(list(range(1000))))\n\
         print(sum(json.loads(pathlib.Path('t.json').read_text())))\n",
    )?;
    assert_eq!(printed, "None 101 77\n499500\n");
    Ok(())
}

fn grep_and_wc_over_many_files(p: &Place) -> Outcome {
    let names: Vec<_> = (0..100).map(|n| format!("logs/{}/{n:03}", n % 5)).collect();
    p.foreign_put_many(&names)?;
    assert_eq!(p.shell("grep -rl '/042$' logs")?.trim(), "logs/2/042");
    assert_eq!(
        p.shell("cat logs/*/* | wc -c")?.trim(),
        names.iter().map(|n| p.key(n).len()).sum::<usize>().to_string()
    );
    Ok(())
}

fn mv_between_the_mount_and_outside(p: &Place) -> Outcome {
    let outside = tempfile::tempdir()?;
    tree(outside.path())?;
    let outside = outside.path().display();
    p.shell(&format!("cp -r {outside}/tree {outside}/copy; mv {outside}/tree here; diff -r here {outside}/copy; mv here {outside}/back; diff -r {outside}/back {outside}/copy; test ! -e here"))?;
    assert_eq!(p.keys()?, Vec::<String>::new());
    Ok(())
}

fn tail_follows_a_growing_file(p: &Place) -> Outcome {
    let printed = p.shell(
        "seq 10 > log; exec 3< log; cat <&3 > /dev/null; seq 11 20 >> log; cat <&3 | tail -1; tail -n 3 log | head -1",
    )?;
    assert_eq!(printed, "20\n18\n");
    Ok(())
}

fn install_copies_with_a_mode(p: &Place) -> Outcome {
    p.shell("printf '#!/bin/sh\necho installed\n' > src; install -m 755 src prog; ./prog > out; install -d a/b/c; test -d a/b/c")?;
    same_bytes(&p.read("out")?, b"installed\n");
    Ok(())
}
