r"""The Kruskal convolution: the paper's notation, as a function one can run.

An ordinary convolution contracts the kernel with the patch ``x[i1(d1), i2(d2), c]`` that each output
position sees. Put the factored kernel in its place, and the sums can be taken one after the other:

    Z     = X x_c U1                                        pointwise
    Z_V   = sum_{r1, d1}   G1[r1, d1, r13] Z[i1(d1), ...]    one-dimensional, vertical
    Z_VH  = sum_{r13, d2}  G2[r3, d2, r13] Z_V[..., i2(d2)]  one-dimensional, horizontal
    Y     = Z_VH x_r3 U3                                    pointwise

This module writes that down over explicit patches, slowly and literally. The layers are tested against it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tuckertree.core.decomposition.factors import Factors


def kruskal_convolution(
    x: Tensor, factors: Factors, *, stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """Convolve ``x[batch, g * C, I1, ..., IN]``, already padded, with a factored kernel.

    Parameters
    ----------
    x
        Input.
    factors
        Factors of the kernel ``W[g, T, C, D1, ..., DN]``.
    stride, dilation
        ``N`` numbers each.

    Returns
    -------
    Tensor
        ``[batch, g * T, O1, ..., ON]`` with ``Ok = (Ik - dilation (Dk - 1) - 1) // stride + 1``.
    """
    groups = factors.cores[0].shape[0]
    z = x.reshape(x.shape[0], groups, 1, -1, *x.shape[2:]).movedim((2, 3), (-2, -1))
    # z[batch, g, I1 ... IN, rank, C]: the channel mode is contracted first, then one block after another
    spatial = iter(range(len(stride)))
    for number, core in enumerate(factors):
        modes = core.shape[2:-1]
        is_first, is_last = number == 0, number == len(factors.cores) - 1
        taps = modes[is_first : len(modes) - is_last]
        for size in taps:
            axis = next(spatial)
            z = _patches(z, 2 + axis, size, stride[axis], dilation[axis])
        z = z.flatten(start_dim=z.ndim - 1 - len(taps) - is_first)
        outputs = modes[-1] if is_last else 1
        matrix = core.reshape(groups, z.shape[-1], outputs * core.shape[-1])
        z = torch.einsum("bg...r,grs->bg...s", z, matrix)
    return z.movedim(-1, 2).flatten(1, 2)


def _patches(z: Tensor, axis: int, size: int, stride: int, dilation: int) -> Tensor:
    """Append the taps ``z[..., i * stride + d * dilation, ...]``, d = 0...size-1, as a last axis."""
    count = (z.shape[axis] - dilation * (size - 1) - 1) // stride + 1
    taps = [z.narrow(axis, d * dilation, (count - 1) * stride + 1) for d in range(size)]
    steps = torch.arange(0, (count - 1) * stride + 1, stride, device=z.device)
    return torch.stack([tap.index_select(axis, steps) for tap in taps], dim=-1)
