r"""The multiple-choice knapsack: one candidate from each front, least loss, costs within their limits.

    min  sum_l loss_l(i_l)   subject to   sum_l cost_l(i_l) <= limit   for each kind of cost

With a multiplier on a weighted sum of the costs the layers part: each takes the corner of its own lower
convex hull where a unit of cost saves as much. All hulls' edges in falling order of that saving are
therefore the solutions for every multiplier at once (:class:`HullPath`), and the fraction of the edge at
which the limit is met is the Lagrangian lower bound.

Two limits need two multipliers. They are one multiplier on the sum ``(1 - theta) parameters + theta MACs``,
each as a share of its limit, and a direction ``theta``. Every direction relaxes the problem; the one of the
best bound is found by bisection, because what the relaxed solution exceeds says which way it lies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tuckertree.planning.fronts import lower_hull

_BISECTIONS = 20
_LARGEST_CORE = 1200
_MOST_EXCHANGES = 400


@dataclass(frozen=True)
class Front:
    """Candidates of one decision as numbers, float64: ``loss[n]`` and ``costs[n, kinds]``."""

    loss: Tensor
    costs: Tensor


@dataclass(frozen=True)
class Solution:
    """A choice from each front, and how far from the best it can be.

    Attributes
    ----------
    picks
        Index of the candidate chosen from each front.
    loss
        Sum of their losses.
    lower_bound
        No choice within the limits has less.
    multipliers
        Loss that one more unit of each cost would save, at the lower bound.
    """

    picks: tuple[int, ...]
    loss: float
    lower_bound: float
    multipliers: tuple[float, ...]


@dataclass(frozen=True)
class HullPath:
    """All hulls walked together, from the cheapest corners to those of least loss, the best saving first.

    Attributes
    ----------
    start
        Index of the cheapest corner of each front.
    owner, corner
        Front in which each of ``m`` steps is taken, and the index it leads to.
    saving
        Loss saved by each step for a unit of weighted cost, falling ``[m]``.
    cost, costs, loss
        Weighted cost ``[m + 1]``, costs of each kind ``[m + 1, kinds]`` and loss ``[m + 1]`` after so many
        steps.
    """

    start: tuple[int, ...]
    owner: Tensor
    corner: Tensor
    saving: Tensor
    cost: Tensor
    costs: Tensor
    loss: Tensor

    @classmethod
    def of(cls, fronts: Sequence[Front], weights: Tensor) -> HullPath:
        """Walk the hulls of the fronts in ``(costs @ weights, loss)``."""
        hulls = [lower_hull(front.costs @ weights, front.loss) for front in fronts]
        pairs = list(zip(fronts, hulls, strict=True))
        costs = torch.cat([front.costs[hull].diff(dim=0) for front, hull in pairs])
        loss = torch.cat([front.loss[hull].diff() for front, hull in pairs])
        saving = -loss / (costs @ weights)
        order = saving.argsort(descending=True, stable=True)
        first = torch.stack([front.costs[hull[0]] for front, hull in pairs]).sum(0, keepdim=True)
        last = torch.stack([front.loss[hull[-1]] for front, hull in pairs]).sum(0, keepdim=True)
        costs = torch.cat([first, costs[order]]).cumsum(0)
        return cls(
            start=tuple(hull[0] for hull in hulls),
            owner=_integers(number for number, hull in enumerate(hulls) for _ in hull[1:])[order],
            corner=_integers(index for hull in hulls for index in hull[1:])[order],
            saving=saving[order],
            cost=costs @ weights,
            costs=costs,
            # Summed from the end, where it is least: what is left over from larger losses would spoil it.
            loss=torch.cat([-loss[order], last]).flip(0).cumsum(0).flip(0),
        )

    def picks(self, steps: int) -> list[int]:
        """Index chosen from each front after so many steps."""
        picks = list(self.start)
        for owner, corner in zip(self.owner[:steps].tolist(), self.corner[:steps].tolist(), strict=True):
            picks[owner] = corner
        return picks

    def relaxed(self, limit: float) -> Relaxed:
        """As many steps as a limit of the weighted cost allows, and a fraction of the next one."""
        steps = int(torch.searchsorted(self.cost, limit, right=True)) - 1
        if steps == len(self.saving):
            return Relaxed(float(self.loss[-1]), 0.0, self.costs[-1])
        part = (limit - self.cost[steps]) / (self.cost[steps + 1] - self.cost[steps])
        return Relaxed(
            loss=float(self.loss[steps].lerp(self.loss[steps + 1], part)),
            multiplier=float(self.saving[steps]),
            costs=self.costs[steps].lerp(self.costs[steps + 1], part),
        )


@dataclass(frozen=True)
class Relaxed:
    """Solution of the linear relaxation: a lower bound of the loss, its multiplier and its costs."""

    loss: float
    multiplier: float
    costs: Tensor


def solve(fronts: Sequence[Front], limits: Tensor) -> Solution | None:
    """Choose one candidate from each front.

    Parameters
    ----------
    fronts
        At least one, with one or two kinds of cost.
    limits
        Of each kind of cost ``[kinds]``, float64.

    Returns
    -------
    Solution or None
        None if the limits cannot be met. (With two limits that only just can be met together, None may be
        wrong; :func:`least_excess` is what comes nearest to them.)
    """
    picks = least_excess(fronts, limits)
    if (_costs(fronts, picks) > limits).any():
        return None
    search = _Search(fronts, limits, picks)
    if len(limits) == 1:
        search.visit(0.0)
    elif search.visit(0.0)[1] > limits[1] and search.visit(1.0)[0] > limits[0]:
        _bisect(lambda theta: bool((search.visit(theta) / limits).diff() < 0))
    picks = _exchanged(fronts, limits, search)
    loss = _loss(fronts, picks)
    return Solution(tuple(picks), loss, min(search.lower_bound, loss), tuple(search.multipliers.tolist()))


def least_excess(fronts: Sequence[Front], limits: Tensor) -> list[int]:
    """Choose from each front so that the largest share that any cost has of its limit is least.

    Exact for one kind of cost; for two the best of the choices that minimise a weighted sum.
    """
    tried: list[tuple[float, list[int]]] = []

    def visit(theta: float) -> Tensor:
        picks = [_cheapest(front, _weights(theta, limits)) for front in fronts]
        shares = _costs(fronts, picks) / limits
        tried.append((float(shares.max()), picks))
        return shares

    visit(0.0)
    if len(limits) == 2:
        visit(1.0)
        _bisect(lambda theta: bool(visit(theta).diff() < 0))
    return min(tried)[1]


class _Search:
    """The best lower bound and the best choice within the limits among the directions visited."""

    def __init__(self, fronts: Sequence[Front], limits: Tensor, picks: list[int]) -> None:
        self.picks, self.loss = picks, _loss(fronts, picks)
        self.lower_bound, self.multipliers = 0.0, torch.zeros_like(limits)
        self._fronts, self._limits = fronts, limits

    def visit(self, theta: float) -> Tensor:
        """Solve the relaxation in one direction; return what its solution costs."""
        weights = _weights(theta, self._limits)
        path = HullPath.of(self._fronts, weights)
        relaxed = path.relaxed(1.0)
        if relaxed.loss > self.lower_bound:
            self.lower_bound, self.multipliers = relaxed.loss, relaxed.multiplier * weights
        within = (path.costs <= self._limits).all(1).nonzero()
        if len(within) and path.loss[within[-1]] < self.loss:
            self.picks = path.picks(int(within[-1]))
            self.loss = _loss(self._fronts, self.picks)
        return relaxed.costs


def _integers(values: Iterable[int]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.int64)


def _bisect(is_too_far: Callable[[float], bool]) -> None:
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        theta = (low + high) / 2
        low, high = (low, theta) if is_too_far(theta) else (theta, high)


def _weights(theta: float, limits: Tensor) -> Tensor:
    """Weights of the costs, such that the weighted cost of all the limits together is 1."""
    return (limits.new_tensor([1 - theta, theta]) if len(limits) == 2 else limits.new_ones(1)) / limits


def _cheapest(front: Front, weights: Tensor) -> int:
    """Index of the least weighted cost; of equal ones that of the least loss."""
    cost = front.costs @ weights
    return int(front.loss.where(cost == cost.amin(), torch.inf).argmin())


def _exchanged(fronts: Sequence[Front], limits: Tensor, search: _Search) -> list[int]:
    """Exchange the candidates of one layer or of two at a time, the best first, while it helps.

    A candidate whose loss and priced costs exceed its layer's least by more than the gap cannot be part of
    anything better: few are left, and all pairs of them can be looked at.
    """
    loss, costs = torch.cat([front.loss for front in fronts]), torch.cat([front.costs for front in fronts])
    sizes = torch.tensor([len(front.loss) for front in fronts])
    owner = torch.arange(len(fronts)).repeat_interleave(sizes)
    offset = sizes.cumsum(0) - sizes
    chosen = offset + torch.tensor(search.picks)
    priced = loss + costs @ search.multipliers
    excess = priced - torch.stack([part.amin() for part in priced.split(sizes.tolist())])[owner]
    order = excess.argsort(stable=True)[:_LARGEST_CORE]
    for _ in range(_MOST_EXCHANGES):
        gap = float(loss[chosen].sum()) - search.lower_bound
        core = order[excess[order] <= gap]
        move = _best_exchange(loss, costs, owner, chosen, core, limits - costs[chosen].sum(0))
        if move is None:
            break
        chosen[owner[move]] = move
    return (chosen - offset).tolist()


def _best_exchange(
    loss: Tensor, costs: Tensor, owner: Tensor, chosen: Tensor, core: Tensor, slack: Tensor
) -> Tensor | None:
    """One or two candidates that together save most and fit the slack, or None if nothing is saved."""
    if not len(core):
        return None
    less = loss[core] - loss[chosen[owner[core]]]
    more = costs[core] - costs[chosen[owner[core]]]
    best, move = -1e-12 * float(loss[chosen].sum()), None
    single = less.where((more <= slack).all(1), torch.inf)
    if single.amin() < best:
        best, move = float(single.amin()), core[single.argmin()].reshape(1)
    pairs = less[:, None] + less
    pairs = pairs.where(owner[core][:, None] != owner[core], torch.inf)
    for kind in range(len(slack)):
        pairs = pairs.where(more[:, None, kind] + more[:, kind] <= slack[kind], torch.inf)
    if pairs.amin() < best:
        first, second = divmod(int(pairs.argmin()), len(core))
        move = core[[first, second]]
    return move


def _costs(fronts: Sequence[Front], picks: Sequence[int]) -> Tensor:
    return torch.stack([front.costs[pick] for front, pick in zip(fronts, picks, strict=True)]).sum(0)


def _loss(fronts: Sequence[Front], picks: Sequence[int]) -> float:
    return float(torch.stack([front.loss[pick] for front, pick in zip(fronts, picks, strict=True)]).sum())
