"""What the planner decides about: one layer, or several layers together.

The costs of decisions add up. Groups that share a layer exclude each other: of a layer's own candidates and those of
a pair that it belongs to, one is chosen. Such groups become one front, whose points are the sums of their candidates
over every way to cover the layers once, so the knapsack and its certificate hold as they are. Where many groups share layers
in many ways there are too many sums: then each group stands for one choice about all of them, and what the other layers are
beside it is taken from their lower hulls (:func:`_with_one`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from torch import Tensor

from tuckertree._base.errors import UsageError
from tuckertree.planning.candidates import Candidates
from tuckertree.planning.channels import Pruning
from tuckertree.planning.fronts import lower_hull, pareto_front
from tuckertree.planning.knapsack import Front, HullPath
from tuckertree.planning.plan import LayerPlan

_STEPS = 64
"""Sums of other layers beside each candidate of a joint group: at most so many."""
PER_SECOND = 1e9
"""Times are counted in whole nanoseconds: limits are whole numbers."""


@dataclass(frozen=True)
class Group:
    """What may be done to several layers together: ``n`` candidates.

    Attributes
    ----------
    layers
        Names of the layers.
    plans
        For each candidate what becomes of each layer; its costs are the sums of theirs.
    loss
        What a rule minimises ``[n]``, float64.
    pruned
        For each candidate the hidden channels of which some go, where there are any.
    joint
        Whether the group has all that is chosen together, so that of such groups that share layers with others at most one
        is chosen.
    """

    layers: tuple[str, ...]
    plans: tuple[tuple[LayerPlan, ...], ...]
    loss: Tensor
    pruned: tuple[tuple[Pruning, ...], ...] = ()
    joint: bool = False

    def __post_init__(self) -> None:
        if len(self.layers) < 2 or len(self.loss) != len(self.plans) or not self.plans:
            raise UsageError(
                f"a group of {self.layers} needs two layers or more, candidates, and a loss for each"
            )
        if any(tuple(layer.name for layer in plan) != self.layers for plan in self.plans):
            raise UsageError(f"each candidate of the group {self.layers} plans these layers in this order")

    @property
    def parameters(self) -> Tensor:
        """Weights of all layers ``[n]``."""
        return torch.tensor([sum(layer.parameters[1] for layer in plan) for plan in self.plans])

    @property
    def macs(self) -> Tensor:
        """Multiply-accumulates of all layers ``[n]``."""
        return torch.tensor([sum(layer.macs[1] for layer in plan) for plan in self.plans])

    @property
    def seconds(self) -> Tensor | None:
        """Time of all layers ``[n]``, where it is known of each."""
        times = [[layer.seconds[1] for layer in plan if layer.seconds] for plan in self.plans]
        known = all(len(each) == len(self.layers) for each in times)
        return torch.tensor(times, dtype=torch.float64).sum(1) if known else None


Decisions = Mapping[str, Candidates | Group]
"""Candidates of layers by their names, and groups of layers by any other name."""


@dataclass(frozen=True)
class Unit:
    """Decisions that depend on each other, as one front: most often one about a single layer.

    Attributes
    ----------
    layers
        That they are about.
    front
        Loss and costs.
    picks
        For each point the names of the decisions it is made of, and the number of the candidate chosen in each.
    joint
        As of :class:`Group`.
    """

    layers: tuple[str, ...]
    front: Front
    picks: Sequence[Mapping[str, int]]
    joint: bool = False

    def __add__(self, other: Unit) -> Unit:
        """All sums of a point of one and one of the other that no other betters."""
        a, b = self.front, other.front
        front = Front((a.loss[:, None] + b.loss).flatten(), (a.costs[:, None] + b.costs).flatten(0, 1))
        count = len(other.picks)
        return _best(
            self.layers + other.layers, front, lambda i: {**self.picks[i // count], **other.picks[i % count]}
        )


def units(decisions: Decisions, kinds: Sequence[str]) -> list[Unit]:
    """Fronts of decisions that can be made apart, by the costs of some kinds.

    Raises
    ------
    UsageError
        If groups cannot be chosen so that each layer is decided once.
    """
    own = {name: _unit(name, decision, kinds) for name, decision in decisions.items()}
    return [_either(part) for part in _connected(own.values())]


def _unit(name: str, decision: Candidates | Group, kinds: Sequence[str]) -> Unit:
    layers = decision.layers if isinstance(decision, Group) else (name,)
    front = Front(decision.loss, torch.stack([_cost(decision, kind) for kind in kinds], 1))
    joint = isinstance(decision, Group) and decision.joint
    return Unit(layers, front, [{name: i} for i in range(len(front.loss))], joint)


def _connected(every: Iterable[Unit]) -> list[list[Unit]]:
    """Units that share layers, directly or through others, together."""
    parts: list[list[Unit]] = []
    for unit in every:
        shared = [part for part in parts if any({*unit.layers} & {*other.layers} for other in part)]
        whole = [*(other for part in shared for other in part), unit]
        parts = [part for part in parts if not any(part is other for other in shared)] + [whole]
    return parts


def _either(part: Sequence[Unit]) -> Unit:
    """One front for units of which each layer may be in one: the sums over every way to cover the layers once."""
    if len(part) == 1:
        return part[0]
    layers = tuple(dict.fromkeys(layer for unit in part for layer in unit.layers))
    if any(unit.joint for unit in part):
        return _with_one(layers, part)
    sums = [reduce(add, cover) for cover in _covers(layers, part)]
    if not sums:
        raise UsageError(f"groups of {', '.join(layers)} cannot be chosen so that each layer is decided once")
    front = Front(torch.cat([x.front.loss for x in sums]), torch.cat([x.front.costs for x in sums]))
    return _best(layers, front, [pick for each in sums for pick in each.picks].__getitem__)


def _with_one(layers: tuple[str, ...], part: Sequence[Unit]) -> Unit:
    """One front for joint groups, at most one of which is chosen, beside the corners of the other layers' lower hulls."""
    alone = {unit.layers[0]: unit for unit in part if not unit.joint}
    if alone.keys() != {*layers}:
        raise UsageError(f"layers of joint groups have candidates of their own: {', '.join(layers)}")
    whole = torch.stack([unit.front.costs.amax(0) for unit in alone.values()]).sum(0).clamp_min(1)
    kinds = len(whole)
    found: list[tuple[Front, Callable[[int], Mapping[str, int]]]] = []
    for part_of_first in (1.0,) if kinds == 1 else (0.0, 0.5, 1.0):
        weights = whole.new_tensor([part_of_first, 1 - part_of_first][:kinds]) / whole
        corners = {name: _corners(unit, weights) for name, unit in alone.items()}
        found.append(_walk([*corners.values()], weights))
        for unit in (unit for unit in part if unit.joint):
            rest = [each for name, each in corners.items() if name not in unit.layers]
            found.append(_beside(unit, _walk(rest, weights, _STEPS) if rest else None))
    loss = torch.cat([front.loss for front, _ in found])
    ends = torch.tensor([len(front.loss) for front, _ in found]).cumsum(0)

    def picks(point: int) -> Mapping[str, int]:
        number = int(torch.searchsorted(ends, point, right=True))
        return found[number][1](point - (int(ends[number - 1]) if number else 0))

    return _best(layers, Front(loss, torch.cat([front.costs for front, _ in found])), picks)


