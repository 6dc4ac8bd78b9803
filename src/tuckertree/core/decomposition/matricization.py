r"""Kernels as tensors whose modes stand in one row, and the matrices cut out of that row.

Everywhere in this package a kernel is ``W[g, T, C, D1, ..., DN]``: ``g`` groups of ``T`` output and ``C``
input channels and ``N`` spatial modes (``N = 0`` for a linear layer). Put the modes in the order

    C | D1 | D2 | ... | DN | T

and call the ``N + 1`` places between neighbours *bonds*, numbered from 0. Cutting the row at a bond gives
a matricization. For a two-dimensional convolution bond 0 is the paper's {C}, bond 1 its {C, D1} and
bond 2 its {T}: the dimension tree of HT-2 is this row cut at every bond, and the well-known smaller
decompositions are the same row with fewer cuts (:class:`~tuckertree.core.layers.methods.CutMethod`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor


def mode_sizes(kernel_shape: Sequence[int]) -> tuple[int, ...]:
    """Sizes ``(C, D1, ..., DN, T)`` of the row of modes of a kernel of shape ``(T, C, D1, ..., DN)``."""
    out_channels, in_channels, *spatial = kernel_shape
    return (in_channels, *spatial, out_channels)


def block_sizes(kernel_shape: Sequence[int], cuts: Sequence[int]) -> tuple[int, ...]:
    """Product of the mode sizes in each block between cuts, for a kernel of shape ``(T, C, D1, ..., DN)``."""
    sizes = mode_sizes(kernel_shape)
    edges = (0, *(cut + 1 for cut in cuts), len(sizes))
    return tuple(prod(sizes[a:b]) for a, b in pairwise(edges))


def modes_in_row(kernel: Tensor) -> Tensor:
    """Permute ``W[g, T, C, D1, ..., DN]`` to ``W~[g, C, D1, ..., DN, T]`` (a view)."""
    return kernel.movedim(1, -1)


def kernel_from_row(row: Tensor) -> Tensor:
    """Invert :func:`modes_in_row`."""
    return row.movedim(-1, 1)


def matricize(kernel: Tensor, bond: int) -> Tensor:
    """Matrix of each group at a bond: ``[g, modes left of the bond, modes right of it]``."""
    row = modes_in_row(kernel)
    left = prod(row.shape[1 : bond + 2])
    return row.reshape(row.shape[0], left, -1)
