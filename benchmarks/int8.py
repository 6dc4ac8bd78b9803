"""8 bits and compression, alone and together: file size, time in ONNX Runtime, accuracy and agreement.

Trained networks, compressed to half of their MACs with unlabelled CIFAR-10 training images, exported and quantized as
`tuckertree export --quantize int8` does; accuracy on the whole test set. The four files run in turns.

    python benchmarks/int8.py DATA --output docs/results
    python benchmarks/int8.py DATA --networks ResNet-20 --macs 3.8x --validation --output docs/results

DATA holds cifar10/ and models/; without it the packaged network and images are used.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import tuckertree as tt
from merging import merged, write_report
from tuckertree._base.progress import progress_bar
from tuckertree.calibration.balancing import rebalance
from tuckertree.io.export import FileNetwork, export
from tuckertree.measure import environment
from tuckertree.runtimes import get_runtime
from tuckertree.tools.bench import bench, open_subject
from tuckertree.tools.data import Preprocessing, batches, open_images
from tuckertree.tools.models import resolve

RANGES = 256
"""Images that the ranges of activations are measured on: the default of the command line."""
UNSEEN = 4096
BATCH = 64
Batches = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Case:
    """A network, its weights, and the images its compression is calibrated with."""

    architecture: str
    weights: str
    images: int


CASES = {
    "ResNet-20": Case("cifar10:resnet20", "cifar10_resnet20", 1024),
    "VGG-19-BN": Case("cifar10:vgg19_bn", "own_cifar10_vgg19_bn_fp16", 256),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--networks", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--macs", default="0.5", help="budget of MACs, a share or a factor such as 2x")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="images to measure accuracy on; all by default")
    parser.add_argument(
        "--validation",
        action="store_true",
        help=f"{UNSEEN} other training images instead of the test set, and factors of equal norms too",
    )
    parser.add_argument("--output", type=Path, help="folder for int8.json and int8.md")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    if options.data is None:
        if options.validation:
            parser.error("--validation needs DATA: the packaged training images all calibrate")
        options.networks = ["ResNet-20"]
    results = []
    for name in options.networks:
        results.append(measure(name, options))
        print(json.dumps(results[-1]), flush=True)
        if options.output:
            write(results, options)
    print(markdown(report_of(results, options)))


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Every file of one network; timed in turns, unless on training images."""
    case, demo = CASES[name], options.data is None
    known = resolve(case.architecture)
    weights = None if demo else options.data / "models" / f"{case.weights}.safetensors"
    model = tt.build("demo" if demo else case.architecture, weights=weights)
    images, labelled = images_of(case, known.preprocessing, options)
    example = known.example_inputs()
    result = tt.compress(model, example, tt.Budget(macs=options.macs), calibration=images)
    networks: dict[str, tuple[nn.Module, bool]] = {
        "fp32": (model, False),
        "fp32, compressed": (result.model, False),
        "int8": (model, True),
        "int8, compressed": (result.model, True),
    }
    if options.validation:
        networks["int8, compressed, equal norms"] = (rebalance(result.model), True)
    labels, original = torch.cat([y for _, y in labelled]), answers(model, labelled)
    rows: list[dict[str, Any]] = []
    runtime = get_runtime("onnxruntime", threads=options.threads)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.onnx" for number in range(len(networks))]
        for (form, (network, quantized)), file in zip(networks.items(), files, strict=True):
            ranges = images[:RANGES].split(32) if quantized else None
            written = export(network, file, example, calibration=ranges)
            found = answers(FileNetwork(file, runtime), labelled)
            rows.append(
                {
                    "form": form,
                    "bytes": written.size,
                    "top1": percent_equal(found, labels),
                    "same": percent_equal(found, original),
                }
            )
        if not options.validation:
            with progress_bar() as tick:
                subjects = [open_subject(file) for file in files]
                timed = bench(subjects, [runtime], repeats=options.rounds, memory=False, tick=tick)
            for row, time in zip(rows, timed, strict=True):
                row["ms"] = 1e3 * time.seconds.median
                row["ms_quartiles"] = [1e3 * time.seconds.low, 1e3 * time.seconds.high]
                row["faster"] = 1 / time.time_ratio.median
                row["faster_quartiles"] = [1 / time.time_ratio.high, 1 / time.time_ratio.low]
    return {
        "network": name,
        "macs_asked": options.macs,
        "parameters": result.plan.parameters,
        "macs": result.plan.macs,
        "calibration": len(images),
        "images": sum(len(x) for x, _ in labelled),
        "rows": rows,
    }


@torch.no_grad()
def answers(network: nn.Module, images: Batches) -> Tensor:
    return torch.cat([network(x).argmax(1) for x, _ in images])


