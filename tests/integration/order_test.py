"""Announced orders: what a job says that it will read is there before it asks, once and correctly."""

import json
import os
import random
import socket
import struct
import subprocess
import sys
import textwrap
import time

from harness import compare, page_cache, readers, suite, toxiproxy, trees
from harness.granary import Granary, xattr
from harness.s3_origin import S3Origin

sys.path.insert(0, str(suite.ROOT / "python"))

import granary_order  # noqa: E402  pylint: disable=wrong-import-position

FILES = 600
FILE_BYTES = 110_000
LATENCY_MS = 20
RECORD = 100_000
SLOW_SECONDS = 120


def frame(kind, payload=b""):
    return struct.pack("<II", kind, len(payload)) + payload


def in_order(paths, workers):
    """Reads them as the processes of a loader do: in turn, at about the same pace."""
    def share(number):
        outcome = readers.Outcome()
        for path in paths[number::workers]:
            outcome.add(readers.read_share(EXPECTED, [os.fsencode(path)]))
        return outcome

    total = readers.Outcome()
    for outcome in readers.in_processes(share, range(workers)):
        total.add(outcome)
    return total


EXPECTED = {}


class Order(suite.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.s3 = S3Origin(cls.shared)
        cls.objects = {**trees.samples(FILES, FILE_BYTES),
                       "records.bin": trees.noise("records", 12 << 20)}
        cls.size = sum(map(len, cls.objects.values()))
        cls.url = cls.s3.fill("first", cls.objects)
        cls.samples = sorted(name for name in cls.objects if name != "records.bin")
        cls.sample_bytes = FILES * FILE_BYTES

    def setUp(self):
        super().setUp()
        self.mount = self.work.directory("mnt")
        self.granary = Granary(self.work, environment=self.s3.environment())
        self.far = toxiproxy.Toxiproxy(self.work, self.s3.proxy.port)
        self.far.add("latency", latency=LATENCY_MS)

    def up(self, *flags, quota=None):
        """With a tenth of the dataset, so that next to nothing is kept."""
        return self.granary.up(self.url, self.mount, "--name", "d", "--endpoint",
                               self.far.endpoint, "--quota", quota or str(self.size // 10), *flags)

    def shuffled(self, seed=1):
        names = list(self.samples)
        random.Random(seed).shuffle(names)
        EXPECTED.clear()
        EXPECTED.update(compare.expected_of(self.mount, self.objects))
        return names, [str(self.mount / name) for name in names]

    def hint(self, lines, *flags, check=True, end="\n"):
        done = subprocess.run([suite.BINARY, "hint", self.mount, *flags, "-o", "json"], text=True,
                              input="".join(line + end for line in lines), capture_output=True,
                              env=self.granary.environment, timeout=SLOW_SECONDS, check=False)
        if check:
            self.assertEqual(done.returncode, 0, done.stderr)
            return json.loads(done.stdout)
        return done

    def metric(self, what):
        """Of the process of `up`."""
        return self.granary.client_metric(f'order_bytes_total{{dataset="d",what="{what}"}}')

    def wait_metric(self, what, least):
        suite.wait_until(lambda: self.metric(what) >= least, SLOW_SECONDS, f"{what} >= {least}")

    def connect(self):
        connection = socket.socket(socket.AF_UNIX)
        self.addCleanup(connection.close)
        connection.settimeout(SLOW_SECONDS)
        connection.connect(xattr(self.mount, "order"))
        return connection

    def test_a_mount_that_does_not_answer_is_not_waited_for(self):
        silent = socket.socket(socket.AF_UNIX)
        self.addCleanup(silent.close)
        path = self.work.path / "silent.sock"
        silent.bind(str(path))
        silent.listen(1)
        os.setxattr(self.mount, "user.granary.order", os.fsencode(path))
        done = self.hint(["a"], check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("does not answer", done.stderr)

    # ---- an epoch --------------------------------------------------------------------------

    def test_an_announced_epoch_brings_each_byte_once(self):
        self.up()
        names, paths = self.shuffled()
        self.s3.object_bytes()
        self.assertEqual(self.hint(names),
                         {"announced": FILES, "unknown": 0, "first_unknown": None})
        began = time.monotonic()
        readers.assert_clean(self, in_order(paths, 4))
        announced = time.monotonic() - began
        self.assertLessEqual(self.s3.object_bytes(), 1.02 * self.sample_bytes)
        self.assertGreater(self.metric("used"), 0.8 * self.sample_bytes)
        page_cache.drop(self.mount)
        began = time.monotonic()
        readers.assert_clean(self, in_order(paths, 4))
        print(f"{FILES / announced:.0f} files/s announced, "
              f"{FILES / (time.monotonic() - began):.0f} not", file=sys.stderr)

    def test_it_is_brought_before_the_first_byte_is_asked_for(self):
        self.up()
        names, paths = self.shuffled()
        self.hint(names[:100])
        self.wait_metric("fetched", 100 * FILE_BYTES)
        self.s3.object_bytes()
        self.far.add("timeout", timeout=0)  # the origin falls silent
        readers.assert_clean(self, in_order(paths[:100], 4))
        self.assertEqual(self.metric("used"), 100 * FILE_BYTES)
        self.assertEqual(self.s3.object_bytes(), 0)

    def test_records_are_brought_by_range(self):
        self.up(quota="1M")  # no whole block fits
        body = self.objects["records.bin"]
        starts = list(range(0, len(body) - RECORD, RECORD))
        random.Random(2).shuffle(starts)
        self.s3.object_bytes()
        self.hint([f"{start} {RECORD} records.bin" for start in starts], "--records")
        with open(self.mount / "records.bin", "rb", buffering=0) as records:
            os.posix_fadvise(records.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            for start in starts:
                self.assertEqual(os.pread(records.fileno(), RECORD, start),
                                 body[start:start + RECORD])
        self.assertLessEqual(self.s3.object_bytes(), 1.1 * len(body))
        self.assertGreater(self.metric("used"), len(body) / 2)

    def test_a_large_file_is_read_across_its_pieces(self):
        self.up()
        self.hint(["records.bin"])
        self.s3.object_bytes()
        self.assertEqual((self.mount / "records.bin").read_bytes(), self.objects["records.bin"])
        self.assertLessEqual(self.s3.object_bytes(), 1.02 * len(self.objects["records.bin"]))

    # ---- what goes wrong -------------------------------------------------------------------

    def test_what_cannot_be_brought_is_left_to_its_reader(self):
        self.up()
        names, paths = self.shuffled()
        self.far.set_up(False)
        self.hint(names)
        log = self.granary.servers[-1].log
        suite.wait_until(lambda: "nothing is brought ahead" in log.read_text(), SLOW_SECONDS,
                         "a failure in the log")
        self.far.set_up(True)
        readers.assert_clean(self, in_order(paths, 4))

    def test_an_order_that_nobody_follows_takes_its_memory_and_no_more(self):
        self.up("--order-memory", "16MiB")
        names, _ = self.shuffled()
        self.hint(names)
        fits = (16 << 20) // (128 << 10)
        self.wait_metric("fetched", fits * FILE_BYTES)
        time.sleep(1)
        self.assertEqual(self.metric("fetched"), fits * FILE_BYTES)

    def test_a_switch_of_the_snapshot_drops_the_order(self):
        self.up()
        with granary_order.Order(self.mount) as order:
            names, _ = self.shuffled()
            order.announce(names)
            self.assertTrue(order.wait_announced(SLOW_SECONDS))
            self.assertEqual(order.status()["lists"], 1)
            self.s3.minio.put("first", {"new.bin": b"new"})
            self.addCleanup(self.s3.minio.delete, "first", ["new.bin"])
            self.granary.ask("dataset", "refresh", "d", "--switch")
            suite.wait_until(lambda: (self.mount / "new.bin").exists(), SLOW_SECONDS, "new.bin")
            suite.wait_until(lambda: order.status()["lists"] == 0, SLOW_SECONDS, "no list")
            order.announce(["new.bin"])
            self.assertTrue(order.wait_announced(SLOW_SECONDS))
            self.assertIsNone(order.error)
            self.assertEqual((self.mount / "new.bin").read_bytes(), b"new")

    def test_the_mount_ends_while_much_is_under_way(self):
        server = self.up()
        names, paths = self.shuffled()
        self.far.add("timeout", timeout=0)
        self.hint(names)
        reader = subprocess.Popen(["cat", *paths[:3]], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        self.addCleanup(reader.wait)
        time.sleep(1)
        self.granary.umount(self.mount, "--lazy")
        server.signal(15)
        self.assertEqual(server.wait(SLOW_SECONDS), 0)
        self.assertEqual(list(self.granary.state.glob("order-*")), [])

    def test_hint_refuses_what_it_cannot_announce(self):
        self.up()
        done = self.hint(["a"], "--records", check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("OFFSET BYTES PATH", done.stderr)
        done = self.hint(["/etc/passwd"], check=False)
        self.assertIn("does not lie below", done.stderr)
        done = self.hint(["nope", "not/there"], check=False)
        self.assertEqual((done.returncode, json.loads(done.stdout)),
                         (1, {"announced": 0, "unknown": 2, "first_unknown": "nope"}))
        self.assertEqual(self.hint([str(self.mount / self.samples[0]), "nope"], "-0",
                                   end="\0")["announced"], 1)
        done = self.granary.run("hint", self.work.path, check=False)
        self.assertEqual(done.returncode, 4)
        self.assertIn("not the mount point of a Granary mount", done.stderr)

    # ---- the socket ------------------------------------------------------------------------

    def test_whoever_breaks_the_protocol_is_told_and_disconnected(self):
        self.up()
        begin = struct.pack("<IIQ", 1, 0, 0)
        for sent in (frame(99), frame(1, b"x"), frame(1, struct.pack("<IIQ", 2, 0, 0)), frame(2),
                     frame(4), struct.pack("<II", 2, 1 << 20), frame(5, b"1"), frame(6), frame(7),
                     frame(1, begin) + frame(2, b"\xff\xffabc"),
                     frame(1, begin) + frame(3, b"\0" * 17)):
            with self.subTest(sent=sent[:40]):
                connection = self.connect()
                connection.sendall(sent)
                reply = b"".join(iter(lambda: connection.recv(65536), b""))
                if reply.startswith(struct.pack("<I", 101)):
                    reply = reply[24:]
                self.assertEqual(struct.unpack("<I", reply[:4])[0], 100, reply)
        chance = random.Random(4)
        for _ in range(200):
            connection = self.connect()
            connection.sendall(chance.randbytes(chance.randrange(1, 300)))
            connection.close()
        self.assertEqual(self.hint(self.samples[:1])["announced"], 1)

    def test_the_socket_is_for_its_owner(self):
        self.need_root()
        self.up()
        path = xattr(self.mount, "order")
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        with self.assertRaises(OSError):
            os.getxattr(self.mount / self.samples[0], "user.granary.order")
        self.granary.state.chmod(0o755)
        os.chmod(path, 0o666)
        code = textwrap.dedent("""
            import os, socket, sys
            os.setuid(65534)
            s = socket.socket(socket.AF_UNIX)
            s.connect(sys.argv[1])
            s.sendall(bytes(8))
            print(s.recv(1))
        """)
        done = subprocess.run([sys.executable, "-c", code, path], text=True, capture_output=True,
                              timeout=SLOW_SECONDS, check=False)
        self.assertTrue(done.stdout.strip() == "b''" or "reset" in done.stderr.lower() or
                        "broken pipe" in done.stderr.lower(), done)
        log = self.granary.servers[-1].log
        suite.wait_until(lambda: "another user was turned away" in log.read_text(), SLOW_SECONDS,
                         "a warning")

    # ---- the Python module -----------------------------------------------------------------

    def test_steps_let_go_of_what_was_not_read(self):
        self.up("--order-memory", "16MiB")
        with granary_order.Order(self.mount) as order:
            names, paths = self.shuffled()
            order.announce(names)
            self.assertTrue(order.wait_announced(SLOW_SECONDS))
            self.wait_metric("fetched", 128 * FILE_BYTES)
            readers.assert_clean(self, in_order(paths[:70], 1))
            order.step(1, 100)
            self.wait_metric("fetched", 228 * FILE_BYTES)
            self.assertEqual(self.metric("used"), 70 * FILE_BYTES)
            self.assertEqual(self.metric("dropped"), 30 * FILE_BYTES)
            status = order.status()
            self.assertEqual((status["step"], status["passed"], status["announced"]),
                             (1, 100, FILES))
        suite.wait_until(lambda: granary_order.Order(self.mount).status()["lists"] == 0,
                         SLOW_SECONDS, "the list gone with its connection")

    def test_a_sampler_announces_each_epoch(self):
        self.up()
        _, paths = self.shuffled()
        paths.sort()

        class Batches:
            epoch = 0

            def set_epoch(self, epoch):
                self.epoch = epoch

            def __len__(self):
                return FILES // 20

            def __iter__(self):
                order = list(range(FILES))
                random.Random(self.epoch).shuffle(order)
                return iter([order[n:n + 20] for n in range(0, FILES, 20)])

        inner = Batches()
        batches = granary_order.BatchSampler(inner, paths, self.mount)
        self.addCleanup(batches.order.close)
        self.assertEqual(len(batches), FILES // 20)
        for epoch in range(2):
            page_cache.drop(self.mount)
            batches.set_epoch(epoch)
            self.assertEqual(inner.epoch, epoch)
            self.s3.object_bytes()
            seen = []
            for batch in batches:
                seen.append(batch)
                readers.assert_clean(self, readers.read_share(EXPECTED, [os.fsencode(paths[i]) for i in batch]))
            self.assertEqual(seen, list(inner))
            self.assertLessEqual(self.s3.object_bytes(), 1.02 * self.sample_bytes)
        self.assertIsNone(batches.order.error)
        self.assertGreater(self.metric("used"), self.sample_bytes)

    def test_the_module_is_quiet_where_there_is_no_mount(self):
        order = granary_order.Order(self.work.path)
        self.assertFalse(order.available)
        order.announce(["a"])
        order.step(1, 1)
        self.assertIsNone(order.status())
        order.close()
        sampler = granary_order.Sampler([3, 1, 2], "abcd", self.work.path, batch_size=2)
        self.assertEqual((list(sampler), len(sampler)), ([3, 1, 2], 3))

    def test_a_list_that_does_not_fit_waits_for_the_reader(self):
        """The bound is two million; a second list would wait behind the first."""
        self.up()
        with granary_order.Order(self.mount) as order:
            names, _ = self.shuffled()
            many = (names[n % FILES] for n in range(2_200_000))
            order.announce(many)
            suite.wait_until(lambda: order.status()["announced"] >= 2_097_000, SLOW_SECONDS * 5,
                             "the bound")
            self.assertFalse(order.wait_announced(1))
            order.step(1, 200_000)
            self.assertTrue(order.wait_announced(SLOW_SECONDS * 5))
            self.assertEqual(order.status()["announced"], 2_200_000)


if __name__ == "__main__":
    suite.main()
