"""In which units the numbers of an output count, so that boxes, scores and maps can stand side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Units = Callable[[Tensor], Tensor]
"""Of an output of any network, in the shape of the original's: its numbers in units that count alike."""

_LEAST_DEVIATION = 1e-3
"""Beside the mean square of all: an output that hardly varies does not outweigh the others."""
_BOX = (4, 5)
"""Numbers of a box, and of one that is turned."""
_SPARSE, _HIGH = 0.25, 0.25
"""Detectors find something, and that in few places: their confidences are no more than this on average, and as much somewhere."""
_LOW, _NOTHING = 0.1, 0.03
"""An objectness below the first says that there is nothing; a class above the second, most often, means nothing by itself."""
_WHOLE = 0.02
_SCORE = 0.5
"""No score is further from its mean: one that is off by so much counts as much as a number of a box by its deviation."""


def as_it_is(output: Tensor) -> Tensor:
    """The units of an output whose numbers are alike already."""
    return output


def units_of(output: Tensor) -> Units:
    """The units of an output ``[N, ...]`` of the original network.

    Boxes and scores stand in one output, in units of their own; as they are, only the largest would count. Numbers are divided
    by their deviations along the axis along which these differ most; those of a detector (:class:`Detections`) count where
    something is detected. Classes of a classifier ``[N, classes]`` count as they are.
    """
    if output.ndim < 3 or output.numel() <= output.shape[0]:
        return as_it_is
    found = Detections.in_(output)
    if found is not None:
        return found
    deviations = []
    for axis in range(1, output.ndim):
        others = [each for each in range(output.ndim) if each != axis]
        deviation = output.double().std(others, correction=0, keepdim=True)
        whole = deviation.square().mean().sqrt()
        deviations.append((deviation / whole).clamp_min(_LEAST_DEVIATION) if whole > 0 else 1 + 0 * deviation)
    chosen = max(deviations, key=lambda each: float(each.log().var(correction=0)))
    weights = chosen.reciprocal().to(output)
    return lambda y: y * weights


@dataclass(frozen=True)
class Detections:
    """An output of boxes and scores at many places ``[N, places, numbers]``, or with these axes in turn.

    It is known by its numbers: four or five that are a box come first, then come scores, which are always in 0..1, high
    somewhere, and so in few places, and do not add up to 1. Where some class has a score at most places at which the
    first score is low, the first says whether there is anything at all (YOLO's objectness), and those of classes are
    multiplied by it.

    Attributes
    ----------
    axis
        Of the numbers.
    scores
        Which of them are scores, ``[numbers]`` of bool.
    gated
        Whether the first score multiplies the others.
    weights
        What numbers other than scores are multiplied by: the confidence at their place, over their deviation at the places
        where something is detected, ``[N, places, n]``.
    """

    axis: int
    scores: Tensor
    gated: bool
    weights: Tensor

    @classmethod
    def in_(cls, output: Tensor) -> Detections | None:
        """Those of an output of the original network, if it is of such a kind."""
        output = output.detach().float()
        for axis in (2, 1) if output.ndim == 3 else ():
            y = output.movedim(axis, 2)
            scores = ((y >= 0) & (y <= 1)).flatten(0, 1).all(0)
            first = int(scores.long().argmax())
            if (
                first not in _BOX
                or y.shape[1] <= y.shape[2]
                or not _one_run(scores)
                or _add_up(y[..., scores])
            ):
                continue
            found = y[..., scores]
            gated = _is_gate(found[..., 0], found[..., 1:])
            found = found[..., :1] * found[..., 1:] if gated else found
            confidence = found.amax(2, keepdim=True)
            if confidence.mean() <= _SPARSE and confidence.max() >= _HIGH:
                boxes, share = y[..., ~scores], confidence.square() / confidence.square().sum()
                mean = (share * boxes).sum((0, 1), keepdim=True)
                deviation = (share * (boxes - mean).square()).sum((0, 1), keepdim=True).sqrt()
                return cls(axis, scores, gated, confidence / deviation.where(deviation > 0, 1.0))
        return None

    def __call__(self, output: Tensor) -> Tensor:
        """Numbers of any network's output, scores last."""
        y = output.movedim(self.axis, 2)
        found = y[..., self.scores]
        found = found[..., :1] * found[..., 1:] if self.gated else found
        return torch.cat([y[..., ~self.scores] * self.weights, found / _SCORE], 2)


def _one_run(scores: Tensor) -> bool:
    """Whether what is true comes in one run, to the end or with a few numbers of another kind behind, as masks have."""
    return int(scores.long().diff().abs().sum()) == 1 + (not scores[-1])


def _add_up(scores: Tensor) -> bool:
    """Whether scores are shares of a whole, one of them that of the background."""
    return bool((scores.sum(2) - 1).abs().max() < _WHOLE)


def _is_gate(first: Tensor, others: Tensor) -> bool:
    """Whether a score says whether there is anything: rarely, and others are not low where it is."""
    if not others.shape[2] or first.mean() > _SPARSE or not (first < _LOW).any():
        return False
    return bool(others.amax(2)[first < _LOW].median() > _NOTHING)
