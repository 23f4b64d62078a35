#!/usr/bin/env python3
"""Three jobs share a cache and a limited origin: what was predicted against what the readers get.

    sharing.py [--storage joint|lru|private|whole] [--policy max-min|fifo|sjf] [--seconds N] [--cgroup]
    sharing.py --total [--cgroup]

An S3 server (MinIO behind a proxy that logs every request), three datasets, three loaders with known
steps (loader.py), one `granary up` with three mounts. From the second epoch of each job on, for N seconds:
bytes at the readers against the prediction as it was written down before, body bytes at the proxy in
any sliding second against the limit.

Loaders read past the page cache (O_DIRECT); with --cgroup through it, each in a control group with room
for itself and a tenth of the smallest dataset.

With --total another mix runs to its end under joint, lru and private, each from an empty cache, beside
what `granary sim` says of it.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/integration"))

import memory_group  # noqa: E402
from harness import granary, s3_origin, suite, trees, workspace  # noqa: E402

FILE_BYTES = 110_000
LIMIT = 10_000_000
CACHE = "107MB"
READERS = 4
GROUP_BYTES = 14 << 20  # a loader takes 9 MiB
FILL_SECONDS = 300
STILL_SECONDS = 5


@dataclasses.dataclass
class Job:
    name: str
    files: int
    batch: int
    step: float

    @property
    def ideal(self):
        return self.batch * FILE_BYTES / self.step


# 30, 24 and 40 MB/s when nothing waits; 55, 110 and 220 MB.
MIX = [Job("small", 500, 30, 0.110), Job("middle", 1000, 24, 0.110), Job("large", 2000, 40, 0.110)]


# Of which each is read so often.
TOTAL_MIX = [Job("small", 864, 30, 0.110), Job("middle", 1000, 24, 0.110),
             Job("large", 1000, 40, 0.110)]
TOTAL_EPOCHS = [10, 10, 2]
TOTAL_SECONDS = 900


class Loader:
    def __init__(self, work, job, directory, number, epochs, cgroup):
        self.log = work.path / f"{job.name}.steps"
        self.group = memory_group.MemoryGroup(job.name, GROUP_BYTES) if cgroup else None
        self.process = subprocess.Popen(
            [sys.executable, ROOT / "bench/loader.py", *(["--page-cache"] if cgroup else []), directory,
             str(READERS), str(job.batch), str(job.step), str(number), self.log,
             *([str(epochs)] if epochs else [])],
            preexec_fn=self.group.join if self.group else None)

    def steps(self):
        if not self.log.exists():
            return []
        lines = self.log.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def epochs(self):
        steps = self.steps()
        return steps[-1]["epochs"] if steps else 0

    def rate(self, begin, end):
        """Bytes a second between two moments; the steps at the ends count by their part."""
        points = [(step["at"], step["bytes"]) for step in self.steps()]
        return (_at(points, end) - _at(points, begin)) / (end - begin)

    def close(self):
        self.process.kill()
        self.process.wait()
        if self.group:
            self.group.close()
            self.group = None


def _at(points, when):
    before = max((point for point in points if point[0] <= when), default=points[0])
    after = min((point for point in points if point[0] > when), default=points[-1])
    if after[0] <= before[0]:
        return before[1]
    return before[1] + (after[1] - before[1]) * (when - before[0]) / (after[0] - before[0])


def busiest_second(requests):
    """The most body bytes in any second; a request counts as of its end."""
    requests = sorted((request.at, request.body_bytes) for request in requests)
    most = total = first = 0
    for at, size in requests:
        total += size
        while requests[first][0] <= at - 1:
            total -= requests[first][1]
            first += 1
        most = max(most, total)
    return most


class Cluster:
    """One host with a mount for each job."""

    def __init__(self, work, server, mix, storage, policy, cgroup):
        self.work = work
        self.cgroup = cgroup
        self.mix = mix
        self.server = server
        self.host = granary.Granary(work, storage, environment=self.server.environment())
        self.mounts = []
        for job in mix:
            url = f"s3://{job.name}"
            mountpoint = work.directory(f"mnt-{storage}-{job.name}")
            flags = ["--name", job.name, "--job", job.name, "--no-preload", *self.server.flags]
            if not self.mounts:
                self.host.up(url, mountpoint, *flags, "--cache-size", CACHE, "--storage", storage,
                             "--policy", policy, "--origin-limit", f"{LIMIT}B/s")
            else:
                self.host.run("up", url, mountpoint, *flags, *self.host.directories())
            self.host.ask("job", "start", job.name, "--ideal-rate", f"{job.ideal:.0f}B/s")
            self.mounts.append(mountpoint)

    def jobs(self):
        return {job["name"]: job for job in self.host.json("job", "ls")["jobs"]}

    def start(self, epochs=None):
        loaders = [Loader(self.work, job, mountpoint, number, epochs and epochs[number], self.cgroup)
                   for number, (job, mountpoint) in enumerate(zip(self.mix, self.mounts))]
        for loader in loaders:
            self.work.at_close(loader.close)
        return loaders

    def settle(self, loaders):
        """Until every job is past its first epoch and the plan goes by full caches."""
        last, since = None, time.monotonic()

        def settled():
            nonlocal last, since
            now = {name: job["predicted_bytes_per_s"] for name, job in self.jobs().items()}
            if now != last:
                last, since = now, time.monotonic()
            return (all(loader.epochs() > 1.05 for loader in loaders) and
                    time.monotonic() - since > STILL_SECONDS)

        suite.wait_until(settled, FILL_SECONDS, "every job is past its first epoch, and the plan "
                         "stands still")


def fill(work, mix):
    server = s3_origin.S3Origin(work)
    for job in mix:
        server.fill(job.name, trees.samples(job.files, FILE_BYTES, seed=job.name))
    return server


def _served(job):
    """Bytes that its mounts were asked for."""
    return job["hit_bytes"] + job["miss_bytes"]


def window(work, storage, policy, seconds, cgroup):
    cluster = Cluster(work, fill(work, MIX), MIX, storage, policy, cgroup)
    loaders = cluster.start()
    cluster.settle(loaders)
    predicted = cluster.jobs()
    cluster.server.proxy.requests(quiet=False)
    begin = time.time()
    time.sleep(seconds)
    end = time.time()
    after = cluster.jobs()
    requests = [request for request in cluster.server.proxy.requests(quiet=False)
                if request.is_object_get() and begin <= request.at <= end]
    rows = []
    for job, loader in zip(MIX, loaders):
        told = predicted[job.name]
        rows.append({"job": job.name, "ideal": job.ideal, "cache_bytes": told["cache_bytes"],
                     "dataset_bytes": told["dataset_bytes"],
                     "remote_bytes_per_s": told["remote_bytes_per_s"],
                     "predicted": told["predicted_bytes_per_s"],
                     "measured": loader.rate(begin, end),
                     "served": (_served(after[job.name]) - _served(told)) / (end - begin),
                     "measured_ideal": after[job.name]["measured_ideal_bytes_per_s"],
                     "plan_moved": after[job.name]["predicted_bytes_per_s"]
                     != told["predicted_bytes_per_s"]})
    body = sum(request.body_bytes for request in requests)
    return {"storage": storage, "policy": policy, "seconds": seconds, "limit": LIMIT, "jobs": rows,
            "origin_bytes_per_s": body / (end - begin), "busiest_second": busiest_second(requests)}


def simulated(mix, storage, policy, cache_bytes):
    """Seconds until all jobs have ended."""
    problem = {
        "capacity": {"gpus": len(mix), "cache_bytes": cache_bytes, "remote_bytes_per_s": LIMIT},
        "datasets": [{"name": job.name, "bytes": job.files * FILE_BYTES} for job in mix],
        "jobs": [{"name": job.name, "dataset": job.name, "gpus": 1,
                  "ideal_bytes_per_s": job.ideal, "arrival_s": 0,
                  "remaining_bytes": job.files * FILE_BYTES * epochs}
                 for job, epochs in zip(mix, TOTAL_EPOCHS)]}
    done = subprocess.run([suite.BINARY, "sim", "-", "--policy", policy, "--storage", storage, "-o",
                           "json"], input=json.dumps(problem), text=True, capture_output=True,
                          check=True)
    return json.loads(done.stdout)["results"][0]["makespan_s"]


def total(work, server, storage, policy, cgroup):
    cluster = Cluster(work, server, TOTAL_MIX, storage, policy, cgroup)
    usable = cluster.host.json("job", "ls")["cluster"]["cache_bytes"]
    # A file of 110,000 bytes takes up to a page more of the cache.
    cache_bytes = int(usable * FILE_BYTES / (FILE_BYTES + 4096))
    begun = time.time()
    loaders = cluster.start(TOTAL_EPOCHS)
    left = dict(zip((job.name for job in TOTAL_MIX), loaders))
    while left and time.time() - begun < TOTAL_SECONDS:
        for name in [name for name, loader in left.items() if loader.process.poll() is not None]:
            left.pop(name)
            cluster.host.ask("job", "end", name)
        time.sleep(0.1)
    seconds = max(loader.steps()[-1]["at"] for loader in loaders) - begun
    # Not waited for: tests that run beside it may have the mounts in namespaces of their own.
    for mountpoint in cluster.mounts:
        cluster.host.umount(mountpoint)
    return {"storage": storage, "policy": policy, "seconds": seconds,
            "simulated": simulated(TOTAL_MIX, storage, policy, cache_bytes)}


def totals(work, policy, cgroup):
    server = fill(work, TOTAL_MIX)
    results = []
    print("| storage | total | to joint | simulated | measured / simulated |")
    print("|---|---|---|---|---|")
    for storage in ("joint", "lru", "private"):
        result = total(work, server, storage, policy, cgroup)
        results.append(result)
        print(f"| {storage} | {result['seconds']:.0f} s | "
              f"{result['seconds'] / results[0]['seconds']:.2f} | {result['simulated']:.0f} s | "
              f"**{result['seconds'] / result['simulated']:.3f}** |", flush=True)
    return results


def print_window(result):
    print("| job | f* | f* by its steps | cache | origin share | predicted | measured | measured / predicted |")
    print("|---|---|---|---|---|---|---|---|")
    for row in result["jobs"]:
        print(f"| {row['job']} | {row['ideal'] / 1e6:.1f} MB/s | "
              f"{(row['measured_ideal'] or 0) / 1e6:.1f} MB/s | "
              f"{row['cache_bytes'] / 1e6:.1f} of {row['dataset_bytes'] / 1e6:.0f} MB | "
              f"{row['remote_bytes_per_s'] / 1e6:.2f} MB/s | {row['predicted'] / 1e6:.2f} MB/s | "
              f"{row['measured'] / 1e6:.2f} MB/s | **{row['measured'] / row['predicted']:.3f}**"
              f"{' (the plan moved)' if row['plan_moved'] else ''} |")
    print("of what loaders read the mounts were asked for " + ", ".join(
        f"{row['served'] / row['measured']:.3f} ({row['job']})" for row in result["jobs"]))
    print(f"origin: {result['origin_bytes_per_s'] / result['limit']:.3f} of the limit on average, "
          f"{result['busiest_second'] / result['limit']:.3f} in the busiest second")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--storage", default="joint", choices=["joint", "lru", "private", "whole"])
    parser.add_argument("--policy", default="max-min", choices=["max-min", "fifo", "sjf"])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--total", action="store_true", help="a mix to its end, three times")
    parser.add_argument("--cgroup", action="store_true",
                        help="read through the page cache, in control groups that leave it no room")
    parser.add_argument("--json", type=pathlib.Path, help="keep the figures there")
    arguments = parser.parse_args()
    if arguments.cgroup and not memory_group.can_be_had():
        parser.error("no memory control group can be made here")
    work = workspace.Workspace()
    try:
        if arguments.total:
            result = totals(work, arguments.policy, arguments.cgroup)
        else:
            result = window(work, arguments.storage, arguments.policy, arguments.seconds,
                            arguments.cgroup)
            print_window(result)
    finally:
        work.close()
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
