r"""Backward elimination of channels with exact refitting of what reads them.

A reader ``W[T, C]`` of channels with the moment ``H = E[x x^T]`` loses, where the channels ``D`` are dropped and the weights of
the others refitted, ``tr(G_DD (H^-1_DD)^-1)`` with ``G = W^T W``: the Schur complement of what the others cannot say (the
Optimal Brain Surgeon's step, Hassibi & Stork 1993, for columns). Both ``H^-1`` and ``G`` follow in closed form, so a whole
path from all channels to one costs about as much as an inverse, however many rows ``W`` has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

_ROUNDS = 64
"""Channels go one by one where there are no more than this, and otherwise in so many equal rounds."""

_SPARSE = 0.75
"""Channels that are gone keep their place, as zeros, until so few are left: smaller matrices are a copy."""


@dataclass(frozen=True)
class Elimination:
    """A path of fewer and fewer channels.

    Attributes
    ----------
    order
        The channels in the order in which they go ``[C]``; those that stay to the end last.
    widths
        Numbers of channels left, falling.
    loss
        Squared error of each reader at each of these ``[len(widths), n]``, float64.
    """

    order: Tensor
    widths: tuple[int, ...]
    loss: Tensor

    def kept(self, width: int) -> tuple[int, ...]:
        """The channels that stay where so many do, rising."""
        return tuple(sorted(self.order[len(self.order) - width :].tolist()))


def eliminate(moments: Tensor, grams: Tensor, widths: Sequence[int]) -> Elimination:
    """Drop channels, those first whose loss is the least, and refit the readers each time.

    Parameters
    ----------
    moments
        ``H[n, C, C]``, positive definite: what each of ``n`` readers sees of the channels.
    grams
        ``G[n, C, C]``: products of the columns of each reader's weights.
    widths
        Numbers of channels to stop at, below ``C`` and falling, at least 1; there may be none.

    Examples
    --------
    >>> import torch
    >>> from tuckertree.core.decomposition.elimination import eliminate
    >>> weight = torch.tensor([[1.0, 2.0, 0.1]], dtype=torch.float64)
    >>> path = eliminate(torch.eye(3, dtype=torch.float64)[None], (weight.T @ weight)[None], [2, 1])
    >>> path.kept(2), path.kept(1), [round(x, 2) for x in path.loss[:, 0].tolist()]
    ((0, 1), (1,), [0.01, 1.01])
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments.double()))
    gram, left = grams.double().clone(), torch.arange(moments.shape[-1], device=moments.device)
    stays = torch.ones_like(left, dtype=torch.bool)
    count, largest = len(left), ceil(len(left) / _ROUNDS)
    gone: list[Tensor] = []
    total, loss = gram.new_zeros(len(gram)), []
    for width in widths:
        while count > width:
            if count <= _SPARSE * len(left):
                left, inverse, gram = left[stays], inverse[:, stays][:, :, stays], gram[:, stays][:, :, stays]
                stays = torch.ones_like(left, dtype=torch.bool)
            scores = (gram.diagonal(dim1=1, dim2=2) / inverse.diagonal(dim1=1, dim2=2)).sum(0)
            out = scores.where(stays, torch.inf).argsort()[: min(largest, count - width)]
            rows, products = inverse[:, out], gram[:, out]
            own, lost = products[:, :, out], torch.linalg.inv(rows[:, :, out])
            total = total + (own * lost).sum((1, 2))
            share = lost @ rows
            half = products - own @ share / 2
            inverse.baddbmm_(rows.mT, share, alpha=-1)
            gram.baddbmm_(half.mT, share, alpha=-1).baddbmm_(share.mT, half, alpha=-1)
            gone.append(left[out])
            stays[out] = False
            count -= len(out)
        loss.append(total)
    order = torch.cat([*gone, left[stays]]).cpu()
    losses = torch.stack(loss) if loss else gram.new_zeros(0, len(gram))
    return Elimination(order, tuple(widths), losses.clamp_min(0).cpu())
