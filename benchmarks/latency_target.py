"""Latency as a target: predicted and measured time, and accuracy beside a plan of the same MACs.

ResNet-20 with trained weights, calibrated on 1,024 CIFAR-10 training images without their labels, accuracy on the
whole test set; its plan is then given as a budget of MACs, which knows no times. Torchvision's networks have random
weights: for them the plan alone is made and its structure measured.

    python benchmarks/latency_target.py DATA --output docs/results

DATA holds cifar10/ and models/; without it the packaged network and images are used.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tuckertree as tt
from tuckertree.bench import bench, of_model
from tuckertree.data import batches, open_images
from tuckertree.latency import LatencyTarget, run_as_planned
from tuckertree.measure import environment, evaluate
from tuckertree.models import resolve
from tuckertree.objectives import survey_network
from tuckertree.planning import Options, take_inventory
from tuckertree.progress import progress_bar
from tuckertree.runtimes import contract, get_runtime

IMAGES = 1024
RESNET20 = "cifar10:resnet20"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--networks", nargs="+", default=[RESNET20, "torchvision:resnet50"])
    parser.add_argument("--targets", nargs="+", default=["2x"])
    parser.add_argument("--runtimes", nargs="+", default=["onnxruntime"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="test images; all by default")
    parser.add_argument("--output", type=Path, help="folder for latency_target.json and .md")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in options.networks:
        for runtime in options.runtimes:
            for target in options.targets:
                torch.manual_seed(options.seed)
                rule = tt.Budget(latency=target, runtime=runtime, threads=options.threads)
                found = trained(rule, options) if name == RESNET20 else structure(name, rule)
                for row in found:
                    rows.append({**row, "network": name, "asked": target})
                    print(json.dumps(rows[-1]), flush=True)
                if options.output:
                    write(rows, options)
    print(markdown({"rows": rows, "seed": options.seed, "environment": environment()}))


def trained(rule: tt.Budget, options: argparse.Namespace) -> list[dict[str, Any]]:
    """ResNet-20 at the target, and at the same MACs by a budget that knows no times."""
    demo = options.data is None
    weights = None if demo else options.data / "models" / "cifar10_resnet20.safetensors"
    source = "demo" if demo else options.data / "cifar10"
    known = resolve(RESNET20)
    model = tt.build("demo" if demo else RESNET20, weights=weights)
    calibration = pixels(open_images(source, known.preprocessing, split="train", limit=IMAGES))
    test = list(batches(open_images(source, known.preprocessing, split="test", limit=options.limit), 100))
    example = known.example_inputs()

    started = time.perf_counter()
    result = tt.compress(model, example, rule, calibration=calibration)
    row = row_of(result.plan, time.perf_counter() - started)
    dense, top1 = evaluate(model, test).top1, evaluate(result.model, test).top1
    before, after = result.plan.macs
    other = tt.compress(model, example, tt.Budget(macs=after / before), calibration=calibration)
    runtime = get_runtime(rule.runtime, threads=rule.threads)
    networks = {
        "dense": model,
        "latency": run_as_planned(result.model, result.plan),
        "same MACs": contract(other.model, runtime, example).model,
    }
    subjects = [of_model(label, network, example) for label, network in networks.items()]
    again = [asdict(timed.time_ratio) for timed in bench(subjects, [runtime], repeats=100, memory=False)]
    size = {"parameters": other.plan.parameters, "macs": other.plan.macs}
    return [
        {"rule": "latency", **row, "again": again[1], "top1_dense": dense, "top1": top1},
        {
            "rule": "same MACs",
            **size,
            "runtime": row["runtime"],
            "threads": row["threads"],
            "again": again[2],
            "top1_dense": dense,
            "top1": evaluate(other.model, test).top1,
        },
    ]


def structure(name: str, rule: tt.Budget) -> list[dict[str, Any]]:
    """A plan for a network with random weights, by the errors of its weights."""
    model, example = tt.build(name).eval(), resolve(name).example_inputs()
    options = Options(round_to=None)
    started = time.perf_counter()
    with progress_bar() as tick:
        inventory = take_inventory(model, example)
        target = LatencyTarget.of_model(model, example, rule)
        inventory, timer = target.measure(inventory, options, tick=tick)
        timed = time.perf_counter() - started
        candidates = survey_network(model, inventory, options, timer=timer, tick=tick)
        plan = target.plan(inventory, candidates, options, tick=tick)
    row = row_of(plan, time.perf_counter() - started)
    return [{"rule": "latency", **row, "seconds_timing_layers": timed}]


def row_of(plan: tt.Plan, seconds: float) -> dict[str, Any]:
    assert plan.latency is not None
    return {
        "parameters": plan.parameters,
        "macs": plan.macs,
        **asdict(plan.latency),
        "dense_ms": 1e3 * plan.latency.seconds,
        "seconds": seconds,
        "layers": {layer.name: [layer.method, layer.ranks, layer.form] for layer in plan.compressed},
    }


def pixels(images: Any) -> Tensor:
    return torch.cat([batch for batch, _ in batches(images, 256)])


def write(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Add rows to the results in a folder, each in the place of an older one of the same kind."""
    path = options.output / "latency_target.json"
    found = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    merged = {(r["network"], r["asked"], r["runtime"], r["threads"], r["rule"]): r for r in [*found, *rows]}
    report = {"seed": options.seed, "environment": environment(), "rows": list(merged.values())}
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (options.output / "latency_target.md").write_text(markdown(report), encoding="utf-8")


