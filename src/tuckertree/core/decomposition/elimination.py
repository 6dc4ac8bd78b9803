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
        Numbers of channels to stop at, below ``C`` and falling, at least 1.

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
    gram, left = grams.double(), torch.arange(moments.shape[-1])
    gone: list[Tensor] = []
    total, loss = gram.new_zeros(len(gram)), []
    largest = ceil(len(left) / _ROUNDS)
    for width in widths:
        while len(left) > width:
            scores = (gram.diagonal(dim1=1, dim2=2) / inverse.diagonal(dim1=1, dim2=2)).sum(0)
            order = scores.argsort()
            count = min(largest, len(left) - width)
            out, stay = order[:count], order[count:].sort().values
            own = inverse[:, out][:, :, out]
            lost = torch.linalg.inv(own)
            total = total + (gram[:, out][:, :, out] * lost).sum((1, 2))
            share = lost @ inverse[:, out][:, :, stay]
            crossed = gram[:, stay][:, :, out] @ share
            both = share.mT @ gram[:, out][:, :, out] @ share
            inverse = inverse[:, stay][:, :, stay] - inverse[:, stay][:, :, out] @ share
            gram = gram[:, stay][:, :, stay] - crossed - crossed.mT + both
            gone.append(left[out.cpu()])
            left = left[stay.cpu()]
        loss.append(total)
    return Elimination(torch.cat([*gone, left]), tuple(widths), torch.stack(loss).clamp_min(0).cpu())
