"""The frame of a test file: `suite.main()` at the end, `suite.Case` as the base of its tests.

A test file runs in mount and PID namespaces of its own where that is allowed (root), so that
nothing it mounts or starts outlives it, not even when it is killed; with `suite.main(addresses)`
in a network of its own, too, where these addresses are the machine's. Its exit code is 77 when all
of its tests were skipped.
"""

import ctypes
import os
import pathlib
import shutil
import subprocess
import sys
import time
import unittest

from . import workspace

SKIPPED = 77
ROOT = pathlib.Path(__file__).resolve().parents[3]
# `granary` of this checkout unless somebody names another.
BINARY = os.environ.get("GRANARY", str(ROOT / "build/granary"))
LARGE = os.environ.get("GRANARY_TEST_LARGE", "") not in ("", "0")


def wait_until(condition, seconds, what):
    """Polls until condition() is true and returns what it returned."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} s: not {what}")
        time.sleep(0.05)


def tool(name):
    """The path of a program, or the test is skipped."""
    extra = pathlib.Path(os.environ.get("GRANARY_DEPS", "~/.cache/granary-dev")).expanduser()
    path = os.environ.get("PATH", "") + f":{extra}/go/bin:/usr/sbin:/sbin"
    found = shutil.which(name, path=path)
    if not found:
        raise unittest.SkipTest(f"{name} is not installed")
    return found


class Case(unittest.TestCase):
    """A test with a private folder; whatever it starts is ended with it, the youngest first."""

    maxDiff = 2000

    @classmethod
    def setUpClass(cls):
        if not os.access(BINARY, os.X_OK):
            raise AssertionError(f"{BINARY} is not built; GRANARY names another")
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            raise unittest.SkipTest("/dev/fuse is not there or not for this user")
        cls.shared = workspace.Workspace()
        cls.addClassCleanup(cls.shared.close)

    def setUp(self):
        self.work = workspace.Workspace()
        self.addCleanup(self.work.close)
        self.addCleanup(self._explain_failure)

    def need_root(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")

    def need_addresses(self):
        if not _private_network():
            self.skipTest("needs root, unshare and ip, for a network with addresses of its own")

    def need_fuse(self):
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            self.skipTest("/dev/fuse is not there or not for this user")

    def _explain_failure(self):
        """Shows the ends of the logs when the test has failed."""
        result = self._outcome.result
        failed = [test for test, _ in result.failures + result.errors]
        if self not in [getattr(test, "test_case", test) for test in failed]:
            return
        for log in sorted(self.work.path.rglob("*.log")):
            if log.name[:1].isdigit():
                continue  # a database's own
            lines = log.read_text(errors="replace").splitlines()[-25:]
            print(f"--- {log} (its end)", *lines, sep="\n", file=sys.stderr)


class _Result(unittest.TextTestResult):
    """Says how long each test took."""

    def startTest(self, test):
        self._began = time.monotonic()
        super().startTest(test)

    def addSuccess(self, test):
        self.stream.write(f"[{time.monotonic() - self._began:.1f} s] ")
        super().addSuccess(test)


def _reap_until(child):
    """The first process of a PID namespace inherits every orphan."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def _private_network():
    return os.environ.get("GRANARY_TEST_NETWORK") is not None


def _may_have_network():
    probe = ["unshare", "--net", "ip", "link", "set", "lo", "up"]
    return shutil.which("ip") and subprocess.run(probe, check=False).returncode == 0


def _enter_namespaces(addresses):
    if workspace.private_namespace() or os.geteuid() != 0 or not shutil.which("unshare"):
        return
    os.environ["GRANARY_TEST_INSIDE"] = "1"
    arguments = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if addresses and _may_have_network():
        os.environ["GRANARY_TEST_NETWORK"] = "1"
        arguments += ["--net"]
    arguments += [sys.executable, *sys.argv]
    os.execvp("unshare", arguments)


def _end_with_parent():
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL


def _take_addresses(addresses):
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in addresses:
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)


def main(addresses=()):
    _enter_namespaces(addresses)
    if _private_network():
        _take_addresses(addresses)
    if os.getpid() == 1:
        child = os.fork()
        if child:
            sys.exit(_reap_until(child))
        _end_with_parent()
    runner = unittest.TextTestRunner(verbosity=2, resultclass=_Result)
    program = unittest.main(module="__main__", testRunner=runner, exit=False)
    result = program.result
    if not result.wasSuccessful():
        sys.exit(1)
    # A class that is skipped as a whole counts no tests.
    sys.exit(SKIPPED if result.skipped and result.testsRun <= len(result.skipped) else 0)
