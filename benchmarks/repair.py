"""Whether it pays to choose again, by what each decision of a plan was seen to cost after calibration.

    python benchmarks/repair.py ResNet-20:params=3.8 ResNet-20:params=8 EfficientNet-Lite0:macs=1.25 --data DATA ZOO --output docs/results

Round 0 is the budget's own plan, calibrated. What each decision has cost is then seen by `tuckertree.distance_by_layer`. The losses
of its candidates are multiplied by the root of the ratio of this to what was predicted, 1/4 to 4 times, and the budget
chooses again.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import torch

import tuckertree as tt
from merging import Row, merged, write_report
from trained import Trained, network_and_budget, open_network, rule_of, title_of
from tuckertree._base.progress import no_progress
from tuckertree.compression import Rise
from tuckertree.compression.choosing import Choosing
from tuckertree.compression.making import make_network, make_result
from tuckertree.measure import environment
from tuckertree.planning import DENSE, Candidates, Decisions, Plan

ROUNDS = 3
LOOKED_AT = 128
MOST = 4.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="+", type=network_and_budget, metavar="NETWORK:BUDGET")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders that are looked in")
    parser.add_argument("--output", type=Path, help="folder for repair.json and .md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", tt.calibration.CalibrationWarning)
    rows: list[Row] = []
    for name, factors in options.rows:
        for row in measured(open_network(name, options.data, validation=True), rule_of(factors)):
            rows.append({"network": name, "budget": title_of(factors), **row})
            print(rows[-1], flush=True)
    print(markdown(rows))
    if options.output:
        every = merged(options.output / "repair.json", "rows", rows, ("network", "budget", "round"))
        write_report(options.output, "repair", {"environment": environment(), "rows": every}, markdown(every))


def measured(trained: Trained, rule: tt.Budget) -> list[Row]:
    """A row for each round."""
    fold, rows = trained.folds[0], []
    chosen = Choosing.of(trained.model, trained.example, rule, calibration=fold.calibration)
    with chosen.network.opened(chosen.images):
        surveyed = chosen.surveyed(no_progress)
        for number in range(ROUNDS):
            plan = surveyed.plan(rule, no_progress)
            made = make_network(chosen, plan, None, None, no_progress)
            rows.append({"round": number, **fold.score(made.model), **made.distances})
            if number < ROUNDS - 1:
                result = make_result(chosen, made, surveyed.inventory, None, no_progress)
                rises = tt.distance_by_layer(result, trained.model, fold.calibration[-LOOKED_AT:]).rises
                seen = costs(rises, losses(surveyed.candidates, plan))
                candidates = {
                    name: replace(each, loss=each.loss * seen.get(name, 1.0))
                    for name, each in surveyed.candidates.items()
                }
                surveyed = replace(surveyed, candidates=candidates)
    return rows


def losses(decisions: Decisions, plan: Plan) -> dict[str, tuple[str, float]]:
    """For each decision that changes something a layer of those it is about, and its loss."""
    planned = {layer.name: layer for layer in plan.layers}
    found: dict[str, tuple[str, float]] = {}
    for name, each in decisions.items():
        if isinstance(each, Candidates):
            picks = [*zip(each.methods, each.ranks, strict=True)]
            pick = planned[name].method, planned[name].ranks
            if pick[0] != DENSE and pick in picks:
                found[name] = name, float(each.loss[picks.index(pick)])
            continue
        pruned = tuple(p for p in plan.pruned if {*p.hidden.modules} & {*each.layers})
        if pruned in each.pruned:
            found[name] = pruned[0].hidden.producers[0], float(each.loss[each.pruned.index(pruned)])
    return found


def costs(rises: Sequence[Rise], known: dict[str, tuple[str, float]]) -> dict[str, float]:
    """By what the losses of each decision are to be multiplied."""
    expected = sum(loss for _, loss in known.values())
    risen = sum(max(rise.share, 0.0) for rise in rises)
    ratios: dict[str, float] = {}
    for rise in rises:
        about = {name: loss for name, (layer, loss) in known.items() if layer in rise.layers}
        predicted = sum(about.values()) / expected
        ratios |= dict.fromkeys(about, (max(rise.share, 0.0) / risen + 1e-3) / (predicted + 1e-3))
    mean = prod(ratio ** (1 / len(ratios)) for ratio in ratios.values())
    return {name: min(max((ratio / mean) ** 0.5, 1 / MOST), MOST) for name, ratio in ratios.items()}


def markdown(rows: list[Row]) -> str:
    """The page."""
    known = environment()
    lines = [
        "# Choosing again by what decisions were seen to cost",
        "",
        "Round 0 is the budget's own plan, calibrated; before each further round the losses of all decisions are multiplied by the",
        "root of what they were seen to cost over what was predicted. Distances of the outputs on the images fitted to and on",
        "those held out; top-1 on training images that took no part, or on the other half of the photographs. Measured by",
        "",
        "    python benchmarks/repair.py ResNet-20:params=3.8 ResNet-20:params=8 EfficientNet-Lite0:macs=1.25 --data DATA ZOO --output docs/results",
        "",
        f"tuckertree {known['tuckertree']}, torch {known['torch']}, {known['processor']}, one thread; seed 0.",
        "",
        "| network | budget | round | distance, fitted | held out | top-1 |",
        "|---|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['network']} | {row['budget']} | {row['round']} | {row['fitted']:.4f} | {row['held out']:.4f} | {row['top1']:.2f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
