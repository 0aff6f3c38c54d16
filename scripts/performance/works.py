"""The works: what each prepares at the endpoint, what it does on a mount, and what is wanted of s3mount.

A work runs on a fresh mount and answers a `Done`. Seeds are fixed: every tool is asked for the same bytes in the same
order. What was read is kept and compared with what the endpoint holds after the clock has stopped.
"""
import dataclasses
import mmap
import os
import random
import statistics
import threading
import time
from typing import Callable, Dict, Optional, Tuple

from .endpoint import BUCKET, GIB, MIB, requests_between, synthetic_bytes

KIB = 1 << 10
# What a tool still writes to its disk cache after a read is none of the work that follows.
SETTLE_SECONDS = 3
# Reads of the disk cache on one mount, each with an empty page cache, of which the median counts.
WARM_READS = 3
# A listing that goes on behind its caller has ended: twice the first byte of a LIST.
LISTED_SECONDS = 0.1


@dataclasses.dataclass
class Done:
    """What a work did. What it does not measure itself is measured around it."""

    moved: int
    # Fails if what was read is not what S3 holds; called when the clock has stopped.
    check: Optional[Callable[[], None]] = None
    # Key and size of the object that must be in S3 before the clock stops.
    stored: Optional[Tuple[str, int]] = None
    seconds: Optional[float] = None
    requests: Optional[Dict[str, int]] = None
    p50_ms: Optional[float] = None


@dataclasses.dataclass
class Want:
    """One number that is wanted of s3mount under the shape: `at_most` or `at_least`."""

    number: str
    at_most: Optional[float] = None
    at_least: Optional[float] = None

    def got(self, result):
        """The number in a result; `requests.KIND` counts requests."""
        if self.number.startswith("requests."):
            return result["requests"].get(self.number.split(".", 1)[1], 0)
        return result.get(self.number)

    def holds(self, result):
        got = self.got(result)
        if got is None:
            return False
        return got <= self.at_most if self.at_most is not None else got >= self.at_least

    def __str__(self):
        return f"<= {self.at_most:g}" if self.at_most is not None else f">= {self.at_least:g}"


@dataclasses.dataclass
class Work:
    title: str
    run: Callable
    prepare: Optional[Callable] = None
    wants: Tuple[Want, ...] = ()
    # Run once before it is measured: on the same mount, or on an earlier one. Such works have a disk cache.
    warmed: Optional[str] = None
    # Further options of s3mount; the peers do such a work under another name.
    options: Tuple[str, ...] = ()


def synthetic(endpoint, key, size, seed):
    endpoint.call("/synthetic", {"bucket": BUCKET, "key": key, "size": size, "seed": seed})


def tree(prefix, **shape):
    def prepare(endpoint):
        endpoint.call("/synthetic_tree", {"bucket": BUCKET, "prefix": prefix, **shape})
    return prepare


def compare(found, seed, offset, what):
    if bytes(found) != synthetic_bytes(seed, offset, len(found)):
        raise RuntimeError(f"wrong bytes: {what} at {offset}")


def in_threads(tasks):
    """Runs callables side by side; the first failure is raised."""
    failures = []

    def guarded(task):
        try:
            task()
        except (OSError, RuntimeError) as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def read_through(path, size, seed, block=MIB):
    """Reads a file from its start to its end, compares its first and last bytes."""
    buffer = bytearray(block)
    total, first, last = 0, b"", b""
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            if not first:
                first = bytes(buffer[:64 * KIB])
            total += count
            last = bytes(buffer[count - 64:count])
    if total != size:
        raise RuntimeError(f"{total} bytes, {size} wanted")
    compare(first, seed, 0, path.name)
    compare(last, seed, size - len(last), path.name)
    return total


def run_read(mount, _endpoint):
    return Done(read_through(mount / "read/2g", 2 * GIB, 7))


def prepare_eight(endpoint):
    for number in range(8):
        synthetic(endpoint, f"eight/{number}", 512 * MIB, number)


