"""Latency as a target: predicted and measured time, and what is lost beside a plan of the same MACs.

ResNet-20 with trained weights, calibrated on 1,024 CIFAR-10 training images without their labels, accuracy on the
whole test set; GoogLeNet, calibrated on every other of 500 photographs and measured on the rest; ONNX models of others
(those of onnx_models.py), compressed as files, and the error of their outputs on other photographs. The MACs of each
plan are then given as a budget, which knows no times. Torchvision's networks have random weights: for them the plan
alone is made and its structure measured.

    python benchmarks/latency_target.py DATA --output docs/results
    python benchmarks/latency_target.py DATA --networks caffe:googlenet .models/ddddocr/common_det.onnx
    python benchmarks/latency_target.py DATA --networks caffe:googlenet --precision fp32,int8 --output docs/results

DATA holds cifar10/, imagenet-like/ and models/; without it the packaged network and images are used.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tuckertree as tt
from onnx_models import CASES, ROUND_TO, agreement, photographs
from tuckertree._base.progress import progress_bar
from tuckertree.compression.objectives import Weight, survey_network
from tuckertree.io.export import FileNetwork
from tuckertree.latency import LatencyTarget
from tuckertree.measure import environment, evaluate
from tuckertree.network.onnx import read_onnx
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.inputs import as_feed
from tuckertree.onnx_models import compress_onnx
from tuckertree.planning import Options, take_inventory
from tuckertree.runtimes import Runtime, contract, get_runtime
from tuckertree.tools.bench import Subject, bench, of_model, open_subject
from tuckertree.tools.data import batches, open_images
from tuckertree.tools.models import resolve

IMAGES = 1024
RESNET20 = "cifar10:resnet20"
PHOTOGRAPHS = "imagenet-like"


@dataclass(frozen=True)
class Trained:
    """A network with trained weights, and the images it is for."""

    weights: str
    images: str


TRAINED = {
    RESNET20: Trained("cifar10_resnet20", "cifar10"),
    "caffe:googlenet": Trained("imagenet_googlenet_bvlc", PHOTOGRAPHS),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--networks", nargs="+", default=[RESNET20, "torchvision:resnet50"])
    parser.add_argument("--targets", nargs="+", default=["2x"])
    parser.add_argument("--runtimes", nargs="+", default=["onnxruntime"])
    parser.add_argument("--precision", default="fp32", help="those allowed, such as fp32,int8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="test images; all by default")
    parser.add_argument("--output", type=Path, help="folder for latency_target.json and .md")
    options = parser.parse_args()
    for name in options.networks:
        if options.data is None and (name.endswith(".onnx") or name in {*TRAINED} - {RESNET20}):
            parser.error(f"{name} needs DATA")
    rows: list[dict[str, Any]] = []
    for name in options.networks:
        for runtime in options.runtimes:
            for target in options.targets:
                torch.manual_seed(options.seed)
                rule = tt.Budget(
                    latency=target, runtime=runtime, threads=options.threads, precision=options.precision
                )
                for row in measured_or_refused(name, rule, options):
                    rows.append({"network": name, "asked": target, **row})
                    print(json.dumps(rows[-1]), flush=True)
                if options.output:
                    write(rows, options)
    print(markdown({"rows": rows, "seed": options.seed, "environment": environment()}))


def measured_or_refused(name: str, rule: tt.Budget, options: argparse.Namespace) -> list[dict[str, Any]]:
    """As :func:`measure`; one row that says so where no plan keeps the target."""
    try:
        return measure(name, rule, options)
    except tt.UnreachableTargetError as refusal:
        runtime = get_runtime(rule.runtime, threads=rule.threads)
        return [
            {
                "rule": "latency",
                "runtime": f"{runtime.name} {runtime.version}",
                "threads": runtime.threads,
                "refused": str(refusal),
            }
        ]


def measure(name: str, rule: tt.Budget, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of one network: at the target and, where it is trained, at the same MACs."""
    if name.endswith(".onnx"):
        return of_file(Path(name), rule, options)
    return trained(name, rule, options) if name in TRAINED else structure(name, rule)


