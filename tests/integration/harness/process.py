"""Programs that tests start: a clean environment, output in files, an end that is sure to come."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import time

# Settings of the developer's machine must neither reach servers nor decide tests.
_FOREIGN = ("AWS_", "GRANARY_", "MINIO_", "CURL_", "SSL_", "NIX_SSL", "REQUESTS_CA", "GRPC_")
_LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+Z (info|warn) ")
_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}


def clean_environment(home, **more):
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(_FOREIGN) and name.lower() not in _PROXIES}
    kept.update(HOME=str(home), LC_ALL="C.UTF-8", AWS_EC2_METADATA_DISABLED="true", **more)
    return kept


def error_lines(text):
    """What a program says on stderr besides its log's lines of what goes on."""
    return [line for line in text.strip().splitlines() if not _LOG_LINE.match(line)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def alive(pid):
    """A zombie is not."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def processes_with(text):
    """Pids of living processes that have this text among their arguments."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if os.fsencode(text) in arguments and alive(int(entry.name)):
            found.append(int(entry.name))
    return found


def threads(pid):
    """Their names; none of a process that is gone."""
    try:
        return [(task / "comm").read_text(errors="replace").strip()
                for task in pathlib.Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def end_pid(pid, seconds=10):
    """SIGTERM, and SIGKILL to one that does not listen."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not alive(pid):
                return
            time.sleep(0.02)


class Server:
    """A program in the foreground whose output goes to LOG."""

    def __init__(self, arguments, log, environment, cwd=None):
        self.log = pathlib.Path(log)
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=out, env=environment, cwd=cwd)

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process.poll() is None

    def wait_ready(self, ready, seconds):
        """ready() may raise OSError as long as nobody listens."""
        deadline = time.monotonic() + seconds
        while True:
            if not self.running():
                raise AssertionError(f"ended with {self.process.returncode}: {self.output()}")
            try:
                if ready():
                    return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise AssertionError(f"not ready after {seconds} s: {self.output()}")
            time.sleep(0.05)

    def output(self):
        return self.log.read_text(errors="replace")[-4000:]

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """kill -9, and waits."""
        self.process.kill()
        self.process.wait()

    def wait(self, seconds):
        return self.process.wait(seconds)

    def close(self):
        if not self.running():
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
