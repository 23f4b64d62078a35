"""Mounts from an S3 server that verifies Signature V4."""

import errno
import os
import random

from harness import compare, page_cache, process, readers, suite, trees
from harness.granary import Granary
from harness.minio import Minio
from harness.s3_origin import S3Origin

RECORD = 114_660


class S3Mount(suite.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.s3 = S3Origin(cls.shared)
        cls.objects = {
            **trees.samples(300, 110_000), **trees.shards(2, 2 * trees.BLOCK + 4321),
            "odd/with space+plus.bin": b"1", "odd/größe-日本.bin": b"22", "odd/percent%20.bin": b"3",
            "odd/a&b=c?d#e.bin": b"4", "empty.bin": b"", "one.bin": b"1",
        }
        cls.size = sum(map(len, cls.objects.values()))
        cls.url = cls.s3.fill("first", cls.objects)

    def setUp(self):
        super().setUp()
        self.mount = self.work.directory("mnt")
        self.granary = Granary(self.work, environment=self.s3.environment())

    def up(self, url=None, *flags, **more):
        return self.granary.up(url or self.url, self.mount, "--name", "d", *self.s3.flags, *flags,
                               **more)

    def refused(self, url, *flags, environment):
        """An `up` that must fail; its line on stderr."""
        done = self.granary.run("up", url, self.mount, *self.granary.directories(), *self.s3.flags,
                                *flags, check=False, environment=environment)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(len(process.error_lines(done.stderr)), 1, done.stderr)
        self.assertEqual(self.granary.processes(), [])
        self.assertFalse(os.path.ismount(self.mount))
        return done.stderr

    def test_the_first_epoch_brings_each_byte_once(self):
        self.up()
        self.s3.object_bytes()
        expected = compare.expected_of(self.mount, self.objects)
        self.assertEqual(compare.files(self.mount), sorted(expected))
        readers.assert_clean(self, readers.epoch(expected, 1))
        self.assertLessEqual(self.s3.object_bytes(), 1.02 * self.size)
        page_cache.drop_below(self.mount)
        readers.assert_clean(self, readers.epoch(expected, 2))
        self.assertEqual(self.s3.object_bytes(), 0)

    def test_every_get_names_the_etag_and_asks_for_stored_bytes(self):
        self.up()
        self.s3.proxy.requests()
        (self.mount / "one.bin").read_bytes()
        gets = [r for r in self.s3.proxy.requests() if r.is_object_get()]
        self.assertEqual(len(gets), 1)
        self.assertIn(gets[0].encoding, ("", "identity"))

    def test_random_records_of_a_large_unpinned_file_cost_little_more_than_they_are(self):
        size = 192 << 20
        body = trees.noise("large", size)
        self.s3.fill("large", {"records.bin": body})
        self.up("s3://large", "--quota", "1M")
        self.s3.object_bytes()
        chance = random.Random(5)
        read = 0
        with open(self.mount / "records.bin", "rb", buffering=0) as records:
            os.posix_fadvise(records.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            for _ in range(400):
                offset = chance.randrange(size // RECORD) * RECORD
                self.assertEqual(os.pread(records.fileno(), RECORD, offset),
                                 body[offset:offset + RECORD])
                read += RECORD
        self.assertLessEqual(self.s3.object_bytes(), 1.1 * read)

    def test_connections_are_kept_for_many_gets(self):
        self.up(None, "--max-connections", "4")
        self.s3.proxy.requests()
        readers.assert_clean(
            self, readers.epoch(compare.expected_of(self.mount, self.objects), 1))
        gets = [r for r in self.s3.proxy.requests() if r.is_object_get()]
        self.assertGreater(len(gets), 300)
        # Four of the worker, four of the mount where it reads past it.
        self.assertLessEqual(len({r.connection for r in gets}), 8)

    def test_a_public_bucket_needs_no_keys(self):
        url = self.s3.fill("public", {"one.bin": b"1"})
        self.s3.minio.make_public("public")
        self.s3.proxy.requests()
        none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
        self.up(url, "--no-sign-request", environment=none)
        self.assertEqual((self.mount / "one.bin").read_bytes(), b"1")
        self.assertFalse(any(r.signed for r in self.s3.proxy.requests()))

    def test_every_request_to_a_requester_pays_bucket_says_so(self):
        self.s3.proxy.requests()
        self.up(None, "--requester-pays")
        self.assertEqual((self.mount / "one.bin").read_bytes(), b"1")
        requests = self.s3.proxy.requests()
        self.assertTrue(any(r.is_object_get() for r in requests))
        self.assertEqual({r.payer for r in requests if r.status == 200 or r.status == 206},
                         {"requester"})

    def test_a_prefix_is_a_dataset_of_its_own(self):
        self.up(self.url + "/class3")
        names = [key.partition("/")[2] for key in self.objects if key.startswith("class3/")]
        self.assertEqual(sorted(os.listdir(self.mount)), sorted(names))
        self.assertEqual((self.mount / names[0]).read_bytes(), self.objects["class3/" + names[0]])

    def test_marker_keys_are_directories_and_bad_names_are_reported(self):
        self.s3.fill("markers", {"a/b.bin": b"b", "clash": b"file"})
        # Last: MinIO answers the next put after that of a marker half a minute later.
        self.s3.minio.put("markers", {"empty-dir/": b""})
        self.up("s3://markers")
        self.assertEqual(sorted(os.listdir(self.mount)), ["a", "clash", "empty-dir"])
        self.assertEqual(os.listdir(self.mount / "empty-dir"), [])

    def test_modes_and_owner_are_those_asked_for(self):
        self.up(None, "--uid", "1234", "--gid", "4321")
        seen = os.stat(self.mount / "one.bin")
        self.assertEqual((oct(seen.st_mode), seen.st_uid, seen.st_gid), ("0o100444", 1234, 4321))
        self.assertEqual(oct(os.stat(self.mount / "odd").st_mode), "0o40555")

    def test_a_wrong_secret_is_a_clear_error(self):
        wrong = {**self.s3.environment(), "AWS_SECRET_ACCESS_KEY": "wrong" * 8}
        text = self.refused(self.url, environment=wrong)
        self.assertRegex(text, "(?i)credential|SignatureDoesNotMatch|access")
        self.assertNotIn("wrong" * 8, text)

    def test_an_unknown_key_and_missing_credentials_are_clear_errors(self):
        unknown = {**self.s3.environment(), "AWS_ACCESS_KEY_ID": "unknownkey"}
        self.assertRegex(self.refused(self.url, environment=unknown), "(?i)credential|access")
        none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
        self.assertRegex(self.refused(self.url, environment=none), "(?i)credential")

    def test_an_unknown_bucket_is_a_clear_error(self):
        text = self.refused("s3://no-such-bucket", environment=self.s3.environment())
        self.assertIn("no-such-bucket", text)

    def test_temporary_credentials_work(self):
        temporary = self.s3.minio.temporary_environment()
        self.up(environment=temporary)
        self.assertEqual((self.mount / "one.bin").read_bytes(), b"1")

    def test_secrets_are_neither_stored_nor_shown(self):
        self.up(None, "--log-level", "debug")
        (self.mount / "one.bin").read_bytes()
        secret = self.s3.environment()["AWS_SECRET_ACCESS_KEY"].encode()
        shown = self.granary.ask("dataset", "stat", "d", "-o", "json").stdout.encode()
        shown += self.granary.ask("status").stdout.encode()
        shown += b"".join(log.read_bytes() for log in self.work.path.glob("*.log"))
        shown += b"".join(p.read_bytes() for p in self.granary.state.rglob("*") if p.is_file())
        shown += b"".join(p.read_bytes() for p in self.granary.store_files())
        self.assertNotIn(secret, shown)

    def test_both_addressing_styles_list_and_read(self):
        for style, host in (("path", "127.0.0.1"), ("virtual", "localhost")):
            with self.subTest(style):
                mount = self.work.directory(f"mnt-{style}")
                granary = Granary(self.work, style, self.s3.environment())
                granary.up(self.url, mount, "--addressing", style, "--endpoint",
                           f"http://{host}:{self.s3.proxy.port}")
                self.assertEqual((mount / "one.bin").read_bytes(), b"1")


class Renewal(suite.Case):
    """The server's keys change under a mount."""

    def setUp(self):
        super().setUp()
        self.minio = Minio(self.work)
        self.objects = trees.samples(40, 50_000)
        self.keys = sorted(self.objects)
        self.minio.fill("renewed", self.objects)
        self.mount = self.work.directory("mnt")

    def read(self, key):
        self.assertEqual((self.mount / key).read_bytes(), self.objects[key])

    def test_rejected_credentials_are_read_anew_from_the_shared_file(self):
        file = self.work.path / "credentials"
        self.write_profile(file)
        granary = Granary(self.work, environment={"AWS_REGION": "us-east-1"})
        granary.up("s3://renewed", self.mount, "--endpoint", self.minio.endpoint,
                   "--credentials-file", file, "--profile", "test")
        self.read(self.keys[0])
        self.minio.restart_with_new_keys()
        self.write_profile(file)
        self.read(self.keys[1])

    def test_a_second_up_hands_fresh_credentials_to_the_running_one(self):
        granary = Granary(self.work)
        flags = ["--name", "d", "--read-timeout", "10", "--endpoint", self.minio.endpoint]
        granary.up("s3://renewed", self.mount, *flags,
                   environment=self.minio.temporary_environment())
        self.read(self.keys[0])
        self.minio.restart_with_new_keys()
        with self.assertRaises(OSError) as caught:
            (self.mount / self.keys[1]).read_bytes()
        self.assertEqual(caught.exception.errno, errno.EIO)
        self.assertRegex(granary.settled_stat("d")["last_error"], "(?i)credential|access|denied")
        other = self.work.directory("other")
        granary.run("up", "s3://renewed", other, *granary.directories(), *flags,
                    environment=self.minio.temporary_environment())
        suite.wait_until(lambda: self.readable(self.keys[1]), 20, "read with the new credentials")
        self.read(self.keys[2])

    def readable(self, key):
        try:
            return (self.mount / key).read_bytes() == self.objects[key]
        except OSError:
            return False

    def write_profile(self, path):
        path.write_text(f"[test]\naws_access_key_id = {self.minio.access_key}\n"
                        f"aws_secret_access_key = {self.minio.secret_key}\n")


if __name__ == "__main__":
    suite.main()
