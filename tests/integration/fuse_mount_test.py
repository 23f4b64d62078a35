#!/usr/bin/env python3
"""The FUSE client alone, on a real kernel: fuse_driver mounts a local tree with a source that obeys.

usage: fuse_mount_test.py DRIVER [unittest arguments]
Exits with 77 where nothing can be mounted.
"""

import ctypes
import errno
import filecmp
import json
import mmap
import os
import pathlib
import random
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unittest

DRIVER = None
BLOCK = 4 << 20
RACE_FREE_S = 20  # longer than anything here may take; only failures wait for it


def write(path, data=b""):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data)


def blob(size, seed=1):
    return random.Random(seed).randbytes(size)


class Mount:
    """A running driver."""

    def __init__(self, tree, mountpoint, work, mode="auto", timeout_ms=0, allow_other=False, preload=True,
                 passthrough=True, wrap=()):
        args = [*wrap, DRIVER, tree, mountpoint, work, mode, str(timeout_ms),
                *["allow-other"] * allow_other, *["no-preload"] * (not preload),
                *["no-passthrough"] * (not passthrough)]
        self.mountpoint = mountpoint
        self.process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.said = b""
        line = self.line()
        if line != b"ready":
            self.process.stdin.close()
            self.process.wait()
            with self.process.stdout, self.process.stderr as said:
                raise RuntimeError(said.read().decode(errors="replace"))
        self.stderr_reader = threading.Thread(target=self.drain, daemon=True)
        self.log = b""
        self.stderr_reader.start()

    def drain(self):
        for line in self.process.stderr:
            self.log += line

    def line(self):
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        if not ready:
            raise TimeoutError("the driver says nothing")
        return self.process.stdout.readline().rstrip(b"\n")

    def tell(self, command):
        self.process.stdin.write(os.fsencode(command) + b"\n")
        self.process.stdin.flush()
        return self.line()

    def counters(self):
        return json.loads(self.tell("counters"))

    def stop(self, umount=True):
        if self.process.poll() is None:
            try:
                self.process.stdin.write(b"quit\n")
                self.process.stdin.flush()
                self.process.stdin.close()
            except BrokenPipeError:
                pass
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if umount:  # what a driver that failed has left
            subprocess.run(["umount", "-l", self.mountpoint], stderr=subprocess.DEVNULL)
        self.process.stdin.close()
        self.process.stdout.close()
        self.stderr_reader.join()
        self.process.stderr.close()
        return self.process.returncode


class Base(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="granary-fuse-")
        self.tree = os.path.join(self.dir, "tree")
        self.mnt = os.path.join(self.dir, "mnt")
        self.work = os.path.join(self.dir, "work")
        for path in (self.tree, self.mnt, self.work):
            os.mkdir(path)
        self.mounts = []

    def tearDown(self):
        for m in self.mounts:
            m.stop()
            self.assertNotIn(b"Sanitizer", m.log)
            self.assertNotIn(b"runtime error", m.log)
            self.assertNotIn(b"Assertion", m.log)
        shutil.rmtree(self.dir, ignore_errors=True)

    def mount(self, **options):
        m = Mount(self.tree, self.mnt, self.work, **options)
        self.mounts.append(m)
        return m


