"""Random reads of every kind, compared with what the files hold, while quotas move, workers are
killed and the page cache is emptied: never a wrong byte, never an error.

GRANARY_TEST_LARGE=1 goes on for ten minutes.
"""

import random
import time

from harness import page_cache, readers, suite, trees
from harness.granary import Granary
from harness.random_reader import RandomReader

SECONDS = 600 if suite.LARGE else 20
LARGE_FILES, LARGE_BYTES = 5, 3 * trees.BLOCK - 77
SMALL_FILES = 300
READERS_EACH = 3
PAUSE = 0.4  # between two disturbances
PATIENCE = "60"


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
            lambda one: RandomReader(one[0], self.objects, one[1], until, LARGE_BYTES).run(), each)
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