def _corners(unit: Unit, weights: Tensor) -> Unit:
    """A unit with those of its points that are on the lower hull."""
    some = lower_hull(unit.front.costs @ weights, unit.front.loss)
    return Unit(
        unit.layers,
        Front(unit.front.loss[some], unit.front.costs[some]),
        [unit.picks[point] for point in some],
    )


def _walk(
    every: Sequence[Unit], weights: Tensor, most: int | None = None
) -> tuple[Front, Callable[[int], Mapping[str, int]]]:
    """Sums of units, from the cheapest to that of the least loss: all on the lower hull, or some."""
    path = HullPath.of([unit.front for unit in every], weights)
    steps = torch.arange(len(path.loss))
    if most is not None and len(steps) > most:
        steps = steps[torch.linspace(0, len(steps) - 1, most).round().long()]

    def picks(point: int) -> Mapping[str, int]:
        chosen = zip(every, path.picks(int(steps[point])), strict=True)
        return {name: pick for unit, place in chosen for name, pick in unit.picks[place].items()}

    return Front(path.loss[steps], path.costs[steps]), picks


def _beside(
    unit: Unit, walk: tuple[Front, Callable[[int], Mapping[str, int]]] | None
) -> tuple[Front, Callable[[int], Mapping[str, int]]]:
    """All sums of a unit's points and those of others."""
    if walk is None:
        return unit.front, unit.picks.__getitem__
    front, others = walk
    count = len(front.loss)
    sums = Front(
        (unit.front.loss[:, None] + front.loss).flatten(),
        (unit.front.costs[:, None] + front.costs).flatten(0, 1),
    )
    return sums, lambda point: {**unit.picks[point // count], **others(point % count)}


def _covers(layers: Sequence[str], part: Sequence[Unit]) -> Iterator[tuple[Unit, ...]]:
    if not layers:
        yield ()
    for unit in part:
        if layers and layers[0] in unit.layers and {*unit.layers} <= {*layers}:
            rest = [layer for layer in layers if layer not in unit.layers]
            yield from ((unit, *others) for others in _covers(rest, part))


def _best(layers: tuple[str, ...], front: Front, picks: Callable[[int], Mapping[str, int]]) -> Unit:
    """The points that no other betters, with one or two kinds of cost."""
    kept = pareto_front(front.loss, front.costs[:, 0], front.costs[:, -1])
    return Unit(layers, Front(front.loss[kept], front.costs[kept]), [picks(i) for i in kept.tolist()])


def _cost(decision: Candidates | Group, kind: str) -> Tensor:
    """Costs as numbers; whole numbers of a float64 are exact up to 9e15."""
    if kind == "latency":
        if (seconds := decision.seconds) is None:
            raise UsageError("a budget of latency needs measured times; compress() takes them")
        return (seconds * PER_SECOND).round()
    return (decision.parameters if kind == "params" else decision.macs).double()
