"""kill -9 of `granary up` at any moment: after a restart the cache is warm and every byte right."""

import random
import time

from harness import compare, page_cache, readers, suite, trees
from harness.granary import Granary
from harness.s3_origin import S3Origin

KILLS = 12 if suite.LARGE else 4
OBJECTS = 600
# Dropped with a kill: what was fetched within a group commit (100 ms), and reads in flight.
LOST_BYTES_PER_KILL = 12_000_000


class Restart(suite.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.s3 = S3Origin(cls.shared)
        cls.objects = {**trees.samples(OBJECTS, 110_000), **trees.shards(4, 14_000_000)}
        cls.size = sum(map(len, cls.objects.values()))
        cls.url = cls.s3.fill("restart", cls.objects)

    def setUp(self):
        super().setUp()
        self.mount = self.work.directory("mnt")
        self.granary = Granary(self.work, environment=self.s3.environment())
        self.expected = compare.expected_of(self.mount, self.objects)

    def up(self):
        return self.granary.up(self.url, self.mount, "--name", "d", *self.s3.flags)

    def test_killed_in_the_middle_of_epochs_it_comes_back_warm(self):
        chance = random.Random(3)
        total = 0
        for number in range(KILLS):
            server = self.up()
            self.s3.object_bytes()
            epoch = readers.Epoch(self.expected, number)
            time.sleep(chance.uniform(0.05, 1.5))
            server.kill()
            outcome = epoch.outcome()
            self.assertEqual(outcome.wrong, {})
            total += self.s3.object_bytes()
        self.up()
        page_cache.drop_below(self.mount)
        readers.assert_clean(self, readers.epoch(self.expected, 100))
        total += self.s3.object_bytes()
        self.assertLessEqual(total, 1.02 * self.size + KILLS * LOST_BYTES_PER_KILL)
        page_cache.drop_below(self.mount)
        readers.assert_clean(self, readers.epoch(self.expected, 101))
        self.assertEqual(self.s3.object_bytes(), 0)

    def test_a_full_cache_is_all_there_after_a_kill(self):
        server = self.up()
        readers.assert_clean(self, readers.epoch(self.expected, 1))
        time.sleep(1)  # more than a group commit
        before = self.granary.settled_stat("d")
        server.kill()
        self.s3.object_bytes()
        self.up()
        readers.assert_clean(self, readers.epoch(self.expected, 2))
        self.assertEqual(self.s3.object_bytes(), 0)
        self.assertEqual(self.granary.settled_stat("d")["cached_bytes"], before["cached_bytes"])

    def test_stopped_by_a_signal_it_leaves_nothing_mounted_and_comes_back_warm(self):
        server = self.up()
        readers.assert_clean(self, readers.epoch(self.expected, 1))
        server.signal(15)
        self.assertEqual(server.wait(20), 0, server.output())
        self.assertEqual(list(self.mount.iterdir()), [])
        self.s3.object_bytes()
        self.up()
        readers.assert_clean(self, readers.epoch(self.expected, 2))
        self.assertEqual(self.s3.object_bytes(), 0)

    def test_killed_while_listing_the_next_up_lists_again(self):
        server = self.granary.start("up", self.url, self.mount, *self.granary.directories(),
                                    "--name", "d", *self.s3.flags)
        time.sleep(0.15)
        server.kill()
        self.up()
        self.assertEqual(compare.files(self.mount), sorted(self.expected))


if __name__ == "__main__":
    suite.main()
