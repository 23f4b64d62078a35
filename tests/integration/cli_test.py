"""The command line: one process a state directory, json everywhere, settings from everywhere."""

import json
import os
import pathlib
import re
import subprocess
import time

from harness import compare, process, suite, trees, workspace
from harness.fault_server import FaultServer
from harness.granary import Granary, is_mounted, xattr

JSON_COMMANDS = [["status"], ["dataset", "ls"], ["dataset", "stat", "d"], ["quota", "ls"],
                 ["quota", "set", "d", "100MB"], ["dataset", "refresh", "d"]]
STAT_KEYS = {"name", "origin", "snapshot", "files", "bytes", "quota_bytes", "pinned_bytes",
             "cached_bytes", "hit_bytes", "miss_bytes"}
METRICS = ["granary_client_read_bytes_total", "granary_client_read_seconds_bucket",
           "granary_client_read_seconds_count", "granary_worker_origin_bytes_total",
           "granary_worker_cached_bytes", "granary_worker_capacity_bytes"]


class CommandLine(suite.Case):
    def setUp(self):
        super().setUp()
        self.origin = self.work.directory("origin")
        trees.write_objects(self.origin, trees.samples(30, 5_000))
        self.mount = self.work.directory("mnt")
        self.granary = Granary(self.work)

    def up(self, *flags, **more):
        return self.granary.up(self.origin, self.mount, "--name", "d", *flags, **more)

    # ---- life of the process ---------------------------------------------------------------

    def test_daemon_returns_once_the_mount_answers(self):
        pid = self.granary.up_daemon(self.origin, self.mount, "--name", "d")
        self.assertTrue(is_mounted(self.mount))
        compare.assert_diff_finds_nothing(self, self.origin, self.mount)
        self.assertTrue(process.alive(pid))
        self.granary.umount(self.mount)
        self.granary.wait_ended()

    def test_the_log_is_on_stderr_or_with_daemon_in_the_state_directory(self):
        log = self.granary.state / "granary.log"
        done = self.granary.run("up", self.origin, self.mount, *self.granary.directories(),
                                "--name", "d", "--daemon")
        # What was done, and nothing of how.
        self.assertRegex(done.stderr, r"\Adataset d: .*\nmounted d at .*\n\Z")
        self.assertRegex(log.read_text(), "(?m)Z info master: added dataset d of ")
        self.assertEqual(oct(log.stat().st_mode & 0o777), "0o600")
        self.granary.umount(self.mount)
        self.granary.wait_ended()
        written = log.read_text()
        self.assertIn("unmounted", written)
        server = self.up("--log-level", "debug")
        self.assertRegex(server.output(), "(?m)Z info ")
        self.assertEqual(log.read_text(), written)
        self.granary.umount(self.mount)
        server.wait(30)
        quiet = self.up("--log-level", "error")
        self.assertNotRegex(quiet.output(), "Z info ")

    def test_the_log_of_a_daemon_is_rotated(self):
        """16 MiB a file, four old ones; tests/unit/log_test.c fills them."""
        self.granary.state.mkdir(mode=0o700, parents=True)
        (self.granary.state / "lock").touch()
        log = self.granary.state / "granary.log"
        for suffix in ("", ".1", ".2", ".3", ".4"):
            with open(f"{log}{suffix}", "wb") as out:
                out.write(f"was {log.name}{suffix}\n".encode())
                out.truncate((16 << 20) - 1 if not suffix else 100)
        self.granary.up_daemon(self.origin, self.mount)
        self.assertLess(log.stat().st_size, 1 << 20)
        self.assertIn("Z info ", log.read_text())
        for now, then in ((".1", ""), (".2", ".1"), (".3", ".2"), (".4", ".3")):
            with open(f"{log}{now}", "rb") as old:
                self.assertEqual(old.readline().decode(), f"was {log.name}{then}\n")
        self.assertEqual(len(list(self.granary.state.glob("granary.log*"))), 5)

    def test_daemon_that_cannot_start_says_so_and_is_gone(self):
        done = self.granary.run("up", self.origin, self.work.path / "nothing",
                                *self.granary.directories(), "--daemon", check=False)
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertIn("does not exist", done.stderr)
        self.assertEqual(self.granary.processes(), [])

    def test_a_second_up_joins_the_running_one(self):
        server = self.up()
        other, again = self.work.directory("other"), self.work.directory("again")
        second = self.work.directory("second")
        trees.write(second / "x", b"second")
        joined = self.granary.run("up", second, other, *self.granary.directories())
        self.assertIn("by the running process", joined.stderr)
        self.granary.run("up", self.origin, again, *self.granary.directories(), "--name", "d")
        self.assertEqual((other / "x").read_bytes(), b"second")
        compare.assert_diff_finds_nothing(self, self.origin, again)
        self.assertEqual(self.granary.processes(), [server.pid])
        mounts = {mount["mountpoint"]: mount["pid"] for mount in self.granary.status()["mounts"]}
        self.assertEqual(mounts, {str(path): server.pid for path in (self.mount, other, again)})

    def test_a_second_up_brings_its_own_read_timeout(self):
        self.up()
        site = FaultServer(self.work, {"a": b"x" * 1_000})
        site.fault("a", "stall")
        other = self.work.directory("other")
        self.granary.run("up", site.url, other, *self.granary.directories(), "--name", "slow",
                         "--read-timeout", "1")
        began = time.monotonic()
        with self.assertRaises(OSError):
            (other / "a").read_bytes()
        self.assertLess(time.monotonic() - began, 10)

    def test_another_state_directory_is_another_process(self):
        self.up()
        other = Granary(self.work, "other")
        mount = self.work.directory("mnt2")
        other.up(self.origin, mount, "--name", "e")
        self.assertEqual([d["name"] for d in self.granary.status()["datasets"]], ["d"])
        self.assertEqual([d["name"] for d in other.status()["datasets"]], ["e"])

    def test_umount_of_the_last_mount_ends_the_process(self):
        server = self.up()
        other = self.work.directory("other")
        self.granary.run("up", self.origin, other, *self.granary.directories(), "--name", "d")
        self.granary.umount(self.mount)
        time.sleep(1)
        self.assertTrue(server.running())
        self.assertEqual(len(list(other.iterdir())), 10)
        self.granary.umount(other)
        self.assertEqual(server.wait(20), 0, server.output())
        self.assertFalse((self.granary.state / "granary.sock").exists())

    def test_umount_refuses_a_busy_mount_and_detaches_it_lazily(self):
        server = self.up()
        path = compare.files(self.mount)[0]
        with open(path, "rb") as held:
            busy = self.granary.umount_refused(self.mount)
            self.assertIn("--lazy", busy)
            self.assertTrue(is_mounted(self.mount))
            self.granary.umount(self.mount, "--lazy")
            self.assertFalse(is_mounted(self.mount))
            self.assertEqual(len(held.read()), 5_000)
        self.assertEqual(server.wait(30), 0)

    def test_ctrl_c_unmounts_and_ends(self):
        server = self.up()
        server.signal(2)
        self.assertEqual(server.wait(20), 0, server.output())
        self.assertFalse(is_mounted(self.mount))

    def test_a_known_dataset_is_mounted_without_its_origin(self):
        self.up()
        for path in compare.files(self.mount):
            pathlib.Path(os.fsdecode(path)).read_bytes()
        time.sleep(1)
        self.granary.umount(self.mount)
        self.granary.wait_ended()
        away = self.work.path / "away"
        self.origin.rename(away)
        self.addCleanup(away.rename, self.origin)
        server = self.granary.up(f"file://{self.origin}", self.mount, "--name", "d")
        self.assertIn("snapshot 1", server.output())
        compare.assert_diff_finds_nothing(self, away, self.mount)

    def test_up_on_a_known_dataset_prints_its_age_and_refresh_lists_first(self):
        first = self.granary.run("up", self.origin, self.mount, *self.granary.directories(),
                                 "--name", "d", "--daemon")
        self.assertIn("30 files, 150 kB, snapshot 1, listed now", first.stderr)
        listed = self.granary.stat("d")["snapshot_created_s"]
        other, new = self.work.directory("other"), self.work.directory("new")
        trees.write(self.origin / "added", b"x")
        suite.wait_until(lambda: time.time() > listed + 6, 30, "older")
        again = self.granary.run("up", self.origin, other, *self.granary.directories(),
                                 "--name", "d")
        self.assertRegex(again.stderr, r"snapshot 1, listed \d+ (seconds|minutes) ago "
                                       r"\(--refresh lists again\)")
        self.assertFalse((other / "added").exists())
        refreshed = self.granary.run("up", self.origin, new, *self.granary.directories(),
                                     "--name", "d", "--refresh")
        self.assertIn("31 files, 150 kB, snapshot 2, listed now", refreshed.stderr)
        self.assertTrue((new / "added").exists())
        # Also when no process runs yet.
        for mount in (self.mount, other, new):
            self.granary.umount(mount)
        self.granary.wait_ended()
        (self.origin / "added").unlink()
        self.granary.up_daemon(self.origin, self.mount, "--name", "d", "--refresh")
        self.assertFalse((self.mount / "added").exists())

    def test_a_known_dataset_keeps_what_it_was_added_with_and_says_so(self):
        self.up("--quota", "50MB", "--exclude", "*1.jpg", "--max-connections", "7")
        other = self.work.directory("other")
        same = self.granary.run("up", self.origin, other, *self.granary.directories(), "--name",
                                "d", "--quota", "0.05GB", "--exclude", "*1.jpg")
        self.assertNotIn("keeps", same.stderr)
        self.granary.umount(other)
        for flags, pattern in ((["--quota", "60MB"], "keeps its quota: `granary quota set d 60MB`"),
                               (["--exclude", "*2.jpg"], "other values of --exclude add"),
                               (["--include", "x", "--max-connections", "8"],
                                "other values of --include, --max-connections add")):
            done = self.granary.run("up", self.origin, other, *self.granary.directories(),
                                    "--name", "d", *flags)
            self.assertIn(pattern, done.stderr)
            self.assertEqual(self.granary.stat("d")["quota_bytes"], 50_000_000)
            self.granary.umount(other)
            suite.wait_until(lambda: self.granary.stat("d")["mounts"] == 1, 60, "unmounted")

    def test_a_second_up_keeps_its_log_level_for_itself(self):
        server = self.up()
        other = self.work.directory("other")
        done = self.granary.run("up", self.origin, other, *self.granary.directories(), "--name",
                                "d", "--log-level", "debug")
        self.assertIn(f"running process {server.pid} keeps info", done.stderr)

    # ---- output ----------------------------------------------------------------------------

    def test_json_is_valid_everywhere(self):
        self.up("--quota", "50MB")
        for command in JSON_COMMANDS:
            with self.subTest(" ".join(command)):
                self.granary.json(*command)
        json.loads(self.granary.run("version", "-o", "json").stdout)
        json.loads(self.granary.run("doctor", "-o", "json", *self.granary.directories()).stdout)
        epochs = json.loads(self.granary.run("epoch", self.mount, "-o", "json").stdout)
        self.assertEqual([e["files"] for e in epochs], [30, 30])
        added = self.granary.json("dataset", "add", "e", f"file://{self.origin}")
        self.assertEqual(added["files"], 30)

    def test_every_command_has_json_output(self):
        overview = self.granary.run("--help").stdout
        names = re.findall(r"(?m)^  ([a-z]+(?: [a-z]+)?) {2,}[A-Z]", overview)
        self.assertIn("dataset add", names)
        self.assertGreater(len(names), 18)
        for name in names:
            with self.subTest(name):
                self.assertIn("--output=FORMAT", self.granary.run(*name.split(), "--help").stdout)

    def test_up_and_umount_say_in_json_what_they_did(self):
        said = json.loads(self.granary.run("up", self.origin, self.mount,
                                           *self.granary.directories(), "--name", "d", "--daemon",
                                           "-o", "json").stdout)
        pid = self.granary.pid_of(self.mount)
        want = {"dataset": "d", "mountpoint": str(self.mount), "origin": f"file://{self.origin}",
                "mode": "no-open", "snapshot": 1, "files": 30, "bytes": 150_000, "pid": pid,
                "joined": False, "master": f"unix:{self.granary.state}/granary.sock"}
        self.assertEqual(said, want)
        other = self.work.directory("other")
        joined = json.loads(self.granary.run("up", self.origin, other, "--mode", "open",
                                             *self.granary.directories(), "--name", "d",
                                             "-o", "json").stdout)
        self.assertIn(joined["mode"], ("open", "open, passthrough"))
        self.assertEqual(joined, {**want, "mountpoint": str(other), "joined": True,
                                  "mode": joined["mode"]})
        for mount, lazy in ((self.mount, False), (other, True)):
            detached = json.loads(self.granary.run("umount", f"{mount}/", "-o", "json",
                                                   *["--lazy"] * lazy).stdout)
            self.assertEqual(detached, {"mountpoint": str(mount), "dataset": "d", "lazy": lazy})
        self.granary.wait_ended()

    def test_in_the_foreground_json_comes_once_the_mount_answers(self):
        for command in ("up", "mount"):
            with self.subTest(command):
                mount = self.work.directory(command)
                what = [self.origin, mount, *self.granary.directories(), "--name", "d"] \
                    if command == "up" else ["d", mount, "--state-dir", self.granary.state]
                said, pid = self._first_json(command, *what)
                self.assertEqual((said["dataset"], said["mountpoint"], said["pid"]),
                                 ("d", str(mount), pid))
                self.assertEqual((said["files"], said["bytes"], said["snapshot"],
                                  said["origin"], said["mode"]),
                                 (30, 150_000, 1, f"file://{self.origin}", "no-open"))
                self.assertEqual(len(compare.files(mount)), 30)

    def _first_json(self, *arguments):
        """What a command that goes on says on stdout, as soon as it does."""
        running = subprocess.Popen([suite.BINARY, *arguments, "-o", "json"], text=True,
                                   env=self.granary.environment, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.addCleanup(running.stdout.close)
        self.addCleanup(running.wait)
        self.addCleanup(running.terminate)
        text = ""
        while not text.endswith("}\n"):
            line = running.stdout.readline()
            self.assertTrue(line, text)
            text += line
        return json.loads(text), running.pid

    def test_daemons_say_in_json_where_they_serve(self):
        for role, flags in (("master", ["--state-dir", self.granary.state]),
                            ("worker", self.granary.directories())):
            said = json.loads(self.granary.run(role, *flags, "--daemon", "-o", "json").stdout)
            socket = "granary.sock" if role == "master" else "worker.sock"
            self.assertEqual(said, {"role": role, "address": f"unix:{self.granary.state}/{socket}",
                                    "listen": None, "pid": said["pid"],
                                    "state_dir": str(self.granary.state)})
            self.assertIn(said["pid"], self.granary.processes())

    def test_removals_say_in_json_what_is_gone(self):
        self.up()
        self.granary.ask("dataset", "add", "e", f"file://{self.origin}")
        self.assertEqual(self.granary.json("dataset", "rm", "e"), {"removed": "e"})
        self.granary.umount(self.mount)
        self.granary.wait_ended()
        purge = ["purge", "-o", "json", *self.granary.directories()]
        refused = self.granary.run(*purge, check=False)
        self.assertEqual((refused.returncode, refused.stdout), (2, ""))
        self.assertEqual(len(refused.stderr.splitlines()), 1, refused.stderr)
        removed = json.loads(self.granary.run(*purge, "--yes").stdout)["removed"]
        self.assertEqual([tree["path"] for tree in removed],
                         [str(self.granary.cache), str(self.granary.state)])
        for tree in removed:
            self.assertGreater(tree["files"], 2)
            self.assertGreater(tree["bytes"], 0)
        self.assertEqual(json.loads(self.granary.run(*purge).stdout), {"removed": []})

    def test_errors_are_one_line_and_no_json(self):
        done = self.granary.run("up", self.origin, self.work.path / "nothing", "--daemon",
                                *self.granary.directories(), "-o", "json", check=False)
        self.assertEqual((done.returncode, done.stdout), (4, ""))
        # What makes a daemon fail last: the place of its log.
        (self.granary.state / "granary.log").mkdir(parents=True)
        (self.granary.state / "lock").touch()
        self.granary.state.chmod(0o700)
        done = self.granary.run("up", self.origin, self.mount, "--daemon",
                                *self.granary.directories(), "-o", "json", check=False)
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        self.assertIn("granary.log", done.stderr)
        self.assertFalse(is_mounted(self.mount))
        self.assertEqual(self.granary.processes(), [])

    def test_stat_has_the_promised_keys(self):
        self.up("--quota", "50MB")
        stat = self.granary.stat("d")
        self.assertLessEqual(STAT_KEYS, set(stat))
        self.assertEqual((stat["name"], stat["origin"], stat["snapshot"], stat["files"],
                          stat["bytes"], stat["quota_bytes"]),
                         ("d", f"file://{self.origin}", 1, 30, 150_000, 50_000_000))

    def test_tables_are_for_eyes(self):
        self.up()
        for command in (["status"], ["dataset", "ls"], ["dataset", "stat", "d"], ["quota", "ls"]):
            self.assertIn("d", self.granary.ask(*command).stdout.split())
        table = self.granary.run("epoch", self.mount, "--epochs", "2").stdout
        self.assertEqual(len(table.splitlines()), 3)
        self.assertIn("HIT", table)

    def test_help_man_pages_and_completion_are_made_from_the_table(self):
        self.assertIn("dataset add", self.granary.run("--help").stdout)
        self.assertIn("--cache-size", self.granary.run("up", "--help").stdout)
        pages = self.work.directory("man")
        self.assertEqual(json.loads(self.granary.run("man", "--dir", pages, "-o", "json").stdout),
                         {"dir": str(pages)})
        self.assertIn(pages / "granary.1", list(pages.iterdir()))
        self.assertIn("output", (pages / "granary-umount.1").read_text())
        script = self.granary.run("completion").stdout
        self.assertEqual(json.loads(self.granary.run("completion", "-o", "json").stdout),
                         {"shell": "bash", "script": script})
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)

    # ---- settings --------------------------------------------------------------------------

    def test_config_file_and_environment_mirror_flags(self):
        config = self.work.path / "granary.ini"
        config.write_text(f"state-dir = {self.granary.state}\ncache-dir = {self.granary.cache}\n"
                          "name = from-file\nquota = 10MB\ncache-size = 200MB\n")
        server = self.granary.start("up", self.origin, self.mount, "--config", config,
                                    environment={"GRANARY_NAME": "from-environment"})
        self.granary.wait_mounted(server, self.mount)
        status = json.loads(self.granary.run(
            "status", "-o", "json",
            environment={"GRANARY_STATE_DIR": str(self.granary.state)}).stdout)
        # The environment goes before the file, the command line before both.
        self.assertEqual([d["name"] for d in status["datasets"]], ["from-environment"])
        self.assertEqual(status["datasets"][0]["quota_bytes"], 10_000_000)
        self.assertEqual(status["workers"][0]["capacity_bytes"], 200_000_000)

    def test_the_master_is_found_by_address_environment_or_directory(self):
        self.up()
        address = f"unix:{self.granary.state}/granary.sock"
        by_flag = self.granary.run("status", "--master", address, "-o", "json")
        by_environment = self.granary.run("status", "-o", "json",
                                          environment={"GRANARY_MASTER": address})
        for done in (by_flag, by_environment):
            self.assertEqual(len(json.loads(done.stdout)["mounts"]), 1)

    def test_defaults_for_one_box(self):
        """As root /var/lib and /var/cache; 80 % of what is free. All of it goes with purge."""
        self.need_root()
        if not workspace.private_namespace():
            self.skipTest("would use this machine's own directories")
        for place in ("/var/lib", "/var/cache", "/dev/shm"):
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1000000k", "none", place],
                           check=True)
            self.addCleanup(subprocess.run, ["umount", "-l", place], check=True)
        self.granary.run("up", self.origin, self.mount, "--daemon")
        self.assertTrue(os.path.exists("/var/lib/granary/granary.sock"))
        self.assertTrue(os.path.exists("/var/cache/granary/CACHEDIR.TAG"))
        status = json.loads(self.granary.run("status", "-o", "json").stdout)
        self.assertEqual(len(status["mounts"]), 1)
        self.assertAlmostEqual(status["workers"][0]["capacity_bytes"] / 1_024_000_000, 0.8, 2)
        compare.assert_diff_finds_nothing(self, self.origin, self.mount)
        pid = status["mounts"][0]["pid"]
        self.granary.run("umount", self.mount)
        suite.wait_until(lambda: not process.alive(pid), 60, "the process ended")
        self.granary.run("purge", "--yes")
        for place in ("/var/lib", "/var/cache", "/dev/shm"):
            self.assertEqual(os.listdir(place), [])
        self.assertEqual(workspace.mounts_below(self.mount), [])

    def test_defaults_of_a_user_are_the_xdg_folders(self):
        base = self.work.directory("base", 0o777)
        for variables, state in (({"XDG_STATE_HOME": base / "s", "XDG_CACHE_HOME": base / "c"},
                                  base / "s/granary"),
                                 ({"HOME": base / "home"}, base / "home/.local/state/granary")):
            environment = {**self.granary.environment, **{k: str(v) for k, v in variables.items()}}
            for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
                if name not in variables:
                    environment.pop(name, None)
            user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
            done = subprocess.run([*user * (os.geteuid() == 0), suite.BINARY, "status"],
                                  env=environment, capture_output=True, text=True, check=False,
                                  timeout=60)
            self.assertEqual(done.returncode, 3, done.stderr)
            self.assertIn(f"unix:{state}/granary.sock", done.stderr)

    def test_purge_leaves_a_mount_point_and_what_is_the_file_systems(self):
        self.need_root()
        self.granary.cache = self.work.directory("disk")
        subprocess.run(["mount", "-t", "tmpfs", "none", self.granary.cache], check=True)
        (self.granary.cache / "lost+found").mkdir()
        self.granary.up_daemon(self.origin, self.mount, "--cache-size", "100MB")
        self.granary.umount(self.mount)
        self.granary.wait_ended()
        self.granary.run("purge", *self.granary.directories(), "--yes")
        self.assertEqual(os.listdir(self.granary.cache), ["lost+found"])
        self.assertFalse(self.granary.state.exists())

    def test_sizes_are_read_as_people_write_them(self):
        self.up()
        for text, bytes_ in (("500G", 500 * 10**9), ("500GB", 500 * 10**9),
                             ("1.5TiB", 3 << 39), ("100MiB", 100 << 20), ("12345", 12345)):
            self.assertEqual(self.granary.json("quota", "set", "d", text)["quota_bytes"], bytes_)
        self.assertIsNone(self.granary.json("quota", "set", "d", "unlimited")["quota_bytes"])

    # ---- datasets --------------------------------------------------------------------------

    def test_datasets_are_added_listed_and_removed(self):
        self.up()
        self.granary.ask("dataset", "add", "e", f"file://{self.origin}", "--include", "*1.jpg")
        names = {d["name"]: d["files"] for d in self.granary.json("dataset", "ls")}
        self.assertEqual(names, {"d": 30, "e": 3})
        self.granary.ask("dataset", "rm", "e")
        self.assertEqual([d["name"] for d in self.granary.json("dataset", "ls")], ["d"])
        refused = self.granary.ask("dataset", "rm", "d", check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("mounted", refused.stderr)

    def test_a_removed_dataset_gives_its_bytes_back(self):
        self.up()
        other = self.work.directory("other")
        self.granary.run("up", self.origin, other, *self.granary.directories(), "--name", "e")
        for path in compare.files(other):
            pathlib.Path(os.fsdecode(path)).read_bytes()
        suite.wait_until(lambda: self.granary.stat("e")["cached_bytes"] == 150_000, 10, "cached")
        self.granary.umount(other)
        suite.wait_until(lambda: self.granary.stat("e")["mounts"] == 0, 10, "unmounted")
        self.granary.ask("dataset", "rm", "e")
        self.granary.run("up", self.origin, other, *self.granary.directories(), "--name", "e")
        self.assertEqual(self.granary.stat("e")["cached_bytes"], 0)
        self.assertEqual(xattr(other, "dataset"), "e")

    # ---- the rest --------------------------------------------------------------------------

    def test_metrics_are_served_over_the_unix_socket(self):
        suite.tool("curl")
        self.up()
        for path in compare.files(self.mount):
            pathlib.Path(os.fsdecode(path)).read_bytes()
        socket = self.granary.state / "granary.metrics.sock"
        text = suite.wait_until(lambda: self._metrics_with_reads(socket), 15, "reads in metrics")
        for name in METRICS:
            self.assertRegex(text, rf"(?m)^{name}\b")
        self.assertRegex(text, r'granary_client_read_bytes_total\{.*dataset="d".*\}')
        for label in ('source="local"', 'source="origin"', 'class="pinned"', 'class="elastic"'):
            self.assertIn(label, text)

    def _metrics_with_reads(self, socket):
        text = subprocess.run(["curl", "-sf", "--unix-socket", socket, "http://localhost/metrics"],
                              capture_output=True, text=True, check=True).stdout
        wanted = [line for line in text.splitlines() if line.startswith(METRICS[0] + "{")
                  and 'source="origin"' in line and float(line.rpartition(" ")[2]) == 150_000]
        return text if wanted else None

    def test_metrics_over_tcp_when_asked(self):
        port = process.free_port()
        self.up("--metrics", f"127.0.0.1:{port}")
        text = subprocess.run(["curl", "-sf", f"http://127.0.0.1:{port}/metrics"],
                              capture_output=True, text=True, check=True).stdout
        self.assertIn("granary_worker_capacity_bytes", text)

    def test_directories_and_sockets_are_private(self):
        self.up()
        for path in (self.granary.state, self.granary.cache):
            self.assertEqual(oct(path.stat().st_mode & 0o777), "0o700")
        for path in (self.granary.state / "granary.sock", self.granary.cache / "lease.sock"):
            self.assertEqual(oct(path.stat().st_mode & 0o777), "0o600")

    def test_purge_wants_a_yes_and_leaves_nothing(self):
        self.up()
        running = self.granary.run("purge", *self.granary.directories(), "--yes", check=False)
        self.assertNotEqual(running.returncode, 0)
        self.assertIn("still uses", running.stderr)
        self.granary.umount(self.mount)
        self.granary.wait_ended()
        asked = self.granary.run("purge", *self.granary.directories(), check=False)
        self.assertNotEqual(asked.returncode, 0)
        self.assertTrue(self.granary.state.exists())
        self.granary.run("purge", *self.granary.directories(), "--yes")
        self.assertFalse(self.granary.state.exists() or self.granary.cache.exists())

    def test_doctor_tells_what_is_there(self):
        text = self.granary.run("doctor", *self.granary.directories()).stdout
        self.assertIn("/dev/fuse", text)

    def test_fstab_helper_mounts(self):
        self.up()
        other = self.work.directory("other")
        bin_ = self.work.directory("bin")
        (bin_ / "granary").symlink_to(suite.BINARY)
        environment = {**self.granary.environment, "PATH": f"{bin_}:{os.environ['PATH']}"}
        helper = suite.ROOT / "cli/mount.granary"
        others = "allow_other," if os.geteuid() == 0 else ""
        subprocess.run([helper, "d", other, "-o",
                        f"rw,_netdev,nofail,allow_other,state-dir={self.granary.state}"],
                       env=environment, check=True, capture_output=True)
        compare.assert_diff_finds_nothing(self, self.origin, other)
        with self.assertRaises(OSError):
            (other / "new").write_bytes(b"")


if __name__ == "__main__":
    suite.main()
