"""Training jobs as people, a batch scheduler's plugin and mounts see them."""

import json
import subprocess
import sys
import time

from harness import nginx, page_cache, suite, toxiproxy, trees
from harness.job_case import BYTES, FILES, JobCase

sys.path.insert(0, str(suite.ROOT / "python"))

import granary_order  # noqa: E402

LIMIT = 10_000_000
SLOWER = 0.995


class Jobs(JobCase):
    def wait_no_job(self, name):
        suite.wait_until(lambda: name not in self.jobs(), 20, f"job {name} has ended")

    def call(self, method, message):
        done = subprocess.run(
            [suite.tool("grpcurl"), "-plaintext", "-unix", "-max-time", "20", "-import-path",
             suite.ROOT / "proto", "-proto", "granary/v1/job.proto", "-d", json.dumps(message),
             self.granary.state / "granary.sock", f"granary.v1.JobService/{method}"],
            capture_output=True, text=True, check=False)
        return done.returncode, json.loads(done.stdout or "{}"), done.stderr

    # ---- life ------------------------------------------------------------------------------

    def test_a_mount_starts_and_ends_the_job_that_it_names(self):
        self.up("--job", "train")
        job = self.jobs()["train"]
        self.assertTrue(job["implicit"])
        self.assertEqual(job["mounts"], 1)
        self.assertIsNone(job["ideal_bytes_per_s"])
        self.assertIsNone(job["predicted_bytes_per_s"])
        self.assertEqual(self.granary.status()["mounts"][0]["job"], "train")
        # One more mount of it, of the same process.
        other = self.work.directory("other")
        self.granary.run("up", self.origin, other, "--name", "d", "--job", "train",
                         *self.granary.directories())
        self.assertEqual(self.jobs()["train"]["mounts"], 2)
        self.granary.umount(other)
        suite.wait_until(lambda: self.jobs()["train"]["mounts"] == 1, 10, "one mount is left")
        second = self.work.directory("second")
        self.granary.run("up", self.origin, second, "--name", "d", *self.granary.directories())
        self.granary.umount(self.mount)
        self.wait_no_job("train")

    def test_a_job_is_declared_explained_and_ended(self):
        self.up("--job", "train", "--origin-limit", "10MB/s")
        told = self.granary.json("job", "start", "train", "--ideal-rate", "50MB/s", "--gpus", "4",
                                 "--epochs", "3")
        self.assertFalse(told["implicit"])
        self.assertEqual((told["gpus"], told["epochs"]), (4, 3))
        self.assertEqual(told["ideal_source"], "declared")
        self.assertEqual(told["dataset_bytes"], FILES * BYTES)
        # Nothing is cached yet: all that jobs may have of the origin, and no more.
        self.assertLessEqual(told["remote_bytes_per_s"], LIMIT)
        self.assertGreater(told["remote_bytes_per_s"], 0.95 * LIMIT)
        self.assertAlmostEqual(told["predicted_bytes_per_s"], told["remote_bytes_per_s"])
        text = self.granary.ask("job", "explain", "train").stdout
        for word in ("50.0 MB/s (declared)", "min(f*, b / (1 - c/d))", "IO bound", "more cache"):
            self.assertIn(word, text)
        self.assertEqual(self.granary.ask("job", "top", "--count", "2", "--interval", "1")
                         .stdout.count("train"), 2)
        self.granary.ask("job", "end", "train")
        self.assertEqual(self.jobs(), {})
        for path in sorted(self.mount.rglob("*"))[:20]:
            if path.is_file():
                path.read_bytes()
        suite.wait_until(lambda: self.granary.status()["mounts"][0]["job"] is None, 10,
                         "the mount heard that its job was ended")

    def test_jobs_survive_the_master(self):
        server = self.up("--origin-limit", "10MB/s", "--job", "one")
        self.granary.ask("job", "start", "one", "--ideal-rate", "50MB/s", "--weight", "2")
        before = self.jobs()["one"]
        server.kill()
        self.granary.wait_ended()
        self.up("--origin-limit", "10MB/s", "--job", "one")
        after = self.jobs()["one"]
        for key in ("ideal_bytes_per_s", "weight", "started_s", "cache_bytes",
                    "remote_bytes_per_s", "predicted_bytes_per_s"):
            self.assertEqual(after[key], before[key], key)
        self.assertEqual(after["mounts"], 1)

    def test_what_is_refused(self):
        self.up()
        for arguments, word in (
                (("start", "a/b", "--dataset", "d"), "named"),
                (("start", "one"), "--dataset"),
                (("start", "one", "--dataset", "x"), "no dataset"),
                (("start", "one", "--dataset", "d", "--weight", "-1"), "--weight"),
                (("start", "one", "--dataset", "d", "--weight", "1e9"), "weight"),
                (("start", "one", "--dataset", "d", "--gpus", "2000000"), "GPUs"),
                (("start", "one", "--dataset", "d", "--ideal-rate", "fast"), "--ideal-rate"),
                (("end", "one"), "no job"),
                (("explain", "one"), "no job"),
        ):
            done = self.granary.ask("job", *arguments, check=False)
            self.assertNotEqual(done.returncode, 0, arguments)
            self.assertIn(word, done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertEqual(self.jobs(), {})
        self.granary.ask("job", "start", "one", "--dataset", "d")
        other = self.work.directory("other-origin")
        trees.write_objects(other, trees.samples(3, 10))
        done = self.granary.run("up", other, self.work.directory("m2"), "--name", "e", "--job",
                                "one", *self.granary.directories(), check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("another dataset", done.stderr)

    def test_a_second_up_cannot_change_the_limit(self):
        self.up("--origin-limit", "10MB/s")
        done = self.granary.run("up", self.origin, self.work.directory("m2"), "--name", "d",
                                "--origin-limit", "20MB/s", *self.granary.directories(),
                                check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("--origin-limit", done.stderr)

    # ---- shares ----------------------------------------------------------------------------

    def test_weights_share_bandwidth_and_the_storage_flag_the_cache(self):
        self.up("--origin-limit", "10MB/s")
        for name, weight in (("light", "1"), ("heavy", "3")):
            self.granary.ask("job", "start", name, "--dataset", "d", "--ideal-rate", "1GB/s",
                             "--weight", weight)
        jobs = self.jobs()
        self.assertAlmostEqual(jobs["heavy"]["remote_bytes_per_s"]
                               / jobs["light"]["remote_bytes_per_s"], 3, delta=0.01)
        self.assertEqual(self.granary.json("job", "ls")["cluster"]["storage"], "joint")
        # One dataset is charged once.
        self.assertEqual(jobs["heavy"]["cache_bytes"], jobs["light"]["cache_bytes"])
        stat = self.granary.stat("d")
        self.assertEqual(stat["granted_bytes"], jobs["heavy"]["cache_bytes"])

    def test_one_more_job_is_asked_about(self):
        self.up("--origin-limit", "10MB/s", "--job", "one")
        self.granary.ask("job", "start", "one", "--ideal-rate", "20MB/s")
        told = self.granary.json("plan", "--live", "--dataset", "d", "--ideal-rate", "20MB/s")
        self.assertEqual([job["name"] for job in told["others"]], ["one"])
        other = told["others"][0]
        self.assertAlmostEqual(other["now_bytes_per_s"], 20e6, delta=1)
        self.assertLess(other["first_epoch_bytes_per_s"], SLOWER * other["now_bytes_per_s"])
        self.assertTrue(told["slows_others_in_first_epoch"])
        self.assertIn("slow others", self.granary.ask(
            "plan", "--live", "--dataset", "d", "--ideal-rate", "20MB/s").stdout)
        self.assertEqual(list(self.jobs()), ["one"])
        done = self.granary.ask("plan", "--live", check=False)
        self.assertIn("--dataset", done.stderr)

    # ---- what loaders measure ---------------------------------------------------------------

    def test_a_loader_that_times_its_steps_tells_how_fast_it_could_read(self):
        self.up("--job", "train")
        computed, batch = [], [path.name for path in sorted(self.mount.iterdir())][:1] * 10
        for number, _ in enumerate(granary_order.timed([batch] * 100, self.mount, workers=3)):
            begun = time.monotonic()
            time.sleep(0.05)
            computed.append(time.monotonic() - begun)
            if number % 20 == 19:
                job = self.jobs()["train"]
        ideal = len(batch) * BYTES * len(computed) / sum(computed)
        self.assertEqual((job["ideal_source"], job["loaders"], job["loader_workers"]),
                         ("steps", 1, 3))
        self.assertLess(abs(job["ideal_bytes_per_s"] / ideal - 1), 0.1)
        self.assertEqual(job["ideal_bytes_per_s"], job["measured_ideal_bytes_per_s"])
        self.assertLess(job["data_wait_ratio"], 0.5)
        self.assertIsNotNone(job["predicted_bytes_per_s"])
        # What is declared holds, and what was measured is shown beside it.
        job = self.granary.json("job", "start", "train", "--ideal-rate", "1GB/s")
        self.assertEqual((job["ideal_source"], job["ideal_bytes_per_s"]), ("declared", 1e9))
        self.assertIn("processes read for it", self.granary.ask("job", "explain", "train").stdout)

    # ---- for what reads wait ----------------------------------------------------------------

    def read(self, count):
        """Backwards, which is no sequence: each read waits for its own file."""
        paths = sorted(path for path in self.mount.rglob("*") if path.is_file())[:count]
        for path in reversed(paths):
            path.read_bytes()

    def waits(self):
        """Once they stand still; in all, and of each cause the part."""
        self.granary.settled_stat("d")
        waits = self.jobs()["train"]["read_wait_s"]
        total = sum(waits.values())
        return total, {cause: seconds / total for cause, seconds in waits.items()}

    def test_a_slow_origin_is_told_from_a_small_share(self):
        server = nginx.Static(self.work, self.origin)
        far = toxiproxy.Toxiproxy(self.work, server.port)
        far.add("latency", latency=100)
        self.granary.up(f"{far.endpoint}/", self.mount, "--name", "d", "--job", "train", "--quota",
                        "0")
        self.read(30)
        total, parts = self.waits()
        self.assertGreater(total, 30 * 0.1)
        self.assertGreater(parts["origin"], 0.9, parts)

    def test_a_small_share_is_told_from_a_slow_origin(self):
        self.up("--job", "train", "--quota", "0", "--origin-limit", "1MB/s")
        self.read(30)
        total, parts = self.waits()
        # All of it at the limit, but for the burst that a second may have.
        self.assertGreater(total, 30 * BYTES / 1e6 - 1.5)
        self.assertGreater(parts["share"], 0.9, parts)
        text = self.granary.ask("job", "explain", "train").stdout
        self.assertRegex(text, r"reads waited +\d+\.\d s: origin share [1-9]")

    def test_the_store_of_this_host_is_the_disk(self):
        self.granary.up(self.origin, self.mount, "--name", "d", "--job", "train", "--cache-size",
                        "200MB")
        self.read(300)
        self.granary.settled_stat("d")
        before = self.jobs()["train"]["read_wait_s"]
        page_cache.drop_below(self.mount)
        self.read(300)
        self.granary.settled_stat("d")
        after = self.jobs()["train"]["read_wait_s"]
        grown = {cause: after[cause] - before[cause] for cause in after}
        self.assertGreater(grown["disk"], 0)
        self.assertLess(sum(grown.values()) - grown["disk"], 0.2 * grown["disk"], grown)

    def test_timing_changes_nothing_where_there_is_no_mount(self):
        self.assertEqual(list(granary_order.timed([1, 2, 3], self.origin, samples=1)), [1, 2, 3])

    # ---- any gRPC client -------------------------------------------------------------------

    def test_a_batch_scheduler_starts_and_ends_jobs_by_grpc(self):
        self.up("--origin-limit", "10MB/s")
        code, job, said = self.call("Start", {"name": "batch", "dataset": "d", "gpus": 8,
                                              "ideal_bytes_per_s": 5e7})
        self.assertEqual(code, 0, said)
        self.assertEqual((job["name"], job["gpus"], job["idealSource"]), ("batch", "8", "declared"))
        code, listed, said = self.call("List", {})
        self.assertEqual(code, 0, said)
        self.assertEqual(listed["cluster"]["originBytesPerS"], LIMIT)
        self.assertEqual(len(listed["jobs"]), 1)
        code, planned, said = self.call("Plan", {"job": {"name": "next", "dataset": "d"}})
        self.assertEqual(code, 0, said)
        self.assertEqual(planned["others"][0]["name"], "batch")
        self.assertEqual(self.call("End", {"name": "batch"})[0], 0)
        code, _, said = self.call("End", {"name": "batch"})
        self.assertNotEqual(code, 0)
        self.assertIn("NotFound", said)
        for message in ({"name": "x", "dataset": "d", "ideal_bytes_per_s": "NaN"},
                        {"name": "x", "dataset": "d", "ideal_bytes_per_s": "Infinity"},
                        {"name": "x", "dataset": "d", "weight": -1},
                        {"name": "x" * 5000, "dataset": "d"}):
            code, _, said = self.call("Start", message)
            self.assertNotEqual(code, 0)
            self.assertIn("InvalidArgument", said)


if __name__ == "__main__":
    suite.main()
