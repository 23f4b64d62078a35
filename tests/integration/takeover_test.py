"""The client of a mount dies, or is replaced, and nobody who reads notices.

GRANARY_TEST_LARGE=1 goes on for ten minutes with fifty kills of the client.
"""

import ctypes
import errno
import mmap
import os
import pathlib
import random
import signal
import stat
import struct
import subprocess
import time

from harness import page_cache, process, readers, suite, trees, workspace
from harness.granary import Granary, is_mounted
from harness.random_reader import RandomReader

SECONDS, KILLS = (600, 50) if suite.LARGE else (25, 12)
LARGE_FILES, LARGE_BYTES = 5, 3 * trees.BLOCK - 77
SMALL_FILES = 300
READERS_EACH = 3
STALL_SECONDS = 2
WAIT = 60  # only failures wait for it

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
                      ctypes.c_long]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def state_file(pid):
    """The memory that outlives the client, as a path."""
    for link in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        if "granary-mount" in os.readlink(link):
            return link
    raise AssertionError(f"process {pid} keeps no state")


class Map:
    """A map whose file is closed."""

    def __init__(self, path, size):
        self.size = size
        handle = os.open(path, os.O_RDONLY)
        self.address = LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, handle, 0)
        os.close(handle)
        assert self.address != ctypes.c_void_p(-1).value

    def bytes(self):
        return ctypes.string_at(self.address, self.size)

    def close(self):
        LIBC.munmap(self.address, self.size)


class Base(suite.Case):
    def setUp(self):
        super().setUp()
        self.need_root()
        self.objects = {**trees.shards(LARGE_FILES, LARGE_BYTES),
                        **{f"small/{n:03d}": trees.noise(n, n * n * 2 + 1)
                           for n in range(SMALL_FILES)}}
        self.size = sum(map(len, self.objects.values()))
        self.large = sorted(key for key in self.objects if len(self.objects[key]) == LARGE_BYTES)
        self.origin = self.work.directory("origin")
        trees.write_objects(self.origin, self.objects)
        self.granary = Granary(self.work)
        self.master = self.granary.start("master", "--state-dir", self.granary.state)
        self.granary.wait_serving(self.master)
        worker = self.granary.start("worker", *self.granary.directories(), "--cache-size",
                                    str(4 * self.size))
        self.granary.wait_serving(worker)
        self.granary.ask("dataset", "add", "d", f"file://{self.origin}")
        self.mounts = {}

    def start_mount(self, mode, *flags):
        mount = self.work.directory(mode)
        server = self.granary.start("mount", "d", mount, "--state-dir", self.granary.state,
                                    "--mode", mode, *flags)
        self.granary.wait_mounted(server, mount)
        self.mounts[mode] = mount
        return mount, server

    # ---- its processes -------------------------------------------------------------------------

    def client(self, mount):
        return self.granary.client_of(mount)

    def supervisor(self, mount):
        """It has one thread; a client that has just begun has one, too."""
        client = self.client(mount)
        return suite.wait_until(
            lambda: next((pid for pid in process.processes_with(str(mount))
                          if pid != client and len(process.threads(pid)) == 1), None),
            WAIT, f"a supervisor of {mount}")

    def kill_client(self, mount):
        client = self.client(mount)
        os.kill(client, signal.SIGKILL)
        return client

    def wait_replaced(self, mount, old):
        return suite.wait_until(lambda: (pid := self.client(mount)) != old and pid, WAIT,
                                f"another client of {mount}")

    def said(self, server):
        return server.log.read_text(errors="replace")

    # ---- reading -------------------------------------------------------------------------------

    def fill(self, mount):
        for key, data in self.objects.items():
            self.assertEqual((mount / key).read_bytes(), data)

    def metric(self, server, name):
        return self.granary.client_metric(name, f"mount-{server.pid}.metrics.sock")

    def passed(self, server):
        return self.metric(server, 'passthrough_opens_total{dataset="d"}')

    def need_passthrough(self):
        time.sleep(2.5)  # a heartbeat tells what it became
        if self.granary.status()["mounts"][0]["mode"] != "open, passthrough":
            self.skipTest("this kernel has no passthrough")

    def wait_passing(self, server, path):
        def passes():
            before = self.passed(server)
            os.close(os.open(path, os.O_RDONLY))
            return self.passed(server) > before

        suite.wait_until(passes, WAIT, f"{path} passed through")

    def read_at_random(self, until):
        each = [(mount, 10 * i + j) for i, mount in enumerate(self.mounts.values())
                for j in range(READERS_EACH)]
        return readers.Running(lambda one: RandomReader(
            one[0], self.objects, one[1], until, LARGE_BYTES).run(), each)


