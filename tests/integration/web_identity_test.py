"""Keys for a token in a file, from a real token service: MinIO's, whose keys live as long as the
token."""

import errno
import time

from harness import process, suite, trees
from harness.granary import Granary
from harness.identity import Identity
from harness.minio import Minio

LONG = 3600
REFUSED = "credentials: the token service .* did not take the web identity: HTTP 400: "


class WebIdentity(suite.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.identity = Identity(cls.shared)
        cls.minio = Minio(cls.shared, cls.identity.minio_environment())
        cls.objects = {f"{n:04d}": trees.noise(n, 700) for n in range(600)}
        cls.minio.fill("trusting", cls.objects)
        cls.identity.trust(cls.minio)

    def setUp(self):
        super().setUp()
        # Each is read once: what comes from the cache needs no keys.
        self.unread = sorted(self.objects)
        self.mount = self.work.directory("mnt")
        self.granary = Granary(self.work, environment=self.identity.environment())
        self.flags = ["--name", "d", "--no-preload", "--endpoint", self.minio.endpoint]

    def up(self, *flags, **environment):
        return self.granary.up("s3://trusting", self.mount, *self.flags, "--log-level", "debug",
                               *flags, environment=environment)

    def read_next(self):
        key = self.unread.pop(0)
        self.assertEqual((self.mount / key).read_bytes(), self.objects[key])

    def is_readable(self):
        try:
            self.read_next()
        except OSError:
            return False
        return True

    def assert_fails(self):
        with self.assertRaises(OSError) as caught:
            self.read_next()
        self.assertEqual(caught.exception.errno, errno.EIO)

    def answers(self, token):
        """(status, when) of each time that STS was asked with it."""
        return [(status, when) for own, status, when in self.identity.answered if own == token]

    def restart_minio(self):
        """What it gave keys for before, it refuses now."""
        self.minio.restart_with_new_keys()
        self.identity.trust(self.minio)

    def assert_nothing_is_told(self):
        shown = self.granary.told()
        self.assertIn(b"trusting", shown)
        for secret in self.identity.secrets:
            self.assertNotIn(secret.encode(), shown)

    def test_a_fresh_token_is_taken_before_the_keys_expire(self):
        soon = time.time() + 200
        first = self.identity.give(self.identity.token(240))
        self.up()
        self.read_next()
        second = self.identity.give(self.identity.token(LONG))
        while not self.answers(second):  # every read on the way succeeds
            self.assertLess(time.time(), soon, "not renewed in time")
            self.read_next()
            time.sleep(0.4)
        self.assertEqual({status for status, _ in self.answers(first) + self.answers(second)},
                         {200})
        self.read_next()
        # Those of the second hold for long: at most the mount, past its worker, needs its own.
        asked = len(self.identity.answered)
        for _ in range(20):
            self.read_next()
        self.assertLessEqual(len(self.identity.answered), asked + 1)
        self.assert_nothing_is_told()

    def test_refused_keys_are_asked_for_anew_with_the_token_of_now(self):
        self.identity.give(self.identity.token(LONG))
        server = self.up("--read-timeout", "20")
        self.read_next()
        second = self.identity.give(self.identity.token(LONG))
        self.restart_minio()
        self.read_next()
        self.assertEqual({status for status, _ in self.answers(second)}, {200})
        # By the worker itself: nobody read past it.
        self.assertNotIn("refused", server.log.read_text())

        self.identity.give(self.identity.token(-10))
        self.restart_minio()
        self.assert_fails()
        told = f"{REFUSED}.*Token is expired"
        self.assertRegex(server.output(), told)
        self.assertRegex(self.granary.settled_stat("d")["last_error"], told)
        self.identity.give(self.identity.token(LONG))
        suite.wait_until(self.is_readable, 60, "read with a fresh token")
        self.assert_nothing_is_told()

    def test_a_profile_names_the_token(self):
        self.identity.give(self.identity.token(LONG))
        config = self.work.path / "config"
        config.write_text("[profile trusted]\nregion = us-east-1\n"
                          f"role_arn = {self.identity.role}\n"
                          f"web_identity_token_file = {self.identity.token_file}\n")
        self.up("--profile", "trusted", AWS_CONFIG_FILE=str(config), AWS_ROLE_ARN="",
                AWS_WEB_IDENTITY_TOKEN_FILE="")
        self.read_next()

    def test_a_token_that_is_not_taken_ends_up_with_the_reason(self):
        missing = self.work.path / "missing"
        for why, token, environment, reason in (
                ("expired", self.identity.token(-10), {}, f"{REFUSED}.*Token is expired"),
                ("forged", self.identity.forged_token(LONG), {}, f"{REFUSED}.*verification error"),
                ("malformed", "no.token", {}, f"{REFUSED}.*token"),
                ("empty", "", {}, "credentials: the token .* is empty"),
                ("missing", "", {"AWS_WEB_IDENTITY_TOKEN_FILE": str(missing)},
                 f"read the token {missing}: No such file"),
                ("unknown role", self.identity.token(LONG),
                 {"AWS_ROLE_ARN": "arn:minio:iam:::role/nobody"}, f"{REFUSED}.*role/nobody")):
            with self.subTest(why):
                self.identity.give(token)
                done = self.granary.run(
                    "up", "s3://trusting", self.mount, *self.granary.directories(), *self.flags,
                    check=False, environment=environment)
                self.assertNotEqual(done.returncode, 0)
                lines = process.error_lines(done.stderr)
                self.assertEqual(len(lines), 1, lines)
                self.assertRegex(lines[0], reason)
                self.assertFalse(token and token in done.stdout + done.stderr)


if __name__ == "__main__":
    suite.main()
