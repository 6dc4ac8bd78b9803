"""Whether leaving out whole residual blocks would pay: their loss beside that of the best a budget can do with their layers.

    python benchmarks/blocks.py ResNet-20 ResNet-56 --data DATA --output docs/results

For every block whose input and output have one shape: what the network's outputs lose, as the objective `outputs` predicts,
if the block's second convolution gives nothing, over the least loss and cost together of the block's layers at the same
price. Below 1 the budget would leave the block out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from merging import Row, write_report
from trained import open_network
from tuckertree.calibration import Calibration
from tuckertree.compression.objectives import Outputs, survey_network
from tuckertree.measure import environment
from tuckertree.planning import Budget, Candidates, Options, make_plan, take_inventory

BUDGETS = (("params", 2.5), ("params", 4.0), ("params", 8.0), ("macs", 2.5), ("macs", 4.0))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="+", help="ResNet-20, ResNet-56")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders that are looked in")
    parser.add_argument("--output", type=Path, help="folder for blocks.json and .md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for name in options.networks for row in measured(name, options.data)]
    print(markdown(rows))
    if options.output:
        write_report(options.output, "blocks", {"environment": environment(), "rows": rows}, markdown(rows))


def measured(name: str, folders: list[Path]) -> list[Row]:
    """A row for each budget: the ratios of the three blocks that come nearest to being left out."""
    trained = open_network(name, folders, limit=100)
    images = Calibration(trained.folds[0].calibration, example=trained.example)
    inventory = take_inventory(trained.model, trained.example)
    found, _ = survey_network(trained.model, inventory, Options(), Outputs(), images)
    layers = {layer.name: layer.spec for layer in inventory.layers}
    blocks = [
        first.removesuffix(".conv1")
        for first, spec in layers.items()
        if first.endswith(".conv1") and spec.in_channels == layers[first[:-1] + "2"].out_channels
    ]
    rows = []
    for kind, factor in BUDGETS:
        plan = make_plan(
            inventory,
            found,
            Budget(params=1 / factor) if kind == "params" else Budget(macs=1 / factor),
            Options(),
        )
        assert plan.optimality is not None
        price = plan.optimality.multipliers[kind]
        ratios = {}
        for block in blocks:
            first, second = (found[f"{block}.conv{number}"] for number in (1, 2))
            assert isinstance(first, Candidates)
            assert isinstance(second, Candidates)
            best = sum(float((x.loss + price * costs(x, kind)).min()) for x in (first, second))
            ratios[block] = round(second.spectra.squared_norm / best, 2)
        nearest = dict(sorted(ratios.items(), key=lambda each: each[1])[:3])
        rows.append(
            {"network": name, "budget": f"{kind} {factor:g}x", "blocks": len(ratios), "ratios": nearest}
        )
    return rows


def costs(candidates: Candidates, kind: str) -> torch.Tensor:
    """What each candidate costs."""
    return candidates.parameters if kind == "params" else candidates.macs


def markdown(rows: list[Row]) -> str:
    """The page."""
    known = environment()
    lines = [
        "# Leaving out whole residual blocks",
        "",
        "What the outputs lose without a block, as predicted, over the least loss and cost of its layers at the budget's own",
        "price; below 1 the budget would leave it out. The blocks that come nearest. Measured by",
        "`python benchmarks/blocks.py ResNet-20 ResNet-56 --data DATA --output docs/results`;",
        f"tuckertree {known['tuckertree']}, torch {known['torch']}, {known['processor']}.",
        "",
        "| network | budget | blocks | nearest |",
        "|---|---|---|---|",
    ]
    for row in rows:
        nearest = ", ".join(f"{block} {ratio:g}" for block, ratio in row["ratios"].items())
        lines.append(f"| {row['network']} | {row['budget']} | {row['blocks']} | {nearest} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