class Killed(Base):
    def setUp(self):
        super().setUp()
        for mode in ("open", "no-open"):
            self.start_mount(mode)

    def disturb(self, until, kills, deed):
        """`deed` so often until then, the page cache emptied and quotas moved in between."""
        draw = random.Random(7)
        began = time.monotonic()
        for number in range(kills):
            deed(number)
            while time.monotonic() < began + (number + 1) * (until - began) / kills:
                time.sleep(0.3)
                quota = draw.choice(["unlimited", "unlimited", str(draw.randrange(1, self.size))])
                draw.choice([page_cache.drop,
                             lambda quota=quota: self.granary.ask("quota", "set", "d", quota)])()

    def assert_all_right(self, running):
        done = running.results()
        self.assertGreater(min(done), 20)
        print(f"{sum(done)} reads compared", end=" ", flush=True)

    def test_no_reader_notices_that_the_client_is_killed(self):
        until = time.monotonic() + SECONDS
        running = self.read_at_random(until)
        self.disturb(until - 1, KILLS, lambda _: [self.kill_client(mount)
                                                  for mount in self.mounts.values()])
        self.assert_all_right(running)
        took = [mount["takeovers"] for mount in self.granary.status()["mounts"]]
        self.assertGreaterEqual(min(took), KILLS - 1)
        self.assertEqual([m["failed_reads"] for m in self.granary.status()["mounts"]], [0, 0])

    def test_client_and_supervisor_survive_each_other(self):
        until = time.monotonic() + (60 if suite.LARGE else 14)
        running = self.read_at_random(until)

        def deed(number):
            for mount in self.mounts.values():
                if number % 2:
                    self.kill_client(mount)
                    continue
                old = self.supervisor(mount)
                os.kill(old, signal.SIGKILL)
                suite.wait_until(lambda mount=mount, old=old: self.supervisor(mount) != old, WAIT,
                                 "another supervisor")

        self.disturb(until - 1, 8, deed)
        self.assert_all_right(running)
        for mount in self.mounts.values():
            self.granary.umount(mount)
        suite.wait_until(lambda: not [pid for mount in self.mounts.values()
                                      for pid in process.processes_with(str(mount))],
                         WAIT, "all of their processes ended")


