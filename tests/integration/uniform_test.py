"""Uniform pinning: with a quota of c, every shuffled epoch after the first reads d - c at the origin.

Object bytes are counted at the S3 server; the page cache is dropped between epochs.
"""

import os
import time

from harness import compare, page_cache, readers, suite, trees
from harness.granary import Granary
from harness.s3_origin import S3Origin

SMALL = 6000 if suite.LARGE else 1000
SMALL_BYTES = 110_000
SHARDS = 12 if suite.LARGE else 5
SHARD_BYTES = 30_000_000  # a block is less than 2 % of the whole
TOLERANCE = 0.02


class Uniform(suite.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.s3 = S3Origin(cls.shared)
        cls.objects = {**trees.samples(SMALL, SMALL_BYTES), **trees.shards(SHARDS, SHARD_BYTES)}
        cls.size = sum(map(len, cls.objects.values()))
        cls.url = cls.s3.fill("uniform", cls.objects)

    def setUp(self):
        super().setUp()
        self.mount = self.work.directory("mnt")
        self.granary = Granary(self.work, environment=self.s3.environment())
        self.expected = compare.expected_of(self.mount, self.objects)
        self.seed = 0

    def up(self, quota):
        self.granary.up(self.url, self.mount, "--name", "d", "--quota", str(quota), "--cache-size",
                        str(2 * self.size), *self.s3.flags)
        self.s3.object_bytes()
        self.last = self.granary.stat("d")

    def epoch(self, expected=None, settled=False):
        """Object bytes that the server sent for one shuffled epoch, and what the product counted.
        Settled: nothing is to be cached any more."""
        before = self.last
        self.seed += 1
        page_cache.drop_below(self.mount)
        readers.assert_clean(self, readers.epoch(expected or self.expected, self.seed))
        after = self.last = self.granary.settled_stat("d")
        sent = self.s3.object_bytes()
        self.assertEqual(after["origin_bytes"] - before["origin_bytes"], sent)
        if settled:
            # Before that, parts of a block that are asked for after its fetch count as hits.
            self.assert_close(after["miss_bytes"] - before["miss_bytes"], sent)
        asked = sum(after[key] - before[key] for key in ("hit_bytes", "miss_bytes"))
        # Each byte once, also of files that the kernel is given before they are asked for.
        self.assert_close(asked, sum(len(self.objects[key]) for key in self.keys(expected)), 0.005)
        return sent, after

    def keys(self, expected):
        root = len(os.fsencode(self.mount)) + 1
        return [os.fsdecode(path[root:]) for path in expected or self.expected]

    def assert_close(self, bytes_, wanted, tolerance=TOLERANCE):
        self.assertLessEqual(abs(bytes_ - wanted), tolerance * self.size,
                             f"{bytes_} is not {wanted} within {tolerance} of {self.size}")

    def test_epochs_converge_to_what_the_quota_leaves_and_a_moved_quota_moves_the_difference(self):
        half, more = self.size // 2, self.size * 3 // 4
        self.up(half)
        sent, _ = self.epoch()
        self.assertLessEqual(sent, 1.02 * self.size)
        self.assert_settled(half)
        first = self.last["pinned_bytes"]
        self.assert_settled(half)
        self.assertEqual(self.last["pinned_bytes"], first, "something pinned was evicted")

        self.granary.ask("quota", "set", "d", str(more))
        time.sleep(2.5)  # workers learn of it with a heartbeat
        # Newly pinned blocks are fetched once more, whole; nothing that was there is.
        sent, stat = self.epoch()
        self.assert_close(sent, self.size - half)
        self.assertLessEqual(stat["pinned_bytes"], more)
        self.assert_settled(more)

        self.granary.ask("quota", "set", "d", str(half))
        suite.wait_until(lambda: self.granary.stat("d")["pinned_bytes"] <= half, 20, "cut")
        self.last = self.granary.settled_stat("d")
        self.assertLessEqual(self.last["cached_bytes"], half)
        self.assert_settled(half)
        self.assertEqual(self.last["pinned_bytes"], first, "the cut took or left something else")

    def assert_settled(self, quota):
        """An epoch with all pinned that the quota holds."""
        sent, stat = self.epoch(settled=True)
        self.assert_close(sent, self.size - quota)
        self.assertLessEqual(stat["pinned_bytes"], quota)
        self.assertEqual(stat["pinned_bytes"], stat["pin_target_bytes"])

    def test_a_loader_of_a_quarter_has_all_of_it_from_the_third_pass_on(self):
        self.up(self.size // 2)
        quarter, taken = {}, 0
        for path in sorted(self.expected, key=self.expected.get):
            if taken < self.size // 4:
                quarter[path] = self.expected[path]
                taken += len(self.objects[self.keys([path])[0]])
        for number in range(1, 5):
            sent, _ = self.epoch(quarter)
            if number >= 3:
                self.assertEqual(sent, 0, f"pass {number}")


if __name__ == "__main__":
    suite.main()
