"""A job that reads as fast as it may, and what its origin saw of it."""

import mmap
import os
import random
import threading
import time

READERS = 4


class Job:
    """Threads that read files of a mount at random, past the page cache."""

    def __init__(self, mountpoint, pause=0, content=None):
        self.paths = [os.path.join(mountpoint, name) for name in sorted(os.listdir(mountpoint))]
        self.pause = pause
        self.content = content  # of a path; None: it is not looked at
        self.reads = []  # (when, bytes)
        self.errors = []
        self.wrong = []
        self.longest = 0
        self.stopping = False
        self.threads = [threading.Thread(target=self._run, args=(number,), daemon=True)
                        for number in range(READERS)]
        for thread in self.threads:
            thread.start()

    def _run(self, number):
        buffer, rng = mmap.mmap(-1, 1 << 16), random.Random(number)
        while not self.stopping:
            begun, path = time.monotonic(), rng.choice(self.paths)
            size = self._read(path, buffer)
            self.longest = max(self.longest, time.monotonic() - begun)
            if size is not None and self.content and buffer[:size] != self.content[path]:
                self.wrong.append(path)
            time.sleep(self.pause)

    def _read(self, path, buffer):
        """Its bytes; None: it failed."""
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECT)
            try:
                size = os.readv(handle, [buffer])
            finally:
                os.close(handle)
        except OSError as error:
            self.errors.append(error)
            return None
        self.reads.append((time.time(), size))
        return size

    def rate(self, begin, end):
        return sum(size for at, size in self.reads if begin <= at < end) / (end - begin)

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join(60)


def most_in_a_second(server, begin=0):
    """Bytes of bodies that the server sent within any second after `begin`."""
    requests = sorted((r.at, r.body_bytes) for r in server.requests()
                      if r.is_object_get() and r.at >= begin)
    window, total, most = [], 0, 0
    for at, size in requests:
        window.append((at, size))
        total += size
        while window[0][0] <= at - 1:
            total -= window.pop(0)[1]
        most = max(most, total)
    return most
