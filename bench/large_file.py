"""Large files: complete in the store, far away, and on another worker."""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time

from harness import granary, page_cache, process, readers, suite, toxiproxy

import host_pages
import raw_http
import report


class Local:
    """One large file, complete in the store, read with fio. Hints are off: the kernel hands none on to
    the file that it reads in place of the mount's."""

    NAME = "large.bin"
    BYTES = 256 << 20
    WARM_SECONDS = 2
    READY_SECONDS = 120

    def __init__(self, work, rounds):
        self.work = work
        self.rounds = rounds
        self.source = work.directory("ext4-large")

    def rows(self):
        if not shutil.which("fio"):
            print("bench: fio is not installed: large files are left out", file=sys.stderr)
            return []
        with (self.source / self.NAME).open("wb") as file:
            for _ in range(self.BYTES >> 20):
                file.write(os.urandom(1 << 20))
        os.sync()
        host = granary.Granary(self.work, "large")
        mountpoint = self.work.directory("mnt-large")
        host.up(f"file://{self.source}", mountpoint, "--name", "large")
        self.wait_passing(host, mountpoint / self.NAME)
        sides = (mountpoint / self.NAME, self.source / self.NAME)
        timed = ["--time_based", f"--runtime={self.WARM_SECONDS}"]
        sequential = ["--rw=read", "--bs=1m"]
        random = ["--rw=randread", "--bs=4k", "--norandommap", "--randrepeat=0", *timed]
        dropped, warm, rand, mapped = [], [], [], []
        for number in range(2 * self.rounds):
            order = sides if number % 2 else sides[::-1]
            dropped.append(self.round(order, sequential, drop=True))
            warm.append(self.round(order, [*sequential, *timed]))
            rand.append(self.round(order, random))
            mapped.append(self.round(order, [*random, "--ioengine=mmap"]))
        requests = host.client_metric('requests_total{dataset="large",op="read"}')
        host.umount(mountpoint)
        host.wait_ended()
        (self.source / self.NAME).unlink()
        print(f"bench: {requests} READ requests in all since the mount", file=sys.stderr)
        what = "large file complete in the store"
        return [
            report.Row(f"{what}, sequential 1 MiB, page cache dropped", "MB/s", "ext4", dropped,
                       0.97),
            report.Row(f"{what}, sequential 1 MiB, page cache warm", "MB/s", "ext4", warm, 0.97),
            report.Row(f"{what}, random 4 KiB, page cache warm", "MB/s", "ext4", rand, 0.95),
            report.Row(f"{what}, random 4 KiB of a map, page cache warm", "MB/s", "ext4", mapped,
                       0.95),
        ]

    def round(self, order, flags, drop=False):
        """(mount, ext4), measured in the order given."""
        speeds = {}
        for path in order:
            if drop:
                page_cache.drop(path.parent)
            else:
                path.read_bytes()
            done = subprocess.run(["fio", "--name=large", f"--filename={path}", "--readonly",
                                   "--invalidate=0", "--fadvise_hint=0",
                                   "--output-format=json", *flags], check=True,
                                  text=True, capture_output=True)
            speeds[path] = json.loads(done.stdout)["jobs"][0]["read"]["bw_bytes"] / 1e6
        return speeds[min(order, key=lambda path: path.parent == self.source)], \
            speeds[self.source / self.NAME]

    def wait_passing(self, host, path):
        """Reads the file into the store, then opens it until the kernel gets it."""
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass
        if "passthrough" not in os.getxattr(path, "user.granary.mode").decode():
            print("bench: no passthrough here: large files go through the mount", file=sys.stderr)
            return

        def passed():
            path.open("rb").close()
            return host.client_metric('passthrough_opens_total{dataset="large"}')

        suite.wait_until(passed, self.READY_SECONDS, "a complete file passed through")