class TakenOver(Base):
    """By --takeover, which is how another version comes to a mount that is read."""

    def take_over(self, mount, *flags):
        return self.granary.start("mount", "--takeover", mount, "--state-dir", self.granary.state,
                                  *flags)

    def wait_taken(self, server, seconds=WAIT):
        server.wait_ready(lambda: "took over d at" in self.said(server), seconds)

    def one_client(self, mount):
        """Never two at a time."""
        self.assertLessEqual(len(self.granary.clients_of(mount)), 1)

    def test_no_reader_notices(self):
        servers = [self.start_mount(mode)[1] for mode in ("open", "no-open")]
        until = time.monotonic() + (60 if suite.LARGE else 10)
        running = self.read_at_random(until)
        while time.monotonic() < until - 1:
            for number, mount in enumerate(self.mounts.values()):
                old, servers[number] = servers[number], self.take_over(mount)
                self.wait_taken(servers[number])
                self.assertEqual(old.wait(WAIT), 0, self.said(old))
                suite.wait_until(lambda mount=mount: self.listens(mount), WAIT, "it listens")
            page_cache.drop()
            time.sleep(0.3)
        print(f"{sum(running.results())} reads compared", end=" ", flush=True)
        self.assertEqual([m["failed_reads"] for m in self.granary.status()["mounts"]], [0, 0])
        pids = {server.pid for server in servers}
        suite.wait_until(lambda: {m["pid"] for m in self.granary.status()["mounts"]} == pids, WAIT,
                         "told to the master")
        for server in servers:
            server.signal(signal.SIGINT)
            self.assertEqual(server.wait(WAIT), 0)

    def listens(self, mount):
        done = self.granary.run("mount", "--takeover", "other", mount, "--state-dir",
                                self.granary.state, check=False)
        return "shows dataset d, not other" in done.stderr

    def test_one_that_dies_on_the_way_leaves_the_mount_as_it_was(self):
        mount, _ = self.start_mount("open")
        until = time.monotonic() + (60 if suite.LARGE else 12)
        running = self.read_at_random(until)
        draw = random.Random(3)
        while time.monotonic() < until - 2:
            taker = self.take_over(mount)
            time.sleep(draw.uniform(0, 0.06))
            taker.kill()
            self.assertTrue(os.stat(mount))
            self.client(mount)
            self.one_client(mount)
            time.sleep(0.2)
        running.results()
        self.wait_taken(self.take_over(mount))
        self.fill(mount)

    def test_another_version_is_refused_and_nothing_changes(self):
        mount, server = self.start_mount("no-open")
        client = self.client(mount)
        with open(state_file(server.pid), "r+b", buffering=0) as state:
            state.seek(8)
            version = state.read(4)
            state.seek(8)
            state.write(struct.pack("<I", 99))
            done = self.granary.ask("mount", "--takeover", mount, check=False)
            state.seek(8)
            state.write(version)
        self.assertEqual(done.returncode, 1)
        self.assertIn("version 99", done.stderr)
        self.assertTrue(server.running())
        self.assertEqual(self.client(mount), client)
        self.fill(mount)

    def test_what_cannot_be_taken_over_is_told(self):
        mount, server = self.start_mount("no-open")
        for arguments, code, text in (
                ((self.work.path,), 4, "no `granary mount` of this state directory serves"),
                (("other", mount), 2, "shows dataset d, not other"),
                (("d", self.work.path / "none" / "there"), 4, "cannot find")):
            done = self.granary.ask("mount", "--takeover", *arguments, check=False)
            self.assertEqual((done.returncode, text in done.stderr), (code, True), done.stderr)
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        done = subprocess.run([*nobody, suite.BINARY, "mount", "--takeover", mount, "--state-dir",
                               self.granary.state], env=self.granary.environment, text=True,
                              capture_output=True, check=False, timeout=WAIT)
        self.assertEqual(done.returncode, 1)
        self.assertIn("Permission denied", done.stderr)
        self.assertTrue(server.running())

    def test_a_daemon_takes_over_from_the_foreground_and_back(self):
        mount, server = self.start_mount("no-open")
        self.granary.ask("mount", "--takeover", mount, "--daemon")
        self.assertEqual(server.wait(WAIT), 0)
        log = self.granary.state / ("mount" + str(mount).replace("/", "-") + ".log")
        self.wait_replaced(mount, self.kill_client(mount))
        self.assertIn("another one goes on", log.read_text())
        self.fill(mount)
        suite.wait_until(lambda: self.listens(mount), WAIT, "it listens")
        back = self.take_over(mount)
        self.wait_taken(back)
        self.granary.umount(mount)
        self.assertEqual(back.wait(WAIT), 0)
        suite.wait_until(lambda: not process.processes_with(str(mount)), WAIT, "all ended")


