"""Make the packaged sample of CIFAR-10 from the whole data set.

    python scripts/make_sample.py DATA [OUT]

DATA is a folder of the 60,000 images in any form that tuckertree reads, OUT the file to write.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from tuckertree.tools.assets import SAMPLE_IMAGES
from tuckertree.tools.data import ImageSet, Preprocessing, open_images

SIZES = {"test": 1000, "train": 256}


def main() -> None:
    """Write the sample."""
    parser = argparse.ArgumentParser(description="Make the packaged sample of CIFAR-10.")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=SAMPLE_IMAGES)
    options = parser.parse_args()

    arrays = {}
    for split, size in SIZES.items():
        images = open_images(options.data, Preprocessing((32, 32)), split=split)
        chosen = first_of_each_class(images, size)
        arrays[f"{split}_images"] = torch.stack([images.pixels(number) for number in chosen]).numpy()
        arrays[f"{split}_labels"] = np.array([images.label(number) for number in chosen], dtype=np.int64)
        arrays["classes"] = np.array(images.classes)
    np.savez_compressed(options.out, **arrays)


def first_of_each_class(images: ImageSet, size: int) -> list[int]:
    """Return the places of the first images of each class, ``size`` in all, in the order of the data set.

    Where the size is not a multiple of the number of classes, the first classes have one image more.
    """
    assert images.classes is not None
    share, rest = divmod(size, len(images.classes))
    wanted = [share + (label < rest) for label in range(len(images.classes))]
    chosen = []
    for number in range(len(images)):
        label = images.label(number)
        if wanted[label]:
            wanted[label] -= 1
            chosen.append(number)
    return chosen


if __name__ == "__main__":
    main()
