"""Trees of many files, against the same tree on ext4."""

import shutil
import subprocess
import time

from harness import granary, page_cache

import report

DIRECTORY_FILES = 1000


def seconds(*command):
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


class Tree:
    """So many empty files, a thousand to a directory."""

    def __init__(self, work, files, rounds):
        self.work = work
        self.files = files
        self.rounds = rounds
        self.source = work.directory("ext4-tree")

    def rows(self):
        for number in range(self.files // DIRECTORY_FILES):
            directory = self.source / f"{number:04d}"
            directory.mkdir()
            for name in range(DIRECTORY_FILES):
                (directory / f"{name:04d}.jpg").touch()
        host = granary.Granary(self.work, "tree")
        mountpoint = self.work.directory("mnt-tree")
        host.up(f"file://{self.source}", mountpoint, seconds=600)
        find, stat = [], []
        for _ in range(self.rounds):
            find.append(self.speeds(mountpoint, "find", "-type", "f"))
            stat.append(self.speeds(mountpoint, "find", "-size", "+1"))
        host.umount(mountpoint)
        host.wait_ended()
        shutil.rmtree(self.source)
        what = f"{self.files:,} files, caches dropped"
        return [report.Row(f"{what}, find", "files/s", "ext4", find, 0.5),
                report.Row(f"{what}, find with a stat of each", "files/s", "ext4", stat, None)]

    def speeds(self, mountpoint, program, *arguments):
        """(mount, ext4)"""
        speeds = []
        for root in (mountpoint, self.source):
            page_cache.drop(root)
            speeds.append(self.files / seconds(program, root, *arguments))
        return tuple(speeds)
