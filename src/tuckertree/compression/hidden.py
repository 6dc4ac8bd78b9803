"""Hidden channels as candidates: which of them go first, and what the network's outputs lose by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from torch import nn

from tuckertree.calibration import KroneckerMetric
from tuckertree.compression.joint import PARTS, Costs, Floats, JointWidths
from tuckertree.compression.paths import Path, Reader, widths_of
from tuckertree.planning import Candidates, Group, Layer, LayerPlan, Timer
from tuckertree.planning.channels import HiddenChannels, Pruning, Side
from tuckertree.planning.planner import narrowed, thinned
from tuckertree.planning.timing import channel_step

_WIDTHS = {1: 32, 2: 16}
"""Numbers of channels that are tried, at equal distances: of one group alone, and of each of two that share a layer, where
all pairs are candidates."""
_JOINT = 32
"""Of each of more that share layers."""
_TIMED = (0.25, 0.5, 0.75)
"""Shares of the channels with which a layer is timed; the times between are taken to be linear."""


def hidden_groups(
    model: nn.Module,
    layers: Sequence[Layer],
    hidden: Sequence[HiddenChannels],
    candidates: Mapping[str, Candidates],
    metrics: Mapping[str, KroneckerMetric],
    *,
    others: Mapping[str, Candidates] | None = None,
    round_to: int | None = 1,
    timer: Timer | None = None,
) -> dict[str, Group]:
    """Groups of layers with fewer channels between them, by names of their own.

    Channels go by backward elimination with the consumers refitted, in the metric in which the candidates of single
    layers are weighed, too. Of one group of channels, or of two that share layers, all widths are candidates; of
    more those that :class:`~tuckertree.compression.joint.JointWidths` finds.

    Parameters
    ----------
    layers
        All layers of the model.
    hidden
        Its hidden channels.
    candidates, metrics
        Of the layers that may be compressed, by name; where a consumer is none of them, or has no candidates with an
        error, by which to know what one means, the channels stay.
    others
        What layers may be where no channels go from them; by default ``candidates``.
    round_to
        Widths are multiples of this. None: of what suits a CPU's vectors.
    timer
        Knows times: for a budget of latency.
    """
    others = candidates if others is None else others
    known = {name for name, each in candidates.items() if name in metrics and each.error.any()}
    usable = [each for each in hidden if {*each.consumers} <= known]
    read = {name for each in usable for name in each.consumers}
    readers = {
        layer.name: Reader.of(
            model.get_submodule(layer.name), layer, candidates[layer.name], metrics[layer.name]
        )
        for layer in layers
        if layer.name in read
    }
    found: dict[str, Group] = {}
    for run in _runs(usable):
        count = _WIDTHS.get(len(run), _JOINT)
        steps = [Path.of(each, widths_of(each.channels, count, round_to), readers).steps() for each in run]
        concerned = [
            _Concerned(layer, run, timer) for layer in layers if any(each.side(layer.name) for each in run)
        ]
        if len(run) in _WIDTHS:
            every = [_Choice.of(some) for some in product(*steps)]
            found |= _grouped(every, run, concerned)
        else:
            every = [_Choice.of(some) for some in _joint(run, steps, concerned, others)]
            by_groups: dict[tuple[HiddenChannels, ...], list[_Choice]] = {}
            for choice in every:
                by_groups.setdefault(tuple(each.hidden for each in choice.pruned), []).append(choice)
            for some, choices in by_groups.items():
                touched = [each for each in concerned if any(one.side(each.layer.name) for one in some)]
                found |= _grouped(choices, some, touched, joint=True)
    return found


def _grouped(
    every: Sequence[_Choice],
    hidden: Sequence[HiddenChannels],
    concerned: Sequence[_Concerned],
    *,
    joint: bool = False,
) -> dict[str, Group]:
    """Choices about the same layers, as one group; none where none of them lets any channel go."""
    some = [choice for choice in every if choice.pruned]
    if not some:
        return {}
    name = f"channels of {', '.join(each.producers[0] for each in hidden)}"
    return {
        name: Group(
            layers=tuple(each.layer.name for each in concerned),
            plans=tuple(tuple(each.plan(choice.pruned) for each in concerned) for choice in some),
            loss=torch.tensor([choice.loss for choice in some], dtype=torch.float64),
            pruned=tuple(choice.pruned for choice in some),
            joint=joint,
        )
    }


def _runs(hidden: Sequence[HiddenChannels]) -> list[list[HiddenChannels]]:
    """Channels that share layers, directly or through others, in the order of the forward pass."""
    runs: list[list[HiddenChannels]] = []
    for each in hidden:
        touched = [run for run in runs if any({*each.modules} & {*other.modules} for other in run)]
        runs = [run for run in runs if run not in touched]
        runs.append([*(other for run in touched for other in run), each])
    return [sorted(run, key=hidden.index) for run in runs]


@dataclass(frozen=True)
class _Choice:
    """Channels that go, of one group or more, and what is lost by it."""

    pruned: tuple[Pruning, ...]
    loss: float

    @classmethod
    def of(cls, steps: Sequence[tuple[Pruning | None, float]]) -> _Choice:
        return cls(tuple(pruning for pruning, _ in steps if pruning), sum(loss for _, loss in steps))


def _joint(
    run: Sequence[HiddenChannels],
    steps: Sequence[Sequence[tuple[Pruning | None, float]]],
    concerned: Sequence[_Concerned],
    others: Mapping[str, Candidates],
) -> Iterator[list[tuple[Pruning | None, float]]]:
    """Choices of many groups together, at prices of each kind of cost."""
    inputs = np.array([[each.share(other, "inputs") for other in run] for each in concerned])
    outputs = np.array([[each.share(other, "outputs", "channels") for other in run] for each in concerned])
    gone = [
        np.array([each.channels - len(p.kept) if p else 0 for p, _ in some], float)
        for each, some in zip(run, steps, strict=True)
    ]
    widths = JointWidths(inputs, outputs, gone, [np.array([loss for _, loss in some]) for some in steps])
    found: dict[tuple[int, ...], None] = {}
    for kind in ("parameters", "macs", "seconds"):
        if kind == "seconds" and concerned[0].timer is None:
            continue
        costs = Costs(
            np.array([each.cost(kind) for each in concerned]),
            np.stack([each.shares("inputs") for each in concerned]) if kind == "seconds" else None,
            np.stack([each.shares("outputs", "channels") for each in concerned])
            if kind == "seconds"
            else None,
            [each.alone(kind, others.get(each.layer.name)) for each in concerned],
        )
        found |= dict.fromkeys(widths.choices(costs))
    for choice in found:
        yield [some[step] for some, step in zip(steps, choice, strict=True)]


class _Concerned:
    """A layer that hidden channels are before, behind, or of."""

    def __init__(self, layer: Layer, run: Sequence[HiddenChannels], timer: Timer | None) -> None:
        self.layer, self.timer = layer, timer
        self._times: dict[Side, tuple[list[int], list[float]]] = {}
        self._plans: dict[tuple[tuple[Side, int], ...], LayerPlan] = {}
        self._seconds = 0.0
        if timer is not None:
            self._seconds = _seconds(layer, timer)
            for side in sorted({side for each in run if (side := each.side(layer.name))}):
                self._times[side] = _times(layer, side, timer, self._seconds)

    def share(self, hidden: HiddenChannels, *sides: Side) -> float:
        """What share of the layer's channels on these sides one of some hidden channels is."""
        side = hidden.side(self.layer.name)
        if side is None or side not in sides:
            return 0.0
        return hidden.times(self.layer.name) / self._size(side)

    def cost(self, kind: str) -> float:
        """What it costs as it is."""
        whole = {"parameters": self.layer.spec.weights, "macs": self.layer.macs, "seconds": self._seconds}
        return float(whole[kind])

    def shares(self, *sides: Side) -> Floats:
        """Shares of its time at equal parts of its channels on that of some sides that it has."""
        parts = np.linspace(0, 1, PARTS + 1)
        found: Floats = next(
            (np.interp(parts * self._size(s), *self._times[s]) for s in sides if s in self._times), parts
        )
        return found

    def alone(self, kind: str, candidates: Candidates | None) -> tuple[Floats, Floats]:
        """Losses and costs of what it may be where no channel goes from it."""
        if candidates is None:
            return np.zeros(1), np.array([self.cost(kind)])
        return candidates.loss.double().numpy(), getattr(candidates, kind).double().numpy()

    def plan(self, pruned: Sequence[Pruning]) -> LayerPlan:
        """What becomes of it where some channels go."""
        name, gone = self.layer.name, dict[Side, int]()
        for each in pruned:
            if (side := each.hidden.side(name)) is not None:
                less = (each.hidden.channels - len(each.kept)) * each.hidden.times(name)
                gone[side] = gone.get(side, 0) + less
        key = tuple(gone.items())
        if key not in self._plans:
            self._plans[key] = self._planned(pruned, gone)
        return self._plans[key]

    def _planned(self, pruned: Sequence[Pruning], gone: Mapping[Side, int]) -> LayerPlan:
        said, share = [], 1.0
        for side, less in gone.items():
            left = self._size(side) - less
            said.append(f"{left} of {self._size(side)} {side}")
            share *= float(np.interp(left, *self._times[side])) if self._times else 1.0
        return replace(
            thinned(self.layer, pruned, f"budget: {', '.join(said) or 'best left as it is'}"),
            seconds=None if self.timer is None else (self._seconds, self._seconds * share),
        )

    def _size(self, side: Side) -> int:
        return self.layer.spec.in_channels if side == "inputs" else self.layer.spec.out_channels


def _seconds(layer: Layer, timer: Timer) -> float:
    return float(timer.seconds(layer, None, torch.ones(1, 0)))


def _times(layer: Layer, side: Side, timer: Timer, dense: float) -> tuple[list[int], list[float]]:
    """Shares of its time that a dense layer takes with fewer channels on a side, and their numbers."""
    channels = layer.spec.in_channels if side == "inputs" else layer.spec.out_channels
    step = channel_step(channels)
    widths = sorted({max(int(part * channels) // step * step, 1) for part in _TIMED} | {channels})
    times = [
        _seconds(replace(layer, spec=narrowed(layer.spec, side, channels - width)), timer) / dense
        for width in widths[:-1]
    ]
    return widths, [*times, 1.0]
