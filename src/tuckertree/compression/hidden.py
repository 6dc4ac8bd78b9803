"""Hidden channels as candidates: which of them go first, and what the network's outputs lose by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import ceil

import numpy as np
import torch
from torch import Tensor, nn

from tuckertree.calibration import KroneckerMetric
from tuckertree.calibration.sensitivity import interpolated
from tuckertree.core.decomposition.elimination import Elimination, eliminate
from tuckertree.core.layers import weight_of
from tuckertree.planning import Candidates, Group, Layer, LayerPlan, Timer
from tuckertree.planning.channels import HiddenChannels, Pruning
from tuckertree.planning.planner import narrowed, thinned
from tuckertree.planning.timing import channel_step

_WIDTHS = {1: 32, 2: 16}
"""Numbers of channels that are tried, at equal distances: of one layer alone, and of each of two that share a layer."""
_SMALL = 1e-3
"""Squared relative error up to which a loss is taken to be linear."""
_TIMED = (0.25, 0.5, 0.75)
"""Shares of the channels with which a layer is timed; the times between are taken to be linear."""


def hidden_groups(
    model: nn.Module,
    layers: Sequence[Layer],
    hidden: Sequence[HiddenChannels],
    candidates: Mapping[str, Candidates],
    metrics: Mapping[str, KroneckerMetric],
    *,
    round_to: int | None = 1,
    timer: Timer | None = None,
) -> dict[str, Group]:
    """Groups of layers with fewer channels between them, by names of their own.

    Channels go by backward elimination with the consumers refitted, in the metric in which the candidates of single
    layers are weighed, too.

    Parameters
    ----------
    layers
        All layers of the model.
    hidden
        Its hidden channels. Where some share layers, at most two are taken together; of more, those of the widest layers.
    candidates, metrics
        Of the layers that may be compressed, by name; where a consumer is none of them, or has no candidates with an
        error, by which to know what one means, the channels stay.
    round_to
        Widths are multiples of this. None: of what suits a CPU's vectors.
    timer
        Knows times: for a budget of latency.
    """
    by_name = {layer.name: layer for layer in layers}
    found = {}
    known = {name for name, each in candidates.items() if name in metrics and each.error.any()}
    for run in _runs([each for each in hidden if {*each.consumers} <= known]):
        widths = [_widths(each.channels, _WIDTHS[len(run)], round_to) for each in run]
        paths = [
            _Path.of(model, each, some, by_name, candidates, metrics)
            for each, some in zip(run, widths, strict=True)
        ]
        every = [_Choice.of(steps) for steps in product(*(path.steps() for path in paths))]
        some = [choice for choice in every if choice.pruned]
        if some:
            concerned = [
                _Concerned(layer, run, timer)
                for layer in layers
                if any(layer.name in each.modules for each in run)
            ]
            found[f"channels of {', '.join(each.producers[0] for each in run)}"] = Group(
                layers=tuple(each.layer.name for each in concerned),
                plans=tuple(tuple(each.plan(choice.pruned) for each in concerned) for choice in some),
                loss=torch.tensor([choice.loss for choice in some], dtype=torch.float64),
                pruned=tuple(choice.pruned for choice in some),
            )
    return found


def _runs(hidden: Sequence[HiddenChannels]) -> list[list[HiddenChannels]]:
    """Channels that share layers, at most two and two, in the order of the forward pass; the widest first come first."""
    runs: list[list[HiddenChannels]] = []
    for each in sorted(hidden, key=lambda each: -each.channels):
        touched = [run for run in runs if any({*each.modules} & {*other.modules} for other in run)]
        if sum(map(len, touched)) < len(_WIDTHS):
            runs = [run for run in runs if run not in touched]
            runs.append([each, *(other for run in touched for other in run)])
    return [sorted(run, key=hidden.index) for run in runs]


def _widths(channels: int, count: int, round_to: int | None) -> list[int]:
    round_to = channel_step(channels) if round_to is None else round_to
    step = max(ceil(channels / count / round_to), 1) * round_to
    return [width for width in range(channels - 1, 0, -1) if width % step == 0]


@dataclass(frozen=True)
class _Choice:
    """Channels that go, of one layer or two, and what is lost by it."""

    pruned: tuple[Pruning, ...]
    loss: float

    @classmethod
    def of(cls, steps: Sequence[tuple[Pruning | None, float]]) -> _Choice:
        return cls(tuple(pruning for pruning, _ in steps if pruning), sum(loss for _, loss in steps))


@dataclass(frozen=True)
class _Path:
    """Fewer and fewer of some hidden channels, and the loss at each width."""

    hidden: HiddenChannels
    elimination: Elimination
    loss: Tensor

    @classmethod
    def of(
        cls,
        model: nn.Module,
        hidden: HiddenChannels,
        widths: Sequence[int],
        layers: Mapping[str, Layer],
        candidates: Mapping[str, Candidates],
        metrics: Mapping[str, KroneckerMetric],
    ) -> _Path:
        curves = [_curve(candidates[name]) for name in hidden.consumers]
        slopes = [float(interpolated(torch.tensor([_SMALL]), curve)) / _SMALL for curve in curves]
        moments, grams = [], []
        for name, slope in zip(hidden.consumers, slopes, strict=True):
            kernel = layers[name].spec.kernel(weight_of(model.get_submodule(name)))
            moment, gram = _moment_and_gram(metrics[name], kernel)
            whole = float((moment * gram).sum())
            moments.append(moment)
            grams.append(gram * (slope / whole if whole > 0 else 0.0))
        path = eliminate(torch.stack(moments), torch.stack(grams), widths)
        loss = torch.zeros(len(widths), dtype=torch.float64)
        for lost, slope, curve in zip(path.loss.T, slopes, curves, strict=True):
            loss += interpolated(lost / slope, curve) if slope > 0 else 0.0
        return cls(hidden, path, loss)

    def steps(self) -> list[tuple[Pruning | None, float]]:
        """All channels, and then fewer and fewer, each with its loss."""
        path = self.elimination
        prunings = [Pruning(self.hidden, path.kept(width)) for width in path.widths]
        return [(None, 0.0), *zip(prunings, self.loss.tolist(), strict=True)]


def _curve(candidates: Candidates) -> list[tuple[float, float]]:
    """A layer's loss by its squared relative error, as its candidates have it."""
    known = dict(sorted(zip(candidates.error.tolist(), candidates.loss.tolist(), strict=True)))
    return list(({0.0: 0.0} | known).items())


