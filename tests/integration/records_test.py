"""Record files on a mount: TFRecord shards read by TensorFlow, Arrow files by mmap."""

import os
import pathlib
import subprocess
import textwrap
import unittest

from harness import page_cache, process, suite
from harness.granary import Granary

# Where tools/deps/loaders.sh puts a Python that has TensorFlow and pyarrow.
PYTHON = pathlib.Path(os.environ.get("GRANARY_DEPS", "~/.cache/granary-dev")).expanduser() \
    / "loaders/venv/bin/python"
SHARDS, RECORDS = 4, 500

_WRITE = """
import hashlib, sys, pyarrow as pa, tensorflow as tf
root, shards, records = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
total = 0
for shard in range(shards):
    bodies = [hashlib.shake_128(b"%d/%d" % (shard, i)).digest(3000 + i) for i in range(records)]
    with tf.io.TFRecordWriter(f"{root}/part-{shard}.tfrecord") as out:
        for body in bodies:
            out.write(body)
            total ^= int.from_bytes(hashlib.sha1(body).digest(), "big")
    table = pa.table({"body": pa.array(bodies, pa.binary()), "n": list(range(records))})
    with pa.OSFile(f"{root}/part-{shard}.arrow", "wb") as sink:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=100)
print(total)
"""

_READ_TFRECORD = """
import hashlib, sys, tensorflow as tf
files = tf.data.Dataset.list_files(sys.argv[1] + "/*.tfrecord", shuffle=True)
data = files.interleave(tf.data.TFRecordDataset, cycle_length=4, num_parallel_calls=4)
total = 0
for record in data.shuffle(256).prefetch(16):
    total ^= int.from_bytes(hashlib.sha1(record.numpy()).digest(), "big")
print(total)
"""

_READ_ARROW = """
import hashlib, pathlib, sys, pyarrow as pa
total = 0
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.arrow")):
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
        assert str(path) in open("/proc/self/maps").read()
        for body in table["body"]:
            total ^= int.from_bytes(hashlib.sha1(body.as_py()).digest(), "big")
print(total)
"""


class Records(suite.Case):
    def setUp(self):
        super().setUp()
        self.need_fuse()
        if not PYTHON.exists():
            raise unittest.SkipTest("TensorFlow and pyarrow are not installed "
                                    "(tools/deps/loaders.sh installs them)")
        self.origin = self.work.directory("origin")
        self.mount = self.work.directory("mnt")
        self.total = self.python(_WRITE, self.origin, SHARDS, RECORDS)
        self.granary = Granary(self.work)
        self.granary.up(f"file://{self.origin}", self.mount, "--name", "records")

    def python(self, program, *arguments):
        environment = process.clean_environment(self.work.path, TF_CPP_MIN_LOG_LEVEL="3")
        done = subprocess.run([PYTHON, "-c", textwrap.dedent(program), *map(str, arguments)],
                              check=False, text=True, capture_output=True, timeout=300,
                              env=environment)
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        return done.stdout.strip()

    def test_tensorflow_reads_tfrecord_shards_cold_and_warm(self):
        self.assertEqual(self.python(_READ_TFRECORD, self.mount), self.total)
        page_cache.drop(self.mount)
        self.assertEqual(self.python(_READ_TFRECORD, self.mount), self.total)

    def test_arrow_files_are_mapped_cold_and_warm(self):
        self.assertEqual(self.python(_READ_ARROW, self.mount), self.total)
        page_cache.drop(self.mount)
        self.assertEqual(self.python(_READ_ARROW, self.mount), self.total)


if __name__ == "__main__":
    suite.main()