class Content(Base):
    def make_awkward(self):
        t = self.tree
        for size in (0, 1, 4095, 4096, 4097, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 12345):
            write(f"{t}/sizes/{size}", blob(size, size))
        for name in (b"with space", b"new\nline", b"tab\t", b"\xff\xfeinvalid", "üñí".encode(), b"-dash", b"a" * 255,
                     b"quote\"'\\", b"#hash%20", b"..." , b" "):
            write(os.path.join(os.fsencode(t), b"names", name, b"in\x01side"), name)
        deep = t
        for i in range(40):
            deep = f"{deep}/level{i}"
        write(f"{deep}/bottom", b"deep")
        os.makedirs(f"{t}/empty/also-empty")
        os.symlink("sizes/4096", f"{t}/link")
        os.symlink("../sizes", f"{t}/empty/dirlink")
        os.symlink("nowhere/at all", f"{t}/dangling")
        write(f"{t}/modes/setuid", b"x")
        os.chmod(f"{t}/modes/setuid", 0o4755)
        write(f"{t}/modes/private", b"x")
        os.chmod(f"{t}/modes/private", 0o600)
        if os.geteuid() == 0:
            os.chown(f"{t}/modes/private", 12, 34)
        os.utime(f"{t}/modes/private", ns=(0, -1500000001))

    def assert_same(self):
        diff = subprocess.run(["diff", "-r", "--no-dereference", self.tree, self.mnt], capture_output=True)
        self.assertEqual((diff.returncode, diff.stdout, diff.stderr), (0, b"", b""))
        seen = 0
        for root, dirs, files in os.walk(os.fsencode(self.tree)):
            for name in dirs + files + [b"."]:
                path = os.path.join(root, name)
                other = os.fsencode(self.mnt) + path[len(os.fsencode(self.tree)):]
                a, b = os.lstat(path), os.lstat(other)
                for field in ("st_mode", "st_uid", "st_gid", "st_mtime_ns"):
                    self.assertEqual(getattr(a, field), getattr(b, field), (other, field))
                if stat.S_ISDIR(a.st_mode):
                    subdirs = sum(e.is_dir(follow_symlinks=False) for e in os.scandir(path))
                    self.assertEqual(b.st_nlink, 2 + subdirs)
                else:
                    self.assertEqual((a.st_size, b.st_nlink), (b.st_size, 1))
                    self.assertEqual(b.st_blocks, (b.st_size + 511) // 512)
                seen += 1
        self.assertGreater(seen, 100)

    def test_a_mount_equals_its_tree_without_open(self):
        self.make_awkward()
        m = self.mount(mode="no-open")
        self.assert_same()
        self.assertEqual(m.counters()["mode"], "no-open")
        self.assertLessEqual(m.counters()["open"], 1)
        self.assertEqual(m.counters()["release"], 0)

    def test_a_mount_equals_its_tree_with_open(self):
        self.make_awkward()
        m = self.mount(mode="open")
        self.assert_same()
        self.assertGreater(m.counters()["open"], 10)

    def test_a_mount_equals_its_tree_through_the_pool(self):
        self.make_awkward()
        m = self.mount(mode="no-open")
        m.tell("local off")
        self.assert_same()
        c = m.counters()
        self.assertEqual(c["hit_bytes"], 0)
        self.assertGreater(c["miss_bytes"], 5 * BLOCK)

    def test_the_mode_follows_from_the_mean_size(self):
        write(f"{self.tree}/small", b"x")
        self.assertEqual(self.mount().counters()["mode"], "no-open")
        self.mounts[0].stop()
        write(f"{self.tree}/large", blob(3 * BLOCK))
        self.assertIn(self.mount().counters()["mode"], ("open", "open, passthrough"))

    def test_a_tree_without_anything(self):
        self.mount()
        self.assertEqual(os.listdir(self.mnt), [])
        self.assertEqual(os.statvfs(self.mnt).f_blocks, 0)

    def test_dots_in_a_listing_are_the_real_ones(self):
        write(f"{self.tree}/a/b/c")
        self.mount()
        listing = {}
        for path in ("", "/a", "/a/b"):
            listing[path] = dict(raw_listing(self.mnt + path))
            self.assertEqual(listing[path][b"."], os.stat(self.mnt + path).st_ino)
        self.assertEqual(listing["/a/b"][b".."], os.stat(self.mnt + "/a").st_ino)
        self.assertEqual(listing["/a"][b".."], os.stat(self.mnt).st_ino)

    def test_statfs_tells_the_size_of_the_snapshot(self):
        write(f"{self.tree}/a", blob(10 * 4096))
        self.mount()
        s = os.statvfs(self.mnt)
        self.assertEqual((s.f_blocks * s.f_frsize, s.f_bfree, s.f_bavail), (10 * 4096, 0, 0))
        self.assertEqual((s.f_files, s.f_ffree, s.f_namemax), (2, 0, 255))
        self.assertTrue(s.f_flag & os.ST_RDONLY and s.f_flag & os.ST_NOSUID and s.f_flag & os.ST_NODEV)

    def test_names_too_long_and_names_not_there(self):
        self.mount()
        for name, code in (("x" * 256, errno.ENAMETOOLONG), ("no", errno.ENOENT), ("no/no", errno.ENOENT)):
            with self.assertRaises(OSError) as raised:
                os.stat(f"{self.mnt}/{name}")
            self.assertEqual(raised.exception.errno, code)

    def test_nothing_can_be_changed(self):
        write(f"{self.tree}/d/f", b"x")
        self.mount()
        f = f"{self.mnt}/d/f"
        for change in (lambda: open(f, "w"), lambda: open(f, "a"), lambda: open(f + "2", "x"), lambda: os.unlink(f),
                       lambda: os.mkdir(f + "3"), lambda: os.rmdir(self.mnt + "/d"), lambda: os.chmod(f, 0o777),
                       lambda: os.rename(f, f + "4"), lambda: os.symlink("x", f + "5"), lambda: os.truncate(f, 0),
                       lambda: os.utime(f), lambda: os.link(f, f + "6"), lambda: os.setxattr(f, "user.x", b"y"),
                       lambda: os.removexattr(f, "user.granary.mode")):
            with self.assertRaises(OSError) as raised:
                change()
            self.assertEqual(raised.exception.errno, errno.EROFS)


def raw_listing(path):
    """(name, inode) of a directory, dots included."""
    libc = ctypes.CDLL(None, use_errno=True)

    class Dirent(ctypes.Structure):
        _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("len", ctypes.c_uint16), ("type", ctypes.c_uint8),
                    ("name", ctypes.c_char * 256)]

    libc.opendir.restype = ctypes.c_void_p
    libc.opendir.argtypes = [ctypes.c_char_p]
    libc.readdir.restype = ctypes.POINTER(Dirent)
    libc.readdir.argtypes = [ctypes.c_void_p]
    libc.closedir.argtypes = [ctypes.c_void_p]
    handle = libc.opendir(os.fsencode(path))
    while entry := libc.readdir(handle):
        yield entry.contents.name, entry.contents.ino
    libc.closedir(handle)


class LargeDirectory(Base):
    COUNT = 100_000

    def test_a_hundred_thousand_files_are_listed_and_seekable(self):
        os.mkdir(f"{self.tree}/d")
        for i in range(self.COUNT):
            os.close(os.open(f"{self.tree}/d/file-{i:06}", os.O_CREAT | os.O_WRONLY))
        self.mount()
        want = {f"file-{i:06}".encode() for i in range(self.COUNT)}
        for _ in range(2):  # from us, then from the kernel's cache
            names = [name for name, _ in raw_listing(f"{self.mnt}/d")]
            self.assertEqual(len(names), self.COUNT + 2)
            self.assertEqual(set(names), want | {b".", b".."})
        self.assertEqual(len(os.listdir(f"{self.mnt}/d")), self.COUNT)
        with os.scandir(f"{self.mnt}/d") as entries:
            self.assertTrue(all(e.stat().st_size == 0 for e in entries))
        self.seek_in_it()

    def seek_in_it(self):
        libc = ctypes.CDLL(None)
        libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
        for f in (libc.readdir, libc.telldir, libc.closedir):
            f.argtypes = [ctypes.c_void_p]
        libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
        libc.telldir.restype = ctypes.c_long
        d = libc.opendir(os.fsencode(f"{self.mnt}/d"))

        def next_name():
            entry = libc.readdir(d)
            return ctypes.string_at(entry + 19) if entry else None

        names, places = [], []
        while True:
            places.append(libc.telldir(d))
            name = next_name()
            if name is None:
                break
            names.append(name)
        for i in random.Random(3).sample(range(len(names)), 200):
            libc.seekdir(d, places[i])
            self.assertEqual(next_name(), names[i])
        libc.closedir(d)


def pread_many(path, data, seed, flags=0):
    rng = random.Random(seed)
    fd = os.open(path, os.O_RDONLY | flags)
    for _ in range(60):
        offset = rng.randrange(len(data))
        length = rng.choice((1, 100, 5000, 114_000, 1 << 20, 5 << 20))
        if os.pread(fd, length, offset) != data[offset:offset + length]:
            os._exit(1)
    os._exit(0)


def forked(count, work):
    """Processes that each do work(number), which ends them; returns a function that waits for all."""
    children = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            try:
                work(number)
            finally:
                os._exit(1)
        children.append(pid)
    return lambda: [os.waitpid(pid, 0)[1] for pid in children]


