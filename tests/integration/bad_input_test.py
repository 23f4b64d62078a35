"""What cannot work: one line that names the remedy, an exit code, and nothing left behind."""

import os
import subprocess

from harness import process, suite, trees, workspace
from harness.granary import Granary


class BadInput(suite.Case):
    def setUp(self):
        super().setUp()
        self.origin = self.work.directory("origin")
        trees.write(self.origin / "file", b"content")
        self.mount = self.work.directory("mnt")
        self.granary = Granary(self.work)

    def assert_refused(self, done, pattern, code=None):
        """The error is one line; what is mounted and running is as before."""
        lines = process.error_lines(done.stderr)
        self.assertNotEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertRegex(lines[0], r"^granary.*: ")
        self.assertRegex(lines[0], pattern)
        self.assertLess(len(lines[0]), 400)
        if code is not None:
            self.assertEqual(done.returncode, code, done.stderr)

    def refuse(self, *arguments, pattern, code=None, **more):
        """A command that has to fail while nothing runs, and to leave nothing."""
        done = self.granary.run(*arguments, check=False, **more)
        self.assert_refused(done, pattern, code)
        self.assertEqual(self.granary.processes(), [])
        self.assertEqual(workspace.mounts_below(self.mount), [])

    def refuse_up(self, *flags, pattern, origin=None, mount=None, **more):
        for daemon in ([], ["--daemon"]):
            with self.subTest(daemon=bool(daemon)):
                self.refuse("up", origin or self.origin, mount or self.mount,
                            *self.granary.directories(), *flags, *daemon, pattern=pattern, **more)

    # ---- the mount point -------------------------------------------------------------------

    def test_a_mount_point_that_is_missing(self):
        self.refuse_up(mount=self.work.path / "missing", pattern="mkdir -p", code=4)

    def test_a_mount_point_that_is_not_empty(self):
        trees.write(self.mount / "something", b"x")
        self.refuse_up(pattern="not empty.*empty directory")

    def test_a_mount_point_that_is_a_file(self):
        trees.write(self.work.path / "a-file", b"x")
        self.refuse_up(mount=self.work.path / "a-file", pattern="not a directory")

    def test_a_mount_point_that_is_busy(self):
        self.granary.up(self.origin, self.mount)
        done = self.granary.run("up", self.origin, self.mount, *self.granary.directories(),
                                check=False)
        self.assert_refused(done, "already: unmount it")
        self.assertEqual((self.mount / "file").read_bytes(), b"content")
        self.assertEqual(len(workspace.mounts_below(self.mount)), 1)

    def test_no_fuse_device(self):
        self.need_root()
        self._in_namespace("mount -t tmpfs none /dev", "there is no /dev/fuse.*modprobe")

    def test_no_permission_for_the_fuse_device(self):
        self.need_root()
        self._in_namespace("mount -t tmpfs none /dev; mknod /dev/fuse c 10 229; "
                           "mount -o remount,nodev /dev", "/dev/fuse")

    def _in_namespace(self, setting, pattern):
        """`up` in a mount namespace of its own, after this shell command."""
        script = f'{setting}; exec "$0" "$@"'
        done = subprocess.run(["unshare", "--mount", "sh", "-c", script, suite.BINARY, "up",
                               self.origin, self.mount, *self.granary.directories()],
                              env=self.granary.environment, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False, timeout=60)
        self.assert_refused(done, pattern)
        self.assertEqual(self.granary.processes(), [])

    # ---- directories -----------------------------------------------------------------------

    def test_a_cache_directory_that_is_not_writable(self):
        self.need_root()
        directory = self.work.directory("read-only")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", directory], check=True)
        self.granary.cache = directory / "cache"
        self.refuse_up(pattern="(?i)cannot make directory.*read-only")

    def test_a_cache_directory_of_somebody_else(self):
        self.need_root()
        self.granary.cache = self.work.directory("others")
        os.chown(self.granary.cache, 65534, 65534)
        self.refuse_up(pattern="belongs to another user: choose another")

    def test_a_cache_directory_with_other_things(self):
        self.granary.cache = self.work.directory("holiday-photos")
        trees.write(self.granary.cache / "beach.jpg", b"x")
        self.refuse_up(pattern="holds other things: choose")
        self.assertEqual(os.listdir(self.granary.cache), ["beach.jpg"])

    def test_a_cache_that_is_too_small(self):
        self.refuse_up("--cache-size", "1M", pattern="(?i)cache-size|at least|small")

    def test_a_cache_larger_than_its_filesystem(self):
        self.refuse_up("--cache-size", "900P", pattern="more than the .* of the filesystem")

    def test_a_filesystem_that_is_too_small(self):
        self.need_root()
        directory = self.work.directory("tiny")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", directory], check=True)
        self.granary.cache = directory / "cache"
        self.refuse_up(pattern="(?i)at least|small|choose")

    def test_a_state_directory_whose_socket_name_is_too_long(self):
        self.granary.state = self.work.path / ("x" * 100)
        self.refuse_up(pattern="choose a shorter --state-dir")

    def test_a_state_directory_that_another_process_uses(self):
        self.granary.up(self.origin, self.mount)
        done = self.granary.ask("master", check=False)
        self.assert_refused(done, "another granary process uses.*--state-dir")

    # ---- values ----------------------------------------------------------------------------

    def test_malformed_sizes(self):
        for text in ("12X", "-5G", "", "1.5.5G", "99999999999E", "GB", "0x10"):
            with self.subTest(text):
                self.refuse_up("--cache-size", text, pattern="--cache-size: ", code=2)

    def test_malformed_quotas(self):
        self.refuse_up("--quota", "lots", pattern="lots")

    def test_malformed_origins(self):
        for url, pattern in (("ftp://host/path", "ftp"), ("s3://", "s3://"),
                             ("s3://Bad_Bucket!/x", "(?i)bucket"), ("http://", "give http"),
                             ("http://ho st/", "(?i)url|host|space"),
                             ("http://host:99999/", "(?i)port|url"),
                             ("https://[::1/", "(?i)url|host"),
                             ("file://relative/path", "(?i)file://"),
                             ("no/such/directory", "neither a URL.*nor a directory")):
            with self.subTest(url):
                self.refuse_up(origin=url, pattern=pattern)

    def test_an_origin_directory_that_is_missing(self):
        self.refuse_up(origin=f"file://{self.work.path}/missing", pattern="missing")

    def test_a_host_that_does_not_exist_or_answer(self):
        self.refuse_up("--attempts", "2", origin="http://host.invalid/data/",
                       pattern="host.invalid")
        self.refuse_up("--attempts", "2", origin="http://127.0.0.1:1/data/",
                       pattern="127.0.0.1")

    def test_malformed_listen_addresses(self):
        token = self.work.path / "token"
        token.write_text("0123456789abcdef0123456789abcdef\n")
        for text in ("nowhere", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:port", ":"):
            with self.subTest(text):
                self.refuse_up("--listen", text, "--token-file", token, pattern="(?i)host|port")

    def test_listening_without_a_token(self):
        self.refuse_up("--listen", "127.0.0.1:0", pattern="--token-file")

    def test_token_files_that_are_none(self):
        token = self.work.path / "token"
        for content in ("", "short", "two words that are long enough"):
            token.write_text(content)
            self.refuse_up("--listen", "127.0.0.1:0", "--token-file", token, pattern="token file")
        self.refuse_up("--token-file", self.work.path / "none", pattern="cannot read token file")

    def test_malformed_names(self):
        for name in ("", "a/b", "..", "x" * 200, "new\nline"):
            with self.subTest(name):
                self.refuse_up("--name", name, pattern="(?i)name")

    def test_unknown_commands_flags_and_arguments(self):
        self.refuse("fly", pattern="no command 'fly'.*--help", code=2)
        self.refuse("dataset", "fly", pattern="no command 'dataset fly'.*--help", code=2)
        self.refuse("up", "--fly", self.origin, self.mount, pattern="--fly", code=2)
        self.refuse("up", self.origin, pattern="missing.*ORIGIN MOUNTPOINT", code=2)
        self.refuse("status", "more", pattern="one argument too many", code=2)
        self.refuse("status", "-o", "xml", pattern="not one of table,json", code=2)

    def test_a_config_file_with_mistakes(self):
        config = self.work.path / "granary.ini"
        for content, pattern in (("cache-size = 12X\n", "line 1: .*cache-size"),
                                 ("\nflavour = sweet\n", "line 2: unknown setting 'flavour'"),
                                 ("nonsense\n", "line 1"), ("[other]\nname = x\n", "section")):
            config.write_text(content)
            self.refuse_up("--config", config, pattern=pattern, code=2)
        self.refuse_up("--config", self.work.path / "none.ini", pattern="cannot read config file")

    def test_a_variable_with_a_mistake(self):
        self.refuse_up(pattern="GRANARY_CACHE_SIZE", environment={"GRANARY_CACHE_SIZE": "12X"},
                       code=2)

    # ---- master and datasets ---------------------------------------------------------------

    def test_no_master(self):
        for command in (["status"], ["dataset", "ls"], ["quota", "set", "d", "1G"]):
            self.refuse(*command, "--state-dir", self.granary.state, pattern="granary up", code=3)
        self.refuse("status", "--master", "127.0.0.1:1", pattern="--master", code=3)
        self.refuse("status", "--master", "nonsense", pattern="nonsense")

    def test_unknown_dataset(self):
        self.granary.up(self.origin, self.mount, "--name", "d")
        other = self.work.directory("other")
        for command in (["dataset", "stat", "unknown"], ["dataset", "rm", "unknown"],
                        ["dataset", "refresh", "unknown"], ["quota", "set", "unknown", "1G"],
                        ["mount", "unknown", other]):
            with self.subTest(" ".join(map(str, command))):
                self.assert_refused(self.granary.ask(*command, check=False), "unknown", 4)
        self.assertEqual(len(self.granary.status()["mounts"]), 1)

    def test_a_name_that_another_origin_has(self):
        self.granary.up(self.origin, self.mount, "--name", "d")
        other, origin = self.work.directory("other"), self.work.directory("origin2")
        done = self.granary.run("up", origin, other, *self.granary.directories(), "--name", "d",
                                check=False)
        self.assert_refused(done, "choose another name")

    def test_umount_of_what_is_no_mount(self):
        self.refuse("umount", self.mount, pattern="no dataset is mounted", code=4)
        self.refuse("umount", self.work.path / "missing/deep", pattern="cannot find")

    def test_purge_of_a_folder_that_is_not_ours(self):
        precious = self.work.directory("precious")
        trees.write(precious / "thesis.tex", b"x")
        self.refuse("purge", "--yes", "--state-dir", precious, "--cache-dir", precious,
                    pattern="nothing was removed")
        self.assertTrue((precious / "thesis.tex").exists())

    # ---- damaged state ---------------------------------------------------------------------

    def _once_up(self):
        self.granary.up(self.origin, self.mount, "--name", "d")
        self.assertEqual((self.mount / "file").read_bytes(), b"content")
        self.granary.umount(self.mount)
        self.granary.wait_ended()

    def assert_mounts_rightly_or_is_refused(self, pattern):
        done = self.granary.run("up", self.origin, self.mount, *self.granary.directories(),
                                "--name", "d", "--daemon", check=False)
        if done.returncode == 0:
            self.assertEqual((self.mount / "file").read_bytes(), b"content")
            self.granary.umount(self.mount)
            self.granary.wait_ended()
        else:
            self.assert_refused(done, pattern)
            self.assertEqual(self.granary.processes(), [])
        return done

    def test_a_corrupt_database_is_repaired_or_refused_with_its_place(self):
        for kind in ("MANIFEST*", "CURRENT", "*.log", "*.sst", "OPTIONS*", "*"):
            with self.subTest(kind):
                self.granary = Granary(self.work, "of-" + kind.strip("*.").lower())
                self._once_up()
                for path in (self.granary.state / "master").rglob(kind):
                    if path.is_file():
                        path.write_bytes(b"garbage" * 100)
                self.assert_mounts_rightly_or_is_refused(str(self.granary.state))

    def test_a_corrupt_manifest_is_made_anew_or_refused(self):
        self._once_up()
        damaged = [path for path in (self.granary.state / "manifests").rglob("*")
                   if path.is_file()]
        self.assertTrue(damaged)
        for path in damaged:
            body = bytearray(path.read_bytes())
            body[len(body) // 2] ^= 0x40
            body[100] ^= 1
            path.chmod(0o600)
            path.write_bytes(body)
        self.assert_mounts_rightly_or_is_refused("(?i)manifest|snapshot")

    def test_a_newer_store_is_refused(self):
        self._once_up()
        format_ = self.granary.cache / "format"
        # As version 999 would write it: the line ends with its own XXH3.
        format_.write_text("granary store 999 ad26aadf01138724\n")
        self.refuse_up("--name", "d", pattern="(?i)format|newer|version")


if __name__ == "__main__":
    suite.main()
