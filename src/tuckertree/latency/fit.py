"""Fitting times of a layer's fusion variants by what their stages do."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from tuckertree.core.layers import LayerSpec, Scaling, Stage, stage_macs
from tuckertree.planning import Call

_FITS, _SETS, _NOTHING = 12, 50, 1e-12
NOISE = 0.03
"""Relative deviation of a time that was measured well."""


def work(spec: LayerSpec, call: Call, scaling: Scaling, ranks: Tensor) -> Tensor:
    """What a layer does as some stages in one call, for each row of ``ranks[n, k]``.

    Returns
    -------
    Tensor
        ``[n, 8]``, float64: one (the call); its stages; the MACs of stages that move over no spatial axis,
        over the first alone, over others but not all, over all; the numbers passed from stage to stage; and
        the MACs of stages in more groups than the layer.
    """
    stages, ranks = scaling.stages, ranks.double()
    macs = scaling.times(stage_macs(stages, call.size_in, call.size_out), ranks)
    columns = torch.zeros(8, len(ranks), dtype=torch.float64)
    columns[0], columns[1] = 1, len(stages)
    finer = scaling.in_groups(ranks) > spec.groups
    columns[7] = call.samples * (macs * finer).sum(0)
    for stage, each in zip(stages, macs * ~finer, strict=True):
        columns[2 + _reach(spec, stage)] += call.samples * each
    size = call.size_in
    for stage, passed in zip(stages[:-1], scaling.passed(ranks)[:-1], strict=True):
        size = tuple(call.size_out[axis] if axis in stage.axes else n for axis, n in enumerate(size))
        columns[6] += call.samples * prod(size) * passed
    return columns.T


def _reach(spec: LayerSpec, stage: Stage) -> int:
    """0 for a pointwise stage, 1 for the first axis, 2 for another or several, 3 for all."""
    axes, all_axes = stage.spec.nontrivial_modes, spec.nontrivial_modes
    if not axes:
        return 0
    return 3 if axes == all_axes else 1 if axes == all_axes[:1] else 2


@dataclass(frozen=True)
class Prior:
    """What coefficients are taken for before any time is known.

    Attributes
    ----------
    mean, deviation
        Of each coefficient ``[k]``, positive.
    """

    mean: Tensor
    deviation: Tensor


def fit_times(rows: Tensor, times: Tensor, spread: Tensor, prior: Prior) -> Tensor:
    """Coefficients ``[k]``, none negative, such that ``rows @ coefficients`` are about the times.

    The sum of the relative deviations is made small, not that of their squares: on a busy machine some times
    are far too long or too short, and must not draw the others with them. No coefficient is negative, so a
    time never falls where a rank rises. What the times leave open is as in the prior, from which the squares of the
    deviations count.

    Parameters
    ----------
    rows, times
        ``[n, k]``, not negative, and ``[n]``, positive.
    spread
        Relative uncertainty of each time ``[n]``.
    """
    scale = prior.mean  # so that all coefficients are about one
    rows, times = rows * scale / times[:, None], torch.ones_like(times)
    trust, belief = 1 / (spread + NOISE), (scale / prior.deviation).square()
    weights = trust / NOISE
    for _ in range(_FITS):
        gram = rows.T @ (weights[:, None] * rows) + belief.diag()
        coefficients = _not_negative(gram, rows.T @ (weights * times) + belief)
        weights = trust / ((rows @ coefficients - times).abs() + NOISE)
    return coefficients * scale


def _not_negative(gram: Tensor, right: Tensor) -> Tensor:
    """Least squares without negative coefficients, by the active sets of Lawson and Hanson; ``gram`` is definite."""
    scale = gram.diagonal().rsqrt()
    gram, right = gram * scale * scale[:, None], right * scale
    x, free = torch.zeros_like(right), torch.zeros(len(right), dtype=torch.bool)
    for _ in range(_SETS):
        gain = (right - gram @ x).masked_fill(free, 0)
        if float(gain.max()) <= _NOTHING * float(right.abs().max()):
            break
        free[gain.argmax()] = True
        while True:
            better = torch.zeros_like(x)
            better[free] = torch.linalg.solve(gram[free][:, free], right[free])
            below = free & (better <= 0)
            if not below.any():
                break
            step = (x[below] / (x[below] - better[below])).min()
            x = x + step * (better - x)
            free &= ~(below & (x <= _NOTHING))
            x = x * free
        x = better
    return x * scale