class Readers(Base):
    def make_large(self):
        self.data = blob(5 * BLOCK + 4321)
        write(f"{self.tree}/large", self.data)
        return f"{self.mnt}/large"

    def run_readers(self, path):
        wait = forked(16, lambda number: pread_many(path, self.data, number))
        self.assertEqual(wait(), [0] * 16)

    def test_random_reads_of_sixteen_processes(self):
        path = self.make_large()
        for mode in ("open", "no-open"):
            m = self.mount(mode=mode)
            m.tell("local off")
            self.run_readers(path)
            self.assertEqual(m.stop(), 0)

    def test_mmap(self):
        path = self.make_large()
        m = self.mount()
        m.tell("local off")
        with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            for offset in random.Random(5).sample(range(len(self.data)), 500):
                self.assertEqual(mapped[offset:offset + 50], self.data[offset:offset + 50])
            self.assertEqual(mapped[:], self.data)

    def test_direct_io(self):
        path = self.make_large()
        for mode in ("open", "no-open"):
            m = self.mount(mode=mode)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
            buffer = mmap.mmap(-1, 3 << 20)
            for offset in (0, 4096, BLOCK - 4096, 2 * BLOCK - (1 << 20), len(self.data) // 4096 * 4096):
                got = os.preadv(fd, [buffer], offset)
                self.assertEqual(buffer[:got], self.data[offset:offset + (3 << 20)])
            before = m.counters()["read"]
            os.preadv(fd, [buffer], 0)
            self.assertGreater(m.counters()["read"], before)  # past the page cache indeed
            os.close(fd)
            m.stop()

    def test_a_small_file_is_one_request(self):
        for i in range(50):
            write(f"{self.tree}/f{i}", blob(110_000, i))
        m = self.mount(mode="no-open")
        for i in range(50):
            self.assertEqual(pathlib.Path(f"{self.mnt}/f{i}").read_bytes(), blob(110_000, i))
        self.assertEqual(m.counters()["read"], 50)

    def test_a_large_file_is_read_in_large_requests(self):
        path = self.make_large()
        m = self.mount()
        subprocess.run(["cmp", path, f"{self.tree}/large"], check=True)
        limit = 60 if os.geteuid() == 0 else 200  # only root may widen the window beyond 128 KiB
        self.assertLess(m.counters()["read"], limit)

    def test_a_warm_epoch_asks_for_nothing(self):
        for i in range(300):
            write(f"{self.tree}/d{i % 7}/f{i}", blob(30_000, i))
        m = self.mount(mode="no-open")

        def epoch():
            for root, _, files in os.walk(self.mnt):
                for name in files:
                    with open(os.path.join(root, name), "rb") as f:
                        os.fstat(f.fileno())
                        f.read()

        epoch()
        asked = None
        for _ in range(5):  # somebody else on the machine may drop caches
            epoch()
            before = m.counters()
            epoch()
            after = m.counters()
            asked = {k: after[k] - before[k] for k in ("read", "lookup", "open", "release", "readdir", "xattr")}
            if not any(asked.values()):
                return
        self.fail(asked)

    def make_small(self, count, size=30_000):
        for i in range(count):
            write(f"{self.tree}/d{i % 7}/f{i}", blob(size, i))

    def small_paths(self):
        """All files in random order; their inodes are known to the kernel then."""
        paths = [entry for folder in os.scandir(self.mnt) for entry in os.scandir(folder)]
        for entry in paths:
            entry.stat()
        random.Random(5).shuffle(paths)
        return [entry.path for entry in paths]

    def check(self, path):
        number = int(os.path.basename(path)[1:])
        self.assertEqual(pathlib.Path(path).read_bytes(), blob(30_000, number), path)

    def test_an_epoch_in_random_order_is_preloaded(self):
        self.make_small(2000)
        m = self.mount(mode="no-open")
        paths = self.small_paths()
        for path in paths:
            self.check(path)
        said = m.counters()
        self.assertGreater(said["preloaded_bytes"], 500 * 30_000)
        self.assertLess(said["read"], 1500)
        # Each byte is counted once, but for the few that reader and preload brought at once.
        self.assertGreaterEqual(said["hit_bytes"], 2000 * 30_000)
        self.assertLess(said["hit_bytes"], 2100 * 30_000)
        # Who comes while a file is half preloaded asks for the rest of it: a few reads are shorter.
        lacks = said["read"] * 30_000 + said["preloaded_bytes"] - said["hit_bytes"]
        self.assertTrue(0 <= lacks < 10 * 30_000, lacks)

    def test_what_is_not_in_the_store_is_not_preloaded(self):
        self.make_small(400)
        m = self.mount(mode="no-open")
        m.tell("local off")
        for path in self.small_paths():
            self.check(path)
        said = m.counters()
        self.assertEqual((said["preloaded_bytes"], said["read"]), (0, 400))

    def test_it_can_be_switched_off(self):
        self.make_small(400)
        m = self.mount(mode="no-open", preload=False)
        for path in self.small_paths():
            self.check(path)
        said = m.counters()
        self.assertEqual((said["preloaded_bytes"], said["read"]), (0, 400))

    def test_a_mount_ends_while_it_preloads_and_is_read(self):
        self.make_small(3000)
        for _ in range(3):
            m = self.mount(mode="no-open")
            paths = self.small_paths()
            ended = threading.Event()

            def read(mine, ended=ended):
                try:
                    for path in mine:
                        self.check(path)
                except OSError:
                    ended.set()

            readers = [threading.Thread(target=read, args=(paths[i::4],)) for i in range(4)]
            for r in readers:
                r.start()
            while m.counters()["preloaded_bytes"] == 0 and any(r.is_alive() for r in readers):
                pass
            began = time.monotonic()
            self.assertEqual(m.stop(), 0)
            self.assertLess(time.monotonic() - began, RACE_FREE_S)
            for r in readers:
                r.join(RACE_FREE_S)
                self.assertFalse(r.is_alive())

    def test_a_switch_amid_an_epoch_shows_no_stale_byte(self):
        self.make_small(2000)
        m = self.mount(mode="no-open")
        paths = self.small_paths()
        for path in paths[:600]:
            self.check(path)
        other = os.path.join(self.dir, "other")
        for i in range(2000):
            write(f"{other}/d{i % 7}/f{i}", blob(30_000, i + 1))
        self.assertEqual(m.tell(f"switch {other}"), b"switched")
        for path in self.small_paths():
            number = int(os.path.basename(path)[1:])
            self.assertEqual(pathlib.Path(path).read_bytes(), blob(30_000, number + 1), path)
        self.assertGreater(m.counters()["preloaded_bytes"], 0)

    def test_extended_attributes(self):
        write(f"{self.tree}/f", blob(1000))
        write(f"{self.tree}/zero")
        os.symlink("f", f"{self.tree}/l")
        m = self.mount()
        f = f"{self.mnt}/f"
        # They are not listed, or copies of a file would take them along.
        for path in (f, self.mnt, f"{self.mnt}/l"):
            self.assertEqual(os.listxattr(path, follow_symlinks=False), [])
        for name, value in (("dataset", b"driven"), ("snapshot", b"1"), ("mode", b"no-open"),
                            ("origin", b"file:///driven"), ("cached", b"1.0000")):
            self.assertEqual(os.getxattr(f, f"user.granary.{name}"), value)
        m.tell("local off")
        self.assertEqual(os.getxattr(f, "user.granary.cached"), b"0.2500")
        self.assertEqual(os.getxattr(f"{self.mnt}/zero", "user.granary.cached"), b"1.0000")
        for path, name in ((f, "user.granary.other"), (f, "user.x"), (f, "security.capability"),
                           (self.mnt, "user.granary.cached")):
            with self.assertRaises(OSError) as raised:
                os.getxattr(path, name)
            self.assertEqual(raised.exception.errno, errno.ENODATA)


class Faults(Base):
    def setUp(self):
        super().setUp()
        self.data = blob(200_000)
        for i in range(300):
            write(f"{self.tree}/f{i}", self.data)

    def reader(self, path, flags=0):
        """A child that reads the file and exits with the errno."""
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGUSR1, lambda *_: os._exit(99))
            try:
                fd = os.open(path, os.O_RDONLY | flags)
                os.preadv(fd, [mmap.mmap(-1, 65536)], 0)
            except OSError as e:
                os._exit(e.errno)
            os._exit(0)
        return pid

    def reap(self, pid, within_s):
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return status
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.fail("the reader hangs")

    def wait_reads(self, m, count):
        deadline = time.monotonic() + RACE_FREE_S
        while m.counters()["read"] < count:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)

    def test_a_stuck_reader_can_be_killed(self):
        m = self.mount()
        m.tell("local off")
        m.tell("stall on")
        pid = self.reader(f"{self.mnt}/f0")
        self.wait_reads(m, 1)
        os.kill(pid, signal.SIGTERM)
        self.assertEqual(os.WTERMSIG(self.reap(pid, 2)), signal.SIGTERM)

    def test_a_stuck_direct_read_can_be_interrupted(self):
        m = self.mount()
        m.tell("local off")
        m.tell("stall on")
        pid = self.reader(f"{self.mnt}/f0", os.O_DIRECT)
        self.wait_reads(m, 1)
        os.kill(pid, signal.SIGUSR1)
        self.assertEqual(os.WEXITSTATUS(self.reap(pid, 2)), 99)
        c = m.counters()
        self.assertEqual((c["interrupted"], c["failed_reads"]), (1, 0))

    def test_many_stuck_readers_leave_room_for_the_others(self):
        m = self.mount(mode="no-open")
        m.tell("local off")
        m.tell("stall on")
        pids = [self.reader(f"{self.mnt}/f{i}", os.O_DIRECT) for i in range(200)]
        self.wait_reads(m, 200)
        began = time.monotonic()
        m.tell("local on")
        for i in range(250, 300):
            self.assertEqual(pathlib.Path(f"{self.mnt}/f{i}").read_bytes(), self.data)
        self.assertLess(time.monotonic() - began, RACE_FREE_S)
        m.tell("local off")
        began = time.monotonic()
        for pid in pids:  # those that wait for a thread can be interrupted, too
            os.kill(pid, signal.SIGUSR1)
        for pid in pids:
            self.assertEqual(os.WEXITSTATUS(self.reap(pid, 5)), 99)
        self.assertLess(time.monotonic() - began, 5)
        self.assertEqual(m.counters()["interrupted"], 200)

    def test_a_read_gives_up_at_its_deadline_and_says_why(self):
        m = self.mount(timeout_ms=1200)
        m.tell("local off")
        m.tell("stall on")
        began = time.monotonic()
        pids = [self.reader(f"{self.mnt}/f{i}", os.O_DIRECT) for i in range(100)]  # more than threads
        for pid in pids:
            self.assertEqual(os.WEXITSTATUS(self.reap(pid, 5)), errno.EIO)
        self.assertGreater(time.monotonic() - began, 1)
        c = m.counters()
        self.assertEqual(c["failed_reads"], 100)
        self.assertRegex(c["last_error"], "read of f[0-9]+, 65536 bytes at 0, failed: ")
        m.tell("stall off")
        time.sleep(1.1)  # what failed after a wait is not waited for again within a second
        self.assertEqual(pathlib.Path(f"{self.mnt}/f0").read_bytes(), self.data)
        self.assertIn(b"failed: ", m.log)
        self.assertLess(m.log.count(b"\n"), 10)  # a hundred failures are not a hundred lines

    def test_a_failed_read_is_not_remembered(self):
        m = self.mount()
        m.tell("local off")
        m.tell("fail on")
        with self.assertRaises(OSError) as raised:
            pathlib.Path(f"{self.mnt}/f1").read_bytes()
        self.assertEqual(raised.exception.errno, errno.EIO)
        m.tell("fail off")
        self.assertEqual(pathlib.Path(f"{self.mnt}/f1").read_bytes(), self.data)

    def test_stopping_ends_stuck_readers(self):
        m = self.mount()
        m.tell("local off")
        m.tell("stall on")
        pids = [self.reader(f"{self.mnt}/f{i}", os.O_DIRECT) for i in range(100)]
        self.wait_reads(m, 100)
        began = time.monotonic()
        self.assertEqual(m.stop(), 0)
        for pid in pids:
            self.assertNotEqual(self.reap(pid, 5), 0)
        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual(os.listdir(self.mnt), [])

    def test_a_mount_that_is_busy_is_still_left(self):
        m = self.mount()
        fd = os.open(f"{self.mnt}/f0", os.O_RDONLY)
        os.read(fd, 10)
        self.assertEqual(m.stop(), 0)
        self.assertEqual(os.listdir(self.mnt), [])
        with self.assertRaises(OSError) as raised:
            os.fstatvfs(fd)
        self.assertEqual(raised.exception.errno, errno.ENOTCONN)
        with self.assertRaises(OSError):  # the kernel asks us about the close, but nobody is there
            os.close(fd)


