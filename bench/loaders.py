"""Training loaders on the mount: PyTorch decoding real images, and DLIO."""

import dataclasses
import importlib.util
import itertools
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

from harness import granary, page_cache, process, s3_origin, workspace

import host_pages
import peers
import raw_http
import report

CACHE = pathlib.Path(os.environ.get("GRANARY_DEPS", "~/.cache/granary-dev")).expanduser()


def say(text):
    print(f"bench: {text}", file=sys.stderr)


class Images:
    """Some of the images of `./dev run`, as they are in the package."""

    BUCKET = "images"
    FILES = 1500
    WORKERS = (1, 2, 4)
    TURNS = 3  # of warm epochs in a round
    SOURCE = CACHE / "samples/openclipart"
    PROGRAM = pathlib.Path(__file__).with_name("image_loader.py")

    def __init__(self, work, rounds, server):
        self.work = work
        self.rounds = rounds
        self.server = server
        self.number = itertools.count(1)
        self.local = work.directory("ext4-images")

    def missing(self):
        if not all(map(importlib.util.find_spec, ("torch", "torchvision"))):
            return "python3-torchvision is not installed"
        return None if self.SOURCE.is_dir() else f"{self.SOURCE} is not there"

    def rows(self):
        if why := self.missing():
            say(f"{why}: loaders are left out; ./dev bench --loaders installs them")
            return []
        keys = self.copy()
        self.server.fill(self.BUCKET, {key: (self.local / key).read_bytes for key in keys})
        self.urls = self.server.signed_urls(self.BUCKET, keys)
        rows = [row for workers in self.WORKERS for row in self.with_workers(workers)]
        shutil.rmtree(self.local)
        return rows

    def copy(self):
        """The keys of a fixed choice, copied to the filesystem that the cache is on."""
        keys = sorted(str(path.relative_to(self.SOURCE)) for path in self.SOURCE.rglob("*.png"))
        chosen = random.Random(1).sample(keys, min(self.FILES, len(keys)))
        for key in chosen:
            (self.local / key).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.SOURCE / key, self.local / key)
        os.sync()
        return chosen

    def with_workers(self, workers):
        warm, dropped, cold = [], [], []
        for _ in range(self.rounds):
            speed, (first, *others) = self.round(workers)
            dropped.append(first)
            cold.append((speed, first[1]))
            warm += others
        what = f"PyTorch DataLoader, {workers} worker{'s'[:workers - 1]}"
        return [report.Row(f"{what}, page cache warm", "images/s", "ext4", warm, 0.95),
                report.Row(f"{what}, page cache dropped, store warm", "images/s", "ext4", dropped,
                           0.95),
                report.Row(f"{what}, cold epoch from S3", "images/s", "ext4, page cache dropped",
                           cold, None)]

    def round(self, workers):
        """Images a second of a cold epoch, and of the mount and ext4 in turns: without a page cache,
        then warm."""
        number = next(self.number)
        host = granary.Granary(self.work, f"images{number}", environment=self.server.environment())
        mountpoint = self.work.directory(f"mnt-images{number}")
        raw_http.get(self.urls, 1)  # the server reads nothing from its disk, either
        host.up(f"s3://{self.BUCKET}", mountpoint, "--endpoint", self.server.endpoint)
        host_pages.back()
        [[cold]] = self.epochs(workers, 1, "keep", mountpoint)
        turns = self.epochs(workers, self.TURNS, "drop", mountpoint, self.local)
        host.umount(mountpoint)
        host.wait_ended()
        shutil.rmtree(host.cache, ignore_errors=True)
        return cold, turns

    def epochs(self, workers, count, *more):
        done = subprocess.run([sys.executable, self.PROGRAM, str(workers), str(count),
                               str(next(self.number)), *more], check=True, text=True,
                              capture_output=True)
        return json.loads(done.stdout)


@dataclasses.dataclass
class Workload:
    """One of DLIO's with fewer records and smaller batches, so that this machine holds and feeds it."""
    name: str
    target: float  # least utilisation of the accelerator, in percent
    step_seconds: float  # of computation; the search for what ext4 can feed begins there
    settings: dict


WORKLOADS = [
    # Records of an eighth: 24 of 140 MB would be 3.4 GB.
    Workload("unet3d", 90, 0.03, {"dataset.num_files_train": 24, "dataset.record_length": 18_325_078,
                                 "dataset.record_length_stdev": 8_542_726,
                                 "reader.batch_size": 2}),
    Workload("resnet50", 90, 0.01, {"dataset.num_files_train": 8, "dataset.num_samples_per_file": 313,
                                   "reader.batch_size": 50}),
    Workload("cosmoflow", 70, 0.005, {"dataset.num_files_train": 128}),
]
EPOCHS = {"workflow.checkpoint": False, "reader.read_threads": 2, "reader.computation_threads": 2,
          "train.epochs": 2}


