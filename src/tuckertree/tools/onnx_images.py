"""Images in the layout that an ONNX model takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tuckertree._base.errors import UsageError
from tuckertree.network.onnx.examples import example_feed
from tuckertree.network.onnx.files import read_onnx
from tuckertree.network.onnx.graph import Graph
from tuckertree.network.onnx.inputs import Sizes, element_type
from tuckertree.tools.data import ImageSet, Preprocessing, open_calibration, open_images

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow has it


@dataclass(frozen=True)
class Layout:
    """How a model takes its images.

    Attributes
    ----------
    channels
        3, or 1 for grey.
    size
        Height and width.
    last
        Whether the channels come last.
    integers
        Whether it takes bytes, and normalises them itself.
    """

    channels: int
    size: tuple[int, int]
    last: bool
    integers: bool

    @classmethod
    def of(cls, graph: Graph, input_size: Sizes = None) -> Layout:
        """Layout of a model's input.

        Raises
        ------
        UsageError
            If it takes no images, or their size is not known.
        """
        if len(graph.inputs) != 1:
            raise UsageError(
                "the model takes several inputs, images are one; calibrate it from Python, with a mapping of their names"
            )
        ((name, example),) = example_feed(graph, input_size).items()
        shape, dtype = example.shape[1:], element_type(graph, name)
        last = len(shape) == 3 and shape[0] not in (1, 3) and shape[2] in (1, 3)
        if (
            len(shape) != 3
            or shape[2 if last else 0] not in (1, 3)
            or (dtype.kind != "f" and dtype != np.uint8)
        ):
            raise UsageError(
                f"the model's input {name} {list(example.shape)} {dtype} takes no images; calibrate it from Python"
            )
        height, width = shape[:2] if last else shape[1:]
        return cls(shape[2 if last else 0], (height, width), last, dtype == np.uint8)


class OnnxImages(Dataset[Tensor]):
    """Images as a model takes them; item ``i`` is ``[C, H, W]`` or ``[H, W, C]``, float32 or uint8.

    Attributes
    ----------
    source
        Where they come from, for messages.
    """

    def __init__(self, images: ImageSet, layout: Layout) -> None:
        self.source = images.source
        self._images, self._layout = images, layout

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Whole batches, in order, of images and labels, -1 where there are none; the last may be smaller."""
        for start in range(0, len(self), size):
            numbers = range(start, min(start + size, len(self)))
            labels = [self._images.label(number) for number in numbers]
            yield torch.stack([self[number] for number in numbers]), torch.tensor(labels)

    def subset(self, numbers: Sequence[int]) -> OnnxImages:
        """Return some of these images, by their numbers here, as a set of its own."""
        return OnnxImages(self._images.subset(numbers), self._layout)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        pixels = self._images.pixels(index)
        preprocessing = self._images.preprocessing
        if self._layout.integers:
            image = (pixels.flip(0) if preprocessing.channels == "bgr" else pixels).to(torch.float32)
        else:
            image = preprocessing.normalise(pixels[None])[0]
        if self._layout.channels == 1:
            image = torch.tensordot(torch.tensor(_GREY), image, 1)[None]
        if self._layout.integers:
            image = image.round().to(torch.uint8)
        return image.permute(1, 2, 0).contiguous() if self._layout.last else image


def open_onnx_calibration(
    model: str | Path,
    source: str | Path,
    preprocessing: Preprocessing | None = None,
    *,
    input_size: Sizes = None,
    limit: int | None = None,
) -> OnnxImages:
    """Open calibration images for an ONNX model that takes one input of images.

    Parameters
    ----------
    model
        The ONNX file; its input says layout, size and type.
    source
        As of :func:`tuckertree.tools.data.open_calibration`.
    preprocessing
        Scale, mean, deviation and order of the channels; the size is the model's own. By default as for
        ImageNet. A model that takes bytes gets them as they are.
    input_size
        As of :func:`tuckertree.onnx_models.compress_onnx`.

    Raises
    ------
    TuckertreeError
        If the model or the images cannot be used.
    """
    layout = Layout.of(Graph(read_onnx(model).proto), input_size)
    return OnnxImages(open_calibration(source, _sized(preprocessing, layout), limit=limit), layout)


def open_onnx_images(
    model: str | Path,
    source: str | Path,
    preprocessing: Preprocessing | None = None,
    *,
    input_size: Sequence[int] | None = None,
    split: str | None = None,
    limit: int | None = None,
) -> OnnxImages:
    """Open the images of one split for an ONNX model; as :func:`open_onnx_calibration` and ``open_images``."""
    layout = Layout.of(Graph(read_onnx(model).proto), input_size)
    images = open_images(source, _sized(preprocessing, layout), split=split, limit=limit)
    return OnnxImages(images, layout)


def _sized(preprocessing: Preprocessing | None, layout: Layout) -> Preprocessing:
    return replace(preprocessing or Preprocessing((1, 1)), size=layout.size, resize=min(layout.size))
