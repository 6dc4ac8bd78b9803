"""Moments of a layer's inputs in two networks at once: the original one and the compressed one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tuckertree.calibration.moment import Moment, MomentSum
from tuckertree.calibration.moments import (
    POSITIONS,
    Captured,
    PositionChoice,
    captured_inputs,
    patch_blocks,
)
from tuckertree.calibration.sources import Calibration
from tuckertree.planning import Layer
from tuckertree.progress import Tick, no_progress


@dataclass(frozen=True)
class Pair:
    """Moments of patches ``x`` in the original network and ``z``, the same ones, in the compressed network.

    Attributes
    ----------
    moment
        ``E[z z^T]`` and ``E[z]``; maybe shrunk.
    cross
        ``E[z x^T]``, ``[g, K, K]``.
    mean
        ``E[x]``, ``[g, K]``.
    gram
        ``E[z z^T]`` as it was seen.
    """

    moment: Moment
    cross: Tensor
    mean: Tensor
    gram: Tensor

    @classmethod
    def alike(cls, moment: Moment) -> Pair:
        """The pair where the two networks are one."""
        return cls(moment, moment.patch, moment.mean, moment.patch)

    def centred(self) -> Pair:
        """Covariances in the place of second moments; the means stay, they are needed for the bias."""
        cross = self.cross - self.moment.mean.unsqueeze(2) * self.mean.unsqueeze(1)
        moment = self.moment.centred()
        return Pair(moment, cross, self.mean, moment.patch)


def collect_pairs(
    original: nn.Module,
    compressed: nn.Module,
    layers: Sequence[Layer],
    images: Calibration,
    *,
    positions: int = POSITIONS,
    seed: int = 0,
    tick: Tick = no_progress,
    doing: str = "moments",
) -> dict[str, Pair]:
    """Run both networks on the same images and gather the pairs of layers, by name, in one pass.

    ``compressed`` has modules of the same names in the place of the layers. Raises what
    :func:`~tuckertree.calibration.moments.collect_moments` does.
    """
    sums = {layer.name: PairSum(layer, positions, seed) for layer in layers}
    for done, inputs in enumerate(images):
        calls = [captured_inputs(network, layers, inputs) for network in (original, compressed)]
        for before, after in zip(*calls, strict=True):
            sums[before[0]].add(before, after)
        tick(doing, done + 1, images.batches)
    return {layer.name: sums.pop(layer.name).result() for layer in layers}


class PairSum:
    """Sums of a layer's pair over batches."""

    def __init__(self, layer: Layer, positions: int, seed: int) -> None:
        self._layer = layer
        self._own, self._cross = MomentSum(layer.spec), MomentSum(layer.spec)
        self._choice = PositionChoice(layer.name, positions, seed)

    def add(self, before: Captured, after: Captured) -> None:
        """Add what the layer saw in the original and in the compressed network."""
        name, x, size_out = before
        chosen = self._choice.choose(size_out)
        for ours, theirs in patch_blocks((x, after[1]), self._layer.spec, size_out, chosen):
            self._own.add(theirs, name)
            self._cross.add(ours, name, theirs)

    def result(self) -> Pair:
        """The means; raises what :meth:`MomentSum.result` does."""
        cross = self._cross.result(self._layer.name)
        moment = self._own.result(self._layer.name)
        return Pair(moment, cross.patch, cross.mean, moment.patch)


def least_squares_kernel(kernel: Tensor, pair: Pair, ridge: float) -> Tensor:
    """Kernel that gives, on the compressed network's inputs, what is nearest to the original outputs.

    ``W* = argmin E||W x - W* z||^2 + lambda ||W* - W||^2``, that is
    ``W*^T = W^T + (E[z z^T] + lambda I)^-1 (E[z x^T] - E[z z^T]) W^T``.

    Parameters
    ----------
    kernel
        ``W[g, T, C, D1, ..., DN]``, float64.
    ridge
        ``lambda`` in units of the mean of the diagonal of ``E[z z^T]``.
    """
    matrix = kernel.flatten(2).mT
    gram = pair.moment.patch.to(kernel.device)
    scale = gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(torch.finfo(gram.dtype).tiny ** 0.5)
    eye = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    root = torch.linalg.cholesky(gram + ridge * scale[:, None, None] * eye)
    change = torch.cholesky_solve((pair.cross - pair.gram).to(kernel.device) @ matrix, root)
    return (matrix + change).mT.reshape(kernel.shape)
