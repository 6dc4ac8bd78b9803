"""The fewest MACs that lose at most a point of top-1: what a search finds, and in how long.

python benchmarks/max_drop.py ResNet-20 VGG-19-BN EfficientNet-Lite0 --data DATA ZOO --output docs/results
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import torch

import tuckertree as tt
from merging import Row, merged, write_report
from trained import NETWORKS, open_network
from tuckertree.measure import environment


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="+", help=f"of {', '.join(NETWORKS)}, but VDSR")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders that are looked in")
    parser.add_argument("--points", type=float, default=1.0, help="of top-1 that may be lost")
    parser.add_argument("--output", type=Path, help="folder for max_drop.json and .md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", tt.calibration.CalibrationWarning)
    rows: list[Row] = []
    for name in options.networks:
        rows.append({"network": name, **measured(name, options.points, options.data)})
        print(rows[-1], flush=True)
        if options.output:
            every = merged(options.output / "max_drop.json", "rows", rows, ("network",))
            report = {"environment": environment(), "points": options.points, "rows": every}
            write_report(options.output, "max_drop", report, markdown(every, options.points))
    print(markdown(rows, options.points))


def measured(name: str, points: float, folders: list[Path]) -> Row:
    """What a search finds, on the labelled images of the first fold."""
    trained = open_network(name, folders)
    fold = trained.folds[0]
    started = time.process_time()
    held = True
    try:
        result = tt.compress(
            trained.model,
            trained.example,
            tt.Budget(max_drop=points),
            calibration=fold.calibration,
            data=fold.others,
            progress=False,
        )
    except tt.AccuracyNotKeptError as error:
        result, held = error.nearest, False
    assert result.accuracy is not None
    loss = result.accuracy.proofs[-1].loss
    assert loss is not None
    return {
        "held": held,
        "macs": result.plan.macs,
        "parameters": result.plan.parameters,
        "top1": loss.top1,
        "lost": loss.lost,
        "interval": (loss.low, loss.high),
        "networks": len(result.accuracy.steps) + len(result.accuracy.proofs),
        "seconds": time.process_time() - started,
    }


def markdown(rows: list[Row], points: float) -> str:
    """The page."""
    known = environment()
    lines = [
        "# The fewest MACs that lose at most a point",
        "",
        f"`Budget(max_drop={points:g})`: fitted to 1,024 training images of CIFAR-10, searched on half of the test set and proved on the",
        "other; of EfficientNet-Lite0 fitted to 250 photographs, searched on 125 others and proved on 125. Points of top-1 lost on",
        "the images of the proof, with their 95 % interval (Newcombe). Not tuned. Measured by",
        "",
        "    python benchmarks/max_drop.py ResNet-20 VGG-19-BN EfficientNet-Lite0 --data DATA ZOO --output docs/results",
        "",
        f"tuckertree {known['tuckertree']}, torch {known['torch']}, {known['processor']}, one thread; seed 0.",
        "",
        "| network | held | MACs | parameters | points lost | interval | networks | processor seconds |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        (macs, fewer), (parameters, left), (low, high) = row["macs"], row["parameters"], row["interval"]
        lines.append(
            f"| {row['network']} | {'yes' if row['held'] else 'no, the nearest'} | {macs / fewer:.2f}x | {parameters / left:.2f}x"
            f" | {row['lost']:.2f} | {low:.2f} to {high:.2f} | {row['networks']} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