def trained(name: str, rule: tt.Budget, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A trained network at the target, and at the same MACs by a budget that knows no times."""
    demo = options.data is None
    weights = None if demo else options.data / "models" / f"{TRAINED[name].weights}.safetensors"
    model = tt.build("demo" if demo else name, weights=weights).eval()
    calibration, test = images_of(name, options)
    example = resolve(name).example_inputs()

    started = time.perf_counter()
    result = tt.compress(model, example, rule, calibration=calibration)
    row = row_of(result.plan, time.perf_counter() - started)
    dense = evaluate(model, test).top1
    if result.int8 is not None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "int8.onnx"
            file.write_bytes(result.int8.content)
            subjects = [of_model("dense", model, example), open_subject(file)]
            again = in_turns(subjects, get_runtime(rule.runtime, threads=rule.threads))
            top1 = evaluate(FileNetwork(file), test).top1
        return [{**row, "rule": "latency, in int8", "again": again[1], "top1_dense": dense, "top1": top1}]
    top1 = evaluate(result.model, test).top1
    other = tt.compress(model, example, tt.Budget(macs=share(result.plan)), calibration=calibration)
    runtime = get_runtime(rule.runtime, threads=rule.threads)
    networks = {
        "dense": model,
        "latency": result.fused(),
        "same MACs": contract(other.model, runtime, example).model,
    }
    again = in_turns([of_model(label, network, example) for label, network in networks.items()], runtime)
    return [
        {**row, "again": again[1], "top1_dense": dense, "top1": top1},
        {
            **same_macs(other.plan, row),
            "again": again[2],
            "top1_dense": dense,
            "top1": evaluate(other.model, test).top1,
        },
    ]


def images_of(name: str, options: argparse.Namespace) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Images to calibrate with, and labelled batches that they are not in."""
    preprocessing = resolve(name).preprocessing
    source = "demo" if options.data is None else options.data / TRAINED[name].images
    if TRAINED[name].images == PHOTOGRAPHS:
        every = list(batches(open_images(source, preprocessing), 50))
        x, y = (torch.cat(parts) for parts in zip(*every, strict=True))
        return x[::2], list(zip(x[1::2].split(50), y[1::2].split(50), strict=True))
    seen = open_images(source, preprocessing, split="train", limit=IMAGES)
    unseen = open_images(source, preprocessing, split="test", limit=options.limit)
    return pixels(seen), list(batches(unseen, 100))


def of_file(path: Path, rule: tt.Budget, options: argparse.Namespace) -> list[dict[str, Any]]:
    """An ONNX file at the target, and at the same MACs by a budget that knows no times."""
    known = {name: case for name, case in CASES.items() if path.match(case.path)}
    if not known:
        raise tt.UsageError(f"{path} is none of the models of onnx_models.py")
    ((name, case),) = known.items()
    graph = Graph(read_onnx(path).proto)
    seen, unseen = photographs(case, graph, options.data / PHOTOGRAPHS)
    feeds = [as_feed(image[None], graph) for image in unseen]
    calibration = seen if case.images else None
    with tempfile.TemporaryDirectory() as folder:
        fast, small = Path(folder) / "fast.onnx", Path(folder) / "small.onnx"
        started = time.perf_counter()
        result = compress_onnx(path, fast, rule, input_size=case.size, calibration=calibration)
        row = row_of(result.plan, time.perf_counter() - started)
        budget = tt.Budget(macs=share(result.plan))
        other = compress_onnx(
            path, small, budget, input_size=case.size, calibration=calibration, round_to=ROUND_TO
        )
        subjects = [open_subject(file, input_size=case.size) for file in (path, fast, small)]
        again = in_turns(subjects, get_runtime(rule.runtime, threads=rule.threads))
        found = [agreement(path, file, feeds, classifies=case.classifies) for file in (fast, small)]
    return [
        {"network": name, **row, "again": again[1], **found[0]},
        {"network": name, **same_macs(other.plan, row), "again": again[2], **found[1]},
    ]


def share(plan: tt.Plan) -> float:
    before, after = plan.macs
    return after / before


def in_turns(subjects: list[Subject], runtime: Runtime) -> list[dict[str, float]]:
    """Time of each network over that of the first."""
    return [asdict(timed.time_ratio) for timed in bench(subjects, [runtime], repeats=100, memory=False)]


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
        candidates, _ = survey_network(model, inventory, options, Weight(), timer=timer, tick=tick)
        plan = target.plan(inventory, candidates, options, tick=tick)
    row = row_of(plan, time.perf_counter() - started)
    return [{**row, "seconds_timing_layers": timed}]


def row_of(plan: tt.Plan, seconds: float) -> dict[str, Any]:
    assert plan.latency is not None
    return {
        "rule": "latency",
        "parameters": plan.parameters,
        "macs": plan.macs,
        **asdict(plan.latency),
        "dense_ms": 1e3 * plan.latency.seconds,
        "seconds": seconds,
        "layers": {layer.name: [layer.method, layer.ranks, layer.form] for layer in plan.compressed},
    }


def same_macs(plan: tt.Plan, row: dict[str, Any]) -> dict[str, Any]:
    """What there is to say of the other plan, beside the row of the first."""
    size = {"parameters": plan.parameters, "macs": plan.macs}
    return {"rule": "same MACs", **size, "runtime": row["runtime"], "threads": row["threads"]}


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
        "Measured: dense and planned network in turns, median and range of the ratio. Rounds: plans measured.",
        "Again: both finished networks in turns with the dense one. `same MACs`: a budget of the MACs that the plan",
        "above it has, each layer in the form that measures fastest; in an ONNX file as it is written. No fine-tuning.",
        "Top-1: ResNet-20 on the CIFAR-10 test set, 1,024 unlabelled training images; GoogLeNet on every other of 500",
        "photographs, the rest unlabelled. Output error: ||y' - y|| / ||y|| on 32 photographs that took no part.",
        "Torchvision's networks have random weights: only their time means anything. `in int8`: 8 bits were allowed too",
        "(`--precision fp32,int8`), and nearest to the original; times against dense fp32.",
        "Seconds: everything but the layers' times that were in the cache. Measured by",
        f"`python benchmarks/latency_target.py DATA --output docs/results`; seed {report['seed']}, tuckertree "
        f"{machine['tuckertree']},",
        f"torch {machine['torch']}, {machine['processor']}, a busy machine shared with others.",
        "",
        "| network | asked | rule | runtime, threads | dense ms | predicted | measured | rounds | again | MACs | parameters "
        "| top-1 (dense) | output error | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [line(row) for row in report["rows"]]) + "\n"


def line(row: dict[str, Any]) -> str:
    if "refused" in row:
        where = f"{row['runtime']}, {row['threads']}"
        return (
            f"| {row['network']} | {row['asked']} | {row['rule']} | {where} | refused: {row['refused']} |"
            + " |" * 9
        )
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
        f"{row['output_error']:.3f}" if "output_error" in row else "",
        f"{row['seconds']:.0f}" if timed else "",
    ]
    return f"| {' | '.join(cells)} |"


def faster(median: float, low: float, high: float) -> str:
    return f"{1 / median:.2f}x ({1 / high:.2f}-{1 / low:.2f})"


if __name__ == "__main__":
    main()
