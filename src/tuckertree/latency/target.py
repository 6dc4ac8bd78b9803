"""From a target of latency to a plan that keeps it: choose, measure, correct, choose again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import floor

from tuckertree._base.errors import UnreachableTargetError
from tuckertree._base.progress import ProgressCallback, no_progress
from tuckertree.measure import Timing
from tuckertree.planning import Budget, Decisions, Inventory, Latency, Options, Plan, make_plan
from tuckertree.planning.budget import SINGLE
from tuckertree.planning.groups import PER_SECOND, units

ROUNDS = 5
"""At most so many plans are measured."""
TOO_SLOW, TOO_FAST = 1.02, 0.95
"""Shares of the target between which a measured time is taken for the target itself."""
_TOO_GOOD = 0.6
"""A plan that seems to take less than this share of what its layers predict is measured again, and the slower time counts."""
_ALL = 0.98
"""A plan that saves this share of all that can be saved is as good as the fastest."""
_HAIR = 1e-6


class LatencyNotKeptError(UnreachableTargetError):
    """No plan keeps a target of latency.

    Attributes
    ----------
    nearest
        Share of the dense network's time that the fastest plan measured takes.
    """

    def __init__(self, message: str, nearest: float) -> None:
        super().__init__(message)
        self.nearest = nearest


def meet_target(
    inventory: Inventory,
    candidates: Decisions,
    rule: Budget,
    options: Options,
    measure: Callable[[Plan], Timing],
    *,
    alone: Plan | None = None,
    tick: ProgressCallback = no_progress,
) -> Plan:
    """Choose by the layers' times, measure the network, correct, and choose again.

    The time that all layers together save is taken to be off by one factor, measured over predicted savings.
    With it the next choice is made; between a plan that was too slow and one that was fast enough it is made by
    interpolation. Of the plans that kept the target the one of the least loss counts. In another precision a plan that is
    not faster than the precision alone does not count.

    Parameters
    ----------
    inventory, candidates
        With times.
    measure
        Gives the time of a plan's network over the dense one's.
    alone
        In another precision than the dense network's, the plan that factors nothing, measured.

    Raises
    ------
    LatencyNotKeptError
        If no plan keeps the target, the fastest among them, and the rule does not ask for best effort; the message
        gives the nearest that was measured.
    """
    assert inventory.seconds is not None
    assert rule.latency is not None
    target = float(rule.latency)
    whole = alone.latency.measured if alone and alone.latency else 1.0
    unfactored = replace(inventory, seconds=whole * inventory.seconds)
    least = least_latency(inventory, candidates, whole)
    # The budget counts whole nanoseconds, and rounds each layer's time: in a small network they add up.
    least = max(least, 0.0) + _HAIR + (len(candidates) + 2) * 1e-9 / inventory.seconds
    share, found = target, list[Plan]()
    for number in range(1, ROUNDS + 1):
        share = max(share, least)
        plan = make_plan(unfactored, candidates, replace(rule, latency=min(share / whole, 1.0)), options)
        plan = replace(plan, rule=rule.describe())
        predicted = predicted_share(plan, inventory, whole)
        measured = measure(plan) if plan.changes else Timing(whole, whole, whole)
        if measured.median < _TOO_GOOD * predicted:  # something has disturbed the dense network alone
            measured = max(measured, measure(plan), key=lambda timing: timing.median)
        fastest = whole - predicted >= _ALL * (whole - least)
        tried = number + (alone is not None)
        latency = measured_latency(inventory, target, predicted, measured, tried, fastest=fastest)
        found.append(replace(plan, latency=latency))
        tick("plans", number, ROUNDS)
        if TOO_FAST <= measured.median / target <= TOO_SLOW:
            break
        corrected = _corrected(found, target, whole)
        if abs(max(corrected, least) - share) < _HAIR:
            break
        share = corrected
    faster = [plan for plan in found if alone is None or (plan.latency and plan.latency.measured < whole)]
    return _best([alone, *faster] if alone else faster, rule)


def keeps_target(plan: Plan) -> bool:
    """Whether a plan was measured to keep its target."""
    return plan.latency is not None and plan.latency.measured <= TOO_SLOW * plan.latency.target


def least_latency(inventory: Inventory, candidates: Decisions, whole: float = 1.0) -> float:
    """Share of the dense network's time that is left if every layer saves what it can, by the layers' times.

    ``whole`` is what the network takes with nothing factored: less than all of it in another precision.
    """
    assert inventory.seconds is not None
    costs = (part.front.costs for part in units(candidates, ["latency"]))  # of choices that can be made apart
    return whole - sum(float(each.max() - each.min()) for each in costs) / PER_SECOND / inventory.seconds


def predicted_share(plan: Plan, inventory: Inventory, whole: float = 1.0) -> float:
    """Time of a plan's network over the dense one's, as its layers' times predict it; ``whole`` as above."""
    assert inventory.seconds is not None
    saved = sum(layer.seconds[0] - layer.seconds[1] for layer in plan.layers if layer.seconds)
    return whole - saved / inventory.seconds


