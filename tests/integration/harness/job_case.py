"""One dataset in a directory, one mount of it, and the jobs that the master knows."""

from . import suite, trees
from .granary import Granary

FILES = 1000
BYTES = 110_000
CACHE = "70MB"  # of a dataset of 110 MB


class JobCase(suite.Case):
    def setUp(self):
        super().setUp()
        self.need_fuse()
        self.origin = self.work.directory("origin")
        trees.write_objects(self.origin, trees.samples(FILES, BYTES))
        self.mount = self.work.directory("mnt")
        self.granary = Granary(self.work)

    def up(self, *flags):
        return self.granary.up(self.origin, self.mount, "--name", "d", "--cache-size", CACHE,
                               *flags)

    def jobs(self):
        return {job["name"]: job for job in self.granary.json("job", "ls")["jobs"]}
