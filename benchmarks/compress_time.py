"""Time of compress() for a budget with images, phase by phase, and its processor time.

Networks of torchvision with random weights, and smooth random images: a fit of trained weights takes fewer sweeps.

    python benchmarks/compress_time.py efficientnet_b0 resnet50 --output docs/results
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torchvision

import tuckertree
from tuckertree.measure import environment

PHASES = ("inventory", "probe", "images", "plan", "calibration", "errors")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="+", help="names of torchvision")
    parser.add_argument("--macs", type=float, default=0.8)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--before", type=Path, help="JSON of an earlier state, to be set beside this one")
    parser.add_argument("--output", type=Path, help="folder for compress_time.json and .md")
    options = parser.parse_args()
    results = []
    for name in options.networks:
        results.append(measure(name, options.macs, options.images, options.size))
        print(json.dumps(results[-1]), flush=True)
    report = {"environment": environment(), "results": results}
    if options.before:
        report["before"] = json.loads(options.before.read_text(encoding="utf-8"))["results"]
    text = markdown(report)
    print(text)
    if options.output:
        data = json.dumps(report, indent=1) + "\n"
        (options.output / "compress_time.json").write_text(data, encoding="utf-8")
        (options.output / "compress_time.md").write_text(text, encoding="utf-8")


def measure(name: str, macs: float, count: int, size: int) -> dict[str, Any]:
    """Seconds of each phase, and processor seconds of all."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    images = torch.nn.functional.interpolate(
        torch.randn(count, 3, size // 4, size // 4), size, mode="bilinear"
    )
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tuckertree.calibration.CalibrationWarning)
        result = tuckertree.compress(model, images[:1], tuckertree.Budget(macs=macs), calibration=images)
    return {
        "network": name,
        "macs": macs,
        "images": count,
        "seconds": dict(result.seconds),
        "processor_seconds": round(time.process_time() - start, 1),
        "ranks": {layer.name: layer.ranks for layer in result.plan.compressed},
    }


def markdown(report: dict[str, Any]) -> str:
    """The table, with the earlier state above each network if it was given."""
    where, one = report["environment"], report["results"][0]
    lines = [
        "# Time of compress() with images\n",
        f"A budget of MACs {one['macs']}, {one['images']} images, random weights. Seconds of each phase, of all on the "
        "clock, and of the processor, which other work on the machine disturbs less. Measured by",
        f"`python benchmarks/compress_time.py` with tuckertree {where['tuckertree']}, torch {where['torch']}, "
        f"{where['processor']}, threads: {torch.get_num_threads()}.\n",
        f"| network | {' | '.join(PHASES)} | all | processor |",
        "|---|" + "---|" * (len(PHASES) + 2),
    ]
    earlier = {each["network"]: each for each in report.get("before", [])}
    for each in report["results"]:
        if before := earlier.get(each["network"]):
            lines.append(row(before, ", before"))
        lines.append(row(each))
    return "\n".join(lines) + "\n"


def row(result: dict[str, Any], which: str = "") -> str:
    """A row of the table."""
    seconds = [result["seconds"].get(phase, 0.0) for phase in PHASES]
    shown = [f"{each:.1f}" for each in (*seconds, sum(seconds), result["processor_seconds"])]
    return f"| {result['network']}{which} | {' | '.join(shown)} |"


if __name__ == "__main__":
    main()
