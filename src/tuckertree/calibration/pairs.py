"""Moments of a layer's inputs in two networks at once: the original one and the compressed one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tuckertree.calibration.moments import (
    POSITIONS,
    Moment,
    MomentSum,
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
    own = {layer.name: MomentSum(layer.spec) for layer in layers}
    cross = {layer.name: MomentSum(layer.spec) for layer in layers}
    choices = {layer.name: PositionChoice(layer.name, positions, seed) for layer in layers}
    for done, inputs in enumerate(images):
        calls = [captured_inputs(network, layers, inputs) for network in (original, compressed)]
        for (name, x, size_out), (_, z, _) in zip(*calls, strict=True):
            chosen, spec = choices[name].choose(size_out), own[name].spec
            for before, after in patch_blocks((x, z), spec, size_out, chosen):
                own[name].add(after, name)
                cross[name].add(before, name, after)
        tick(doing, done + 1, images.batches)
    pairs = {}
    for layer in layers:
        other = cross.pop(layer.name).result(layer.name)
        moment = own.pop(layer.name).result(layer.name)
        pairs[layer.name] = Pair(moment, other.patch, other.mean, moment.patch)
    return pairs


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
