"""Network and images by their names, opened in every process anew."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tuckertree._base.errors import UsageError
from tuckertree._base.names import TrustedName
from tuckertree.network.onnx import read_onnx
from tuckertree.network.onnx.examples import example_feed
from tuckertree.network.onnx.graph import Graph
from tuckertree.tools.comparison.task import Task
from tuckertree.tools.data import ImageSet, Preprocessing, open_calibration, open_images
from tuckertree.tools.data.splits import halves, is_same_place
from tuckertree.tools.models import build, resolve
from tuckertree.tools.onnx_images import OnnxImages, open_onnx_calibration, open_onnx_images
from tuckertree.tools.opening import open_model

Images = TypeVar("Images", ImageSet, OnnxImages)


@dataclass(frozen=True)
class _Opened:
    """A network, and what opens images for it."""

    model: nn.Module | Path
    example: Tensor
    preprocessing: Preprocessing
    images: Callable[..., Any]
    calibration: Callable[..., Any]


@dataclass(frozen=True)
class NamedTask:
    """What the user named; called, it is opened.

    Attributes
    ----------
    model, weights, architecture, input_size
        As of :func:`tuckertree.tools.opening.open_model`; or an ONNX file, with the size that it leaves open.
    data, data_images
        Images to measure on, and how many of them at the most; None for all.
    calibration, calibration_images
        Images to fit to, likewise; None where methods have the weights alone. Where both would be the same images, one
        half is fitted to and the other measured on.
    preprocessing
        What is done to images otherwise than the network's name says.
    """

    model: TrustedName
    data: str
    data_images: int | None = None
    calibration: str | None = None
    calibration_images: int | None = None
    weights: Path | None = None
    architecture: TrustedName | None = None
    input_size: Sequence[int] | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> Task:
        """Open network and images.

        Raises
        ------
        TuckertreeError
            If one of them cannot be opened.
        """
        is_file = self.model.lower().endswith(".onnx")
        opened = self._onnx() if is_file else self._torch()
        images = opened.images(self.data, limit=self.data_images)
        fitted = None
        if self.calibration is not None:
            is_same = is_same_place(self.calibration, self.data)
            with warnings.catch_warnings():
                if is_same:  # then it need not be said that there are no training images: they are divided
                    warnings.simplefilter("ignore", UserWarning)
                named = self.data if is_same else self.calibration
                fitted = opened.calibration(named, limit=self.calibration_images)
            images, fitted = _apart(images, fitted, self.calibration_images)
        known = {"preprocessing": asdict(opened.preprocessing)}
        return Task.on_images(str(self.model), opened.model, opened.example, images, fitted, known)

    def _torch(self) -> _Opened:
        opened = open_model(
            self.model,
            weights=self.weights,
            architecture=self.architecture,
            input_size=None if self.input_size is None else tuple(self.input_size),
        )
        preprocessing = replace(opened.preprocessing, **self.preprocessing)
        return _Opened(
            opened.model,
            opened.example,
            preprocessing,
            partial(open_images, preprocessing=preprocessing),
            partial(open_calibration, preprocessing=preprocessing),
        )

    def _onnx(self) -> _Opened:
        file, size = Path(self.model), self.input_size
        preprocessing = Preprocessing((1, 1), **self.preprocessing)
        example, *_ = example_feed(Graph(read_onnx(file).proto), size).values()
        return _Opened(
            file,
            torch.from_numpy(example),
            preprocessing,
            partial(open_onnx_images, file, preprocessing=preprocessing, input_size=size),
            partial(open_onnx_calibration, file, preprocessing=preprocessing, input_size=size),
        )


def _apart(images: Images, fitted: Images, count: int | None) -> tuple[Images, Images]:
    """Images to measure on, and to fit to, none of them in both."""
    if images.source != fitted.source:
        return images, fitted
    if len(images) < 2:
        raise UsageError(f"{images.source} has one image, which cannot be both fitted to and measured on")
    ours, theirs = halves(len(images), count)
    return images.subset(theirs), images.subset(ours)


def demo_task(images: int | None = None) -> Task:
    """The packaged network, and packaged images to measure and to fit to: at most so many of each.

    Examples
    --------
    >>> from tuckertree.tools.comparison import demo_task
    >>> demo_task(20).folds[0].count
    20
    """
    known = resolve("demo")
    return Task.on_images(
        "demo",
        build("demo").eval(),
        torch.zeros_like(known.example_inputs()),
        open_images("demo", known.preprocessing, limit=images),
        open_calibration("demo", known.preprocessing, limit=images),
    )
