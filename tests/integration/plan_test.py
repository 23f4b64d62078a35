"""`granary plan`: problems from JSON, held against a second, naive solver, and what is refused."""

import copy
import json
import math
import os
import random
import subprocess
import unittest

from harness import suite

SECONDS = 30
PROBLEM = {
    "capacity": {"gpus": 8, "cache_bytes": 50 * 10**9, "remote_bytes_per_s": 250e6},
    "datasets": [{"name": "d", "bytes": 100 * 10**9}],
    "jobs": [{"name": "j", "dataset": "d", "gpus": 1, "ideal_bytes_per_s": 1e9,
              "remaining_bytes": 300 * 10**9, "arrival_s": 0}],
}


def run(problem, *flags):
    text = problem if isinstance(problem, str) else json.dumps(problem)
    return subprocess.run([suite.BINARY, "plan", "-", *flags], input=text, text=True, check=False,
                          capture_output=True, timeout=SECONDS)


def plan(problem, policy, storage):
    done = run(problem, "--policy", policy, "--storage", storage, "-o", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# ---- the second solver ----------------------------------------------------------------------


def random_problem(rng):
    datasets = [{"name": f"d{i}", "bytes": rng.randrange(1, 2000) * 10**9}
                for i in range(rng.randrange(1, 6))]
    jobs = [{"name": f"j{i}", "dataset": rng.choice(datasets)["name"], "gpus": rng.randrange(1, 9),
             "ideal_bytes_per_s": rng.uniform(1e7, 5e9),
             "remaining_bytes": rng.randrange(10**9, 10**13), "arrival_s": rng.randrange(100)}
            for i in range(rng.randrange(1, 12))]
    return {"capacity": {"gpus": rng.randrange(8, 60), "cache_bytes": rng.randrange(10**12, 5 * 10**12),
                         "remote_bytes_per_s": rng.uniform(1e8, 4e9)},
            "datasets": datasets, "jobs": jobs}


def miss(cached, size):
    return (size - cached) / size


def sjf_score(job, sizes, capacity):
    size = sizes[job["dataset"]]
    cache = min(size, capacity["cache_bytes"])
    need = job["ideal_bytes_per_s"] * miss(cache, size)
    remote = min(capacity["remote_bytes_per_s"], need)
    perf = job["ideal_bytes_per_s"]
    if cache < size:
        perf = min(perf, remote / miss(cache, size))
    return job["remaining_bytes"] / perf * (
        job["gpus"] / capacity["gpus"] + cache / capacity["cache_bytes"]
        + remote / capacity["remote_bytes_per_s"])


def admitted(problem, policy, sizes):
    key = (lambda j: sjf_score(j, sizes, problem["capacity"])) if policy == "sjf" else (lambda j: 0)
    left, running = problem["capacity"]["gpus"], []
    for job in sorted(problem["jobs"], key=lambda j: (key(j), j["arrival_s"])):
        if job["gpus"] <= left:
            running.append(job)
            left -= job["gpus"]
        elif policy != "sjf":
            break
    return running


def greedy(rates, running, sizes, capacity):
    worth = {name: sum(rates[j["name"]] for j in running if j["dataset"] == name) / size
             for name, size in sizes.items()}
    cache, left = dict.fromkeys(sizes, 0), capacity["cache_bytes"]
    for name in sorted(worth, key=lambda n: -worth[n]):
        if worth[name] > 0:
            cache[name] = min(sizes[name], left)
            left -= cache[name]
    return cache


def needed(rates, running, sizes, capacity):
    cache = greedy(rates, running, sizes, capacity)
    return sum(rates[j["name"]] * miss(cache[j["dataset"]], sizes[j["dataset"]]) for j in running)


def equal(job, n, sizes, capacity):
    size = sizes[job["dataset"]]
    cache = min(size, capacity["cache_bytes"] / n)
    if cache >= size:
        return job["ideal_bytes_per_s"]
    return min(job["ideal_bytes_per_s"],
               capacity["remote_bytes_per_s"] / n / miss(cache, size))


def fair(needs, total):
    """Max-min fair, smallest first."""
    granted, left = {}, total
    for k, name in enumerate(sorted(needs, key=needs.get)):
        granted[name] = min(needs[name], left / (len(needs) - k))
        left -= granted[name]
    return granted


class Plan(unittest.TestCase):
    def close(self, value, wanted):
        self.assertTrue(math.isclose(value, wanted, rel_tol=1e-6, abs_tol=1e-3), (value, wanted))

    def check_running(self, problem, policy, answer):
        sizes = {d["name"]: d["bytes"] for d in problem["datasets"]}
        running = admitted(problem, policy, sizes)
        names = {j["name"] for j in running}
        for said in answer["jobs"]:
            self.assertEqual(said["state"], "running" if said["name"] in names else "queued")
        gpus = sum(j["gpus"] for j in running)
        self.assertEqual(answer["left"]["gpus"], problem["capacity"]["gpus"] - gpus)
        return sizes, running, {j["name"]: j for j in answer["jobs"]}

    def check_rates(self, running, said, misses, granted):
        for job in running:
            name, m = job["name"], misses[job["name"]]
            wanted = job["ideal_bytes_per_s"] if m == 0 else min(
                job["ideal_bytes_per_s"], granted[name] / m)
            self.close(said[name]["hit_ratio"], 1 - m)
            self.close(said[name]["remote_bytes_per_s"], granted[name])
            self.close(said[name]["predicted_bytes_per_s"], wanted)

    def test_joint_in_order_is_what_a_second_solver_finds(self):
        rng = random.Random(1)
        for _ in range(40):
            problem, policy = random_problem(rng), rng.choice(["fifo", "sjf"])
            answer = plan(problem, policy, "joint")
            sizes, running, said = self.check_running(problem, policy, answer)
            ideal = {j["name"]: j["ideal_bytes_per_s"] for j in running}
            cache = greedy(ideal, running, sizes, problem["capacity"])
            self.assertEqual({d["name"]: d["cache_bytes"] for d in answer["datasets"]}, cache)
            left, misses, granted = problem["capacity"]["remote_bytes_per_s"], {}, {}
            for job in running:
                name = job["name"]
                misses[name] = miss(cache[job["dataset"]], sizes[job["dataset"]])
                granted[name] = min(job["ideal_bytes_per_s"] * misses[name], left)
                left -= granted[name]
            self.check_rates(running, said, misses, granted)
            self.close(answer["left"]["remote_bytes_per_s"], left)

    def test_max_min_is_what_bisection_finds(self):
        rng = random.Random(2)
        for _ in range(40):
            problem = random_problem(rng)
            answer = plan(problem, "max-min", "joint")
            sizes, running, said = self.check_running(problem, "max-min", answer)
            capacity = problem["capacity"]
            own = {j["name"]: equal(j, len(running), sizes, capacity) for j in running}

            def rates(level, running=running, own=own):
                return {j["name"]: min(j["ideal_bytes_per_s"], level * own[j["name"]])
                        for j in running}

            low, high = 0, 1e6
            for _ in range(100):
                middle = (low + high) / 2
                if needed(rates(middle), running, sizes, capacity) <= capacity["remote_bytes_per_s"]:
                    low = middle
                else:
                    high = middle
            for job in running:
                wanted = rates(low)[job["name"]]
                if said[job["name"]]["hit_ratio"] == 1:
                    wanted = job["ideal_bytes_per_s"]
                self.close(said[job["name"]]["predicted_bytes_per_s"], wanted)

    def test_private_and_whole_are_what_a_second_solver_finds(self):
        rng = random.Random(3)
        for _ in range(40):
            problem = random_problem(rng)
            total = problem["capacity"]["cache_bytes"]
            remote = problem["capacity"]["remote_bytes_per_s"]
            answer = plan(problem, "fifo", "private")
            sizes, running, said = self.check_running(problem, "fifo", answer)
            gpus = sum(j["gpus"] for j in running)
            misses = {j["name"]: miss(min(sizes[j["dataset"]], total * j["gpus"] // gpus),
                                      sizes[j["dataset"]]) for j in running}
            needs = {j["name"]: j["ideal_bytes_per_s"] * misses[j["name"]] for j in running}
            self.check_rates(running, said, misses, fair(needs, remote))
            answer = plan(problem, "fifo", "whole")
            said, left, cached = {j["name"]: j for j in answer["jobs"]}, total, set()
            worth = {name: sum(j["ideal_bytes_per_s"] for j in running if j["dataset"] == name) / size
                     for name, size in sizes.items()}
            for name in sorted(sizes, key=lambda n, worth=worth: -worth[n]):
                if worth[name] == 0 or sizes[name] > left:
                    break
                cached.add(name)
                left -= sizes[name]
            misses = {j["name"]: 0 if j["dataset"] in cached else 1 for j in running}
            needs = {j["name"]: j["ideal_bytes_per_s"] * misses[j["name"]] for j in running}
            self.check_rates(running, said, misses, fair(needs, remote))
            self.assertEqual(answer["left"]["cache_bytes"], left)

    def test_lru_is_a_fixed_point(self):
        rng = random.Random(4)
        for _ in range(40):
            problem = random_problem(rng)
            answer = plan(problem, "max-min", "lru")
            sizes, running, said = self.check_running(problem, "max-min", answer)
            cache = {d["name"]: d["cache_bytes"] for d in answer["datasets"]}
            read = {name: sum(said[j["name"]]["predicted_bytes_per_s"] for j in running
                              if j["dataset"] == name) for name in sizes}
            per_rate = max(cache[n] / read[n] for n in sizes if read[n])
            misses = {}
            for job in running:
                x = cache[job["dataset"]] / sizes[job["dataset"]]
                misses[job["name"]] = 1 - x - (1 - x) * math.log(1 - x) if x < 1 else 0
                if x < 1:
                    self.assertTrue(math.isclose(cache[job["dataset"]],
                                                 per_rate * read[job["dataset"]], rel_tol=1e-5))
            needs = {j["name"]: j["ideal_bytes_per_s"] * misses[j["name"]] for j in running}
            self.check_rates(running, said, misses,
                             fair(needs, problem["capacity"]["remote_bytes_per_s"]))

    # ---- the form ------------------------------------------------------------------------------

    def test_the_answer_has_the_documented_fields(self):
        answer = plan(PROBLEM, "fifo", "joint")
        self.assertEqual(answer, {
            "policy": "fifo", "storage": "joint",
            "datasets": [{"name": "d", "cache_bytes": 50 * 10**9}],
            "jobs": [{"name": "j", "state": "running", "gpus": 1, "remote_bytes_per_s": 250e6,
                      "predicted_bytes_per_s": 500e6, "hit_ratio": 0.5}],
            "left": {"gpus": 7, "cache_bytes": 0, "remote_bytes_per_s": 0.0}})
        queued = copy.deepcopy(PROBLEM)
        queued["jobs"][0]["gpus"] = 9
        self.assertEqual(plan(queued, "sjf", "joint")["jobs"][0], {
            "name": "j", "state": "queued", "gpus": 0, "remote_bytes_per_s": 0.0,
            "predicted_bytes_per_s": 0.0, "hit_ratio": 0.0})

    def test_a_table_for_people(self):
        done = run(PROBLEM, "--policy", "fifo")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"(?m)^j +running +d +1 +250 MB +500 MB +50.0 % +50.0 %$")
        self.assertRegex(done.stdout, r"(?m)^d +100 GB +50.0 GB +50.0 %$")
        self.assertIn("left: 7 GPUs, 0 B of cache, 0 B/s of the origin", done.stdout)

    def test_optional_fields_are_taken(self):
        problem = copy.deepcopy(PROBLEM)
        problem["datasets"][0].update(min_cache_bytes=0, max_cache_bytes=20e9)
        problem["jobs"][0].update(min_remote_bytes_per_s=1e6, weight=2, irregular=False)
        self.assertEqual(plan(problem, "max-min", "joint")["datasets"][0]["cache_bytes"], 20 * 10**9)

    def refused(self, text, change):
        problem = copy.deepcopy(PROBLEM)
        change(problem)
        done = run(problem)
        self.assertEqual(done.returncode, 2, done.stdout)
        self.assertIn(text, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    def test_what_is_wrong_is_named(self):
        def put(*path):
            def change(problem):
                for key in path[:-2]:
                    problem = problem[key]
                problem[path[-2]] = path[-1]
            return change

        def drop(*path):
            def change(problem):
                for key in path[:-1]:
                    problem = problem[key]
                del problem[path[-1]]
            return change

        for text, change in (
                ("the problem has an unknown field 'extra'", put("extra", 1)),
                ("capacity has an unknown field 'cpus'", put("capacity", "cpus", 1)),
                ("jobs[0] has an unknown field 'gpu'", put("jobs", 0, "gpu", 1)),
                ("datasets[0] has an unknown field 'size'", put("datasets", 0, "size", 1)),
                ("capacity is missing", drop("capacity")),
                ("jobs is missing", drop("jobs")),
                ("datasets is not an array", put("datasets", {})),
                ("jobs[0] is not an object", put("jobs", 0, 7)),
                ("jobs[0].gpus is missing", drop("jobs", 0, "gpus")),
                ("jobs[0].gpus is not a whole number", put("jobs", 0, "gpus", 1.5)),
                ("jobs[0].gpus is not a whole number", put("jobs", 0, "gpus", "1")),
                ("jobs[0].remaining_bytes is not a whole", put("jobs", 0, "remaining_bytes", -1)),
                ("jobs[0].remaining_bytes is not a whole", put("jobs", 0, "remaining_bytes", 1e19)),
                ("jobs[0].ideal_bytes_per_s is not a rate", put("jobs", 0, "ideal_bytes_per_s", -1)),
                ("jobs[0].ideal_bytes_per_s is not a number", put("jobs", 0, "ideal_bytes_per_s", "9")),
                ("jobs[0].dataset names none", put("jobs", 0, "dataset", "e")),
                ("jobs[0].weight is not between", put("jobs", 0, "weight", 0)),
                ("jobs[0].irregular is neither", put("jobs", 0, "irregular", 1)),
                ("jobs[0].name is not a name", put("jobs", 0, "name", "")),
                ("jobs[1].name is used twice", lambda p: p["jobs"].append(p["jobs"][0])),
                ("datasets[0].bytes is not a whole", put("datasets", 0, "bytes", None)),
                ("datasets[0].max_cache_bytes is below",
                 lambda p: p["datasets"][0].update(min_cache_bytes=2, max_cache_bytes=1)),
                ("capacity.remote_bytes_per_s is not a rate",
                 put("capacity", "remote_bytes_per_s", 1e30))):
            with self.subTest(text=text):
                self.refused(text, change)

    def test_what_is_no_json_is_refused_with_its_line(self):
        for text in ("", "{", "[1, 2", '{"capacity":\n nan}', '{"jobs": [], "jobs": []}',
                     '{"capacity": {"gpus": 99999999999999999999}}', '{"a": 1e999}', "\xff"):
            with self.subTest(text=text):
                done = run(text)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertRegex(done.stderr, r"^granary: -(, line -?\d+)?: ")

    def test_a_file_that_is_not_there_is_not_found(self):
        done = subprocess.run([suite.BINARY, "plan", "/nowhere/problem.json"], text=True, check=False,
                              capture_output=True, timeout=SECONDS)
        self.assertEqual(done.returncode, 4)
        self.assertIn("/nowhere/problem.json", done.stderr)


if __name__ == "__main__":
    assert os.access(suite.BINARY, os.X_OK), f"{suite.BINARY} is not built"
    suite.main()
