"""Holds a mount against what it shows: names, attributes, and bytes read in every way there is."""

import hashlib
import mmap
import os
import random
import stat
import subprocess

from . import readers

_DIGEST_CHUNK = 1 << 20


def entries(root):
    """{path below root: lstat}, links not followed; the root is b"."."""
    root = os.fsencode(root)
    found = {b".": os.lstat(root)}
    pending = [b""]
    while pending:
        below = pending.pop()
        with os.scandir(os.path.join(root, below)) as listing:
            for entry in listing:
                path = os.path.join(below, entry.name)
                found[path] = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)
    return found


def files(root):
    """Paths of regular files, as the mount lists them."""
    root = os.fsencode(root)
    return sorted(os.path.join(root, path) for path, st in entries(root).items()
                  if stat.S_ISREG(st.st_mode))


def attributes(st):
    return {"type": stat.S_IFMT(st.st_mode), "mode": oct(stat.S_IMODE(st.st_mode)),
            "owner": (st.st_uid, st.st_gid), "mtime": st.st_mtime_ns,
            "size": None if stat.S_ISDIR(st.st_mode) else st.st_size}


def assert_same_attributes(case, origin, mount):
    """Names, types, modes, owners, mtimes, sizes and targets of links."""
    want, have = entries(origin), entries(mount)
    case.assertEqual(sorted(want), sorted(have))
    wrong = []
    for path, st in want.items():
        a, b = attributes(st), attributes(have[path])
        if a != b:
            wrong.append((path, a, b))
        if stat.S_ISLNK(st.st_mode):
            targets = [os.readlink(os.path.join(os.fsencode(root), path))
                       for root in (origin, mount)]
            case.assertEqual(*targets)
    case.assertEqual(wrong[:5], [])


def assert_diff_finds_nothing(case, origin, mount):
    done = subprocess.run(["diff", "-r", "--no-dereference", os.fspath(origin), os.fspath(mount)],
                          capture_output=True, check=False)
    case.assertEqual((done.returncode, done.stdout[:500], done.stderr[:500]), (0, b"", b""))


def digest(path):
    total = hashlib.sha1()
    with open(path, "rb", buffering=0) as source:
        while chunk := source.read(_DIGEST_CHUNK):
            total.update(chunk)
    return total.hexdigest()


def digest_of(data):
    return hashlib.sha1(data).hexdigest()


def expected_of(root, objects):
    """{path on the mount: digest} of objects as {key: bytes}."""
    return {os.path.join(os.fsencode(root), os.fsencode(key)): digest_of(body)
            for key, body in objects.items()}


def assert_mapped_same(case, origin, mount):
    """Through mmap: whole small files, some pages of large ones."""
    with open(origin, "rb") as a, open(mount, "rb") as b:
        with mmap.mmap(a.fileno(), 0, prot=mmap.PROT_READ) as left, \
                mmap.mmap(b.fileno(), 0, prot=mmap.PROT_READ) as right:
            case.assertEqual(len(left), len(right))
            step = max(mmap.PAGESIZE, len(left) // 512 // mmap.PAGESIZE * mmap.PAGESIZE)
            for offset in range(0, len(left), step):
                case.assertEqual(left[offset:offset + 100], right[offset:offset + 100])
            case.assertEqual(left[-1], right[-1])


def random_preads(origin, mount, processes=16, reads=200, most=300_000):
    """Every process reads at random places of the same file. Returns how many reads differed."""
    def one(number):
        chance = random.Random(number)
        wrong = 0
        with open(origin, "rb") as a, open(mount, "rb") as b:
            size = os.fstat(a.fileno()).st_size
            for _ in range(reads):
                offset, count = chance.randrange(size + 10), chance.randrange(1, most)
                if os.pread(a.fileno(), count, offset) != os.pread(b.fileno(), count, offset):
                    wrong += 1
        return wrong

    return sum(readers.in_processes(one, range(processes)))
