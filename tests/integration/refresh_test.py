"""A dataset whose origin changes: only what changed is fetched, and no stale byte is shown."""

import errno
import mmap
import os
import secrets
import unittest

from harness import compare, page_cache, readers, suite, trees
from harness.granary import Granary, xattr
from harness.s3_origin import S3Origin

OBJECTS = 1200
OBJECT_BYTES = 50_000
# 1 % of the bytes are new: half of them in changed objects, half in added ones.
CHANGED = ADDED = REMOVED = OBJECTS // 200


class Refresh(suite.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.s3 = S3Origin(cls.shared)

    def setUp(self):
        super().setUp()
        self.mount = self.work.directory("mnt")
        self.granary = Granary(self.work, environment=self.s3.environment())
        self.bucket = f"refresh-{secrets.token_hex(4)}"
        self.old = trees.samples(OBJECTS, OBJECT_BYTES)
        url = self.s3.fill(self.bucket, self.old)
        self.granary.up(url, self.mount, "--name", "d", *self.s3.flags)
        readers.assert_clean(self, readers.epoch(self.expected(self.old), 1))
        self.s3.object_bytes()

    def expected(self, objects):
        return compare.expected_of(self.mount, objects)

    def change(self):
        """Changes the bucket; returns the objects as they are now, and keys of each kind."""
        keys = sorted(self.old)
        changed, removed = keys[5::len(keys) // CHANGED][:CHANGED], keys[9::97][:REMOVED]
        new = {key: body for key, body in self.old.items() if key not in removed}
        for key in changed:
            new[key] = trees.noise(f"new {key}", OBJECT_BYTES)
        for number in range(ADDED):
            new[f"added/{number}.jpg"] = trees.noise(f"added {number}", OBJECT_BYTES)
        self.s3.minio.put(self.bucket, {key: body for key, body in new.items()
                                        if self.old.get(key) != body})
        self.s3.minio.delete(self.bucket, removed)
        return new, changed, removed

    def refresh(self, *flags):
        return self.granary.json("dataset", "refresh", "d", *flags)

    def wait_switched(self):
        suite.wait_until(lambda: xattr(self.mount, "snapshot") == "2", 20, "switched")

    def test_the_next_epoch_fetches_only_what_changed(self):
        new, _, _ = self.change()
        self.assertEqual(self.refresh("--switch")["snapshot"], 2)
        self.wait_switched()
        self.s3.object_bytes()
        page_cache.drop_below(self.mount)
        readers.assert_clean(self, readers.epoch(self.expected(new), 2))
        size = sum(map(len, new.values()))
        self.assertLessEqual(self.s3.object_bytes(), 0.012 * size)
        page_cache.drop_below(self.mount)
        readers.assert_clean(self, readers.epoch(self.expected(new), 3))
        self.assertEqual(self.s3.object_bytes(), 0)

    def test_a_switch_shows_no_stale_byte_though_the_page_cache_was_full(self):
        readers.assert_clean(self, readers.epoch(self.expected(self.old), 2))
        new, _, removed = self.change()
        self.refresh("--switch")
        self.wait_switched()
        self.assertEqual(compare.files(self.mount), sorted(self.expected(new)))
        readers.assert_clean(self, readers.epoch(self.expected(new), 3))
        for key in removed:
            self.assertFalse(os.path.lexists(self.mount / key))

    def test_without_a_switch_the_mount_stays_on_its_snapshot_or_fails(self):
        new, changed, removed = self.change()
        self.refresh()
        page_cache.drop_below(self.mount)
        outcome = readers.epoch(self.expected(self.old), 2)
        self.assertEqual(outcome.wrong, {})
        touched = set(self.expected({key: self.old[key] for key in changed + removed}))
        self.assertLessEqual(set(outcome.failed), touched)
        self.assertLessEqual(set(outcome.failed.values()), {errno.EIO})
        self.assertEqual(xattr(self.mount, "snapshot"), "1")
        # A new mount shows the new one, beside it.
        other = self.work.directory("other")
        self.granary.run("up", f"s3://{self.bucket}", other, *self.granary.directories(),
                         "--name", "d", *self.s3.flags)
        self.assertEqual(xattr(other, "snapshot"), "2")
        readers.assert_clean(self, readers.epoch(compare.expected_of(other, new), 3))

    def test_open_and_mapped_files_keep_their_snapshot_or_fail(self):
        key = sorted(self.old)[5]
        with open(self.mount / key, "rb", buffering=0) as held, \
                mmap.mmap(held.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            self.assertEqual(mapped[:100], self.old[key][:100])
            _, changed, _ = self.change()
            self.assertIn(key, changed)
            self.refresh("--switch")
            self.wait_switched()
            page_cache.drop_below(self.mount)
            try:
                self.assertEqual(held.read(OBJECT_BYTES), self.old[key])
            except OSError as failure:
                self.assertIn(failure.errno, (errno.EIO, errno.ESTALE))
        self.assertNotEqual((self.mount / key).read_bytes(), self.old[key])

    def test_a_refresh_of_an_unchanged_origin_fetches_nothing(self):
        self.refresh("--switch")
        page_cache.drop_below(self.mount)
        readers.assert_clean(self, readers.epoch(self.expected(self.old), 2))
        self.assertEqual(self.s3.object_bytes(), 0)


class RefreshDirectory(suite.Case):
    def test_a_directory_is_listed_anew_by_up_and_by_refresh(self):
        origin, mount = self.work.directory("origin"), self.work.directory("mnt")
        for number in range(20):
            trees.write(origin / f"f{number}", b"%d" % number)
        granary = Granary(self.work)
        granary.up(origin, mount, "--name", "d")
        (origin / "f3").write_bytes(b"changed")
        (origin / "f4").unlink()
        trees.write(origin / "added", b"added")
        granary.ask("dataset", "refresh", "d", "--switch")
        suite.wait_until(lambda: (mount / "added").exists(), 20, "switched")
        compare.assert_diff_finds_nothing(self, origin, mount)
        granary.umount(mount)
        granary.wait_ended()
        trees.write(origin / "later", b"later")
        granary.up(origin, mount, "--name", "d")
        self.assertFalse((mount / "later").exists())
        granary.umount(mount)
        granary.wait_ended()
        granary.up(origin, mount, "--name", "d", "--refresh")
        compare.assert_diff_finds_nothing(self, origin, mount)

    @unittest.skipUnless(suite.LARGE, "takes a minute: GRANARY_TEST_LARGE=1")
    def test_snapshots_that_nobody_uses_are_collected(self):
        origin, mount = self.work.directory("origin"), self.work.directory("mnt")
        trees.write(origin / "f", b"0")
        granary = Granary(self.work)
        granary.up(origin, mount, "--name", "d")
        for number in range(5):
            (origin / "f").write_bytes(b"%d" % number * 10)
            granary.ask("dataset", "refresh", "d", "--switch")
        suite.wait_until(lambda: xattr(mount, "snapshot") == "6", 20, "switched")
        self.assertEqual((mount / "f").read_bytes(), b"4" * 10)
        suite.wait_until(lambda: len(_manifests(granary)) <= 4, 60, "collected")


def _manifests(granary):
    return [path for path in (granary.state / "manifests").rglob("*") if path.is_file()]


if __name__ == "__main__":
    suite.main()
