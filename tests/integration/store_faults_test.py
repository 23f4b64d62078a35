"""A store whose disk fails: full, or with bits flipped anywhere. No wrong byte, no failed read."""

import os
import random
import shutil
import subprocess
import time

from harness import compare, page_cache, readers, suite, trees
from harness.granary import Granary
from harness.nginx import Static


class Store(suite.Case):
    def setUp(self):
        super().setUp()
        self.origin = self.work.directory("origin")
        self.objects = {**trees.samples(100, 110_000), **trees.shards(2, 3 * trees.BLOCK - 77)}
        trees.write_objects(self.origin, self.objects)
        self.server = Static(self.work, self.origin)
        self.mount = self.work.directory("mnt")
        self.granary = Granary(self.work)
        self.expected = compare.expected_of(self.mount, self.objects)
        self.seed = 0

    def up(self, *flags):
        return self.granary.up(self.server.url + "/", self.mount, "--name", "d", *flags)

    def down(self):
        self.granary.umount(self.mount)
        self.granary.wait_ended()

    def read_all(self):
        """Bytes that came from the origin."""
        self.seed += 1
        page_cache.drop_below(self.mount)
        self.server.object_bytes()
        readers.assert_clean(self, readers.epoch(self.expected, self.seed))
        return self.server.object_bytes()

    def read_until_whole(self):
        """What one pass finds damaged and fetches is stored by it, also while the mount holds the
        file of a large object."""
        self.read_all()
        self.assertEqual(self.read_all(), 0)

    # ---- bits ------------------------------------------------------------------------------

    def flip(self, path, count, chance):
        """Flips bits at random places of the file's data (holes have none)."""
        size = path.stat().st_size
        with path.open("r+b", buffering=0) as file:
            for _ in range(count):
                try:
                    offset = os.lseek(file.fileno(), chance.randrange(size), os.SEEK_DATA)
                except OSError:
                    continue  # only a hole from there on
                byte = os.pread(file.fileno(), 1, offset)[0]
                os.pwrite(file.fileno(), bytes([byte ^ 1 << chance.randrange(8)]), offset)

    def test_bits_flipped_while_it_is_down_are_found_and_fetched_again(self):
        self.up()
        self.read_all()
        self.down()
        good = self.work.path / "good"
        shutil.copytree(self.granary.cache, good)
        chance = random.Random(11)
        for pattern in ("segments/*", "files/*[0-9]", "files/*.sum", "index/MANIFEST*",
                        "index/*", "format"):
            with self.subTest(pattern):
                shutil.rmtree(self.granary.cache)
                shutil.copytree(good, self.granary.cache)
                files = [path for path in self.granary.cache.glob(pattern) if path.is_file()
                         and path.stat().st_size]
                self.assertTrue(files)
                for path in files:
                    self.flip(path, 20, chance)
                self.up()
                try:
                    self.read_until_whole()
                finally:
                    self.down()

    def test_bits_flipped_under_a_live_mount_are_found_and_fetched_again(self):
        server = self.up()
        self.read_all()
        time.sleep(1)
        chance = random.Random(12)
        for folder in ("segments", "files"):
            for path in (self.granary.cache / folder).iterdir():
                self.flip(path, 20, chance)
        self.assertGreater(self.read_all(), 0)
        self.assertEqual(self.read_all(), 0)
        self.assertRegex(server.output(), "(?i)corrupt|damaged|checksum")

    def test_the_scrubber_finds_flipped_bits_before_a_reader_does(self):
        self.up("--scrub-rate", "500MB/s")
        self.read_all()
        self.assertEqual(self.read_all(), 0)
        suite.wait_until(lambda: self.scrub()["passes"] > 0, 60, "a pass")
        chance = random.Random(13)
        for folder in ("segments", "files"):
            for path in (self.granary.cache / folder).iterdir():
                self.flip(path, 20, chance)
        # Not by reading: what the mount has is not looked at.
        passes = self.scrub()["passes"]
        suite.wait_until(lambda: self.scrub()["passes"] > passes + 1, 60, "two more passes")
        self.assertGreater(self.scrub()["damaged_blocks"], 3)
        self.assertGreater(self.read_all(), 0)
        self.assertEqual(self.read_all(), 0)
        self.assertEqual(self.stat_corrupt(), self.scrub()["damaged_blocks"])

    def scrub(self):
        return self.granary.status()["workers"][0]["scrub"]

    def stat_corrupt(self):
        text = subprocess.run(["curl", "-sf", "--unix-socket",
                               self.granary.state / "granary.metrics.sock",
                               "http://localhost/metrics"],
                              check=True, capture_output=True, text=True).stdout
        self.assertIn("granary_worker_scrubbed_bytes_total", text)
        return sum(int(float(line.split()[-1])) for line in text.splitlines()
                   if line.startswith("granary_worker_corrupt_blocks_total"))

    def test_scrubbing_can_be_switched_off_in_the_environment(self):
        self.granary.environment["GRANARY_SCRUB_RATE"] = "off"
        self.up()
        self.read_all()
        self.assertEqual(self.scrub()["bytes_per_s"], 0)
        self.assertRegex(self.granary.ask("status").stdout, r"SCRUBBED(.*\n)+?.* off ")

    def test_files_that_are_missing_or_cut_are_fetched_again(self):
        self.up()
        self.read_all()
        self.down()
        for folder in ("segments", "files"):
            for number, path in enumerate(sorted((self.granary.cache / folder).iterdir())):
                if number % 2:
                    os.truncate(path, path.stat().st_size // 3)
                else:
                    path.unlink()
        self.up()
        self.assertGreater(self.read_all(), 0)
        self.assertEqual(self.read_all(), 0)

    # ---- space -----------------------------------------------------------------------------

    def small_disk(self, size):
        self.need_root()
        disk = self.work.directory("disk")
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", disk], check=True)
        self.granary.cache = disk / "c"
        return disk

    def free(self, disk):
        st = os.statvfs(disk)
        return st.f_bavail * st.f_frsize

    def test_a_full_disk_fails_no_read_and_is_told(self):
        disk = self.small_disk("200m")
        self.up("--free-floor", "1M")
        with (disk / "others").open("wb") as others:
            os.posix_fallocate(others.fileno(), 0, self.free(disk) - 300_000)
        self.read_all()
        suite.wait_until(lambda: self.granary.status()["workers"][0]["degraded"], 10,
                         "a worker that says that its disk is full")
        (disk / "others").unlink()
        # With room again it stores again.
        suite.wait_until(lambda: self.read_all() == 0, 60, "cached again")

    def fill(self, disk):
        with (disk / "others").open("wb", buffering=0) as others:
            try:
                while others.write(b"x" * 4096):
                    pass
            except OSError:
                pass

    def test_a_disk_that_runs_full_to_the_last_byte_ends_nothing(self):
        disk = self.small_disk("100m")
        self.up("--free-floor", "1M", "--cache-size", "80M")
        self.read_all()
        for _ in range(3):
            self.fill(disk)
            # Drops and stores meanwhile: the index is written.
            self.granary.ask("quota", "set", "d", "10MB")
            self.read_all()
            self.fill(disk)
            self.read_all()
            self.granary.ask("quota", "set", "d", "unlimited")
            self.read_all()
            (disk / "others").unlink()
        suite.wait_until(lambda: self.read_all() == 0, 180, "cached again")

    def test_it_starts_on_a_disk_without_a_byte_and_keeps_the_cache(self):
        disk = self.small_disk("100m")
        self.up("--free-floor", "1M", "--cache-size", "80M")
        self.read_all()
        self.assertEqual(self.read_all(), 0)
        self.down()
        size = sum(map(len, self.objects.values()))
        for number in range(2):
            self.fill(disk)
            self.assertEqual(self.free(disk), 0)
            self.up("--free-floor", "0" if number else "1M", "--cache-size", "80M")
            self.assertLess(self.read_all(), size * 3 / 4)
            (disk / "others").unlink()
            suite.wait_until(lambda: self.read_all() == 0, 180, "cached again")
            self.down()

    def test_the_floor_stays_free_and_the_capacity_is_kept(self):
        disk = self.small_disk("240m")
        floor = 180_000_000
        self.up("--free-floor", str(floor), "--cache-size", "220M")
        self.read_all()
        self.assertGreaterEqual(self.free(disk), floor)
        self.down()
        self.granary.cache = disk / "c2"
        self.granary.state = self.work.path / "s2"
        capacity = 70_000_000
        self.up("--free-floor", "0", "--cache-size", str(capacity))
        self.read_all()
        self.read_all()
        used = self.granary.status()["workers"][0]["used_bytes"]
        self.assertLessEqual(used, capacity)
        taken = sum(p.stat().st_blocks * 512 for p in self.granary.cache.rglob("*"))
        self.assertLessEqual(taken, capacity)

    def test_a_full_worker_pins_a_part_and_all_again_when_there_is_room(self):
        disk = self.small_disk("300m")
        floor = 70_000_000
        self.objects.update(trees.samples(1200, 110_000, "more", "more"))
        trees.write_objects(self.origin, self.objects)
        self.expected = compare.expected_of(self.mount, self.objects)
        size = sum(map(len, self.objects.values()))
        self.up("--free-floor", str(floor), "--cache-size", "230M")
        stat = self.granary.stat("d")
        self.assertEqual(stat["pin_target_bytes"], size)
        self.assertEqual(stat["pin_expected_bytes"], size)
        self.read_all()
        self.assertEqual(self.read_all(), 0)

        # Others take what they need: the cache makes room down to the floor.
        with (disk / "others").open("wb") as others:
            os.posix_fallocate(others.fileno(), 0, self.free(disk) - 5_000_000)
        suite.wait_until(lambda: self.free(disk) >= floor, 60, "the floor is free again")
        suite.wait_until(lambda: self.worker()["pin_share"] < 1, 30, "a worker that is full")
        self.assertRegex(self.granary.ask("status").stdout, "full: pins .* % of its part")
        # What is left is a part of each epoch, and the same one, about what the master expects.
        suite.wait_until(lambda: self.is_steady(size), 120, "epochs that miss what is not pinned")
        self.assertGreaterEqual(self.free(disk), floor)

        (disk / "others").unlink()
        suite.wait_until(lambda: self.read_all() == 0, 180, "all of it cached again")
        suite.wait_until(lambda: self.worker()["pin_share"] == 1, 60, "a worker with room")

    def worker(self):
        return self.granary.status()["workers"][0]

    def is_steady(self, size):
        misses = [self.read_all() for _ in range(2)]
        stat = self.granary.settled_stat("d")
        # Expected is what hashes give on the average; a few files here are large.
        return (abs(stat["pinned_bytes"] - stat["pin_expected_bytes"]) < 0.15 * size and
                all(abs(bytes_ - (size - stat["cached_bytes"])) < 0.02 * size
                    for bytes_ in misses))

    def test_a_dataset_larger_than_the_cache_is_read_rightly_for_ever(self):
        self.up("--cache-size", "64MiB")
        self.objects.update(trees.samples(600, 110_000, "more", "more"))
        trees.write_objects(self.origin, self.objects)
        self.granary.ask("dataset", "refresh", "d", "--switch")
        self.expected = compare.expected_of(self.mount, self.objects)
        suite.wait_until(lambda: (self.mount / "more0").exists(), 20, "switched")
        for _ in range(3):
            self.read_all()
            used = self.granary.status()["workers"][0]["used_bytes"]
            self.assertLessEqual(used, 64 << 20)


if __name__ == "__main__":
    suite.main()
