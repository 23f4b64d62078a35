"""The same reader on the same S3 server through Granary and through other mounts.

A peer is a command in the foreground that mounts BUCKET read-only, with its cache where it is told:
the built-in ones below, or `--peer NAME=COMMAND` with {bucket} {endpoint} {mountpoint} {cache}
{cache_bytes} filled in and the server's keys in the environment. A peer that is not installed is
left out with a word. What a peer cannot do is a gap in its column, with the reason.
"""

import contextlib
import os
import pathlib
import random
import shlex
import shutil
import subprocess
import sys
import time

from harness import page_cache, process, suite, workspace

import host_pages
import large_file

RECORD_BYTES = 114_660
RECORDS = 300
READY_SECONDS = 60
UNLIMITED = 1 << 40
TICKS = os.sysconf("SC_CLK_TCK")

# What their manuals advise for data that is read and not changed.
COMMANDS = {
    "s3fs": "s3fs {bucket} {mountpoint} -f -o url={endpoint} -o use_path_request_style"
            " -o use_cache={cache} -o ro -o parallel_count=8 -o stat_cache_expire=86400"
            " -o enable_noobj_cache",
    "rclone": "rclone mount :s3:{bucket} {mountpoint} --s3-provider Minio --s3-env-auth"
              " --s3-endpoint {endpoint} --s3-region us-east-1 --read-only --no-modtime"
              " --vfs-cache-mode full --vfs-cache-max-size {cache_bytes}"
              " --vfs-cache-poll-interval 1s --cache-dir {cache} --dir-cache-time 24h"
              " --attr-timeout 24h",
}
# Their caches end where the disk does, or not at all.
NO_LIMIT = {"s3fs": "its cache has no limit of its own"}


def resident(pid, *names):
    """MiB of these kinds of memory."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in status if line.startswith(names)) / 1024


def usage(pids):
    """CPU seconds so far and RssAnon + RssShmem in MiB now, over the processes."""
    ticks, mib = 0, 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
            mib += resident(pid, "RssAnon:", "RssShmem:")
    return ticks / TICKS, mib


class Peer:
    """A mount by somebody else's command."""

    def __init__(self, name, command, work, server):
        self.name, self.command, self.work, self.server = name, command, work, server
        self.why_no_limit = NO_LIMIT.get(name)
        self.process = None

    def available(self):
        return shutil.which(shlex.split(self.command)[0]) is not None

    def mount(self, bucket, cache_bytes, number):
        self.mountpoint = self.work.directory(f"{self.name}-{number}/m")
        cache = self.work.directory(f"{self.name}-{number}/c")
        command = [word.format(bucket=bucket, endpoint=self.server.proxy.endpoint,
                               mountpoint=self.mountpoint, cache=cache, cache_bytes=cache_bytes)
                   for word in shlex.split(self.command)]
        environment = process.clean_environment(
            self.work.directory(f"{self.name}-{number}/h"), **self.server.environment())
        # s3fs knows its keys by names of its own.
        environment["AWSACCESSKEYID"] = environment["AWS_ACCESS_KEY_ID"]
        environment["AWSSECRETACCESSKEY"] = environment["AWS_SECRET_ACCESS_KEY"]
        self.process = process.Server(command, self.work.path / f"{self.name}-{number}.log",
                                      environment)
        self.process.wait_ready(lambda: os.path.ismount(self.mountpoint)
                                and os.listdir(self.mountpoint), READY_SECONDS)
        return self.mountpoint

    def pids(self):
        return [self.process.pid]

    def unmount(self):
        workspace.detach(self.mountpoint)
        self.process.close()
        shutil.rmtree(self.mountpoint.parent / "c", ignore_errors=True)


class Ours:
    name = "Granary"
    why_no_limit = None

    def __init__(self, host, work, server):
        self.host_of, self.work, self.server = host, work, server

    def mount(self, bucket, cache_bytes, number):
        self.host = self.host_of(f"ours-{number}", self.server)
        self.mountpoint = self.work.directory(f"ours-{number}-m")
        flags = [] if cache_bytes == UNLIMITED else ["--quota", str(cache_bytes)]
        self.up = self.host.up(f"s3://{bucket}", self.mountpoint, *flags, *self.server.flags)
        return self.mountpoint

    def pids(self):
        return [self.up.pid]

    def unmount(self):
        self.host.umount(self.mountpoint)
        self.host.wait_ended()
        shutil.rmtree(self.host.cache, ignore_errors=True)