def _moment_and_gram(metric: KroneckerMetric, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """What a consumer sees of its channels, and the products of its columns in the metric of all other modes."""
    root = metric.roots[1]
    others = KroneckerMetric((metric.roots[0], None, *metric.roots[2:]))
    columns = others.of(kernel)[0].movedim(1, 0).flatten(1)
    gram = columns @ columns.T
    root = torch.ones(1, 1).to(gram) if root is None else root[0].to(gram)
    return (root.square() * torch.eye(len(gram)).to(gram) if len(root) == 1 else root.T @ root), gram


class _Concerned:
    """A layer that hidden channels are before, behind, or of."""

    def __init__(self, layer: Layer, run: Sequence[HiddenChannels], timer: Timer | None) -> None:
        self.layer = layer
        self._times = {}
        if timer is not None:
            own = [each for each in run if layer.name in each.modules]
            self._times = {each: _times(layer, each, timer) for each in own}

    def plan(self, pruned: Sequence[Pruning]) -> LayerPlan:
        """What becomes of it where some channels go."""
        said, share = [], 1.0
        for each in pruned:
            if (side := _side(self.layer.name, each.hidden)) is not None:
                said.append(f"{len(each.kept)} of {each.hidden.channels} {side}")
                share *= (
                    float(np.interp(len(each.kept), *self._times[each.hidden][1])) if self._times else 1.0
                )
        seconds = next((dense for dense, _ in self._times.values()), None)
        return replace(
            thinned(self.layer, pruned, f"budget: {', '.join(said) or 'best left as it is'}"),
            seconds=None if seconds is None else (seconds, seconds * share),
        )


def _side(name: str, hidden: HiddenChannels) -> str | None:
    """What some channels are to a layer."""
    sides = {"outputs": hidden.producers, "inputs": hidden.consumers, "channels": hidden.between}
    return next((side for side, names in sides.items() if name in names), None)


def _times(layer: Layer, hidden: HiddenChannels, timer: Timer) -> tuple[float, tuple[list[int], list[float]]]:
    """Time of a dense layer, and the share of it that it takes with fewer channels: the widths and the shares."""

    def seconds(width: int) -> float:
        spec = narrowed(layer.spec, layer.name, hidden, width)
        return float(timer.seconds(replace(layer, spec=spec), None, torch.ones(1, 0)))

    channels, step = hidden.channels, channel_step(hidden.channels)
    widths = sorted({max(int(part * channels) // step * step, 1) for part in _TIMED} | {channels})
    times = [seconds(width) for width in widths]
    return times[-1], (widths, [each / times[-1] for each in times])
