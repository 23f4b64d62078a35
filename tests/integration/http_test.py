"""Mounts from nginx: HTTP and HTTPS, index pages, listing files, redirects."""

import os
import random

from harness import compare, page_cache, process, readers, suite, trees
from harness.granary import Granary
from harness.nginx import Static

RECORD = 114_660


class HttpMount(suite.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.root = cls.shared.directory("root")
        cls.objects = {**trees.samples(200, 110_000), **trees.shards(2, 2 * trees.BLOCK + 99),
                       "empty.bin": b"", "odd/with space.bin": b"1", "odd/größe.bin": b"2",
                       "odd/percent%20.bin": b"3", "odd/a&b=c#d?e.bin": b"4", "deep/1/2/3/f": b"5"}
        trees.write_objects(cls.root, cls.objects)
        cls.size = sum(map(len, cls.objects.values()))
        cls.plain = Static(cls.shared, cls.root)
        cls.secure = Static(cls.shared, cls.root, tls=True, name="secure")

    def setUp(self):
        super().setUp()
        self.mount = self.work.directory("mnt")
        self.granary = Granary(self.work)
        self.expected = compare.expected_of(self.mount, self.objects)

    def up(self, url, *flags):
        return self.granary.up(url, self.mount, "--name", "d", *flags)

    def assert_whole(self):
        self.assertEqual(compare.files(self.mount), sorted(self.expected))
        readers.assert_clean(self, readers.epoch(self.expected, 1))

    def test_index_pages_list_it_and_the_first_epoch_brings_each_byte_once(self):
        self.up(self.plain.url + "/")
        self.plain.object_bytes()
        self.assert_whole()
        self.assertLessEqual(self.plain.object_bytes(), 1.02 * self.size)
        page_cache.drop_below(self.mount)
        readers.assert_clean(self, readers.epoch(self.expected, 2))
        self.assertEqual(self.plain.object_bytes(), 0)

    def test_stored_bytes_are_asked_for(self):
        self.up(self.plain.url + "/")
        self.plain.requests()
        (self.mount / "deep/1/2/3/f").read_bytes()
        gets = [r for r in self.plain.requests() if r.is_object_get()]
        self.assertTrue(gets)
        self.assertEqual({r.encoding for r in gets}, {"identity"})

    def test_random_records_of_a_large_unpinned_file_cost_little_more_than_they_are(self):
        size = 128 << 20
        body = trees.noise("large", size)
        trees.write(self.root / "large/records.bin", body)
        self.addCleanup(os.unlink, self.root / "large/records.bin")
        self.up(self.plain.url + "/large/", "--quota", "1M")
        self.plain.object_bytes()
        chance = random.Random(7)
        read = 0
        with open(self.mount / "records.bin", "rb", buffering=0) as records:
            os.posix_fadvise(records.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            for _ in range(300):
                offset = chance.randrange(size // RECORD) * RECORD
                self.assertEqual(os.pread(records.fileno(), RECORD, offset),
                                 body[offset:offset + RECORD])
                read += RECORD
        self.assertLessEqual(self.plain.object_bytes(), 1.1 * read)

    def test_connections_are_kept_for_many_gets(self):
        for site, flags in ((self.plain, []), (self.secure, ["--ca-file", self.secure.ca_file])):
            with self.subTest(site.url):
                mount = self.work.directory(site.directory.name)
                granary = Granary(self.work, f"kept-{site.directory.name}")
                granary.up(site.url + "/", mount, "--name", "d", "--max-connections", "4", *flags)
                site.requests()
                readers.assert_clean(
                    self, readers.epoch(compare.expected_of(mount, self.objects), 1))
                gets = [r for r in site.requests() if r.is_object_get()]
                self.assertGreater(len(gets), 200)
                # Four of the worker, four of the mount where it reads past it.
                self.assertLessEqual(len({r.connection for r in gets}), 8)

    def test_https_with_its_own_authority(self):
        self.up(self.secure.url + "/", "--ca-file", self.secure.ca_file)
        self.assert_whole()

    def test_https_that_nobody_vouches_for_is_refused(self):
        done = self.granary.run("up", self.secure.url + "/", self.mount,
                                *self.granary.directories(), check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stderr, "(?i)certificate")
        self.assertEqual(len(process.error_lines(done.stderr)), 1, done.stderr)
        self.assertEqual(self.granary.processes(), [])

    def test_https_without_verification_when_asked(self):
        self.up(self.secure.url + "/", "--insecure")
        self.assertEqual((self.mount / "odd/with space.bin").read_bytes(), b"1")

    def test_a_listing_file_serves_where_there_is_no_index(self):
        import json
        listing = self.root / "listing.json"
        rows = [{"path": key, "size": len(body)} for key, body in self.objects.items()]
        listing.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
        self.addCleanup(os.unlink, listing)
        self.up(self.plain.url + "/plain/", "--index", self.plain.url + "/listing.json")
        self.assert_whole()

    def test_redirects_are_followed(self):
        self.up(self.plain.url + "/moved/deep/")
        self.assertEqual((self.mount / "1/2/3/f").read_bytes(), b"5")

    def test_the_guarantee_is_told(self):
        self.up(self.plain.url + "/")
        self.assertTrue(self.granary.stat("d")["guarantee"])


if __name__ == "__main__":
    suite.main()
