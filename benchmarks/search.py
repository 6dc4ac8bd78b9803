"""Time of a cold search for a target of latency: layers timed, plans chosen and measured, with an empty cache.

Without images: by the errors of the weights. Torchvision's networks have random weights, and GoogLeNet too without
`--weights`: only times mean anything there. On a busy machine everything takes longer; processor seconds less so.

    python benchmarks/search.py --output docs/results
    python benchmarks/search.py caffe:googlenet yolox_nano.onnx --weights googlenet.safetensors --output docs/results
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import tuckertree as tt
from tuckertree._base.progress import progress_bar
from tuckertree.compression.choosing import Choosing
from tuckertree.compression.network import Network
from tuckertree.compression.networks import OnnxNetwork, TorchNetwork
from tuckertree.measure import environment
from tuckertree.tools.models import resolve

NETWORKS = ("torchvision:resnet18", "caffe:googlenet", "torchvision:resnet50")
PHASES = ("inventory", "probe", "times", "plan")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", default=NETWORKS, help="names of models, or ONNX files")
    parser.add_argument("--latency", default="2x")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weights", type=Path, help="weights of caffe:googlenet")
    parser.add_argument("--output", type=Path, help="folder for search.json and .md")
    options = parser.parse_args()
    rule = tt.Budget(
        latency=options.latency, runtime=options.runtime, threads=options.threads, best_effort=True
    )
    results = []
    for name in options.networks:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TUCKERTREE_CACHE"] = folder
            results.append(search(name, rule, options.weights, Path(folder)))
        print(json.dumps(results[-1]), flush=True)
    report = {"asked": options.latency, "environment": environment(), "results": results}
    text = markdown(report)
    print(text)
    if options.output:
        data = json.dumps(report, indent=1) + "\n"
        (options.output / "search.json").write_text(data, encoding="utf-8")
        (options.output / "search.md").write_text(text, encoding="utf-8")


def search(name: str, rule: tt.Budget, weights: Path | None, cache: Path) -> dict[str, Any]:
    """One search: seconds of its phases, candidates that were timed, and the plan's times."""
    torch.manual_seed(0)
    network = opened(name, weights)
    clock, processor = time.perf_counter(), time.process_time()
    row: dict[str, Any] = {"network": Path(name).name, "runtime": rule.runtime, "threads": rule.threads}
    with network.opened(None), progress_bar() as tick:
        choosing = Choosing.of(network, None, rule)
        try:
            plan = choosing.planned(tick)[0].plan
            assert plan.latency is not None
            assert plan.optimality is not None
            found = plan.latency
            row |= {key: getattr(found, key) for key in ("predicted", "measured", "low", "high", "rounds")}
            row |= {"loss": plan.optimality.loss, "macs": plan.macs, "dense_ms": 1e3 * found.seconds}
        except tt.UnreachableTargetError as refusal:
            row["refused"] = str(refusal)
    row |= {"seconds": time.perf_counter() - clock, "processor_seconds": time.process_time() - processor}
    row["phases"] = dict(choosing.stopwatch.seconds)
    entries = json.loads((cache / "latency.json").read_text(encoding="utf-8"))["entries"]
    return {**row, "timed": len(entries)}


def opened(name: str, weights: Path | None) -> Network:
    if name.endswith(".onnx"):
        return OnnxNetwork(name)
    model = tt.build(name, weights=weights if name == "caffe:googlenet" else None).eval()
    return TorchNetwork(model, resolve(name).example_inputs())


def markdown(report: dict[str, Any]) -> str:
    where = report["environment"]
    lines = [
        "# Time of a cold search for a target of latency\n",
        f"Asked: {report['asked']} of the dense network's speed, with an empty cache of times and without images. Timed: "
        "dense layers and their variants.",
        "Predicted: from the layers' times alone. Rounds: plans whose networks were measured. Seconds on the clock, in "
        "brackets of the processor.",
        f"Measured by `python benchmarks/search.py --output docs/results` with tuckertree {where['tuckertree']}, torch "
        f"{where['torch']}, {where['processor']}.\n",
        "| network | runtime, threads | dense ms | timed | layers s | predicted | measured | rounds | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [line(row) for row in report["results"]]) + "\n"


def line(row: dict[str, Any]) -> str:
    met = "measured" in row
    cells = [
        row["network"],
        f"{row['runtime']}, {row['threads']}",
        f"{row['dense_ms']:.3g}" if met else "",
        str(row["timed"]),
        f"{row['phases'].get('times', 0):.0f}",
        f"{1 / row['predicted']:.2f}x" if met else "",
        f"{1 / row['measured']:.2f}x ({1 / row['high']:.2f}-{1 / row['low']:.2f})"
        if met
        else f"refused: {row['refused']}",
        str(row["rounds"]) if met else "",
        f"{row['seconds']:.0f} ({row['processor_seconds']:.0f})",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
