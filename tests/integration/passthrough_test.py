"""Large files that the kernel reads from the store by itself: no request, and never a wrong byte."""

import contextlib
import ctypes
import mmap
import os
import random
import shutil
import subprocess
import time

from harness import compare, page_cache, readers, suite, trees
from harness.granary import Granary

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                      ctypes.c_long]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
SECONDS = 120  # only failures wait for it


class Map:
    """A map whose file is closed, as numpy and Arrow keep theirs; Python's own keeps it open."""

    def __init__(self, path, size):
        self.size = size
        handle = os.open(path, os.O_RDONLY)
        self.address = LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, handle, 0)
        os.close(handle)
        assert self.address != ctypes.c_void_p(-1).value

    def bytes(self):
        return ctypes.string_at(self.address, self.size)

    def close(self):
        if self.address:
            LIBC.munmap(self.address, self.size)
        self.address = None


class Base(suite.Case):
    COUNT = 6
    SIZE = 3 * trees.BLOCK - 77

    def setUp(self):
        super().setUp()
        self.need_root()
        self.origin = self.work.directory("origin")
        self.objects = trees.shards(self.COUNT, self.SIZE)
        trees.write_objects(self.origin, self.objects)
        self.mount = self.work.directory("mnt")
        self.granary = Granary(self.work)
        self.expected = compare.expected_of(self.mount, self.objects)
        self.keys = sorted(self.objects)
        self.total = self.COUNT * self.SIZE

    def path(self, number):
        return self.mount / self.keys[number]

    def data(self, number):
        return self.objects[self.keys[number]]

    def mode(self):
        """It comes with the first heartbeat."""
        return suite.wait_until(lambda: self.granary.status()["mounts"][0]["mode"], SECONDS,
                                "the mount's mode known")

    def need_passthrough(self):
        if self.mode() != "open, passthrough":
            self.skipTest("this kernel has no passthrough")

    def reads(self):
        return self.granary.client_metric('requests_total{dataset="d",op="read"}', self.socket)

    def passed(self):
        return self.granary.client_metric('passthrough_opens_total{dataset="d"}', self.socket)

    def open_passes(self, number):
        before = self.passed()
        os.close(os.open(self.path(number), os.O_RDONLY))
        return self.passed() > before

    def wait_passing(self, numbers):
        """What was just stored is handed over once it is durable."""
        for number in numbers:
            suite.wait_until(lambda number=number: self.open_passes(number), SECONDS,
                             f"file {number} passed through")

    def read_all(self, seed=1):
        readers.assert_clean(self, readers.epoch(self.expected, seed))

    def cache_bytes(self):
        total = 0
        for path in self.granary.store_files():
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_blocks * 512
        return total

    def wait_given_back(self):
        suite.wait_until(lambda: self.granary.status()["workers"][0]["held_bytes"] == 0, SECONDS,
                         "everything given back that was dropped")

    def assert_within(self, capacity):
        """Files are looked at one after the other: what moves meanwhile is counted twice."""
        suite.wait_until(lambda: self.cache_bytes() <= capacity, 10, f"within {capacity} bytes")


