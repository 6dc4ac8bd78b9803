"""What the planner decides about: one layer, or several layers together.

The costs of decisions add up. Groups that share a layer exclude each other: of a layer's own candidates and those of
a pair that it belongs to, one is chosen. Such groups become one front, whose points are the sums of their candidates
over every way to cover the layers once, so the knapsack and its certificate hold as they are.
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
from tuckertree.planning.fronts import pareto_front
from tuckertree.planning.knapsack import Front
from tuckertree.planning.plan import LayerPlan

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
    """

    layers: tuple[str, ...]
    plans: tuple[tuple[LayerPlan, ...], ...]
    loss: Tensor
    pruned: tuple[tuple[Pruning, ...], ...] = ()

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
    """

    layers: tuple[str, ...]
    front: Front
    picks: Sequence[Mapping[str, int]]

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
    return Unit(layers, front, [{name: i} for i in range(len(front.loss))])


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
    sums = [reduce(add, cover) for cover in _covers(layers, part)]
    if not sums:
        raise UsageError(f"groups of {', '.join(layers)} cannot be chosen so that each layer is decided once")
    front = Front(torch.cat([x.front.loss for x in sums]), torch.cat([x.front.costs for x in sums]))
    return _best(layers, front, [pick for each in sums for pick in each.picks].__getitem__)


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
