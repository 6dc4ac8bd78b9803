"""Budget: the least loss over all layers within a share of the network's parameters, MACs or time.

Or the cheapest network that keeps an accuracy: that is no choice among candidates, and is searched for with networks
(:mod:`tuckertree.compression.accuracy`), each of which a budget of the first kind chooses.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil, floor

import torch
from torch import Tensor

from tuckertree._base.errors import UnreachableTargetError, UsageError
from tuckertree.planning.groups import PER_SECOND, Decisions, Unit, units
from tuckertree.planning.inventory import Inventory
from tuckertree.planning.knapsack import Front, HullPath, least_excess, solve
from tuckertree.planning.plan import Optimality, list_reasons
from tuckertree.planning.rules import Allocation
from tuckertree.planning.shares import is_number, names_in, share_of

COSTS = ("macs", "params", "latency")
"""What can be made small while an accuracy is kept."""
SINGLE = ("fp32",)
"""Precisions of a budget that names none: single precision alone."""
_DIGITS = 10_000
"""The nearest value within reach is given to so many parts of the network."""


@dataclass(frozen=True)
class Budget:
    """At most a share of the whole network's parameters, of its MACs, or of each of the two; or of its time.

    The losses of all layers together (by default their squared relative errors) are made as small as the
    budget allows: a multiple-choice knapsack (:mod:`tuckertree.planning.knapsack`), whose
    distance from the optimum is certified in :attr:`Plan.optimality <tuckertree.planning.Plan.optimality>`.

    Parameters
    ----------
    params, macs
        A share in (0, 1], such as 0.4, or a factor as text, such as ``"2.5x"``. None sets no limit. Other
        layers, biases and layers that cannot be compressed count too.
    latency
        Likewise, the time of one forward pass. It is measured, so it stands alone: what the layers' times
        predict is corrected by what the whole network takes, plan after plan.
    runtime, threads, batch
        What the time is measured on (:func:`tuckertree.runtimes.get_runtime`), with how many threads (by
        default torch's number) and how many samples (by default those of the example inputs).
    precision
        With latency, in which precisions the network may run: ``("fp32",)``, or ``"fp32,int8"`` as text. Of the plans that
        keep the target, one for each precision, the one is taken whose outputs are nearest to the original's.
    max_drop
        Instead of these, the most that may be lost, in points of top-1: 1.0 allows 90.7 % of 91.7 %. Needs labelled
        images (``compress(..., data=...)``).
    agreement
        Or the least agreement with the original, without labels: the share of equal answers of a classifier, as 0.99; of
        other networks 1 less the relative distance of the outputs.
    cheapest
        With one of the two, what is made as small as it can be: ``macs`` (the default), ``params`` or ``latency``.
    best_effort
        Where no plan keeps a target of latency, take the fastest that was measured, and where no network keeps an
        accuracy the nearest that was tried, instead of refusing.

    Raises
    ------
    UsageError
        If none is given, one is not a share or a factor, latency or an accuracy is given with another, or an option
        without that which it belongs to.

    Examples
    --------
    >>> import torch, tuckertree as tt
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3))
    >>> plan = tt.plan(model, torch.zeros(1, 3, 16, 16), tt.Budget(params=0.5, macs="2x"))
    >>> plan.parameters[1] <= 0.5 * plan.parameters[0], plan.macs[1] <= plan.macs[0] / 2
    (True, True)
    >>> plan.optimality.lower_bound <= plan.optimality.loss  # the best choice lies between
    True
    >>> tt.Budget(latency="2x", runtime="onnxruntime", precision="fp32,int8").precision
    ('fp32', 'int8')
    """

    params: float | str | None = None
    macs: float | str | None = None
    latency: float | str | None = None
    runtime: str = "onnxruntime"
    threads: int | None = None
    batch: int | None = None
    best_effort: bool = False
    max_drop: float | None = None
    agreement: float | None = None
    cheapest: str | None = None
    precision: tuple[str, ...] | str = SINGLE

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", names_in(self.precision))
        if self.precision != SINGLE and self.latency is None:
            raise UsageError("precision belongs to a budget of latency, such as Budget(latency='2x')")
        if self.batch is not None and self.batch < 1:
            raise UsageError(f"a batch holds at least one sample, not {self.batch}")
        if self.keeps_accuracy:
            self._check_accuracy()
            return
        if not self._kinds:
            raise UsageError(
                "a budget needs params, macs, both, latency, max_drop or agreement, such as Budget(macs=0.5)"
            )
        if self.cheapest is not None:
            raise UsageError("cheapest belongs to a budget of accuracy, such as Budget(max_drop=1.0)")
        if self.latency is not None and len(self._kinds) > 1:
            raise UsageError(
                "a budget of latency cannot be combined with others: give either latency, or params and macs"
            )
        if self.best_effort and self.latency is None:
            raise UsageError(
                "best effort belongs to a budget of latency or accuracy, such as Budget(latency='2x')"
            )
        for kind in self._kinds:
            object.__setattr__(self, kind, share_of(kind, getattr(self, kind)))

    @property
    def keeps_accuracy(self) -> bool:
        """Whether it is said in accuracy, so that it is searched for and not chosen."""
        return self.max_drop is not None or self.agreement is not None

    @property
    def is_timed(self) -> bool:
        """Whether layers and networks are to be timed for it."""
        return self.latency is not None or self.cheapest == "latency"

    def at(self, share: float) -> Budget:
        """The budget of what is to be cheapest at a share: a step of the search for an accuracy."""
        assert self.cheapest is not None
        costs: dict[str, float | str | None] = {self.cheapest: share}
        return Budget(**costs, runtime=self.runtime, threads=self.threads, batch=self.batch)  # type: ignore[arg-type]

    def choose(self, inventory: Inventory, decisions: Decisions) -> Allocation:
        """Choose a candidate for each layer, or group of layers.

        Raises
        ------
        UnreachableTargetError
            If the budget cannot be met; the message gives the nearest one that can.
        UsageError
            If it is said in accuracy.
        """
        if self.keeps_accuracy:
            raise UsageError(
                "a budget of accuracy is found by trying networks: give it to compress; a plan has none"
            )
        parts = units(decisions, self._kinds)
        fixed, totals = _fixed_costs(inventory, parts, self._kinds)
        shares = torch.tensor([getattr(self, kind) for kind in self._kinds], dtype=torch.float64)
        limits = _whole(shares * totals) - fixed
        if not parts:
            if (limits < 0).any():
                raise UnreachableTargetError(
                    f"no layer can be compressed, so no budget below 1 can be met{_fixed_layers(inventory, ())}"
                )
            return Allocation({}, Optimality(0.0, 0.0, dict.fromkeys(self._kinds, 0.0)))
        fronts = [part.front for part in parts]
        solution = solve(fronts, limits) if (limits > 0).all() else None
        if solution is None:
            nearest = self._nearest(fronts, fixed, totals, shares)
            free = {layer for part in parts for layer in part.layers}
            raise UnreachableTargetError(nearest + _fixed_layers(inventory, free))
        chosen = (part.picks[point] for part, point in zip(parts, solution.picks, strict=True))
        return Allocation(
            picks={name: pick for each in chosen for name, pick in each.items()},
            optimality=Optimality(
                solution.loss,
                solution.lower_bound,
                dict(zip(self._kinds, solution.multipliers, strict=True)),
            ),
        )

    def describe(self) -> dict[str, object]:
        """See :meth:`NetworkRule.describe`."""
        if self.keeps_accuracy:
            kinds: tuple[str, ...] = ("max_drop", "agreement", "cheapest")
        else:
            kinds = ("params", "macs") if self.latency is None else ("latency", "runtime", "threads", "batch")
        kinds += () if self.precision == SINGLE else ("precision",)
        return {"rule": "budget", **{kind: getattr(self, kind) for kind in kinds}}

    def _check_accuracy(self) -> None:
        if self._kinds or None not in (self.max_drop, self.agreement):
            raise UsageError(
                "a budget of accuracy stands alone: give max_drop or agreement, and what is to be cheapest"
            )
        if self.cheapest is None:
            object.__setattr__(self, "cheapest", COSTS[0])
        if self.cheapest not in COSTS:
            raise UsageError(f"what is cheapest can be {', '.join(COSTS)}, not {self.cheapest!r}")
        drop, agreement = self.max_drop, self.agreement
        if drop is not None and not (is_number(drop) and 0 <= drop < 100):
            raise UsageError(f"max_drop is in points of top-1, at least 0 and below 100, not {drop!r}")
        if agreement is not None and not (is_number(agreement) and 0 < agreement <= 1):
            raise UsageError(f"agreement is a share in (0, 1] such as 0.99, not {agreement!r}")
        for name, value in (("max_drop", drop), ("agreement", agreement)):
            object.__setattr__(self, name, None if value is None else float(value))

    @property
    def curve_by(self) -> str:
        """What :func:`trade_off` is to count for the curve that this budget lies on."""
        kinds = [self.cheapest] if self.keeps_accuracy else self._kinds
        return kinds[0] if kinds in (["params"], ["macs"]) and kinds[0] else "both"

    @property
    def _kinds(self) -> list[str]:
        return [kind for kind in ("params", "macs", "latency") if getattr(self, kind) is not None]

    def _nearest(self, fronts: Sequence[Front], fixed: Tensor, totals: Tensor, shares: Tensor) -> str:
        """Say what cannot be met, and the nearest that can: the same budget raised as little as possible."""
        # What is fixed is one more front, with no choice, so that shares are of the whole network.
        whole = [*fronts, Front(fixed.new_zeros(1), fixed.unsqueeze(0))]
        picks = least_excess(whole, shares * totals)
        costs = torch.stack([front.costs[pick] for front, pick in zip(whole, picks, strict=True)]).sum(0)
        reached = [ceil(share * _DIGITS) / _DIGITS for share in (costs / totals).tolist()]
        asked = ", ".join(f"{kind} {getattr(self, kind):.4g}" for kind in self._kinds)
        nearest = ", ".join(f"{kind} {share:.4g}" for kind, share in zip(self._kinds, reached, strict=True))
        return f"a budget of {asked} cannot be met by this network; the nearest within reach is {nearest}"


@dataclass(frozen=True)
class TradeOff:
    """One point of the curve of predicted loss against budget.

    Attributes
    ----------
    parameters, macs
        Of the whole network.
    loss
        Sum of the losses of all layers, by default of their squared relative errors.
    """

    parameters: int
    macs: int
    loss: float


def trade_off(
    inventory: Inventory,
    candidates: Decisions,
    *,
    by: str = "params",
    points: int = 50,
) -> tuple[TradeOff, ...]:
    """Predict the loss at every budget from the smallest within reach to the whole network.

    The points lie on the convex hull: each is the best plan for what it costs.

    Parameters
    ----------
    by
        What is budgeted: ``params``, ``macs`` or ``both``, their shares weighed alike.
    points
        At most so many, at about equal distances in the budget.

    Raises
    ------
    UsageError
        If ``by`` is none of these or there are fewer than two points.
    """
    weighed = {"params": (1.0, 0.0), "macs": (0.0, 1.0), "both": (0.5, 0.5)}
    if by not in weighed or points < 2:
        raise UsageError(f"a curve needs at least two points, by params, macs or both; got {points}, {by!r}")
    if not candidates:
        return (TradeOff(inventory.parameters, inventory.macs, 0.0),)
    kinds = ["params", "macs"]
    parts = units(candidates, kinds)
    fixed, totals = _fixed_costs(inventory, parts, kinds)
    path = HullPath.of(
        [part.front for part in parts], torch.tensor(weighed[by], dtype=torch.float64) / totals
    )
    marks = torch.linspace(float(path.cost[0]), float(path.cost[-1]), points, dtype=torch.float64)
    steps = torch.searchsorted(path.cost, marks[1:-1], right=True) - 1
    steps = torch.cat([steps.new_zeros(1), steps, steps.new_tensor([len(path.cost) - 1])]).unique()
    whole = (path.costs[steps] + fixed).round().long().tolist()
    return tuple(TradeOff(p, m, x) for (p, m), x in zip(whole, path.loss[steps].tolist(), strict=True))


def _fixed_layers(inventory: Inventory, candidates: Collection[str]) -> str:
    """Layers that no choice changes, and why, as the end of a message."""
    fixed = [layer for layer in inventory.layers if layer.name not in candidates]
    if not fixed:
        return ""
    reasons = list_reasons(layer.skip_reason or "left out" for layer in fixed)
    return f"; {len(fixed)} of {len(inventory.layers)} layers stay dense ({reasons})"


def _fixed_costs(inventory: Inventory, parts: Sequence[Unit], kinds: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Costs of each kind that no choice changes, and those of the whole network."""
    totals = {"params": inventory.parameters, "macs": inventory.macs}
    free = {"params": 0, "macs": 0, "latency": 0.0}
    if "latency" in kinds:
        if inventory.seconds is None:
            raise UsageError("a budget of latency needs measured times; compress() takes them")
        totals["latency"] = round(inventory.seconds * PER_SECOND)
        # May leave less than nothing for the rest: a layer alone takes as long as in the network and the time
        # of a call besides. As each of its candidates takes that too, what they save is right.
        free["latency"] = sum(float(part.front.costs.max()) for part in parts)
    changed = {layer for part in parts for layer in part.layers}
    for layer in inventory.layers:
        if layer.name in changed:
            free["params"] += layer.spec.weights
            free["macs"] += layer.macs
    fixed = [totals[kind] - free[kind] for kind in kinds]
    return (
        torch.tensor(fixed, dtype=torch.float64),
        torch.tensor([totals[kind] for kind in kinds], dtype=torch.float64),
    )


def _whole(limits: Tensor) -> Tensor:
    """Round limits down, a hair's breadth of rounding aside: 0.1 of 30 is 3."""
    return limits.new_tensor([floor(limit * (1 + 1e-12)) for limit in limits.tolist()])
