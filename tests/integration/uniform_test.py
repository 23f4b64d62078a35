"""Uniform pinning: with a quota of c, every shuffled epoch after the first reads d - c at the origin.

Object bytes are counted at the S3 server; the page cache is dropped between epochs.
"""

import os

from harness import compare, page_cache, readers, suite, trees
from harness.granary import Granary
from harness.s3_origin import S3Origin

SMALL = 6000 if suite.LARGE else 1300
SMALL_BYTES = 110_000
SHARDS = 12 if suite.LARGE else 5
SHARD_BYTES = 30_000_000
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

    def epoch(self, expected=None, settled=False):
        """Object bytes that the server sent for one shuffled epoch, and what the product counted.
        Settled: nothing is to be cached any more."""
        before = self.granary.settled_stat("d")
        self.seed += 1
        page_cache.drop(self.mount)
        readers.assert_clean(self, readers.epoch(expected or self.expected, self.seed))
        after = self.granary.settled_stat("d")
        sent = self.s3.object_bytes()
        self.assertEqual(after["origin_bytes"] - before["origin_bytes"], sent)
        if settled:
            # Before that, parts of a block that are asked for after its fetch count as hits.
            self.assert_close(after["miss_bytes"] - before["miss_bytes"], sent)
        asked = sum(after[key] - before[key] for key in ("hit_bytes", "miss_bytes"))
        self.assert_close(asked, sum(len(self.objects[key]) for key in self.keys(expected)))
        return sent, after

    def keys(self, expected):
        root = len(os.fsencode(self.mount)) + 1
        return [os.fsdecode(path[root:]) for path in expected or self.expected]

    def assert_close(self, bytes_, wanted, tolerance=TOLERANCE):
        self.assertLessEqual(abs(bytes_ - wanted), tolerance * self.size,
                             f"{bytes_} is not {wanted} within {tolerance} of {self.size}")

    def test_epochs_converge_to_what_the_quota_leaves(self):
        quota = self.size // 2
        self.up(quota)
        sent, _ = self.epoch()
        self.assertLessEqual(sent, 1.02 * self.size)
        held = None
        for _ in (2, 3):
            sent, stat = self.epoch(settled=True)
            self.assert_close(sent, self.size - quota)
            self.assertLessEqual(stat["pinned_bytes"], quota)
            self.assertEqual(stat["pinned_bytes"], stat["pin_target_bytes"])
            if held is not None:
                self.assertEqual(stat["pinned_bytes"], held, "something pinned was evicted")
            held = stat["pinned_bytes"]

    def test_a_moved_quota_moves_only_the_difference(self):
        half, more = self.size // 2, self.size * 3 // 4
        self.up(half)
        self.epoch()
        self.epoch()
        self.granary.ask("quota", "set", "d", str(more))
        # Newly pinned blocks are fetched once more, whole; nothing that was there is.
        sent, stat = self.epoch()
        self.assert_close(sent, self.size - half)
        self.assertLessEqual(stat["pinned_bytes"], more)
        sent, _ = self.epoch()
        self.assert_close(sent, self.size - more)
        self.granary.ask("quota", "set", "d", str(half))
        suite.wait_until(lambda: self.granary.stat("d")["pinned_bytes"] <= half, 20, "cut")
        sent, stat = self.epoch()
        self.assert_close(sent, self.size - half)
        self.assertLessEqual(stat["cached_bytes"], half)

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

    def test_without_a_quota_everything_is_cached(self):
        self.up("unlimited")
        sent, _ = self.epoch()
        self.assertLessEqual(sent, 1.02 * self.size)
        sent, stat = self.epoch()
        self.assertEqual(sent, 0)
        self.assertEqual(stat["cached_bytes"], self.size)


if __name__ == "__main__":
    suite.main()
