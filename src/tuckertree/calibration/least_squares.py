"""The kernel that gives, on the compressed network's inputs, what is nearest to the original outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tuckertree.calibration.pairs import Pair
from tuckertree.core.decomposition.refine import ridged_root


@dataclass(frozen=True)
class Correction:
    """What the change of a kernel is solved from.

    ``W* = argmin E||W x - W* z||^2 + lambda ||W* - W||^2``, that is
    ``W*^T = W^T + (E[z z^T] + lambda I)^-1 (E[z x^T] - E[z z^T]) W^T``.

    Attributes
    ----------
    gram
        ``E[z z^T]`` as it was seen, ``[g, n, n]``, of the ``n`` inputs that an output reads.
    moment
        The same, maybe shrunk.
    slope
        ``(E[z x^T] - E[z z^T]) W^T``, ``[g, n, T]``.
    energy
        ``E||W z||^2``.
    """

    gram: Tensor
    moment: Tensor
    slope: Tensor
    energy: float

    @classmethod
    def of(cls, kernel: Tensor, pair: Pair, channels: Sequence[int] | None = None) -> Correction:
        """Of a kernel ``W[g, T, C, D1, ..., DN]``, float64, that may read these of ``C``; by default all."""
        matrix = kernel.flatten(2).mT
        cross, gram, moment = (x.to(kernel.device) for x in (pair.cross, pair.gram, pair.moment.patch))
        wanted = cross @ matrix
        if channels is not None:
            rows = _inputs(kernel, channels)
            wanted, matrix = wanted[:, rows], matrix[:, rows]
            gram, moment = gram[:, rows][:, :, rows], moment[:, rows][:, :, rows]
        found = gram @ matrix
        return cls(gram, moment, wanted - found, float((matrix * found).sum()))

    def single(self, unit: float) -> Correction:
        """In single precision, with ``unit`` for 1, which is enough to compare strengths."""
        gram, moment, slope = ((x / unit).float() for x in (self.gram, self.moment, self.slope))
        return Correction(gram, moment, slope, self.energy / unit)

    @property
    def unit(self) -> float:
        """The moment's mean diagonal, or 1 where that is 0."""
        return float(self.moment.diagonal(dim1=1, dim2=2).mean()) or 1.0

    def change(self, ridge: float) -> Tensor:
        """``W*^T - W^T``, ``[g, n, T]``, with ``lambda`` in units of the moment's mean diagonal, at least."""
        return torch.cholesky_solve(self.slope, ridged_root(self.moment, ridge)[0])


def corrected(
    kernel: Tensor, pair: Pair, ridge: float, share: float = 1.0, channels: Sequence[int] | None = None
) -> Tensor:
    """A kernel ``[g, T, C, D1, ..., DN]`` with a share of its correction; zero for channels that it may not read."""
    change = share * Correction.of(kernel, pair, channels).change(ridge)
    found = reading(kernel, channels).flatten(2).mT.index_add(1, _inputs(kernel, channels), change)
    return found.mT.reshape(kernel.shape)


def reading(kernel: Tensor, channels: Sequence[int] | None) -> Tensor:
    """A kernel that reads some of its channels ``C`` and has zeros for the others; None: all."""
    if channels is None:
        return kernel
    some = torch.tensor(list(channels), device=kernel.device)
    return torch.zeros_like(kernel).index_copy_(2, some, kernel.index_select(2, some))


def _inputs(kernel: Tensor, channels: Sequence[int] | None) -> Tensor:
    """Which of the inputs of an output belong to channels; None: all."""
    every = torch.arange(kernel[0, 0].numel(), device=kernel.device)
    return every if channels is None else every.reshape(kernel.shape[2], -1)[list(channels)].flatten()
