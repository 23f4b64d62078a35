"""`granary doctor`: what is missing, what that costs, how to get it; tried on hosts that lack it."""

import json
import os
import subprocess
import sys

from harness import suite, trees
from harness.granary import Granary

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]
# prctl(PR_SET_THP_DISABLE), for what it runs as well.
WITHOUT_LARGE_PAGES = ("import ctypes, os, sys; assert ctypes.CDLL(None).prctl(41, 1, 0, 0, 0) == 0; "
                       "os.execvp(sys.argv[1], sys.argv[1:])")
URING = "/sys/module/fuse/parameters/enable_uring"


class Doctor(suite.Case):
    def setUp(self):
        super().setUp()
        self.granary = Granary(self.work)
        self.origin = self.work.directory("origin")
        trees.write(self.origin / "file", b"x")

    def doctor(self, *arguments, setting=None, user=(), environment=None):
        """(exit code, {check: row}), with a setting of the host that is this test's alone."""
        command = [*user, suite.BINARY, "doctor", "-o", "json", *self.granary.directories(),
                   *map(str, arguments)]
        if setting:
            self.need_root()
            command = ["unshare", "--mount", "sh", "-ec", f'{setting}\nexec "$0" "$@"', *command]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60,
                              stdin=subprocess.DEVNULL,
                              env={**self.granary.environment, **(environment or {})})
        self.assertEqual(done.stderr, "")
        rows = {row["check"]: row for row in json.loads(done.stdout)}
        for row in rows.values():
            # Every lack has a price and a remedy, and nothing else has.
            self.assertEqual(row["state"] == "ok", row["advice"] == "", row)
            self.assertTrue(row["found"], row)
        lacks = any(row["state"] == "missing" for row in rows.values())
        self.assertEqual(done.returncode, 1 if lacks else 0, rows)
        return rows

    def assert_lacks(self, row, state, found, advice):
        self.assertEqual(row["state"], state, row)
        self.assertRegex(row["found"], found)
        self.assertRegex(row["advice"], advice)

    def test_a_host_that_has_everything(self):
        rows = self.doctor(self.origin)
        for name in ("/dev/fuse", "privileges", "cache", "state", "origin"):
            self.assertEqual(rows[name]["state"], "ok", rows[name])
        self.assertIn("fuse over io_uring", rows)
        self.assertIn("take-over", rows)
        self.assertIn("open files", rows)
        self.assertIn("allow_other", rows)
        self.assertFalse(self.granary.state.exists() or self.granary.cache.exists())

    def test_the_table_says_the_same(self):
        table = self.granary.run("doctor", *self.granary.directories(), "http://127.0.0.1:1/x/",
                                 "--attempts", "1", check=False)
        self.assertEqual(table.returncode, 1)
        self.assertRegex(table.stdout, r"(?m)^origin +missing .*127.0.0.1.*check the address")
        self.assertRegex(table.stdout, r"(?m)^CHECK +STATE +FOUND +WITHOUT IT$")

    # ---- kernel ----------------------------------------------------------------------------

    def test_no_fuse_device(self):
        row = self.doctor(setting="mount -t tmpfs none /dev")["/dev/fuse"]
        self.assert_lacks(row, "missing", "No such file", "nothing can be mounted.*modprobe fuse.*"
                                                          "--device /dev/fuse")

    def test_a_fuse_device_of_others(self):
        self.need_root()
        node = ("mount -t tmpfs none /mnt; mknod /mnt/fuse c 10 229; chmod 600 /mnt/fuse; "
                "mount --bind /mnt/fuse /dev/fuse")
        row = self.doctor(setting=node, user=NOBODY)["/dev/fuse"]
        self.assert_lacks(row, "missing", "Permission denied", "chmod 666 /dev/fuse")

    def test_fuse_over_io_uring(self):
        self.need_root()
        if not os.path.exists(URING):
            self.skipTest("this kernel has no switch for it")
        for value, state in (("Y", "on in this kernel"), ("N", "off in this kernel")):
            (self.work.path / "value").write_text(value)
            row = self.doctor(setting=f"mount --bind {self.work.path}/value {URING}")
            self.assertEqual(row["fuse over io_uring"]["found"], f"not used ({state})")
        row = self.doctor(setting=f"mount -t tmpfs none {os.path.dirname(URING)}")
        self.assertEqual(row["fuse over io_uring"]["found"], "not used (not in this kernel)")
        self.assertEqual(row["fuse over io_uring"]["state"], "ok")

    def test_large_pages(self):
        row = self.doctor(user=[sys.executable, "-c", WITHOUT_LARGE_PAGES])["large pages"]
        self.assert_lacks(row, "limited", "gave none", "half the speed.*transparent_hugepage/enabled")
        with open("/sys/kernel/mm/transparent_hugepage/enabled", encoding="ascii") as modes:
            if "[never]" not in modes.read():
                self.assertEqual(self.doctor()["large pages"]["state"], "ok")

    def test_few_open_files(self):
        self.need_root()
        row = self.doctor(setting="ulimit -n 1000")["open files"]
        self.assert_lacks(row, "limited", "1000", "fewer connections.*ulimit -n")

    def test_passthrough(self):
        self.need_root()
        have = self.doctor()["passthrough"]
        if have["state"] == "ok":
            self.assertRegex(have["found"], "files over 4 MiB")
        else:
            self.assertRegex(have["found"], "not in this kernel|SYS_ADMIN|overlay|leases")
            self.assertRegex(have["advice"], "read through the mount, slower")
            return
        row = self.doctor(user=["setpriv", "--bounding-set=-sys_admin"])["passthrough"]
        self.assert_lacks(row, "limited", "SYS_ADMIN", "run it as root.*--cap-add SYS_ADMIN")
        layers = {name: self.work.directory(name) for name in ("lower", "layer")}
        self.granary.cache.mkdir(parents=True)
        row = self.doctor(setting=f"mount -t tmpfs none {layers['layer']}; cd {layers['layer']}; "
                                  f"mkdir up work; mount -t overlay -o lowerdir={layers['lower']},"
                                  f"upperdir=up,workdir=work none {self.granary.cache}")
        self.assert_lacks(row["passthrough"], "limited", "overlay", "--cache-dir")

    # ---- privileges ------------------------------------------------------------------------

    def test_a_user_without_fusermount3(self):
        self.need_root()
        bin_ = self.work.directory("bin")
        for name in ("setpriv", "sh", "mount"):
            (bin_ / name).symlink_to(suite.tool(name))
        path = {"PATH": str(bin_)}
        row = self.doctor(user=NOBODY, environment=path)["privileges"]
        self.assert_lacks(row, "missing", "user 65534, no fusermount3",
                          "not root cannot mount: apt-get install fuse3")
        trees.write(bin_ / "fusermount3", b"#!/bin/sh\n", 0o755)
        row = self.doctor(user=NOBODY, environment=path)["privileges"]
        self.assert_lacks(row, "missing", "without its setuid bit", "chmod u\\+s")
        (bin_ / "fusermount3").chmod(0o4755)
        row = self.doctor(user=NOBODY, environment=path)["privileges"]
        self.assertEqual(row["state"], "ok")

    def test_a_user_who_may_not_allow_others(self):
        self.need_root()
        conf = self.work.path / "fuse.conf"
        for text, state in (("user_allow_other\n", "ok"), ("# user_allow_other\n", "limited")):
            conf.write_text(text)
            row = self.doctor(setting=f"touch /etc/fuse.conf; mount --bind {conf} /etc/fuse.conf",
                              user=NOBODY)["allow_other"]
            self.assertEqual(row["state"], state)
        self.assertIn("put user_allow_other into /etc/fuse.conf", row["advice"])

    # ---- disk ------------------------------------------------------------------------------

    def test_directories_that_cannot_be_used(self):
        self.need_root()
        for setting, name, state, found, advice in (
                ("mount -t tmpfs -o ro none {cache}", "cache", "missing", "not writable",
                 "nothing can be kept.*--cache-dir"),
                ("mount -t tmpfs -o ro none {state}", "state", "missing", "not writable",
                 "nothing can be kept.*--state-dir"),
                ("mount -t tmpfs none {cache}; chown 65534 {cache}", "cache", "missing",
                 "of another user", "run as its owner"),
                ("mount -t tmpfs -o size=16m none {cache}", "cache", "limited",
                 "16.8 MB free of 16.8 MB", "little can be kept.*--cache-dir")):
            with self.subTest(setting):
                places = {"cache": self.granary.cache, "state": self.granary.state}
                for path in places.values():
                    path.mkdir(parents=True, exist_ok=True)
                row = self.doctor(setting=setting.format(**places))[name]
                self.assert_lacks(row, state, found, advice)

    # ---- origin ----------------------------------------------------------------------------

    def test_origins_that_do_not_answer(self):
        for origin, found, advice in (
                ("http://127.0.0.1:1/x/", "127.0.0.1", "check the address, the network"),
                ("http://host.invalid/x/", "host.invalid", "check the address, the network"),
                (f"file://{self.work.path}/none", "none", "check the address|correct the address"),
                ("nowhere://x", "is not an origin: give s3://", "correct the address")):
            with self.subTest(origin):
                row = self.doctor(origin, "--attempts", "1")["origin"]
                self.assert_lacks(row, "missing", found, advice)

    def test_an_origin_that_may_not_be_read(self):
        self.need_root()
        self.origin.chmod(0o700)
        row = self.doctor(self.origin, user=NOBODY)["origin"]
        self.assert_lacks(row, "missing", "Permission denied", "give credentials, or a user")

    def test_an_empty_origin_is_one(self):
        row = self.doctor(self.work.directory("empty"))["origin"]
        self.assertEqual((row["state"], row["found"][:8]), ("ok", "is empty"))


if __name__ == "__main__":
    suite.main()
