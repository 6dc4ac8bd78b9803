"""Moments of a layer's inputs in two networks at once: the original one and the compressed one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil

import torch
from torch import Tensor, nn

from tuckertree._base.errors import TuckertreeError
from tuckertree._base.progress import ProgressCallback, no_progress
from tuckertree.calibration.moment import InputSecondMoment, MomentSum, plus_outer
from tuckertree.calibration.moments import (
    BLOCK,
    MEMORY,
    POSITIONS,
    Captured,
    PositionChoice,
    captured_inputs,
    folds_within,
    patch_blocks,
)
from tuckertree.calibration.sources import Part
from tuckertree.planning import DEPTHWISE, Layer

FOLDS = 4
Seen = tuple[int, Sequence[Captured], Sequence[Captured]]
"""What layers saw of some images in the original and in the compressed network, call by call, and their fold."""
_SPARSE = 8
"""Depthwise layers see one of so many positions: few unknowns need few, and each is as much to gather as any layer's."""
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
    folds
        The same of disjoint images, which together are all.
    """

    moment: InputSecondMoment
    cross: Tensor
    mean: Tensor
    gram: Tensor
    note: str = ""
    folds: tuple[Pair, ...] = ()

    @classmethod
    def alike(cls, moment: InputSecondMoment) -> Pair:
        """The pair where the two networks are one."""
        return cls(moment, moment.patch, moment.mean, moment.patch)

    @classmethod
    def joined(cls, folds: Sequence[Pair]) -> Pair:
        """The pair of the images of all folds."""
        total = sum(fold.moment.samples for fold in folds)

        def mean(values: Callable[[Pair], Tensor]) -> Tensor:
            first, *others = (fold.moment.samples / total * values(fold) for fold in folds)
            for other in others:
                first += other
            return first

        patch = mean(lambda fold: fold.gram)
        moment = replace(
            folds[0].moment, patch=patch, mean=mean(lambda fold: fold.moment.mean), samples=total
        )
        return cls(
            moment, mean(lambda fold: fold.cross), mean(lambda fold: fold.mean), patch, folds=tuple(folds)
        )

    def about(self, mean: Tensor, original: Tensor) -> Pair:
        """Second moments about other means of ``z`` and ``x``, such as those of other images."""
        z, x = self.moment.mean - mean, self.mean - original
        own = self.moment.mean
        gram = plus_outer(plus_outer(self.gram, -own, own), z, z)
        cross = plus_outer(plus_outer(self.cross, -own, self.mean), z, x)
        return Pair(replace(self.moment, patch=gram, mean=z), cross, x, gram)

    def centred(self) -> Pair:
        """Covariances in the place of second moments; the means stay, they are needed for the bias."""
        cross = plus_outer(self.cross, -self.moment.mean, self.mean)
        moment = self.moment.centred()
        return replace(self, moment=moment.above_rounding(self.moment), cross=cross, gram=moment.patch)


def collect_pairs(
    original: nn.Module,
    compressed: nn.Module | None,
    layers: Sequence[Layer],
    parts: Callable[[], Iterable[tuple[int, Part]]],
    *,
    following: Collection[str] = (),
    memory: int = MEMORY,
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
    parts
        Iterates over the images, and the fold that they are in.
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
        for done, (fold, part) in enumerate(parts()):
            before = captured_inputs(original, layers, part.inputs, () if alone else following)
            other = None if alone else compressed
            after = captured_inputs(other, layers, part.inputs, following) if other else before
            yield fold, [call._replace(continues=part.continues) for call in before], after
            tick(doing, done + 1, 0)

    return gather_pairs(layers, look, alone=compressed is None, memory=memory, positions=positions, seed=seed)


def gather_pairs(
    layers: Sequence[Layer],
    look: Callable[[Sequence[Layer], bool], Iterable[Seen]],
    *,
    alone: bool = False,
    memory: int = MEMORY,
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
    memory
        Bytes that the moments of a layer's folds may take (:func:`~tuckertree.calibration.moments.folds_within`).
    """
    copies = 1 if alone else 2
    sums = {
        layer.name: PairSum(layer, positions, seed, folds_within(layer, memory, copies, FOLDS), alone=alone)
        for layer in layers
    }
    for fold, before, after in look(layers, alone):
        ours, theirs = _by_name(before), _by_name(after)
        for name, total in sums.items():
            total.add(fold, ours.get(name, []), theirs.get(name, []))
    pairs = {name: sums.pop(name).result() for name in list(sums)}
    apart = [layer for layer in layers if pairs[layer.name] == APART]
    if apart:
        again = gather_pairs(apart, look, alone=True, memory=memory, positions=positions, seed=seed)
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

    def __init__(
        self, layer: Layer, positions: int, seed: int, folds: int = FOLDS, *, alone: bool = False
    ) -> None:
        self._layer, self._alone = layer, alone
        self._folds, self._fold, self._sums = folds, 0, dict[int, tuple[MomentSum, MomentSum]]()
        sparse = layer.skip_reason == DEPTHWISE
        self._choice = PositionChoice(layer.name, ceil(positions / _SPARSE) if sparse else positions, seed)
        self._held: list[list[Tensor]] = []
        self._positions = torch.empty(0, dtype=torch.long)
        self._trouble = ""

    def add(self, fold: int, before: Sequence[Captured], after: Sequence[Captured]) -> None:
        """Add what the layer saw in the original and in the compressed network, at its calls for some images."""
        if not self._alone and not _see_the_same_rows(before, after):
            self._trouble = APART
        if self._trouble:
            return
        try:
            for one, other in zip(before, before if self._alone else after, strict=True):
                self._add(fold % self._folds, one, other)
        except TuckertreeError as error:  # what the compressed network makes of it may be at fault
            self._trouble = str(error).removeprefix(f"{self._layer.name}: ") if self._alone else APART

    def _add(self, fold: int, one: Captured, other: Captured) -> None:
        if not one.continues:
            self._positions = self._choice.choose(one.size_out)
        inputs = (one.x,) if self._alone else (one.x, other.x)
        if fold != self._fold:
            self._sum_up()
            self._fold = fold
        for patches in patch_blocks(inputs, self._layer.spec, one.size_out, self._positions):
            if patches[0].numel() + sum(held[0].numel() for held in self._held) > BLOCK:
                self._sum_up()
            self._held.append(patches)

    def _sum_up(self) -> None:
        """Add the patches that are held: a few large products take less time than many small ones."""
        patches = [torch.cat(blocks, 1) for blocks in zip(*self._held, strict=True)]
        self._held = []
        if not patches:
            return
        spec = self._layer.spec
        own, cross = self._sums.setdefault(self._fold, (MomentSum(spec), MomentSum(spec)))
        own.add(patches[-1], self._layer.name)
        if not self._alone:
            cross.add(patches[0], self._layer.name, patches[1])

    def result(self) -> Pair | str:
        """The means, or why there are none; :data:`APART` if the original's alone can be had."""
        name = self._layer.name
        try:
            self._sum_up()
            if not self._trouble:
                sums = self._sums or {0: (MomentSum(self._layer.spec),) * 2}
                return Pair.joined([self._pair(*sums[fold]) for fold in sorted(sums)])
        except TuckertreeError as error:
            self._trouble = str(error).removeprefix(f"{name}: ") if self._alone else APART
        return self._trouble

    def _pair(self, own: MomentSum, cross: MomentSum) -> Pair:
        moment = own.result(self._layer.name)
        if self._alone:
            return Pair.alike(moment)
        other = cross.result(self._layer.name)
        return Pair(moment, other.patch, other.mean, moment.patch)


def _see_the_same_rows(before: Sequence[Captured], after: Sequence[Captured]) -> bool:
    """Whether it is known that rows in the same place belong together."""
    return len(before) == len(after) and all(
        (one.control_flow, one.x.shape, one.size_out) == (other.control_flow, other.x.shape, other.size_out)
        for one, other in zip(before, after, strict=True)
    )
