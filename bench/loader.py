#!/usr/bin/env python3
"""A training loader whose compute-bound rate is known: batches of files, each followed by a step.

    loader.py [--page-cache] DIR READERS BATCH STEP_SECONDS SEED LOG [EPOCHS]

Threads read shuffled files past the page cache (O_DIRECT), or through it, into a short queue of batches, as loaders do;
the main thread takes a batch and computes for STEP_SECONDS. LOG gets a line of JSON for each step: when
it ended, the bytes read so far, the epochs ended. The mount is told of each step as well
(granary_order.timed). Without EPOCHS it goes on until it is killed.
"""

import json
import mmap
import os
import pathlib
import queue
import random
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))

import granary_order  # noqa: E402

BUFFER_BYTES = 1 << 20
BATCHES_AHEAD = 2


def read(path, buffer, how):
    handle = os.open(path, os.O_RDONLY | how)
    try:
        return os.readv(handle, [buffer])
    finally:
        os.close(handle)


class Epochs:
    """Files in the order of endless shuffles, drawn by many threads."""

    def __init__(self, paths, seed, count):
        self.paths = paths
        self.random = random.Random(seed)
        self.left = count
        self.order = []
        self.lock = threading.Lock()

    def next(self):
        """None at the end."""
        with self.lock:
            if not self.order:
                if self.left == 0:
                    return None
                self.left -= 1
                self.order = self.random.sample(self.paths, len(self.paths))
            return self.order.pop()


def reader(epochs, ready, how):
    buffer = mmap.mmap(-1, BUFFER_BYTES)
    while (path := epochs.next()) is not None:
        ready.put(read(path, buffer, how))
    ready.put(None)


def batches(ready, size, readers):
    """Sums of bytes, until every reader has ended."""
    ended = 0
    while ended < readers:
        total = files = 0
        while files < size and ended < readers:
            if (got := ready.get()) is None:
                ended += 1
                continue
            total += got
            files += 1
        if files:
            yield files, total


def main():
    arguments, how = sys.argv[1:], os.O_DIRECT
    if arguments[0] == "--page-cache":
        arguments, how = arguments[1:], 0
    directory, readers, batch, step, seed, log = arguments[:6]
    count = int(arguments[6]) if len(arguments) > 6 else -1
    readers, batch, step = int(readers), int(batch), float(step)
    paths = sorted(str(path) for path in pathlib.Path(directory).rglob("*") if path.is_file())
    epochs = Epochs(paths, int(seed), count)
    ready = queue.Queue(BATCHES_AHEAD * batch)
    for _ in range(readers):
        threading.Thread(target=reader, args=(epochs, ready, how), daemon=True).start()
    files = total = 0
    begun = time.monotonic()
    with open(log, "w", encoding="ascii") as lines:
        for count, size in granary_order.timed(batches(ready, batch, readers), directory,
                                               samples=batch, workers=readers):
            files += count
            total += size
            time.sleep(step)
            print(json.dumps({"at": time.time(), "bytes": total, "epochs": files / len(paths),
                              "seconds": time.monotonic() - begun}), file=lines, flush=True)


if __name__ == "__main__":
    main()
