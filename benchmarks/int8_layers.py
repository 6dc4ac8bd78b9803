"""Layers that stay in fp32 when a network goes to 8 bits: how many, what is left of the outputs and the score, and the time.

YOLOX-nano of 416 x 416 on images of COCO, and EfficientNet-Lite0 on photographs: every file at several tolerances.

    python benchmarks/int8_layers.py --detector yolox_nano.onnx COCO
    python benchmarks/int8_layers.py --network EfficientNet-Lite0 DATA ZOO

COCO, DATA and ZOO are the folders of `benchmarks/detection.py` and `benchmarks/tuning.py`. The detector is converted to opset 13 first.
Average precision is computed here, in 101 steps of recall over IoU .5 to .95, crowds left out. Files run in turns, least times.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import tuckertree as tt
from detection import chosen, decoded, letterboxed
from trained import open_network
from tuckertree.io.export import FileNetwork
from tuckertree.io.export.quantization import parted, quantize
from tuckertree.measure import time_in_turns
from tuckertree.runtimes import get_runtime

Score = Callable[[Path], str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--detector", type=Path)
    parser.add_argument("--network")
    parser.add_argument("--tolerances", nargs="+", type=float, default=[inf, 0.1, 0.05])
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        exact = Path(folder) / "fp32.onnx"
        if options.detector:
            ranges, example, score = detector(options.detector, options.folders[0], exact)
        else:
            ranges, example, score = network(options.network, options.folders, exact)
        print("| file | layers in fp32 | distance | score | faster |\n|---|---|---|---|---|")
        files, said = [exact], ["fp32 | | |"]
        for tolerance in options.tolerances:
            files.append(Path(folder) / f"{tolerance}.onnx")
            files[-1].write_bytes(exact.read_bytes())
            fitted, held = parted([[x] for x in ranges])
            found = quantize(files[-1], fitted, held, tolerance=tolerance)
            name = "all in 8 bits" if tolerance == inf else f"tolerance {tolerance:g}"
            said.append(f"{name} | {len(found.fp32)} of {len(found.layers)} | {found.distance:.3f} |")
        runtime = get_runtime("onnxruntime", threads=1)
        runs = [runtime.open(file).bind([example]) for file in files]
        with runtime.active():
            seconds = [min(times) for times in time_in_turns(runs, repeats=options.rounds)]
        for line, file, each in zip(said, files, seconds, strict=True):
            print(f"| {line} {score(file)} | {seconds[0] / each:.2f}x |", flush=True)


def network(name: str, folders: Sequence[Path], exact: Path) -> tuple[list[Tensor], Tensor, Score]:
    """Batches to quantize by, an input, and the score of a file on images that took no part."""
    trained = open_network(name, folders, None)
    tt.export(trained.model, exact, trained.example)
    fold = trained.folds[0]

    def score(file: Path) -> str:
        return f"{next(iter(fold.score(FileNetwork(file)).values())):.1f}"

    return list(fold.calibration[:256].split(32)), trained.example, score


def detector(model: Path, coco: Path, exact: Path) -> tuple[list[Tensor], Tensor, Score]:
    """The same of YOLOX-nano, quantized by every other image."""
    import onnx
    from onnx import version_converter

    onnx.save(version_converter.convert_version(onnx.load(model), 13), exact)
    truth = json.loads((coco / "instances.json").read_text(encoding="utf-8"))
    images = sorted(truth["images"], key=lambda image: int(image["id"]))
    batches = [torch.from_numpy(letterboxed(coco / image["file_name"])[0][None]) for image in images[::2]]
    return batches, batches[0], lambda file: average_precision(file, coco, truth, images[1::2])


def average_precision(file: Path, coco: Path, truth: dict[str, Any], images: Sequence[dict[str, Any]]) -> str:
    """AP over all thresholds, and at 0.5, in percent."""
    categories = sorted(each["id"] for each in truth["categories"])
    runnable, numbers = get_runtime("onnxruntime", threads=1).open(file), {image["id"] for image in images}
    found: dict[int, list[tuple[float, int, Any]]] = {}
    boxes: dict[int, list[tuple[int, Any]]] = {}
    for image in images:
        x, scale = letterboxed(coco / image["file_name"])
        places, scores = decoded(runnable.run([torch.from_numpy(x[None])])[0].numpy()[0])
        for place, kind in chosen(places, scores):
            each = (float(scores[place, kind]), image["id"], places[place] / scale)
            found.setdefault(categories[kind], []).append(each)
    for each in truth["annotations"]:
        if each["image_id"] in numbers and not each.get("iscrowd"):
            left, top, width, height = each["bbox"]
            box = np.array([left, top, left + width, top + height])
            boxes.setdefault(each["category_id"], []).append((each["image_id"], box))
    precisions = [
        np.mean([of_class(found.get(kind, []), boxes[kind], least) for kind in boxes])
        for least in np.arange(0.5, 1, 0.05)
    ]
    return f"AP {100 * np.mean(precisions):.1f}, AP50 {100 * precisions[0]:.1f}"


def of_class(
    found: Sequence[tuple[float, int, Any]], boxes: Sequence[tuple[int, Any]], least: float
) -> float:
    used, right = set[int](), list[int]()
    for _, image, box in sorted(found, key=lambda each: -each[0]):
        free = ((overlap(box, b), n) for n, (i, b) in enumerate(boxes) if i == image and n not in used)
        best, number = max(free, default=(0.0, -1))
        right.append(int(best >= least))
        used |= {number} if best >= least else set()
    if not right:
        return 0.0
    hits = np.cumsum(right)
    recall, precision = hits / len(boxes), hits / np.arange(1, len(hits) + 1)
    steps = np.linspace(0, 1, 101)
    return float(np.mean([precision[recall >= step].max(initial=0) for step in steps]))


def overlap(a: Any, b: Any) -> float:
    """Intersection over union."""
    both = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(both / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - both))


if __name__ == "__main__":
    main()
