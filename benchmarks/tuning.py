"""What tuning a whole network without labels gives back: scores as calibrated, and tuned.

    python benchmarks/tuning.py --data DATA ZOO --output docs/results                  # hours with everything
    python benchmarks/tuning.py ResNet-20 --budgets params=3.8 --data DATA --output docs/results

DATA holds cifar10/, imagenet-like/ and models/, ZOO set5/, vdsr.safetensors and tf_efficientnet_lite0_fp16.safetensors.
Each row is a file of its own in docs/results/tuning/, written when the row is done; what is there is not measured again. The
page docs/results/tuning.md is made of them. Without DATA the packaged ResNet-20 and images are used.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import tuckertree as tt
from trained import NETWORKS, Budgets, Trained, budget, open_network, rule_of, title_of
from tuckertree._base.atomic import write_atomically
from tuckertree.measure import environment

Row = dict[str, Any]

ROWS: dict[str, tuple[int, tuple[Budgets, ...]]] = {
    "ResNet-20": (500, ({"params": 3.8}, {"params": 2.5}, {"params": 8})),
    "VDSR": (150, ({"macs": 2}, {"macs": 3})),
    "ResNet-56": (600, ({"params": 4}, {"params": 2.5})),
    "VGG-19-BN": (300, ({"params": 15},)),
    "EfficientNet-Lite0": (200, ({"macs": 1.25}, {"macs": 1.5})),
    "GoogLeNet": (120, ({"macs": 1.6}, {"macs": 2.1})),
}
"""Steps, about what five minutes of two threads allow, and budgets as factors."""

PAGE = """# What tuning without labels gives back

A budget for the whole network, factors fitted to unlabelled images; then the whole network is tuned against the original on
the same images: of CIFAR-10 1,024 training images, scored on the whole test set; of GoogLeNet and EfficientNet-Lite0 each half
of 500 photographs, scored on the other half (read them as a drop); of VDSR 240 crops of 64 x 64, scored on Set5. Ways to make
steps were chosen by outputs on images held out, never by these scores. One run each, seed 0. Seconds are of one processor, for
one fold, as the machine was shared; five minutes of two threads are 600. VGG-19-BN, EfficientNet-Lite0 and ResNet-56:
measured before `depthwise` was among the methods. Measured, with `--steps` where it is another number, by

    {command}

tuckertree {tuckertree}, torch {torch}, {processor}. What was tried on the way is in [tuning, choices](tuning_choices.md).

| network (dense) | budget | parameters | MACs | calibrated | tuned | steps | outputs' distance on images held out | seconds to compress | to tune |
|---|---|---|---|---|---|---|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}; all by default"
    )
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="folders that are looked in")
    parser.add_argument("--budgets", nargs="+", type=budget, help="factors, such as params=3.8")
    parser.add_argument("--steps", type=int, help="instead of the usual number")
    parser.add_argument("--limit", type=int, help="images that are scored on; all by default")
    parser.add_argument(
        "--validation", action="store_true", help="score on other training images, for choices"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="folder for tuning.md and tuning/")
    options = parser.parse_args()
    if unknown := sorted(set(options.networks) - set(NETWORKS)):
        parser.error(f"unknown: {', '.join(unknown)}")
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    for name in options.networks or list(ROWS) if options.data else ["ResNet-20"]:
        steps, budgets = ROWS[name]
        for each in options.budgets or budgets:
            rows.append(measured(name, each, options.steps or steps, options))
            print(json.dumps(rows[-1]), flush=True)
    if options.output:
        rows = [
            json.loads(path.read_text(encoding="utf-8"))
            for path in (options.output / "tuning").glob("*.json")
        ]
        write_atomically(options.output / "tuning.md", markdown(rows))
    print(markdown(rows))


def measured(name: str, factors: Budgets, steps: int, options: argparse.Namespace) -> Row:
    """A row: the one that is there, or measured now and written."""
    title = title_of(factors)
    file = None
    if options.output:
        folder = options.output / "tuning"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{name} {title}.json".lower().replace(" ", "-")
        if file.exists():
            return dict(json.loads(file.read_text(encoding="utf-8")))
    trained = open_network(name, options.data, options.limit, validation=options.validation)
    row = {"network": name, "budget": title, **measure(trained, factors, steps), "environment": environment()}
    if file:
        write_atomically(file, json.dumps(row, indent=1) + "\n")
    return row


def measure(trained: Trained, factors: Budgets, steps: int) -> Row:
    """Compress, score, tune, score."""
    rule = rule_of(factors)
    results: list[tt.CompressionResult] = []
    tuned: list[tt.CompressionResult] = []
    seconds: list[float] = []
    for fold in trained.folds:
        clock = [time.process_time()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", tt.calibration.CalibrationWarning)
            images = fold.calibration
            results.append(
                tt.compress(trained.model, trained.example, rule, calibration=images, progress=False)
            )
            clock.append(time.process_time())
            tuned.append(tt.tune(results[-1], trained.model, images, steps=steps, progress=False))
        clock.append(time.process_time())
        seconds += [clock[1] - clock[0], clock[2] - clock[1]]
    folds = len(trained.folds)
    return {
        "parameters": results[0].plan.parameters,
        "macs": results[0].plan.macs,
        "dense": trained.score([trained.model] * folds),
        "calibrated": trained.score([result.model for result in results]),
        "tuned": trained.score([result.model for result in tuned]),
        "seconds_compressing": round(sum(seconds[::2]) / folds, 1),
        "seconds_tuning": round(sum(seconds[1::2]) / folds, 1),
        "tuning": [result.tuning.to_json() for result in tuned if result.tuning],
    }


def markdown(rows: Sequence[Row]) -> str:
    return PAGE.format(
        command="python benchmarks/tuning.py --data DATA ZOO --output docs/results", **environment()
    ) + "".join(lines(sorted(rows, key=lambda row: (list(ROWS).index(row["network"]), row["macs"][1]))))


def lines(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        before, after = (
            " / ".join(f"{tuning[key]:.4f}" for tuning in row["tuning"]) for key in ("before", "after")
        )
        scores = [
            " / ".join(f"{value:.2f}" for value in row[key].values()) for key in ("calibrated", "tuned")
        ]
        dense = " / ".join(f"{name} {value:.2f}" for name, value in row["dense"].items())
        less = [f"{row[key][0] / row[key][1]:.2f}x" for key in ("parameters", "macs")]
        yield (
            f"| {row['network']} ({dense}) | {row['budget']} | {less[0]} | {less[1]} | {scores[0]} | **{scores[1]}** "
            f"| {row['tuning'][0]['steps']} | {before} -> {after} "
            f"| {row['seconds_compressing']:.0f} | {row['seconds_tuning']:.0f} |\n"
        )


if __name__ == "__main__":
    main()