class Mountpoints(Base):
    def refused(self, mountpoint):
        with self.assertRaises(RuntimeError) as raised:
            Mount(self.tree, mountpoint, self.work).stop()
        text = str(raised.exception)
        self.assertEqual(text.count("\n"), 1, text)
        return text

    def test_unfit_mount_points_are_refused_with_a_word(self):
        self.assertIn("does not exist", self.refused(f"{self.dir}/missing"))
        write(f"{self.dir}/file")
        self.assertIn("not a directory", self.refused(f"{self.dir}/file"))
        write(f"{self.dir}/full/file")
        self.assertIn("not empty", self.refused(f"{self.dir}/full"))
        m = self.mount()
        self.assertIn("mounted at", self.refused(self.mnt))
        os.symlink(self.mnt, f"{self.dir}/link")
        self.assertIn("mounted at", self.refused(f"{self.dir}/link"))
        self.assertEqual(m.stop(), 0)

    def refused_in_namespace(self, script, *options):
        """What the driver says in a mount namespace of its own, after the script has spoilt it."""
        if os.geteuid() != 0 or not shutil.which("unshare"):
            self.skipTest("needs root and unshare")
        subprocess.run(["chown", "-R", "65534:65534", self.dir], check=True)
        run = subprocess.run(["unshare", "-m", "sh", "-c", "mount --make-rprivate / && " + script + ' "$@"', "sh", DRIVER,
                              self.tree, self.mnt, self.work, *options], capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
        self.assertNotEqual(run.returncode, 0)
        self.assertEqual(run.stdout, b"")
        text = run.stderr.decode()
        self.assertEqual(text.count("\n"), 1, text)
        return text

    def test_a_system_that_does_not_allow_it_is_told_what_to_change(self):
        nobody = "exec setpriv --reuid 65534 --regid 65534 --clear-groups"
        fuse_for = 'mkdir -p "$PWD/dev" && mount -t tmpfs none "$PWD/dev" && mknod -m %s "$PWD/dev/fuse" c 10 229 && ' \
                   'mount --bind "$PWD/dev/fuse" /dev/fuse && '
        os.chmod(self.dir, 0o755)
        here = os.getcwd()
        os.chdir(self.dir)
        self.addCleanup(os.chdir, here)
        self.assertIn("there is no /dev/fuse", self.refused_in_namespace("mount -t tmpfs none /dev && exec"))
        self.assertIn("no permission to open /dev/fuse", self.refused_in_namespace(fuse_for % "600" + nobody))
        self.assertIn("install the package fuse3", self.refused_in_namespace(
            fuse_for % "666" + "mount --bind /dev/null $(command -v fusermount3) && " + nobody))
        os.chmod(self.mnt, 0o555)
        self.assertIn("may not write", self.refused_in_namespace(fuse_for % "666" + nobody))
        os.chmod(self.mnt, 0o755)
        if not any(line.split() == ["user_allow_other"] for line in pathlib.Path("/etc/fuse.conf").read_text().splitlines()):
            self.assertIn("user_allow_other", self.refused_in_namespace(fuse_for % "666" + nobody, "auto", "0", "allow-other"))

    def test_a_dead_mount_is_detached_first(self):
        write(f"{self.tree}/f", b"x")
        m = self.mount()
        os.stat(self.mnt)
        m.process.kill()
        m.process.wait()
        with self.assertRaises(OSError):
            os.statvfs(self.mnt)
        time.sleep(1.1)  # the root's attributes are believed for a second
        with self.assertRaises(OSError) as raised:
            os.stat(self.mnt)
        self.assertEqual(raised.exception.errno, errno.ENOTCONN)
        m2 = Mount(self.tree, self.mnt, self.work)
        self.assertEqual(pathlib.Path(f"{self.mnt}/f").read_bytes(), b"x")
        self.assertEqual(m2.stop(), 0)
        self.assertEqual(os.listdir(self.mnt), [])

    def test_somebody_elses_unmount_ends_it(self):
        m = self.mount()
        subprocess.run(["umount", self.mnt], check=True)
        self.assertEqual(m.stop(), 0)

    def test_an_aborted_connection_is_unmounted(self):
        m = self.mount()
        abort = f"/sys/fs/fuse/connections/{os.minor(os.stat(self.mnt).st_dev)}/abort"
        if not os.path.exists(abort):
            if os.geteuid() != 0 or subprocess.run(["mount", "-t", "fusectl", "none", "/sys/fs/fuse/connections"],
                                                   capture_output=True).returncode != 0:
                self.skipTest("no fusectl")
            self.addCleanup(subprocess.run, ["umount", "/sys/fs/fuse/connections"], capture_output=True)
        pathlib.Path(abort).write_text("1")
        self.assertEqual(m.stop(umount=False), 0)
        self.assertEqual(os.listdir(self.mnt), [])

    def test_nodes_are_found_by_their_handles(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")
        write(f"{self.tree}/a/b/file", b"by handle")
        m = self.mount()
        handle = (ctypes.c_ubyte * 136)()
        ctypes.cast(handle, ctypes.POINTER(ctypes.c_uint))[0] = 128
        libc, mount_id = ctypes.CDLL(None, use_errno=True), ctypes.c_int()
        path = os.fsencode(f"{self.mnt}/a/b/file")
        self.assertEqual(libc.name_to_handle_at(-100, path, handle, ctypes.byref(mount_id), 0), 0)
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("2")  # the kernel forgets the node
        at = os.open(self.mnt, os.O_RDONLY)
        fd = libc.open_by_handle_at(at, handle, os.O_RDONLY)
        self.assertGreaterEqual(fd, 0, os.strerror(ctypes.get_errno()))
        self.assertEqual(os.read(fd, 100), b"by handle")
        os.close(fd)
        os.close(at)
        self.assertEqual(m.stop(), 0)

    def test_what_others_mounted_there_meanwhile_is_left_alone(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")
        m = self.mount()
        subprocess.run(["umount", self.mnt], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", self.mnt], check=True)
        write(f"{self.mnt}/theirs")
        m.tell("quit")
        m.process.wait(30)
        self.assertEqual(os.listdir(self.mnt), ["theirs"])
        subprocess.run(["umount", self.mnt], check=True)

    def test_permissions_are_the_kernels_business(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")
        write(f"{self.tree}/private", b"x")
        write(f"{self.tree}/public", b"y")
        os.chmod(f"{self.tree}/private", 0o600)
        os.chmod(self.dir, 0o755)
        self.mount(allow_other=True)
        as_nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "cat"]
        run = subprocess.run([*as_nobody, f"{self.mnt}/public"], capture_output=True)
        self.assertEqual(run.stdout, b"y")
        run = subprocess.run([*as_nobody, f"{self.mnt}/private"], capture_output=True)
        self.assertIn(b"Permission denied", run.stderr)

    def test_without_root_it_goes_through_fusermount(self):
        if os.geteuid() != 0:
            self.skipTest("needs root to become somebody else")
        if not shutil.which("fusermount3") or not shutil.which("unshare"):
            self.skipTest("no fusermount3")
        write(f"{self.tree}/f", b"x")
        # The build may be where only root looks, below /root for one.
        driver = shutil.copy(DRIVER, self.dir)
        subprocess.run(["chown", "-R", "65534:65534", self.dir], check=True)
        os.chmod(self.dir, 0o755)
        # A namespace of its own, with a /dev/fuse that everybody may open, as distributions have it.
        script = ('mount --make-rprivate / && mount -t tmpfs none "$1/dev" && mknod -m 666 "$1/dev/fuse" c 10 229 && '
                  'mount --bind "$1/dev/fuse" /dev/fuse && shift && '
                  'exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"')
        os.mkdir(f"{self.dir}/dev")
        check = ('d=$1; shift; mkfifo "$d/in"; "$@" < "$d/in" > "$d/out" & exec 3> "$d/in"; '
                 'i=0; until grep -qs ready "$d/out"; do i=$((i+1)); [ $i -gt 100 ] && exit 3; sleep 0.1; done; '
                 'cat "$2/f" "$3/f"; grep "$3 " /proc/self/mounts; echo quit >&3; wait; ls -A "$3"; cat "$d/out"')
        run = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", self.dir, "sh", "-c", check, "sh", self.work,
                              driver, self.tree, self.mnt, self.work], capture_output=True, timeout=60)
        out = run.stdout.decode()
        self.assertTrue(out.startswith("xx"), (out, run.stderr))
        self.assertIn("granary:driven", out)
        self.assertIn("user_id=65534", out)
        self.assertTrue(out.endswith("ready\nended\n"), (out, run.stderr))
        self.assertEqual(run.stderr, b"")


class Switching(Base):
    def setUp(self):
        super().setUp()
        self.second = os.path.join(self.dir, "second")
        for i in range(20):
            write(f"{self.tree}/same{i}", blob(5000, i))
            write(f"{self.second}/same{i}", blob(5000, i))
            write(f"{self.tree}/changed/c{i}", blob(100_000, i))
            write(f"{self.second}/changed/c{i}", blob(90_000, i + 1000))
            write(f"{self.tree}/gone/g{i}", b"gone")
            write(f"{self.second}/new/n{i}", b"new")

    def contents(self, top):
        result = {}
        for root, dirs, files in os.walk(top):
            for name in dirs:
                result[os.path.relpath(os.path.join(root, name), top)] = None
            for name in files:
                path = os.path.join(root, name)
                result[os.path.relpath(path, top)] = (os.stat(path).st_size, pathlib.Path(path).read_bytes())
        return result

    def switches(self, mode, command):
        m = self.mount(mode=mode)
        self.assertEqual(self.contents(self.mnt), self.contents(self.tree))
        self.assertFalse(os.path.exists(f"{self.mnt}/new/n1"))  # remembered as absent
        held = open(f"{self.mnt}/changed/c1", "rb")
        held.read(10)
        old_dir = os.open(f"{self.mnt}/changed", os.O_RDONLY | os.O_DIRECTORY)
        self.assertEqual(m.tell(f"{command} {self.second}"), b"switched")
        self.assertEqual(self.contents(self.mnt), self.contents(self.second))
        self.assertFalse(os.path.exists(f"{self.mnt}/gone"))
        self.assertEqual(os.getxattr(self.mnt, "user.granary.snapshot"), b"2")
        # Who was there before stays in what he opened.
        self.assertEqual(held.read(), blob(100_000, 1)[10:])
        inner = os.open("c2", os.O_RDONLY, dir_fd=old_dir)
        self.assertEqual(os.read(inner, 200_000), blob(100_000, 2))
        os.close(inner)
        os.close(old_dir)
        held.close()
        self.assertEqual(m.tell(f"{command} {self.tree}"), b"switched")
        self.assertEqual(self.contents(self.mnt), self.contents(self.tree))
        self.assertEqual(m.stop(), 0)

    def test_a_switch_shows_the_new_snapshot_without_a_stale_byte(self):
        for mode in ("no-open", "open"):
            with self.subTest(mode=mode):
                self.switches(mode, "switch")

    def test_a_switch_without_epochs_does_too(self):
        for mode in ("no-open", "open"):
            with self.subTest(mode=mode):
                self.switches(mode, "switch-old")

    def test_snapshots_shown_long_ago_are_refused_not_mixed_up(self):
        m = self.mount(mode="no-open")
        held = os.open(f"{self.mnt}/changed/c3", os.O_RDONLY | os.O_DIRECT)
        buffer = mmap.mmap(-1, 4096)
        for i in range(8):
            m.tell(f"switch {self.second}")
            self.assertEqual(os.preadv(held, [buffer], 0), 4096)
            self.assertEqual(buffer[:], blob(100_000, 3)[:4096])
        m.tell(f"switch {self.second}")
        with self.assertRaises(OSError) as raised:
            os.preadv(held, [buffer], 0)
        self.assertEqual(raised.exception.errno, errno.ESTALE)
        os.close(held)

    def test_a_listing_that_began_ends_in_its_snapshot(self):
        for i in range(5000):
            write(f"{self.tree}/x{i:05}")
            write(f"{self.second}/y{i:05}")
        m = self.mount()
        listing = raw_listing(self.mnt)
        names = [next(listing)[0] for _ in range(100)]
        m.tell(f"switch {self.second}")
        names += [name for name, _ in listing]
        self.assertEqual({os.fsdecode(n) for n in names}, set(os.listdir(self.tree)) | {".", ".."})
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual(set(os.listdir(self.mnt)), set(os.listdir(self.second)))
        self.assertFalse(os.path.exists(f"{self.mnt}/x00001"))

    def test_readers_during_switches_see_one_of_the_two(self):
        m = self.mount(mode="no-open")
        good = {blob(100_000, 4), blob(90_000, 1004)}
        stop, wrong, count = time.monotonic() + 3, [], [0]

        def read():
            while time.monotonic() < stop:
                try:
                    data = pathlib.Path(f"{self.mnt}/changed/c4").read_bytes()
                except OSError as e:
                    if e.errno != errno.ESTALE:  # more than eight switches within one open
                        wrong.append(e)
                    continue
                count[0] += 1
                if data not in good:
                    wrong.append(len(data))

        threads = [threading.Thread(target=read) for _ in range(4)]
        for t in threads:
            t.start()
        for i in range(14):
            m.tell(f"switch {self.second if i % 2 == 0 else self.tree}")
            time.sleep(0.15)
        for t in threads:
            t.join()
        self.assertEqual(wrong, [])
        self.assertGreater(count[0], 100)


class Passthrough(Base):
    """The driver's files are passed through to those of the tree, when it says so."""

    SIZE = 3 * BLOCK + 12345

    def setUp(self):
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest("passthrough needs root")
        self.data = blob(self.SIZE, 77)
        write(f"{self.tree}/large", self.data)
        write(f"{self.tree}/small", b"small")
        self.path = f"{self.mnt}/large"

    def start(self, **options):
        m = self.mount(mode="open", **options)
        if not options and m.counters()["mode"] != "open, passthrough":
            self.skipTest("this kernel has no passthrough")
        return m

    def read_all(self, path=None):
        self.assertEqual(pathlib.Path(path or self.path).read_bytes(), self.data)

    def wait_for(self, condition, what):
        deadline = time.monotonic() + 60
        while not condition():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.02)

    def map(self, length):
        """A map whose file is closed: Python's own keeps a descriptor."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
        handle = os.open(self.path, os.O_RDONLY)
        address = libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, handle, 0)
        os.close(handle)
        self.assertNotEqual(address, ctypes.c_void_p(-1).value)
        self.addCleanup(libc.munmap, ctypes.c_void_p(address), ctypes.c_size_t(length))
        return address

    def test_a_complete_file_makes_no_read_request(self):
        m = self.start()
        m.tell("whole on")
        self.read_all()
        with open(self.path, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as view:
            self.assertEqual(view[:], self.data)
        self.assertEqual(forked(8, lambda number: pread_many(self.path, self.data, number))(), [0] * 8)
        direct = os.open(self.path, os.O_RDONLY | os.O_DIRECT)
        buffer = mmap.mmap(-1, BLOCK)
        for offset in (0, 2 * BLOCK, 4096):
            got = os.preadv(direct, [buffer], offset)
            self.assertEqual(buffer[:got], self.data[offset:offset + BLOCK])
        os.close(direct)
        c = m.counters()
        self.assertEqual(c["read"], 0)
        self.assertEqual(c["passed_opens"], c["open"])
        self.assertEqual(c["passed_opens"], 11)
        self.assertEqual(c["verified_bytes"], self.SIZE)
        self.assertEqual(c["hit_bytes"] + c["miss_bytes"], 0)

    def test_a_file_that_is_not_complete_is_read_through_the_mount(self):
        m = self.start()
        self.read_all()
        m.tell("whole on")
        self.assertEqual(pathlib.Path(f"{self.mnt}/small").read_bytes(), b"small")
        c = m.counters()
        self.assertEqual((c["passed_opens"], c["wholes"]), (0, 0))
        self.assertGreater(c["read"], 10)
        self.assertEqual(c["hit_bytes"], self.SIZE + 5)

    def test_a_damaged_file_is_read_through_the_mount(self):
        m = self.start()
        m.tell("whole on")
        m.tell("bad on")
        self.read_all()
        c = m.counters()
        self.assertEqual((c["passed_opens"], c["wholes"], c["verified_bytes"]), (0, 0, 0))
        m.tell("bad off")
        self.read_all()
        self.assertEqual(m.counters()["passed_opens"], 1)

    def test_all_who_have_a_file_open_have_it_in_one_way(self):
        m = self.start()
        cached = open(self.path, "rb")
        m.tell("whole on")
        self.read_all()
        self.assertEqual(m.counters()["passed_opens"], 0)
        with cached:
            self.assertEqual(cached.read(), self.data)
        self.wait_for(lambda: m.counters()["release"] == 2, "released")
        with open(self.path, "rb") as passed:
            self.assertEqual(m.counters()["passed_opens"], 1)
            m.tell("whole off")
            self.read_all()
            self.assertEqual(passed.read(), self.data)
        self.assertEqual(m.counters()["passed_opens"], 2)
        # Kept for a while, unless it is wanted back.
        self.read_all()
        self.assertEqual(m.counters()["passed_opens"], 3)
        m.tell("back on")
        self.wait_for(lambda: m.counters()["wholes"] == 0, "given back")
        self.read_all()
        self.assertEqual(m.counters()["passed_opens"], 3)

    def test_an_idle_file_is_given_back(self):
        m = self.start()
        m.tell("whole on")
        with open(self.path, "rb"):
            m.tell("back on")
            time.sleep(2.5)
            self.assertEqual(m.counters()["wholes"], 1)
            m.tell("back off")
        self.wait_for(lambda: m.counters()["wholes"] == 0, "given back")
        self.read_all()
        c = m.counters()
        self.assertEqual((c["passed_opens"], c["verified_bytes"]), (2, self.SIZE))

    def test_a_map_outlives_its_file(self):
        m = self.start()
        m.tell("whole on")
        address = self.map(self.SIZE)
        m.tell("back on")
        m.tell("whole off")
        self.wait_for(lambda: m.counters()["wholes"] == 0, "given back")
        self.read_all()
        self.assertEqual(ctypes.string_at(address, self.SIZE), self.data)
        c = m.counters()
        self.assertEqual(c["passed_opens"], 1)

    def test_who_opens_a_file_while_it_is_verified_waits_for_that(self):
        m = self.start()
        m.tell("whole on")
        m.tell("stall on")
        wait = forked(4, lambda number: pread_many(self.path, self.data, number))
        self.wait_for(lambda: m.counters()["open"] == 4, "opened")
        # Others are not held up.
        self.assertEqual(pathlib.Path(f"{self.mnt}/small").read_bytes(), b"small")
        m.tell("stall off")
        self.assertEqual(wait(), [0] * 4)
        c = m.counters()
        self.assertEqual((c["passed_opens"], c["verified_bytes"], c["read"]), (4, self.SIZE, 1))

    def test_a_process_that_waits_for_the_verification_can_be_killed(self):
        m = self.start()
        m.tell("whole on")
        m.tell("stall on")
        reader = subprocess.Popen(["cat", self.path], stdout=subprocess.DEVNULL)
        self.wait_for(lambda: m.counters()["open"] == 1, "opened")
        reader.kill()
        reader.wait(60)
        m.tell("stall off")
        self.wait_for(lambda: m.counters()["wholes"] == 0, "given back")
        self.read_all()
        self.assertEqual(m.counters()["passed_opens"], 1)

    def test_a_verification_that_hangs_holds_up_neither_the_open_nor_the_end(self):
        m = self.start(timeout_ms=1000)
        m.tell("whole on")
        m.tell("stall on")
        with open(self.path, "rb"):
            self.assertEqual(m.counters()["passed_opens"], 0)
        m.process.stdin.write(b"quit\n")
        m.process.stdin.flush()
        self.assertEqual(m.process.wait(60), 0)

    def test_a_storm_of_opens_with_files_coming_and_going(self):
        m = self.start()
        stop = time.monotonic() + 6
        readers = [subprocess.Popen([sys.executable, "-c", STORM, self.path, f"{self.tree}/large", str(seed), "6"],
                                    stderr=subprocess.PIPE) for seed in range(6)]
        chance = random.Random(5)
        while time.monotonic() < stop:
            m.tell(chance.choice(("whole on", "whole off", "back on", "back off", "bad on", "bad off")))
            time.sleep(0.02)
        for reader in readers:
            _, said = reader.communicate(timeout=120)
            self.assertEqual((reader.returncode, said), (0, b""))
        m.tell("whole off")
        m.tell("back on")
        self.wait_for(lambda: m.counters()["wholes"] == 0, "all given back")
        c = m.counters()
        self.assertGreater(c["passed_opens"], 0)
        self.assertGreater(c["open"], c["passed_opens"])

    def test_it_ends_while_files_are_open_and_mapped(self):
        m = self.start()
        m.tell("whole on")
        address = self.map(BLOCK)
        with open(self.path, "rb", buffering=0) as f:
            self.assertEqual(m.stop(umount=False), 0)
            # The kernel needs nobody to read on, but tells that the mount is gone or serves: no wrong byte.
            try:
                self.assertEqual(f.read(BLOCK), self.data[:BLOCK])
            except OSError as e:
                self.assertIn(e.errno, (errno.ENOTCONN, errno.EIO))
        self.assertEqual(ctypes.string_at(address, BLOCK), self.data[:BLOCK])

    def test_it_can_be_switched_off(self):
        m = self.start(passthrough=False)
        m.tell("whole on")
        self.read_all()
        c = m.counters()
        self.assertEqual((c["mode"], c["passed_opens"], c["wholes"]), ("open", 0, 0))
        self.assertGreater(c["read"], 0)

    def test_without_open_there_is_none(self):
        m = self.mount(mode="no-open")
        m.tell("whole on")
        self.read_all()
        c = m.counters()
        self.assertEqual((c["mode"], c["passed_opens"]), ("no-open", 0))

    def test_where_the_kernel_refuses_all_is_cached(self):
        """Root of a user namespace seems to have the capability."""
        probe = subprocess.run(["unshare", "-U", "-r", "-m", "true"], capture_output=True)
        if probe.returncode != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
            self.skipTest("no user namespaces")
        try:
            m = self.start(wrap=("unshare", "-U", "-r", "-m"), passthrough=True)
        except RuntimeError as e:
            self.skipTest(f"nothing can be mounted in a user namespace: {e}")
        root = f"/proc/{m.process.pid}/root{self.mnt}"
        m.tell("whole on")
        for _ in range(3):
            self.read_all(f"{root}/large")
        c = m.counters()
        self.assertEqual((c["mode"], c["passed_opens"], c["wholes"]), ("open", 0, 0))
        self.assertEqual(m.log.count(b"no passthrough"), 1, m.log)

    def test_a_user_without_privileges_reads_through_the_mount(self):
        if not shutil.which("fusermount3") or not shutil.which("unshare"):
            self.skipTest("no fusermount3")
        subprocess.run(["chown", "-R", "65534:65534", self.dir], check=True)
        os.chmod(self.dir, 0o755)
        os.mkdir(f"{self.dir}/dev")
        # A namespace of its own, with a /dev/fuse that everybody may open, as distributions have it.
        namespace = ('mount --make-rprivate / && mount -t tmpfs none "$1/dev" && '
                     'mknod -m 666 "$1/dev/fuse" c 10 229 && mount --bind "$1/dev/fuse" /dev/fuse && shift && '
                     'exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"')
        m = self.start(wrap=("unshare", "-m", "sh", "-c", namespace, "sh", self.dir), allow_other=False)
        m.tell("whole on")
        root = f"/proc/{m.process.pid}/root{self.mnt}"
        reader = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c",
                                 'cmp "$1" "$2" && cmp "$1" "$2"', "sh", f"{self.tree}/large", f"{root}/large"],
                                capture_output=True, timeout=60)
        self.assertEqual((reader.returncode, reader.stderr), (0, b""))
        c = m.counters()
        self.assertEqual((c["mode"], c["passed_opens"], c["wholes"]), ("open", 0, 0))
        self.assertGreater(c["read"], 0)


STORM = """
import mmap, os, random, sys, time
path, same, seed, seconds = sys.argv[1:]
chance, end = random.Random(seed), time.monotonic() + float(seconds)
good = open(same, "rb").read()
while time.monotonic() < end:
    handle = os.open(path, os.O_RDONLY)
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(good))
        assert os.pread(handle, 70000, at) == good[at:at + 70000], at
    if chance.random() < 0.3:
        with mmap.mmap(handle, 0, prot=mmap.PROT_READ) as view:
            at = chance.randrange(len(good))
            assert view[at:at + 5000] == good[at:at + 5000], at
    os.close(handle)
"""


def can_mount():
    return os.access("/dev/fuse", os.R_OK | os.W_OK) and (os.geteuid() == 0 or shutil.which("fusermount3"))


if __name__ == "__main__":
    DRIVER = os.path.abspath(sys.argv.pop(1))
    if not can_mount():
        print("skipped: /dev/fuse cannot be used here")
        sys.exit(77)
    unittest.main(verbosity=2)
