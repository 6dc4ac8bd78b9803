"""Accuracy without fine-tuning: budgets and unlabelled images against the paper's rule, at equal reduction.

Calibration: 1,024 CIFAR-10 training images, never their labels; accuracy: the whole test set, read once for
each row. GoogLeNet has 500 photographs in all: it is calibrated on one half and measured on the other, then
the other way round, so that no network is measured on an image it has seen. The paper's rule is given the
energy that reaches the same reduction.

    python benchmarks/post_training.py DATA --output docs/results     # hours with everything
    python benchmarks/post_training.py DATA --quick                   # ResNet-20 on 1,000 test images

DATA holds cifar10/, imagenet-like/ and models/; without it the packaged network and images are used.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import tuckertree as tt
from merging import merged, write_report
from trained import Trained, open_network
from tuckertree.measure import environment


@dataclass(frozen=True)
class Case:
    """A network and the budgets it is given, as factors."""

    network: str
    kind: str
    factors: tuple[float, ...]


CASES = {
    "ResNet-20": Case("ResNet-20", "params", (1.5, 2.5, 3.8)),
    "ResNet-20, MACs": Case("ResNet-20", "macs", (1.5, 2.5, 3.8)),
    "ResNet-56": Case("ResNet-56", "params", (1.5, 2.5)),
    "ResNet-56, MACs": Case("ResNet-56", "macs", (1.5, 2.5)),
    "VGG-19-BN": Case("VGG-19-BN", "params", (4, 8.6, 15)),
    "VGG-19-BN, MACs": Case("VGG-19-BN", "macs", (4,)),
    "GoogLeNet, MACs": Case("GoogLeNet", "macs", (1.6, 2.1)),
}


RESULTS = (
    "# Accuracy without fine-tuning",
    "",
    "A budget for the whole network, factors fitted to 1,024 unlabelled training images, no fine-tuning; the",
    "paper's rule (one energy, no images) at the same reduction beside it. GoogLeNet: each half of 500 photographs",
    "measured by the network calibrated on the other half; read it as a drop. No time is given for runs that were",
    "suspended on the way. VGG-19-BN at 4x and 8.6x: measured before the budget's metric took an image's positions",
    "together. The machine was busy (load 4 to 10 on 2 cores) but for GoogLeNet, and ResNet-56 and VGG-19-BN at equal",
    "MACs (one thread): times of the others are upper bounds. ResNet-56, VGG-19-BN and GoogLeNet: measured before",
    "`depthwise` was among the methods. Measured by",
    "`python benchmarks/post_training.py DATA --output docs/results`;",
)
VALIDATION = (
    "# Objectives of a budget, compared on training images",
    "",
    "As [the results](post_training.md), but measured on 2,048 training images that took no part in the calibration:",
    "the default objective was chosen by this table. The network was trained on these images and knows them by heart,",
    "so only the drops mean anything. Measured before `outputs` took an image's positions together, since when it",
    "keeps more (86.1 for 84.4 at 3.8x). Measured by `python benchmarks/post_training.py DATA --validation --no-paper",
    "--networks ResNet-20 --objectives outputs sensitivity moments weight --output docs/results`;",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--networks", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--objectives", nargs="+", default=["outputs"])
    parser.add_argument("--limit", type=int, help="test images; all by default")
    parser.add_argument("--quick", action="store_true", help="ResNet-20 on 1,000 test images")
    parser.add_argument(
        "--validation", action="store_true", help="2,000 other training images instead of the test set"
    )
    parser.add_argument("--no-paper", action="store_true", help="leave out the paper's rule")
    parser.add_argument("--output", type=Path, help="folder for post_training.json and .md")
    options = parser.parse_args()
    if options.quick or not options.data:
        options.networks, options.limit = ["ResNet-20"], 1000
    rows: list[dict[str, Any]] = []
    for name in options.networks:
        for row in measure(name, options):
            rows.append(row)
            print(json.dumps(row), flush=True)
            if options.output:
                write(rows, options.output, "objectives" if options.validation else "post_training")
    print(markdown(rows, validation=options.validation))


def measure(name: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows of one network: the paper's rule and the budget, for every factor."""
    case = CASES[name]
    folders = [options.data] if options.data else []
    trained = open_network(case.network, folders, options.limit, validation=options.validation)
    model, example = trained.model, trained.example
    baseline = top1(trained, [model] * len(trained.folds))
    for factor in case.factors:
        share: dict[str, Any] = {case.kind: 1 / factor}
        if not options.no_paper:
            energy = energy_for(model, example, case.kind, factor)
            paper = tt.compress(model, example, energy=energy)
            yield {
                **row_of(name, case, factor, "paper", paper, baseline),
                "energy": energy,
                "top1": top1(trained, [reloaded(paper)] * len(trained.folds)),
            }
        for objective in options.objectives:
            started = time.perf_counter()
            results = [
                tt.compress(
                    model,
                    example,
                    tt.Budget(**share),
                    calibration=fold.calibration,
                    objective=objective,
                )
                for fold in trained.folds
            ]
            seconds = (time.perf_counter() - started) / len(trained.folds)
            yield {
                **row_of(name, case, factor, objective, results[0], baseline),
                "top1": top1(trained, [reloaded(result) for result in results]),
                "seconds": seconds,
                "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "methods": count_methods(results[0]),
            }