def sides(host_of, work, server, extra):
    """Ours, and the built-in and further ones that are here."""
    found = [Ours(host_of, work, server)]
    for name, command in {**COMMANDS, **dict(extra)}.items():
        peer = Peer(name, command, work, server)
        if peer.available():
            found.append(peer)
        else:
            print(f"bench: {name} is not installed: left out", file=sys.stderr)
    return found


def read_records(path, count, seed):
    """Records a second of random, aligned slices, and the bytes read; one reader."""
    draw = random.Random(seed)
    handle = os.open(path, os.O_RDONLY)
    records = os.fstat(handle).st_size // RECORD_BYTES
    try:
        chosen = [draw.randrange(records) for _ in range(count)]
        began = time.monotonic()
        read = sum(len(os.pread(handle, RECORD_BYTES, record * RECORD_BYTES)) for record in chosen)
        return count / (time.monotonic() - began), read
    finally:
        os.close(handle)


class Comparison:
    """The rows, each measured on one side after the other."""

    def __init__(self, server, small_bucket, small_bytes, large_bucket, large_name, epochs):
        self.server, self.epochs = server, epochs
        self.small_bucket, self.small_bytes = small_bucket, small_bytes
        self.large_bucket, self.large_name = large_bucket, large_name
        self.number = 0

    @contextlib.contextmanager
    def mounted(self, side, bucket, cache_bytes=UNLIMITED):
        self.number += 1
        mountpoint = side.mount(bucket, cache_bytes, self.number)
        self.server.object_bytes()
        try:
            yield mountpoint
        finally:
            side.unmount()

    def epoch(self, mountpoint):
        host_pages.back()
        return self.epochs(mountpoint, 1, os.environ)[0]

    def small(self, side):
        with self.mounted(side, self.small_bucket) as mountpoint:
            page_cache.drop(mountpoint)
            before, _ = usage(side.pids())
            cold = self.epoch(mountpoint)
            cpu, rss = usage(side.pids())
            origin = self.server.object_bytes()
            page_cache.drop(mountpoint)
            dropped = self.epoch(mountpoint)
            self.epoch(mountpoint)
            warm = self.epoch(mountpoint)
        return {"cold epoch, files/s": cold,
                "cold epoch, origin bytes / dataset": origin / self.small_bytes,
                "cold epoch, CPU seconds / GB": (cpu - before) / (self.small_bytes / 1e9),
                "resident after the cold epoch, MiB": rss,
                "page cache dropped, cache warm, files/s": dropped,
                "page cache warm, files/s": warm}

    def half(self, side):
        if side.why_no_limit:
            return {"half cached, third epoch, files/s": side.why_no_limit}
        with self.mounted(side, self.small_bucket, self.small_bytes // 2) as mountpoint:
            for _ in range(2):
                page_cache.drop(mountpoint)
                self.epoch(mountpoint)
            self.server.object_bytes()
            page_cache.drop(mountpoint)
            third = self.epoch(mountpoint)
            origin = self.server.object_bytes()
        return {"half cached, third epoch, files/s": third,
                "half cached, third epoch, origin bytes / dataset": origin / self.small_bytes}

    def large(self, side):
        with self.mounted(side, self.large_bucket) as mountpoint:
            page_cache.drop(mountpoint)
            host_pages.back()
            rate, read = read_records(mountpoint / self.large_name, RECORDS, self.number)
            amplification = self.server.object_bytes() / read
        with self.mounted(side, self.large_bucket) as mountpoint:
            path = mountpoint / self.large_name
            page_cache.drop(mountpoint)
            host_pages.back()
            cold = large_file.read_through(path)
            large_file.read_through(path)  # what the first pass did not keep
            page_cache.drop(mountpoint)
            dropped = large_file.read_through(path)
            warm = large_file.read_through(path)
        return {"random records of 114,660 B, cold, records/s": rate,
                "random records, origin bytes / bytes read": amplification,
                "large file in sequence, cold, MB/s": cold,
                "large file, page cache dropped, cache warm, MB/s": dropped,
                "large file, page cache warm, MB/s": warm}

    def parts(self, side):
        return {"small": lambda: self.small(side), "half": lambda: self.half(side),
                "large": lambda: self.large(side)}


def measure(name, parts, say):
    """All figures of these parts; what fails is one of them, and the others go on."""
    figures = {}
    for what, part in parts.items():
        say(f"{name}: {what}")
        try:
            figures.update(part())
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            say(f"{name}: {what} failed: {error}")
            figures[f"{what} failed"] = str(error).splitlines()[0][:120]
    return figures


def parse(text):
    """NAME=COMMAND of --peer."""
    name, _, command = text.partition("=")
    if not name or not command:
        raise ValueError(f"--peer {text}: NAME=COMMAND")
    return name, command