class OneProcess(Base):
    def up(self, *flags):
        self.granary.up(f"file://{self.origin}", self.mount, "--name", "d", *flags)
        self.socket = "granary.metrics.sock"
        if "--no-passthrough" not in flags:
            self.need_passthrough()

    def test_complete_files_make_no_read_request(self):
        self.up()
        self.read_all()
        self.wait_passing(range(self.COUNT))
        before = self.reads()
        for seed in range(3):
            page_cache.drop(self.mount)
            self.read_all(seed)
        for number in range(self.COUNT):
            with open(self.path(number), "rb") as file, \
                    mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
                self.assertEqual(view[:], self.data(number))
        if shutil.which("fio"):
            for engine in ("psync", "mmap"):
                for pattern, block in (("read", "1m"), ("randread", "4k")):
                    subprocess.run(["fio", "--name=f", f"--filename={self.path(0)}", "--readonly",
                                    f"--rw={pattern}", f"--bs={block}", f"--ioengine={engine}",
                                    "--numjobs=2", "--runtime=2"],
                                   check=True, capture_output=True, timeout=SECONDS)
        self.assertEqual(self.reads(), before)

    def test_a_sample_leaves_passed_files_alone_and_makes_no_rate_of_the_others(self):
        self.up("--job", "train", "--sample", "100%")
        self.read_all()
        self.wait_passing(range(self.COUNT))
        before, ends = self.reads(), time.monotonic() + 25
        while time.monotonic() < ends:
            self.read_all()
            time.sleep(0.1)
        self.assertEqual(self.reads(), before)
        self.assertIsNone(self.granary.json("job", "ls")["jobs"][0]["ideal_bytes_per_s"])

    def test_what_is_not_complete_is_read_through_the_mount(self):
        self.up("--quota", str(2 * self.SIZE))
        for seed in range(3):
            page_cache.drop(self.mount)
            self.read_all(seed)
        self.assertGreater(self.reads(), 3 * (self.COUNT - 2))
        self.assertLess(self.passed(), 3 * self.COUNT)

    def test_it_can_be_switched_off(self):
        self.up("--no-passthrough")
        self.assertEqual(self.mode(), "open")
        for seed in range(2):
            page_cache.drop(self.mount)
            self.read_all(seed)
        self.assertEqual(self.passed(), 0)

    def test_a_smaller_quota_and_a_removed_dataset_leave_open_and_mapped_files_alone(self):
        self.up("--quota", "unlimited", "--cache-size", "128M")
        self.read_all()
        self.wait_passing(range(self.COUNT))
        maps = [Map(self.path(number), self.SIZE) for number in (0, 1)]
        for view in maps:
            self.addCleanup(view.close)
        with open(self.path(2), "rb", buffering=0) as held:
            for quota in ("8MiB", "0", "unlimited", "16MiB"):
                self.granary.ask("quota", "set", "d", quota)
                page_cache.drop(self.mount)
                self.read_all(7)
                self.assertEqual(os.pread(held.fileno(), self.SIZE, 0), self.data(2))
                for number, view in enumerate(maps):
                    self.assertEqual(view.bytes(), self.data(number))
                self.assert_within(128_000_000)
        for number, view in enumerate(maps):
            page_cache.drop()
            self.assertEqual(view.bytes(), self.data(number))
            view.close()
        self.wait_given_back()
        self.read_all(9)

    def test_damage_on_the_disk_is_found_before_a_file_is_handed_over(self):
        self.up()
        self.read_all()
        self.wait_passing(range(self.COUNT))
        self.granary.umount(self.mount)
        self.granary.wait_ended()
        store = [path for path in (self.granary.cache / "files").iterdir()
                 if path.name.isdigit()]
        self.assertEqual(len(store), self.COUNT)
        chance = random.Random(3)
        for path in store:
            with path.open("r+b", buffering=0) as file:
                offset = chance.randrange(self.SIZE)
                byte = os.pread(file.fileno(), 1, offset)[0]
                os.pwrite(file.fileno(), bytes([byte ^ 1]), offset)
        self.up()
        self.read_all(1)
        self.read_all(2)

    def test_a_mount_that_is_killed_leaves_its_files_readable_until_it_is_gone(self):
        """The kernel goes on reading a mapped file, whatever the next worker wants to do with it."""
        server = self.granary.up(f"file://{self.origin}", self.mount, "--name", "d")
        self.socket = "granary.metrics.sock"
        self.need_passthrough()
        self.read_all()
        self.wait_passing([0])
        view = Map(self.path(0), self.SIZE)
        self.addCleanup(view.close)
        server.kill()
        other = self.work.directory("other")
        self.granary.up(f"file://{self.origin}", other, "--name", "d", "--quota", "8MiB")
        self.granary.ask("dataset", "stat", "d")
        self.granary.ask("quota", "set", "d", "4MiB")
        for seed in range(2):
            page_cache.drop()
            readers.assert_clean(self, readers.epoch(
                compare.expected_of(other, self.objects), seed))
            self.assertEqual(view.bytes(), self.data(0))


