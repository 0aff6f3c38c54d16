#!/usr/bin/env python3
"""Real readers over a folder: a local one, or the same files in a mount. Knows nothing of mounts.

  readers.py list               names and what each is
  readers.py missing NAME DIR   modules and programs that the reader needs and that are not here
  readers.py make NAME DIR      its data, always the same
  readers.py read NAME DIR      reads them and prints what it found; the seconds that it took go to standard error

What is printed depends on the data alone: not on the order of threads, nor on times, owners or the sizes of directories.
"""
import hashlib
import importlib.util
import mmap
import multiprocessing
import os
import pathlib
import random
import shutil
import sqlite3
import subprocess
import sys
import time

import tables

KIB, MIB = 1 << 10, 1 << 20


def digest(data):
    return hashlib.blake2b(data, digest_size=16).hexdigest()


# --- tables: DuckDB, pandas, PyArrow ---------------------------------------------------------------------------------

def make_parquet(folder):
    tables.make(folder, "parquet", f"format parquet, row_group_size {tables.ROW_GROUP}")


def make_csv(folder):
    tables.make(folder, "csv", "format csv, header")


def read_duckdb_parquet(folder):
    yield from tables.query(folder, "parquet")


def read_duckdb_csv(folder):
    yield from tables.query(folder, "csv")


def make_both(folder):
    make_parquet(folder / "parquet")
    make_csv(folder / "csv")


def read_pandas(folder):
    import pandas

    def told(name, frame):
        rows = pandas.util.hash_pandas_object(frame, index=False)
        return f"{name}\t{len(frame)}\t{','.join(frame.columns)}\t{int(rows.sum())}"

    for name in ("orders", "lineitem"):
        yield told(f"{name}.csv", pandas.read_csv(folder / f"csv/{name}.csv"))
        yield told(f"{name}.parquet", pandas.read_parquet(folder / f"parquet/{name}.parquet"))
    some = pandas.read_parquet(folder / "parquet/lineitem.parquet", columns=["l_orderkey", "l_comment"],
                               filters=[("l_orderkey", "<", 1000)])
    yield told("columns and rows", some)
    pieces = pandas.read_csv(folder / "csv/lineitem.csv", chunksize=10_000)
    yield f"in pieces\t{sum(int(piece['l_orderkey'].sum()) for piece in pieces)}"


def make_pyarrow(folder):
    """The lines by ship mode, as Spark and Arrow lay out partitions."""
    import pyarrow.dataset as dataset
    import pyarrow.parquet as parquet
    make_parquet(folder / "plain")
    lines = parquet.read_table(folder / "plain/lineitem.parquet")
    dataset.write_dataset(lines, folder / "by_mode", format="parquet", partitioning=["l_shipmode"],
                          partitioning_flavor="hive", max_rows_per_file=4000, max_rows_per_group=2000, use_threads=False)


def read_pyarrow(folder):
    import pyarrow
    import pyarrow.compute as compute
    import pyarrow.dataset as dataset
    pyarrow.set_io_thread_count(16)
    lines = dataset.dataset(folder / "by_mode", format="parquet", partitioning="hive")
    yield f"files\t{len(lines.files)}"
    everything = lines.to_table(use_threads=True)
    yield f"rows\t{everything.num_rows}\t{compute.sum(everything['l_extendedprice'])}"
    groups = everything.group_by("l_shipmode").aggregate([("l_quantity", "sum"), ("l_comment", "count_distinct")])
    for row in sorted(groups.to_pylist(), key=lambda row: row["l_shipmode"]):
        yield "\t".join(f"{name}={row[name]}" for name in sorted(row))
    wanted = (dataset.field("l_shipmode") == "MAIL") & (dataset.field("l_orderkey") < 5000)
    some = lines.to_table(columns=["l_orderkey", "l_partkey"], filter=wanted, use_threads=True)
    yield f"filtered\t{some.num_rows}\t{compute.sum(some['l_partkey'])}"
    batches = lines.scanner(columns=["l_comment"], batch_size=1000, use_threads=True).to_batches()
    yield f"letters\t{sum(compute.sum(compute.utf8_length(batch['l_comment'])).as_py() for batch in batches)}"


# --- a loader as of PyTorch: workers read small files in the order of a shuffled epoch --------------------------------

SAMPLES, WORKERS = 2000, 8


def make_loader(folder):
    import numpy
    pick = numpy.random.Generator(numpy.random.PCG64(5))
    for number in range(SAMPLES):
        label = folder / f"class{number % 10}"
        label.mkdir(parents=True, exist_ok=True)
        numpy.save(label / f"{number:05}.npy", pick.integers(0, 255, (3, 32, 32), dtype=numpy.uint8))


def load_samples(paths):
    import numpy
    return [(str(path), int(numpy.load(path).astype(numpy.int64).sum()), digest(path.read_bytes())) for path in paths]


def read_loader(folder):
    paths = sorted(folder.glob("class*/*.npy"))
    for epoch in range(2):
        random.Random(epoch).shuffle(paths)
        with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
            batches = pool.map(load_samples, [paths[at:at + 25] for at in range(0, len(paths), 25)], chunksize=1)
        samples = sorted(sample for batch in batches for sample in batch)
        told = "".join(f"{os.path.relpath(path, folder)} {total} {tag}\n" for path, total, tag in samples)
        yield f"epoch {epoch}\t{len(samples)}\t{sum(total for _, total, _ in samples)}\t{digest(told.encode())}"


# --- programs of every system ----------------------------------------------------------------------------------------

