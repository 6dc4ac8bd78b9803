"""Moments of a layer's inputs in two networks at once: the original one and the compressed one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError
from tuckertree._base.progress import ProgressCallback, no_progress
from tuckertree.calibration.moment import InputSecondMoment, MomentSum
from tuckertree.calibration.moments import (
    BLOCK,
    POSITIONS,
    Captured,
    PositionChoice,
    captured_inputs,
    patch_blocks,
)
from tuckertree.calibration.sources import Calibration
from tuckertree.core.decomposition.refine import ridged_root
from tuckertree.planning import Layer

Seen = tuple[Sequence[Captured], Sequence[Captured]]
"""What layers saw of a batch in the original and in the compressed network, call by call."""
APART = "it does not see the same rows in both networks"


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
    note
        What there is to say of it.
    """

    moment: InputSecondMoment
    cross: Tensor
    mean: Tensor
    gram: Tensor
    note: str = ""

    @classmethod
    def alike(cls, moment: InputSecondMoment) -> Pair:
        """The pair where the two networks are one."""
        return cls(moment, moment.patch, moment.mean, moment.patch)

    def centred(self) -> Pair:
        """Covariances in the place of second moments; the means stay, they are needed for the bias."""
        cross = self.cross - self.moment.mean.unsqueeze(2) * self.mean.unsqueeze(1)
        moment = self.moment.centred()
        return replace(self, moment=moment.above_rounding(self.moment), cross=cross, gram=moment.patch)


def collect_pairs(
    original: nn.Module,
    compressed: nn.Module | None,
    layers: Sequence[Layer],
    images: Calibration,
    *,
    following: Collection[str] = (),
    positions: int = POSITIONS,
    seed: int = 0,
    tick: ProgressCallback = no_progress,
    doing: str = "moments",
) -> dict[str, Pair | str]:
    """Run both networks on the same images and gather the pairs of layers, by name, in one pass.

    A layer that does not see the same rows in both gets the pair of its inputs in the original network alone, by
    another pass.

    Parameters
    ----------
    original, compressed
        The second has modules of the same names in the place of the layers. Without it all pairs are of the first.
    following
        Names of all layers in which the two differ.

    Returns
    -------
    dict
        For each layer its pair, or why there is none.

    Raises
    ------
    TuckertreeError
        If the images cannot be used.
    """

    def look(layers: Sequence[Layer], alone: bool) -> Iterator[Seen]:
        for done, inputs in enumerate(images):
            before = captured_inputs(original, layers, inputs, () if alone else following)
            other = None if alone else compressed
            yield before, captured_inputs(other, layers, inputs, following) if other else before
            tick(doing, done + 1, images.batches)

    return gather_pairs(layers, look, alone=compressed is None, positions=positions, seed=seed)


def gather_pairs(
    layers: Sequence[Layer],
    look: Callable[[Sequence[Layer], bool], Iterable[Seen]],
    *,
    alone: bool = False,
    positions: int = POSITIONS,
    seed: int = 0,
) -> dict[str, Pair | str]:
    """Pairs of layers by name, or why there are none, as :func:`collect_pairs` gives them.

    Parameters
    ----------
    look
        Goes through the images: what these layers see of each batch in both networks, or in the original alone.
    alone
        Whether that one alone is to be looked at.
    """
    sums = {layer.name: PairSum(layer, positions, seed, alone=alone) for layer in layers}
    for before, after in look(layers, alone):
        ours, theirs = _by_name(before), _by_name(after)
        for name, total in sums.items():
            total.add(ours.get(name, []), theirs.get(name, []))
    pairs = {name: sums.pop(name).result() for name in list(sums)}
    apart = [layer for layer in layers if pairs[layer.name] == APART]
    if apart:
        again = gather_pairs(apart, look, alone=True, positions=positions, seed=seed)
        note = f"fitted to the original's inputs: {APART}"
        pairs |= {n: pair if isinstance(pair, str) else replace(pair, note=note) for n, pair in again.items()}
    return pairs


def _by_name(calls: Sequence[Captured]) -> dict[str, list[Captured]]:
    found: dict[str, list[Captured]] = {}
    for call in calls:
        found.setdefault(call.name, []).append(call)
    return found


