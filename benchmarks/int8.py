"""8 bits and compression, alone and together: size, time in ONNX Runtime, score, and how far the outputs move.

    python benchmarks/int8.py DATA ZOO --output docs/results                     # hours with everything
    python benchmarks/int8.py DATA --rows ResNet-20:params=2.5 --output docs/results

DATA and ZOO are the folders of `benchmarks/tuning.py`; without them the packaged network and images are used. Each network is
written as four files and quantized as `tuckertree export --quantize int8` does; the compressed one once more with its factors as
they were fitted. Files of the first fold run in turns: time on a quiet machine.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

import tuckertree as tt
from merging import Row, merged, write_report
from trained import Fold, network_and_budget, open_network, rule_of, title_of
from tuckertree._base.progress import progress_bar
from tuckertree.io.export import FileNetwork, export
from tuckertree.io.export.quantization import quantize
from tuckertree.measure import environment
from tuckertree.runtimes import get_runtime
from tuckertree.tools.bench import bench, open_subject

RANGES, BATCH, COMPARED = 256, 32, 256
"""Images that the ranges of activations are measured on, as the command line does, and that outputs are compared on."""
ROWS = (
    "ResNet-20:params=2.5",
    "ResNet-56:params=2.5",
    "VGG-19-BN:params=15",
    "GoogLeNet:macs=1.6",
    "EfficientNet-Lite0:macs=1.25",
)
FORMS = ("fp32", "fp32, compressed", "int8", "int8, compressed", "int8, compressed, as fitted")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="*")
    parser.add_argument("--rows", nargs="+", type=network_and_budget, metavar="NETWORK:BUDGET")
    parser.add_argument("--threads", type=int, default=2, help="of the timed runs")
    parser.add_argument("--rounds", type=int, default=100, help="0: nothing is timed")
    parser.add_argument("--limit", type=int, help="images of CIFAR-10 to measure accuracy on; all by default")
    parser.add_argument("--output", type=Path, help="folder for int8.json and int8.md")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", tt.calibration.CalibrationWarning)
    asked = options.rows or list(map(network_and_budget, ROWS if options.data else ROWS[:1]))
    rows: list[Row] = []
    for name, factors in asked:
        row = {"network": name, "budget": title_of(factors), "threads": options.threads}
        rows.append(row | measured(name, rule_of(factors), options))
        if options.output:
            every = merged(options.output / "int8.json", "rows", rows, ("network", "budget"))
            known = {**environment(), "onnxruntime": version("onnxruntime")}
            report = {"environment": known, "rounds": options.rounds, "rows": every}
            write_report(options.output, "int8", report, markdown(every))
    print(markdown(rows))


def measured(name: str, rule: tt.Budget, options: argparse.Namespace) -> Row:
    """Scores and distances of every file over the folds; sizes and times of those of the first."""
    trained = open_network(name, options.data, options.limit)
    scored: dict[str, list[nn.Module]] = {form: [] for form in FORMS}
    distances: dict[str, list[float]] = {form: [] for form in FORMS}
    found: Row = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, fold in enumerate(trained.folds):
            result = tt.compress(
                trained.model, trained.example, rule, calibration=fold.calibration, progress=False
            )
            files = written(trained.model, result.model, trained.example, fold, Path(folder) / str(number))
            for form, file in files.items():
                exact = result.model if "compressed" in form else trained.model
                scored[form].append(FileNetwork(file))
                distances[form].append(distance(scored[form][-1], exact, fold))
            if not number:
                found = {"macs": result.plan.macs, "parameters": result.plan.parameters}
                sizes = {form: file.stat().st_size for form, file in files.items()}
                times = timed(list(files.values()), options) if options.rounds else []
        scores = {form: trained.score(networks) for form, networks in scored.items()}
    found["forms"] = {
        form: {
            "bytes": sizes[form],
            "score": next(iter(scores[form].values())),
            "distance": sum(distances[form]) / len(distances[form]),
            **(times[number] if number < len(times) else {}),
        }
        for number, form in enumerate(FORMS)
    }
    print(name, found, flush=True)
    return found


def written(
    model: nn.Module, compressed: nn.Module, example: Tensor, fold: Fold, folder: Path
) -> dict[str, Path]:
    """The files of all forms."""
    folder.mkdir()
    files = {form: folder / f"{number}.onnx" for number, form in enumerate(FORMS)}
    ranges = list(fold.calibration[:RANGES].split(BATCH))
    for form, file in files.items():
        network = compressed if "compressed" in form else model
        as_exported = form.startswith("int8") and "as fitted" not in form
        export(network, file, example, calibration=ranges if as_exported else None, tolerance=float("inf"))
        if "as fitted" in form:
            quantize(file, ranges)
    return files


@torch.no_grad()
def distance(file: nn.Module, exact: nn.Module, fold: Fold) -> float:
    """Of the outputs of a file from its network's in fp32, on images that took no part."""
    images = torch.cat([x for x, _ in fold.others])[:COMPARED].split(BATCH)
    ours, theirs = (torch.cat([network(x) for x in images]) for network in (file, exact))
    return float((ours - theirs).norm() / theirs.norm())


