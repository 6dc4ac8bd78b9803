"""How the result of a compression is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tuckertree.tools.cli.app import print_json, print_table, show_warning, stdout

if TYPE_CHECKING:
    from tuckertree.compression import CompressionResult, DistanceByLayer
    from tuckertree.planning import Plan


def show(
    result: CompressionResult,
    output: Path,
    more: Sequence[str],
    *,
    by_layer: DistanceByLayer | None = None,
    as_json: bool,
) -> None:
    """Print a result, and more lines after its totals; warnings on stderr, where all are."""
    from tuckertree.io.report import plan_table, rises_table, totals, warnings_of

    warnings = [*result.warnings, *warnings_of(result)]
    if as_json:
        where = {} if by_layer is None else {"by_layer": by_layer.to_json()}
        known = {"warnings": warnings, "plan": result.plan.to_json(), "output": str(output)}
        print_json({**result.summary(), **where, **known})
        return
    print_table(plan_table(result))
    if by_layer is not None:
        print_table(rises_table(by_layer.rows()))
    for line in [*totals(result, warned=False), *more]:
        stdout.print(line, soft_wrap=True)
    for warning in warnings:
        show_warning(warning)
    stdout.print(f"saved       {output}", soft_wrap=True)


def show_plan(plan: Plan, *, as_json: bool) -> None:
    """Print a plan that was not carried out; as JSON it can be edited, and carried out by ``compress --plan``."""
    from tuckertree.io.report import plan_table, plan_totals
    from tuckertree.io.report.verdict import NotMade

    if as_json:
        print(plan.dumps(), end="")
        return
    print_table(plan_table(NotMade(plan)))
    for line in plan_totals(plan):
        stdout.print(line, soft_wrap=True)
    stdout.print("nothing was made or written (--dry-run)", soft_wrap=True)


def end_if_interrupted(result: CompressionResult, output: Path, *, resumable: bool = False) -> None:
    """End as Ctrl-C does where it came in the tuning, once the best state so far is saved."""
    if result.tuning is not None and result.tuning.interrupted:
        said = f"tuning was interrupted; the best state so far is saved in {output}"
        raise KeyboardInterrupt(f"{said}; go on with --resume" if resumable else said)