def make_shell(folder):
    pick = random.Random(6)
    words = ["error", "warning", "request", "answer", "bucket", "object", "needle", "한글", "naïve"]
    for number in range(400):
        inner = folder / f"logs/day{number % 20:02}/host{number % 4}"
        inner.mkdir(parents=True, exist_ok=True)
        lines = (" ".join(pick.choices(words, k=8)) for _ in range(pick.randrange(0, 400)))
        (inner / f"{number:04}.log").write_text("".join(f"{line}\n" for line in lines))
    (folder / "logs/large.bin").write_bytes(pick.randbytes(24 * MIB))
    (folder / "logs/with a blank").write_text("needle\n")


COMMANDS = [
    "grep -r needle logs | LC_ALL=C sort | sha256sum",
    "grep -rlE 'naïve 한글|error error error' logs | LC_ALL=C sort | sha256sum",
    "find logs -type f -printf '%p %s\\n' | LC_ALL=C sort | sha256sum",
    "find logs -type d | LC_ALL=C sort | sha256sum",
    "find logs -type f -size +8k -name '*.log' | wc -l",
    "tar c --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=a=r logs | sha256sum",
    "find logs -type f -print0 | LC_ALL=C sort -z | du -b --total --files0-from=- | sha256sum",
    "find logs -type f -print0 | LC_ALL=C sort -z | xargs -0 -P 4 -n 50 md5sum | LC_ALL=C sort | sha256sum",
    "tail -c 1000 logs/large.bin | sha256sum; head -c 5000000 logs/large.bin | sha256sum",
]


def read_shell(folder):
    for command in COMMANDS:
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0 or done.stderr:
            raise SystemExit(f"{command}: {done.returncode} {done.stderr}")
        yield f"{command}\t{done.stdout.strip()}"


# --- maps and SQLite -------------------------------------------------------------------------------------------------

MAP_BYTES = 64 * MIB


def make_mmap(folder):
    (folder / "map.bin").write_bytes(random.Random(7).randbytes(MAP_BYTES))


def read_map(path, seed):
    pick, found = random.Random(seed), hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        for _ in range(100):
            at = pick.randrange(MAP_BYTES - 20 * KIB)
            found.update(view[at:at + pick.randrange(1, 20 * KIB)])
    return found.hexdigest()


def read_mmap(folder):
    path = folder / "map.bin"
    yield f"one process\t{read_map(path, 1)}"
    with multiprocessing.get_context("fork").Pool(4) as pool:
        for seed, found in enumerate(pool.starmap(read_map, [(path, seed) for seed in range(2, 8)])):
            yield f"process {seed}\t{found}"
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        yield f"whole\t{digest(view)}"


def make_sqlite(folder):
    pick = random.Random(8)
    with sqlite3.connect(folder / "base.db") as db:
        db.execute("create table event (id integer primary key, host text, at integer, load real, note text)")
        db.executemany("insert into event values (?, ?, ?, ?, ?)",
                       ((n, f"host{pick.randrange(300)}", pick.randrange(10**9), pick.randrange(10**6) / 64,
                         pick.randbytes(60).hex()) for n in range(60_000)))
        db.execute("create index by_host on event (host, at)")
    db.close()


def read_sqlite(folder):
    db = sqlite3.connect(f"file:{folder / 'base.db'}?mode=ro", uri=True)
    pick = random.Random(9)
    yield f"check\t{db.execute('pragma quick_check').fetchone()[0]}"
    yield f"all\t{db.execute('select count(*), sum(at), sum(length(note)) from event').fetchone()}"
    for _ in range(40):
        host = f"host{pick.randrange(300)}"
        yield f"{host}\t{db.execute('select count(*), min(at), max(note) from event where host = ?', (host,)).fetchone()}"
        number = pick.randrange(60_000)
        yield f"{number}\t{db.execute('select * from event where id = ?', (number,)).fetchone()}"
    try:
        db.execute("delete from event")
    except sqlite3.OperationalError as error:
        yield f"a change is refused\t{error}"
    db.close()


READERS = {
    "duckdb_parquet": ("DuckDB, nine TPC-H queries over Parquet", ["duckdb"], make_parquet, read_duckdb_parquet),
    "duckdb_csv": ("DuckDB, the same over CSV", ["duckdb"], make_csv, read_duckdb_csv),
    "pandas": ("pandas, read_csv and read_parquet", ["duckdb", "pandas", "pyarrow"], make_both, read_pandas),
    "pyarrow": ("PyArrow dataset of partitions, 16 I/O threads", ["duckdb", "pyarrow"], make_pyarrow, read_pyarrow),
    "loader": ("2,000 small files, shuffled, 8 processes, 2 epochs", ["numpy"], make_loader, read_loader),
    "shell": ("grep -r, find, tar c, du over 402 files", ["grep", "find", "tar", "du"], make_shell, read_shell),
    "mmap": ("random reads of maps, 7 processes, then the whole", [], make_mmap, read_mmap),
    "sqlite": ("SQLite, read only, scans and look-ups", [], make_sqlite, read_sqlite),
}


def main():
    if sys.argv[1:] == ["list"]:
        for name, (title, *_) in READERS.items():
            print(f"{name}\t{title}")
        return
    if len(sys.argv) != 4 or sys.argv[2] not in READERS:
        raise SystemExit(__doc__)
    (_, action, name, folder) = sys.argv
    (_, needed, make, read), folder = READERS[name], pathlib.Path(folder)
    if action == "missing":
        print(" ".join(it for it in needed if not importlib.util.find_spec(it) and not shutil.which(it)))
    elif action == "make":
        make(folder)
    elif action == "read":
        # Modules are loaded before the clock runs.
        for module in needed:
            if importlib.util.find_spec(module):
                importlib.import_module(module)
        started = time.monotonic()
        for line in read(folder):
            print(line)
        print(f"seconds {time.monotonic() - started:.3f}", file=sys.stderr)
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
