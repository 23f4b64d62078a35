"""Who reads file after file, or records at equal distances, has the next ones fetched meanwhile, and
nobody pays for what he does not read."""

import os
import pathlib
import time

from harness import compare, page_cache, readers, suite, toxiproxy, trees
from harness.granary import Granary
from harness.s3_origin import S3Origin

FILES = 240
FILE_BYTES = 30_000
RECORDS = 480
RECORD_BYTES = 110_000
EVERY = 4
LATENCY_MS = 60
# A reader who waits for each file needs FILES times the latency, whatever else the machine does.
ONE_BY_ONE_SECONDS = FILES * LATENCY_MS / 1000


class Sequence(suite.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.s3 = S3Origin(cls.shared)
        cls.objects = trees.samples(FILES, FILE_BYTES)
        cls.size = FILES * FILE_BYTES
        cls.url = cls.s3.fill("first", cls.objects)

    def setUp(self):
        super().setUp()
        self.mount = self.work.directory("mnt")
        self.granary = Granary(self.work, environment=self.s3.environment())
        self.far = toxiproxy.Toxiproxy(self.work, self.s3.proxy.port)
        self.far.add("latency", latency=LATENCY_MS)

    def up(self, quota):
        self.granary.up(self.url, self.mount, "--name", "d", "--endpoint", self.far.endpoint,
                        "--quota", quota)
        self.expected = compare.expected_of(self.mount, self.objects)
        self.s3.object_bytes()

    def read(self, step):
        """Seconds that one reader of every so many files takes, in the order of a listing."""
        began = time.monotonic()
        outcome = readers.read_share(self.expected, compare.files(self.mount)[::step])
        readers.assert_clean(self, outcome)
        return time.monotonic() - began

    def test_files_in_order_do_not_wait_for_each_other(self):
        for quota in ("0", "1G"):  # passed through, and stored
            with self.subTest(quota=quota):
                self.up(quota)
                self.assertLess(self.read(1), ONE_BY_ONE_SECONDS / 2)
                self.assertLessEqual(self.s3.object_bytes(), 1.02 * self.size)
                self.granary.umount(self.mount)
                self.granary.wait_ended()

    def test_every_second_file_is_a_sequence_too(self):
        self.up("0")
        self.assertLess(self.read(2), ONE_BY_ONE_SECONDS / 2 / 2)
        self.assertLessEqual(self.s3.object_bytes(), 1.1 * self.size / 2)

    def read_records(self, body, which):
        """Seconds that these readers take, each for every so many records."""
        def read(first):
            with (self.mount / "records.bin").open("rb", buffering=0) as file:
                for at in range(first * RECORD_BYTES, len(body), EVERY * RECORD_BYTES):
                    if os.pread(file.fileno(), RECORD_BYTES, at) != body[at:at + RECORD_BYTES]:
                        raise AssertionError(f"wrong bytes at {at}")

        began = time.monotonic()
        readers.in_processes(read, which)
        return time.monotonic() - began

    def test_records_at_equal_distances_do_not_wait_for_each_other(self):
        body = trees.samples(1, RECORDS * RECORD_BYTES).popitem()[1]
        url = self.s3.fill("records", {"records.bin": body})
        one_by_one = RECORDS / EVERY * LATENCY_MS / 1000
        # Passed through a record costs its pages, and one at either end; stored, all of its block.
        for quota, which, most in (("0", [1], 1.15 * len(body) / EVERY),
                                   ("1G", [1], 1.02 * len(body)),
                                   ("0", range(EVERY), 1.15 * len(body))):
            with self.subTest(quota=quota, readers=len(which)):
                self.granary.up(url, self.mount, "--name", "r", "--endpoint", self.far.endpoint,
                                "--quota", quota)
                self.s3.object_bytes()
                self.assertLess(self.read_records(body, which), one_by_one / 2)
                self.assertLessEqual(self.s3.object_bytes(), most)
                self.granary.umount(self.mount)
                self.granary.wait_ended()

    def window_kb(self):
        """That files opened now get."""
        device = self.mount.stat().st_dev
        return int(pathlib.Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/"
                                "read_ahead_kb").read_text())

    def test_the_kernel_reads_further_ahead_where_files_are_read_whole(self):
        if os.geteuid() != 0:
            self.skipTest("only root may say how far")
        objects = trees.samples(8, 5 << 20)
        origin = self.work.directory("large")
        trees.write_objects(origin, objects)
        self.granary.up(f"file://{origin}", self.mount, "--mode", "open", "--no-passthrough")
        narrow, paths = self.window_kb(), [self.mount / key for key in sorted(objects)]
        for path in paths[:4]:
            self.assertEqual(path.read_bytes(), objects[str(path.relative_to(self.mount))])
        self.assertGreater(self.window_kb(), narrow)
        for path in paths * 5:  # heads of files that the page cache does not have
            page_cache.drop_file(path)
            with path.open("rb", buffering=0) as file:
                file.read(100)
        self.assertEqual(self.window_kb(), narrow)

    def test_a_reader_who_jumps_costs_what_he_reads(self):
        self.up("0")
        paths = compare.files(self.mount)
        jumps = [paths[number * 97 % FILES] for number in range(60)]
        readers.assert_clean(self, readers.read_share(self.expected, jumps))
        self.assertLessEqual(self.s3.object_bytes(), 60 * FILE_BYTES)


if __name__ == "__main__":
    suite.main()
