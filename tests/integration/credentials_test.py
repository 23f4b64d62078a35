"""Temporary credentials from the services of a cloud: renewed before they expire, read anew when
they are refused, never written down."""

import errno
import time

from harness import process, suite, trees
from harness.granary import Granary
from harness.metadata import ADDRESSES, Metadata
from harness.minio import Minio

KINDS = ("instance", "container")


class Temporary(suite.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.minio = Minio(cls.shared)
        # Each is read once: what comes from the cache needs no credentials.
        cls.objects = {f"{n:04d}": trees.noise(n, 700) for n in range(3000)}
        cls.minio.fill("temporary", cls.objects)

    def setUp(self):
        super().setUp()
        self.unread = sorted(self.objects)
        self.number = 0

    def up(self, kind, lifetime, *flags, address=None, **environment):
        """Another host for each call."""
        self.number += 1
        self.service = Metadata(self.work, self.minio, lifetime, address)
        self.mount = self.work.directory(f"mnt{self.number}")
        self.unread = sorted(self.objects)
        self.granary = Granary(self.work, f"g{self.number}")
        return self.granary.up(
            "s3://temporary", self.mount, "--name", "d", "--log-level", "debug", "--no-preload",
            "--endpoint", f"http://localhost:{self.minio.port}", "--addressing", "path", *flags,
            environment={**self.service.environment(kind), **environment})

    def read_next(self):
        key = self.unread.pop(0)
        self.assertEqual((self.mount / key).read_bytes(), self.objects[key])

    def read_until(self, condition, seconds, what):
        """Reads on: every read has to succeed."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"not {what}")
            self.read_next()
            time.sleep(0.05)

    def assert_nothing_is_told(self):
        shown = self.granary.told()
        self.assertIn(b"temporary", shown)
        for secret in self.service.secrets:
            self.assertNotIn(secret.encode(), shown)

    def test_they_are_fetched_anew_before_they_expire(self):
        for kind in KINDS:
            with self.subTest(kind):
                server = self.up(kind, 60)
                self.read_next()  # the master's are not the worker's
                first = len(self.service.handed_out)
                self.read_until(lambda: len(self.service.handed_out) > first, 59, "renewed")
                (_, expired), (fetched, _) = self.service.handed_out[first - 1:first + 1]
                self.assertLess(fetched, expired)
                self.assert_nothing_is_told()
                server.close()

    def test_reads_go_on_across_expiries(self):
        for kind in KINDS:
            with self.subTest(kind):
                server = self.up(kind, 3)
                self.read_next()
                first = len(self.service.handed_out)
                self.read_until(lambda: len(self.service.handed_out) >= first + 3, 60, "renewed")
                self.assert_nothing_is_told()
                server.close()

    def test_a_service_that_is_away_across_an_expiry_delays_reads_and_fails_none(self):
        for kind in KINDS:
            with self.subTest(kind):
                server = self.up(kind, 3)
                self.read_next()
                self.service.fail(times=6)
                time.sleep(4)  # those at hand expire
                self.read_next()
                self.assertFalse(self.service.take_fault())
                server.close()

    def test_a_service_that_fails_while_the_keys_hold_is_not_noticed(self):
        for kind in KINDS:
            with self.subTest(kind):
                server = self.up(kind, 200)
                self.read_next()
                handed_out = len(self.service.handed_out)
                self.service.fail(times=1)
                self.read_until(lambda: len(self.service.handed_out) > handed_out, 60, "renewed")
                server.close()

    def test_rejected_ones_are_read_anew_once(self):
        for kind in KINDS:
            with self.subTest(kind):
                server = self.up(kind, 3600, "--read-timeout", "10")
                self.read_next()
                # Tokens that the server made with its old keys are refused from now on.
                self.service.keys = self.minio.temporary_keys()
                self.minio.restart_with_new_keys()
                handed_out = len(self.service.handed_out)
                with self.assertRaises(OSError) as caught:
                    self.read_next()
                self.assertEqual(caught.exception.errno, errno.EIO)
                self.assertRegex(server.output(), r"credentials were refused: .*\(tried 2 times\)")
                self.assertNotRegex(server.output(), r"tried ([13-9]|\d\d+) times")
                # By the worker and by the mount that reads past it, for a second try of the kernel
                # as well.
                self.assertLessEqual(len(self.service.handed_out) - handed_out, 6)
                self.assertGreater(len(self.service.handed_out), handed_out)
                self.assertRegex(self.granary.settled_stat("d")["last_error"], "credentials")
                self.service.keys = None
                suite.wait_until(self.is_readable, 20, "read with the new ones")
                handed_out = len(self.service.handed_out)
                for _ in range(20):
                    self.read_next()
                self.assertEqual(len(self.service.handed_out), handed_out)
                self.assert_nothing_is_told()
                server.close()

    def is_readable(self):
        try:
            self.read_next()
        except OSError:
            return False
        return True

    def test_the_services_are_asked_past_any_proxy(self):
        nowhere = f"http://127.0.0.1:{process.free_port()}"
        for kind in KINDS:
            with self.subTest(kind):
                server = self.up(kind, 3600, http_proxy=nowhere, https_proxy=nowhere,
                                 no_proxy="localhost")
                self.read_next()
                server.close()

    def test_they_are_where_aws_has_them_when_no_address_is_named(self):
        self.need_addresses()
        nowhere = f"http://127.0.0.1:{process.free_port()}"
        for kind, address in ADDRESSES.items():
            with self.subTest(kind):
                server = self.up(kind, 3600, address=address, http_proxy=nowhere,
                                 no_proxy="localhost")
                for _ in range(10):
                    self.read_next()
                self.assertTrue(self.service.handed_out)
                self.assert_nothing_is_told()
                server.close()


if __name__ == "__main__":
    suite.main(ADDRESSES.values())