def markdown(report: dict[str, Any]) -> str:
    machine = report["environment"]
    lines = [
        "# Latency as a target",
        "",
        "Times of layers choose a plan, the whole network is measured, the choice corrected until it keeps the target",
        "(within 2% above and 5% below it, the noise of the measurement). Predicted: from the layers' times alone.",
        "Measured: dense and planned network in turns, median and quartiles of the ratio. Rounds: plans measured.",
        "Again: both finished networks in turns with the dense one. `same MACs`: a budget of the MACs that the plan",
        "above it has, each layer in the form that measures fastest. Top-1 on the CIFAR-10 test set, no fine-tuning;",
        "1,024 unlabelled training images. Torchvision's networks have random weights: only their time means anything.",
        "Seconds: everything but the layers' times that were in the cache. Measured by",
        f"`python benchmarks/latency_target.py DATA --output docs/results`; seed {report['seed']}, tuckertree "
        f"{machine['tuckertree']},",
        f"torch {machine['torch']}, {machine['processor']}, a busy machine shared with others.",
        "",
        "| network | asked | rule | runtime, threads | dense ms | predicted | measured | rounds | again | MACs | parameters "
        "| top-1 (dense) | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [line(row) for row in report["rows"]]) + "\n"


def line(row: dict[str, Any]) -> str:
    timed = "measured" in row
    cells = [
        row["network"],
        row["asked"],
        row["rule"],
        f"{row['runtime']}, {row['threads']}",
        f"{row['dense_ms']:.3g}" if timed else "",
        f"{1 / row['predicted']:.2f}x" if timed else "",
        faster(row["measured"], row["low"], row["high"]) if timed else "",
        str(row["rounds"]) if timed else "",
        faster(**row["again"]) if "again" in row else "",
        f"{row['macs'][0] / row['macs'][1]:.2f}x",
        f"{row['parameters'][0] / row['parameters'][1]:.2f}x",
        f"{row['top1']:.2f} ({row['top1_dense']:.2f})" if "top1" in row else "",
        f"{row['seconds']:.0f}" if timed else "",
    ]
    return f"| {' | '.join(cells)} |"


def faster(median: float, low: float, high: float) -> str:
    return f"{1 / median:.2f}x ({1 / high:.2f}-{1 / low:.2f})"


if __name__ == "__main__":
    main()
