"""Random reads of every kind, compared with what the files hold, while quotas move, workers are
killed and the page cache is emptied: never a wrong byte, never an error.

GRANARY_TEST_LARGE=1 goes on for ten minutes.
"""

import mmap
import os
import random
import time

from harness import page_cache, readers, suite, trees
from harness.granary import Granary

SECONDS = 600 if suite.LARGE else 20
LARGE_FILES, LARGE_BYTES = 5, 3 * trees.BLOCK - 77
SMALL_FILES = 300
PAGE = mmap.PAGESIZE
DIRECT_BYTES = 1 << 20
OPEN_MAX = 12
READERS_EACH = 3
PAUSE = 0.4  # between two disturbances
PATIENCE = "60"


class Reader:
    """Files of one mount, some of them open and mapped for a while."""

    def __init__(self, mount, objects, seed, until):
        self.mount, self.objects, self.until = mount, objects, until
        self.draw = random.Random(seed)
        self.keys = sorted(objects)
        self.open = []
        self.direct = mmap.mmap(-1, DIRECT_BYTES)
        self.done = 0

    def check(self, what, key, offset, got):
        expected = self.objects[key][offset:offset + len(got)]
        if got != expected:
            at = next(i for i, pair in enumerate(zip(got, expected)) if pair[0] != pair[1])
            raise AssertionError(f"{what} of {key}, {len(got)} bytes at {offset}: wrong at {at}")

    def any_key(self):
        """Large files as often as all of the small ones."""
        large = [key for key in self.keys if len(self.objects[key]) == LARGE_BYTES]
        return self.draw.choice(large if self.draw.random() < 0.5 else self.keys)

    def range_of(self, key):
        """Of all magnitudes, also beyond the end."""
        size = len(self.objects[key])
        offset = self.draw.randrange(size + 1)
        return offset, min(1 << self.draw.randrange(22), size - offset)

    def pread(self):
        if not self.open or self.draw.random() < 0.3:
            key = self.any_key()
            self.open.append((key, os.open(self.mount / key, os.O_RDONLY), None))
        key, handle, _ = self.draw.choice(self.open)
        offset, length = self.range_of(key)
        got = os.pread(handle, length, offset)
        if len(got) != length:
            raise AssertionError(f"{key}: {len(got)} bytes of {length} at {offset}")
        self.check("pread", key, offset, got)
        if os.pread(handle, 100, len(self.objects[key])):
            raise AssertionError(f"{key}: there are bytes behind its end")

    def whole(self):
        key = self.any_key()
        with open(self.mount / key, "rb", buffering=0) as file:
            got = b"".join(iter(lambda: file.read(1 << self.draw.randrange(14, 21)), b""))
        if len(got) != len(self.objects[key]):
            raise AssertionError(f"{key} has {len(got)} bytes")
        self.check("read", key, 0, got)

    def mapped(self):
        maps = [entry for entry in self.open if entry[2]]
        if not maps or self.draw.random() < 0.3:
            key = self.any_key()
            handle = os.open(self.mount / key, os.O_RDONLY)
            maps = [(key, handle, mmap.mmap(handle, 0, prot=mmap.PROT_READ))]
            self.open += maps
        key, _, view = self.draw.choice(maps)
        for _ in range(4):
            offset, length = self.range_of(key)
            self.check("map", key, offset, view[offset:offset + length])

    def past_the_page_cache(self):
        key = self.any_key()
        handle = os.open(self.mount / key, os.O_RDONLY | os.O_DIRECT)
        try:
            offset = self.draw.randrange(len(self.objects[key])) // PAGE * PAGE
            length = self.draw.randrange(1, DIRECT_BYTES // PAGE + 1) * PAGE
            got = os.preadv(handle, [memoryview(self.direct)[:length]], offset)
            if got != min(length, len(self.objects[key]) - offset):
                raise AssertionError(f"{key}: {got} bytes of {length} at {offset}, O_DIRECT")
            self.check("O_DIRECT", key, offset, self.direct[:got])
        finally:
            os.close(handle)

    def forget(self):
        key, handle, _ = self.draw.choice(self.open)
        os.posix_fadvise(handle, *self.range_of(key), os.POSIX_FADV_DONTNEED)

    def close(self, number):
        _, handle, view = self.open.pop(number)
        if view:
            view.close()
        os.close(handle)

    def run(self):
        deeds = [self.pread] * 5 + [self.whole, self.mapped, self.mapped, self.past_the_page_cache]
        while time.monotonic() < self.until:
            self.draw.choice(deeds)()
            self.done += 1
            if self.open and self.draw.random() < 0.1:
                self.forget()
            while len(self.open) > OPEN_MAX or (self.open and self.draw.random() < 0.1):
                self.close(self.draw.randrange(len(self.open)))
        return self.done


class Verify(suite.Case):
    def setUp(self):
        super().setUp()
        self.need_root()
        self.objects = {**trees.shards(LARGE_FILES, LARGE_BYTES),
                        **{f"small/{n:03d}": trees.noise(n, n * n * 2 + 1)
                           for n in range(SMALL_FILES)}}
        self.size = sum(map(len, self.objects.values()))
        origin = self.work.directory("origin")
        trees.write_objects(origin, self.objects)
        self.granary = Granary(self.work)
        self.granary.wait_serving(self.granary.start("master", "--state-dir", self.granary.state))
        self.start_worker()
        self.granary.ask("dataset", "add", "d", f"file://{origin}")
        self.mounts = {mode: self.work.directory(mode) for mode in ("open", "no-open")}
        for mode, mount in self.mounts.items():
            server = self.granary.start("mount", "d", mount, "--state-dir", self.granary.state,
                                        "--mode", mode, "--read-timeout", PATIENCE)
            self.granary.wait_mounted(server, mount)

    def start_worker(self):
        self.worker = self.granary.start("worker", *self.granary.directories(),
                                         "--cache-size", str(4 * self.size))
        self.granary.wait_serving(self.worker)

    def restart_worker(self):
        self.worker.kill()
        self.start_worker()

    def move_quota(self, draw):
        quota = draw.choice(["unlimited", "unlimited", str(draw.randrange(1, self.size))])
        self.granary.ask("quota", "set", "d", quota)

    def test_every_read_is_right_whatever_happens_meanwhile(self):
        until = time.monotonic() + SECONDS
        each = [(mount, 10 * i + j) for i, mount in enumerate(self.mounts.values())
                for j in range(READERS_EACH)]
        running = readers.Running(
            lambda one: Reader(one[0], self.objects, one[1], until).run(), each)
        draw = random.Random(99)
        disturbances = 0
        while time.monotonic() < until:
            time.sleep(PAUSE)
            draw.choice([lambda: self.move_quota(draw), lambda: self.move_quota(draw),
                         lambda: self.move_quota(draw), page_cache.drop, self.restart_worker])()
            disturbances += 1
        done = running.results()
        self.assertGreater(min(done), 20)
        self.assertGreater(disturbances, 5)
        print(f"{sum(done)} reads compared, {disturbances} disturbances", end=" ", flush=True)
        status = self.granary.status()
        self.assertEqual([mount["failed_reads"] for mount in status["mounts"]], [0, 0])


if __name__ == "__main__":
    suite.main()
