"""Whether it pays to choose again, by what each decision of a plan was seen to cost after calibration.

    python benchmarks/repair.py ResNet-20:params=3.8 ResNet-20:params=8 EfficientNet-Lite0:macs=1.25 --data DATA ZOO --output docs/results

Round 0 is the budget's own plan, calibrated. Then the original network is made the compressed one, layer after layer, and the
rise of the outputs' squared distance over a layer is what that layer's decision has cost. The losses of its candidates are
multiplied by the root of the ratio of this to what was predicted, 1/4 to 4 times, and the budget chooses again.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

import tuckertree as tt
from merging import Row, write_report
from trained import Trained, network_and_budget, open_network, rule_of, title_of
from tuckertree._base.progress import no_progress
from tuckertree.calibration.distances import Comparison
from tuckertree.compression.choosing import Choosing
from tuckertree.compression.making import make_network
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
        write_report(options.output, "repair", {"environment": environment(), "rows": rows}, markdown(rows))


def measured(trained: Trained, rule: tt.Budget) -> list[Row]:
    """A row for each round."""
    fold, rows = trained.folds[0], []
    chosen = Choosing.of(trained.model, trained.example, rule, calibration=fold.calibration)
    looked_at = fold.calibration[-LOOKED_AT:]
    with chosen.network.opened(chosen.images):
        surveyed = chosen.surveyed(no_progress)
        for number in range(ROUNDS):
            plan = surveyed.plan(rule, no_progress)
            made = make_network(chosen, plan, None, None, no_progress)
            rows.append({"round": number, **fold.score(made.model), **made.distances})
            if number < ROUNDS - 1:
                seen = costs(trained.model, made.model, losses(surveyed.candidates, plan), looked_at)
                candidates = {
                    name: replace(each, loss=each.loss * seen.get(name, 1.0))
                    for name, each in surveyed.candidates.items()
                }
                surveyed = replace(surveyed, candidates=candidates)
    return rows


def losses(decisions: Decisions, plan: Plan) -> dict[str, tuple[tuple[str, ...], float]]:
    """For each decision that changes something the modules it is about, and its loss."""
    planned = {layer.name: layer for layer in plan.layers}
    found: dict[str, tuple[tuple[str, ...], float]] = {}
    for name, each in decisions.items():
        if isinstance(each, Candidates):
            method, ranks = planned[name].method, planned[name].ranks
            picks = [*zip(each.methods, each.ranks, strict=True)]
            if method != DENSE and (method, ranks) in picks:
                found[name] = ((name,), float(each.loss[picks.index((method, ranks))]))
            continue
        pruned = tuple(p for p in plan.pruned if {*p.hidden.modules} & {*each.layers})
        if pruned and pruned in each.pruned:
            modules = tuple(module for p in pruned for module in p.hidden.modules)
            found[name] = (modules, float(each.loss[each.pruned.index(pruned)]))
    return found


def costs(
    original: nn.Module,
    compressed: nn.Module,
    known: dict[str, tuple[tuple[str, ...], float]],
    images: Tensor,
) -> dict[str, float]:
    """By what the losses of each decision are to be multiplied."""
    comparison = Comparison(original, [images])
    order = [name for name, _ in original.named_modules()]
    last = {name: max(map(order.index, modules)) for name, (modules, _) in known.items()}
    names, before, rises = sorted(known, key=lambda name: last[name]), 0.0, dict[str, float]()
    for place, name in enumerate(names):
        following = known[names[place + 1]][0] if place + 1 < len(names) else ()
        stop = max(last[name] + 1, min(map(order.index, following), default=len(order)))
        (distance,) = comparison.distances([changed_up_to(original, compressed, order[:stop])])
        rises[name], before = max(distance**2 - before, 0.0), distance**2
    risen, expected = sum(rises.values()), sum(known[name][1] for name in names)
    ratios = {
        name: (rises[name] / risen + 1e-3) / (known[name][1] / expected + 1e-3) for name in names if risen
    }
    mean = prod(ratio ** (1 / len(ratios)) for ratio in ratios.values())
    return {name: min(max((ratio / mean) ** 0.5, 1 / MOST), MOST) for name, ratio in ratios.items()}


def changed_up_to(original: nn.Module, compressed: nn.Module, names: list[str]) -> nn.Module:
    """The original with the compressed network's modules in the place of these, as far as they have no parts."""
    model, others = copy.deepcopy(original), dict(compressed.named_modules())
    for name in names:
        if name in others and not list(original.get_submodule(name).children()):
            model.set_submodule(name, copy.deepcopy(others[name]))
    return model


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
