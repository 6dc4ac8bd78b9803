"""Trained networks, the unlabelled images that they are calibrated on, and their scores on others.

The folders that are looked in hold `cifar10/`, `imagenet-like/`, `models/`, `set5/` and files of weights. CIFAR-10: 1,024
training images, and the test set. The 500 photographs: each half is scored by the network that was calibrated on the
other, so no network is scored on an image it has seen. Super-resolution: crops of the photographs, and Set5.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import tuckertree as tt
from tuckertree.measure import evaluate
from tuckertree.tools.data import batches, open_images
from tuckertree.tools.data.images import ImageSet
from tuckertree.tools.data.preprocessing import Preprocessing
from tuckertree.tools.models import resolve
from tuckertree.tools.models.weights import load_weights

IMAGES, OTHER_IMAGES = 1024, 2048
CROPS, CROP, SCALES = 240, 64, (2, 3, 4)
_SIDE = 216
"""Of a photograph, a multiple of all scales."""
Scores = dict[str, float]
Budgets = dict[str, float]
"""Factors: what is to be divided, ``params`` or ``macs``, and by how much."""


@dataclass(frozen=True)
class Fold:
    """Unlabelled images, and the scores of a network that was fitted to them on others, of which there are ``count``.

    Those others with their labels, where they have some, in batches.
    """

    calibration: Tensor
    score: Callable[[nn.Module], Scores]
    count: int
    others: Sequence[tuple[Tensor, Tensor]] = ()


@dataclass(frozen=True)
class Trained:
    """A trained network and its folds."""

    model: nn.Module
    example: Tensor
    folds: tuple[Fold, ...]

    def score(self, models: Sequence[nn.Module]) -> Scores:
        """Scores over all folds, each of a model of its own."""
        found = [fold.score(model) for model, fold in zip(models, self.folds, strict=True)]
        weights = [fold.count / sum(fold.count for fold in self.folds) for fold in self.folds]
        return {
            name: sum(w * scores[name] for w, scores in zip(weights, found, strict=True)) for name in found[0]
        }


class VDSR(nn.Module):
    """Twenty 3x3 convolutions that add detail to luminance ``[N, 1, H, W]`` (arXiv 1511.04587)."""

    def __init__(self, width: int = 64, inner: int = 18) -> None:
        super().__init__()

        def layer(given: int, made: int) -> nn.Conv2d:
            return nn.Conv2d(given, made, 3, padding=1, bias=False)

        self.input, self.output = layer(1, width), layer(width, 1)
        self.residual_layer = nn.Sequential(*(nn.Sequential() for _ in range(inner)))
        for part in self.residual_layer:
            part.add_module("conv", layer(width, width))
            part.add_module("relu", nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """The picture with its detail."""
        return x + self.output(self.residual_layer(self.input(x).relu()))


def in_cifar(
    name: str, weights: str, folders: Sequence[Path], limit: int | None, *, validation: bool, images: int
) -> Trained:
    """A network of CIFAR-10; for a choice on other training images instead of the test set."""
    known = resolve(name)
    source = find("cifar10", folders)
    model = tt.build(name, weights=find(f"models/{weights}.safetensors", folders))
    if validation:
        train = open_images(source, known.preprocessing, split="train", limit=images + OTHER_IMAGES)
        parts = list(batches(train, 128))
        calibration = torch.cat([x for x, _ in parts[: images // 128]])
        return Trained(model, known.example_inputs(), (labelled(calibration, parts[images // 128 :]),))
    train = open_images(source, known.preprocessing, split="train", limit=images)
    test = open_images(source, known.preprocessing, split="test", limit=limit)
    return Trained(model, known.example_inputs(), (labelled(pixels(train), list(batches(test, 100))),))


def demo(limit: int | None = None) -> Trained:
    """The packaged network and images."""
    known = resolve("demo")
    train = open_images("demo", known.preprocessing, split="train")
    test = open_images("demo", known.preprocessing, split="test", limit=limit)
    folds = (labelled(pixels(train), list(batches(test, 100))),)
    return Trained(tt.build("demo"), known.example_inputs(), folds)


def on_photographs(
    name: str,
    weights: str,
    folders: Sequence[Path],
    limit: int | None,
    *,
    validation: bool,  # noqa: ARG001
    images: int,  # noqa: ARG001
    preprocessing: Preprocessing | None = None,
) -> Trained:
    """A network of ImageNet on the 500 photographs, in two folds."""
    known = resolve(name)
    source = find("imagenet-like", folders)
    found = open_images(source, preprocessing or known.preprocessing, split="test", limit=limit)
    every = list(batches(found, min(50, math.ceil(len(found) / 2))))
    halves = every[: len(every) // 2], every[len(every) // 2 :]
    folds = tuple(
        labelled(torch.cat([x for x, _ in seen]), unseen) for seen, unseen in (halves, halves[::-1])
    )
    model = known.build()
    load_weights(model, find(f"{weights}.safetensors", folders))
    vars(model)["architecture_name"] = known.name
    return Trained(model.float().eval(), known.example_inputs(), folds)


def super_resolution(
    weights: str,
    folders: Sequence[Path],
    limit: int | None,
    *,
    validation: bool,  # noqa: ARG001
    images: int,  # noqa: ARG001
) -> Trained:
    """VDSR; PSNR in dB on the luminance of Set5, without a border of the scale's width."""
    model = VDSR()
    load_weights(model, find(f"{weights}.safetensors", folders))
    photographs = open_images(
        find("imagenet-like", folders),
        Preprocessing((224, 224), mean=(0.0,) * 3, std=(1.0,) * 3),
        split="test",
    )
    crops = torch.stack(list(_crops(photographs)))
    pictures = [luminance(Image.open(file)) for file in sorted(find("set5", folders).glob("*.png"))[:limit]]
    score = partial(psnr, pictures=pictures)
    return Trained(model.eval(), crops[:1], (Fold(crops, score, len(pictures)),))


