"""One host of Granary: its state and cache directories, and the processes that use them."""

import json
import os
import re
import signal
import subprocess
import time

from . import process, suite, workspace

READY_SECONDS = 60
COMMAND_SECONDS = 60
STILL_SECONDS = 1.7


class Granary:
    def __init__(self, work, name="g", environment=None):
        self.work = work
        self.state = work.path / name / "s"
        self.cache = work.path / name / "c"
        self.home = work.directory(f"{name}/h")
        self.environment = process.clean_environment(self.home, **(environment or {}))
        self.servers = []
        self._number = 0
        work.at_close(self.close)

    # ---- commands --------------------------------------------------------------------------

    def run(self, *arguments, check=True, seconds=COMMAND_SECONDS, environment=None, **more):
        """Any command as it stands: no flag is added."""
        text = [suite.BINARY, *map(os.fspath, arguments)]
        done = subprocess.run(text, env={**self.environment, **(environment or {})}, text=True,
                              errors="replace", stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=seconds, check=False, **more)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(text)}: exit code {done.returncode}: {done.stderr}")
        return done

    def ask(self, *arguments, **more):
        """A command of the master of this state directory."""
        return self.run(*arguments, "--state-dir", self.state, **more)

    def json(self, *arguments, **more):
        return json.loads(self.ask(*arguments, "-o", "json", **more).stdout)

    def status(self):
        return self.json("status")

    def stat(self, dataset):
        return self.json("dataset", "stat", dataset)

    def settled_stat(self, dataset, seconds=30):
        """Counters travel with heartbeats, one a second: waits until they stand still."""
        def counters():
            stat = self.stat(dataset)
            return [stat[key] for key in ("hit_bytes", "miss_bytes", "origin_bytes",
                                          "pinned_bytes", "cached_bytes")]

        deadline = time.monotonic() + seconds
        last, since = counters(), time.monotonic()
        while time.monotonic() < deadline:
            time.sleep(0.3)
            now = counters()
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > STILL_SECONDS:
                return self.stat(dataset)
        raise AssertionError(f"the counters of {dataset} do not stand still: {last}")

    def client_metric(self, name, socket="granary.metrics.sock"):
        """granary_client_NAME of a mount, 0 while it has none; the socket is that of its process."""
        page = subprocess.run(["curl", "-sf", "--unix-socket", self.state / socket,
                               "http://localhost/metrics"], text=True, capture_output=True,
                              check=False).stdout
        found = re.search(rf"(?m)^granary_client_{re.escape(name)} (\d+)", page)
        return int(found[1]) if found else 0

    # ---- daemons ---------------------------------------------------------------------------

    def directories(self):
        return ["--state-dir", self.state, "--cache-dir", self.cache]

    def log_path(self, name):
        self._number += 1
        return self.work.path / f"{name}-{self._number}.log"

    def start(self, *arguments, environment=None):
        """A process in the foreground, not waited for."""
        server = process.Server([suite.BINARY, *map(os.fspath, arguments)],
                                self.log_path(arguments[0]),
                                {**self.environment, **(environment or {})})
        self.servers.append(server)
        return server

    def up(self, origin, mountpoint, *flags, environment=None, seconds=READY_SECONDS):
        """`granary up` in the foreground, once the mount answers."""
        server = self.start("up", origin, mountpoint, *self.directories(), *flags,
                            environment=environment)
        self.wait_mounted(server, mountpoint, seconds)
        return server

    def up_daemon(self, origin, mountpoint, *flags, environment=None, seconds=READY_SECONDS):
        """Returns as `granary up --daemon` does; the pid is that of the daemon."""
        self.run("up", origin, mountpoint, *self.directories(), "--daemon", *flags,
                 environment=environment, seconds=seconds)
        return self.pid_of(mountpoint)

    def wait_mounted(self, server, mountpoint, seconds=READY_SECONDS):
        def ready():
            said = re.search(r"(?m)^mounted ", server.log.read_text(errors="replace"))
            return said and is_mounted(mountpoint)

        server.wait_ready(ready, seconds)

    def wait_serving(self, server, seconds=READY_SECONDS):
        """A master or worker says so on stderr."""
        server.wait_ready(lambda: " serves at " in server.log.read_text(errors="replace"), seconds)

    def pid_of(self, mountpoint):
        for mount in self.status()["mounts"]:
            if mount["mountpoint"] == str(mountpoint):
                return mount["pid"]
        raise AssertionError(f"status knows no mount at {mountpoint}")

    def client_of(self, mountpoint, seconds=READY_SECONDS):
        """The process that serves it: `granary mount` itself supervises that one."""
        return suite.wait_until(lambda: next(iter(self.clients_of(mountpoint)), None), seconds,
                                f"a client of {mountpoint}")

    def clients_of(self, mountpoint):
        """One with a single thread has just been forked to become something else."""
        return [pid for pid in process.processes_with(str(mountpoint))
                if "supervised" in (names := process.threads(pid)) and len(names) > 1]

    def kill_mount(self, server, mountpoint):
        """kill -9 of both at once, so that neither replaces the other."""
        server.signal(signal.SIGSTOP)
        os.kill(self.client_of(mountpoint), signal.SIGKILL)
        server.kill()

    def processes(self):
        return process.processes_with(str(self.state))

    def umount(self, mountpoint, *flags):
        return self.run("umount", mountpoint, *flags)

    def umount_refused(self, mountpoint):
        """Its line on stderr."""
        done = self.run("umount", mountpoint, check=False)
        assert done.returncode != 0, "it was unmounted"
        return done.stderr

    def wait_ended(self, seconds=20):
        suite.wait_until(lambda: not self.processes(), seconds,
                         f"all processes of {self.state} ended")

    def store_files(self):
        return [path for path in self.cache.rglob("*") if path.is_file()]

    def told(self):
        """What it says, logs and stores: no secret belongs there."""
        paths = [*self.work.path.glob("*.log"), *self.state.rglob("*"), *self.store_files()]
        shown = self.ask("status", "-o", "json").stdout.encode()
        for dataset in json.loads(shown)["datasets"]:
            shown += self.ask("dataset", "stat", dataset["name"], "-o", "json").stdout.encode()
        return shown + b"".join(path.read_bytes() for path in paths if path.is_file())

    def close(self):
        for mountpoint in workspace.mounts_below(self.work.path):
            workspace.detach(mountpoint)
        for server in self.servers:
            server.close()
        for pid in self.processes():
            process.end_pid(pid)


def is_mounted(mountpoint):
    return str(mountpoint) in workspace.mounts_below(mountpoint)


def xattr(path, name):
    return os.getxattr(path, f"user.granary.{name}").decode()