class PairSum:
    """Sums of a layer's pair over batches; ``alone``, of its inputs in the original network."""

    def __init__(self, layer: Layer, positions: int, seed: int, *, alone: bool = False) -> None:
        self._layer, self._alone = layer, alone
        self._own, self._cross = MomentSum(layer.spec), MomentSum(layer.spec)
        self._choice = PositionChoice(layer.name, positions, seed)
        self._held: list[list[Tensor]] = []
        self._positions = torch.empty(0, dtype=torch.long)
        self._trouble = ""

    def add(self, before: Sequence[Captured], after: Sequence[Captured]) -> None:
        """Add what the layer saw in the original and in the compressed network, at its calls for a batch."""
        if not self._alone and not _see_the_same_rows(before, after):
            self._trouble = APART
        if self._trouble:
            return
        try:
            for one, other in zip(before, before if self._alone else after, strict=True):
                self._add(one, other)
        except TuckertreeError as error:  # what the compressed network makes of it may be at fault
            self._trouble = str(error).removeprefix(f"{self._layer.name}: ") if self._alone else APART

    def _add(self, one: Captured, other: Captured) -> None:
        if not one.continues:
            self._positions = self._choice.choose(one.size_out)
        inputs = (one.x,) if self._alone else (one.x, other.x)
        for patches in patch_blocks(inputs, self._layer.spec, one.size_out, self._positions):
            if patches[0].numel() + sum(held[0].numel() for held in self._held) > BLOCK:
                self._sum_up()
            self._held.append(patches)

    def _sum_up(self) -> None:
        """Add the patches that are held: a few large products take less time than many small ones."""
        patches = [torch.cat(blocks, 1) for blocks in zip(*self._held, strict=True)]
        self._held = []
        if patches:
            self._own.add(patches[-1], self._layer.name)
        if len(patches) == 2:
            self._cross.add(patches[0], self._layer.name, patches[1])

    def result(self) -> Pair | str:
        """The means, or why there are none; :data:`APART` if the original's alone can be had."""
        name = self._layer.name
        try:
            self._sum_up()
            if not self._trouble and self._alone:
                return Pair.alike(self._own.result(name))
            if not self._trouble:
                cross, moment = self._cross.result(name), self._own.result(name)
                return Pair(moment, cross.patch, cross.mean, moment.patch)
        except TuckertreeError as error:
            self._trouble = str(error).removeprefix(f"{name}: ") if self._alone else APART
        return self._trouble


def _see_the_same_rows(before: Sequence[Captured], after: Sequence[Captured]) -> bool:
    """Whether it is known that rows in the same place belong together."""
    return len(before) == len(after) and all(
        (one.control_flow, one.x.shape, one.size_out) == (other.control_flow, other.x.shape, other.size_out)
        for one, other in zip(before, after, strict=True)
    )


def least_squares_kernel(
    kernel: Tensor, pair: Pair, ridge: float, channels: Sequence[int] | None = None
) -> Tensor:
    """Kernel that gives, on the compressed network's inputs, what is nearest to the original outputs.

    ``W* = argmin E||W x - W* z||^2 + lambda ||W* - W||^2``, that is
    ``W*^T = W^T + (E[z z^T] + lambda I)^-1 (E[z x^T] - E[z z^T]) W^T``.

    Parameters
    ----------
    kernel
        ``W[g, T, C, D1, ..., DN]``, float64.
    ridge
        ``lambda`` in units of the mean of the diagonal of ``E[z z^T]``, at least.
    channels
        Those of ``C`` that may be read; by default all. The kernel is zero for the others.
    """
    whole = kernel.flatten(2).mT
    rows = torch.arange(whole.shape[1], device=kernel.device)
    if channels is not None:
        rows = rows.reshape(kernel.shape[2], -1)[list(channels)].flatten()
    matrix, cross = whole[:, rows], pair.cross.to(kernel.device)[:, rows]
    gram, moment = (x.to(kernel.device)[:, rows][:, :, rows] for x in (pair.gram, pair.moment.patch))
    root, _ = ridged_root(moment, ridge)
    change = torch.cholesky_solve(cross @ whole - gram @ matrix, root)
    found = torch.zeros_like(whole).index_copy_(1, rows, matrix + change)
    return found.mT.reshape(kernel.shape)