def _corrected(found: list[Plan], target: float, whole: float) -> float:
    """The prediction to ask for, such that the target is what will be measured."""
    tries = [(plan.latency.predicted, plan.latency.measured) for plan in found if plan.latency]
    kept = max((each for each in tries if each[1] <= target), default=None)
    slow = [each for each in tries if each[1] > target]
    if kept is None:
        if len(found) == ROUNDS - 2:
            return 0.0  # before the target is refused, the fastest plan there is has its turn
        predicted, measured = min(slow)
        # A network that seems to have got no faster tells no factor: then twice as much is asked for.
        return whole - (whole - predicted) * (
            (whole - target) / (whole - measured) if measured < whole else 2
        )
    # Doing nothing is a try, too.
    too_slow = min([each for each in slow if each[0] > kept[0]], default=(whole, whole))
    return kept[0] + (target - kept[1]) * (too_slow[0] - kept[0]) / (too_slow[1] - kept[1])


def measured_latency(
    inventory: Inventory, target: float, predicted: float, measured: Timing, number: int, *, fastest: bool
) -> Latency:
    """What was measured for a target, after ``number`` plans; on what is not said yet."""
    assert inventory.seconds is not None
    return Latency(
        runtime="",
        threads=0,
        batch=0,
        seconds=inventory.seconds,
        target=target,
        predicted=predicted,
        measured=measured.median,
        low=measured.low,
        high=measured.high,
        rounds=number,
        fastest=fastest,
    )


def _best(found: list[Plan], rule: Budget) -> Plan:
    """The plan that kept the target and loses least; with best effort the nearest, where none did."""

    def loss(plan: Plan) -> float:
        return plan.optimality.loss if plan.optimality else 0.0

    def measured(plan: Plan) -> float:
        assert plan.latency is not None
        return plan.latency.measured

    target = float(rule.latency or 1)
    kept = [plan for plan in found if keeps_target(plan)]
    if kept:
        return min(kept, key=loss)
    nearest = min(found, key=measured)
    if rule.best_effort and measured(nearest) < 1:
        assert nearest.latency is not None
        return replace(nearest, latency=replace(nearest.latency, missed=True))
    raise LatencyNotKeptError(_unreachable(target, measured(nearest), rule), measured(nearest))


def _unreachable(target: float, nearest: float, rule: Budget) -> str:
    within_reach = floor(10 / nearest) / 10
    precision = "" if rule.precision == SINGLE else f" in {rule.precision[0]}"
    advice = (
        f"try --latency {within_reach:.1f}x, or keep the nearest plan by --best-effort (Budget(best_effort=True))"
        if within_reach > 1
        else f"on this runtime the network gets no faster{precision}"
    )
    return (
        f"a latency of {target:.4g} of the dense network's ({1 / target:.3g}x) cannot be met; the nearest that was "
        f"measured is {nearest:.4g} ({1 / nearest:.3g}x){precision}; {advice}"
    )
