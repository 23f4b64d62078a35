"""A control group that bounds the memory of a process, and with it what the page cache keeps of its files.

Of the second kind of control groups where the memory controller is there, else of the first.
"""

import os
import pathlib

_ROOT = pathlib.Path("/sys/fs/cgroup")


def _place():
    """(directory of groups, file of the limit); None: there is no memory controller."""
    for root in (_ROOT, _ROOT / "unified"):
        controllers = root / "cgroup.subtree_control"
        if controllers.exists() and "memory" in controllers.read_text().split():
            return root, "memory.max"
    if (_ROOT / "memory/memory.limit_in_bytes").exists():
        return _ROOT / "memory", "memory.limit_in_bytes"
    return None


def can_be_had():
    place = _place()
    return place is not None and os.access(place[0], os.W_OK)


class MemoryGroup:
    """Of this process's own making; close() when nobody is in it any more."""

    def __init__(self, name, limit_bytes):
        root, limit = _place()
        self.path = root / f"granary-{os.getpid()}-{name}"
        self.path.mkdir()
        (self.path / limit).write_text(str(limit_bytes))

    def join(self):
        """For the calling process, between fork and exec."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def close(self):
        self.path.rmdir()
