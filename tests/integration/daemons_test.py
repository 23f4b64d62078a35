"""Master, worker and mount as processes of their own: the death of any delays, and fails no read."""

import os
import signal
import threading
import time

from harness import compare, page_cache, process, readers, suite, trees, workspace
from harness.fault_server import FaultServer
from harness.granary import Granary, is_mounted
from harness.s3_origin import S3Origin


class Base(suite.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.s3 = S3Origin(cls.shared)
        cls.objects = {**trees.samples(400, 110_000), **trees.shards(3, 10_000_000)}
        cls.size = sum(map(len, cls.objects.values()))
        cls.url = cls.s3.fill("daemons", cls.objects)

    def setUp(self):
        super().setUp()
        self.mount = self.work.directory("mnt")
        self.granary = Granary(self.work, environment=self.s3.environment())
        self.expected = compare.expected_of(self.mount, self.objects)

    def start_master(self):
        server = self.granary.start("master", "--state-dir", self.granary.state)
        self.granary.wait_serving(server)
        return server

    def start_worker(self, *flags):
        server = self.granary.start("worker", *self.granary.directories(), *flags)
        self.granary.wait_serving(server)
        suite.wait_until(lambda: any(w["alive"] for w in self.granary.status()["workers"]), 20,
                         "a worker known to the master")
        return server

    def start_mount(self):
        server = self.granary.start("mount", "d", self.mount, "--state-dir", self.granary.state)
        self.granary.wait_mounted(server, self.mount)
        return server

    def read_all(self, seed):
        page_cache.drop_below(self.mount)
        readers.assert_clean(self, readers.epoch(self.expected, seed))
        return self.s3.object_bytes()


class Daemons(Base):
    def setUp(self):
        super().setUp()
        self.master = self.start_master()
        self.worker = self.start_worker()
        self.granary.ask("dataset", "add", "d", self.url, *self.s3.flags)
        self.mounter = self.start_mount()
        self.s3.object_bytes()

    def test_they_work_together(self):
        self.assertLessEqual(self.read_all(1), 1.02 * self.size)
        self.assertEqual(self.read_all(2), 0)
        stat = self.granary.settled_stat("d")
        # Parts of a block that are asked for after its fetch come from the store at once.
        self.assertEqual(stat["miss_bytes"] + stat["hit_bytes"], 2 * self.size)
        self.assertGreaterEqual(stat["hit_bytes"], self.size)

    def test_without_the_master_reads_go_on(self):
        half = dict(sorted(self.expected.items())[::2])
        readers.assert_clean(self, readers.epoch(half, 1))
        self.master.kill()
        # From the cache, and from the origin what is not in it.
        page_cache.drop_below(self.mount)
        readers.assert_clean(self, readers.epoch(self.expected, 2))
        time.sleep(3)
        self.s3.object_bytes()
        self.assertEqual(self.read_all(3), 0)
        self.master = self.start_master()
        suite.wait_until(lambda: len(self.granary.status()["mounts"]) == 1, 20,
                         "the mount known to the new master")
        self.assertEqual(self.read_all(4), 0)

    def test_without_the_worker_reads_go_on_from_the_origin(self):
        epoch = readers.Epoch(self.expected, 2)
        time.sleep(0.1)
        self.worker.kill()
        readers.assert_clean(self, epoch.outcome())
        self.s3.object_bytes()
        # What the mount has open of the dead worker's store it still reads there; that is little,
        # as the worker died when the first epoch had just begun.
        self.assertGreater(self.read_all(3), 0)
        self.worker = self.start_worker()
        # The mount learns of it with a heartbeat.
        suite.wait_until(lambda: self.read_all(4) == 0, 30, "read from the cache again")

    def test_a_worker_that_hangs_delays_the_first_read_alone(self):
        # Connections stand, and most of the dataset is in no store.
        paths = sorted(path for path in self.expected if b"shard" not in os.fsencode(path))
        first = {path: self.expected[path] for path in paths[:10]}
        readers.assert_clean(self, readers.epoch(first, 1))
        self.worker.signal(signal.SIGSTOP)
        times = [self.seconds_of(path) for path in paths[10:40]]
        self.assertLess(times[0], 12)
        self.assertLess(max(times[1:]), 5, times)
        page_cache.drop_below(self.mount)
        readers.assert_clean(self, readers.epoch(self.expected, 2))
        self.s3.object_bytes()
        self.worker.signal(signal.SIGCONT)
        suite.wait_until(lambda: self.read_all(3) == 0, 30, "read from the cache again")
        log = self.mounter.log.read_text(errors="replace")
        self.assertEqual(log.count("is left aside until it answers"), 1, log)
        self.assertEqual(log.count("answers again"), 1, log)

    def seconds_of(self, path):
        began = time.monotonic()
        readers.assert_clean(self, readers.epoch({path: self.expected[path]}, 1, processes=1))
        return time.monotonic() - began

    def test_a_slow_origin_is_no_hanging_worker(self):
        site = FaultServer(self.work, {"a": os.urandom(100_000)})
        mount = self.work.directory("slow")
        self.granary.ask("dataset", "add", "slow", site.url)
        mounter = self.granary.start("mount", "slow", mount, "--state-dir", self.granary.state)
        self.granary.wait_mounted(mounter, mount)
        site.fault("a", "stall", times=1)
        heal = threading.Timer(5, site.stop.set)
        heal.start()
        self.addCleanup(heal.cancel)
        self.assertEqual((mount / "a").read_bytes(), site.objects["a"])
        self.assertEqual(self.granary.settled_stat("slow")["cached_bytes"], 100_000)
        self.assertNotIn("left aside", mounter.log.read_text(errors="replace"))

    def test_with_master_and_worker_dead_mounted_data_stays_readable(self):
        self.worker.kill()
        self.master.kill()
        self.read_all(1)

    def test_a_killed_mount_leaves_the_others_clean_and_is_replaced(self):
        self.read_all(1)
        self.granary.kill_mount(self.mounter, self.mount)
        with self.assertRaises(OSError):
            os.statvfs(self.mount)
        self.mounter = self.start_mount()
        self.assertEqual(self.read_all(2), 0)
        held = [worker["held_bytes"] for worker in self.granary.status()["workers"]]
        self.assertEqual(held, [0])
        if suite.LARGE:
            suite.wait_until(lambda: len(self.granary.status()["mounts"]) == 1, 120,
                             "the dead mount forgotten")

    def test_umount_ends_the_mount_alone(self):
        self.granary.umount(self.mount)
        self.assertEqual(self.mounter.wait(20), 0)
        self.assertFalse(is_mounted(self.mount))
        self.assertTrue(self.master.running() and self.worker.running())
        suite.wait_until(lambda: self.granary.status()["mounts"] == [], 10, "unmounted in status")

    def test_all_of_them_run_in_the_background_too(self):
        for server in (self.mounter, self.worker, self.master):
            server.signal(15)
            self.assertEqual(server.wait(20), 0, server.output())
        self.assertEqual(workspace.mounts_below(self.mount), [])
        self.granary.ask("master", "--daemon")
        self.granary.run("worker", *self.granary.directories(), "--daemon")
        self.granary.ask("mount", "d", self.mount, "--daemon")
        self.assertTrue(is_mounted(self.mount))
        self.read_all(1)
        logs = sorted(path.name for path in self.granary.state.glob("*.log"))
        mount_log = "mount" + str(self.mount).replace("/", "-") + ".log"
        self.assertEqual(logs, ["master.log", mount_log, "worker.log"])


class ListeningWorker(Base):
    """A worker that serves other hosts, too, and wants a token of them."""

    def setUp(self):
        super().setUp()
        token = self.work.path / "token"
        token.write_text("0123456789abcdef0123456789abcdef\n")
        self.listen = f"127.0.0.1:{process.free_port()}"
        self.master = self.start_master()
        self.worker = self.start_worker("--listen", self.listen, "--token-file", token)
        self.granary.ask("dataset", "add", "d", self.url, *self.s3.flags)
        self.s3.object_bytes()

    def refusals(self, mounter):
        lines = mounter.log.read_text(errors="replace").splitlines()
        return [line for line in lines if "refuses this mount" in line]

    def test_a_mount_of_its_host_needs_no_token(self):
        self.assertEqual(self.granary.status()["workers"][0]["address"], self.listen)
        mounter = self.start_mount()
        self.assertLessEqual(self.read_all(1), 1.02 * self.size)
        self.assertEqual(self.read_all(2), 0)
        self.assertEqual(self.granary.settled_stat("d")["cached_bytes"], self.size)
        self.assertEqual(self.refusals(mounter), [])

    def test_one_that_is_refused_says_once_what_to_do(self):
        # As in a container that does not see the worker's directory.
        (self.granary.state / "worker.sock").unlink()
        mounter = self.start_mount()
        self.read_all(1)
        self.assertGreater(self.read_all(2), 0)
        time.sleep(2)
        self.read_all(3)
        said = self.refusals(mounter)
        self.assertEqual(len(said), 1, said)
        self.assertIn(f" warn mount: the worker at {self.listen} ", said[0])
        self.assertIn("--token-file", said[0])


if __name__ == "__main__":
    suite.main()
