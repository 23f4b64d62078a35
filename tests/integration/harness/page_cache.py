"""Takes clean pages out of the kernel's page cache, so that reads reach the mount again."""

import ctypes
import errno
import os
import time

CACHESTAT = 451  # the number of the system call, since Linux 6.5
EMPTY_SECONDS = 10


def drop(*roots):
    """Of the whole machine, and what the kernel knows of names, as root; else of the files below the roots."""
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as control:
            control.write("3")
    except OSError:
        drop_below(*roots)


def drop_below(*roots):
    """Of the files below the roots: tests that run beside this one keep theirs."""
    deadline = time.monotonic() + EMPTY_SECONDS
    for path in files(*roots):
        while drop_file(path):
            if time.monotonic() > deadline:
                raise AssertionError(f"{path} stays in the page cache")


def files(*roots):
    for root in roots:
        for directory, _, names in os.walk(os.fsencode(root)):
            for name in names:
                path = os.path.join(directory, name)
                if not os.path.islink(path):
                    yield path


def drops():
    """How often somebody has emptied it, this machine over."""
    with open("/proc/vmstat", encoding="ascii") as counters:
        return next(int(line.split()[1]) for line in counters if line.startswith("drop_pagecache "))


def drop_file(path):
    """How many pages stay, as far as the kernel tells."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        return _cached_pages(handle)
    finally:
        os.close(handle)


class _Range(ctypes.Structure):
    _fields_ = [("offset", ctypes.c_uint64), ("length", ctypes.c_uint64)]


class _Stat(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64)
                for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")]


def _cached_pages(handle):
    everything, found = _Range(0, 0), _Stat()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(CACHESTAT, handle, ctypes.byref(everything), ctypes.byref(found), 0) == 0:
        return found.cached
    if ctypes.get_errno() in (errno.ENOSYS, errno.EOPNOTSUPP):
        return 0
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