def top1(trained: Trained, models: list[nn.Module]) -> float:
    return trained.score(models)["top1"]


def reloaded(result: tt.CompressionResult) -> nn.Module:
    with tempfile.TemporaryDirectory() as folder:
        return tt.load(result.save(Path(folder) / "saved"))


def energy_for(model: nn.Module, example: Tensor, kind: str, factor: float) -> float:
    """Energy at which the paper's rule reaches the factor, to four digits; no image is looked at."""
    low, high = 0.05, 0.999
    for _ in range(14):
        middle = (low + high) / 2
        try:
            plan = tt.compress(model, example, energy=middle, progress=False).plan
            before, after = plan.parameters if kind == "params" else plan.macs
            enough = before / after >= factor
        except tt.UnreachableTargetError:
            enough = False
        low, high = (middle, high) if enough else (low, middle)
    return round(low, 4)


def row_of(
    name: str, case: Case, factor: float, rule: str, result: tt.CompressionResult, baseline: float
) -> dict[str, Any]:
    return {
        "network": name,
        "budget": f"{case.kind} {factor:g}x",
        "rule": rule,
        "parameters": result.plan.parameters,
        "macs": result.plan.macs,
        "top1_dense": baseline,
    }


def count_methods(result: tt.CompressionResult) -> dict[str, int]:
    methods = [layer.method for layer in result.plan.layers]
    return {method: methods.count(method) for method in sorted(set(methods))}


def write(rows: list[dict[str, Any]], folder: Path, name: str) -> None:
    """Add rows to the results in a folder, each in the place of an older one of the same kind."""
    every = merged(folder / f"{name}.json", "results", rows, ("network", "budget", "rule"))
    ordered = sorted(every, key=lambda row: list(CASES).index(row["network"]))
    report = {"environment": environment(), "results": ordered}
    write_report(folder, name, report, markdown(ordered, validation=name == "objectives"))


def markdown(rows: list[dict[str, Any]], *, validation: bool = False) -> str:
    machine = environment()
    lines = [
        *(VALIDATION if validation else RESULTS),
        f"seed 0, tuckertree {machine['tuckertree']}, torch {machine['torch']}, {machine['processor']},",
        f"{machine['threads']} threads, a machine shared with others.",
        "",
        "| network (top-1 dense) | budget | rule | parameters | MACs | top-1 | seconds | peak MiB of the process |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['network']} ({row['top1_dense']:.2f}) | {row['budget']} | {row['rule']} "
        f"| {row['parameters'][0] / row['parameters'][1]:.2f}x | {row['macs'][0] / row['macs'][1]:.2f}x "
        f"| {row['top1']:.2f} | {whole(row, 'seconds')} | {whole(row, 'peak_rss_mib')} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def whole(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:.0f}" if key in row else ""


if __name__ == "__main__":
    main()