class Daemons(Base):
    def start_worker(self, *flags):
        worker = self.granary.start("worker", *self.granary.directories(), *flags)
        self.granary.wait_serving(worker)
        suite.wait_until(lambda: any(w["alive"] for w in self.granary.status()["workers"]), 60,
                         "a worker known to the master")
        return worker

    def setUp(self):
        super().setUp()
        master = self.granary.start("master", "--state-dir", self.granary.state)
        self.granary.wait_serving(master)
        self.worker = self.start_worker("--cache-size", "112M")
        self.granary.ask("dataset", "add", "d", f"file://{self.origin}", "--quota", "80MiB")
        mounter = self.granary.start("mount", "d", self.mount, "--state-dir", self.granary.state)
        self.granary.wait_mounted(mounter, self.mount)
        self.need_passthrough()
        self.socket = f"mount-{mounter.process.pid}.metrics.sock"

    def test_a_worker_that_dies_and_comes_back_under_pressure_harms_no_open_file(self):
        def whole():
            page_cache.drop(self.mount)
            self.read_all()
            return self.granary.stat("d")["cached_bytes"] == self.total

        suite.wait_until(whole, SECONDS, "the dataset cached")
        self.wait_passing(range(self.COUNT))
        maps = [Map(self.path(number), self.SIZE) for number in range(3)]
        for view in maps:
            self.addCleanup(view.close)
        held = [open(self.path(number), "rb", buffering=0) for number in range(2, 5)]
        for file in held:
            self.addCleanup(file.close)
        for quota in ("40MiB", "12MiB"):
            self.worker.kill()
            self.assert_right(maps, held)
            self.worker = self.start_worker("--cache-size", "112M")
            self.granary.ask("quota", "set", "d", quota)
            limit = int(quota[:-3]) << 20
            suite.wait_until(lambda limit=limit: self.granary.stat("d")["cached_bytes"] <= limit,
                             SECONDS, "what is over the quota dropped")
            page_cache.drop(self.mount)
            self.assert_right(maps, held)
            for seed in range(2):
                self.read_all(seed)
            self.assert_within(112_000_000)
            self.assert_right(maps, held)
        suite.wait_until(lambda: self.granary.status()["workers"][0]["held_bytes"] > self.SIZE,
                         SECONDS, "dropped blocks held")
        for file in held:
            file.close()
        for view in maps:
            view.close()
        self.wait_given_back()
        suite.wait_until(lambda: self.cache_bytes() < 40 << 20, SECONDS,
                         "the disk's blocks given back")

    def test_random_readers_while_quotas_and_workers_come_and_go(self):
        self.read_all()
        stop = self.work.path / "stop"
        running = readers.Running(self.read_at_random, [(seed, stop) for seed in range(6)])
        chance = random.Random(1)
        end = time.monotonic() + (600 if suite.LARGE else 15)
        try:
            while time.monotonic() < end:
                quota = chance.choice(("0", "8MiB", "20MiB", "40MiB", "80MiB", "unlimited"))
                self.granary.ask("quota", "set", "d", quota)
                if chance.random() < 0.2:
                    self.worker.kill()
                    self.worker = self.start_worker("--cache-size", "112M")
                if chance.random() < 0.3:
                    page_cache.drop()
                self.assert_within(112_000_000)
                time.sleep(chance.random())
        finally:
            stop.touch()
        # Each says how many reads were right; a wrong one or an error is a failure.
        self.assertGreater(min(running.results()), 0)
        self.assertGreater(self.passed(), 0)

    def read_at_random(self, argument):
        seed, stop = argument
        chance, maps, reads = random.Random(seed), [], 0
        buffer = mmap.mmap(-1, 1 << 20)
        while not stop.exists():
            number = chance.randrange(self.COUNT)
            data, path = self.data(number), self.path(number)
            way = chance.randrange(4)
            if way == 0:
                maps.append((number, Map(path, self.SIZE)))
                if len(maps) > 4:
                    maps.pop(chance.randrange(4))[1].close()
            elif way == 1:
                handle = os.open(path, os.O_RDONLY | os.O_DIRECT)
                at = chance.randrange(self.SIZE >> 12) << 12
                got = os.preadv(handle, [buffer], at)
                os.close(handle)
                assert got and buffer[:got] == data[at:at + got], (number, at)
            else:
                with open(path, "rb", buffering=0) as file:
                    for _ in range(chance.randrange(8)):
                        at = chance.randrange(self.SIZE)
                        assert os.pread(file.fileno(), 70_000, at) == data[at:at + 70_000], \
                            (number, at)
            for other, view in maps:
                at = chance.randrange(self.SIZE)
                assert ctypes.string_at(view.address + at, min(9000, self.SIZE - at)) \
                    == self.data(other)[at:at + 9000], (other, at)
            reads += 1
        return reads

    def assert_right(self, maps, held):
        for number, view in enumerate(maps):
            self.assertEqual(view.bytes(), self.data(number))
        for number, file in enumerate(held):
            self.assertEqual(os.pread(file.fileno(), self.SIZE, 0), self.data(number + 2))


if __name__ == "__main__":
    suite.main()