NETWORKS: dict[str, Callable[..., Trained]] = {
    "ResNet-20": partial(in_cifar, "cifar10:resnet20", "cifar10_resnet20"),
    "ResNet-56": partial(in_cifar, "cifar10:resnet56", "cifar10_resnet56"),
    "VGG-19-BN": partial(in_cifar, "cifar10:vgg19_bn", "own_cifar10_vgg19_bn_fp16"),
    "GoogLeNet": partial(on_photographs, "caffe:googlenet", "models/imagenet_googlenet_bvlc"),
    "EfficientNet-Lite0": partial(
        on_photographs,
        "timm:tf_efficientnet_lite0",
        "tf_efficientnet_lite0_fp16",
        preprocessing=Preprocessing((224, 224), mean=(0.5,) * 3, std=(0.5,) * 3),
    ),
    "VDSR": partial(super_resolution, "vdsr"),
}


def open_network(
    name: str,
    folders: Sequence[Path],
    limit: int | None = None,
    *,
    validation: bool = False,
    images: int = IMAGES,
) -> Trained:
    """A network by its name; without folders the packaged one.

    Parameters
    ----------
    limit
        Images that are scored on; of photographs, which are scored in halves, in all; all by default.
    validation
        Score networks of CIFAR-10 on training images that take no part, for choices.
    images
        Unlabelled images of CIFAR-10, a multiple of 128 for validation.
    """
    return NETWORKS[name](folders, limit, validation=validation, images=images) if folders else demo(limit)


def network_and_budget(text: str) -> tuple[str, Budgets]:
    """Read ``ResNet-20:params=3.8``."""
    name, _, factors = text.partition(":")
    if name not in NETWORKS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(NETWORKS)}")
    return name, budget(factors)


def budget(text: str) -> Budgets:
    """Read ``params=3.8``."""
    kind, _, factor = text.partition("=")
    if kind not in ("params", "macs") or not re.fullmatch(r"\d+(\.\d+)?", factor):
        raise argparse.ArgumentTypeError(f"a budget is such as params=3.8 or macs=2, not {text!r}")
    return {kind: float(factor)}


def rule_of(factors: Budgets) -> tt.Budget:
    """The budget that they mean."""
    shares: dict[str, Any] = {kind: 1 / factor for kind, factor in factors.items()}
    return tt.Budget(**shares)


def title_of(factors: Budgets) -> str:
    """As tables show them."""
    return ", ".join(f"{kind} {factor:g}x" for kind, factor in factors.items())


def find(name: str, folders: Sequence[Path]) -> Path:
    """A file or folder in the first of the folders that has it."""
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    raise SystemExit(f"there is no {name} in {', '.join(map(str, folders))}")


def labelled(calibration: Tensor, scored: list[tuple[Tensor, Tensor]]) -> Fold:
    """A fold that is scored by top-1 in percent."""
    count = sum(len(labels) for _, labels in scored)
    return Fold(calibration, lambda model: {"top1": evaluate(model, scored).top1}, count, scored)


def pixels(images: ImageSet) -> Tensor:
    """All images of a set."""
    return torch.cat([batch for batch, _ in batches(images, 256)])


def luminance(picture: Image.Image) -> Tensor:
    """Luminance ``[H, W]`` of a picture in 0..1, as ITU-R BT.601 has it."""
    rgb = torch.from_numpy(np.asarray(picture.convert("RGB"), np.float32))
    return (rgb @ torch.tensor([65.481, 128.553, 24.966]) / 255 + 16) / 255


def blurred(picture: Tensor, scale: int) -> Tensor:
    """A picture ``[H, W]`` made smaller by a scale and as large again, with Pillow's bicubic filter."""
    size = picture.shape[1], picture.shape[0]
    large = Image.fromarray(picture.numpy())
    small = large.resize((size[0] // scale, size[1] // scale), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(small.resize(size, Image.Resampling.BICUBIC)).copy())


def _crops(photographs: ImageSet) -> Iterator[Tensor]:
    """Blurred crops ``[1, 64, 64]`` of as many photographs, at the scales in turn."""
    weights = torch.tensor([65.481, 128.553, 24.966])[:, None, None] / 255
    generator = torch.Generator().manual_seed(0)
    for number in range(CROPS):
        picture = (photographs[number % len(photographs)][0] * weights).sum(0) + 16 / 255
        top, left = torch.randint(_SIDE - CROP, (2,), generator=generator).tolist()
        scale = SCALES[number % len(SCALES)]
        yield blurred(picture[:_SIDE, :_SIDE], scale)[None, top : top + CROP, left : left + CROP]


@torch.no_grad()
def psnr(model: nn.Module, pictures: Sequence[Tensor]) -> Scores:
    """Peak signal-to-noise ratio in dB at each scale, the mean over the pictures."""
    found: Scores = {}
    for scale in (2, 4):
        ratios = []
        for picture in pictures:
            sharp = picture[: len(picture) // scale * scale, : picture.shape[1] // scale * scale]
            made = model(blurred(sharp, scale)[None, None])[0, 0].clamp(0, 1)
            error = (made - sharp)[scale:-scale, scale:-scale].square().mean()
            ratios.append(-10 * math.log10(float(error)))
        found[f"dB x{scale}"] = sum(ratios) / len(ratios)
    return found