class Unprivileged(suite.Case):
    """Through fusermount3, without passthrough."""

    USER = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]

    def granary(self, *arguments):
        done = subprocess.run([*self.USER, suite.BINARY, *map(os.fspath, arguments), "--state-dir",
                               self.work.path / "home" / "s"], env=self.environment, text=True,
                              capture_output=True, check=False, timeout=WAIT)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_client_of_a_user_is_replaced(self):
        self.need_root()
        for name in ("setpriv", "fusermount3"):
            suite.tool(name)
        if not workspace.private_namespace():
            self.skipTest("/dev/fuse is for root only")
        node = self.work.path / "fuse"
        os.mknod(node, 0o666 | stat.S_IFCHR, os.stat("/dev/fuse").st_rdev)
        node.chmod(0o666)
        subprocess.run(["mount", "--bind", node, "/dev/fuse"], check=True)
        origin, home, mount = map(self.work.directory, ("origin", "home", "mnt"))
        data = trees.noise(1, 300_000)
        for name in "abc":
            trees.write(origin / name, data)
        for path in (home, mount):
            os.chown(path, 65534, 65534)
        self.environment = process.clean_environment(home)
        self.granary("master", "--daemon")
        self.granary("worker", "--daemon", "--cache-dir", home / "c", "--cache-size", "100M")
        self.granary("dataset", "add", "d", f"file://{origin}")
        self.granary("mount", "d", mount, "--daemon")
        self.addCleanup(lambda: [process.end_pid(pid)
                                 for pid in process.processes_with(str(home / "s"))])
        for name in "abc":
            client = next(pid for pid in process.processes_with(str(mount))
                          if "supervised" in process.threads(pid))
            os.kill(client, signal.SIGKILL)
            seen = subprocess.run([*self.USER, "cat", mount / name], capture_output=True,
                                  check=True, timeout=WAIT)
            self.assertEqual(seen.stdout, data)
            suite.wait_until(lambda client=client: any(
                pid != client and "supervised" in process.threads(pid)
                for pid in process.processes_with(str(mount))), WAIT, "replaced")
        self.granary("mount", "--takeover", mount, "--daemon")
        seen = subprocess.run([*self.USER, "cat", mount / "a"], capture_output=True, check=True,
                              timeout=WAIT)
        self.assertEqual(seen.stdout, data)
        subprocess.run([*self.USER, suite.BINARY, "umount", mount], check=True, timeout=WAIT)
        suite.wait_until(lambda: not process.processes_with(str(mount)), WAIT, "all ended")


