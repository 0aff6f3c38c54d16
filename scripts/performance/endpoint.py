"""The S3 endpoint of the tests as a process, and the bytes that it makes on demand."""
import functools
import json
import os
import subprocess
import urllib.request

BUCKET = "bench"
MIB = 1 << 20
GIB = 1 << 30
# What S3 is like from an instance of its region: times to the first byte and the bandwidth of a connection.
SHAPE = {
    "first_byte_ms": {"get": 25, "head": 25, "put": 40, "list": 50, "default": 40},
    "jitter": 0.2,
    "bytes_per_second_per_connection": 90_000_000,
}
# Certificate variables break clients of a plain-http endpoint; proxies would take loopback traffic elsewhere.
DROPPED = ("AWS_", "SSL_CERT", "CURL_CA", "REQUESTS_CA", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")


def clean_environment(home):
    """The environment of a tool: dummy keys, no certificates, an empty home."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(DROPPED)}
    kept.update(
        HOME=str(home),
        XDG_STATE_HOME=str(home / "state"),
        AWS_ACCESS_KEY_ID="bench",
        AWS_SECRET_ACCESS_KEY="benchbench",
        AWS_REGION="us-east-1",
        AWS_EC2_METADATA_DISABLED="true",
    )
    return kept


class Endpoint:
    """s3sim, told what to do over its control port."""

    def __init__(self, program, home, *arguments):
        command = [program, "--port", "0", "--bucket", BUCKET, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=clean_environment(home))
        line = self.process.stdout.readline()
        where = dict(word.split("=", 1) for word in line.split())
        self.url, self.control = where["endpoint"], where["control"]

    def call(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.control + path, data=data, method="GET" if body is None else "POST")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request) as answer:
            text = answer.read().decode()
        return json.loads(text) if text.strip() else None

    def requests(self):
        """Requests so far, by operation."""
        return self.call("/counters")["requests"]

    def size_of(self, key):
        """Bytes of the object under a key, None if there is none. Costs no request of S3."""
        return self.call("/object", {"bucket": BUCKET, "key": key})["size"]

    def end(self):
        self.process.terminate()
        self.process.wait()


def requests_between(before, after):
    """How many requests came between two counts, by operation."""
    return {kind: count - before.get(kind, 0) for kind, count in after.items() if count != before.get(kind, 0)}


@functools.lru_cache(maxsize=None)
def _block(seed):
    """The block that a synthetic object of a seed repeats; tests/s3sim/README.md has its rule."""
    mask = (1 << 64) - 1
    words = []
    for index in range(MIB // 8):
        word = ((seed + 1) * 0x9E3779B97F4A7C15 + index * 0xBF58476D1CE4E5B9) & mask
        words.append((word ^ (word >> 32)).to_bytes(8, "little"))
    return b"".join(words)


def synthetic_bytes(seed, start, length):
    """The bytes [start, start + length) of a synthetic object."""
    block, within = _block(seed), start % MIB
    return (block * ((within + length + MIB - 1) // MIB))[within:within + length]
