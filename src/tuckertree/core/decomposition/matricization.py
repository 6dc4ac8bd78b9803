r"""Kernels as tensors whose modes stand in one row, and the matrices cut out of that row.

Everywhere in this package a kernel is ``W[g, T, C, D1, ..., DN]``: ``g`` groups of ``T`` output and ``C``
input channels and ``N`` spatial modes (``N = 0`` for a linear layer). Put the modes in the order

    C | D1 | D2 | ... | DN | T

and call the ``N + 1`` places between neighbours *bonds*, numbered from 0. Cutting the row at a bond gives
a matricization. For a two-dimensional convolution bond 0 is the paper's {C}, bond 1 its {C, D1} and
bond 2 its {T}: the dimension tree of HT-2 is this row cut at every bond, and the well-known smaller
decompositions are the same row with fewer cuts (:func:`method_cuts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor

from tuckertree._base.errors import UsageError

METHODS = ("ht2", "tucker2", "spatial", "svd")


def method_cuts(method: str, order: int) -> tuple[int, ...]:
    """Bonds that a named method cuts in a kernel with ``order`` spatial modes.

    ==========  =====================  =================================================
    method      blocks for order 2     known as
    ==========  =====================  =================================================
    ``ht2``     C / D1 / D2 / T        hierarchical Tucker-2 (the paper)
    ``tucker2`` C / D1 D2 / T          Tucker-2 on the channel modes
    ``spatial`` C D1 / D2 T            spatial SVD: a vertical and a horizontal layer
    ``svd``     C D1 D2 / T            SVD of the T-mode: R whole filters, then 1x1
    ==========  =====================  =================================================

    Raises
    ------
    UsageError
        If the method is unknown, or ``spatial`` is asked of a kernel with fewer than two spatial modes.
    """
    if method == "spatial" and order < 2:
        raise UsageError(f"method 'spatial' needs two spatial modes, this kernel has {order}; use 'svd'")
    cuts = {
        "ht2": range(order + 1),
        "tucker2": sorted({0, order}),
        "spatial": [(order + 1) // 2],
        "svd": [order],
    }
    if method not in cuts:
        raise UsageError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    return tuple(cuts[method])


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
