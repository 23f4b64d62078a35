"""`granary sim`: the worked cases of docs/silod.md, traces, and what is refused."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import time
import unittest
import xml.etree.ElementTree

from harness import suite

SECONDS = 300
PHILLY = pathlib.Path(os.environ.get("GRANARY_TRACES", suite.ROOT.parent / "shared/data/traces"),
                      "philly.csv")
DOCUMENT = suite.ROOT / "docs/silod.md"
HEADING = "timestamp,duration,num_gpus\n"


def run(*arguments, text=None):
    return subprocess.run([suite.BINARY, "sim", *map(str, arguments)], input=text, text=True,
                          check=False, capture_output=True, timeout=SECONDS)


def simulate(*arguments, text=None):
    done = run(*arguments, "-o", "json", text=text)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def problem_of_the_document(heading):
    """The first JSON block below a heading."""
    part = DOCUMENT.read_text().split(f"### {heading}\n", 1)[1]
    return re.search(r"^```json\n(.*?)^```", part, flags=re.S | re.M).group(1)


def ends_of_the_document(heading):
    """{(policy, storage): [end of each job]} of the first table below a heading."""
    part = DOCUMENT.read_text().split(f"### {heading}\n", 1)[1].split("\n### ")[0]
    rows = re.findall(r"^\| ([a-z-]+) \| ([a-z]+) \| ([\d., |]+) \|$", part, flags=re.M)
    return {(policy, storage): [float(cell.replace(",", "")) for cell in cells.split("|")]
            for policy, storage, cells in rows}


class Sim(unittest.TestCase):
    def setUp(self):
        work = tempfile.TemporaryDirectory()
        self.addCleanup(work.cleanup)
        self.work = pathlib.Path(work.name)

    def check_document(self, heading, tolerance):
        wanted = ends_of_the_document(heading)
        self.assertGreater(len(wanted), 2)
        answer = simulate("-", text=problem_of_the_document(heading))
        said = {(r["policy"], r["storage"]): [j["finish_s"] for j in r["jobs"]]
                for r in answer["results"]}
        for pair, ends in wanted.items():
            for end, found in zip(ends, said[pair], strict=True):
                self.assertAlmostEqual(found, end, delta=tolerance, msg=pair)

    def test_one_job_ends_when_the_document_says(self):
        self.check_document("One job", 0.5)

    def test_three_jobs_end_when_the_document_says(self):
        self.check_document("Three jobs", 0.5)

    def test_all_pairs_are_reported(self):
        answer = simulate("--jobs", 200, "--gpus", 32, "--cache", "2TB", "--origin-limit", "4Gbps")
        self.assertEqual(answer["capacity"], {"gpus": 32, "cache_bytes": 2 * 10**12,
                                              "remote_bytes_per_s": 5e8})
        self.assertEqual([(r["policy"], r["storage"]) for r in answer["results"]],
                         [(p, s) for p in ("fifo", "sjf", "max-min")
                          for s in ("joint", "lru", "private", "whole")])
        for result in answer["results"]:
            self.assertLessEqual(result["p50_jct_s"], result["p90_jct_s"])
            self.assertLessEqual(result["p90_jct_s"], result["p99_jct_s"])
            self.assertTrue(0 < result["gpu_utilization"] <= 1)
            self.assertTrue(0 < result["gpu_efficiency"] <= 1)
            self.assertTrue(0 <= result["fairness"] <= result["mean_share"])
            self.assertGreater(result["origin_bytes"], 0)
            self.assertEqual(result["cache_filled"] is None, result["storage"] == "lru")

    def test_one_pair_when_asked(self):
        answer = simulate("--jobs", 50, "--policy", "sjf", "--storage", "whole")
        self.assertEqual([(r["policy"], r["storage"]) for r in answer["results"]],
                         [("sjf", "whole")])

    def test_the_seed_fixes_the_result(self):
        flags = ("--jobs", 100, "--gpus", 16, "--policy", "max-min", "--storage", "joint")
        once, again = simulate(*flags, "--seed", 7), simulate(*flags, "--seed", 7)
        self.assertEqual(once, again)
        self.assertNotEqual(once, simulate(*flags, "--seed", 8))

    def test_without_waiting_for_io_nothing_is_lost(self):
        answer = simulate("--jobs", 100, "--origin-limit", "10Tbps", "--cache", "0")
        for result in answer["results"]:
            self.assertAlmostEqual(result["gpu_efficiency"], 1, places=6)

    def test_a_plot_is_drawn(self):
        plot = self.work / "plot.svg"
        done = run("--jobs", 50, "--plot", plot)
        self.assertEqual(done.returncode, 0, done.stderr)
        root = xml.etree.ElementTree.parse(plot).getroot()
        bars = [e for e in root.iter("{http://www.w3.org/2000/svg}rect") if len(e)]
        self.assertEqual(len(bars), 3 * 12)
        self.assertIn("50 jobs", "".join(root.itertext()))

    def test_a_trace_is_read_in_any_order(self):
        lines = [f"2017-10-{day:02d} 0{day % 10}:00:00,{day * 1000},1" for day in range(1, 29)]
        flags = ("--gpus", 4, "--policy", "fifo", "--storage", "joint", "--datasets", 3)
        results = []
        for number, ordered in enumerate((lines, lines[::-1])):
            trace = self.work / f"{number}.csv"
            trace.write_text(HEADING + "\n".join(ordered) + "\n")
            results.append(simulate("--trace", trace, *flags))
        self.assertEqual(results[0]["jobs"], 28)
        self.assertEqual(results[0], results[1])

    def test_what_is_wrong_is_named(self):
        trace = self.work / "bad.csv"
        trace.write_text(HEADING + "2017-10-09 07:01:55,soon,1\n")
        for text, code, arguments in (
                ("bad.csv: line 2", 2, ("--trace", trace)),
                ("/nowhere/t.csv", 4, ("--trace", "/nowhere/t.csv")),
                ("--jobs is 1 to", 2, ("--jobs", 0)),
                ("--gpus is 1 to", 2, ("--gpus", 0)),
                ("--mix", 2, ("--mix", "1,2")),
                ("--mix", 2, ("--mix", "0,0,0")),
                ("--mix", 2, ("--mix", "1,-1,1")),
                ("not one of all,fifo", 2, ("--policy", "lifo")),
                ("--gpus and a FILE", 2, ("/nowhere/p.json", "--gpus", 3)),
                ("can never end", 2, ("--jobs", 5, "--origin-limit", "off", "--cache", "0")),
                ("cannot write", 4, ("--jobs", 5, "--plot", "/nowhere/x.svg"))):
            with self.subTest(text=text):
                done = run(*arguments)
                self.assertEqual(done.returncode, code, done.stderr)
                self.assertIn(text, done.stderr)

    def test_a_job_that_is_too_large_is_named(self):
        problem = json.loads(problem_of_the_document("One job"))
        problem["jobs"][0]["gpus"] = 99
        done = run("-", text=json.dumps(problem))
        self.assertEqual(done.returncode, 2)
        self.assertIn(f"job {problem['jobs'][0]['name']} can never end", done.stderr)

    def test_five_thousand_jobs_of_the_philly_trace_take_seconds(self):
        if not PHILLY.exists():
            self.skipTest(f"the Philly trace is not at {PHILLY} (docs/silod.md says where it is "
                          "from; GRANARY_TRACES names another folder)")
        began = time.monotonic()
        answer = simulate("--trace", PHILLY, "--policy", "sjf", "--storage", "joint")
        took = time.monotonic() - began
        self.assertEqual(answer["jobs"], 5000)
        self.assertLess(took, 60)
        # The table of the document is what this command gives.
        row = re.search(r"^\| sjf \| joint \| ([\d,]+) ", DOCUMENT.read_text().split("### 400 GPUs")[1],
                        flags=re.M)
        self.assertAlmostEqual(float(row.group(1).replace(",", "")),
                               answer["results"][0]["average_jct_s"],
                               delta=0.01 * answer["results"][0]["average_jct_s"])


if __name__ == "__main__":
    assert os.access(suite.BINARY, os.X_OK), f"{suite.BINARY} is not built"
    suite.main()