def run_eight(mount, _endpoint):
    in_threads([lambda n=n: read_through(mount / f"eight/{n}", 512 * MIB, n) for n in range(8)])
    return Done(8 * 512 * MIB)


def run_preads(size, count, threads, seed):
    """Random preads of one object of 20 GiB on one descriptor, at multiples of 4 KiB."""
    def run(mount, _endpoint):
        pick = random.Random(seed)
        offsets = [pick.randrange((20 * GIB - size) // (4 * KIB)) * 4 * KIB for _ in range(count)]
        # One arena that is there before the clock matters, so that no page of it is made between two reads.
        arena = memoryview(mmap.mmap(-1, count * size))
        for page in range(0, len(arena), mmap.PAGESIZE):
            arena[page] = 1
        descriptor = os.open(mount / "random/20g", os.O_RDONLY)

        def reader(first):
            for number in range(first, count, threads):
                part, got = arena[number * size:(number + 1) * size], 0
                while got < size:
                    more = os.preadv(descriptor, [part[got:]], offsets[number] + got)
                    if more == 0:
                        raise RuntimeError(f"the file ends at {offsets[number] + got}")
                    got += more

        def check():
            for number, offset in enumerate(offsets):
                compare(arena[number * size:(number + 1) * size], 20, offset, "random/20g")

        started = time.monotonic()
        try:
            in_threads([lambda first=first: reader(first) for first in range(threads)])
        finally:
            seconds = time.monotonic() - started
            os.close(descriptor)
        return Done(count * size, check=check, seconds=seconds)
    return run


def prepare_random(endpoint):
    synthetic(endpoint, "random/20g", 20 * GIB, 20)


def run_small500(mount, _endpoint):
    folder = mount / "small500"
    names = sorted(os.listdir(folder))
    read = [(folder / name).read_bytes() for name in names]

    def check():
        if len(read) != 500 or any(len(it) != 64 * KIB for it in read):
            raise RuntimeError(f"{len(read)} files of {sum(map(len, read))} bytes")
        for number, it in enumerate(read):
            compare(it, 1, 0, names[number])

    return Done(sum(map(len, read)), check=check)


def run_first4k(mount, endpoint):
    """The name is listed first and outside the clock, so that what is counted is the file's own."""
    times, read, requests = [], [], {}
    for directory in sorted(os.listdir(mount / "first4k")):
        folder = mount / "first4k" / directory
        [name] = os.listdir(folder)
        time.sleep(LISTED_SECONDS)
        before = endpoint.requests()
        started = time.monotonic()
        descriptor = os.open(folder / name, os.O_RDONLY)
        try:
            read.append(os.pread(descriptor, 4 * KIB, 0))
            times.append(time.monotonic() - started)
        finally:
            os.close(descriptor)
        for kind, count in requests_between(before, endpoint.requests()).items():
            requests[kind] = requests.get(kind, 0) + count

    def check():
        if len(read) != 100 or any(len(it) != 4 * KIB for it in read):
            raise RuntimeError(f"{len(read)} files of {sum(map(len, read))} bytes")
        for it in read:
            compare(it, 1, 0, "first4k")

    return Done(sum(map(len, read)), check=check, seconds=sum(times), requests=requests,
                p50_ms=statistics.median(times) * 1000)


def run_write(mount, _endpoint):
    # Anonymous memory of pseudo-random bytes, so that no tool profits from zeros.
    block = mmap.mmap(-1, MIB)
    block.write(os.urandom(MIB))
    name = f"write-{time.monotonic_ns()}"
    descriptor = os.open(mount / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        for _ in range(GIB // MIB):
            os.write(descriptor, block)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return Done(GIB, stored=(name, GIB))


def run_cache(mount, _endpoint):
    return Done(read_through(mount / "cache/512m", 512 * MIB, 11))


# Works of names alone move no bytes: they answer how many names they saw.

def run_names(folder, wanted):
    def run(mount, _endpoint):
        found = len(os.listdir(mount / folder))
        if found != wanted:
            raise RuntimeError(f"{found} names, {wanted} wanted")
        return Done(found)
    return run


def run_stat10k(mount, _endpoint):
    with os.scandir(mount / "stat10k") as entries:
        found = [entry.stat().st_size for entry in entries]
    if found != [1000] * 10_000:
        raise RuntimeError(f"{len(found)} names with wrong sizes")
    return Done(len(found))


def run_walk(mount, _endpoint):
    found = 0
    for folder, _, files in os.walk(mount / "walk"):
        for name in files:
            found += os.stat(os.path.join(folder, name)).st_size == 1000
    if found != 9000:
        raise RuntimeError(f"{found} files, 9000 wanted")
    return Done(found)


WORKS = {
    "read": Work("one reader, 2 GiB, 1 MiB reads", run_read, lambda e: synthetic(e, "read/2g", 2 * GIB, 7),
                 (Want("mb_per_second", at_least=1700), Want("cpu_seconds", at_most=1.5))),
    "eight": Work("eight readers, 8 x 512 MiB", run_eight, prepare_eight,
                  (Want("mb_per_second", at_least=1800), Want("cpu_seconds", at_most=3.2))),
    "write": Work("one writer, 1 GiB, fsync, close; until S3 has it", run_write),
    "preads60": Work("60 random preads of 1 MiB, one thread, 20 GiB object", run_preads(MIB, 60, 1, 60), prepare_random,
                     (Want("seconds", at_most=1.9),)),
    "preads640": Work("640 random preads of 128 KiB, 16 threads, one descriptor", run_preads(128 * KIB, 640, 16, 640),
                      prepare_random, (Want("seconds", at_most=1.15),)),
    "small500": Work("500 files of 64 KiB, listed, then read in order, one thread", run_small500,
                     tree("small500/", files=500, size=64 * KIB), (Want("seconds", at_most=1.0),)),
    "ahead500": Work("the same; s3mount with --open-ahead 250ms", run_small500,
                     tree("small500/", files=500, size=64 * KIB), (Want("seconds", at_most=1.0),),
                     options=("--open-ahead", "250ms")),
    "first4k": Work("first 4 KiB of a file never seen, 100 directories of one file", run_first4k,
                    tree("first4k/", directories=100, files=1, size=MIB),
                    (Want("p50_ms", at_most=30), Want("requests.GetObject", at_most=100),
                     Want("requests.HeadObject", at_most=0), Want("requests.ListObjectsV2", at_most=0))),
    "cache": Work("512 MiB again from the disk cache, page cache dropped; median of three", run_cache,
                  lambda e: synthetic(e, "cache/512m", 512 * MIB, 11), (Want("mb_per_second", at_least=2600),), "same"),
    "restart": Work("512 MiB from the disk cache of an earlier mount, page cache dropped", run_cache,
                    lambda e: synthetic(e, "cache/512m", 512 * MIB, 11), (), "earlier"),
    "flat50k": Work("names of a flat directory of 50,000", run_names("flat50k", 50_000),
                    tree("flat50k/", files=50_000, size=1000), (Want("seconds", at_most=0.8),)),
    "hashed50k": Work("the same, names are hashes", run_names("hashed", 50_000),
                      tree("hashed/", files=50_000, size=1000, hashed=True)),
    "stat10k": Work("scandir and stat of a flat directory of 10,000", run_stat10k,
                    tree("stat10k/", files=10_000, size=1000),
                    (Want("seconds", at_most=0.3), Want("requests.HeadObject", at_most=0))),
    "walk": Work("walk of 300 directories x 30 files, stat of each", run_walk,
                 tree("walk/", directories=300, files=30, size=1000), (Want("seconds", at_most=0.6),)),
    "million": Work("names of a flat directory of 1,000,000", run_names("million", 1_000_000),
                    tree("million/", files=1_000_000, size=1000), (Want("seconds", at_most=6.0),)),
}
