"""Origins that misbehave: what can be read is read, the rest fails in time and says why."""

import errno
import os
import pathlib
import re
import signal
import subprocess
import threading
import time

from harness import compare, page_cache, process, readers, suite, trees
from harness.fault_server import FaultServer
from harness.granary import Granary, is_mounted
from harness.minio import Minio
from harness.toxiproxy import Toxiproxy

TIMEOUT = 3
# A read that fails at its deadline is answered that much later at most, on a busy machine.
LATE = 4


class Faults(suite.Case):
    def setUp(self):
        super().setUp()
        self.objects = {f"f{number:02d}": trees.noise(number, 200_000) for number in range(40)}
        self.objects["large"] = trees.noise("large", 3 * trees.BLOCK)
        self.site = FaultServer(self.work, self.objects)
        self.mount = self.work.directory("mnt")
        self.granary = Granary(self.work)

    def up(self, *flags, timeout=TIMEOUT):
        return self.granary.up(self.site.url, self.mount, "--name", "d", "--read-timeout",
                               str(timeout), "--stall-timeout", "1s", "--connect-timeout", "1s", *flags)

    def read(self, name):
        self.assertEqual((self.mount / name).read_bytes(), self.objects[name])

    def assert_fails(self, name, within=TIMEOUT + LATE):
        began = time.monotonic()
        with self.assertRaises(OSError) as caught:
            (self.mount / name).read_bytes()
        self.assertEqual(caught.exception.errno, errno.EIO)
        self.assertLess(time.monotonic() - began, within)

    def assert_reason(self, server, pattern):
        """In the log, and in `status` of dataset or mount."""
        def shown():
            status = self.granary.status()
            rows = status["datasets"] + status["mounts"]
            return " ".join(row["last_error"] for row in rows).strip()

        suite.wait_until(lambda: re.search(pattern, shown()), 10, f"{pattern} in status")
        self.assertRegex(server.output(), pattern)
        suite.wait_until(lambda: self.granary.stat("d")["failed_reads"], 10, "a failed read told")
        time.sleep(1.1)  # the log has one failed read a second: the next one is to be in it, too

    # ---- what passes -----------------------------------------------------------------------

    def test_passing_faults_are_retried_and_no_read_fails(self):
        self.up(timeout=60)
        faults = [{"kind": "status", "status": status} for status in (500, 503, 429)]
        faults += [{"kind": kind} for kind in ("truncate", "reset", "stall", "stall-body")]
        # Backwards, which is no sequence: nothing is fetched before its fault is there.
        for number, fault in reversed(list(enumerate(faults))):
            with self.subTest(**fault):
                name = f"f{number:02d}"
                shown = self.site.fault(name, times=1 if "stall" in fault["kind"] else 2, **fault)
                self.read(name)
                self.assertEqual(shown.left, 0)
        fault = self.site.fault("large", "truncate", times=3)
        self.read("large")
        self.assertEqual(fault.shown, 3)

    def test_a_passing_fault_of_the_listing_is_retried(self):
        self.site.fault("", "status", times=2, status=503)
        self.up(timeout=60)
        self.assertEqual(len(os.listdir(self.mount)), len(self.objects))

    def test_status_answers_while_every_read_of_a_worker_hangs(self):
        """More of them than the worker has threads for reads (96), through two mounts."""
        objects = {f"s{number:03d}": trees.noise(number, 4096) for number in range(128)}
        site = FaultServer(self.work, objects)
        other = self.work.directory("mnt2")
        flags = ["--name", "d", "--read-timeout", "60", "--stall-timeout", "2s",
                 "--max-connections", "128"]
        self.granary.up(site.url, self.mount, *flags)
        self.granary.start("up", site.url, other, *self.granary.directories(), "--name", "d")
        suite.wait_until(lambda: is_mounted(other), 20, "the second mount")
        for name in objects:
            site.fault(name, "stall")
        wrong = []

        def read(number, name):
            path = (self.mount, other)[number % 2] / name
            if path.read_bytes() != objects[name]:
                wrong.append(name)

        threads = [threading.Thread(target=read, args=pair) for pair in enumerate(objects)]
        for thread in threads:
            thread.start()
        time.sleep(8)
        slowest = 0
        for _ in range(5):
            began = time.monotonic()
            status = self.granary.status()
            slowest = max(slowest, time.monotonic() - began)
            self.assertEqual([worker["alive"] for worker in status["workers"]], [True])
            self.assertEqual(len(status["mounts"]), 2)
        self.assertLess(slowest, 2)
        self.assertTrue(all(thread.is_alive() for thread in threads))
        site.heal()
        site.stop.set()
        for thread in threads:
            thread.join(60)
        self.assertFalse(any(thread.is_alive() for thread in threads))
        self.assertEqual(wrong, [])

    # ---- what does not pass ----------------------------------------------------------------

    def test_errors_that_stay_end_the_read_in_time_with_the_reason(self):
        server = self.up()
        for number, status in enumerate((500, 429)):
            with self.subTest(status):
                self.site.fault(f"f{number:02d}", "status", status=status)
                self.assert_fails(f"f{number:02d}")
        self.assert_reason(server, "(?s)f0[01].*(500|429)|(500|429).*f0[01]")
        self.read("f30")

    def test_silence_ends_the_read_in_time_with_the_reason(self):
        server = self.up()
        for name, kind in (("f00", "stall"), ("f01", "stall-body")):
            with self.subTest(kind):
                self.site.fault(name, kind)
                self.assert_fails(name)
        self.assert_reason(server, "f0[01]")

    def test_answers_that_stay_wrong_fail_in_time(self):
        self.up()
        for name, kind in (("f00", "reset"), ("large", "garbage-range"), ("large", "shifted")):
            with self.subTest(kind):
                self.site.fault(name, kind)
                self.assert_fails(name)

    def test_a_long_path_does_not_hide_the_reason(self):
        """As deep as trees get, and as long as paths do."""
        deep = "/".join(f"level-{number:02d}-of-a-tree" for number in range(40)) + "/deep.jpg"
        longest = "/".join("n" * 99 for _ in range(38)) + "/long.jpg"
        self.site = FaultServer(self.work, {deep: b"deep", longest: b"long"})
        server = self.up(timeout=30)
        for name in (deep, longest):
            with self.subTest(os.path.basename(name)):
                self.site.fault(name, "status", status=418)
                self.assert_fails(name, 30)
                own, reason = os.path.basename(name), "HTTP 418"
                self.assert_reason(server, rf"read of {name[:20]}\S*\.\.\.\S*/{own}, "
                                           rf"4 bytes at 0, failed: .*{reason}")
                suite.wait_until(lambda: self.told(own, reason), 10, "told by both")

    def told(self, name, reason):
        status = self.granary.status()
        return all(name in row["last_error"] and row["last_error"].endswith(reason)
                   for row in status["datasets"] + status["mounts"])

    def test_a_vanished_object_fails_at_once(self):
        server = self.up(timeout=60)
        self.site.fault("f05", "gone")
        self.assert_fails("f05", within=LATE)
        self.assert_reason(server, "f05")

    def test_an_object_of_another_size_is_never_served(self):
        server = self.up(timeout=60)
        for name in ("f06", "large"):
            with self.subTest(name):
                self.site.fault(name, "size")
                self.assert_fails(name, within=LATE)
                self.assert_reason(server, name)

    def test_an_object_that_was_replaced_is_never_served(self):
        self.site.objects["listing"] = self.site.listing()
        self.site.etags["listing"] = '"listing"'
        server = self.up("--index", self.site.url + "listing", timeout=60)
        self.read("f06")
        self.site.objects["f07"] = trees.noise("replaced", len(self.objects["f07"]))
        self.site.etags["f07"] = '"replaced"'
        self.assert_fails("f07", within=LATE)
        self.assert_reason(server, "f07")

    def test_a_server_without_ranges_never_gives_wrong_bytes(self):
        self.up()
        self.site.fault("large", "ignore-range")
        try:
            self.read("large")
        except OSError as failure:
            self.assertEqual(failure.errno, errno.EIO)

    # ---- nobody hangs ----------------------------------------------------------------------

    def test_while_one_object_stalls_others_are_read(self):
        self.up(timeout=30)
        self.site.fault("f00", "stall")
        stuck = subprocess.Popen(["cat", self.mount / "f00"], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        self.addCleanup(stuck.wait)
        self.addCleanup(stuck.kill)
        time.sleep(0.3)
        began = time.monotonic()
        for number in range(1, 40):
            self.read(f"f{number:02d}")
        self.assertLess(time.monotonic() - began, 15)
        self.assertIsNone(stuck.poll())

    def test_a_reader_can_be_interrupted(self):
        self.up(timeout=60)
        self.site.fault("f00", "stall")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with self.subTest(number):
                stuck = subprocess.Popen(["cat", self.mount / "f00"], stdout=subprocess.DEVNULL)
                time.sleep(0.5)
                self.assertIsNone(stuck.poll())
                stuck.send_signal(number)
                self.assertEqual(stuck.wait(5), -number)
        self.site.heal()
        self.read("f00")

    def test_umount_and_the_end_of_the_process_do_not_wait_for_a_stall(self):
        server = self.up(timeout=60)
        self.site.fault("f00", "stall")
        stuck = subprocess.Popen(["cat", self.mount / "f00"], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        self.addCleanup(stuck.kill)
        time.sleep(0.5)
        server.signal(signal.SIGTERM)
        self.assertEqual(server.wait(20), 0, server.output())
        self.assertNotEqual(stuck.wait(10), 0)

    def test_many_readers_of_one_stalled_file_all_get_an_answer(self):
        self.up()
        self.site.fault("large", "stall")
        failures = []

        def one():
            try:
                (self.mount / "large").read_bytes()
            except OSError as failure:
                failures.append(failure.errno)

        threads = [threading.Thread(target=one) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(3 * (TIMEOUT + LATE))
        self.assertEqual(failures, [errno.EIO] * 24)
        self.site.heal()
        time.sleep(1)  # so long a read that failed is not tried again
        self.read("large")

    def test_a_listing_that_fails_ends_up_with_the_reason(self):
        self.site.fault("", "status", status=403)
        done = self.granary.run("up", self.site.url, self.mount, *self.granary.directories(),
                                check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(len(process.error_lines(done.stderr)), 1, done.stderr)
        self.assertRegex(done.stderr, "403")
        self.assertEqual(self.granary.processes(), [])


class Network(suite.Case):
    """MinIO behind toxiproxy."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.minio = Minio(cls.shared)
        cls.proxy = Toxiproxy(cls.shared, cls.minio.port)
        cls.objects = {**trees.samples(150, 110_000), **trees.shards(1, 9_000_000)}
        cls.minio.fill("toxic", cls.objects)

    def setUp(self):
        super().setUp()
        self.mount = self.work.directory("mnt")
        self.granary = Granary(self.work, environment=self.minio.environment())
        self.granary.up("s3://toxic", self.mount, "--name", "d", "--endpoint", self.proxy.endpoint,
                        "--stall-timeout", "2s")
        self.expected = compare.expected_of(self.mount, self.objects)

    def test_connections_that_break_fail_no_read(self):
        self.proxy.add("reset_peer", toxicity=0.3, timeout=20)
        self.addCleanup(self._remove, "reset_peer")
        epoch = readers.Epoch(self.expected, 1)
        time.sleep(3)
        self._remove("reset_peer")
        readers.assert_clean(self, epoch.outcome())

    def test_a_server_that_is_away_for_a_while_fails_no_read(self):
        epoch = readers.Epoch(self.expected, 1)
        time.sleep(0.2)
        self.proxy.set_up(False)
        self.addCleanup(self.proxy.set_up, True)
        time.sleep(3)
        self.proxy.set_up(True)
        readers.assert_clean(self, epoch.outcome())

    def test_bodies_that_are_cut_fail_no_read(self):
        self.proxy.add("limit_data", toxicity=0.5, bytes=60_000)
        self.addCleanup(self._remove, "limit_data")
        epoch = readers.Epoch(self.expected, 1)
        time.sleep(3)
        self._remove("limit_data")
        readers.assert_clean(self, epoch.outcome())

    def _remove(self, kind):
        try:
            self.proxy.remove(kind)
        except OSError:
            pass  # gone already


class Replaced(suite.Case):
    def test_an_s3_object_that_is_overwritten_or_deleted_fails_loudly(self):
        minio = Minio(self.work)
        objects = trees.samples(20, 50_000)
        minio.fill("replaced", objects)
        mount = self.work.directory("mnt")
        granary = Granary(self.work, environment=minio.environment())
        server = granary.up("s3://replaced", mount, "--name", "d", "--endpoint", minio.endpoint)
        changed, gone, *_ = sorted(objects)
        minio.put("replaced", {changed: trees.noise("new", 50_000)})
        minio.delete("replaced", [gone])
        page_cache.drop_below(mount)
        outcome = readers.epoch(compare.expected_of(mount, objects), 1)
        self.assertEqual(outcome.wrong, {})
        self.assertEqual(outcome.failed,
                         {os.fsencode(mount / key): errno.EIO for key in (changed, gone)})
        self.assertRegex(server.output(), f"{pathlib.Path(changed).name}|{gone}")
        self.assertTrue(granary.settled_stat("d")["last_error"])


if __name__ == "__main__":
    suite.main()
