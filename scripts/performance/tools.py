"""s3mount and its peers: how each is mounted, and what its process used."""
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from .endpoint import BUCKET, clean_environment

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
# What a tool that uploads after close may take to end.
UNMOUNT_SECONDS_MAX = 60


class Tool:
    """How one program is mounted; `command` runs in the foreground, `cache` gives it a disk cache in a folder."""

    def __init__(self, name, program, command, cache, version):
        self.name, self.program, self.command, self.cache, self._version = name, program, command, cache, version

    def version(self):
        """What it says of itself, its first line."""
        said = subprocess.run(self._version, capture_output=True, text=True, check=False)
        lines = (said.stdout + said.stderr).strip().splitlines()
        return lines[0] if lines else ""


def _s3mount(program):
    def command(url, mount, _home):
        return [program, "-f", BUCKET, str(mount), "--endpoint-url", url,
                "--region", "us-east-1", "--log-level", "warn", "--memory-limit", "512MiB"]
    return Tool("s3mount", program, command, lambda folder: ["--cache-dir", folder, "--cache-size", "4GiB"],
                [program, "--version"])


def _s3fs(url, mount, home):
    password = home / "passwd-s3fs"
    password.write_text("bench:benchbench\n")
    password.chmod(0o600)
    cache = home / "s3fs-tmp"
    cache.mkdir(exist_ok=True)
    return ["s3fs", BUCKET, str(mount), "-f", "-o", f"url={url},use_path_request_style,passwd_file={password}",
            "-o", f"parallel_count=16,multipart_size=16,tmpdir={cache}"]


def _rclone(url, mount, home):
    config = home / "rclone.conf"
    config.write_text(
        f"[s]\ntype = s3\nprovider = Other\nendpoint = {url}\naccess_key_id = bench\n"
        "secret_access_key = benchbench\nregion = us-east-1\n")
    return ["rclone", "mount", f"s:{BUCKET}", str(mount), "--config", str(config), "--vfs-cache-mode", "writes",
            "--vfs-write-back", "0s", "--cache-dir", str(home / "rclone-cache"), "--s3-upload-concurrency", "16"]


def _mountpoint(url, mount, _home):
    return ["mount-s3", BUCKET, str(mount), "-f", "--endpoint-url", url, "--force-path-style", "--allow-delete",
            "--allow-overwrite"]


def _geesefs(url, mount, _home):
    return ["geesefs", "-f", "--endpoint", url, BUCKET, str(mount)]


def _goofys(url, mount, _home):
    return ["goofys", "-f", "--endpoint", url, BUCKET, str(mount)]


def tools(wanted=(), profile="release"):
    """s3mount and every peer that is on PATH; of these the wanted ones, if any are named."""
    known = [
        _s3mount(str(TARGET / profile / "s3mount")),
        Tool("s3fs", "s3fs", _s3fs, lambda folder: ["-o", f"use_cache={folder}"], ["s3fs", "--version"]),
        Tool("rclone", "rclone", _rclone, lambda folder: ["--vfs-cache-mode", "full", "--cache-dir", folder],
             ["rclone", "version"]),
        Tool("mountpoint", "mount-s3", _mountpoint, lambda folder: ["--cache", folder], ["mount-s3", "--version"]),
        Tool("geesefs", "geesefs", _geesefs, lambda folder: ["--cache", folder], ["geesefs", "--version"]),
        Tool("goofys", "goofys", _goofys, lambda folder: [], ["goofys", "--version"]),
    ]
    here = [tool for tool in known if shutil.which(tool.program)]
    return [tool for tool in here if not wanted or tool.name in wanted]


def _is_mounted(mount):
    with open("/proc/self/mountinfo") as info:
        return any(line.split()[4] == str(mount) for line in info)


@contextlib.contextmanager
def mounted(tool, endpoint, home, cache=None, options=()):
    """A fresh mount; gives its directory and the daemon's process id. With a disk cache in the folder `cache`, and further options."""
    mount = pathlib.Path(tempfile.mkdtemp(prefix="mnt-", dir=home))
    log = open(home / f"{tool.name}.log", "a")
    command = tool.command(endpoint.url, mount, home) + (tool.cache(str(cache)) if cache else [])
    command += options
    process = subprocess.Popen(command, stdout=log, stderr=log, env=clean_environment(home), start_new_session=True)
    try:
        deadline = time.monotonic() + 30
        while not _is_mounted(mount):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{tool.name} did not mount: {pathlib.Path(log.name).read_text()[-500:]}")
            time.sleep(0.02)
        os.statvfs(mount)
        yield mount, process.pid
    finally:
        if _is_mounted(mount):
            subprocess.run(["umount", str(mount)], stderr=subprocess.DEVNULL, check=False)
        try:
            process.wait(timeout=UNMOUNT_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if _is_mounted(mount):
            subprocess.run(["umount", "-l", str(mount)], stderr=subprocess.DEVNULL, check=False)
        log.close()
        with contextlib.suppress(OSError):
            mount.rmdir()


def cpu_seconds(pid):
    """User and system time of a process and its ended threads (proc_pid_stat(5))."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_rss_mib(pid):
    """The most memory that a process had."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def drop_page_cache():
    """Forgets what the kernel has cached, where that is permitted."""
    with contextlib.suppress(OSError):
        os.sync()
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("1")
