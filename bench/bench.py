#!/usr/bin/env python3
"""Measures Granary against the limits of this machine, both sides of every ratio in one run.

    bench.py [--full] [--json FILE] [--loaders] [--peers] [--peer NAME=COMMAND]...
    bench.py --only PART[,PART...] [--rounds N] [--json FILE] ...

Writes docs/performance.md and docs/performance.json, unless --only takes a part; `--peers` (part of
--full) compares with other mounts of the same S3 server as well (peers.py), `--loaders` (part of
--full where they are installed) has training loaders read (loaders.py). A figure is the median of its
rounds; the sides of a round are measured right after each other, so that a slow minute of the machine
hits both.
"""

import argparse
import functools
import itertools
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/integration"))

from harness import granary, minio, page_cache, s3_origin, suite, toxiproxy, workspace  # noqa: E402
import host_pages  # noqa: E402
import large_file  # noqa: E402
import limits  # noqa: E402
import loaders  # noqa: E402
import metadata  # noqa: E402
import peers  # noqa: E402
import raw_http  # noqa: E402
import report  # noqa: E402

FILE_BYTES = 110_000
READERS = 4
WARM_TURNS = 5
BUCKET = "bench"
FAR_MS = 20
CONNECTIONS = (16, 32, 64, 128)  # of which the raw client's best is taken
LARGE_BUCKET = "large"
LARGE_NAME = "records.bin"
LARGE_BYTES = 512 << 20


def body(number):
    """Bytes that no layer can compress or share between files."""
    return os.urandom(FILE_BYTES - 8) + number.to_bytes(8, "little")


SEEDS = itertools.count(1)


def epochs(directory, count, environment, announced=False):
    """files/s of each shuffled epoch; the same program reads every side.

    Every call has a seed of its own: the store is filled in the order of the first epoch, and an
    epoch in the same order again would read it sequentially.
    """
    done = subprocess.run([suite.BINARY, "epoch", directory, "--epochs", str(count), "--readers",
                           str(READERS), "--seed", str(next(SEEDS)), "-o", "json",
                           *(["--announce"] if announced else [])], check=True,
                          text=True, capture_output=True, env=environment)
    return [epoch["files"] / epoch["seconds"] for epoch in json.loads(done.stdout)]