def percent_equal(some: Tensor, others: Tensor) -> float:
    return 100 * float((some == others).double().mean())


def images_of(
    case: Case, preprocessing: Preprocessing, options: argparse.Namespace
) -> tuple[Tensor, Batches]:
    """Unlabelled images to calibrate with, and the labelled ones that take no part in it."""
    source = "demo" if options.data is None else options.data / "cifar10"
    extra = UNSEEN if options.validation else 0
    train = list(batches(open_images(source, preprocessing, split="train", limit=case.images + extra), BATCH))
    unlabelled = torch.cat([x for x, _ in train[: case.images // BATCH]])
    if options.validation:
        return unlabelled, train[case.images // BATCH :]
    return unlabelled, list(
        batches(open_images(source, preprocessing, split="test", limit=options.limit), BATCH)
    )


def write(results: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Add results to those in the folder, each in the place of an older one of its network."""
    name = "int8_validation" if options.validation else "int8"
    every = merged(options.output / f"{name}.json", "results", results, ("network", "macs_asked"))
    report = report_of(every, options)
    write_report(options.output, name, report, markdown(report))


def report_of(results: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    versions = {package: version(package) for package in ("onnx", "onnxruntime")}
    return {
        "seed": options.seed,
        "validation": options.validation,
        "rounds": options.rounds,
        "environment": {**environment(), **versions},
        "results": results,
    }


RESULTS = (
    "# 8 bits and compression, alone and together",
    "",
    "Trained networks for CIFAR-10; compressed: a budget of MACs, factors fitted to unlabelled training images, no",
    "fine-tuning; int8: quantized as `tuckertree export --quantize int8` does, ranges by 256 training images. Top-1 and",
    "same (how often the answer is that of fp32) on test images, in ONNX Runtime. Files are whole ONNX files: the",
    "graph of a small network in 8 bits is a good part of its bytes. On x86 without VNNI instructions int8 may lose more.",
)
VALIDATION = (
    "# 8 bits and compression on training images",
    "",
    "As [the results](int8.md), but measured on 4,096 training images that took no part in the calibration, and with",
    "factors of equal norms (the same function) before quantization. These gain at one budget less than they lose at",
    "another, so they are not used. The networks know these images by heart: only the drops mean anything.",
)
TIMES = ("ms", "faster")
COLUMNS = ("network", "MACs, parameters less", "file", "KiB", "smaller", "ms", "faster", "top-1", "same")


def markdown(report: dict[str, Any]) -> str:
    machine = report["environment"]
    option = " --validation --macs 0.5 (or 3.8x)" if report["validation"] else ""
    columns = [name for name in COLUMNS if not (report["validation"] and name in TIMES)]
    lines = [
        *(VALIDATION if report["validation"] else RESULTS),
        *times_of(report),
        f"Measured by `python benchmarks/int8.py DATA{option} --output docs/results`;",
        f"seed {report['seed']}, tuckertree {machine['tuckertree']}, torch {machine['torch']}, ONNX Runtime "
        f"{machine['onnxruntime']}, {machine['processor']},",
        "shared with others: read the ratios.",
        "",
        f"| {' | '.join(columns)} |",
        "|" + "---|" * len(columns),
        *(line(result, row) for result in report["results"] for row in result["rows"]),
        "",
        *(
            f"- {result['network']}, MACs {result['macs_asked']}: calibrated with {result['calibration']} images, measured on "
            f"{result['images']}."
            for result in report["results"]
        ),
    ]
    return "\n".join(lines) + "\n"


def line(result: dict[str, Any], row: dict[str, Any]) -> str:
    dense = result["rows"][0]
    less = ", ".join(f"{before / after:.2f}x" for before, after in (result["macs"], result["parameters"]))
    cells = [
        result["network"],
        less if "compressed" in row["form"] else "",
        row["form"],
        f"{row['bytes'] / 1024:.0f}",
        f"{dense['bytes'] / row['bytes']:.2f}x",
        *([f"{row['ms']:.3g}", faster(row)] if "ms" in row else []),
        f"{row['top1']:.2f}",
        f"{row['same']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def faster(row: dict[str, Any]) -> str:
    return f"{row['faster']:.2f}x ({'-'.join(f'{value:.2f}' for value in row['faster_quartiles'])})"


def times_of(report: dict[str, Any]) -> list[str]:
    if report["validation"]:
        return []
    return [
        f"Times: batch 1, {report['environment']['threads']} threads, medians of {report['rounds']} rounds in turns; faster: "
        "least in groups",
        "of five, in brackets the quartiles.",
    ]


if __name__ == "__main__":
    main()
