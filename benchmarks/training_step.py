"""Time of a training step on the processor: a compressed network against the dense one it was made from.

A step is forward, loss, backward and SGD, with distillation for the compressed network as ``finetune`` does it,
and without. All kinds of step are timed in turns, so that what else the machine does falls on all of them.

    python benchmarks/training_step.py --networks cifar10:resnet20 --output docs/results
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import tuckertree
from tuckertree.calibration.balancing import rebalance
from tuckertree.measure import count_macs, environment
from tuckertree.tools.models import resolve
from tuckertree.tools.training import Settings
from tuckertree.tools.training.optimisation import loss_of, make_optimizer

SETTINGS = Settings(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=["cifar10:resnet20", "cifar10:vgg19_bn"])
    parser.add_argument("--energy", type=float, default=0.7)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, help="folder for training_step.json and .md")
    options = parser.parse_args()
    results = [measure(name, options.energy, options.batch_size, options.rounds) for name in options.networks]
    report = {"environment": environment(), "results": results}
    text = markdown(report)
    print(text)
    if options.output:
        data = json.dumps(report, indent=1) + "\n"
        (options.output / "training_step.json").write_text(data, encoding="utf-8")
        (options.output / "training_step.md").write_text(text, encoding="utf-8")


def measure(name: str, energy: float, batch: int, rounds: int) -> dict[str, Any]:
    """Medians and quartiles, in milliseconds, of the steps of one network."""
    torch.manual_seed(0)
    known, dense = resolve(name), tuckertree.build(name)
    compressed = tuckertree.compress(dense, known.example_inputs(), energy=energy).model
    images = torch.randn(batch, 3, *known.preprocessing.size)
    labels = torch.zeros(batch, dtype=torch.int64)
    teacher = tuckertree.build(name)
    steps = {
        "dense": step_of(tuckertree.build(name), images, labels, None),
        "compressed": step_of(rebalance(compressed), images, labels, None),
        "compressed, distilled": step_of(rebalance(compressed), images, labels, teacher),
    }
    times: dict[str, list[float]] = {kind: [] for kind in steps}
    for number in range(rounds + 2):
        for kind, step in steps.items():
            started = time.perf_counter()
            step()
            if number >= 2:  # the first two warm up
                times[kind].append(1000 * (time.perf_counter() - started))
    return {
        "network": name,
        "energy": energy,
        "batch": batch,
        "rounds": rounds,
        "macs": [count_macs(network, known.example_inputs()) for network in (dense, compressed)],
        "milliseconds": {
            kind: dict(zip(("low", "median", "high"), statistics.quantiles(taken, n=4), strict=True))
            for kind, taken in times.items()
        },
    }


def step_of(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor, teacher: nn.Module | None
) -> Callable[[], None]:
    """One training step of a network."""
    network.train()
    optimizer = make_optimizer(network, SETTINGS)

    def step() -> None:
        wanted = None
        if teacher is not None:
            with torch.no_grad():
                wanted = teacher(images)
        optimizer.zero_grad()
        loss_of(network(images), labels, SETTINGS, wanted).backward()
        optimizer.step()

    return step


def markdown(report: dict[str, Any]) -> str:
    """The page, from the report alone."""
    machine, networks = report["environment"], [result["network"] for result in report["results"]]
    first = report["results"][0]
    lines = [
        "# Time of a training step",
        "",
        "Forward, loss, backward and SGD, for the compressed network with the dense one as its teacher too, timed in turns;",
        f"one energy for all layers, {first['energy']:g}, batches of {first['batch']}, random weights and images, "
        f"{first['rounds']} rounds. Median and",
        f"quartiles. Measured by `python benchmarks/training_step.py --networks {' '.join(networks)} --output docs/results`",
        f"with tuckertree {machine['tuckertree']}, torch {machine['torch']}, {machine['processor']}, threads: "
        f"{machine['threads']}, a busy",
        "machine shared with others: read the ratios, not the times.",
        "",
        "| network | MACs | dense ms | compressed ms | distilled ms | of dense: compressed, distilled |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [line(result) for result in report["results"]]) + "\n"


def line(result: dict[str, Any]) -> str:
    """One row of the table."""
    times = result["milliseconds"]
    shown = [f"{t['median']:.0f} ({t['low']:.0f}-{t['high']:.0f})" for t in times.values()]
    medians = [t["median"] for t in times.values()]
    fewer = f"{result['macs'][0] / result['macs'][1]:.2f}x fewer"
    ratios = f"{medians[1] / medians[0]:.2f}, {medians[2] / medians[0]:.2f}"
    return f"| {' | '.join([result['network'], fewer, *shown, ratios])} |"


if __name__ == "__main__":
    main()