RANGE_BYTES = 8 << 20
CONNECTIONS = (2, 4, 8, 16, 32)  # of which the downloader's best is taken
BUCKET = "records"
NAME = "records.bin"


class Remote:
    """A large file that nobody has: of an S3 server on this machine, and of a worker by TCP."""

    BYTES = 512 << 20
    FAR_MS = 20
    FAR_KB_PER_S = 60_000  # of a connection
    RECORD_BYTES = 114_660
    RECORDS = 1500
    READERS = 4

    def __init__(self, work, rounds, server):
        self.work = work
        self.rounds = rounds
        self.server = server
        self.number = 0

    def rows(self):
        body = self.work.path / "body"
        with body.open("wb") as file:
            for _ in range(self.BYTES >> 20):
                file.write(os.urandom(1 << 20))
        self.server.s3.create_bucket(Bucket=BUCKET)
        self.server.s3.upload_file(str(body), BUCKET, NAME)
        self.url, = self.server.signed_urls(BUCKET, [NAME])
        rows = [self.sequential(), self.distant(), self.records(), *self.peer()]
        body.unlink()
        return rows

    def up(self, *flags, endpoint=None):
        self.number += 1
        self.host = granary.Granary(self.work, f"far{self.number}",
                                    environment=self.server.environment())
        mountpoint = self.work.directory(f"mnt-far{self.number}")
        self.host.up(f"s3://{BUCKET}", mountpoint, "--endpoint",
                     endpoint or self.server.endpoint, *flags)
        return mountpoint

    def down(self, mountpoint):
        self.host.umount(mountpoint)
        self.host.wait_ended()
        shutil.rmtree(self.host.cache, ignore_errors=True)

    # ---- from the first byte to the last -------------------------------------------------------

    def download(self, url, connections):
        return download(url, self.BYTES, connections, self.work.path / "download")

    def sequential(self):
        return self.against_downloader("large file from S3, sequential, cold", self.server.endpoint)

    def distant(self):
        """Of an origin whose connections are its limit, not the machine that it shares with us."""
        far = toxiproxy.Toxiproxy(self.work, self.server.port)
        far.add("latency", latency=self.FAR_MS)
        far.add("bandwidth", rate=self.FAR_KB_PER_S)
        return self.against_downloader(
            f"large file from S3 {self.FAR_MS} ms away, {self.FAR_KB_PER_S // 1000} MB/s a "
            "connection, sequential, cold", far.endpoint)

    def against_downloader(self, what, endpoint):
        url, = self.server.signed_urls(BUCKET, [NAME], endpoint)
        best = max(CONNECTIONS, key=lambda count: self.download(url, count))
        pairs = []
        for _ in range(self.rounds):
            other = self.download(url, best)
            mountpoint = self.up(endpoint=endpoint)
            host_pages.back()
            pairs.append((read_through(mountpoint / NAME), other))
            self.down(mountpoint)
        return report.Row(what, "MB/s", f"parallel downloader, {best} connections", pairs, 0.95)

    # ---- records here and there ----------------------------------------------------------------

    def draw(self, seed, count):
        """Aligned to their own size, as a loader of fixed records reads them."""
        draw = random.Random(seed)
        return [draw.randrange(self.BYTES // self.RECORD_BYTES) * self.RECORD_BYTES
                for _ in range(count)]

    def records(self):
        pairs = []
        for seed in range(1, self.rounds + 1):
            host_pages.back()
            other = raw_http.get((f"{self.url} {first}-{first + self.RECORD_BYTES - 1}"
                                  for first in self.draw(seed, self.RECORDS)), self.READERS).files
            mountpoint = self.up("--quota", "8M")
            host_pages.back()
            pairs.append((self.read_records(mountpoint / NAME, seed), other))
            self.down(mountpoint)
        return report.Row(f"records of {self.RECORD_BYTES:,} bytes of a passed-through file, "
                          f"{self.READERS} readers", "records/s",
                          f"raw HTTP client, {self.READERS} connections", pairs, 0.7)

    def read_records(self, path, seed):
        offsets = self.draw(seed, self.RECORDS)

        def read(share):
            with path.open("rb", buffering=0) as file:
                for offset in offsets[share::self.READERS]:
                    if len(os.pread(file.fileno(), self.RECORD_BYTES, offset)) != self.RECORD_BYTES:
                        raise OSError(f"{path} is cut short")

        began = time.monotonic()
        readers.in_processes(read, range(self.READERS))
        return len(offsets) / (time.monotonic() - began)

    # ---- out of another worker -----------------------------------------------------------------

    def peer(self):
        """The worker has the file; the mount does not see its sockets, as on another host."""
        if not shutil.which("iperf3"):
            print("bench: iperf3 is not installed: a worker by TCP is left out", file=sys.stderr)
            return []
        token = self.work.path / "token"
        token.write_text("0123456789abcdef0123456789abcdef\n")
        host = granary.Granary(self.work, "peer", environment=self.server.environment())
        mountpoint = self.work.directory("mnt-peer")
        listen = f"127.0.0.1:{process.free_port()}"
        host.wait_serving(host.start("master", "--state-dir", host.state))
        host.wait_serving(host.start("worker", *host.directories(), "--listen", listen,
                                     "--token-file", token))
        suite.wait_until(lambda: any(w["alive"] for w in host.status()["workers"]), 20,
                         "a worker known to the master")
        host.ask("dataset", "add", "d", f"s3://{BUCKET}", "--endpoint", self.server.endpoint)
        (host.state / "worker.sock").unlink()
        (host.cache / "lease.sock").unlink()
        host.wait_mounted(host.start("mount", "d", mountpoint, "--state-dir", host.state,
                                     "--token-file", token), mountpoint)
        read_through(mountpoint / NAME)
        suite.wait_until(lambda: host.stat("d")["cached_bytes"] == self.BYTES, 60, "all cached")
        pairs = []
        for _ in range(self.rounds):
            other = iperf3()
            page_cache.drop(mountpoint)
            for stored in host.store_files():  # the worker's disk is no part of this
                if stored.stat().st_blocks:
                    read_through(stored)
            host_pages.back()
            pairs.append((read_through(mountpoint / NAME), other))
        host.umount(mountpoint)
        return [report.Row("large file from a worker by loopback TCP, sequential", "MB/s",
                           "iperf3, 1 stream", pairs, 0.8)]


def download(url, size, connections, target):
    """MB/s of a client that gets ranges side by side and writes them to a file, which goes."""
    requests = (f"{url} {first}-{first + RANGE_BYTES - 1}"
                for first in range(0, size, RANGE_BYTES))
    host_pages.back()
    speed = raw_http.get(requests, connections, target).bytes / 1e6
    target.unlink()
    return speed


def read_through(path):
    """MB/s of a sequential reader with buffers of 1 MiB."""
    buffer = bytearray(1 << 20)
    began, total = time.monotonic(), 0
    with open(path, "rb", buffering=0) as file:
        while got := file.readinto(buffer):
            total += got
    return total / 1e6 / (time.monotonic() - began)


def iperf3():
    """MB/s of one TCP stream over loopback."""
    port = str(process.free_port())
    server = subprocess.Popen(["iperf3", "--server", "--port", port, "--bind",
                               "127.0.0.1"], stdout=subprocess.DEVNULL)
    try:
        for _ in range(50):  # until the server listens
            done = subprocess.run(["iperf3", "--client", "127.0.0.1", "--port", port, "--time", "3",
                                   "--json"], text=True, capture_output=True, check=False)
            end = json.loads(done.stdout).get("end", {})
            if "sum_received" in end:
                return end["sum_received"]["bits_per_second"] / 8e6
            time.sleep(0.1)
        raise AssertionError(f"iperf3: {done.stdout}")
    finally:
        server.terminate()
        server.wait()
