"""The memory of a mount while 256 readers want something: what docs/operations.md says at most."""

import concurrent.futures
import os
import pathlib
import random
import threading
import time

from harness import page_cache, readers, suite, trees
from harness.granary import Granary

PROCESSES, THREADS = 8, 32
SECONDS = 5
LIMIT_BYTES = 256 << 20
SMALL_FILES, SMALL_BYTES = 2000, 110_000
LARGE_FILES, LARGE_BYTES = 4, 64 << 20
RECORD_BYTES = 1 << 20


def anonymous_bytes(pid):
    """RssAnon and RssShmem: what the kernel cannot take back."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines
               if line.startswith(("RssAnon:", "RssShmem:")))


class Watch:
    """The most that a process has had."""

    def __init__(self, pid):
        self.pid, self.most, self._ended = pid, 0, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._ended.wait(0.02):
            self.most = max(self.most, anonymous_bytes(self.pid))

    def end(self):
        self._ended.set()
        self._thread.join()
        return self.most


class Memory(suite.Case):
    def setUp(self):
        super().setUp()
        origin = self.work.directory("origin")
        for number in range(SMALL_FILES):
            trees.write(origin / f"small/{number:05d}", os.urandom(SMALL_BYTES))
        for number in range(LARGE_FILES):
            trees.write(origin / f"large/{number}", os.urandom(LARGE_BYTES))
        self.origin = origin
        self.granary = Granary(self.work)
        self.granary.wait_serving(self.granary.start("master", "--state-dir", self.granary.state))
        self.granary.wait_serving(self.granary.start("worker", *self.granary.directories()))
        self.granary.ask("dataset", "add", "d", f"file://{origin}")

    def read_at_random(self, mount, seed, until):
        """Small files and records of large ones; how many."""
        draw, done = random.Random(seed), 0
        while time.monotonic() < until:
            if draw.random() < 0.7:
                name = f"small/{draw.randrange(SMALL_FILES):05d}"
                size, offset = SMALL_BYTES, 0
            else:
                name = f"large/{draw.randrange(LARGE_FILES)}"
                size, offset = RECORD_BYTES, draw.randrange(LARGE_BYTES - RECORD_BYTES)
            handle = os.open(mount / name, os.O_RDONLY)
            try:
                if len(os.pread(handle, size, offset)) != size:
                    raise AssertionError(f"{name} is cut short")
            finally:
                os.close(handle)
            done += 1
        return done

    def most_with_readers(self, *flags):
        mount = self.work.directory("mnt")
        server = self.granary.start("mount", "d", mount, "--state-dir", self.granary.state, *flags)
        self.granary.wait_mounted(server, mount)
        until = time.monotonic() + SECONDS

        def many(number):
            with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
                return sum(pool.map(
                    lambda n: self.read_at_random(mount, number * THREADS + n, until),
                    range(THREADS)))

        watch = Watch(self.granary.client_of(mount))
        running = readers.Running(many, range(PROCESSES))
        while time.monotonic() < until:
            time.sleep(1)
            page_cache.drop_below(mount)
        done = sum(running.results())
        most = watch.end()
        self.granary.umount(mount)
        self.assertGreater(done, PROCESSES * THREADS)
        print(f"{most >> 20} MiB while {done} were read", end=" ", flush=True)
        return most

    def test_small_files_and_records_in_no_open_mode(self):
        self.assertLessEqual(self.most_with_readers("--mode", "no-open"), LIMIT_BYTES)

    def test_small_files_and_records_in_open_mode(self):
        self.assertLessEqual(self.most_with_readers("--mode", "open"), LIMIT_BYTES)


if __name__ == "__main__":
    suite.main()