class Ext4:
    """The files that the buckets were filled with."""
    name = "ext4"

    def __init__(self, folder_of):
        self.folder_of = folder_of

    def mount(self, bucket, _cache_bytes, _number):
        return self.folder_of(bucket)

    def unmount(self):
        pass


class Dlio:
    """Utilisation of a pretended accelerator: the first epoch with nothing cached, and the second."""

    VENV = CACHE / "dlio/venv"
    MARGIN = 2  # above the target, for the noise
    SLOWER = 1.5
    TRIES = 10

    def __init__(self, work, rounds, extra):
        self.work = work
        self.rounds = rounds
        self.extra = extra
        self.number = itertools.count(1)

    def figures(self):
        """{workload: target, seconds of a step, and {side: cold and warm, each round}}"""
        if not (self.VENV / "bin/dlio_benchmark").exists():
            say("DLIO is not installed: left out; ./dev bench --loaders installs it")
            return {}
        apart = workspace.Workspace()  # a server's data have one place in each
        self.work.at_close(apart.close)
        self.server = s3_origin.S3Origin(apart)
        sides = [Ext4(self.folder), *peers.sides(self.host, self.work, self.server, self.extra)]
        return {workload.name: self.measure(workload, sides) for workload in WORKLOADS}

    def host(self, name, server):
        return granary.Granary(self.work, f"dlio-{name}", environment=server.environment())

    def folder(self, name):
        return self.work.directory(f"dlio-{name}")

    def measure(self, workload, sides):
        self.generate(workload)
        step = self.step_seconds(workload)
        figures = {side.name: {"cold": [], "warm": []} for side in sides}
        for number in range(self.rounds):
            for side in sides:
                say(f"DLIO {workload.name}, {step:.3f} s a step, round {number + 1}: {side.name}")
                self.round(workload, side, step, figures[side.name])
        shutil.rmtree(self.folder(workload.name))
        return {"target": workload.target, "step_seconds": step, "sides": figures}

    def round(self, workload, side, step, figures):
        """What a side cannot do is a gap in its column."""
        page_cache.drop(self.folder(workload.name))
        raw_http.get(self.urls, 1)  # the server reads nothing from its disk
        try:
            mountpoint = side.mount(workload.name, peers.UNLIMITED, f"d{next(self.number)}")
            try:
                host_pages.back()
                cold, warm = self.epochs(workload, mountpoint, step)
            finally:
                side.unmount()
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            say(f"{side.name} failed: {error}")
            return
        figures["cold"].append(cold)
        figures["warm"].append(warm)

    def generate(self, workload):
        folder = self.folder(workload.name)
        say(f"DLIO {workload.name}: generating")
        self.run(workload, folder, {"workflow.generate_data": True, "workflow.train": False,
                                    "workflow.checkpoint": False})
        files = {str(path.relative_to(folder)): path.read_bytes
                 for path in (folder / "train").iterdir()}
        self.server.fill(workload.name, {**files, "valid/none": b""})  # it wants such a folder
        self.urls = self.server.minio.signed_urls(workload.name, files)
        os.sync()

    def step_seconds(self, workload):
        """The shortest of those tried with which warm ext4 passes."""
        step = workload.step_seconds
        for _ in range(self.TRIES):
            _, warm = self.epochs(workload, self.folder(workload.name), step)
            say(f"DLIO {workload.name}, {step:.3f} s a step: {warm:.0f} % on warm ext4")
            if warm >= workload.target + self.MARGIN:
                return step
            step *= self.SLOWER
        raise AssertionError(f"{workload.name}: ext4 does not pass with steps of {step} s, either")

    def epochs(self, workload, folder, step):
        """Utilisation in percent, of the first epoch and of the second."""
        summary = self.run(workload, folder, {**EPOCHS, "train.computation_time": step})
        return json.loads(summary.read_text())["metric"]["train_au_percentage"]

    def run(self, workload, folder, settings):
        out = self.work.directory(f"dlio-out/{next(self.number)}")
        every = {**workload.settings, **settings, "dataset.data_folder": folder}
        environment = process.clean_environment(self.work.path)
        environment["PATH"] = f"{self.VENV}/bin:{environment['PATH']}"
        with (out / "log").open("w") as log:
            subprocess.run([self.VENV / "bin/dlio_benchmark", f"workload={workload.name}_h100",
                            f"++hydra.run.dir={out}",
                            *(f"++workload.{name}={value}" for name, value in every.items())],
                           check=True, cwd=out, env=environment, stdout=log, stderr=log)
        return out / "summary.json"
