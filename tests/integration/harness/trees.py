"""Deterministic trees of files, the awkward ones above all. Names are bytes."""

import os
import random

from . import suite

BLOCK = 4 << 20


def noise(seed, count):
    """The same bytes for the same seed, not compressible."""
    return random.Random(seed).randbytes(count)


def write(path, data, mode=0o644):
    path = os.fsencode(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as out:
        out.write(data)
    os.chmod(path, mode)


def write_large(path, count, seed):
    """Noise around holes: a hole reads as zeros and costs no disk."""
    path = os.fsencode(path)
    with open(path, "wb") as out:
        for number, offset in enumerate(range(0, count, 64 << 20)):
            out.seek(offset)
            out.write(noise(f"{seed}/{number}", min(8 << 20, count - offset)))
        out.truncate(count)


def awkward(root):
    """Everything that a snapshot may hold and that is easy to get wrong. The root's attributes are
    part of it."""
    root = os.fsencode(root)
    os.makedirs(root, exist_ok=True)
    for size in (0, 1, 4095, 4096, 65535, 65536, 65537, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK,
                 3 * BLOCK + 12345):
        write(b"%s/sizes/%d.bin" % (root, size), noise(size, size))
    write_large(root + b"/large.bin", 5 << 30 if suite.LARGE else 300 << 20, "large")
    many = 100_000 if suite.LARGE else 5_000
    os.makedirs(root + b"/many")
    for number in range(many):
        write(b"%s/many/%06d.txt" % (root, number), b"%d\n" % number)
    deep = root + b"".join(b"/level%02d" % level for level in range(40))
    write(deep + b"/bottom", b"forty levels down")
    os.makedirs(root + b"/empty/also empty")
    _odd_names(root + b"/names")
    _links(root)
    _modes(root + b"/modes")


def _odd_names(root):
    odd = [b"with space", b" leading and trailing ", b"new\nline", b"tab\there", b"back\\slash",
           "größe-日本-🌾".encode(), b"invalid-\xff\xfe-utf8", b"\x80", b"-dash", b"--help",
           b"quote'\"", b"percent%20%", b"question?mark#hash", b"star*[x]", b"a" * 255, b"...",
           b".hidden", b"plus+and&amp;", b"colon:semicolon;", b"\x01\x02control", b"dir.with.dots"]
    for number, name in enumerate(odd):
        write(root + b"/" + name, b"content of %d\n" % number)
        write(root + b"/in dirs/" + name + b"/file", b"content in %d\n" % number)


def _links(root):
    os.makedirs(root + b"/links")
    os.symlink(b"../sizes/1.bin", root + b"/links/up")
    os.symlink(b"up", root + b"/links/to-link")
    os.symlink(b"../many", root + b"/links/to-dir")
    os.symlink(b"../names/invalid-\xff\xfe-utf8", root + b"/links/odd\nname")


def _modes(root):
    for mode in (0o400, 0o444, 0o555, 0o600, 0o640, 0o644, 0o755):
        write(root + b"/%03o" % mode, b"mode %o" % mode, mode)
    write(root + b"/dir/file", b"in a directory of mode 0750")
    os.chmod(root + b"/dir", 0o750)
    if os.geteuid() == 0:
        write(root + b"/owned", b"by somebody else")
        os.chown(root + b"/owned", 12345, 54321)
        os.chown(root + b"/dir", 1234, 4321)
    os.utime(root + b"/644", ns=(1_000_000_000, 1_234_567_890_123_456_789))


def samples(count, size, seed="samples", prefix="class"):
    """Objects of a training set: {key: bytes}, spread over ten folders."""
    return {f"{prefix}{number % 10}/{number:06d}.jpg": noise(f"{seed}{number}", size)
            for number in range(count)}


def shards(count, size, seed="shards"):
    """Objects of several blocks."""
    return {f"shards/{number:03d}.tar": noise(f"{seed}{number}", size) for number in range(count)}


def write_objects(root, objects):
    for key, body in objects.items():
        write(os.path.join(os.fspath(root), key), body)
