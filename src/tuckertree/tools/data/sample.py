"""The sample of CIFAR-10 that is packaged with tuckertree."""

from functools import partial

import numpy as np
import torch

from tuckertree.tools.assets import SAMPLE_IMAGES
from tuckertree.tools.data.arrays import ArrayRecords
from tuckertree.tools.data.records import Splits


def sample_splits() -> Splits:
    """Return the splits of the packaged sample: 1,000 test images and 256 training images, 32x32."""
    return {split: partial(_open_split, split) for split in ("test", "train")}


def _open_split(split: str) -> ArrayRecords:
    with np.load(SAMPLE_IMAGES, allow_pickle=False) as arrays:
        return ArrayRecords(
            source=f"demo ({split})",
            pixels=torch.from_numpy(arrays[f"{split}_images"]),
            labels=torch.from_numpy(arrays[f"{split}_labels"]),
            classes=[str(name) for name in arrays["classes"]],
        )
