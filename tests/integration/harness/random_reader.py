"""A reader that reads at random, in every way there is, and compares with what the files hold."""

import mmap
import os
import random
import time

PAGE = mmap.PAGESIZE
DIRECT_BYTES = 1 << 20
OPEN_MAX = 12


class RandomReader:
    """Files of one mount, some of them open and mapped for a while."""

    def __init__(self, mount, objects, seed, until, large):
        self.mount, self.objects, self.until, self.large = mount, objects, until, large
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
        large = [key for key in self.keys if len(self.objects[key]) == self.large]
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