def timed(files: list[Path], options: argparse.Namespace) -> list[Row]:
    """Files in turns: milliseconds, and how much faster than the first, median and quartiles."""
    runtime = get_runtime("onnxruntime", threads=options.threads)
    with progress_bar() as tick:
        subjects = [open_subject(file) for file in files]
        found = bench(subjects, [runtime], repeats=options.rounds, memory=False, tick=tick)
    ratios = [each.time_ratio for each in found]
    return [
        {
            "ms": 1e3 * each.seconds.median,
            "faster": [1 / share for share in (ratio.high, ratio.median, ratio.low)],
        }
        for each, ratio in zip(found, ratios, strict=True)
    ]


def markdown(rows: list[Row]) -> str:
    """The page."""
    known = environment()
    lines = [
        "# 8 bits and compression, alone and together",
        "",
        "Compressed: factors fitted to unlabelled images, no tuning, no fine-tuning. int8: quantized as `tuckertree export --quantize",
        "int8` does, ranges by 256 of the calibration images, chains with factors that 8 bits suit; *as fitted*: with those they",
        "had. Top-1 on the whole test set of CIFAR-10, or on the other half of the 500 photographs (two folds), in ONNX Runtime; lost",
        "to int8: points below the same network in fp32. Moved: ||y' - y|| / ||y|| of the outputs, against the same network in fp32,",
        "on 256 images that took no part. Files are whole ONNX files: the graph of a small network in 8 bits is a good part of",
        "its bytes. Times: batch 1, medians in turns; faster: than dense fp32, least in groups of five, in brackets the quartiles.",
        "On x86 without VNNI instructions int8 gains less and loses more. Measured by",
        "",
        "    python benchmarks/int8.py DATA ZOO --output docs/results",
        "",
        f"tuckertree {known['tuckertree']}, torch {known['torch']}, ONNX Runtime {version('onnxruntime')}, "
        f"{known['processor']}, shared with others: read the ratios; seed 0.",
        "",
        "| network | MACs, parameters less | file | KiB | smaller | ms | threads | faster | top-1 | lost to int8 | moved |",
        "|---|---|---|---:|---:|---:|---:|---|---:|---:|---:|",
    ]
    return "\n".join([*lines, *(line(row, form) for row in rows for form in row["forms"])]) + "\n"


def line(row: Row, form: str) -> str:
    forms, this = row["forms"], row["forms"][form]
    less = ", ".join(f"{before / after:.2f}x" for before, after in (row["macs"], row["parameters"]))
    exact = forms["fp32, compressed" if "compressed" in form else "fp32"]
    low, middle, high = this.get("faster", [0, 0, 0])
    cells = [
        row["network"],
        less if "compressed" in form else "",
        form,
        f"{this['bytes'] / 1024:.0f}",
        f"{forms['fp32']['bytes'] / this['bytes']:.2f}x",
        f"{this['ms']:.3g}" if "ms" in this else "",
        str(row["threads"]) if "ms" in this else "",
        f"{middle:.2f}x ({low:.2f}-{high:.2f})" if "ms" in this else "",
        f"{this['score']:.2f}",
        f"{exact['score'] - this['score']:+.2f}" if "int8" in form else "",
        f"{this['distance']:.3f}" if "int8" in form else "",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
