"""A job that declares nothing and times no steps: what a sample that the page cache does not keep shows
of it."""

import mmap
import random
import sys
import threading
import time

from harness import page_cache, suite, trees
from harness.job_case import BYTES, FILES, JobCase

SLOWER = 0.995
STEP_FILES = 10
STEP_SECONDS = 0.1
SAMPLE_DROP_SECONDS = 2.5
SAMPLED_SECONDS = 30  # two windows of ten seconds at least


class Loader:
    """Reads the files of a mount in new orders, a batch a step, and computes for the rest of the step."""

    def __init__(self, mount, files, batch, step):
        self.paths = sorted(path for path in mount.rglob("*") if path.is_file())[:files]
        self.batch, self.step = batch, step
        self.bytes, self.seconds = 0, 0
        self.stopping = False
        self.thread = threading.Thread(target=self._run, daemon=True)

    def read_all(self):
        for path in self.paths:
            path.read_bytes()

    def _run(self):
        begun, number, order = time.monotonic(), 0, []
        while not self.stopping:
            if len(order) < self.batch:
                order = random.sample(self.paths, len(self.paths))
            self.bytes += sum(len(order.pop().read_bytes()) for _ in range(self.batch))
            number += 1
            time.sleep(max(0, begun + number * self.step - time.monotonic()))
            self.seconds = time.monotonic() - begun

    def start(self):
        self.thread.start()

    def stop(self):
        self.stopping = True
        self.thread.join(60)

    def rate(self):
        return self.bytes / self.seconds


class Sampling(JobCase):
    def test_a_job_that_the_page_cache_answers_is_seen_and_keeps_its_share(self):
        self.up("--job", "train", "--sample", "10%", "--origin-limit", "30MB/s")
        other = self.work.directory("other")
        self.granary.run("up", self.origin, other, "--name", "d", "--job", "silent", "--sample", "0",
                         *self.granary.directories())
        self.granary.ask("job", "start", "silent", "--ideal-rate", "20MB/s")
        loaders = [Loader(mount, FILES, STEP_FILES, STEP_SECONDS) for mount in (self.mount, other)]
        for loader in loaders:  # until the page cache has all of it
            loader.read_all()
        suite.wait_until(lambda: self.jobs()["silent"]["hit_ratio"] > 0.5, 20, "its cache is filled")
        time.sleep(2)
        before, drops = self.jobs(), page_cache.drops()
        self.assertIsNone(before["train"]["ideal_bytes_per_s"])
        for loader in loaders:
            loader.start()
        time.sleep(SAMPLED_SECONDS)
        # On a machine that does other things readers wait now and then.
        suite.wait_until(lambda: self.jobs()["train"]["ideal_source"], 60, "a rate was sampled")
        after = self.jobs()
        for loader in loaders:
            loader.stop()
        self.check_sampled(after["train"], loaders[0].rate())
        # It read as much, and nobody has seen more of it than what the kernel happened to reclaim.
        seen = sum(after["silent"][key] - before["silent"][key] for key in ("hit_bytes", "miss_bytes"))
        if page_cache.drops() == drops:
            self.assertLess(seen, 0.02 * loaders[1].bytes)
        self.assertIsNone(after["silent"]["consumed_bytes"])
        for key in ("cache_bytes", "ideal_bytes_per_s", "mounts"):
            self.assertEqual(after["silent"][key], before["silent"][key], key)
        # What the other one was sampled at is its own: the silent job has no less than an equal share.
        self.assertGreaterEqual(after["silent"]["remote_bytes_per_s"],
                                SLOWER * before["silent"]["remote_bytes_per_s"])

    def check_sampled(self, job, rate):
        self.assertEqual(job["ideal_source"], "sampled")
        said = f"{job['ideal_bytes_per_s']:.0f} of {rate:.0f}, error {job['ideal_error']:.3f}"
        print(f"sampled ideal rate: {said}", file=sys.stderr)
        self.assertLess(abs(job["ideal_bytes_per_s"] / rate - 1), 0.2, said)
        self.assertLess(job["ideal_error"], 0.15)
        self.assertGreater(job["consumed_bytes"], FILES * BYTES)
        text = self.granary.ask("job", "explain", "train").stdout
        for word in ("(sampled, +-", "with what the page cache answered"):
            self.assertIn(word, text)
        # What is declared goes before it.
        told = self.granary.json("job", "start", "train", "--ideal-rate", "1GB/s")
        self.assertEqual((told["ideal_source"], told["ideal_error"]), ("declared", None))
        self.assertIsNotNone(told["sampled_ideal_bytes_per_s"])

    def test_a_job_that_waits_for_its_data_has_no_ideal_rate(self):
        self.up("--job", "train", "--sample", "100%", "--origin-limit", "2MB/s", "--quota", "0")
        loader = Loader(self.mount, FILES, 1, 0)
        loader.start()
        time.sleep(SAMPLED_SECONDS)
        job = self.jobs()["train"]
        loader.stop()
        self.assertIsNone(job["ideal_bytes_per_s"])
        self.assertIsNone(job["ideal_source"])
        self.assertLess(abs(job["consumed_bytes_per_s"] / loader.rate() - 1), 0.2)

    def test_what_is_mapped_stays_as_it_is_while_it_is_dropped(self):
        self.up("--job", "train", "--sample", "100%")
        wanted = trees.samples(FILES, BYTES)
        names = sorted(wanted)[:20]
        maps = {}
        for name in names:
            with open(self.mount / name, "rb") as file:
                maps[name] = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        ends, rounds = time.monotonic() + 8, 0
        while time.monotonic() < ends:
            for name in names:
                self.assertEqual(maps[name][:], wanted[name], name)
            rounds += 1
            time.sleep(0.1 if rounds % 10 else SAMPLE_DROP_SECONDS)
        self.granary.settled_stat("d")
        # It was asked for again, more than once, and not by each look at it.
        consumed = self.jobs()["train"]["consumed_bytes"]
        self.assertGreater(consumed, 2 * len(names) * BYTES)
        self.assertLess(consumed, rounds * len(names) * BYTES)

    def test_what_a_sample_may_be(self):
        for text in ("-1", "101%", "1x", "", "nan"):
            done = self.granary.run("up", self.origin, self.mount, "--job", "x", "--sample", text,
                                    *self.granary.directories(), check=False)
            self.assertNotEqual(done.returncode, 0, text)
            self.assertIn("--sample", done.stderr)


if __name__ == "__main__":
    suite.main()
