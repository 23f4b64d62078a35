"""Limits of single origins: jobs of two origins, one of them limited, and what each origin sees."""

import time

from harness import nginx, suite, trees
from harness.granary import Granary
from harness.reading_job import Job, most_in_a_second

FILES = 400
BYTES = 60_000
LIMIT = 3_000_000
NEAR = 0.2
SETTLED_SECONDS = 2
MEASURED_SECONDS = 5
# A request counts as of its end, which on a busy machine is late.
LATE = 1.1


class Limits(suite.Case):
    def setUp(self):
        super().setUp()
        self.need_fuse()
        self.servers, self.mounts, self.running = {}, {}, []
        for name in ("limited", "free"):
            root = self.work.directory(f"root-{name}")
            trees.write_objects(root / "data", {f"{number:04d}.bin": trees.noise(f"{name}{number}", BYTES)
                                                for number in range(FILES)})
            self.servers[name] = nginx.Static(self.work, root, name=name)
        self.granary = Granary(self.work)

    def tearDown(self):
        for job in self.running:
            job.stop()
        super().tearDown()

    def prefix(self, name):
        return f"{self.servers[name].url}/"

    def mount(self, job, origin, *flags):
        """One more mount; nothing is cached, so that each job is as fast as its share."""
        self.mounts[job] = self.work.directory(f"mnt-{job}")
        arguments = [f"{self.prefix(origin)}data/", self.mounts[job], "--name", job, "--job", job,
                     "--quota", "0", "--no-preload"]
        if flags:
            self.granary.up(*arguments, *flags)
        else:
            self.granary.run("up", *arguments, *self.granary.directories())
        self.granary.ask("job", "start", job, "--ideal-rate", "1GB/s")

    def read(self, name):
        job = Job(self.mounts[name])
        self.running.append(job)
        return job

    def measure(self, *jobs):
        time.sleep(SETTLED_SECONDS + MEASURED_SECONDS)
        end = time.time()
        return [job.rate(end - MEASURED_SECONDS, end) for job in jobs]

    def assert_near(self, value, wanted, what):
        self.assertLess(abs(value / wanted - 1), NEAR, f"{what}: {value:.0f} of {wanted:.0f}")

    def assert_at_most(self, value, wanted, what):
        """And most of it, also where others use the machine."""
        self.assertLess(value, LATE * wanted, what)
        self.assertGreater(value, 0.6 * wanted, what)

    def explain(self, name):
        return self.granary.json("job", "explain", name)

    def stop_all(self):
        for job in self.running:
            job.stop()
            self.assertEqual(job.errors, [])

    def test_one_origin_is_held_to_its_limit_and_the_other_is_not(self):
        self.mount("a", "limited", "--origin-limit", f"{self.prefix('limited')}={LIMIT}B/s")
        self.mount("b", "limited")
        self.mount("c", "free")
        self.granary.ask("job", "start", "a", "--weight", "3")
        alone = self.read("c")
        without, = self.measure(alone)
        rates = self.measure(self.read("a"), self.read("b"), alone)
        self.stop_all()
        self.assert_near(rates[0] + rates[1], LIMIT, "the limited origin")
        self.assert_near(rates[0], 0.75 * LIMIT, "three quarters of it")
        self.assertLess(most_in_a_second(self.servers["limited"]), LATE * LIMIT)
        # The other readers need some of the processor.
        self.assertGreater(rates[2], 0.5 * without)
        self.assertGreater(rates[2], 2 * LIMIT)
        told = self.explain("a")
        self.assertEqual(told["limited_origin"], self.prefix("limited").rstrip("/"))
        self.assertEqual(told["limited_origin_bytes_per_s"], LIMIT)
        self.assert_near(told["predicted_bytes_per_s"], rates[0], "what was predicted")
        self.assertIsNone(self.explain("c")["limited_origin"])
        self.assertIsNone(self.explain("c")["remote_bytes_per_s"])

    def test_what_a_limited_origin_cannot_give_goes_to_the_other_within_the_total(self):
        self.mount("a", "limited", "--origin-limit", f"{3 * LIMIT}B/s", "--origin-limit",
                   f"{self.prefix('limited')}={LIMIT}B/s")
        self.mount("c", "free")
        shares = {name: self.explain(name)["remote_bytes_per_s"] for name in ("a", "c")}
        self.assert_near(shares["a"], LIMIT, "granted of the limited origin")
        self.assert_near(shares["c"], 2 * LIMIT, "granted of the rest")
        rates = self.measure(self.read("a"), self.read("c"))
        self.stop_all()
        # On a busy machine neither may get what it could have: but each its part of what there was.
        self.assert_near(rates[0] / sum(rates), 1 / 3, "the limited origin's part")
        self.assertGreater(sum(rates), 0.6 * 3 * LIMIT)
        self.assertLess(most_in_a_second(self.servers["limited"]), LATE * LIMIT)
        origins = self.granary.json("job", "ls")["cluster"]["origins"]
        self.assertEqual([(o["prefix"], o["bytes_per_s"], o["bytes_per_s_left"]) for o in origins],
                         [(self.prefix("limited").rstrip("/"), LIMIT, 0)])

    def test_a_second_up_has_to_agree_about_limits(self):
        one, two = (f"{self.prefix(name)}={LIMIT}B/s" for name in ("limited", "free"))
        config = self.work.path / "granary.conf"
        config.write_text(f"origin-limit = {one}\norigin-limit = {two}\n")
        self.mount("a", "limited", "--config", config)
        other = self.work.directory("mnt-other")
        arguments = ["up", f"{self.prefix('free')}data/", other, "--name", "other",
                     *self.granary.directories()]
        refused = self.granary.run(*arguments, "--origin-limit", one, check=False)
        self.assertIn("--origin-limit", refused.stderr)
        self.granary.run(*arguments, "--origin-limit", two, "--origin-limit", one)

    def daemons(self, *limits, workers):
        """A master, so many workers and two mounts of two jobs on the limited origin."""
        state = ["--state-dir", self.granary.state]
        self.master = self.granary.start("master", *state, *limits)
        self.granary.wait_serving(self.master)
        started = [self.granary.start("worker", *self.worker_directories(number))
                   for number in range(workers)]
        suite.wait_until(lambda: sum(w["alive"] for w in self.granary.status()["workers"]) == workers,
                         20, f"{workers} workers known to the master")
        for name in ("a", "b"):
            self.mounts[name] = self.work.directory(f"mnt-{name}")
            self.granary.ask("dataset", "add", name, f"{self.prefix('limited')}data/", "--quota", "0")
            mount = self.granary.start("mount", name, self.mounts[name], "--job", name, "--no-preload",
                                       "--read-timeout", "3", *state)
            self.granary.wait_mounted(mount, self.mounts[name])
            self.granary.ask("job", "start", name, "--ideal-rate", "1GB/s")
        return started

    def worker_directories(self, number):
        """Each worker has a socket and a store of its own; the first beside the master's."""
        if number == 0:
            return [*self.granary.directories(), "--cache-size", "1GB"]
        state = self.work.directory(f"state-{number}")
        return ["--state-dir", state, "--cache-dir", self.work.directory(f"cache-{number}"),
                "--cache-size", "1GB", "--master", f"unix:{self.granary.state}/granary.sock"]

    def most_from(self, begin):
        return most_in_a_second(self.servers["limited"], begin)

    def test_what_mounts_read_past_a_dead_worker_is_a_hundredth_of_the_limit(self):
        limit = 30_000_000
        worker, = self.daemons("--origin-limit", f"{limit}B/s", workers=1)
        time.sleep(7)  # a new master is careful at first
        worker.kill()
        time.sleep(2)
        begin = time.time()
        jobs = [self.read("a"), self.read("b")]
        time.sleep(10)
        self.stop_all()
        self.assertLess(self.most_from(begin), LATE * limit / 100)
        for job in jobs:
            self.assertGreater(job.rate(begin, begin + 10), 0.3 * limit / 200)

    def test_without_any_worker_mounts_have_all_of_the_limit(self):
        self.daemons("--origin-limit", f"{self.prefix('limited')}={LIMIT}B/s", workers=0)
        self.granary.ask("job", "start", "a", "--weight", "3")
        time.sleep(7)
        begin = time.time()
        rates = self.measure(self.read("a"), self.read("b"))
        self.stop_all()
        self.assert_near(rates[0], 0.75 * LIMIT, "three quarters")
        self.assert_near(rates[1], 0.25 * LIMIT, "a quarter")
        self.assertLess(self.most_from(begin), LATE * LIMIT)

    def test_a_dead_worker_s_part_goes_to_the_other_within_seconds(self):
        workers = self.daemons("--origin-limit", f"{LIMIT}B/s", workers=2)
        time.sleep(4)  # the second has its part once the first has less
        begin = time.time()
        jobs = [self.read("a"), self.read("b")]
        time.sleep(6)
        now = time.time()
        self.assert_at_most(sum(job.rate(now - 4, now) for job in jobs), LIMIT, "both workers")
        workers[1].kill()
        killed = time.time()
        time.sleep(14)
        rates = [sum(job.rate(killed + at, killed + at + 4) for job in jobs) for at in (1, 10)]
        self.stop_all()
        # Its lease first: it might be at work and out of the master's sight.
        self.assertLess(rates[0], 0.6 * LIMIT)
        self.assert_near(rates[1], 0.75 * LIMIT, "half of the dead worker's part")
        self.assertLess(self.most_from(begin), LATE * LIMIT)

    def test_without_the_master_workers_fall_back_to_half_and_have_all_with_the_next_one(self):
        limits = ["--origin-limit", f"{self.prefix('limited')}={LIMIT}B/s"]
        self.daemons(*limits, workers=2)
        time.sleep(4)
        begin = time.time()
        jobs = [self.read("a"), self.read("b")]
        time.sleep(3)
        self.master.kill()
        killed = time.time()
        time.sleep(12)
        end = time.time()
        self.assert_at_most(sum(job.rate(killed + 7, end) for job in jobs), LIMIT / 2, "the bases")
        self.granary.start("master", "--state-dir", self.granary.state, *limits)
        time.sleep(6)
        back = time.time()
        time.sleep(4)
        again = sum(job.rate(back, back + 4) for job in jobs)
        self.assert_at_most(again, LIMIT, "all of it again")
        self.assertGreater(again, LATE * LIMIT / 2)
        self.stop_all()
        self.assertLess(self.most_from(begin), LATE * LIMIT)


if __name__ == "__main__":
    suite.main()
