"""Random numbers as functions of the seed and the place, so that an interrupted run can go on exactly."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

SHIFT = 4
"""Pixels that an image may move in each direction."""


def seed_of(*numbers: int | str) -> int:
    """A seed below 2^63 made of several numbers and words; any change in one gives an unrelated seed."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*numbers: int | str) -> torch.Generator:
    """A generator on the CPU, seeded by :func:`seed_of`."""
    return torch.Generator().manual_seed(seed_of(*numbers))


def shuffled(count: int, *numbers: int | str) -> Tensor:
    """The numbers ``0 .. count - 1`` in random order, int64 [count]."""
    return torch.randperm(count, generator=generator("order", *numbers))


def draw_moves(count: int, size: tuple[int, int], *numbers: int | str) -> Tensor:
    """Random moves of images: down, right, mirrored or not, and the centre of a square to blank.

    Returns
    -------
    Tensor
        int64 [count, 5]; the moves in 0 .. 8, where 4 is none, and the centre in pixels.
    """
    drawn = torch.rand(count, 5, generator=generator("moves", *numbers), dtype=torch.float64)
    ends = torch.tensor([2 * SHIFT + 1, 2 * SHIFT + 1, 2, *size], dtype=torch.float64)
    return (drawn * ends).long()
