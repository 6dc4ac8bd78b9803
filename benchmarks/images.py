"""How many unlabelled images are enough: scores and distances of networks calibrated on few and on many.

    python benchmarks/images.py ResNet-20:params=3.8 EfficientNet-Lite0:macs=1.25 --data DATA ZOO --output docs/results

For each number of images a plan of its own, once with every layer fitted as strongly as images that its fit has not seen
allow, and once not corrected: factors in the metric of the images, and nothing made up for.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from unittest.mock import patch

import torch

import tuckertree as tt
from merging import Row, merged, write_report
from trained import Trained, network_and_budget, open_network, rule_of, title_of
from tuckertree.calibration.strength import NONE
from tuckertree.measure import environment

CIFAR, PHOTOGRAPHS = (64, 256, 1024, 4096), (32, 64, 125, 250)
COUNTS = {
    "ResNet-20": CIFAR,
    "ResNet-56": CIFAR,
    "VGG-19-BN": CIFAR,
    "GoogLeNet": PHOTOGRAPHS,
    "EfficientNet-Lite0": PHOTOGRAPHS,
}
"""Of each network; of the folds of photographs the first ones."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="+", type=network_and_budget, metavar="NETWORK:BUDGET")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders that are looked in")
    parser.add_argument("--output", type=Path, help="folder for images.json and .md")
    options = parser.parse_args()
    if unknown := sorted({name for name, _ in options.rows} - set(COUNTS)):
        parser.error(f"{', '.join(unknown)} has no top-1")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", tt.calibration.CalibrationWarning)
    rows: list[Row] = []
    for name, factors in options.rows:
        trained = open_network(name, options.data, images=max(COUNTS[name]))
        for count in COUNTS[name]:
            row = {"network": name, "budget": title_of(factors), "images": count}
            with patch("tuckertree.calibration.fitting.choose_strength", lambda *_, **__: NONE):
                row["not corrected"] = measured(trained, rule_of(factors), count)
            row["fitted"] = measured(trained, rule_of(factors), count)
            rows.append(row)
            print(row, flush=True)
            if options.output:
                every = merged(options.output / "images.json", "rows", rows, ("network", "budget", "images"))
                report = {"environment": environment(), "rows": every}
                write_report(options.output, "images", report, markdown(every))
    print(markdown(rows))


def measured(trained: Trained, rule: tt.Budget, count: int) -> dict[str, float]:
    """Top-1, the distances of the outputs, and processor seconds, the mean over the folds."""
    started = time.process_time()
    results = [
        tt.compress(
            trained.model, trained.example, rule, calibration=fold.calibration[:count], progress=False
        )
        for fold in trained.folds
    ]
    seconds = (time.process_time() - started) / len(results)
    known = [{**result.distances, "seconds": seconds} for result in results]
    means = {key: sum(each[key] for each in known) / len(known) for key in ("fitted", "held out", "seconds")}
    return {**trained.score([result.model for result in results]), **means}


def markdown(rows: list[Row]) -> str:
    """The page."""
    known = environment()
    lines = [
        "# How many images are enough",
        "",
        "Networks calibrated on so many unlabelled images, not tuned: top-1 on the whole test set of CIFAR-10, or on the other half of",
        "the 500 photographs (two folds), and the relative distance of the outputs from the original's on the images fitted to and on",
        "those held out. Not corrected: factors in the metric of the images, and no layer makes up for what is lost before it",
        "but in its mean. Measured by",
        "",
        "    python benchmarks/images.py ResNet-20:params=3.8 EfficientNet-Lite0:macs=1.25 --data DATA ZOO --output docs/results",
        "",
        f"tuckertree {known['tuckertree']}, torch {known['torch']}, {known['processor']}, one thread; seed 0.",
        "",
        "| network | budget | images | top-1, not corrected | top-1 | fitted | held out | processor seconds |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        plain, full = row["not corrected"], row["fitted"]
        lines.append(
            f"| {row['network']} | {row['budget']} | {row['images']} | {plain['top1']:.2f} | {full['top1']:.2f}"
            f" | {full['fitted']:.3f} | {full['held out']:.3f} | {full['seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
