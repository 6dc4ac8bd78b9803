"""Our default and other methods at equal MACs: `tuckertree compare` on trained networks with scores of their own.

    python benchmarks/comparison.py --data DATA ZOO --output docs/results                       # many hours
    python benchmarks/comparison.py VDSR --methods default,svd --budgets 2.5x --data DATA ZOO --output docs/results
    python scripts/comparison_page.py

DATA holds cifar10/, imagenet-like/ and models/, ZOO set5/, coco/, yolox_nano.onnx, vdsr.safetensors and
tf_efficientnet_lite0_fp16.safetensors; YOLOX-nano needs pycocotools. GoogLeNet and EfficientNet-Lite0: in two folds, each
half of the photographs scored by the network that was fitted to the other. VGG-19-BN: fitted to 1,024 training images, scored on the
test set. VDSR: fitted to crops of the photographs, PSNR in dB on Set5. YOLOX-nano: an ONNX file, fitted to every other image, mAP
on the rest.

Each cell is a file of its own in the folder of its network in --work: the same command goes on where it was interrupted, and with
more methods or budgets extends the comparison. A cell that breaks has its reason. Each network's table is written to
comparison/NAME.json in --output. Times are against the dense network's on ONNX Runtime with one thread. Without DATA the
packaged ResNet-20 and images are used.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import nn

from detection import SIZE, halves, scored
from trained import Scores, find, open_network
from tuckertree._base.atomic import write_atomically
from tuckertree._base.errors import TuckertreeError
from tuckertree.tools.comparison import Fold, Settings, Task, compare

METHODS = "default,ht2,tucker2,spatial,svd,depthwise,cp,prune"
BUDGETS = "1.5x,2.5x,4x"
KNOWN = {
    "GoogLeNet": ("caffe:googlenet", "500 photographs", "the other half of them"),
    "EfficientNet-Lite0": ("timm:tf_efficientnet_lite0", "500 photographs", "the other half of them"),
    "VGG-19-BN": ("cifar10:vgg19_bn", "cifar10 (test)", "cifar10 (train)"),
    "VDSR": ("VDSR", "Set5", "crops of photographs"),
    "YOLOX-nano": ("YOLOX-nano", "COCO val2017, every other image", "the other images"),
}
"""What the page calls a network, and the images that it is scored on and fitted to."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(KNOWN)}; all by default"
    )
    parser.add_argument("--methods", default=METHODS, help="with commas, as of tuckertree compare")
    parser.add_argument("--budgets", default=BUDGETS, help="of MACs, with commas: factors or shares")
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="folders that are looked in")
    parser.add_argument("--limit", type=int, help="images that are scored on; all by default")
    parser.add_argument(
        "--work", type=Path, default=Path("out/comparison"), help="folder for the cells of each network"
    )
    parser.add_argument("--output", type=Path, help="folder for comparison/NAME.json")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.networks) - set(KNOWN)):
        parser.error(f"unknown: {', '.join(unknown)}")
    failed = False
    for name in options.networks or list(KNOWN) if options.data else ["ResNet-20"]:
        try:
            compared(name, options)
        except TuckertreeError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            failed = True
    return int(failed)


def compared(name: str, options: argparse.Namespace) -> None:
    """All cells of a network, and its file of results."""
    file = f"{name.lower()}.json"
    found = compare(
        partial(task_of, name, tuple(options.data), options.limit),
        options.methods.split(","),
        options.budgets.split(","),
        options.work / file.removesuffix(".json"),
        Settings(runtime="onnxruntime"),
    )
    if options.output:
        results = {"settings": found.settings, "outcomes": [asdict(each) for each in found.outcomes]}
        write_atomically(options.output / "comparison" / file, json.dumps(results, indent=1) + "\n")


def task_of(name: str, folders: Sequence[Path], limit: int | None) -> Task:
    """A network with its folds; each process opens it anew."""
    if name == "YOLOX-nano":
        return detector(folders, limit)
    trained = open_network(name, folders, limit)
    folds = [Fold(partial(of_module, fold.score), fold.count, fold.calibration) for fold in trained.folds]
    title, data, calibration = KNOWN.get(name, ("demo", "demo (test)", "demo (train)"))
    return Task(title, trained.model, trained.example, folds, data, calibration)


def of_module(score: Callable[[nn.Module], Scores], model: nn.Module | Path) -> Scores:
    """The score of a network that is no file."""
    assert isinstance(model, nn.Module)
    return score(model)


def detector(folders: Sequence[Path], limit: int | None) -> Task:
    """YOLOX-nano, an ONNX file, and images of COCO."""
    coco = find("coco", folders)
    calibration, images = halves(coco, limit)

    def score(model: nn.Module | Path) -> dict[str, float]:
        assert isinstance(model, Path)
        found = scored(model, coco, images)
        return {"mAP": found["map"], "AP50": found["ap50"]}

    title, data, fitted = KNOWN["YOLOX-nano"]
    fold = Fold(score, len(images), calibration)
    return Task(title, find("yolox_nano.onnx", folders), torch.zeros(1, 3, SIZE, SIZE), [fold], data, fitted)


if __name__ == "__main__":
    sys.exit(main())
