"""What cannot work: one line that names the remedy, an exit code, and nothing left behind."""

import os
import socket
import subprocess
import threading

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
        before = self.everything()
        done = self.granary.run(*arguments, check=False, **more)
        self.assert_refused(done, pattern, code)
        self.assert_nothing_left(before)

    def everything(self):
        """Names of all files, folders and sockets of this test. Databases name their files anew, and a
        daemon that fails may log."""
        return sorted(str(path) for path in self.work.path.rglob("*")
                      if path.parent.name not in ("master", "index")
                      and path.name != "granary.log")

    def assert_nothing_left(self, before):
        self.assertEqual(self.granary.processes(), [])
        self.assertEqual(workspace.mounts_below(self.mount), [])
        self.assertEqual(self.everything(), before)

    def refuse_while_up(self, *arguments, pattern, code=None, **more):
        """A command that has to fail beside a running `up`, and to change nothing there."""
        before = self.running()
        self.assert_refused(self.granary.run(*arguments, check=False, **more), pattern, code)
        self.assertEqual(self.running(), before)

    def running(self):
        status = self.granary.status()
        return (self.granary.processes(), workspace.mounts_below(self.work.path),
                [(d["name"], d["snapshot"], d["quota_bytes"]) for d in status["datasets"]],
                [mount["mountpoint"] for mount in status["mounts"]])

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
        self.refuse_up(mount=self.work.path / "a-file", pattern="not a directory: mount on an empty directory")

    def test_a_mount_point_that_is_busy(self):
        self.granary.up(self.origin, self.mount)
        for command in (["up", self.origin], ["mount", "origin"]):
            self.refuse_while_up(*command, self.mount, "--state-dir", self.granary.state,
                                 pattern="already: unmount it")
        self.assertEqual((self.mount / "file").read_bytes(), b"content")

    def test_a_mount_point_that_another_file_system_uses(self):
        self.need_root()
        subprocess.run(["mount", "-t", "tmpfs", "none", self.mount], check=True)
        trees.write(self.mount / "theirs", b"x")
        done = self.granary.run("up", self.origin, self.mount, *self.granary.directories(),
                                check=False)
        self.assert_refused(done, "not empty")
        self.assertEqual(os.listdir(self.mount), ["theirs"])
        self.assertFalse(self.granary.state.exists())

    def test_no_fuse_device(self):
        self.need_root()
        self._in_namespace("mount -t tmpfs none /dev", "there is no /dev/fuse.*modprobe")

    def test_no_permission_for_the_fuse_device(self):
        self.need_root()
        self._in_namespace("mount -t tmpfs none /dev; mknod /dev/fuse c 10 229; "
                           "mount -o remount,nodev /dev", "/dev/fuse")

    def _in_namespace(self, setting, pattern):
        """`up` in a mount namespace of its own, after this shell command."""
        before = self.everything()
        script = f'{setting}; exec "$0" "$@"'
        done = subprocess.run(["unshare", "--mount", "sh", "-c", script, suite.BINARY, "up",
                               self.origin, self.mount, *self.granary.directories()],
                              env=self.granary.environment, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False, timeout=60)
        self.assert_refused(done, pattern)
        self.assert_nothing_left(before)

    # ---- directories -----------------------------------------------------------------------

    def test_a_cache_directory_that_is_not_writable(self):
        self.need_root()
        directory = self.work.directory("read-only")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", directory], check=True)
        self.granary.cache = directory / "cache"
        self.refuse_up(pattern="(?i)cannot make directory.*read-only.*choose another --cache-dir")

    def test_a_cache_directory_of_somebody_else(self):
        self.need_root()
        self.granary.cache = self.work.directory("others")
        os.chown(self.granary.cache, 65534, 65534)
        self.refuse_up(pattern="belongs to another user: choose another --cache-dir")

    def test_a_cache_directory_with_other_things(self):
        self.granary.cache = self.work.directory("holiday-photos")
        trees.write(self.granary.cache / "beach.jpg", b"x")
        self.refuse_up(pattern="holds other things: choose")
        self.assertEqual(os.listdir(self.granary.cache), ["beach.jpg"])

    def test_a_cache_that_is_too_small(self):
        self.refuse_up("--cache-size", "1M", pattern="too small: give --cache-size at least")

    def test_a_cache_larger_than_its_filesystem(self):
        self.refuse_up("--cache-size", "900P", pattern="more than the .* of the filesystem")

    def test_a_filesystem_that_is_too_small(self):
        self.need_root()
        directory = self.work.directory("tiny")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", directory], check=True)
        self.granary.cache = directory / "cache"
        self.refuse_up(pattern="too small: .*--cache-dir a larger file system")

    def test_a_state_directory_whose_socket_name_is_too_long(self):
        self.granary.state = self.work.path / ("x" * 100)
        self.refuse_up(pattern="choose a shorter --state-dir")

    def test_a_state_directory_that_another_process_uses(self):
        self.granary.up(self.origin, self.mount)
        self.refuse_while_up("master", "--state-dir", self.granary.state,
                             pattern="another granary process uses.*--state-dir")

    def test_a_cache_directory_that_another_process_uses(self):
        self.granary.up(self.origin, self.mount)
        other = Granary(self.work, "other")
        self.refuse_while_up("up", self.origin, self.work.directory("m2"), "--state-dir",
                             other.state, "--cache-dir", self.granary.cache,
                             pattern="another granary process uses.*--cache-dir")
        self.assertFalse(other.state.exists())

    def test_flags_that_the_running_process_has_otherwise(self):
        self.granary.up(self.origin, self.mount, "--cache-size", "200MB")
        other, token = self.work.directory("other"), self.work.path / "token"
        token.write_text("0123456789abcdef0123456789abcdef\n")
        for flag, value in (("--cache-size", "100MB"), ("--cache-dir", self.work.path / "c2"),
                            ("--free-floor", "1GB"), ("--scrub-rate", "off"),
                            ("--listen", "127.0.0.1:1"),
                            ("--advertise", "host:1"), ("--group", "nogroup"),
                            ("--token-file", token), ("--metrics", "127.0.0.1:0")):
            with self.subTest(flag):
                self.refuse_while_up("up", self.origin, other, "--state-dir", self.granary.state,
                                     "--name", "new", flag, value,
                                     pattern=f"other values of {flag} .*leave these flags away")
        self.refuse_while_up("up", self.origin, other, "--state-dir", self.granary.state,
                             pattern="of --cache-size .*, --metrics ",
                             environment={"GRANARY_CACHE_SIZE": "1G", "GRANARY_METRICS": "x:1"})
        # What agrees is fine, however it is written.
        self.granary.run("up", self.origin, other, "--state-dir",
                         os.path.relpath(self.granary.state), "--cache-dir",
                         os.path.relpath(self.granary.cache), "--cache-size", "0.2G")

    def test_an_up_beside_a_master_without_mounts(self):
        server = self.granary.start("master", "--state-dir", self.granary.state)
        self.granary.wait_serving(server)
        self.refuse_while_up("up", self.origin, self.mount, *self.granary.directories(),
                             pattern="`granary master` runs.*granary dataset add.*granary mount")

    # ---- values ----------------------------------------------------------------------------

    def test_malformed_sizes(self):
        for text in ("12X", "-5G", "", "1.5.5G", "99999999999E", "GB", "0x10"):
            with self.subTest(text):
                self.refuse_up("--cache-size", text, pattern="--cache-size: ", code=2)

    def test_malformed_rates(self):
        for text in ("fast", "-1", "", "12X/s", "10MB/h"):
            with self.subTest(text):
                self.refuse_up("--scrub-rate", text, pattern="--scrub-rate: .*or off", code=2)

    def test_malformed_limits_of_origins(self):
        for texts, pattern in (
                (["fast"], "PREFIX=RATE"), (["bucket=1MB/s"], "s3://bucket"),
                (["s3://=1MB/s"], "bucket"), (["ftp://host=1MB/s"], "s3://bucket"),
                (["s3://b=off"], "rate above 0"), (["s3://b=2", "S3://b/=3"], "two limits"),
                (["1MB/s", "2MB/s"], "second limit"),
                ([f"s3://bucket-{number}=1MB/s" for number in range(65)], "at most 64")):
            with self.subTest(texts[0]):
                flags = [f"--origin-limit={text}" for text in texts]
                self.refuse_up(*flags, pattern=f"--origin-limit: .*{pattern}", code=2)

    def test_malformed_quotas(self):
        self.refuse_up("--quota", "lots", pattern="--quota: 'lots' is not a size", code=2)

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
        self.refuse_up(origin=f"file://{self.work.path}/missing", pattern="missing.*granary doctor")

    def test_a_host_that_does_not_exist_or_answer(self):
        self.refuse_up("--attempts", "2", origin="http://host.invalid/data/",
                       pattern="host.invalid.*`granary doctor http://host.invalid/data/`")
        self.refuse_up("--attempts", "2", origin="http://127.0.0.1:1/data/",
                       pattern="127.0.0.1")

    def test_malformed_listen_addresses(self):
        token = self.work.path / "token"
        token.write_text("0123456789abcdef0123456789abcdef\n")
        for text in ("nowhere", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:port", ":"):
            with self.subTest(text):
                self.refuse_up("--listen", text, "--token-file", token, pattern="--listen: .*(?i:host|port)", code=2)

    def test_malformed_addresses_of_other_things(self):
        token = self.work.path / "token"
        token.write_text("0123456789abcdef0123456789abcdef\n")
        for text in ("nowhere", "127.0.0.1:99999", "unix:relative"):
            with self.subTest(text):
                self.refuse_up("--metrics", text, pattern="--metrics: .*(?i:host|port|path)", code=2)
                self.refuse_up("--listen", "127.0.0.1:0", "--token-file", token, "--advertise",
                               text, pattern="--advertise: .*(?i:host|port|path)", code=2)
                self.refuse("status", "--master", text, pattern="--master: .*(?i:host|port|path)",
                            code=2)
        self.refuse_up("--endpoint", "ht!tp://x", "--no-sign-request", origin="s3://bucket/x",
                       pattern="(?i)endpoint")
        self.refuse_up("--group", "no-such-group", pattern="there is no group 'no-such-group'")

    def test_malformed_numbers(self):
        for flag, value in (("--uid", "-1"), ("--gid", "root"), ("--uid", "4294967295"),
                            ("--read-timeout", "soon"), ("--read-timeout", "1e3"),
                            ("--mode", "closed"), ("--log-level", "loud")):
            with self.subTest(f"{flag} {value}"):
                self.refuse_up(flag, value, pattern=flag, code=2)

    def test_values_that_a_running_master_refuses(self):
        self.granary.up(self.origin, self.mount, "--name", "d")
        other, here = self.work.directory("other"), ["--state-dir", self.granary.state]
        for command, pattern in (
                (["quota", "set", "d", "lots"], "lots"), (["quota", "set", "d", "1Q"], "1Q"),
                (["dataset", "add", "a/b", self.origin], "(?i)name"),
                (["dataset", "add", "e", "ftp://host/x"], "ftp"),
                (["dataset", "add", "e", "/no/such/directory"], "/no/such/directory"),
                (["dataset", "add", "d", self.origin], "already"),
                (["up", "http://127.0.0.1:1/x/", other, "--attempts", "1"], "127.0.0.1"),
                (["up", self.origin, other, "--name", "a/b"], "(?i)name"),
                (["up", self.origin, self.work.path / "none"], "mkdir -p")):
            with self.subTest(" ".join(map(str, command))):
                self.refuse_while_up(*command, *here, pattern=pattern)

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
        self.refuse("up", "--fly", self.origin, self.mount, pattern="no flag --fly.*--help",
                    code=2)
        self.refuse("up", "--cache-sise", "1G", self.origin, self.mount,
                    pattern="no flag --cache-sise; the nearest is --cache-size", code=2)
        self.refuse("umount", "--lasy=x", self.mount, pattern="the nearest is --lazy", code=2)
        self.refuse("umount", "-x", self.mount, pattern="x", code=2)
        self.refuse("up", self.origin, pattern="missing.*ORIGIN MOUNTPOINT", code=2)
        self.refuse("status", "more", pattern="one argument too many", code=2)
        self.refuse("status", "-o", "xml", pattern="not one of table,json", code=2)

    def test_a_config_file_with_mistakes(self):
        config = self.work.path / "granary.ini"
        for content, pattern in (
                ("cache-size = 12X\n", "line 1: .*cache-size"),
                ("\nflavour = sweet\n", "line 2: unknown setting 'flavour': .*--help"),
                ("cache-sise = 1G\n", "line 1: unknown setting 'cache-sise'.*'cache-size'"),
                ("# x\n[granary]\nread_timeout = 1\n", "line 3: .*'read-timeout'"),
                ("nonsense\nflavour = sweet\n", "line 1: not 'setting = value'"),
                ("quota = lots\nnonsense\n", "line 1: --quota"),
                ("listen = here\n", "line 1: --listen"),
                ("name = x\nname = " + "y" * 300 + "\n", "line 2: longer than .*command line"),
                ("[other]\nname = x\n", "line 2: unknown section")):
            config.write_text(content)
            self.refuse_up("--config", config, pattern=pattern, code=2)
        self.refuse_up("--config", self.work.path / "none.ini", pattern="config file.*No such")
        self.refuse_up("--config", self.work.path, pattern="cannot read config file")

    def test_a_variable_with_a_mistake(self):
        self.refuse_up(pattern="GRANARY_CACHE_SIZE", environment={"GRANARY_CACHE_SIZE": "12X"},
                       code=2)

    # ---- master and datasets ---------------------------------------------------------------

    def test_no_master(self):
        for command in (["status"], ["dataset", "ls"], ["quota", "set", "d", "1G"]):
            self.refuse(*command, "--state-dir", self.granary.state, pattern="granary up", code=3)
        self.refuse("status", "--master", "127.0.0.1:1", pattern="--master", code=3)
        self.refuse("status", "--master", "nonsense", pattern="nonsense")

    def test_a_server_that_is_no_master(self):
        """Garbage, or nothing at all, in answer."""
        path = self.work.path / "socket"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(16)
            answers = [b"HTTP/1.1 400 Bad Request\r\n\r\n", trees.noise("garbage", 4096), b""]
            held = []

            def serve():
                while True:
                    try:
                        client = listener.accept()[0]
                        client.sendall(answers[0])
                    except OSError:
                        return
                    held.append(client)

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            while answers:
                self.refuse("status", "--master", f"unix:{path}", pattern=f"unix:{path}.*--master",
                            code=3)
                answers[:1] = []
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
        for client in held:
            client.close()

    def test_another_user_at_the_socket(self):
        self.need_root()
        suite.tool("setpriv")
        self.granary.up(self.origin, self.mount, "--name", "d")
        home, other = self.work.directory("home"), self.work.directory("other")
        here = ["--state-dir", self.granary.state]
        for path in (home, other):
            os.chown(path, 65534, 65534)
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]
        whose = "belongs to user root: run this as root.*--group"
        before = self.running(), self.everything()
        # By the folder's mode, and by the socket's alone.
        for mode in (0o700, 0o755):
            self.granary.state.chmod(mode)
            for command, pattern in (
                    (["status", *here], whose), (["dataset", "ls", *here], whose),
                    (["quota", "set", "d", "1G", *here], whose),
                    (["status", "--master", f"unix:{self.granary.state}/granary.sock"], whose),
                    (["mount", "d", other, *here], whose),
                    (["umount", self.mount], "belongs to user 0: run this as root"),
                    (["purge", "--yes", *self.granary.directories()], "run this as its owner or root")):
                with self.subTest(" ".join(map(str, command)), mode=oct(mode)):
                    done = subprocess.run([*user, suite.BINARY, *command], text=True, timeout=60,
                                          env={**self.granary.environment, "HOME": str(home)},
                                          capture_output=True, check=False)
                    self.assert_refused(done, pattern)
        self.granary.state.chmod(0o700)
        self.assertEqual((self.running(), self.everything()), before)

    def test_unknown_dataset(self):
        self.granary.up(self.origin, self.mount, "--name", "d")
        other = self.work.directory("other")
        for command in (["dataset", "stat", "unknown"], ["dataset", "rm", "unknown"],
                        ["dataset", "refresh", "unknown"], ["quota", "set", "unknown", "1G"],
                        ["mount", "unknown", other]):
            with self.subTest(" ".join(map(str, command))):
                self.refuse_while_up(*command, "--state-dir", self.granary.state,
                                     pattern="unknown.*granary dataset ls", code=4)

    def test_a_name_that_another_origin_has(self):
        self.granary.up(self.origin, self.mount, "--name", "d")
        other, origin = self.work.directory("other"), self.work.directory("origin2")
        done = self.granary.run("up", origin, other, *self.granary.directories(), "--name", "d",
                                check=False)
        self.assert_refused(done, "choose another name")

    def test_umount_of_what_is_no_mount(self):
        self.refuse("umount", self.mount, pattern="no dataset is mounted.*granary status", code=4)
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
                self.assert_mounts_rightly_or_is_refused(
                    f"{self.granary.state}.*(restore|remove|choose|add)")

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
        done = self.assert_mounts_rightly_or_is_refused("manifest.*granary up --refresh")
        self.assertNotEqual(done.returncode, 0)
        # And that helps.
        self.granary.up_daemon(self.origin, self.mount, "--name", "d", "--refresh")
        self.assertEqual((self.mount / "file").read_bytes(), b"content")

    def test_a_newer_store_is_refused(self):
        self._once_up()
        format_ = self.granary.cache / "format"
        # As version 999 would write it: the line ends with its own XXH3.
        format_.write_text("granary store 999 ad26aadf01138724\n")
        self.refuse_up("--name", "d", pattern="newer version .*: update granary or use another")


if __name__ == "__main__":
    suite.main()
