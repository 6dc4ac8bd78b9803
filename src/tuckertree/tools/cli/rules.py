"""The rule that the options of `tuckertree compress` name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuckertree._base.errors import UsageError
from tuckertree.tools.cli.options import refuse_options

if TYPE_CHECKING:
    from tuckertree.compression.objectives import AnyRule


def rule_of(
    energy: float | None,
    error: float | None,
    shares: dict[str, str | None],
    accuracy: dict[str, float | None],
    cheapest: str | None,
    timing: dict[str, Any],
    *,
    best_effort: bool,
    plan: Path | None = None,
) -> AnyRule:
    """The one rule that the options name, or the plan of a file.

    Raises
    ------
    UsageError
        If they name none or several, or one has no meaning with the others.
    TuckertreeError
        If the plan cannot be read.
    """
    import tuckertree
    from tuckertree.planning.edited import read_plan

    rules: list[AnyRule] = []
    if plan is not None:
        rules.append(read_plan(plan))
    if energy is not None:
        rules.append(tuckertree.Energy(energy))
    if error is not None:
        rules.append(tuckertree.ErrorBound(error))
    given = {option: value for option, value in timing.items() if value is not None}
    keeps = any(value is not None for value in accuracy.values())
    to_latency = "belongs to --latency; give a target such as --latency 2x"
    if shares["latency"] is None and cheapest != "latency":
        refuse_options(to_latency, **given)
        if best_effort and not keeps:
            refuse_options(to_latency, best_effort=best_effort)
    if not keeps:
        refuse_options("belongs to --max-drop or --agreement", cheapest=cheapest)
    if keeps or any(value is not None for value in shares.values()):
        budget = tuckertree.Budget(
            **shares,  # type: ignore[arg-type]
            **accuracy,  # type: ignore[arg-type]
            **given,
            cheapest=cheapest,
            best_effort=best_effort,
        )
        rules.append(budget)
    if len(rules) != 1:
        raise UsageError(
            "give one of --energy, --error, or a budget: --params, --macs or both, --latency 2x, --max-drop 1.0 or "
            "--agreement 0.99; or a --plan"
        )
    return rules[0]
