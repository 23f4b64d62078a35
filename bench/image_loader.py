#!/usr/bin/env python3
"""Shuffled epochs of a PyTorch DataLoader over real images, decoded by its worker processes.

    image_loader.py WORKERS EPOCHS SEED keep|drop DIR...

The directories take turns, one epoch each. With "drop" there is one more epoch of each before, which
begins without a page cache. Prints the images a second as JSON: a list for each turn.
"""

import json
import pathlib
import sys
import time
import warnings

import torch
import torchvision

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests/integration"))

from harness import page_cache  # noqa: E402

BATCH = 32
EDGE = 224  # cut out of the middle, or filled up, so that images of all sizes make a batch


def loader(directory, workers):
    transforms = torchvision.transforms
    cut = transforms.Compose([transforms.CenterCrop(EDGE), transforms.PILToTensor()])
    data = torchvision.datasets.ImageFolder(directory, cut)
    return torch.utils.data.DataLoader(data, BATCH, shuffle=True, num_workers=workers)


def epoch(images):
    began = time.monotonic()
    count = sum(len(labels) for _, labels in images)
    return count / (time.monotonic() - began)


def dropped_epoch(images):
    images.dataset[0]  # what decodes is loaded
    page_cache.drop(images.dataset.root)
    return epoch(images)


def main():
    workers, epochs, seed = map(int, sys.argv[1:4])
    warnings.simplefilter("ignore")  # of palettes with transparency
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    sides = [loader(directory, workers) for directory in sys.argv[5:]]
    turns = []
    if sys.argv[4] == "drop":
        turns.append([dropped_epoch(side) for side in sides])
        for side in sides:  # what dropping for the next one took away again
            for path, _ in side.dataset.samples:
                pathlib.Path(path).read_bytes()
    turns += [[epoch(side) for side in sides] for _ in range(epochs)]
    print(json.dumps(turns))


if __name__ == "__main__":
    main()
