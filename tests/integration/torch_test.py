"""PyTorch on a mount: a DataLoader of several workers, two DDP ranks, checkpoints, TorchScript."""

import os
import subprocess
import sys
import textwrap

from harness import process, suite, trees
from harness.granary import Granary

SAMPLES = 240
SAMPLE_BYTES = 20_000

_DATASET = """
import hashlib, pathlib, sys, torch

class Files(torch.utils.data.Dataset):
    def __init__(self, root):
        self.paths = sorted(pathlib.Path(root).glob("class*/*.jpg"))

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        body = self.paths[index].read_bytes()
        return torch.frombuffer(bytearray(body), dtype=torch.uint8), self.paths[index].name

def digest(loader):
    \"\"\"Independent of the order.\"\"\"
    total, count = 0, 0
    for batch, names in loader:
        for row, name in zip(batch, names):
            line = name.encode() + row.numpy().tobytes()
            total ^= int.from_bytes(hashlib.sha1(line).digest(), "big")
            count += 1
    return total, count
"""

_LOADER = _DATASET + """
data = Files(sys.argv[1])
loader = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True, num_workers=4)
for epoch in range(2):
    print(*digest(loader))
"""

_ANNOUNCED = _DATASET + """
sys.path.insert(0, sys.argv[2])
import granary_order
data = Files(sys.argv[1])
batches = torch.utils.data.BatchSampler(
    torch.utils.data.RandomSampler(data, generator=torch.Generator().manual_seed(7)), 16, False)
announced = granary_order.BatchSampler(batches, data.paths, sys.argv[1], workers=4)
loader = torch.utils.data.DataLoader(data, batch_sampler=announced, num_workers=4)
for epoch in range(2):
    print(*digest(loader))
    assert announced.order.error is None, announced.order.error
    status = announced.order.status()
print(status["announced"], status["step"], status["entries"])
"""

_RANK = _DATASET + """
import torch.distributed as dist
rank = int(sys.argv[2])
dist.init_process_group("gloo", init_method="file://" + sys.argv[3], rank=rank, world_size=2)
data = Files(sys.argv[1])
sampler = torch.utils.data.distributed.DistributedSampler(data, 2, rank, shuffle=True)
loader = torch.utils.data.DataLoader(data, batch_size=8, sampler=sampler, num_workers=2)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(20000, 4))
step = torch.optim.SGD(model.parameters(), lr=1e-6)
for epoch in range(2):
    sampler.set_epoch(epoch)
    seen = 0
    for batch, _ in loader:
        step.zero_grad()
        model(batch.float()).sum().backward()
        step.step()
        seen += len(batch)
weights = next(model.parameters()).detach()
both = [torch.zeros_like(weights) for _ in range(2)]
dist.all_gather(both, weights)
assert torch.equal(*both), "the ranks went apart"
print(seen)
"""

_SAVE = """
import sys, torch
model = torch.nn.Sequential(torch.nn.Linear(512, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 8))
torch.save(model.state_dict(), sys.argv[1] + "/checkpoint.pt")
torch.jit.script(model).save(sys.argv[1] + "/script.pt")
"""

_LOAD = """
import sys, torch
origin, mount = sys.argv[1:]
for root in (origin, mount):
    state = torch.load(root + "/checkpoint.pt", map_location="cpu")
    script = torch.jit.load(root + "/script.pt")
    torch.manual_seed(1)
    print(sum(float(t.double().sum()) for t in state.values()),
          float(script(torch.ones(2, 512)).sum()))
"""


class Torch(suite.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        probe = subprocess.run([sys.executable, "-c", "import torch"], capture_output=True,
                               check=False)
        if probe.returncode != 0:
            cls.skipTest(cls, "python3-torch is not installed")
        cls.origin = cls.shared.directory("origin")
        cls.environment = process.clean_environment(cls.shared.path, OMP_NUM_THREADS="1")
        trees.write_objects(cls.origin, trees.samples(SAMPLES, SAMPLE_BYTES))
        cls.python(_SAVE, cls.origin)
        cls.mount = cls.shared.directory("mnt")
        Granary(cls.shared).up(cls.origin, cls.mount, "--name", "d")

    @classmethod
    def start(cls, script, *arguments):
        command = [sys.executable, "-c", textwrap.dedent(script), *map(os.fspath, arguments)]
        return subprocess.Popen(command, env=cls.environment, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    @classmethod
    def finish(cls, child):
        out, err = child.communicate(timeout=300)
        if child.returncode != 0:
            raise AssertionError(err[-3000:])
        return out.splitlines()

    @classmethod
    def python(cls, script, *arguments):
        return cls.finish(cls.start(script, *arguments))

    def test_a_data_loader_of_four_workers_reads_what_the_origin_has(self):
        seen = self.python(_LOADER, self.mount)
        self.assertEqual(seen, self.python(_LOADER, self.origin))
        self.assertEqual(seen[0].split()[1], str(SAMPLES))

    def test_a_data_loader_announces_its_order(self):
        """Two epochs: 15 batches of which the last one's step is reported when it is asked for more."""
        seen = self.python(_ANNOUNCED, self.mount, suite.ROOT / "python")
        self.assertEqual(seen[:2], self.python(_LOADER, self.origin))
        self.assertEqual(seen[2], f"{SAMPLES} {SAMPLES // 16} {2 * SAMPLES}")

    def test_two_ranks_on_gloo_train_together(self):
        meeting = self.work.path / "meeting"
        ranks = [self.start(_RANK, self.mount, str(rank), meeting) for rank in range(2)]
        self.assertEqual([self.finish(rank) for rank in ranks], [[str(SAMPLES // 2)]] * 2)

    def test_checkpoints_and_scripts_load_from_the_mount(self):
        of_origin, of_mount = self.python(_LOAD, self.origin, self.mount)
        self.assertEqual(of_origin, of_mount)


if __name__ == "__main__":
    suite.main()
