"""A folder that a test may fill with files, mounts and servers, and that leaves nothing behind."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile


def mounts_below(path):
    """Mount points at or below path, the innermost first. Reads names as the kernel escapes them."""
    found = []
    for line in pathlib.Path("/proc/self/mounts").read_bytes().splitlines():
        name = line.split(b" ")[1].decode("unicode_escape").encode("latin-1")
        if name == os.fsencode(path) or name.startswith(os.fsencode(path) + b"/"):
            found.append(os.fsdecode(name))
    return sorted(found, key=len, reverse=True)


def detach(mountpoint):
    """Takes a mount away whoever uses it; no error when it is gone."""
    for command in (["umount", "-l", mountpoint], ["fusermount3", "-q", "-u", "-z", mountpoint]):
        with contextlib.suppress(FileNotFoundError):
            if subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0:
                return


def private_namespace():
    """What is mounted in it nobody else sees, and it ends with the test."""
    return os.environ.get("GRANARY_TEST_INSIDE") is not None


class Workspace:
    """Short paths: names of unix sockets have 107 bytes."""

    def __init__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="gr-"))
        # Other users look at mounts in here; what has to be private is so by itself.
        self.path.chmod(0o755)
        self._closers = []

    def at_close(self, function, *arguments):
        """Called at the end, in the reverse order of registration."""
        self._closers.append((function, arguments))

    def directory(self, name, mode=0o755):
        path = self.path / name
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
        return path

    def memory_directory(self, name):
        """One without a disk below it where that is possible: quick to fill and to remove."""
        path = self.directory(name)
        if private_namespace():
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80%", "none", path], check=True)
        return path

    def close(self):
        for function, arguments in reversed(self._closers):
            function(*arguments)
        self._closers = []
        for mountpoint in mounts_below(self.path):
            detach(mountpoint)
        left = mounts_below(self.path)
        if left:
            raise AssertionError(f"cannot unmount {left}")
        shutil.rmtree(os.fsencode(self.path), ignore_errors=True)
