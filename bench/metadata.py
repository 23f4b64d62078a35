"""Trees of many files: against the same tree on ext4, and more of them than one would unpack."""

import shutil
import subprocess
import sys
import time

from harness import granary, nginx, page_cache

import peers
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


class Known:
    """Ten million files that only a listing knows: a million in one folder, a thousand in others."""

    FLAT = "flat"
    FLAT_FILES = 1_000_000
    IMPORT_SECONDS = 3000

    def __init__(self, work, files, rounds):
        self.work = work
        self.files = files
        self.rounds = rounds
        self.root = work.directory("listed")
        self.host = granary.Granary(work, "known")
        self.mountpoint = work.directory("mnt-known")
        self.flat = self.mountpoint / self.FLAT

    def rows(self):
        self.write_listing()
        self.server = nginx.Static(self.work, self.root)
        imported = self.files / self.up()[1]
        self.down()
        (self.root / "listing").unlink()
        ready, idle, found, used = [], [], [], []
        for number in range(self.rounds):
            page_cache.drop(self.mountpoint)
            up, seconds = self.up()
            ready.append(seconds)
            idle.append(peers.usage([up.pid])[1])
            subprocess.run(["ls", "-l", self.flat], check=True, stdout=subprocess.DEVNULL)
            found.append(self.find())
            used.append(peers.usage([up.pid])[1])
            mapped = peers.resident(up.pid, "RssFile:")
            print(f"bench: {self.files:,} files, round {number + 1}: {mapped:.0f} MiB of the manifest "
                  "and programs mapped", file=sys.stderr)
            self.down()
        what = f"{self.files:,} files of a listing"
        return [
            report.Figure(f"{what}, imported", "files/s", [imported]),
            report.Figure(f"{what}, known and page cache dropped, until mounted", "s", ready, 1),
            report.Figure(f"{what}, RssAnon + RssShmem once mounted", "MiB", idle, 100),
            report.Figure(f"{what}, the same after `ls -l` and `find` of {self.FLAT_FILES:,}", "MiB",
                          used, 100),
            report.Figure(f"{what}, find in a folder of {self.FLAT_FILES:,}", "files/s", found),
        ]

    def write_listing(self):
        """Sizes and paths with an etag each; as few as wanted for a trial."""
        with (self.root / "listing").open("w") as listing:
            flat = min(self.FLAT_FILES, self.files)
            for number in range(flat):
                listing.write(f'110000\t{self.FLAT}/{number:07d}.jpg\t"{number:x}"\n')
            for number in range(flat, self.files):
                directory, name = divmod(number, DIRECTORY_FILES)
                listing.write(f'110000\ttrain/n{directory:08d}/{name:04d}.jpg\t"{number:x}"\n')

    def up(self):
        """The process that is master, worker and mount, and the seconds until the mount answers."""
        began = time.monotonic()
        up = self.host.up(f"{self.server.url}/", self.mountpoint, "--index",
                          f"{self.server.url}/listing", "--name", "known",
                          seconds=self.IMPORT_SECONDS)
        return up, time.monotonic() - began

    def find(self):
        page_cache.drop(self.mountpoint)
        names = min(self.FLAT_FILES, self.files)
        return names / seconds("find", self.flat, "-type", "f")

    def down(self):
        self.host.umount(self.mountpoint)
        self.host.wait_ended()
