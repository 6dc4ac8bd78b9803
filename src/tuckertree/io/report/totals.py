"""Lines that sum a compression up."""

from __future__ import annotations

from tuckertree.io.report.tables import plain, plan_table, ratio
from tuckertree.io.report.verdict import Compressed, is_weighted, warnings_of
from tuckertree.planning import Plan

_LITTLE = 0.02
"""Share of a budget that may be left over without a word."""


def result_text(result: Compressed) -> str:
    """Table of a compression: layers, totals, error and time, as plain text."""
    return plain(plan_table(result)) + "\n".join(totals(result))


def totals(result: Compressed, *, warned: bool = True) -> list[str]:
    """Lines that sum a compression up, its warnings last."""
    plan = result.plan
    return [
        f"parameters  {ratio(plan.parameters)}",
        f"MACs        {ratio(plan.macs)}",
        *_channels(plan),
        f"error       {result.relative_error:.4f} of the norm of all layers' weights"
        f"{', but for those with fewer channels' if plan.pruned else ''}",
        *_optimality(plan),
        *_planned(result),
        *_latency(plan),
        f"time        {sum(result.seconds.values()):.2f} s",
        *(f"warning     {warning}" for warning in warnings_of(result) if warned),
    ]


def plan_totals(plan: Plan) -> list[str]:
    """Lines that sum up a plan that was not carried out."""
    return [
        f"parameters  {ratio(plan.parameters)}",
        f"MACs        {ratio(plan.macs)}",
        *_channels(plan),
        *_optimality(plan),
        *_latency(plan),
    ]


def _channels(plan: Plan) -> list[str]:
    if not plan.pruned:
        return []
    left, whole = (
        sum(sizes) for sizes in zip(*((len(x.kept), x.hidden.channels) for x in plan.pruned), strict=True)
    )
    return [f"channels    {left} of {whole} hidden ones stay"]


def _optimality(plan: Plan) -> list[str]:
    if plan.optimality is None:
        return []
    found = plan.optimality
    return [
        f"budget      predicted loss {found.loss:.4g}, at most {found.gap:.2%} above the best possible",
        *_left_over(plan),
    ]


def _left_over(plan: Plan) -> list[str]:
    """Why a plan is smaller than its budget allows, where it is so by more than a little."""
    sizes = {"params": ("parameters", plan.parameters), "macs": ("MACs", plan.macs)}
    asked = {kind: share for kind in sizes if isinstance(share := plan.rule.get(kind), float)}
    used = {kind: sizes[kind][1][1] / max(sizes[kind][1][0], 1) for kind in asked}
    if not asked or any(used[kind] > (1 - _LITTLE) * share for kind, share in asked.items()):
        return []
    each = " and ".join(
        f"{used[kind]:.3g} of the {sizes[kind][0]} for {share:.3g}" for kind, share in asked.items()
    )
    return [f"left over   {each} asked for: every choice that loses less takes more than is left"]


def _planned(result: Compressed) -> list[str]:
    if not (result.plan.compressed or result.plan.pruned):
        return []  # nothing but the precision has changed
    if is_weighted(result):
        objective = result.plan.rule["objective"]
        return [
            f"planned     error in the metric of the objective ({objective}), which that of the weight need not follow"
        ]
    if result.fitted:
        return ["planned     error of the weight before the factors were fitted to images"]
    return []


def _latency(plan: Plan) -> list[str]:
    if plan.latency is None:
        return []
    found = plan.latency
    precision = "" if found.precision == "fp32" else f", {found.precision}"
    predicted = (
        f", {1 / found.predicted:.2f}x predicted from layers" if plan.compressed or plan.pruned else ""
    )
    return [
        f"latency     {1 / found.measured:.2f}x faster measured ({1 / found.high:.2f}x to {1 / found.low:.2f}x), "
        f"{1 / found.target:.3g}x asked for{predicted}",
        f"runtime     {found.runtime}, {found.threads} threads, batch {found.batch}{precision}; "
        f"dense{' in fp32' if precision else ''} {found.seconds * 1e3:.3g} ms",
    ]
