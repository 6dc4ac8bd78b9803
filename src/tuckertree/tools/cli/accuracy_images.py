"""Images of a budget that is said in accuracy: some to fit to, others to search with and to prove."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuckertree.tools.cli.options import chosen_preprocessing, images_of, parse_size, prepared

if TYPE_CHECKING:
    from torch import Tensor

    from tuckertree.tools.data import ImageSet
    from tuckertree.tools.onnx_images import OnnxImages
    from tuckertree.tools.opening import OpenModel

_BATCH = 64


@dataclass(frozen=True)
class LabelledImages:
    """Labelled images in batches, to be iterated again and again."""

    images: ImageSet | OnnxImages

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        from tuckertree.tools.data import ImageSet, batches

        if isinstance(self.images, ImageSet):
            return batches(self.images, _BATCH)
        return self.images.batches(_BATCH)


def open_accuracy_images(
    model: str,
    opened: OpenModel | None,
    data: str,
    calibration: str | None,
    *,
    limit: int | None,
    count: int,
    input_size: Sequence[str] | None,
    **images_as: Any,
) -> tuple[ImageSet | OnnxImages, LabelledImages]:
    """Images to fit to, and labelled ones; those of ``data`` are divided where both would be the same.

    Without ``calibration`` they are the training images of ``data``, if it has such.
    """
    from tuckertree.tools.data.splits import halves, is_same_place

    labelled = _labelled(model, opened, data, limit, input_size, images_as)
    calibration = data if calibration is None or is_same_place(calibration, data) else calibration
    with warnings.catch_warnings():
        if calibration == data:
            warnings.simplefilter(
                "ignore", UserWarning
            )  # that there are no training images: they are divided
        images = images_of(calibration, model, opened, count, input_size, **images_as)
    assert images is not None
    if images.source != labelled.source:
        return images, LabelledImages(labelled)
    to_fit, others = halves(len(labelled), count)
    return labelled.subset(to_fit), LabelledImages(labelled.subset(others))


def _labelled(
    model: str,
    opened: OpenModel | None,
    data: str,
    limit: int | None,
    input_size: Sequence[str] | None,
    images_as: dict[str, Any],
) -> ImageSet | OnnxImages:
    from tuckertree.tools.data import Preprocessing, open_images

    if opened is not None:
        _ = opened.example  # one input, without a name
        return open_images(data, prepared(opened, **images_as).preprocessing, limit=limit)
    from tuckertree.tools.onnx_images import open_onnx_images

    preprocessing = Preprocessing((1, 1), **chosen_preprocessing(**images_as))
    return open_onnx_images(model, data, preprocessing, input_size=parse_size(input_size), limit=limit)
