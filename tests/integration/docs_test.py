"""What README.md and docs/ say: examples run, commands, flags, settings and metrics exist.

Blocks tagged `console` are run, one after the other in a folder of their own for each document: lines
that begin with "$ ". Exit code 0 is expected, or the one that the line names: "# exit code 3".
"""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import unittest

from harness import process, suite, workspace
from harness.granary import Granary

DOCUMENTS = [suite.ROOT / "README.md", *sorted((suite.ROOT / "docs").rglob("*.md"))]
EXAMPLE_SECONDS = 20
# What looks like ours and is not: placeholders, build options, the developer's script.
FOREIGN_FLAGS = {"--unix-socket", "--device", "--some-name", "--only-values", "--total",
                 "--cgroup"}
# Secrets have no flags.
SECRET_SETTINGS = {"GRANARY_HTTP_USER", "GRANARY_HTTP_PASSWORD", "GRANARY_HTTP_TOKEN"}
FOREIGN_SETTINGS = SECRET_SETTINGS | {"GRANARY_NAME", "GRANARY_SOME_NAME", "GRANARY_S3", "GRANARY_SANITIZE"}
METRIC = re.compile(r"\b(?:granary_(?:client|worker|master|mount|rpc)|process)_[a-z_]+\b")
EXIT_CODE = re.compile(r"#\s*exit code (\d+)\s*$")


def fences(text):
    """(tag, lines) of every fenced block."""
    found, tag, lines = [], None, []
    for line in text.splitlines():
        if line.startswith("```"):
            if tag is None:
                tag, lines = line[3:].strip(), []
            else:
                found.append((tag, lines))
                tag = None
        elif tag is not None:
            lines.append(line)
    return found


def code(text):
    """Lines of code blocks, fenced or indented, and code spans."""
    found = [line for _, lines in fences(text) for line in lines]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    found += [line.strip() for line in prose.splitlines() if line.startswith("    ")]
    return found + re.findall(r"`([^`\n]+)`", prose)


def examples(text):
    """(command, exit code)"""
    for tag, lines in fences(text):
        if tag != "console":
            continue
        for line in lines:
            if line.startswith("$ "):
                wanted = EXIT_CODE.search(line)
                yield line[2:], int(wanted.group(1)) if wanted else 0


def ask(*arguments):
    return subprocess.run([suite.BINARY, *arguments], text=True, capture_output=True, check=True,
                          timeout=EXAMPLE_SECONDS).stdout


def command_flags():
    """{command: set of its flags}, from the table by way of --help."""
    overview = ask("--help")
    names = re.findall(r"^  ([a-z]+(?: [a-z]+)?) {2,}\S", overview, flags=re.M)
    return {name: set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", ask(*name.split(), "--help")))
            for name in names}


def invocations(line, commands):
    """(command, flags) of each `granary ...` in a line; the command is None when there is no such."""
    for part in re.split(r"[|;&]|\s{2,}#", line):
        found = re.match(r"\s*(?:\$ |do |[A-Z_]+=\S* )*\S*?\bgranary ([a-z].*)", part)
        rest = found.group(1).split() if found else ["-"]
        if not re.fullmatch("[a-z]+", rest[0]):
            continue
        name = next((" ".join(rest[:n]) for n in (2, 1) if " ".join(rest[:n]) in commands), None)
        yield name or " ".join(rest[:2]), name, re.findall(r"(?<!\S)(--[a-z][a-z-]*)", part)