class SmallFiles:
    """Shuffled epochs over files of 110 KB."""

    def __init__(self, work, files, rounds):
        self.rounds = rounds
        self.files = files
        self.hosts = itertools.count()
        self.work = work
        self.source = work.directory("ext4")
        for number in range(files):
            directory = self.source / f"class{number % 50:02d}"
            directory.mkdir(exist_ok=True)
            (directory / f"{number:06d}.jpg").write_bytes(body(number))
        os.sync()

    def host(self, name, server=None):
        return granary.Granary(self.work, name, environment=server and server.environment())

    def warm(self):
        """Page cache warm and page cache dropped, against the files on the same filesystem."""
        host = self.host("warm")
        mountpoint = self.work.directory("mnt-warm")
        host.up(f"file://{self.source}", mountpoint)
        epochs(mountpoint, 1, host.environment)
        page_cache.drop(self.source)  # what was just written stays in larger pages than what is read
        warm, dropped = [], []
        for _ in range(self.rounds):
            warm.append(self.in_turns(mountpoint, host.environment))
            for sides in ((mountpoint, self.source), (self.source, mountpoint)):
                speeds = {side: self.dropped(side, host.environment) for side in sides}
                dropped.append((speeds[mountpoint], speeds[self.source]))
        host.umount(mountpoint)
        host.wait_ended()
        return [
            report.Row("small files, page cache warm", "files/s", "ext4", warm, 0.95),
            report.Row("small files, page cache dropped, store warm", "files/s", "ext4", dropped,
                       1.0),
        ]

    @staticmethod
    def dropped(directory, environment):
        page_cache.drop(directory)
        host_pages.back()
        return epochs(directory, 1, environment)[0]

    def in_turns(self, mountpoint, environment):
        """Warm (mount, ext4). A machine that others share is slow for seconds on end: each side has
        its share of that when they take turns."""
        turns = [[epochs(directory, 2, environment)[1] for directory in (mountpoint, self.source)]
                 for _ in range(1 + WARM_TURNS)]
        return tuple(statistics.median(side) for side in zip(*turns[1:]))

    def keys(self):
        return sorted(str(path.relative_to(self.source)) for path in self.source.rglob("*.jpg"))

    def fill(self, server):
        server.fill(BUCKET, {key: (self.source / key).read_bytes for key in self.keys()})

    def cold_epoch(self, server, endpoint, *flags, announced=False):
        """files/s of the first epoch on a host that has nothing."""
        host = self.host(f"cold{next(self.hosts)}", server)
        mountpoint = self.work.directory(f"{host.state.parent.name}/mnt")
        host.up(f"s3://{BUCKET}", mountpoint, "--endpoint", endpoint, *flags)
        host_pages.back()
        mounted = epochs(mountpoint, 1, host.environment, announced)[0]
        host.umount(mountpoint)
        host.wait_ended()
        shutil.rmtree(host.cache, ignore_errors=True)
        return mounted

    @staticmethod
    def raw(urls, connections=READERS):
        host_pages.back()
        return raw_http.get(urls, connections).files

    def cold(self, server):
        """The first epoch from S3, against a client that does nothing but GET."""
        urls = server.signed_urls(BUCKET, self.keys())
        self.raw(urls)
        pairs = []
        for _ in range(self.rounds):
            raw = self.raw(urls)
            pairs.append((self.cold_epoch(server, server.endpoint), raw))
        return [report.Row("small files, cold epoch from S3, 4 readers", "files/s",
                           f"raw HTTP client, {READERS} connections", pairs, 0.5)]

    def announced(self, server):
        """The same with an announced order and next to no cache, from far away."""
        far = toxiproxy.Toxiproxy(self.work, server.port)
        quota = ("--quota", str(self.files * FILE_BYTES // 10))
        far.add("latency", latency=FAR_MS)
        urls = server.signed_urls(BUCKET, self.keys(), far.endpoint)
        best = max(CONNECTIONS, key=lambda count: self.raw(urls, count))
        against_raw, against_near = [], []
        for _ in range(self.rounds):
            raw = self.raw(urls, best)
            mounted = self.cold_epoch(server, far.endpoint, *quota, announced=True)
            far.remove("latency")
            near = self.cold_epoch(server, far.endpoint, *quota, announced=True)
            far.add("latency", latency=FAR_MS)
            against_raw.append((mounted, raw))
            against_near.append((mounted, near))
        what = f"announced order, cold epoch from S3 {FAR_MS} ms away"
        return [report.Row(what, "files/s", f"raw HTTP client, {best} connections", against_raw, 0.7),
                report.Row(what, "files/s", "the same without the latency", against_near, 0.9)]


def compare(work, small, extra):
    """The sides of peers.py, those that are here."""
    apart = workspace.Workspace()  # a server's data have one place in each
    work.at_close(apart.close)
    server = s3_origin.S3Origin(apart)
    keys = {str(path.relative_to(small.source)): path for path in small.source.rglob("*.jpg")}
    server.fill(BUCKET, {key: path.read_bytes for key, path in keys.items()})
    large = work.directory("ext4-records") / LARGE_NAME
    with large.open("wb") as file:
        for _ in range(LARGE_BYTES >> 20):
            file.write(os.urandom(1 << 20))
    server.minio.s3.create_bucket(Bucket=LARGE_BUCKET)
    server.minio.s3.upload_file(str(large), LARGE_BUCKET, LARGE_NAME)
    os.sync()  # its pages are no side's to write
    comparison = peers.Comparison(server, BUCKET, small.files * FILE_BYTES, LARGE_BUCKET,
                                  LARGE_NAME, epochs)
    limit = limits.Limits(server, (BUCKET, small.source), (LARGE_BUCKET, large), READERS,
                          lambda directory, count: epochs(directory, count, os.environ))
    sides = {side.name: comparison.parts(side)
             for side in peers.sides(small.host, work, server, extra)}
    sides[limits.NAME] = limit.parts()
    return {name: peers.measure(name, of, lambda text: print(f"bench: {text}", file=sys.stderr))
            for name, of in sides.items()}


def machine():
    cpu = next((line.split(":", 1)[1].strip() for line in
                pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], text=True,
                            capture_output=True, check=False).stdout.strip()
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(memory / 2**30, 1),
            "kernel": platform.release(), "commit": commit}


class Bench:
    """The sizes of a run, and what its groups share: made when the first of them asks."""

    def __init__(self, work, arguments):
        self.work = work
        self.rounds = arguments.rounds or (5 if arguments.full else 3)
        self.files, self.tree, self.known = (
            (5000, 1_000_000, 10_000_000) if arguments.full else (2000, 100_000, 1_000_000))

    @property
    def few_rounds(self):
        """Of what takes minutes."""
        return min(self.rounds, 3)

    @functools.cached_property
    def small(self):
        return SmallFiles(self.work, self.files, self.rounds)

    @functools.cached_property
    def server(self):
        return minio.Minio(self.work)

    @functools.cached_property
    def filled(self):
        self.small.fill(self.server)
        return self.server


# In the order of the table.
GROUPS = {
    "small": lambda bench: bench.small.warm(),
    "large": lambda bench: large_file.Local(bench.work, bench.rounds).rows(),
    "cold": lambda bench: bench.small.cold(bench.filled),
    "announced": lambda bench: bench.small.announced(bench.filled),
    "remote": lambda bench: large_file.Remote(bench.work, bench.rounds, bench.server).rows(),
    "tree": lambda bench: metadata.Tree(bench.work, bench.tree, bench.rounds).rows(),
    "known": lambda bench: metadata.Known(bench.work, bench.known, bench.rounds).rows(),
    "loaders": lambda bench: loaders.Images(bench.work, bench.few_rounds, bench.server).rows(),
}
PARTS = [*GROUPS, "peers", "dlio"]  # the last two are tables of their own


def parts(text):
    """PART,... of --only."""
    names = text.split(",")
    if unknown := set(names) - set(PARTS):
        raise argparse.ArgumentTypeError(f"no {', '.join(unknown)} among {', '.join(PARTS)}")
    return names


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--full", action="store_true",
                        help="5,000 files, a tree of a million, ten million known ones, 5 rounds")
    parser.add_argument("--loaders", action="store_true", help="PyTorch and DLIO, too")
    parser.add_argument("--peers", action="store_true", help="compare with s3fs and rclone")
    parser.add_argument("--peer", action="append", default=[], type=peers.parse,
                        metavar="NAME=COMMAND", help="and with this mount; see peers.py")
    parser.add_argument("--only", type=parts, metavar="PART,...",
                        help=f"these alone, and leave docs/ as it is: {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, help="so many of each")
    parser.add_argument("--json", type=pathlib.Path, help="keep the run's figures there")
    return parser.parse_args()


def chosen(arguments):
    if arguments.only:
        return arguments.only
    wanted = {"known": arguments.full, "peers": arguments.full or arguments.peers or arguments.peer,
              "loaders": arguments.full or arguments.loaders,
              "dlio": arguments.full or arguments.loaders}
    return [name for name in PARTS if wanted.get(name, True)]


def enter_namespace():
    """Whoever makes a mount namespace copies every mount that it sees, and a copy of one of ours keeps
    Granary from ending with it: tests that run meanwhile are to see none."""
    if os.geteuid() == 0 and "BENCH_INSIDE" not in os.environ and shutil.which("unshare"):
        os.environ["BENCH_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv])


def main():
    arguments = parse()
    enter_namespace()
    names = chosen(arguments)
    work = workspace.Workspace()
    bench = Bench(work, arguments)
    try:
        rows = [row for name in names if name in GROUPS for row in GROUPS[name](bench)]
        sides = compare(work, bench.small, arguments.peer) if "peers" in names else {}
        dlio = {}
        if "dlio" in names:
            dlio = loaders.Dlio(work, bench.few_rounds, arguments.peer).figures()
    finally:
        work.close()
    run = {"machine": machine(), "files": bench.files, "file_bytes": FILE_BYTES,
           "rounds": bench.rounds, "readers": READERS, "rows": [row.to_json() for row in rows],
           "sides": sides, "dlio": dlio}
    if arguments.json:
        arguments.json.write_text(json.dumps(run, indent=2) + "\n")
    print("\n\n".join(report.tables(run)))
    if not arguments.only:
        (ROOT / "docs/performance.json").write_text(json.dumps(run, indent=2) + "\n")
        report.write(run, ROOT / "docs")


if __name__ == "__main__":
    main()
