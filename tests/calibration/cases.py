"""Small things that several tests of this package share."""

import torch
from torch import Tensor

from tuckertree.calibration import InputSecondMoment


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_moment(kernel: Tensor, samples: int = 200, dead: int = 0, seed: int = 0) -> InputSecondMoment:
    """InputSecondMoment of correlated patches that fit a kernel ``W[g, T, C, ...]``, ``dead`` channels zero."""
    groups, channels = len(kernel), kernel.shape[2]
    size = kernel[0, 0].numel()
    mix = torch.randn(groups, size, size, dtype=torch.float64, generator=generator(seed)) / size**0.5
    noise = torch.randn(groups, samples, size, dtype=torch.float64, generator=generator(seed + 1))
    patches = (noise @ mix).relu()
    patches[:, :, : dead * (size // channels)] = 0
    return InputSecondMoment(patches.mT @ patches / samples, patches.mean(1), size // channels, samples)
