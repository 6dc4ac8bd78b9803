"""Widths of many groups of channels that share layers, chosen together.

A layer costs its share of inputs times its share of outputs, and stays plain where channels go from it; where none
go it may be of low rank. For one price of a unit of cost the groups are decided one after the other until none gains: there
may be better choices, which is why that starts from several. All prices together give the choices between which a budget
decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Steps = tuple[int, ...]
"""For each group the number of its step."""

PARTS = 16
"""Equal parts of a layer's inputs or outputs at whose ends its cost is given."""
_PRICES = 64
_HIGHER = np.array([4.0, 16.0, 1e6])
_SWEEPS = 8
_BETWEEN = 12
"""Choices on the way from that of one price to that of the next: at most so many."""


@dataclass(frozen=True)
class Costs:
    """What layers cost, of one kind.

    Attributes
    ----------
    dense
        Of each layer as it is ``[L]``.
    of_inputs, of_outputs
        The share of it at 0, 1/16, ... of its inputs, and of its outputs ``[L, 17]``; None where it is in proportion.
    others
        Losses and costs of the candidates of each layer, itself among them.
    """

    dense: Floats
    of_inputs: Floats | None
    of_outputs: Floats | None
    others: Sequence[tuple[Floats, Floats]]


class JointWidths:
    """Groups of channels, each with steps of fewer and fewer channels.

    Parameters
    ----------
    inputs, outputs
        What share of each layer's inputs, and outputs, a channel of each group is ``[L, G]``.
    gone, losses
        For each group how many channels have gone at each of its steps, and what is lost: nothing at the first.
    """

    def __init__(
        self, inputs: Floats, outputs: Floats, gone: Sequence[Floats], losses: Sequence[Floats]
    ) -> None:
        self._inputs, self._outputs, self._gone, self._losses = inputs, outputs, gone, losses
        self._layers = [np.flatnonzero(inputs[:, g] + outputs[:, g]) for g in range(len(gone))]
        # What share of the inputs and outputs of its layers goes at each step of a group.
        self._less = [
            (np.outer(inputs[own, g], gone[g]), np.outer(outputs[own, g], gone[g]))
            for g, own in enumerate(self._layers)
        ]

    def choices(self, costs: Costs) -> list[Steps]:
        """Choices from none to all channels gone, each once."""
        steps = (0,) * len(self._gone)
        found = {steps: None}
        for price in self._prices(costs):
            best = np.array([(loss + price * cost).min() for loss, cost in costs.others])
            plain = self._descended(steps, costs, price, price * costs.dense)
            starts = {steps: None, (0,) * len(steps): None, plain: None}
            ends = {self._descended(start, costs, price, best): None for start in starts}
            last, steps = steps, min(ends, key=lambda end: self._value(end, costs, price, best))
            found |= dict.fromkeys([*_way(last, steps), steps])
        return list(found)

    def _prices(self, costs: Costs) -> Floats:
        """Prices at which single groups and layers change."""
        none = (0,) * len(self._gone)
        slopes = []
        for g, losses in enumerate(self._losses):
            saved = -np.diff(self._cost(g, 0, *self._left(none), costs).sum(0))
            slopes.append(np.diff(losses)[saved > 0] / saved[saved > 0])
        for (losses, cost), dense in zip(costs.others, costs.dense, strict=True):
            cheaper = cost < dense
            slopes.append(losses[cheaper] / (dense - cost[cheaper]))
        every = np.concatenate(slopes)
        every = every[np.isfinite(every) & (every > 0)]
        if not len(every):
            return every
        # Where others have gone a step saves less: the last ones go at higher prices.
        return np.append(np.quantile(every, np.linspace(0, 1, _PRICES)), every.max() * _HIGHER)

    def _descended(self, steps: Steps, costs: Costs, price: float, best: Floats) -> Steps:
        """Choices of single groups, one after the other, until none gains; ``best`` is of layers that nothing goes from."""
        now, touched = list(steps), np.zeros(len(best), int)
        for own, step in zip(self._layers, now, strict=True):
            touched[own] += step > 0
        inputs, outputs = self._left(now)
        for _ in range(_SWEEPS):
            before = tuple(now)
            for g, losses in enumerate(self._losses):
                own, (less_in, less_out), last = self._layers[g], self._less[g], now[g]
                cost = price * self._cost(g, last, inputs, outputs, costs)
                values = losses + cost.sum(0)
                alone = touched[own] - (last > 0) == 0
                values[0] = losses[0] + np.where(alone, best[own], cost[:, 0]).sum()
                now[g] = step = int(values.argmin())
                touched[own] += int(step > 0) - int(last > 0)
                inputs[own] += less_in[:, last] - less_in[:, step]
                outputs[own] += less_out[:, last] - less_out[:, step]
            if tuple(now) == before:
                break
        return tuple(now)

    def _cost(self, group: int, step: int, inputs: Floats, outputs: Floats, costs: Costs) -> Floats:
        """Cost of each layer of a group at each of its steps, where at one of them these shares are left."""
        own, (less_in, less_out) = self._layers[group], self._less[group]
        of_inputs = _at(costs.of_inputs, own, (inputs[own] + less_in[:, step])[:, None] - less_in)
        of_outputs = _at(costs.of_outputs, own, (outputs[own] + less_out[:, step])[:, None] - less_out)
        found: Floats = costs.dense[own, None] * of_inputs * of_outputs
        return found

    def _left(self, steps: Sequence[int]) -> tuple[Floats, Floats]:
        """Shares of the layers' inputs and outputs that are left."""
        gone = np.array([gone[step] for gone, step in zip(self._gone, steps, strict=True)])
        return 1 - self._inputs @ gone, 1 - self._outputs @ gone

    def _value(self, steps: Steps, costs: Costs, price: float, best: Floats) -> float:
        inputs, outputs = self._left(steps)
        every, touched = np.arange(len(best)), np.zeros(len(best), bool)
        for own, step in zip(self._layers, steps, strict=True):
            touched[own] |= step > 0
        shares = _at(costs.of_inputs, every, inputs[:, None]) * _at(costs.of_outputs, every, outputs[:, None])
        lost = sum(losses[step] for losses, step in zip(self._losses, steps, strict=True))
        return float(lost + np.where(touched, price * costs.dense * shares[:, 0], best).sum())


def _at(table: Floats | None, layers: npt.NDArray[np.int64], shares: Floats) -> Floats:
    """What a table ``[L, 17]`` has for some layers at shares ``[layers, n]``, linear between its points."""
    if table is None:
        return shares
    place = shares.clip(0, 1) * PARTS
    low = np.minimum(place.astype(int), PARTS - 1)
    part = place - low
    found: Floats = table[layers[:, None], low] * (1 - part) + table[layers[:, None], low + 1] * part
    return found


def _way(start: Steps, end: Steps) -> Iterator[Steps]:
    """Some choices between two: those on the way on which one group after the other changes."""
    changed = [g for g, (a, b) in enumerate(zip(start, end, strict=True)) if a != b]
    every = max(-(-len(changed) // (_BETWEEN + 1)), 1)
    now = list(start)
    for number, g in enumerate(changed[:-1], 1):
        now[g] = end[g]
        if number % every == 0:
            yield tuple(now)