class One(Base):
    def test_a_read_waits_for_less_than_two_seconds(self):
        mount, _ = self.start_mount("no-open")
        for key in [f"small/{n:03d}" for n in range(250, 256)]:
            client = self.kill_client(mount)
            began = time.monotonic()
            self.assertEqual((mount / key).read_bytes(), self.objects[key])
            self.assertLess(time.monotonic() - began, STALL_SECONDS)
            self.wait_replaced(mount, client)
            time.sleep(1.1)

    def test_what_is_open_and_mapped_stays_readable(self):
        mount, server = self.start_mount("open")
        self.need_passthrough()
        self.fill(mount)
        for key in self.large[:3]:
            self.wait_passing(server, mount / key)
        passed = [os.open(mount / key, os.O_RDONLY) for key in self.large[:2]]
        cached = [(key, os.open(mount / key, os.O_RDONLY)) for key in ("small/299", "small/298")]
        for handle in passed + [handle for _, handle in cached]:
            self.addCleanup(os.close, handle)
        view = Map(mount / self.large[2], LARGE_BYTES)
        self.addCleanup(view.close)
        for _ in range(3):
            client = self.kill_client(mount)
            page_cache.drop()
            for key, handle in zip(self.large, passed):
                self.assertEqual(os.pread(handle, LARGE_BYTES, 0), self.objects[key])
                # Who opens it now has to be given what the others have.
                self.assertEqual((mount / key).read_bytes(), self.objects[key])
            for key, handle in cached:
                self.assertEqual(os.pread(handle, 1 << 20, 0), self.objects[key])
            self.assertEqual(view.bytes(), self.objects[self.large[2]])
            self.wait_replaced(mount, client)
            time.sleep(1.1)
        # What nobody has open any more is handed over anew.
        self.wait_passing(server, mount / self.large[3])

    def test_a_killed_client_leaves_no_file_of_the_store_behind(self):
        mount, server = self.start_mount("open")
        self.need_passthrough()
        self.fill(mount)
        for key in self.large:
            self.wait_passing(server, mount / key)
        self.wait_replaced(mount, self.kill_client(mount))
        self.granary.ask("quota", "set", "d", "0")
        suite.wait_until(lambda: self.granary.status()["workers"][0]["held_bytes"] == 0, WAIT,
                         "everything given back")

    def test_a_killed_client_that_the_kernel_holds_back_is_replaced(self):
        library = pathlib.Path(suite.BINARY).parent / "tests/integration/held_reply.so"
        if not library.exists():
            self.skipTest(f"{library} is not built")
        hold = self.work.path / "hold"
        held = self.work.path / "hold.held"
        mount = self.work.directory("no-open")
        server = self.granary.start("mount", "d", mount, "--state-dir", self.granary.state,
                                    "--mode", "no-open", "--no-preload",
                                    environment={"LD_PRELOAD": str(library),
                                                 "GRANARY_TEST_HOLD": str(hold)})
        self.granary.wait_mounted(server, mount)
        for key in ("small/251", "small/252", "small/253"):
            hold.touch()
            running = readers.Running(lambda key: (mount / key).read_bytes(), [key])
            suite.wait_until(held.exists, WAIT, "a read held")
            held.unlink()
            began = time.monotonic()
            client = self.kill_client(mount)
            self.assertEqual(running.results(), [self.objects[key]])
            self.assertLess(time.monotonic() - began, STALL_SECONDS)
            self.wait_replaced(mount, client)
            suite.wait_until(lambda client=client: not process.alive(client), WAIT, "it ended")
            time.sleep(1.1)
        self.assertEqual(self.said(server).count("while the kernel holds it back"), 3)
        self.assertGreater(self.metric(server, 'takeovers_total{dataset="d"}'), 2)
        # One that cannot be replaced is no reason to hang.
        with open(state_file(server.pid), "r+b", buffering=0) as state:
            state.seek(8)
            state.write(struct.pack("<I", 99))
        hold.touch()
        running = readers.Running(lambda key: (mount / key).read_bytes(), ["small/254"])
        suite.wait_until(held.exists, WAIT, "a read held")
        self.kill_client(mount)
        with self.assertRaisesRegex(AssertionError, r"OSError\(107"):
            running.results()
        self.assertNotEqual(server.wait(WAIT), 0)
        self.granary.umount(mount)

    def test_a_lazily_detached_mount_goes_on_too(self):
        mount, server = self.start_mount("open")
        key = "small/299"
        with open(mount / key, "rb", buffering=0) as file:
            self.granary.umount(mount, "--lazy")
            os.kill(self.client(mount), signal.SIGKILL)
            page_cache.drop()
            self.assertEqual(os.pread(file.fileno(), 1 << 20, 0), self.objects[key])
        self.assertEqual(server.wait(WAIT), 0, self.said(server))
        self.assertEqual(process.processes_with(str(mount)), [])

    def test_files_of_an_older_snapshot_stay_readable(self):
        mount, _ = self.start_mount("open")
        self.fill(mount)
        key = "small/250"
        old = self.objects[key]
        with open(mount / key, "rb", buffering=0) as held:
            trees.write_objects(self.origin, {key: b"another " + old})
            self.granary.ask("dataset", "refresh", "d", "--switch")
            suite.wait_until(lambda: (mount / key).stat().st_size == len(old) + 8, WAIT, "switched")
            # Names of manifests that nobody names any more go; what is open needs them.
            for path in (self.granary.state / "manifests").iterdir():
                path.unlink()
            self.wait_replaced(mount, self.kill_client(mount))
            page_cache.drop()
            self.assertEqual((mount / key).stat().st_size, len(old) + 8)
            self.assertEqual((mount / key).read_bytes(), b"another " + old)
            self.assertEqual(os.fstat(held.fileno()).st_size, len(old))
            self.assertEqual(os.pread(held.fileno(), len(old), 0), old)
        other = "small/251"
        self.assertEqual((mount / other).read_bytes(), self.objects[other])

    def test_without_the_master_a_client_is_replaced_too(self):
        mount, _ = self.start_mount("no-open")
        self.master.kill()
        self.wait_replaced(mount, self.kill_client(mount))
        self.fill(mount)

    def test_counters_and_the_masters_record_go_on(self):
        mount, server = self.start_mount("no-open")
        self.fill(mount)
        self.granary.settled_stat("d")
        before = self.granary.status()["mounts"]
        self.wait_replaced(mount, self.kill_client(mount))
        suite.wait_until(lambda: self.granary.status()["mounts"][0]["takeovers"] == 1, WAIT, "told")
        after = self.granary.status()["mounts"]
        self.assertEqual(len(after), 1)
        for key in ("pid", "mountpoint", "mode", "hit_bytes", "miss_bytes"):
            self.assertEqual(after[0][key], before[0][key])
        self.assertEqual(after[0]["pid"], server.pid)
        self.assertEqual(self.metric(server, 'takeovers_total{dataset="d"}'), 1)

    def test_a_client_that_cannot_start_lets_the_mount_go(self):
        mount, server = self.start_mount("no-open")
        self.addCleanup(self.granary.umount, mount)
        held = os.open(mount / "small/299", os.O_RDONLY)
        with open(state_file(server.pid), "r+b", buffering=0) as state:
            state.seek(8)
            state.write(struct.pack("<I", 99))
        self.kill_client(mount)
        self.assertNotEqual(server.wait(WAIT), 0)
        for deed in (lambda: os.pread(held, 100, 0), lambda: os.close(held)):
            with self.assertRaises(OSError) as failure:
                deed()
            self.assertEqual(failure.exception.errno, errno.ENOTCONN)
        said = self.said(server)
        self.assertIn("version 99", said)
        self.assertIn("the mount is let go", said)

    def test_umount_and_signals_end_all_of_it(self):
        for end in ("umount", "umount after a kill", "term", "term to the client"):
            with self.subTest(end):
                mount, server = self.start_mount("no-open")
                client = self.client(mount)
                if end == "umount after a kill":
                    os.kill(client, signal.SIGKILL)
                if end.startswith("umount"):
                    self.granary.umount(mount)
                elif end == "term":
                    server.signal(signal.SIGTERM)
                else:
                    os.kill(client, signal.SIGTERM)
                self.assertEqual(server.wait(WAIT), 0, self.said(server))
                self.assertFalse(is_mounted(mount))
                self.assertEqual(process.processes_with(str(mount)), [])

    def test_without_stdin_stdout_and_stderr(self):
        mount = self.work.directory("closed")
        subprocess.run(["sh", "-c", f"exec {suite.BINARY} mount d {mount} --daemon --state-dir "
                        f"{self.granary.state} <&- >&- 2>&-"], env=self.granary.environment,
                       check=True, timeout=WAIT)
        for _ in range(2):
            self.wait_replaced(mount, self.kill_client(mount))
            self.assertEqual((mount / "small/299").read_bytes(), self.objects["small/299"])
            time.sleep(1.1)
        self.granary.umount(mount)
        suite.wait_until(lambda: not process.processes_with(str(mount)), WAIT, "ended")

    def test_a_daemon_is_replaced_too(self):
        mount = self.work.directory("daemon")
        self.granary.ask("mount", "d", mount, "--daemon")
        pid = self.granary.pid_of(mount)
        self.wait_replaced(mount, self.kill_client(mount))
        self.fill(mount)
        log = self.granary.state / ("mount" + str(mount).replace("/", "-") + ".log")
        self.assertIn("another one goes on", log.read_text())
        os.kill(pid, signal.SIGTERM)
        suite.wait_until(lambda: not process.processes_with(str(mount)), WAIT, "ended")
        self.assertFalse(is_mounted(mount))


if __name__ == "__main__":
    suite.main()
