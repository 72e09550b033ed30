"""CIFAR-10 subsets from a folder of JPEG files (train/CLASS/0000.jpg).

The folder is named by the environment variable CIFAR10 (default: cifar10 in the working folder).
"""

import os
from pathlib import Path

import numpy as np
from PIL import Image


def load(images_per_class=694):
    """x: uint8 images as float32 [rows, 32, 32, 3], y: class numbers, ids: path of each image.

    6,940 images, 694 a class: 72 % of them is a pool of about 5,000, and 2,500 members.
    """
    folder = Path(os.environ.get("CIFAR10", "cifar10")) / "train"
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    x, y, ids = [], [], []
    for label, name in enumerate(classes):
        for path in sorted((folder / name).glob("*.jpg"))[:images_per_class]:
            x.append(np.asarray(Image.open(path), dtype=np.float32))
            y.append(label)
            ids.append(f"{name}/{path.name}")
    return np.stack(x), np.array(y), np.array(ids)


def load_small():
    """The same with 4,170 images: 1,500 members."""
    return load(images_per_class=417)


def load_tiny():
    """The same with 2,780 images: 1,000 members."""
    return load(images_per_class=278)