class Documents(suite.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.commands = command_flags()
        cls.flags = set().union(*cls.commands.values())

    def each(self):
        for path in DOCUMENTS:
            yield str(path.relative_to(suite.ROOT)), path.read_text()

    # ---- examples --------------------------------------------------------------------------

    def run_example(self, command, wanted, directory, environment):
        done = subprocess.run(["bash", "-c", command], cwd=directory, env=environment, text=True,
                              errors="replace", capture_output=True, timeout=EXAMPLE_SECONDS,
                              stdin=subprocess.DEVNULL, check=False)
        self.assertEqual(done.returncode, wanted, f"{command}\n{done.stdout}{done.stderr}")

    def test_examples_run(self):
        self.need_fuse()
        if not shutil.which("curl"):
            self.skipTest("curl is not installed")
        ran = 0
        for number, (name, text) in enumerate(self.each()):
            sandbox = self.work.directory(f"d{number}")
            environment = process.clean_environment(
                sandbox, GRANARY_STATE_DIR=str(sandbox / "s"), GRANARY_CACHE_DIR=str(sandbox / "c"))
            environment["PATH"] = f"{pathlib.Path(suite.BINARY).parent}:{os.environ['PATH']}"
            try:
                for command, wanted in examples(text):
                    with self.subTest(document=name, command=command):
                        self.run_example(command, wanted, sandbox, environment)
                    ran += 1
            finally:
                for mountpoint in workspace.mounts_below(sandbox):
                    workspace.detach(mountpoint)
                for pid in process.processes_with(str(sandbox)):
                    process.end_pid(pid)
        self.assertGreater(ran, 20, "hardly any example was found")

    # ---- commands, flags, settings ---------------------------------------------------------

    def test_every_command_and_its_flags_exist(self):
        seen = 0
        for name, text in self.each():
            for line in code(text):
                for said, command, flags in invocations(line, self.commands):
                    with self.subTest(document=name, line=line):
                        self.assertIsNotNone(command, f"there is no command {said}")
                        self.assertEqual(set(flags) - self.commands[command] - FOREIGN_FLAGS, set())
                    seen += 1
        self.assertGreater(seen, 40, "hardly any command was found")

    def test_every_flag_exists(self):
        for name, text in self.each():
            for line in code(text):
                if "./dev" in line:
                    continue
                for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", line):
                    with self.subTest(document=name, line=line):
                        self.assertIn(flag, self.flags | FOREIGN_FLAGS)

    def test_every_setting_of_the_environment_is_a_flag(self):
        known = {"GRANARY_" + flag[2:].upper().replace("-", "_") for flag in self.flags}
        for name, text in self.each():
            for setting in re.findall(r"\bGRANARY_[A-Z0-9_]*[A-Z0-9]\b", text):
                with self.subTest(document=name):
                    self.assertIn(setting, known | FOREIGN_SETTINGS)

    def test_every_option_of_origins_is_documented(self):
        general = self.commands["dataset stat"] | self.commands["quota set"]
        text = (suite.ROOT / "docs/origins.md").read_text()
        missing = {flag for flag in self.commands["dataset add"] - general - {"--quota"}
                   if not re.search(re.escape(flag) + r"(?![\w-])", text)}
        self.assertEqual(missing, set())

    def test_links_lead_somewhere(self):
        for path in DOCUMENTS:
            for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
                with self.subTest(document=path.name, target=target):
                    self.assertTrue((path.parent / target).exists())

    # ---- metrics ---------------------------------------------------------------------------

    def scrape(self, path):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(EXAMPLE_SECONDS)
            client.connect(str(path))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: client.recv(65536), b"")).decode()

    def test_metrics_are_those_that_are_documented(self):
        self.need_fuse()
        origin, mount = self.work.directory("origin"), self.work.directory("mnt")
        (origin / "file").write_bytes(b"bytes")
        granary = Granary(self.work)
        granary.up(origin, mount, "--job", "train", "--origin-limit", "file:///=1GB/s")
        granary.ask("job", "start", "train", "--ideal-rate", "1GB/s")
        (mount / "file").read_bytes()

        def metrics():
            page = self.scrape(granary.state / "granary.metrics.sock")
            return set(re.findall(r"^# TYPE (\S+)", page, flags=re.M))

        # Bytes are counted when a get has ended, a moment after its reader has them.
        suite.wait_until(lambda: "granary_worker_origin_bytes_total" in metrics(), EXAMPLE_SECONDS,
                         "what was read is counted")
        there = metrics()
        said = set()
        for name, text in self.each():
            for metric in METRIC.findall(" ".join(code(text))):
                with self.subTest(document=name):
                    self.assertIn(metric, there)
                said.add(metric)
        self.assertEqual(there - said, set(), "docs/operations.md has a complete list")

    # ---- what is generated -----------------------------------------------------------------

    def test_man_pages_have_no_faults(self):
        if not shutil.which("groff"):
            self.skipTest("groff is not installed")
        ask("man", "--dir", str(self.work.path))
        pages = sorted(self.work.path.glob("*.1"))
        self.assertEqual(len(pages), len(self.commands) + 1)
        done = subprocess.run(["groff", "-man", "-ww", "-Tascii", "-z", *map(str, pages)],
                              text=True, capture_output=True, check=False, timeout=EXAMPLE_SECONDS)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def complete(self, *words):
        """What bash would offer for the last of them."""
        script = ('source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _granary; '
                  'printf "%s\\n" "${COMPREPLY[@]}"')
        done = subprocess.run(["bash", "-c", script, "bash", self.completion, *words], text=True,
                              capture_output=True, check=True, timeout=EXAMPLE_SECONDS)
        return done.stdout.split()

    def test_completion_knows_the_commands_and_their_flags(self):
        self.completion = str(self.work.path / "completion")
        pathlib.Path(self.completion).write_text(ask("completion"))
        subprocess.run(["bash", "-n", self.completion], check=True)
        self.assertEqual(set(self.complete("granary", "")),
                         {name.split()[0] for name in self.commands})
        self.assertEqual(self.complete("granary", "dataset", "ref"), ["refresh"])
        self.assertEqual(self.complete("granary", "dataset", "refresh", "--sw"), ["--switch"])
        for name, flags in self.commands.items():
            with self.subTest(command=name):
                offered = set(self.complete("granary", *name.split(), "--"))
                self.assertEqual(offered - {"--help"}, flags - {"--help", "--usage", "--version"})


if __name__ == "__main__":
    suite.main()
