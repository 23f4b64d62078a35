"""Programs that people read datasets with."""

import os
import subprocess
import tarfile

from harness import compare, page_cache, suite, trees
from harness.granary import Granary

FIO_BYTES = 64 << 20


class Clients(suite.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.origin = cls.shared.directory("origin")
        trees.write_objects(cls.origin, {**trees.samples(300, 30_000), "fio.bin":
                                         trees.noise("fio", FIO_BYTES)})
        os.symlink("fio.bin", cls.origin / "link")
        (cls.origin / "empty").mkdir()
        cls._write_shards()
        cls.mount = cls.shared.directory("mnt")
        Granary(cls.shared).up(cls.origin, cls.mount, "--name", "d")

    @classmethod
    def _write_shards(cls):
        """WebDataset-style: a sample is a run of members with the same stem."""
        for shard in range(2):
            with tarfile.open(cls.origin / f"shard-{shard}.tar", "w") as archive:
                for number in range(50):
                    path = cls.origin / f"class{number % 10}" / f"{number:06d}.jpg"
                    archive.add(path, f"{shard}-{number:06d}.jpg")

    def run_tool(self, *command, **more):
        suite.tool(command[0])
        done = subprocess.run(list(map(os.fspath, command)), capture_output=True, check=False,
                              timeout=300, **more)
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        return done.stdout

    def test_fio_reads_at_random_and_in_order(self):
        suite.tool("fio")
        for engine in ("psync", "mmap"):
            for pattern in ("read", "randread"):
                with self.subTest(engine=engine, pattern=pattern):
                    page_cache.drop_below(self.mount)
                    self.run_tool("fio", "--name=t", "--readonly", f"--ioengine={engine}",
                                  f"--rw={pattern}", "--bs=64k", "--numjobs=4", "--size=64m",
                                  f"--filename={self.mount}/fio.bin", "--group_reporting",
                                  "--loops=1", cwd=self.work.path)

    def test_cp_archives(self):
        copy = self.work.path / "copy"
        self.run_tool("cp", "-a", self.mount, copy)
        compare.assert_same_attributes(self, self.mount, copy)
        compare.assert_diff_finds_nothing(self, self.origin, copy)

    def test_tar_packs(self):
        archive = self.work.path / "all.tar"
        self.run_tool("tar", "-C", self.mount, "-cf", archive, ".")
        unpacked = self.work.directory("unpacked")
        self.run_tool("tar", "-C", unpacked, "-xf", archive)
        compare.assert_diff_finds_nothing(self, self.origin, unpacked)

    def test_rsync_copies_and_then_finds_nothing_to_do(self):
        copy = self.work.path / "copy"
        self.run_tool("rsync", "-a", f"{self.mount}/", f"{copy}/")
        compare.assert_diff_finds_nothing(self, self.origin, copy)
        changes = self.run_tool("rsync", "-a", "-i", "--checksum", f"{self.mount}/", f"{copy}/")
        self.assertEqual(changes, b"")

    def test_find_finds_all(self):
        names = {}
        for root in (self.origin, self.mount):
            lines = self.run_tool("find", ".", "-printf", "%p %y %s %m\\n", cwd=root).split(b"\n")
            # Sizes of directories are the filesystem's business.
            names[root] = sorted(line for line in lines if b" d " not in line)
        self.assertEqual(names[self.origin], names[self.mount])

    def test_tar_shards_stream_and_seek(self):
        for shard in range(2):
            with tarfile.open(self.mount / f"shard-{shard}.tar", "r|") as archive:
                count = 0
                for member in archive:
                    body = archive.extractfile(member).read()
                    number = int(member.name[2:8])
                    self.assertEqual(body, trees.noise(f"samples{number}", 30_000))
                    count += 1
                self.assertEqual(count, 50)

    def test_descriptors_may_be_inherited_duplicated_and_seeked(self):
        wanted = (self.origin / "fio.bin").read_bytes()[1000:1010]
        with open(self.mount / "fio.bin", "rb", buffering=0) as file:
            copy = os.dup(file.fileno())
            pid = os.fork()
            if pid == 0:
                os._exit(0 if os.pread(copy, 10, 1000) == wanted else 1)
            self.assertEqual(os.waitpid(pid, 0)[1], 0)
            self.assertEqual(os.lseek(copy, 0, os.SEEK_END), FIO_BYTES)
            self.assertEqual(file.read(10), b"")
            os.close(copy)


if __name__ == "__main__":
    suite.main()
